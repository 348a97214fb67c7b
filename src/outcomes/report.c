#include "outcomes/report.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/db.h"
#include "base/text.h"
#include "outcomes/histogram.h"
#include "outcomes/outcome_store.h"
#include "outcomes/rollup_fold.h"

#define MINUTE_US 60000000LL
#define SERIES_ID_MAX 1000000 /* far beyond what a recorder writes; guards against a made-up file */
#define BUSY_MS 2000

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

struct known_series { /* a row of table `series` */
	bool wanted, answered;
	int side, role, reason, result;
	struct cell *cell;
	struct tally tallies[TALLIES_MAX];
	size_t n_tallies;
};

struct maker {
	const struct report_options *options;
	struct db *db;
	struct report *report;
	struct known_series *series; /* by id */
	size_t series_count;
	struct cell **cells, total;
	size_t cell_count;
	int64_t folded;			   /* before this minute sums are per hour */
	int64_t first_minute, last_minute; /* both inclusive: of the series over time */
};

/* --- counting ------------------------------------------------------------------------------------------- */

static void count_attempts(struct report_side *side, const struct known_series *s, uint64_t n)
{
	bool shadow = s->role == OUTCOME_SHADOW;
	(shadow ? &side->shadows : &side->attempts)->results[s->result] += n;
	if (s->answered && !shadow)
		side->executions += n;
	if (s->role == OUTCOME_FALLBACK)
		side->fallbacks += n;
}

static void count_decisions(struct report_operation *op, const struct known_series *s, uint64_t n)
{
	if (s->answered)
		op->executions += n;
	if (s->role != OUTCOME_FALLBACK)
		op->reasons[s->reason] += n;
}

static void report_count(struct maker *m, const struct known_series *s, uint64_t n)
{
	for (size_t i = 0; i < s->n_tallies; i++)
		count_attempts(s->tallies[i].side, s, n);
	if (s->role == OUTCOME_SHADOW)
		return;
	count_decisions(&s->cell->op, s, n);
	count_decisions(&m->total.op, s, n);
}

static struct histogram_sum *latencies_of(const struct tally *t, const struct known_series *s)
{
	return s->role == OUTCOME_SHADOW ? &t->sums->shadows : &t->sums->attempts;
}

static void count_point(struct maker *m, const struct known_series *s, int64_t minute, uint64_t n)
{
	struct report *r = m->report;
	if (s->role == OUTCOME_SHADOW || !r->points || minute < m->first_minute || minute > m->last_minute)
		return;
	struct report_point *p = &r->points[(minute - m->first_minute) / (r->point_us / MINUTE_US)];
	if (s->answered)
		p->executions[s->side] += n;
	if (outcome_is_counted(s->result))
		p->counted[s->side] += n;
	if (s->result == OUTCOME_SUCCESS)
		p->success[s->side] += n;
}

/* --- the words of the series ---------------------------------------------------------------------------- */

static bool passes(const char *filter, struct span text)
{
	return !filter || span_is(text, filter);
}

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
		return err_set(e, -E2BIG, "%s: more than %d operations; filter by service", m->options->path,
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
static int add_tallies(struct known_series *s, struct cell *c, struct span backend, struct err *e)
{
	size_t i = REPORT_BACKENDS_MAX;
	s->tallies[s->n_tallies++] = (struct tally){&c->op.sides[s->side], &c->sides[s->side]};
	if (s->side == OUTCOME_TASK && backend.len && report_find_backend(c, backend, &i) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	if (i < REPORT_BACKENDS_MAX)
		s->tallies[s->n_tallies++] = (struct tally){&c->op.backends[i].side, c->backends[i]};
	return 0;
}

static int read_one_series(struct maker *m, struct db_stmt *q, struct err *e)
{
	int64_t id = db_column_int64(q, 0);
	struct span service = db_column_text(q, 1), operation = db_column_text(q, 2);
	struct known_series s = {
		.side = outcome_side_parse(db_column_text(q, 3)),
		.role = outcome_role_parse(db_column_text(q, 4)),
		.reason = outcome_reason_parse(db_column_text(q, 5)),
		.result = outcome_result_parse(db_column_text(q, 6)),
		.answered = db_column_int64(q, 7) != 0,
	};
	/* The words of a newer version: what is not known still counts, a result as the worst that it may
	 * be. */
	if (s.reason < 0)
		s.reason = REASON_OTHER;
	if (s.result < 0)
		s.result = OUTCOME_UNKNOWN;
	if (id < 1 || id > SERIES_ID_MAX || s.side < 0 || s.role < 0)
		return err_set(e, -EUCLEAN, "%s: series %lld cannot be decoded", m->options->path,
			       (long long)id);
	if ((size_t)id >= m->series_count) {
		struct known_series *grown = reallocarray(m->series, (size_t)id + 1, sizeof(*grown));
		if (!grown)
			return err_set(e, -ENOMEM, "out of memory");
		memset(grown + m->series_count, 0, ((size_t)id + 1 - m->series_count) * sizeof(*grown));
		m->series = grown;
		m->series_count = (size_t)id + 1;
	}
	s.wanted = passes(m->options->service, service) && passes(m->options->operation, operation);
	int r = s.wanted ? find_cell(m, service, operation, &s.cell, e) : 0;
	if (s.wanted && r == 0)
		r = add_tallies(&s, s.cell, db_column_text(q, 8), e);
	if (s.wanted && r == 0)
		r = add_tallies(&s, &m->total, db_column_text(q, 8), e);
	m->series[id] = s;
	return r;
}

static int read_series(struct maker *m, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int r = db_prepare(
		m->db,
		"SELECT id, service, operation, side, role, reason, result, answered, backend FROM series"
		" ORDER BY id",
		&q, e);
	while (r == 0 && (r = db_step(q, e)) > 0)
		r = read_one_series(m, q, e);
	return r;
}

static struct known_series *wanted(struct maker *m, int64_t id)
{
	return id > 0 && (size_t)id < m->series_count && m->series[id].wanted ? &m->series[id] : NULL;
}

/* --- the span of time ----------------------------------------------------------------------------------- */

static int64_t report_minute_of(int64_t time_us)
{
	return time_us / MINUTE_US - (time_us % MINUTE_US < 0);
}

static int64_t since_minute(const struct maker *m)
{
	if (!m->options->since_us)
		return INT64_MIN;
	int64_t minute = report_minute_of(m->options->since_us);
	return minute < m->folded ? rollup_hour(minute) : minute;
}

/* The first minute that is out. */
static int64_t until_minute(const struct maker *m)
{
	if (!m->options->until_us)
		return INT64_MAX;
	int64_t last = report_minute_of(m->options->until_us - 1);
	return last < m->folded ? rollup_hour(last) + 60 : last + 1;
}

static int read_int(struct maker *m, const char *sql, int64_t a, int64_t b, int64_t *ret, bool *null,
		    struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int r = db_prepare(m->db, sql, &q, e);
	if (r < 0)
		return r;
	db_bind_int64(q, 1, a);
	db_bind_int64(q, 2, b);
	r = db_step(q, e);
	if (r < 0)
		return r;
	*null = db_column_is_null(q, 0);
	*ret = db_column_int64(q, 0);
	return 0;
}

/* Points of a whole number of minutes over what there is, so that a report over 15 minutes has 15 and one
 * over a week 120. */
static int make_points(struct maker *m, struct err *e)
{
	bool none;
	int64_t since = since_minute(m), until = until_minute(m);
	int r = read_int(m, "SELECT min(minute) FROM rollups WHERE minute >= ? AND minute < ?", since, until,
			 &m->first_minute, &none, e);
	if (r == 0 && !none)
		r = read_int(m, "SELECT max(minute) FROM rollups WHERE minute >= ? AND minute < ?", since,
			     until, &m->last_minute, &none, e);
	if (r < 0 || none)
		return r;
	int64_t minutes;
	if (__builtin_sub_overflow(m->last_minute, m->first_minute, &minutes) ||
	    minutes > INT64_MAX / (2 * MINUTE_US))
		return err_set(e, -EUCLEAN, "%s: times out of range", m->options->path);
	int64_t width = minutes / REPORT_POINTS_MAX + 1;
	if (m->first_minute < m->folded) { /* whole hours, or there would be gaps between their beginnings */
		width = (width + 59) / 60 * 60;
		m->first_minute = rollup_hour(m->first_minute);
		minutes = m->last_minute - m->first_minute;
	}
	struct report *report = m->report;
	report->point_us = width * MINUTE_US;
	report->point_count = (size_t)(minutes / width + 1);
	report->points = calloc(report->point_count, sizeof(*report->points));
	if (!report->points)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < report->point_count; i++)
		report->points[i].time_us = m->first_minute * MINUTE_US + (int64_t)i * report->point_us;
	return 0;
}

/* --- reading -------------------------------------------------------------------------------------------- */

static int add_rollup(struct maker *m, struct db_stmt *q, struct err *e)
{
	struct known_series *s = wanted(m, db_column_int64(q, 1));
	if (!s)
		return 0;
	uint64_t n = (uint64_t)db_column_int64(q, 2);
	report_count(m, s, n);
	count_point(m, s, db_column_int64(q, 0), n);
	for (size_t i = 0; outcome_is_counted(s->result) && i < s->n_tallies; i++)
		if (histogram_sum_decode(latencies_of(&s->tallies[i], s), db_column_blob(q, 3)) < 0)
			return err_set(e, -EUCLEAN, "%s: a damaged histogram in rollups", m->options->path);
	return 0;
}

static int read_rollups(struct maker *m, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int r = db_prepare(
		m->db,
		"SELECT minute, series, count, histogram FROM rollups WHERE minute >= ? AND minute < ?", &q,
		e);
	if (r < 0)
		return r;
	db_bind_int64(q, 1, since_minute(m));
	db_bind_int64(q, 2, until_minute(m));
	while ((r = db_step(q, e)) > 0 && (r = add_rollup(m, q, e)) == 0)
		;
	return r;
}

static void report_add_row(struct maker *m, struct db_stmt *q)
{
	struct known_series *s = wanted(m, db_column_int64(q, 0));
	if (!s)
		return;
	int64_t time_us = db_column_int64(q, 1), latency_us = db_column_int64(q, 2);
	report_count(m, s, 1);
	count_point(m, s, report_minute_of(time_us), 1);
	for (size_t i = 0; outcome_is_counted(s->result) && i < s->n_tallies; i++)
		histogram_sum_add(latencies_of(&s->tallies[i], s), latency_us);
}

static int read_rows(struct maker *m, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int r = db_prepare(
		m->db,
		"SELECT series, time_us, latency_us FROM outcomes WHERE organisation = ? AND time_us >= ?"
		" AND time_us < ? AND id >= (SELECT min(row) FROM row_marks WHERE minute >= ?)",
		&q, e);
	if (r < 0)
		return r;
	char organization[sizeof(((struct outcome *)NULL)->organization)];
	outcome_id(span_of(m->options->organization), organization, sizeof(organization));
	db_bind_text(q, 1, span_of(organization));
	db_bind_int64(q, 2, m->options->since_us ? m->options->since_us : INT64_MIN);
	db_bind_int64(q, 3, m->options->until_us ? m->options->until_us : INT64_MAX);
	/* an attempt is written after it began: earlier rows need not be looked at */
	db_bind_int64(q, 4, since_minute(m));
	while ((r = db_step(q, e)) > 0)
		report_add_row(m, q);
	return r;
}

static int read_drops(struct maker *m, struct err *e)
{
	int64_t dropped;
	bool null;
	int r = read_int(m, "SELECT coalesce(sum(count), 0) FROM drops WHERE minute >= ? AND minute < ?",
			 since_minute(m), until_minute(m), &dropped, &null, e);
	if (r == 0)
		m->report->dropped = (uint64_t)dropped;
	return r;
}

/* --- finishing ------------------------------------------------------------------------------------------ */

/* Wilson's score interval with z of 95 %: stays within 0 … 1 and tells the truth for few attempts and for
 * rates near 1. */
static void finish_rate(struct report_rate *a, const struct histogram_sum *h)
{
	const double z = 1.959964;
	for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
		a->counted += outcome_is_counted(i) ? a->results[i] : 0;
	a->p50_us = histogram_sum_quantile(h, 0.50);
	a->p95_us = histogram_sum_quantile(h, 0.95);
	a->p99_us = histogram_sum_quantile(h, 0.99);
	a->few = a->counted < REPORT_FEW;
	a->known = a->counted > 0;
	if (!a->known)
		return;
	double n = (double)a->counted, p = (double)a->results[OUTCOME_SUCCESS] / n;
	double middle = p + z * z / (2 * n), reach = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)),
	       scale = 1 + z * z / n;
	a->rate = p;
	a->low = fmax(0, (middle - reach) / scale);
	a->high = fmin(1, (middle + reach) / scale);
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
	finish_cell(&m->total);
	r->total = m->total.op;
	return 0;
}

/* --- making --------------------------------------------------------------------------------------------- */

static int check_version(struct maker *m, struct err *e)
{
	int64_t version;
	int r = db_user_version(m->db, &version, e);
	if (r < 0)
		return r;
	if (version > OUTCOME_STORE_VERSION)
		return err_set(e, -EPROTO, "%s: schema version %lld, this program knows up to %d",
			       m->options->path, (long long)version, OUTCOME_STORE_VERSION);
	if (version == 0)
		return err_set(e, -ENODATA, "%s: nothing recorded yet", m->options->path);
	m->folded = INT64_MIN;
	return version < 2 ? 0 : db_query_int64(m->db, "SELECT until FROM folded", &m->folded, e);
}

/* What the span really is; rows are exact. */
static void describe_span(struct maker *m)
{
	struct report *r = m->report;
	r->since_us = m->options->since_us;
	r->until_us = m->options->until_us;
	if (r->from_rows)
		return;
	if (r->since_us)
		r->since_us = since_minute(m) * MINUTE_US;
	if (r->until_us)
		r->until_us = until_minute(m) * MINUTE_US;
}

static int report_read_all(struct maker *m, struct err *e)
{
	int r = check_version(m, e);
	if (r < 0)
		return r;
	describe_span(m);
	r = read_series(m, e);
	if (r == 0)
		r = make_points(m, e);
	if (r == 0)
		r = m->report->from_rows ? read_rows(m, e) : read_rollups(m, e);
	if (r == 0)
		r = read_drops(m, e);
	return r == 0 ? report_finish(m, e) : r;
}

static int report_read_file(struct maker *m, struct err *e)
{
	struct db_options o = {
		.path = m->options->path,
		.read_only = true,
		.busy_timeout_ms = BUSY_MS,
		.application_id = OUTCOME_STORE_APPLICATION,
	};
	int r = db_open(&o, &m->db, e);
	if (r == 0) /* one snapshot for all that is read; it does not hold up the writer */
		r = db_exec(m->db, "BEGIN", e);
	if (r == 0)
		r = report_read_all(m, e);
	if (m->db)
		db_rollback(m->db);
	return r;
}

static struct report *report_describe(const struct report_options *o)
{
	struct report *r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->made_us = clock_wall_us();
	r->from_rows = o->organization != NULL;
	text_copy(span_of(o->service), r->service, sizeof(r->service));
	text_copy(span_of(o->operation), r->operation, sizeof(r->operation));
	outcome_id(span_of(o->organization), r->organization, sizeof(r->organization));
	return r;
}

int report_make(const struct report_options *o, struct report **ret, struct err *e)
{
	CLEANUP(freep) struct maker *m = calloc(1, sizeof(*m));
	CLEANUP(report_freep) struct report *report = report_describe(o);
	if (!m || !report)
		return err_set(e, -ENOMEM, "out of memory");
	m->options = o;
	m->report = report;
	int r = report_read_file(m, e);
	db_close(m->db);
	for (size_t i = 0; i < m->cell_count; i++) {
		release_cell(m->cells[i]);
		free(m->cells[i]);
	}
	release_cell(&m->total);
	free(m->cells);
	free(m->series);
	if (r == 0)
		*ret = steal(report);
	return r;
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
