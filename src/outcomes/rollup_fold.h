/*
 * Folding: sums per minute that are older than two days become sums per hour.
 *
 * Why:       sums are kept for a year and more. Per minute they would outgrow the rows and make a report over
 *            all of them slow; per hour a year is as much as six days were. The histograms add up without
 *            loss.
 * In the file: the sum of an hour is at the hour's first minute; table `folded` holds the minute up to
 * which that is so.
 * Threads:   the recorder's, within its transaction.
 */
#ifndef OUTCOMES_ROLLUP_FOLD_H
#define OUTCOMES_ROLLUP_FOLD_H

#include <stdint.h>

#include "base/cleanup.h"
#include "base/db.h"
#include "base/err.h"

#define ROLLUP_FOLD_AFTER_MINUTES 2880
#define ROLLUP_FOLD_SCHEMA \
	"CREATE TABLE folded (until INTEGER NOT NULL); INSERT INTO folded VALUES (-9223372036854775807);"

struct rollup_fold;

int rollup_fold_new(struct db *db, struct rollup_fold **ret, struct err *e);
struct rollup_fold *rollup_fold_free(struct rollup_fold *f); /* NULL is allowed; returns NULL */

/* Folds the oldest hour that ends by `before` (a minute since 1970): 1 = one was folded, 0 = there is
 * none. db.h's errors. */
int rollup_fold_step(struct rollup_fold *f, int64_t before, struct err *e);

/* The first minute of the hour that a minute is in. */
static inline int64_t rollup_hour(int64_t minute)
{
	int64_t rest = minute % 60;
	return minute - (rest < 0 ? rest + 60 : rest);
}

#endif
