/*
 * Sums per day, beside those per hour that they are made of: so that a page over a year reads 365 rows of a
 * series, not 8,760.
 *
 * In the file: tables `rollup_days` (day, series, count, latency_us, histogram) and `summed_days`, which
 *            says of which days it has them. They are a cache: triggers take a day out as soon as any of
 *            its hours is written or deleted, whichever program does it, an older one that knows nothing of
 *            them included; what has no sum is read by the hour. So they are no new version of the schema.
 * Threads:   made on the recorder's, within its transaction; read from any.
 */
#ifndef OUTCOMES_ROLLUP_DAYS_H
#define OUTCOMES_ROLLUP_DAYS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/db.h"
#include "base/err.h"

#define ROLLUP_DAY_MINUTES 1440

struct rollup_days;

/* Makes the tables where there are none. */
int rollup_days_new(struct db *db, struct rollup_days **ret, struct err *e);
struct rollup_days *rollup_days_free(struct rollup_days *d); /* NULL is allowed; returns NULL */

/* Sums up one day whose sums are all of hours, and which is not the first one (of which retention takes
 * hours): 1 = one was summed, 0 = there is none. db.h's errors. */
int rollup_days_step(struct rollup_days *d, struct err *e);

/* All sums of [since, until) (minutes since 1970): `fn` gets rows of minute, series, count, histogram. With
 * `days`, days that are summed and whole in it come as one row for each series, at their first minute.
 * A negative answer of fn ends it and is returned. */
int rollups_read(struct db *db, int64_t since, int64_t until, bool days,
		 int (*fn)(void *arg, struct db_stmt *q, struct err *e), void *arg, struct err *e);

DEFINE_CLEANUP(struct rollup_days *, rollup_days_free)

#endif
