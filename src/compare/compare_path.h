/*
 * Compare paths: how a place in an answer is written, and patterns over such places. Pure.
 *
 *   status                  the status code
 *   header:content-type     a field, its name in lower case
 *   body:                   the whole body
 *   body:/items/0/price     a place in a JSON body: a JSON pointer (RFC 6901)
 *
 * In a *normalized* path every array index is `*`, so that what differs in each element is one path. In a
 * pattern `*` is any one member or element, `**` any number of them, none included; an index is that element.
 *
 * Matching:  a pattern's state after some steps is a set of positions, a bit for each, so that `**` costs no
 *            more than another step.
 * Threads:   a pattern is read by any number of threads.
 */
#ifndef COMPARE_COMPARE_PATH_H
#define COMPARE_COMPARE_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/span.h"

#define COMPARE_STEPS_MAX 30  /* of a pattern */
#define COMPARE_PATH_SIZE 200 /* bytes of a path's text, the NUL included; what is longer ends in … */

enum compare_part { COMPARE_PART_STATUS, COMPARE_PART_HEADER, COMPARE_PART_BODY };

struct compare_pattern {
	enum compare_part part;
	unsigned n_steps;
	struct span steps[COMPARE_STEPS_MAX]; /* unescaped; of a header: its name */
	char *text; /* what the steps lie in; owned where compare_pattern_parse made it */
};

/* NULL, or what is wrong, as a phrase: "needs status, header: or body:". Nothing is kept on errors. */
const char *compare_pattern_parse(struct span text, struct compare_pattern *ret);
/* The same in the caller's memory, which is written to and lives as long as the pattern; nothing to
 * release. */
const char *compare_pattern_read(char *text, struct compare_pattern *ret);
void compare_pattern_release(struct compare_pattern *p);

/* Positions before any step of a body, and after one more. `index`: of an array's element, else -1, and
 * `name` is the member's. */
uint32_t compare_pattern_start(const struct compare_pattern *p);
uint32_t compare_pattern_step(const struct compare_pattern *p, uint32_t at, struct span name, int64_t index);

static inline bool compare_pattern_matched(const struct compare_pattern *p, uint32_t at)
{
	return at >> p->n_steps & 1;
}

/* Whether a written path (normalized, not cut) matches, or lies beneath a place that does. */
bool compare_pattern_covers(const struct compare_pattern *p, const char *path);

/* A path being written. */
struct compare_path {
	char text[COMPARE_PATH_SIZE];
	size_t length;
	bool cut;
};

void compare_path_init(struct compare_path *p, const char *text);
/* One step further; *name escaped and sanitized. Returns what compare_path_leave takes back. */
struct compare_path_mark {
	size_t length;
	bool cut;
};
struct compare_path_mark compare_path_enter(struct compare_path *p, struct span name);
void compare_path_leave(struct compare_path *p, struct compare_path_mark mark);

#endif
