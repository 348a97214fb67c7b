/*
 * Report: what outcomes.db says about a span of time, by the definitions of the design ("Words").
 *
 *   executions    answers given to callers; each counts for the side that gave it
 *   counted       attempts that a success rate is made of: primary and fallback attempts that ended in
 *                 success, failure,
 *                 timeout or unknown. Rejected and cancelled ones are in no denominator, shadows are apart
 *   success rate  success / counted; its interval is Wilson's for 95 %
 *   p50, p95, p99 over the latencies of the counted attempts; at most 1.6 % off (outcomes/histogram.h)
 *   reasons       of decisions, hence of primary attempts
 *   can move      has a task; what cannot move is in no total (design, "Standing")
 *
 * Why:       made from the sums per minute, so that it costs the same over ten outcomes and ten million. Only
 *            a filter by organization reads rows, since sums carry none; it reaches back as far as rows are
 *            kept.
 * Ownership: the report owns everything in it.
 * Threads:   any; reads with a connection of its own, and never holds up the recorder.
 * Times:     made from sums, the span begins and ends at whole minutes, beyond two days ago at whole hours:
 *            since is rounded down, until up; the report says to what.
 */
#ifndef OUTCOMES_REPORT_H
#define OUTCOMES_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "outcomes/demo_history.h"
#include "outcomes/outcome.h"

#define REPORT_FEW 20	      /* a rate of fewer counted attempts is marked as resting on few */
#define REPORT_POINTS_MAX 120 /* of the series over time */
#define REPORT_OPERATIONS_MAX 10000
#define REPORT_BACKENDS_MAX 8 /* of one operation; what others did is in its task side alone */

struct report_options {
	const char *path;
	int64_t since_us;    /* 0 = from the first on */
	int64_t until_us;    /* 0 = to the last; else outcomes before it */
	const char *service; /* NULL = all; likewise below */
	const char *operation;
	const char *organization;
	/* The series over time (`points`) is not wanted: whole days may be read as one (rollup_days.h). */
	bool no_points;
	bool exact; /* from rows, to the microsecond: for short spans that end now */
};

struct report_rate {
	uint64_t results[OUTCOME_RESULT_COUNT];
	uint64_t counted;
	bool known;			/* counted > 0: what follows means something */
	bool few;			/* counted < REPORT_FEW */
	double rate, low, high;		/* 0 … 1 */
	int64_t p50_us, p95_us, p99_us; /* -1 = not known */
};

struct report_side {
	uint64_t executions;
	double share;	    /* 0 … 1 of the executions; 0 when there are none */
	uint64_t fallbacks; /* attempts in that role */
	struct report_rate attempts, shadows;
};

struct report_backend {
	char name[16];
	struct report_side side; /* its part of the task side; share is of the operation's executions, too */
};

struct report_operation {
	char service[32], operation[64];
	bool can_move; /* false: without a task, or unknown paths; in no total and no point */
	uint64_t executions;
	/* executions from when it had no task; of the total: of all that cannot move. In no other number */
	uint64_t left_out;
	struct report_side sides[OUTCOME_SIDE_COUNT];
	struct report_backend backends[REPORT_BACKENDS_MAX]; /* by name */
	size_t n_backends;
	uint64_t reasons[REASON_COUNT];
};

struct report_point {
	int64_t time_us; /* its begin */
	uint64_t executions[OUTCOME_SIDE_COUNT], success[OUTCOME_SIDE_COUNT], counted[OUTCOME_SIDE_COUNT];
};

struct report {
	int64_t made_us, since_us, until_us; /* since, until: as rounded; 0 = open */
	bool from_rows;
	struct report_operation total;	     /* service and operation "" */
	struct report_operation *operations; /* by service and operation */
	size_t operation_count;
	struct report_point *points; /* in order of time, without gaps; none when there is nothing */
	size_t point_count;
	int64_t point_us; /* width of a point */
	uint64_t dropped; /* outcomes lost in the span, whatever the filter */
	/* What was made up within the span, of any source: to be said beside the figures. Both 0: nothing. */
	struct demo_history demo;
	char service[32], operation[64], organization[64]; /* the filters; "" = all */
};

/* Errors: db.h's; -ENOENT no such file, -EMEDIUMTYPE not a database or not ours, -EPROTO of a newer version,
 * -ENODATA empty (made, but nothing was ever written to it), -EBUSY locked, -E2BIG more than
 * REPORT_OPERATIONS_MAX operations. */
int report_make(const struct report_options *o, struct report **ret, struct err *e);
struct report *report_free(struct report *r); /* NULL is allowed; returns NULL */

/* Of `part` of `all` > 0, for 95 %: 0 … 1. */
void report_interval(uint64_t part, uint64_t all, double *ret_low, double *ret_high);

/* As the programs and the dashboard show it. `ret` in 0 … 100 with one decimal, never rounded to 100.0 or
 * 0.0 unless it is. */
double report_percent(double share);
const char *report_side_name(enum outcome_side side); /* legacy_services, task_abstraction */

/* All append and give buf's errors. The text begins with the lines that scripts parse (design,
 * "Programs"). */
int report_to_json(const struct report *r, struct buf *out);
int report_to_csv(const struct report *r, struct buf *out);
/* columns: of the terminal; 0 = 80 */
int report_to_text(const struct report *r, unsigned columns, struct buf *out);
/* The same in two: those lines, and the rest. */
int report_head_to_text(const struct report *r, struct buf *out);
int report_rest_to_text(const struct report *r, unsigned columns, struct buf *out);

DEFINE_CLEANUP(struct report *, report_free)

#endif
