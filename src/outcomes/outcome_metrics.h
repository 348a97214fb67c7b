/*
 * /metrics of what the recorder has counted since its start (base/metric_text.h).
 *
 *   migration_executions_total{service,operation,side}
 *       answers given to callers
 *   migration_attempts_total{service,operation,side,backend,role,result}
 *   migration_decisions_total{service,operation,reason}
 *       requests, by why they were decided, or refused, as they were
 *   migration_pinned_requests_total{service,operation,side}
 *       of those by a pin, of operations that have them
 *   migration_attempt_duration_seconds{service,operation,side,role}
 *       histogram of the counted attempts (success, failure, timeout, unknown), so that it matches the
 *       report's percentiles
 *   migration_outcomes_written_total, …_dropped_total, …_failing, …_queued, …_queue_slots
 *
 * From the start: what an operation of the configuration can have is there with 0, since a series that begins
 *            with its first error has no increase for Prometheus to see. Of OUTCOME_METRICS_OPERATIONS
 *            operations; of more, when it first happens.
 * Limits:    series.h's: no organization, user or path is in a label.
 * Threads:   any; not the hot path. Counters begin at 0 with the process, as Prometheus expects.
 * Other metrics: programs/router/metrics/.
 */
#ifndef OUTCOMES_OUTCOME_METRICS_H
#define OUTCOMES_OUTCOME_METRICS_H

#include "base/metric_text.h"
#include "outcomes/recorder.h"

#define OUTCOME_METRICS_OPERATIONS 512
#define OUTCOME_METRICS_BACKENDS 8

/* An operation as configured; texts are borrowed. */
struct outcome_metrics_operation {
	const char *service, *operation; /* as they are recorded */
	bool has_task, has_pins, may_shadow;
	bool unmapped; /* stands for what no operation matches */
	const char *backends[OUTCOME_METRICS_BACKENDS];
	size_t n_backends;
};

/* -ENOMEM; the buffer's errors are in it. */
int outcome_metrics_render(struct recorder *r, const struct outcome_metrics_operation *expected, size_t n,
			   struct metric_text *out);

/* Answers to callers by side, of each operation that had some, since the start. */
struct outcome_total {
	char service[32], operation[64];
	uint64_t answered[OUTCOME_SIDE_COUNT];
};
struct outcome_totals {
	size_t n;
	struct outcome_total all[]; /* by service and operation */
};
struct outcome_totals *outcome_totals_now(struct recorder *r); /* to be freed; NULL: no memory */
/* NULL where there is none; `t` may be NULL. */
const struct outcome_total *outcome_totals_find(const struct outcome_totals *t, const char *service,
						const char *operation);

#endif
