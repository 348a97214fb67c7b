/*
 * The text of /metrics: Prometheus' exposition format 0.0.4, or OpenMetrics 1.0.
 *
 * Why:       two formats that differ in little (a counter's head, help, the end) must not be told apart by
 *            everyone who has a number to tell.
 * Use:       metric_begin, then the samples of that metric, for each metric once; metric_end at last. Names
 *            are given whole, as they are queried ("…_total", "…_info").
 * Errors:    the buffer's, to be looked at once at the end.
 * Source:    https://prometheus.io/docs/instrumenting/exposition_formats/, OpenMetrics 1.0.0.
 */
#ifndef BASE_METRIC_TEXT_H
#define BASE_METRIC_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_INFO };

struct metric_text {
	struct buf *out;
	bool open_metrics;
	const char *name; /* of the metric that was begun; borrowed */
};

/* Values may hold any bytes: they are escaped, and what is not UTF-8 is replaced. */
struct metric_label {
	const char *name;
	struct span value;
};
#define METRIC_LABELS(...) \
	((const struct metric_label[]){__VA_ARGS__}), \
		(sizeof((const struct metric_label[]){__VA_ARGS__}) / sizeof(struct metric_label))
#define METRIC_NO_LABELS NULL, 0

#define METRIC_TEXT_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define METRIC_OPEN_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"
/* Whether an Accept field asks for OpenMetrics rather than the plain text. */
bool metric_accepts_open(struct span accept);

void metric_begin(struct metric_text *m, const char *name, enum metric_type type, const char *help);
void metric_count(struct metric_text *m, uint64_t value, const struct metric_label *labels, size_t n);
/* NaN: it is not known. */
void metric_value(struct metric_text *m, double value, const struct metric_label *labels, size_t n);
/* The buckets' own counts, not added up; bounds[n_buckets - 1] is +Inf and is not looked at. */
void metric_histogram(struct metric_text *m, const double *bounds, const uint64_t *counts, size_t n_buckets,
		      double sum, const struct metric_label *labels, size_t n);
void metric_end(struct metric_text *m);

#endif
