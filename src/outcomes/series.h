/*
 * Series: the combinations of service, operation, side, backend, role, reason, result and answered that were
 * seen.
 *
 * Why:       rows and per-minute sums refer to a series by a number, so that a row is short and a sum cheap;
 *            Prometheus' counters are kept here. Organizations and users are in no series: their number has
 *            no bound.
 * Ownership: the table owns its series until it is freed; pointers to them stay good until then.
 * Threads:   none; the recorder guards it.
 * Limits:    SERIES_MAX; what comes after is counted under the operation `(other)` of its service, at 2 ×
 *            SERIES_MAX under the service `(other)`.
 */
#ifndef OUTCOMES_SERIES_H
#define OUTCOMES_SERIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "outcomes/histogram.h"
#include "outcomes/outcome.h"

#define SERIES_MAX 4096
#define SERIES_OTHER "(other)"

/* Upper bounds of Prometheus' buckets, µs; the last one is +Inf. */
#define SERIES_LATENCY_BOUNDS \
	100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, \
		5000000, 10000000, 30000000, 60000000, 300000000, 900000000, 3600000000
#define SERIES_LATENCY_BUCKETS 22

struct series_minute {	/* sums of one minute; in memory while its minute is open */
	int64_t minute; /* since 1970 */
	uint64_t count, latency_us;
	struct histogram histogram;
	bool dirty;
	struct series *series;
	struct series_minute *next;
};

struct series {
	char service[32], operation[64], backend[16];
	uint8_t side, role, reason, result;
	bool answered;
	/* since the start of the process */
	uint64_t count, latency_us, buckets[SERIES_LATENCY_BUCKETS]; /* buckets: not cumulated */
	/* the store's */
	int64_t row; /* of table `series`; 0 = not looked up since the file was opened */
	struct series_minute *minutes;
	struct {
		int64_t time_us;
		char organization[64];
		bool dirty;
	} last; /* the newest attempt */
	/* the table's */
	struct series *next_in_slot, *next;
};

struct series_table;

int series_table_new(struct series_table **ret);
struct series_table *series_table_free(struct series_table *t);
/* The series of an outcome, made when new; NULL if out of memory. */
struct series *series_of(struct series_table *t, const struct outcome *o);
/* Counts an outcome into the sums since start. */
void series_count(struct series *s, const struct outcome *o);
/* In the order in which they were first seen; NULL at the end. */
struct series *series_first(const struct series_table *t);
int64_t series_latency_bound(unsigned bucket); /* µs; INT64_MAX for the last */

#endif
