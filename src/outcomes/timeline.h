/*
 * Timeline: what happened when, over a whole span of time up to its end: silence is there as points of
 * nothing.
 *
 * Why:       a line that ends at the last request looks like one that ends now. And a chart over time needs
 *            the latencies of each point, which the report over a span does not keep apart.
 * Counted:   as in the report (outcomes/report.h), shadows not; by the filters, and only operations that
 *            `key` knows (the page: those that can move).
 * Set:       what was set, as a share of the point's executions: of several operations as their traffic
 *            weighs them, so that it is comparable with the share that was measured.
 * Points:    begin at multiples of their width, which is a round one, so that there are at most
 *            TIMELINE_POINTS_MAX.
 * Ownership: the timeline owns everything in it.
 * Threads:   any; reads with a connection of its own.
 */
#ifndef OUTCOMES_TIMELINE_H
#define OUTCOMES_TIMELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "outcomes/outcome.h"

#define TIMELINE_POINTS_MAX 124
#define SPARK_MINUTES 60

struct timeline_options {
	const char *path;
	int64_t since_us;				/* 0 = from the first on */
	int64_t until_us;				/* not 0 */
	const char *service, *operation, *organization; /* NULL = all */
	/* A number for an operation that counts; -1: it does not. NULL: all do, and what was set is not
	 * known */
	long (*key)(void *arg, const char *service, const char *operation);
	/* What was set for it at that time, 0 … 1; -1: not known */
	double (*set)(void *arg, long key, int64_t time_us);
	void *arg;
};

struct timeline_point {
	int64_t time_us; /* its begin */
	uint64_t executions[OUTCOME_SIDE_COUNT], success[OUTCOME_SIDE_COUNT], counted[OUTCOME_SIDE_COUNT];
	int64_t p95_us[OUTCOME_SIDE_COUNT]; /* -1 = nothing was counted */
	double set;			    /* 0 … 1; -1 = not known, or no executions */
};

struct timeline {
	int64_t since_us, until_us, point_us;
	size_t n; /* 0: nothing was ever recorded, and since_us was 0 */
	struct timeline_point points[TIMELINE_POINTS_MAX];
};

/* Errors: report_make's. */
int timeline_read(const struct timeline_options *o, struct timeline **ret, struct err *e);
struct timeline *timeline_free(struct timeline *t); /* NULL is allowed; returns NULL */
DEFINE_CLEANUP(struct timeline *, timeline_free)

/* The executions of one operation in each of the last 60 minutes, the newest one last. */
struct spark {
	char service[32], operation[64];
	uint32_t executions[SPARK_MINUTES][OUTCOME_SIDE_COUNT];
};
struct sparks {
	size_t n;
	struct spark *all; /* of those that had any */
};
int sparks_read(const char *path, int64_t until_us, struct sparks **ret, struct err *e);
struct sparks *sparks_free(struct sparks *s); /* NULL is allowed; returns NULL */
DEFINE_CLEANUP(struct sparks *, sparks_free)
/* NULL: it had none. */
const struct spark *sparks_of(const struct sparks *s, const char *service, const char *operation);

#endif
