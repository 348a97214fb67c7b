#include "outcomes/outcome_metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "outcomes/series.h"

/* A copy taken under the recorder's lock, so that the text is made without it. */
struct copies {
	struct series *series;
	size_t count, capacity;
	bool failed;
};

static void copy_series(const struct series *s, void *arg)
{
	struct copies *c = arg;
	if (c->count == c->capacity) {
		size_t n = c->capacity ? c->capacity * 2 : 64;
		struct series *grown = reallocarray(c->series, n, sizeof(*grown));
		if (!grown) {
			c->failed = true;
			return;
		}
		c->series = grown;
		c->capacity = n;
	}
	c->series[c->count++] = *s;
}

static int compare_sides(const struct series *x, const struct series *y)
{
	int r = strcmp(x->service, y->service);
	if (r == 0)
		r = strcmp(x->operation, y->operation);
	return r ? r : (int)x->side - (int)y->side;
}

/* What goes into one histogram is kept together, and what goes into one count of executions. */
static int outcome_metrics_compare(const void *a, const void *b)
{
	const struct series *x = a, *y = b;
	int r = compare_sides(x, y);
	return r ? r : (int)x->role - (int)y->role;
}

static void outcome_metrics_put_value(struct buf *b, const char *s)
{
	for (; *s; s++)
		if (*s == '\\' || *s == '"')
			buf_printf(b, "\\%c", *s);
		else if (*s == '\n')
			buf_puts(b, "\\n");
		else
			buf_putc(b, *s);
}

static void put_labels(struct buf *b, const struct series *s)
{
	buf_puts(b, "{service=\"");
	outcome_metrics_put_value(b, s->service);
	buf_puts(b, "\",operation=\"");
	outcome_metrics_put_value(b, s->operation);
	buf_printf(b, "\",side=\"%s\"", outcome_side_text((enum outcome_side)s->side));
}

void metric_head(struct buf *b, const char *name, const char *type, const char *help)
{
	buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_executions(struct buf *b, const struct series *all, size_t n)
{
	metric_head(b, "migration_executions_total", "counter",
		    "Answers given to callers, by the side that gave them.");
	for (size_t i = 0; i < n;) {
		uint64_t sum = 0;
		size_t first = i;
		for (; i < n && compare_sides(&all[first], &all[i]) == 0; i++)
			sum += all[i].answered ? all[i].count : 0;
		buf_puts(b, "migration_executions_total");
		put_labels(b, &all[first]);
		buf_printf(b, "} %" PRIu64 "\n", sum);
	}
}

static void put_attempts(struct buf *b, const struct series *all, size_t n)
{
	metric_head(b, "migration_attempts_total", "counter",
		    "Executions on one side, by what decided and how they ended.");
	for (size_t i = 0; i < n; i++) {
		const struct series *s = &all[i];
		buf_puts(b, "migration_attempts_total");
		put_labels(b, s);
		buf_puts(b, ",backend=\"");
		outcome_metrics_put_value(b, s->backend);
		buf_printf(b, "\",role=\"%s\",reason=\"%s\",result=\"%s\",answered=\"%s\"} %" PRIu64 "\n",
			   outcome_role_text((enum outcome_role)s->role),
			   outcome_reason_text((enum outcome_reason)s->reason),
			   outcome_result_text((enum outcome_result)s->result), s->answered ? "yes" : "no",
			   s->count);
	}
}

static void put_bucket(struct buf *b, const struct series *s, int64_t bound_us, uint64_t n)
{
	buf_puts(b, "migration_attempt_duration_seconds_bucket");
	put_labels(b, s);
	buf_printf(b, ",role=\"%s\",le=\"", outcome_role_text((enum outcome_role)s->role));
	if (bound_us == INT64_MAX)
		buf_puts(b, "+Inf");
	else
		buf_printf(b, "%g", (double)bound_us / 1e6);
	buf_printf(b, "\"} %" PRIu64 "\n", n);
}

static void put_histogram(struct buf *b, const struct series *group, const uint64_t *buckets, double seconds)
{
	uint64_t n = 0;
	for (unsigned i = 0; i < SERIES_LATENCY_BUCKETS; i++) {
		n += buckets[i];
		put_bucket(b, group, series_latency_bound(i), n);
	}
	static const char *const ends[] = {"sum", "count"};
	for (int i = 0; i < 2; i++) {
		buf_printf(b, "migration_attempt_duration_seconds_%s", ends[i]);
		put_labels(b, group);
		buf_printf(b, ",role=\"%s\"} ", outcome_role_text((enum outcome_role)group->role));
		if (i)
			buf_printf(b, "%" PRIu64 "\n", n);
		else
			buf_printf(b, "%.6f\n", seconds);
	}
}

static void put_durations(struct buf *b, const struct series *all, size_t n)
{
	metric_head(b, "migration_attempt_duration_seconds", "histogram",
		    "Duration of attempts that ended in success, failure, timeout or unknown.");
	for (size_t i = 0; i < n;) {
		uint64_t buckets[SERIES_LATENCY_BUCKETS] = {0};
		double seconds = 0;
		size_t first = i;
		for (; i < n && outcome_metrics_compare(&all[first], &all[i]) == 0; i++) {
			if (!outcome_is_counted(all[i].result))
				continue;
			for (unsigned k = 0; k < SERIES_LATENCY_BUCKETS; k++)
				buckets[k] += all[i].buckets[k];
			seconds += (double)all[i].latency_us / 1e6;
		}
		put_histogram(b, &all[first], buckets, seconds);
	}
}

static void put_recorder(struct buf *b, struct recorder *r)
{
	struct recorder_status s;
	recorder_status(r, &s);
	metric_head(b, "migration_outcomes_written_total", "counter", "Outcomes written to the database.");
	buf_printf(b, "migration_outcomes_written_total %" PRIu64 "\n", s.written);
	metric_head(b, "migration_outcomes_dropped_total", "counter",
		    "Outcomes lost because their queue was full.");
	buf_printf(b, "migration_outcomes_dropped_total %" PRIu64 "\n", s.dropped);
	metric_head(b, "migration_outcomes_failing", "gauge", "1 while the database cannot be written.");
	buf_printf(b, "migration_outcomes_failing %d\n", s.failing);
}

int outcome_metrics_render(struct recorder *r, struct buf *out)
{
	struct copies c = {0};
	recorder_each_series(r, copy_series, &c);
	if (!c.failed) {
		if (c.count)
			qsort(c.series, c.count, sizeof(*c.series), outcome_metrics_compare);
		put_executions(out, c.series, c.count);
		put_attempts(out, c.series, c.count);
		put_durations(out, c.series, c.count);
		put_recorder(out, r);
	}
	free(c.series);
	return c.failed ? -ENOMEM : out->error;
}
