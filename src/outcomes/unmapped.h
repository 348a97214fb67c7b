/*
 * Unmapped: the patterns of calls that match no operation, with how often and when. Pure.
 *
 * Why:       before legacy is switched off someone must know what else it is asked for; callers choose the
 *            paths, so their number is bounded here.
 * Limits:    UNMAPPED_PATTERNS_MAX of a service: the least frequent (of equals the oldest) makes room and is
 *            counted under UNMAPPED_OTHERS. Behind the first segment, where UNMAPPED_SIBLINGS words occur at
 *            one place they are names, and become UNMAPPED_NAME. UNMAPPED_FRESH new ones from one compact to
 *            the next; what a flood brings beyond is of the others. UNMAPPED_MAX in all: more services are
 *            left out.
 * Ownership: the table owns its entries; pointers are good until the next add.
 * Threads:   none; its owner guards it.
 */
#ifndef OUTCOMES_UNMAPPED_H
#define OUTCOMES_UNMAPPED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "outcomes/path_pattern.h"

#define UNMAPPED_PATTERNS_MAX 200
#define UNMAPPED_SIBLINGS 16
#define UNMAPPED_FRESH 256
#define UNMAPPED_MAX 8192
#define UNMAPPED_NAME "{name}"
#define UNMAPPED_OTHERS "(other)"

struct unmapped_pattern {
	char service[32], method[PATH_PATTERN_METHOD], pattern[PATH_PATTERN_MAX];
	uint64_t count, not_found;	/* not_found: of count, those that legacy answered with 404 */
	int64_t last_us, last_found_us; /* of all, and of those that were answered otherwise; 0 = never */
	bool stored, dirty;		/* the store's: in the file, and differing from it */
	bool gone; /* it has become part of another one, or of UNMAPPED_OTHERS; counts nothing */
};

struct unmapped_table {
	struct unmapped_pattern *patterns;
	size_t n, capacity, fresh;
};

/* Adds the counts of `p` to its pattern, or to what that has become. After -ENOMEM the counts are not whole:
 * load it anew. */
int unmapped_add(struct unmapped_table *t, const struct unmapped_pattern *p);
/* As it is in the file: no limit is checked. */
int unmapped_load(struct unmapped_table *t, const struct unmapped_pattern *p);
/* Forgets what is gone: it has been deleted from the file. */
void unmapped_compact(struct unmapped_table *t);
void unmapped_release(struct unmapped_table *t);

#endif
