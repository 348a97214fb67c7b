#include "outcomes/search/errors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/text.h"
#include "outcomes/search/error_pattern.h"
#include "outcomes/search/row_index.h"

#define GROUPS_MAX 50000 /* while they are counted; more are counted together */

struct errors_counter {
	struct error_group *groups;
	uint32_t *slots; /* place + 1 of a group; 0 = free */
	size_t n, n_slots;
	uint64_t beyond;
};

struct errors_reader {
	struct search s;
	struct errors_counter counter;
};

/* --- counting ------------------------------------------------------------------------------------------- */

static uint64_t errors_hash(const struct error_group *g)
{
	uint64_t h = hash64_span(HASH64_START, span_of(g->service));
	h = hash64_span(h, span_of(g->operation));
	h = hash64_span(h, span_of(g->backend));
	h = hash64_span(h, span_of(g->error));
	return hash64_number(h, (uint64_t)g->http_status << 24 | (uint64_t)g->side << 16 |
					(uint64_t)g->role << 8 | g->result);
}

static bool errors_same(const struct error_group *a, const struct error_group *b)
{
	return a->side == b->side && a->role == b->role && a->result == b->result &&
	       a->http_status == b->http_status && strcmp(a->operation, b->operation) == 0 &&
	       strcmp(a->service, b->service) == 0 && strcmp(a->backend, b->backend) == 0 &&
	       strcmp(a->error, b->error) == 0;
}

static int errors_new_counter(struct errors_counter *c)
{
	c->n_slots = 131072;
	c->groups = calloc(GROUPS_MAX, sizeof(*c->groups));
	c->slots = calloc(c->n_slots, sizeof(*c->slots));
	return c->groups && c->slots ? 0 : -ENOMEM;
}

static void errors_free_counter(struct errors_counter *c)
{
	free(c->groups);
	free(c->slots);
}

static void errors_join(struct error_group *into, const struct error_group *from)
{
	into->count += from->count;
	into->first_us = from->first_us < into->first_us ? from->first_us : into->first_us;
	if (from->last_us < into->last_us)
		return;
	into->last_us = from->last_us;
	into->sample = from->sample;
	memcpy(into->request_id, from->request_id, sizeof(into->request_id));
	memcpy(into->text, from->text, sizeof(into->text));
}

static void errors_count(struct errors_counter *c, const struct error_group *g)
{
	size_t at = errors_hash(g) & (c->n_slots - 1);
	while (c->slots[at] && !errors_same(&c->groups[c->slots[at] - 1], g))
		at = (at + 1) & (c->n_slots - 1);
	if (c->slots[at]) {
		errors_join(&c->groups[c->slots[at] - 1], g);
	} else if (c->n == GROUPS_MAX) {
		c->beyond += g->count;
	} else {
		c->groups[c->n] = *g;
		c->slots[at] = (uint32_t)++c->n;
	}
}

/* --- reading -------------------------------------------------------------------------------------------- */

static void errors_describe(const struct search_series *x, int status, struct error_group *g)
{
	*g = (struct error_group){
		.side = x->side, .role = x->role, .result = x->result, .http_status = status};
	memcpy(g->service, x->service, sizeof(g->service));
	memcpy(g->operation, x->operation, sizeof(g->operation));
	memcpy(g->backend, x->backend, sizeof(g->backend));
}

/* series, http_status, error, time_us, id */
static int errors_take_row(void *arg, struct db_stmt *q)
{
	struct errors_reader *m = arg;
	struct error_group g;
	const struct search_series *x = search_series_of(&m->s, db_column_int64(q, 0));
	struct span error = db_column_text(q, 2);
	if (!x || !search_error_matches(&m->s, error))
		return 0;
	errors_describe(x, (int)db_column_int64(q, 1), &g);
	error_pattern(error, g.error);
	g.count = 1;
	g.first_us = g.last_us = db_column_int64(q, 3);
	g.sample = db_column_int64(q, 4);
	errors_count(&m->counter, &g);
	return 0;
}

static int errors_read_rows(struct errors_reader *m, const struct rows_span *spans, size_t n, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int r = search_prepare_rows(&m->s, "series, http_status, error, time_us, id", "", &q, e);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = rows_each(&m->s.rows, q, &spans[i], errors_take_row, m, e);
	return r < 0 ? r : 0;
}

static void errors_take_hour(struct errors_reader *m, struct db_stmt *q)
{
	struct error_group g;
	const struct search_series *x = search_series_of(&m->s, db_column_int64(q, 0));
	const struct search_filter *f = m->s.filter;
	struct span pattern = db_column_text(q, 2);
	if (!x || (f->error && !span_is(pattern, f->error)) ||
	    (f->status && f->status != db_column_int64(q, 1)))
		return;
	errors_describe(x, (int)db_column_int64(q, 1), &g);
	text_copy(pattern, g.error, sizeof(g.error));
	g.count = (uint64_t)db_column_int64(q, 3);
	g.first_us = db_column_int64(q, 4);
	g.last_us = db_column_int64(q, 5);
	g.sample = db_column_int64(q, 6);
	errors_count(&m->counter, &g);
}

static int errors_read_hours(struct errors_reader *m, const struct rows_split *split, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	if (split->first_hour >= split->end_hour)
		return 0;
	int r = db_prepare(
		m->s.db,
		"SELECT series, http_status, error, count, first_us, last_us, sample FROM error_hours"
		" WHERE hour >= ? AND hour < ?",
		&q, e);
	if (r < 0)
		return r;
	db_bind_int64(q, 1, split->first_hour);
	db_bind_int64(q, 2, split->end_hour);
	while ((r = db_step(q, e)) > 0)
		errors_take_hour(m, q);
	return r;
}

static bool errors_by_rows(const struct search_filter *f)
{
	return f->organization || f->user || f->request_id || f->task_id;
}

static int errors_read(struct errors_reader *m, struct err *e)
{
	const struct search_filter *f = m->s.filter;
	int64_t since_us = f->since_us ? f->since_us : INT64_MIN,
		until_us = f->until_us ? f->until_us : INT64_MAX;
	struct rows_split split;
	if (errors_by_rows(f)) {
		const struct rows_span all = {0, INT64_MAX, since_us, until_us};
		return errors_read_rows(m, &all, 1, e);
	}
	rows_split(&m->s.rows, since_us, until_us, &split);
	int r = errors_read_hours(m, &split, e);
	return r < 0 ? r : errors_read_rows(m, split.spans, split.n_spans, e);
}

/* --- finishing ------------------------------------------------------------------------------------------ */

static int errors_compare(const void *a, const void *b)
{
	const struct error_group *x = a, *y = b;
	if (x->count != y->count)
		return x->count > y->count ? -1 : 1;
	if (x->last_us != y->last_us)
		return x->last_us > y->last_us ? -1 : 1;
	return strcmp(x->error, y->error);
}

static int errors_finish(struct errors_counter *c, size_t limit, struct errors *r)
{
	if (!limit || limit > ERRORS_MAX)
		limit = ERRORS_MAX;
	qsort(c->groups, c->n, sizeof(c->groups[0]), errors_compare);
	r->n = c->n < limit ? c->n : limit;
	r->all = calloc(r->n + 1, sizeof(*r->all));
	if (!r->all)
		return -ENOMEM;
	memcpy(r->all, c->groups, r->n * sizeof(*r->all));
	r->total = r->left_out = c->beyond;
	for (size_t i = 0; i < c->n; i++) {
		r->total += c->groups[i].count;
		r->left_out += i < r->n ? 0 : c->groups[i].count;
	}
	return 0;
}

static int errors_read_samples(struct errors_reader *m, struct errors *found, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int r = m->s.rows.has_errors
			? db_prepare(m->s.db, "SELECT request_id, error FROM outcomes WHERE id = ?", &q, e)
			: 0;
	for (size_t i = 0; r == 0 && q && i < found->n; i++) {
		struct error_group *g = &found->all[i];
		db_bind_int64(q, 1, g->sample);
		r = db_step(q, e);
		if (r <= 0)
			continue;
		text_copy(db_column_text(q, 0), g->request_id, sizeof(g->request_id));
		text_copy(db_column_text(q, 1), g->text, sizeof(g->text));
		db_reset(q);
		r = 0;
	}
	return r;
}

static int errors_make(struct errors_reader *m, const char *path, size_t limit, struct errors *found,
		       struct err *e)
{
	struct search_filter failed = *m->s.filter;
	failed.failed = true;
	int r = search_open(path, &failed, &m->s, e);
	if (r == 0 && errors_new_counter(&m->counter) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r == 0)
		r = errors_read(m, e);
	if (r == 0 && errors_finish(&m->counter, limit, found) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r == 0)
		r = errors_read_samples(m, found, e);
	found->recorded = m->s.rows.has_errors;
	found->cut = m->s.rows.cut;
	search_close(&m->s);
	return r;
}

int errors_find(const char *path, const struct search_filter *f, size_t limit, struct errors **ret,
		struct err *e)
{
	CLEANUP(errors_freep) struct errors *found = calloc(1, sizeof(*found));
	struct errors_reader m = {.s.filter = f};
	if (!found)
		return err_set(e, -ENOMEM, "out of memory");
	int r = errors_make(&m, path, limit, found, e);
	errors_free_counter(&m.counter);
	if (r == 0)
		*ret = steal(found);
	return r;
}

int errors_merge(struct errors *const *all, size_t n, size_t limit, struct errors **ret, struct err *e)
{
	CLEANUP(errors_freep) struct errors *merged = calloc(1, sizeof(*merged));
	struct errors_counter c = {.n = 0};
	int r = merged && errors_new_counter(&c) == 0 ? 0 : -ENOMEM;
	for (size_t i = 0; r == 0 && i < n; i++) {
		for (size_t j = 0; j < all[i]->n; j++)
			errors_count(&c, &all[i]->all[j]);
		c.beyond += all[i]->left_out;
		merged->recorded |= all[i]->recorded;
		merged->cut |= all[i]->cut;
	}
	if (r == 0)
		r = errors_finish(&c, limit, merged);
	errors_free_counter(&c);
	if (r < 0)
		return err_set(e, r, "out of memory");
	*ret = steal(merged);
	return 0;
}

struct errors *errors_free(struct errors *r)
{
	if (r) {
		free(r->all);
		free(r);
	}
	return NULL;
}
