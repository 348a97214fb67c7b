#include "outcomes/report.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "outcomes/histogram.h"
#include "outcomes/report_sums.h"
#include "outcomes/rollup_fold.h"

#define MINUTE_US 60000000LL

/* Sums of latencies while a report is made. */
struct sums {
	struct histogram_sum attempts, shadows;
};

struct cell {
	struct report_operation op;
	struct sums sides[OUTCOME_SIDE_COUNT], *backends[REPORT_BACKENDS_MAX];
};

struct tally { /* where a series is counted */
	struct report_side *side;
	struct sums *sums;
};

#define TALLIES_MAX 4 /* its operation's and the total's side, and the two of its backend */

struct tallies {
	struct tally all[TALLIES_MAX];
	size_t n;
};

struct maker {
	const struct report_options *options;
	struct report *report;
	struct cell **cells, total;
	size_t cell_count;
	int64_t first_minute; /* of the series over time */
};

/* --- counting ------------------------------------------------------------------------------------------- */

static void count_attempts(struct report_side *side, const struct report_series *s)
{
	bool shadow = s->role == OUTCOME_SHADOW;
	(shadow ? &side->shadows : &side->attempts)->results[s->result] += s->count;
	if (s->answered && !shadow)
		side->executions += s->count;
	if (s->role == OUTCOME_FALLBACK)
		side->fallbacks += s->count;
}

static void count_decisions(struct report_operation *op, const struct report_series *s)
{
	if (s->answered)
		op->executions += s->count;
	if (s->role != OUTCOME_FALLBACK)
		op->reasons[s->reason] += s->count;
}

static void count_latencies(const struct tally *t, const struct report_series *s)
{
	struct histogram_sum *into = s->role == OUTCOME_SHADOW ? &t->sums->shadows : &t->sums->attempts;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		into->counts[i] += s->latencies->counts[i];
	into->total += s->latencies->total;
}

/* --- the words of the series ---------------------------------------------------------------------------- */

static int find_cell(struct maker *m, struct span service, struct span operation, struct cell **ret,
		     struct err *e)
{
	for (size_t i = 0; i < m->cell_count; i++)
		if (span_is(service, m->cells[i]->op.service) &&
		    span_is(operation, m->cells[i]->op.operation)) {
			*ret = m->cells[i];
			return 0;
		}
	if (m->cell_count == REPORT_OPERATIONS_MAX)
		return err_set(e, -E2BIG, "more than %d operations; filter by service",
			       REPORT_OPERATIONS_MAX);
	struct cell **grown = reallocarray(m->cells, m->cell_count + 1, sizeof(struct cell *));
	if (!grown)
		return err_set(e, -ENOMEM, "out of memory");
	m->cells = grown;
	struct cell *c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	text_copy(service, c->op.service, sizeof(c->op.service));
	text_copy(operation, c->op.operation, sizeof(c->op.operation));
	m->cells[m->cell_count++] = c;
	*ret = c;
	return 0;
}

static int report_find_backend(struct cell *c, struct span name, size_t *ret)
{
	size_t i = 0;
	while (i < c->op.n_backends && !span_is(name, c->op.backends[i].name))
		i++;
	if (i == c->op.n_backends && i < REPORT_BACKENDS_MAX) {
		c->backends[i] = calloc(1, sizeof(*c->backends[i]));
		if (!c->backends[i])
			return -ENOMEM;
		text_copy(name, c->op.backends[i].name, sizeof(c->op.backends[i].name));
		c->op.n_backends++;
	}
	*ret = i;
	return 0;
}

/* The places of one cell in which a series is counted. */
static int add_tallies(struct tallies *t, const struct report_series *s, struct cell *c, struct err *e)
{
	size_t i = REPORT_BACKENDS_MAX;
	t->all[t->n++] = (struct tally){&c->op.sides[s->side], &c->sides[s->side]};
	if (s->side == OUTCOME_TASK && s->backend[0] && report_find_backend(c, span_of(s->backend), &i) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	if (i < REPORT_BACKENDS_MAX)
		t->all[t->n++] = (struct tally){&c->op.backends[i].side, c->backends[i]};
	return 0;
}

/* An operation that got its task within the span is counted from then on. */
static void count_left_out(struct maker *m, struct cell *c, const struct report_series *s)
{
	uint64_t n = s->answered && s->role != OUTCOME_SHADOW ? s->count : 0;
	m->total.op.left_out += n;
	c->op.left_out += c->op.can_move ? n : 0;
}

static int report_count(struct maker *m, const struct report_series *s, struct err *e)
{
	struct cell *cell = NULL;
	struct tallies t = {.n = 0};
	int r = find_cell(m, span_of(s->service), span_of(s->operation), &cell, e);
	if (r == 0 && s->left_out)
		count_left_out(m, cell, s);
	if (r == 0 && s->left_out && cell->op.can_move)
		return 0;
	if (r == 0)
		r = add_tallies(&t, s, cell, e);
	if (r == 0 && !s->left_out)
		r = add_tallies(&t, s, &m->total, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < t.n; i++) {
		count_attempts(t.all[i].side, s);
		if (s->latencies)
			count_latencies(&t.all[i], s);
	}
	if (s->role == OUTCOME_SHADOW)
		return 0;
	count_decisions(&cell->op, s);
	if (!s->left_out)
		count_decisions(&m->total.op, s);
	return 0;
}

/* --- the series over time ------------------------------------------------------------------------------- */

static int64_t folded_of(struct report_sums *const *sums, size_t n)
{
	int64_t folded = INT64_MIN;
	for (size_t i = 0; i < n; i++)
		if (sums[i]->folded > folded)
			folded = sums[i]->folded;
	return folded;
}

static bool minutes_of(struct report_sums *const *sums, size_t n, int64_t *first, int64_t *last)
{
	bool any = false;
	for (size_t i = 0; i < n; i++) {
		const struct report_sums *s = sums[i];
		if (!s->any)
			continue;
		*first = !any || s->first_minute < *first ? s->first_minute : *first;
		*last = !any || s->last_minute > *last ? s->last_minute : *last;
		any = true;
	}
	return any;
}

/* Points of a whole number of minutes over what there is, so that a report over 15 minutes has 15 and one
 * over a week 120. */
static int make_points(struct maker *m, struct report_sums *const *sums, size_t n, struct err *e)
{
	struct report *report = m->report;
	int64_t folded = folded_of(sums, n), last = 0, minutes;
	if (!minutes_of(sums, n, &m->first_minute, &last))
		return 0;
	if (__builtin_sub_overflow(last, m->first_minute, &minutes) || minutes > INT64_MAX / (2 * MINUTE_US))
		return err_set(e, -EUCLEAN, "times out of range");
	int64_t width = minutes / REPORT_POINTS_MAX + 1;
	if (m->first_minute < folded) { /* whole hours, or there would be gaps between their beginnings */
		width = (width + 59) / 60 * 60;
		m->first_minute = rollup_hour(m->first_minute);
		minutes = last - m->first_minute;
	}
	report->point_us = width * MINUTE_US;
	report->point_count = (size_t)(minutes / width + 1);
	report->points = calloc(report->point_count, sizeof(*report->points));
	if (!report->points)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < report->point_count; i++)
		report->points[i].time_us = m->first_minute * MINUTE_US + (int64_t)i * report->point_us;
	return 0;
}

static void count_minute(struct maker *m, const struct report_minute *from)
{
	struct report *r = m->report;
	if (!r->points || from->minute < m->first_minute)
		return;
	size_t at = (size_t)((from->minute - m->first_minute) / (r->point_us / MINUTE_US));
	if (at >= r->point_count)
		return;
	struct report_point *p = &r->points[at];
	for (int side = 0; side < OUTCOME_SIDE_COUNT; side++) {
		p->executions[side] += from->executions[side];
		p->success[side] += from->success[side];
		p->counted[side] += from->counted[side];
	}
}

/* --- finishing ------------------------------------------------------------------------------------------ */

/* Wilson's score interval with z of 95 %: stays within 0 … 1 and tells the truth for few attempts and for
 * rates near 1. */
void report_interval(uint64_t part, uint64_t all, double *ret_low, double *ret_high)
{
	const double z = 1.959964;
	double n = (double)all, p = (double)part / n;
	double middle = p + z * z / (2 * n), reach = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)),
	       scale = 1 + z * z / n;
	*ret_low = fmax(0, (middle - reach) / scale);
	*ret_high = fmin(1, (middle + reach) / scale);
}

static void finish_rate(struct report_rate *a, const struct histogram_sum *h)
{
	for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
		a->counted += outcome_is_counted(i) ? a->results[i] : 0;
	a->p50_us = histogram_sum_quantile(h, 0.50);
	a->p95_us = histogram_sum_quantile(h, 0.95);
	a->p99_us = histogram_sum_quantile(h, 0.99);
	a->few = a->counted < REPORT_FEW;
	a->known = a->counted > 0;
	if (!a->known)
		return;
	a->rate = (double)a->results[OUTCOME_SUCCESS] / (double)a->counted;
	report_interval(a->results[OUTCOME_SUCCESS], a->counted, &a->low, &a->high);
}

static void finish_side(const struct cell *c, struct report_side *side, const struct sums *sums)
{
	side->share = c->op.executions ? (double)side->executions / (double)c->op.executions : 0;
	finish_rate(&side->attempts, &sums->attempts);
	finish_rate(&side->shadows, &sums->shadows);
}

static int compare_backends(const void *a, const void *b)
{
	return strcmp(((const struct report_backend *)a)->name, ((const struct report_backend *)b)->name);
}

static void finish_cell(struct cell *c)
{
	struct report_operation *op = &c->op;
	for (int side = 0; side < OUTCOME_SIDE_COUNT; side++)
		finish_side(c, &op->sides[side], &c->sides[side]);
	for (size_t i = 0; i < op->n_backends; i++)
		finish_side(c, &op->backends[i].side, c->backends[i]);
	qsort(op->backends, op->n_backends, sizeof(op->backends[0]), compare_backends);
}

static void release_cell(struct cell *c)
{
	for (size_t i = 0; i < REPORT_BACKENDS_MAX; i++)
		free(c->backends[i]);
}

static bool has_attempts(const struct report_operation *op)
{
	for (int side = 0; side < OUTCOME_SIDE_COUNT; side++)
		for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
			if (op->sides[side].attempts.results[i] || op->sides[side].shadows.results[i])
				return true;
	return false;
}

static int compare_operations(const void *a, const void *b)
{
	const struct report_operation *x = a, *y = b;
	int r = strcmp(x->service, y->service);
	return r ? r : strcmp(x->operation, y->operation);
}

static int report_finish(struct maker *m, struct err *e)
{
	struct report *r = m->report;
	r->operations = calloc(m->cell_count + 1, sizeof(*r->operations));
	if (!r->operations)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < m->cell_count; i++) {
		if (!has_attempts(&m->cells[i]->op))
			continue;
		finish_cell(m->cells[i]);
		r->operations[r->operation_count++] = m->cells[i]->op;
	}
	qsort(r->operations, r->operation_count, sizeof(*r->operations), compare_operations);
	m->total.op.can_move = true;
	finish_cell(&m->total);
	r->total = m->total.op;
	return 0;
}

/* --- making --------------------------------------------------------------------------------------------- */

/* The widest of what they say; 0 = open. */
static void widen_span(struct report *r, const struct report_sums *s, bool first)
{
	if (first || !s->since_us || (r->since_us && s->since_us < r->since_us))
		r->since_us = s->since_us;
	if (first || !s->until_us || (r->until_us && s->until_us > r->until_us))
		r->until_us = s->until_us;
}

static int mark_movable(struct maker *m, const struct report_sums *s, struct err *e)
{
	struct cell *c;
	int r = 0;
	for (size_t i = 0; r == 0 && i < s->series_count; i++) {
		if (s->series[i].left_out || !s->series[i].count)
			continue;
		r = find_cell(m, span_of(s->series[i].service), span_of(s->series[i].operation), &c, e);
		if (r == 0)
			c->op.can_move = true;
	}
	return r;
}

static int add_sums(struct maker *m, const struct report_sums *s, struct err *e)
{
	m->report->dropped += s->dropped;
	if (demo_history_is_in(&s->demo, s->since_us, s->until_us))
		demo_history_add(&m->report->demo, &s->demo);
	int r = 0;
	for (size_t i = 0; r == 0 && i < s->series_count; i++)
		r = report_count(m, &s->series[i], e);
	for (size_t i = 0; i < s->minute_count; i++)
		count_minute(m, &s->minutes[i]);
	return r;
}

static struct report *report_describe(const struct report_options *o)
{
	struct report *r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->made_us = clock_wall_us();
	r->from_rows = o->organization || o->exact;
	text_copy(span_of(o->service), r->service, sizeof(r->service));
	text_copy(span_of(o->operation), r->operation, sizeof(r->operation));
	outcome_id(span_of(o->organization), r->organization, sizeof(r->organization));
	return r;
}

static int check_doubles(struct report_sums *const *sums, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < i; j++)
			if (sums[i]->store[0] && strcmp(sums[i]->store, sums[j]->store) == 0)
				return err_set(
					e, -EEXIST,
					"sources %zu and %zu are the same file, which would be counted twice",
					j + 1, i + 1);
	return 0;
}

static int merge_all(struct maker *m, struct report_sums *const *sums, size_t n, struct err *e)
{
	int r = check_doubles(sums, n, e);
	if (r == 0)
		r = make_points(m, sums, n, e);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = mark_movable(m, sums[i], e);
	for (size_t i = 0; r == 0 && i < n; i++) {
		widen_span(m->report, sums[i], i == 0);
		r = add_sums(m, sums[i], e);
	}
	return r == 0 ? report_finish(m, e) : r;
}

int report_merge(const struct report_options *o, struct report_sums *const *sums, size_t n,
		 struct report **ret, struct err *e)
{
	CLEANUP(freep) struct maker *m = calloc(1, sizeof(*m));
	CLEANUP(report_freep) struct report *report = report_describe(o);
	if (!m || !report)
		return err_set(e, -ENOMEM, "out of memory");
	m->options = o;
	m->report = report;
	int r = merge_all(m, sums, n, e);
	for (size_t i = 0; i < m->cell_count; i++) {
		release_cell(m->cells[i]);
		free(m->cells[i]);
	}
	release_cell(&m->total);
	free(m->cells);
	if (r == 0)
		*ret = steal(report);
	return r;
}

int report_make(const struct report_options *o, struct report **ret, struct err *e)
{
	CLEANUP(report_sums_freep) struct report_sums *sums = NULL;
	int r = report_sums_read(o, &sums, e);
	return r < 0 ? r : report_merge(o, &sums, 1, ret, e);
}

struct report *report_free(struct report *r)
{
	if (r) {
		free(r->operations);
		free(r->points);
		free(r);
	}
	return NULL;
}

double report_percent(double share)
{
	double p = round(share * 1000) / 10;
	if (share < 1 && p >= 100)
		return 99.9;
	return share > 0 && p <= 0 ? 0.1 : p;
}

const char *report_side_name(enum outcome_side side)
{
	return side == OUTCOME_TASK ? "task_abstraction" : "legacy_services";
}
