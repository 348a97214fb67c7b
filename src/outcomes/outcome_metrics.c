#include "outcomes/outcome_metrics.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "outcomes/series.h"

/* --- what there is, and what there can be --------------------------------------------------------------- */

/* Copies taken under the recorder's lock, so that the text is made without it. */
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

/* A series, or a 0 that is there from the start: then `of` is its operation. */
struct row {
	const char *service, *operation, *backend;
	uint8_t side, role, reason, result;
	const struct series *series;
	const struct outcome_metrics_operation *of;
};

struct rows {
	struct row *all;
	size_t n, room;
};

static int rows_compare_operation(const struct row *x, const struct row *y)
{
	int r = strcmp(x->service, y->service);
	return r ? r : strcmp(x->operation, y->operation);
}

static int rows_compare_side(const struct row *x, const struct row *y)
{
	int r = rows_compare_operation(x, y);
	return r ? r : (int)x->side - (int)y->side;
}

static int rows_compare_role(const struct row *x, const struct row *y)
{
	int r = rows_compare_side(x, y);
	return r ? r : (int)x->role - (int)y->role;
}

static int rows_compare_attempt(const struct row *x, const struct row *y)
{
	int r = rows_compare_role(x, y);
	if (r == 0)
		r = strcmp(x->backend, y->backend);
	return r ? r : (int)x->result - (int)y->result;
}

/* Each of the above groups stays together. */
static int rows_compare(const void *a, const void *b)
{
	return rows_compare_attempt(a, b);
}

static void rows_add(struct rows *r, const struct row *row)
{
	if (r->n < r->room)
		r->all[r->n++] = *row;
}

static void expect_attempts(struct rows *r, const struct outcome_metrics_operation *of,
			    enum outcome_side side, enum outcome_role role, const char *backend)
{
	for (unsigned result = 0; result < OUTCOME_RESULT_COUNT; result++)
		rows_add(r, &(struct row){.service = of->service,
					  .operation = of->operation,
					  .backend = backend,
					  .side = (uint8_t)side,
					  .role = (uint8_t)role,
					  .result = (uint8_t)result,
					  .of = of});
}

static void expect_operation(struct rows *r, const struct outcome_metrics_operation *of)
{
	expect_attempts(r, of, OUTCOME_LEGACY, OUTCOME_PRIMARY, "");
	if (!of->has_task)
		return;
	expect_attempts(r, of, OUTCOME_LEGACY, OUTCOME_FALLBACK, "");
	if (of->may_shadow)
		expect_attempts(r, of, OUTCOME_LEGACY, OUTCOME_SHADOW, "");
	for (size_t i = 0; i < of->n_backends; i++) {
		expect_attempts(r, of, OUTCOME_TASK, OUTCOME_PRIMARY, of->backends[i]);
		if (of->may_shadow)
			expect_attempts(r, of, OUTCOME_TASK, OUTCOME_SHADOW, of->backends[i]);
	}
}

static int rows_make(struct rows *r, const struct copies *c, const struct outcome_metrics_operation *expected,
		     size_t n)
{
	n = n < OUTCOME_METRICS_OPERATIONS ? n : OUTCOME_METRICS_OPERATIONS;
	r->room = c->count + n * OUTCOME_RESULT_COUNT * (3 + 2 * OUTCOME_METRICS_BACKENDS);
	r->all = calloc(r->room ? r->room : 1, sizeof(*r->all));
	if (!r->all)
		return -ENOMEM;
	for (size_t i = 0; i < c->count; i++) {
		const struct series *s = &c->series[i];
		rows_add(r, &(struct row){s->service, s->operation, s->backend, s->side, s->role, s->reason,
					  s->result, s, NULL});
	}
	for (size_t i = 0; i < n; i++)
		expect_operation(r, &expected[i]);
	if (r->n)
		qsort(r->all, r->n, sizeof(*r->all), rows_compare);
	return 0;
}

/* --- the metrics ---------------------------------------------------------------------------------------- */

static size_t rows_group(const struct rows *r, size_t first,
			 int (*compare)(const struct row *x, const struct row *y))
{
	size_t end = first + 1;
	while (end < r->n && compare(&r->all[first], &r->all[end]) == 0)
		end++;
	return end;
}

static uint64_t row_count(const struct row *r)
{
	return r->series ? r->series->count : 0;
}

static void put_executions(struct metric_text *out, const struct rows *r)
{
	metric_begin(out, "migration_executions_total", METRIC_COUNTER,
		     "Answers given to callers, by the side that gave them.");
	for (size_t i = 0, end; i < r->n; i = end) {
		const struct row *g = &r->all[i];
		uint64_t sum = 0;
		end = rows_group(r, i, rows_compare_side);
		for (size_t k = i; k < end; k++)
			sum += r->all[k].series && r->all[k].series->answered ? row_count(&r->all[k]) : 0;
		metric_count(out, sum,
			     METRIC_LABELS({"service", span_of(g->service)},
					   {"operation", span_of(g->operation)},
					   {"side", span_of(outcome_side_text((enum outcome_side)g->side))}));
	}
}

static void put_attempts(struct metric_text *out, const struct rows *r)
{
	metric_begin(out, "migration_attempts_total", METRIC_COUNTER,
		     "Executions on one side, by role and by how they ended.");
	for (size_t i = 0, end; i < r->n; i = end) {
		const struct row *g = &r->all[i];
		uint64_t sum = 0;
		end = rows_group(r, i, rows_compare_attempt);
		for (size_t k = i; k < end; k++)
			sum += row_count(&r->all[k]);
		metric_count(out, sum,
			     METRIC_LABELS({"service", span_of(g->service)},
					   {"operation", span_of(g->operation)},
					   {"side", span_of(outcome_side_text((enum outcome_side)g->side))},
					   {"backend", span_of(g->backend)},
					   {"role", span_of(outcome_role_text((enum outcome_role)g->role))},
					   {"result",
					    span_of(outcome_result_text((enum outcome_result)g->result))}));
	}
}

/* Whether an operation can be decided for this reason. */
static bool is_possible_reason(const struct outcome_metrics_operation *of, enum outcome_reason reason)
{
	if (reason == REASON_OTHER || reason == REASON_REFUSED)
		return reason == REASON_REFUSED;
	if (reason == REASON_UNMAPPED)
		return of->unmapped;
	if (reason == REASON_NO_TASK)
		return !of->has_task && !of->unmapped;
	if (reason == REASON_PINNED || reason == REASON_PIN_UNKNOWN)
		return of->has_pins;
	return of->has_task;
}

static const struct outcome_metrics_operation *operation_of(const struct rows *r, size_t first, size_t end)
{
	for (size_t i = first; i < end; i++)
		if (r->all[i].of)
			return r->all[i].of;
	return NULL;
}

static void put_decisions(struct metric_text *out, const struct rows *r)
{
	metric_begin(out, "migration_decisions_total", METRIC_COUNTER,
		     "Requests, by the reason for which they were decided, or refused, as they were.");
	for (size_t i = 0, end; i < r->n; i = end) {
		const struct row *g = &r->all[i];
		uint64_t sums[REASON_COUNT] = {0};
		end = rows_group(r, i, rows_compare_operation);
		const struct outcome_metrics_operation *of = operation_of(r, i, end);
		for (size_t k = i; k < end; k++)
			if (r->all[k].role == OUTCOME_PRIMARY)
				sums[r->all[k].reason] += row_count(&r->all[k]);
		for (int reason = 0; reason < REASON_COUNT; reason++)
			if (sums[reason] || (of && is_possible_reason(of, reason)))
				metric_count(out, sums[reason],
					     METRIC_LABELS({"service", span_of(g->service)},
							   {"operation", span_of(g->operation)},
							   {"reason", span_of(outcome_reason_text(reason))}));
	}
}

static void put_pinned(struct metric_text *out, const struct rows *r)
{
	metric_begin(out, "migration_pinned_requests_total", METRIC_COUNTER,
		     "Follow-up calls that went where the first one went, by side.");
	for (size_t i = 0, end; i < r->n; i = end) {
		const struct row *g = &r->all[i];
		uint64_t sums[OUTCOME_SIDE_COUNT] = {0};
		end = rows_group(r, i, rows_compare_operation);
		const struct outcome_metrics_operation *of = operation_of(r, i, end);
		for (size_t k = i; k < end; k++)
			if (r->all[k].role == OUTCOME_PRIMARY && r->all[k].reason == REASON_PINNED)
				sums[r->all[k].side] += row_count(&r->all[k]);
		bool has = sums[OUTCOME_LEGACY] || sums[OUTCOME_TASK] || (of && of->has_pins);
		for (int side = 0; has && side < OUTCOME_SIDE_COUNT; side++)
			metric_count(out, sums[side],
				     METRIC_LABELS({"service", span_of(g->service)},
						   {"operation", span_of(g->operation)},
						   {"side", span_of(outcome_side_text(side))}));
	}
}

static void put_durations(struct metric_text *out, const struct rows *r)
{
	double bounds[SERIES_LATENCY_BUCKETS];
	for (unsigned k = 0; k < SERIES_LATENCY_BUCKETS; k++)
		bounds[k] = (double)series_latency_bound(k) / 1e6;
	metric_begin(out, "migration_attempt_duration_seconds", METRIC_HISTOGRAM,
		     "Duration of attempts that ended in success, failure, timeout or unknown.");
	for (size_t i = 0, end; i < r->n; i = end) {
		const struct row *g = &r->all[i];
		uint64_t buckets[SERIES_LATENCY_BUCKETS] = {0}, sum_us = 0;
		end = rows_group(r, i, rows_compare_role);
		for (size_t j = i; j < end; j++) {
			const struct series *s = r->all[j].series;
			if (!s || !outcome_is_counted(s->result))
				continue;
			for (unsigned k = 0; k < SERIES_LATENCY_BUCKETS; k++)
				buckets[k] += s->buckets[k];
			sum_us += s->latency_us;
		}
		metric_histogram(
			out, bounds, buckets, SERIES_LATENCY_BUCKETS, (double)sum_us / 1e6,
			METRIC_LABELS({"service", span_of(g->service)}, {"operation", span_of(g->operation)},
				      {"side", span_of(outcome_side_text((enum outcome_side)g->side))},
				      {"role", span_of(outcome_role_text((enum outcome_role)g->role))}));
	}
}

static void put_recorder(struct metric_text *out, struct recorder *r)
{
	struct recorder_status s;
	recorder_status(r, &s);
	metric_begin(out, "migration_outcomes_written_total", METRIC_COUNTER,
		     "Outcomes written to the database.");
	metric_count(out, s.written, METRIC_NO_LABELS);
	metric_begin(out, "migration_outcomes_dropped_total", METRIC_COUNTER,
		     "Outcomes lost because their queue was full.");
	metric_count(out, s.dropped, METRIC_NO_LABELS);
	metric_begin(out, "migration_outcomes_failing", METRIC_GAUGE,
		     "1 while the database cannot be written.");
	metric_count(out, s.failing, METRIC_NO_LABELS);
	metric_begin(out, "migration_outcomes_queued", METRIC_GAUGE, "Outcomes waiting for the recorder.");
	metric_count(out, s.queued, METRIC_NO_LABELS);
	metric_begin(out, "migration_outcomes_queue_slots", METRIC_GAUGE,
		     "Outcomes that can wait; further ones are dropped.");
	metric_count(out, s.slots, METRIC_NO_LABELS);
}

int outcome_metrics_render(struct recorder *r, const struct outcome_metrics_operation *expected, size_t n,
			   struct metric_text *out)
{
	struct copies c = {0};
	struct rows rows = {0};
	recorder_each_series(r, copy_series, &c);
	int code = c.failed ? -ENOMEM : rows_make(&rows, &c, expected, n);
	if (code == 0) {
		put_executions(out, &rows);
		put_attempts(out, &rows);
		put_decisions(out, &rows);
		put_pinned(out, &rows);
		put_durations(out, &rows);
		put_recorder(out, r);
	}
	free(rows.all);
	free(c.series);
	return code;
}

/* --- totals --------------------------------------------------------------------------------------------- */

static int totals_compare(const void *a, const void *b)
{
	const struct outcome_total *x = a, *y = b;
	int r = strcmp(x->service, y->service);
	return r ? r : strcmp(x->operation, y->operation);
}

static void totals_join(struct outcome_totals *t)
{
	size_t n = 0;
	for (size_t i = 0; i < t->n; i++) {
		if (n && totals_compare(&t->all[n - 1], &t->all[i]) == 0) {
			for (int side = 0; side < OUTCOME_SIDE_COUNT; side++)
				t->all[n - 1].answered[side] += t->all[i].answered[side];
			continue;
		}
		t->all[n++] = t->all[i];
	}
	t->n = n;
}

struct outcome_totals *outcome_totals_now(struct recorder *r)
{
	struct copies c = {0};
	recorder_each_series(r, copy_series, &c);
	struct outcome_totals *t = c.failed ? NULL : calloc(1, sizeof(*t) + c.count * sizeof(t->all[0]));
	for (size_t i = 0; t && i < c.count; i++) {
		const struct series *s = &c.series[i];
		if (!s->answered)
			continue;
		struct outcome_total *of = &t->all[t->n++];
		memcpy(of->service, s->service, sizeof(of->service));
		memcpy(of->operation, s->operation, sizeof(of->operation));
		of->answered[s->side] = s->count;
	}
	free(c.series);
	if (t && t->n) {
		qsort(t->all, t->n, sizeof(t->all[0]), totals_compare);
		totals_join(t);
	}
	return t;
}

const struct outcome_total *outcome_totals_find(const struct outcome_totals *t, const char *service,
						const char *operation)
{
	struct outcome_total key = {.answered = {0}};
	if (!t || !t->n)
		return NULL;
	span_copy(span_of(service), key.service, sizeof(key.service));
	span_copy(span_of(operation), key.operation, sizeof(key.operation));
	return bsearch(&key, t->all, t->n, sizeof(t->all[0]), totals_compare);
}
