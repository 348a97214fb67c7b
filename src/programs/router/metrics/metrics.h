/*
 * /metrics of the router: what its parts count, read when somebody asks. A new metric goes into the file of
 * its part here; those of outcomes: outcomes/outcome_metrics.h, of the guard: app_guard.c.
 *
 * Cost:      nothing on the planes: they count in what they have anyway, and the sums are made here.
 * Rules:     a series is there from the start, with 0, or NaN where nothing is known (a share of no requests,
 *            a backlog that its backend does not tell); labels are names of the configuration and words of
 *            the program, never what callers send. Names follow Prometheus' conventions: base units, _total.
 * Threads:   the control thread's.
 */
#ifndef PROGRAMS_ROUTER_METRICS_METRICS_H
#define PROGRAMS_ROUTER_METRICS_METRICS_H

#include "base/metric_text.h"

struct app;
struct metrics;

#define METRICS_WINDOW_MINUTES 15 /* of the observed share */

int metrics_new(struct metrics **ret);
struct metrics *metrics_free(struct metrics *m); /* NULL is allowed; returns NULL */
/* To be called every few seconds: what is observed over a time is remembered by the minute. */
void metrics_look(struct app *a);

/* All of it. */
void metrics_write(struct app *a, bool open_metrics, struct buf *out);

/* --- the parts ------------------------------------------------------------------------------------------ */

void metrics_put_operations(struct app *a, struct metric_text *out);
void metrics_put_shares(struct app *a, struct metric_text *out);
void metrics_put_pairs(const struct app *a, struct metric_text *out);
void metrics_put_backends(const struct app *a, struct metric_text *out);
void metrics_put_legacy(const struct app *a, struct metric_text *out);
void metrics_put_flags(const struct app *a, struct metric_text *out);
void metrics_put_stores(const struct app *a, struct metric_text *out);
void metrics_put_process(const struct app *a, struct metric_text *out);

#endif
