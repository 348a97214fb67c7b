/*
 * Prometheus text (exposition format 0.0.4) of what the recorder has counted since its start.
 *
 *   migration_executions_total{service,operation,side}
 *       answers given to callers
 *   migration_attempts_total{service,operation,side,backend,role,reason,result,answered}
 *   migration_attempt_duration_seconds{service,operation,side,role}
 *       histogram of the counted attempts (success, failure, timeout, unknown), so that it matches the
 *       report's percentiles
 *   migration_outcomes_written_total, migration_outcomes_dropped_total, migration_outcomes_failing
 *
 * Other metrics: programs/router/app_metrics.c, programs/router/app_guard.c.
 * Threads: any; not the hot path. Counters begin at 0 with the process, as Prometheus expects.
 */
#ifndef OUTCOMES_OUTCOME_METRICS_H
#define OUTCOMES_OUTCOME_METRICS_H

#include "base/buf.h"
#include "outcomes/recorder.h"

/* The two lines that begin a metric: its help and type. */
void metric_head(struct buf *b, const char *name, const char *type, const char *help);

/* Appends; buf's errors. */
int outcome_metrics_render(struct recorder *r, struct buf *out);

#endif
