/*
 * Report sums: what one router's records say of a span of time, in a form that can be added up.
 *
 * Why:       a report over several routers is made of their sums. Rates and percentiles cannot be put
 *            together from rates and percentiles: here are the counts of each series, and how its latencies
 *            are spread.
 * Ownership: the sums own everything in them.
 * Wire:      JSON (/_admin/report.json?form=sums), version REPORT_SUMS_VERSION: series as lists of
 *            service, operation, backend, side, role, reason, result, answered, count, and buckets with their
 *            counts in turn; minutes as lists of the minute and executions, successes and counted attempts of
 *            the legacy side, then of the task side.
 * Limits:    what is read from another router is not trusted: SERIES_MAX, REPORT_MINUTES_MAX.
 */
#ifndef OUTCOMES_REPORT_SUMS_H
#define OUTCOMES_REPORT_SUMS_H

#include "outcomes/histogram.h"
#include "outcomes/report.h"

#define REPORT_SUMS_VERSION 1
#define REPORT_MINUTES_MAX 100000
#define REPORT_STORE_MAX 65 /* hex of a hash */

struct report_series {
	char service[32], operation[64], backend[16];
	int side, role, reason, result; /* enumerations of outcome.h */
	bool answered;
	bool left_out; /* of an operation without a task, or of none: it cannot move (design, "Standing") */
	uint64_t count;
	struct histogram_sum *latencies; /* of attempts that are counted; NULL: none */
};

struct report_minute { /* or hour, before `folded` */
	int64_t minute;
	uint64_t executions[OUTCOME_SIDE_COUNT], success[OUTCOME_SIDE_COUNT], counted[OUTCOME_SIDE_COUNT];
};

struct report_sums {
	char store[REPORT_STORE_MAX]; /* the same file has the same one; "": not known */
	int64_t since_us, until_us;   /* as rounded; 0 = open */
	bool from_rows;
	int64_t folded; /* before this minute sums are per hour; INT64_MIN: none is */
	uint64_t dropped;
	struct demo_history demo;	   /* what of the file was made up */
	bool any;			   /* there are records in the span; then: */
	int64_t first_minute, last_minute; /* of them, whatever the filter; both included */
	struct report_series *series;	   /* by the filter */
	size_t series_count;
	struct report_minute *minutes; /* ascending */
	size_t minute_count;
};

/* Of o->path. Errors as of report_make. */
int report_sums_read(const struct report_options *o, struct report_sums **ret, struct err *e);
struct report_sums *report_sums_free(struct report_sums *s); /* NULL is fine; returns NULL */

int report_sums_to_json(const struct report_sums *s, struct buf *out);
/* -EPROTO with a sentence about `name`: another version's, or not ours. */
int report_sums_parse(const char *name, struct span json, struct report_sums **ret, struct err *e);

/* Sets left_out of each series, by the reasons that all of them have. */
void report_sums_mark_left_out(struct report_sums *s);
/* What is counted into a minute, unless it is left out. -E2BIG beyond REPORT_MINUTES_MAX, -ENOMEM. */
int report_sums_add_minute(struct report_sums *s, const struct report_series *of, int64_t minute, uint64_t n);

DEFINE_CLEANUP(struct report_sums *, report_sums_free)

/* The report over all of them, as if one router had recorded it all; `o` says what it is of. -EEXIST: two of
 * them are of the same file. */
int report_merge(const struct report_options *o, struct report_sums *const *sums, size_t n,
		 struct report **ret, struct err *e);

#endif
