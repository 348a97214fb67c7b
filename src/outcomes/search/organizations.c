#include "outcomes/search/organizations.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/hash.h"
#include "base/text.h"

struct organizations_reader {
	struct search s;
	const struct organizations_options *options;
	struct organization *all;
	uint32_t *slots; /* place + 1; 0 = free */
	size_t n, capacity, n_slots;
	uint64_t left_out;
};

/* What of one series is counted: one row, or the sum of an hour. */
struct organizations_part {
	struct span name;
	const struct search_series *series;
	uint64_t count;
	int64_t first_us, last_us;
};

/* --- counting ------------------------------------------------------------------------------------------- */

static int organizations_grow(struct organizations_reader *m)
{
	size_t room = m->capacity ? 2 * m->capacity : 1024;
	struct organization *grown = reallocarray(m->all, room, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	m->all = grown;
	uint32_t *slots = calloc(4 * room, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	free(m->slots);
	m->slots = slots;
	m->capacity = room;
	m->n_slots = 4 * room;
	for (size_t i = 0; i < m->n; i++) {
		size_t at = hash64_span(HASH64_START, span_of(m->all[i].name)) & (m->n_slots - 1);
		while (m->slots[at])
			at = (at + 1) & (m->n_slots - 1);
		m->slots[at] = (uint32_t)i + 1;
	}
	return 0;
}

/* NULL in *ret: there are too many. */
static int organizations_place(struct organizations_reader *m, struct span name, struct organization **ret)
{
	if (m->n == m->capacity && organizations_grow(m) < 0)
		return -ENOMEM;
	size_t at = hash64_span(HASH64_START, name) & (m->n_slots - 1);
	while (m->slots[at] && !span_is(name, m->all[m->slots[at] - 1].name))
		at = (at + 1) & (m->n_slots - 1);
	if (m->slots[at]) {
		*ret = &m->all[m->slots[at] - 1];
		return 0;
	}
	*ret = NULL;
	if (m->n == ORGANIZATIONS_MAX)
		return 0;
	*ret = &m->all[m->n];
	**ret = (struct organization){.on = ON_NEITHER};
	span_copy(name, (*ret)->name, sizeof((*ret)->name));
	m->slots[at] = (uint32_t)++m->n;
	return 0;
}

static void organizations_add_answers(struct organization_sums *s, const struct organizations_part *p)
{
	if (!s->requests || p->first_us < s->first_us)
		s->first_us = p->first_us;
	if (!s->requests || p->last_us > s->last_us)
		s->last_us = p->last_us;
	s->requests += p->count;
}

static int organizations_count(struct organizations_reader *m, const struct organizations_part *p)
{
	struct organization *o;
	if (p->series->role == OUTCOME_SHADOW || !p->name.len)
		return 0;
	if (organizations_place(m, p->name, &o) < 0)
		return -ENOMEM;
	if (!o) {
		m->left_out += p->count;
		return 0;
	}
	struct organization_sums *s = &o->sides[p->series->side];
	if (p->series->answered)
		organizations_add_answers(s, p);
	if (!outcome_is_counted(p->series->result))
		return 0;
	s->counted += p->count;
	if (p->series->result != OUTCOME_SUCCESS)
		s->errors += p->count;
	return 0;
}

/* --- reading -------------------------------------------------------------------------------------------- */

/* organisation, series, time_us */
static int organizations_take_row(void *arg, struct db_stmt *q)
{
	struct organizations_reader *m = arg;
	int64_t time_us = db_column_int64(q, 2);
	const struct organizations_part p = {.name = db_column_text(q, 0),
					     .series = search_series_of(&m->s, db_column_int64(q, 1)),
					     .count = 1,
					     .first_us = time_us,
					     .last_us = time_us};
	return p.series ? organizations_count(m, &p) : 0;
}

static int organizations_read_rows(struct organizations_reader *m, const struct rows_split *split,
				   struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int r = search_prepare_rows(&m->s, "organisation, series, time_us", "", &q, e);
	for (size_t i = 0; r == 0 && i < split->n_spans; i++)
		r = rows_each(&m->s.rows, q, &split->spans[i], organizations_take_row, m, e);
	return r == -ENOMEM ? err_set(e, r, "out of memory") : r;
}

static int organizations_take_hour(struct organizations_reader *m, struct db_stmt *q, struct err *e)
{
	const struct organizations_part p = {.name = db_column_text(q, 0),
					     .series = search_series_of(&m->s, db_column_int64(q, 1)),
					     .count = (uint64_t)db_column_int64(q, 2),
					     .first_us = db_column_int64(q, 3),
					     .last_us = db_column_int64(q, 4)};
	if (p.series && organizations_count(m, &p) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	return 0;
}

/* The next hour that has any; it can be asked by its organization without passing all others. */
static int organizations_next_hour(struct db_stmt *q, int64_t from, int64_t *ret, bool *none, struct err *e)
{
	db_bind_int64(q, 1, from);
	int r = db_step(q, e);
	if (r < 0)
		return r;
	*none = db_column_is_null(q, 0);
	*ret = db_column_int64(q, 0);
	db_reset(q);
	return 0;
}

static int organizations_read_one(struct organizations_reader *m, const struct rows_split *split,
				  struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *hours = NULL;
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int64_t hour = split->first_hour;
	bool none = false;
	int r = db_prepare(m->s.db, "SELECT min(hour) FROM organization_hours WHERE hour >= ?", &hours, e);
	if (r == 0)
		r = db_prepare(m->s.db,
			       "SELECT organization, series, count, first_us, last_us FROM organization_hours"
			       " WHERE hour = ? AND organization = ?",
			       &q, e);
	for (; r == 0 && (r = organizations_next_hour(hours, hour, &hour, &none, e)) == 0 && !none; hour++) {
		if (hour >= split->end_hour)
			break;
		db_bind_int64(q, 1, hour);
		db_bind_text(q, 2, span_of(m->s.organization));
		while ((r = db_step(q, e)) > 0 && (r = organizations_take_hour(m, q, e)) == 0)
			;
	}
	return r;
}

/* Of the cells of `table` from one hour, or day, up to another. */
static int organizations_read_cells(struct organizations_reader *m, const char *sql, int64_t first,
				    int64_t end, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	if (first >= end)
		return 0;
	int r = db_prepare(m->s.db, sql, &q, e);
	if (r < 0)
		return r;
	db_bind_int64(q, 1, first);
	db_bind_int64(q, 2, end);
	while ((r = db_step(q, e)) > 0 && (r = organizations_take_hour(m, q, e)) == 0)
		;
	return r;
}

/* The days that may stand for their hours: [first, end). Of the first day some hours may be deleted. */
static int organizations_days(struct organizations_reader *m, int64_t *first, int64_t *end, struct err *e)
{
	int64_t there = 0, hour = 0, until = 0;
	*first = *end = 0;
	int r = db_query_int64(m->s.db,
			       "SELECT count(*) FROM sqlite_master WHERE name = 'organization_days_until'",
			       &there, e);
	if (r < 0 || !there)
		return r;
	r = db_query_int64(m->s.db, "SELECT hour FROM organization_days_until", &until, e);
	if (r == 0)
		r = db_query_int64(m->s.db, "SELECT coalesce(min(hour), 0) FROM organization_hours", &hour,
				   e);
	*first = (hour + 23) / 24;
	*end = until / 24;
	return r;
}

/* Whole days from days, the hours around them from hours. */
static int organizations_read_hours(struct organizations_reader *m, const struct rows_split *split,
				    struct err *e)
{
	static const char
		hours[] = "SELECT organization, series, count, first_us, last_us FROM organization_hours"
			  " WHERE hour >= ? AND hour < ?",
		days[] = "SELECT organization, series, count, first_us, last_us FROM organization_days"
			 " WHERE day >= ? AND day < ?";
	int64_t first_day, end_day, first = split->first_hour, end = split->end_hour;
	if (first >= end)
		return 0;
	if (m->s.filter->organization)
		return organizations_read_one(m, split, e);
	int r = organizations_days(m, &first_day, &end_day, e);
	if (first > 0 && (first + 23) / 24 > first_day)
		first_day = (first + 23) / 24;
	if (end / 24 < end_day)
		end_day = end / 24;
	if (r < 0 || first_day >= end_day)
		return r < 0 ? r : organizations_read_cells(m, hours, first, end, e);
	r = organizations_read_cells(m, hours, first, first_day * 24, e);
	if (r == 0)
		r = organizations_read_cells(m, days, first_day, end_day, e);
	return r < 0 ? r : organizations_read_cells(m, hours, end_day * 24, end, e);
}

static int organizations_read(struct organizations_reader *m, struct err *e)
{
	const struct search_filter *f = m->s.filter;
	struct rows_split split;
	rows_split(&m->s.rows, f->since_us ? f->since_us : INT64_MIN, f->until_us ? f->until_us : INT64_MAX,
		   &split);
	int r = organizations_read_hours(m, &split, e);
	return r < 0 ? r : organizations_read_rows(m, &split, e);
}

/* --- finishing ------------------------------------------------------------------------------------------ */

static void organizations_judge(struct organization *o)
{
	const struct organization_sums *l = &o->sides[OUTCOME_LEGACY], *t = &o->sides[OUTCOME_TASK];
	o->requests = l->requests + t->requests;
	o->errors = l->errors + t->errors;
	if (!o->requests) {
		o->on = ON_NEITHER;
	} else if (!l->requests || (t->requests && t->first_us > l->last_us)) {
		o->on = ON_TASK;
		o->since_us = t->first_us;
		o->before_span = !l->requests;
	} else if (!t->requests || l->first_us > t->last_us) {
		o->on = ON_LEGACY;
		o->since_us = l->first_us;
		o->before_span = !t->requests;
	} else {
		o->on = ON_BOTH;
		o->since_us = l->first_us > t->first_us ? l->first_us : t->first_us;
	}
}

static int organizations_by_name(const void *a, const void *b)
{
	return strcmp(((const struct organization *)a)->name, ((const struct organization *)b)->name);
}

static int organizations_by_requests(const void *a, const void *b)
{
	const struct organization *x = a, *y = b;
	if (x->requests != y->requests)
		return x->requests > y->requests ? -1 : 1;
	return organizations_by_name(a, b);
}

static int organizations_by_errors(const void *a, const void *b)
{
	const struct organization *x = a, *y = b;
	if (x->errors != y->errors)
		return x->errors > y->errors ? -1 : 1;
	return organizations_by_requests(a, b);
}

/* Those that are searched move to the front. */
static void organizations_select(struct organizations_reader *m)
{
	const char *search = m->options->search;
	size_t n = 0;
	for (size_t i = 0; i < m->n; i++) {
		if (search && *search && !strcasestr(m->all[i].name, search))
			continue;
		organizations_judge(&m->all[i]);
		if (i != n)
			m->all[n] = m->all[i];
		n++;
	}
	m->n = n;
}

static int organizations_finish(struct organizations_reader *m, struct organization_list *found)
{
	static int (*const orders[])(const void *,
				     const void *) = {[ORGANIZATIONS_BY_ERRORS] = organizations_by_errors,
						      [ORGANIZATIONS_BY_REQUESTS] = organizations_by_requests,
						      [ORGANIZATIONS_BY_NAME] = organizations_by_name};
	organizations_select(m);
	if (m->n)
		qsort(m->all, m->n, sizeof(m->all[0]), orders[m->options->order]);
	found->found = m->n;
	found->left_out = m->left_out;
	size_t offset = m->options->offset < m->n ? m->options->offset : m->n, n = m->n - offset;
	if (m->options->limit && n > m->options->limit)
		n = m->options->limit;
	found->all = calloc(n + 1, sizeof(*found->all));
	if (!found->all)
		return -ENOMEM;
	if (n)
		memcpy(found->all, m->all + offset, n * sizeof(*found->all));
	found->n = n;
	return 0;
}

static void organizations_add_side(struct organization_sums *to, const struct organization_sums *of)
{
	if (of->requests && (!to->requests || of->first_us < to->first_us))
		to->first_us = of->first_us;
	if (of->requests && (!to->requests || of->last_us > to->last_us))
		to->last_us = of->last_us;
	to->requests += of->requests;
	to->counted += of->counted;
	to->errors += of->errors;
}

static int organizations_add(struct organizations_reader *m, const struct organization_list *of)
{
	m->left_out += of->left_out;
	for (size_t i = 0; i < of->n; i++) {
		struct organization *o;
		if (organizations_place(m, span_of(of->all[i].name), &o) < 0)
			return -ENOMEM;
		for (int side = 0; side < OUTCOME_SIDE_COUNT; side++)
			if (o)
				organizations_add_side(&o->sides[side], &of->all[i].sides[side]);
			else
				m->left_out += of->all[i].sides[side].requests;
	}
	return 0;
}

int organization_list_of_all(const char *const *paths, size_t n, struct organization_list *const *others,
			     size_t n_others, const struct organizations_options *o,
			     struct organization_list **ret, struct err *e)
{
	CLEANUP(organization_list_freep) struct organization_list *found = calloc(1, sizeof(*found));
	struct organizations_reader m = {.options = o};
	if (!found)
		return err_set(e, -ENOMEM, "out of memory");
	int r = 0;
	for (size_t i = 0; r >= 0 && i < n; i++) {
		r = search_open(paths[i], &o->filter, &m.s, e);
		if (r == 0)
			r = organizations_read(&m, e);
		found->cut |= m.s.rows.cut;
		search_close(&m.s);
	}
	for (size_t i = 0; r >= 0 && i < n_others; i++) {
		found->cut |= others[i]->cut;
		if (organizations_add(&m, others[i]) < 0)
			r = err_set(e, -ENOMEM, "out of memory");
	}
	if (r >= 0 && organizations_finish(&m, found) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	free(m.all);
	free(m.slots);
	if (r < 0)
		return r;
	*ret = steal(found);
	return 0;
}

int organization_list_find(const char *path, const struct organizations_options *o,
			   struct organization_list **ret, struct err *e)
{
	return organization_list_of_all(&path, 1, NULL, 0, o, ret, e);
}

struct organization_list *organization_list_free(struct organization_list *r)
{
	if (r) {
		free(r->all);
		free(r);
	}
	return NULL;
}

const char *organization_on_text(enum organization_on on)
{
	static const char *const texts[] = {
		[ON_LEGACY] = "legacy", [ON_TASK] = "task", [ON_BOTH] = "both", [ON_NEITHER] = "none"};
	return texts[on];
}
