/*
 * Demo history: the mark in outcomes.db that part of it was made up (scripts/run --demo-history).
 *
 * Table `demo_history`, one row: from when until when (µs, wall clock). What is in that span is not true;
 * what is after it is real. Whoever shows figures of the file says so beside them: migration-status, the
 * page, the report's JSON.
 *
 * Why:       made-up figures without a mark are a lie that outlives the demonstration. The mark is in the
 *            file, since that is what is copied and read elsewhere; a table of its own, and no new version,
 *            since hardly a file has it.
 * Errors:    db.h's.
 * Threads:   any; reads with a connection of its own.
 */
#ifndef OUTCOMES_DEMO_HISTORY_H
#define OUTCOMES_DEMO_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/db.h"
#include "base/err.h"

struct demo_history {
	int64_t since_us, until_us; /* both 0: none */
};

int demo_history_write(struct db *db, const struct demo_history *h, struct err *e);
int demo_history_of(struct db *db, struct demo_history *ret, struct err *e);
int demo_history_read(const char *path, struct demo_history *ret, struct err *e);

static inline bool demo_history_is_in(const struct demo_history *h, int64_t since_us, int64_t until_us)
{
	return h->until_us && since_us < h->until_us && (!until_us || until_us > h->since_us);
}

/* All that either of both was made up in. */
static inline void demo_history_add(struct demo_history *to, const struct demo_history *h)
{
	if (!to->until_us || h->since_us < to->since_us)
		to->since_us = h->since_us;
	if (h->until_us > to->until_us)
		to->until_us = h->until_us;
}

/* "The figures before 2026-11-28 19:30 UTC are made up (--demo-history)." */
#define DEMO_HISTORY_TEXT 96
void demo_history_text(const struct demo_history *h, char text[DEMO_HISTORY_TEXT]);

#endif
