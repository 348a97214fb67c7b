#include "outcomes/search/requests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

#define ATTEMPT_COLUMNS \
	"id, time_us, series, latency_us, http_status, organisation, user, variant, task_id, request_id, " \
	"error"

struct requests_reader {
	struct search s;
	struct requests *found;
	size_t limit, capacity;
};

/* --- reading -------------------------------------------------------------------------------------------- */

static void attempt_read(struct db_stmt *q, const struct search_series *x, struct attempt *a)
{
	*a = (struct attempt){.row = db_column_int64(q, 0),
			      .time_us = db_column_int64(q, 1),
			      .latency_us = db_column_int64(q, 3),
			      .http_status = (int)db_column_int64(q, 4),
			      .side = x->side,
			      .role = x->role,
			      .reason = x->reason,
			      .result = x->result,
			      .answered = x->answered};
	memcpy(a->service, x->service, sizeof(a->service));
	memcpy(a->operation, x->operation, sizeof(a->operation));
	memcpy(a->backend, x->backend, sizeof(a->backend));
	text_copy(db_column_text(q, 5), a->organization, sizeof(a->organization));
	text_copy(db_column_text(q, 6), a->user, sizeof(a->user));
	text_copy(db_column_text(q, 7), a->variant, sizeof(a->variant));
	text_copy(db_column_text(q, 8), a->task_id, sizeof(a->task_id));
	text_copy(db_column_text(q, 9), a->request_id, sizeof(a->request_id));
	text_copy(db_column_text(q, 10), a->error, sizeof(a->error));
}

static int requests_grow(struct requests_reader *m)
{
	if (m->found->n < m->capacity)
		return 0;
	size_t room = m->capacity ? 2 * m->capacity : 16;
	struct attempt *grown = reallocarray(m->found->all, room, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	m->found->all = grown;
	m->capacity = room;
	return 0;
}

/* One more than the limit tells that there is more. */
static int requests_take(void *arg, struct db_stmt *q)
{
	struct requests_reader *m = arg;
	const struct search_series *x = search_series_of(&m->s, db_column_int64(q, 2));
	if (!x || !search_error_matches(&m->s, db_column_text(q, 10)))
		return 0;
	if (m->found->n == m->limit) {
		m->found->next = m->found->all[m->limit - 1].row;
		return 1;
	}
	if (requests_grow(m) < 0)
		return -ENOMEM;
	attempt_read(q, x, &m->found->all[m->found->n++]);
	return 0;
}

static int requests_read_clients(struct requests_reader *m, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	int64_t there = 0;
	int r = db_query_int64(m->s.db, "SELECT count(*) FROM sqlite_master WHERE name = 'clients'", &there,
			       e);
	if (r < 0 || !there)
		return r;
	r = db_prepare(m->s.db, "SELECT client FROM clients WHERE row = ?", &q, e);
	for (size_t i = 0; r == 0 && i < m->found->n; i++) {
		struct attempt *a = &m->found->all[i];
		db_bind_int64(q, 1, a->row);
		r = db_step(q, e);
		if (r <= 0)
			continue;
		text_copy(db_column_text(q, 0), a->client, sizeof(a->client));
		db_reset(q);
		r = 0;
	}
	return r;
}

/* Where it was cut, in time. */
static int requests_read_cut(struct requests_reader *m, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	m->found->cut = true;
	int r = db_prepare(m->s.db, "SELECT time_us FROM outcomes WHERE id >= ? ORDER BY id LIMIT 1", &q, e);
	if (r < 0)
		return r;
	db_bind_int64(q, 1, m->s.rows.cut_before);
	r = db_step(q, e);
	if (r > 0)
		m->found->cut_us = db_column_int64(q, 0);
	m->found->next = m->s.rows.cut_before;
	return r < 0 ? r : 0;
}

static int requests_compare_times(const void *a, const void *b)
{
	const struct attempt *x = a, *y = b;
	if (x->time_us != y->time_us)
		return x->time_us < y->time_us ? -1 : 1;
	return x->row < y->row ? -1 : x->row > y->row;
}

static int requests_compare_newest(const void *a, const void *b)
{
	return requests_compare_times(b, a);
}

static int requests_read(struct requests_reader *m, int64_t before, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	const struct search_filter *f = m->s.filter;
	struct rows_span span = {.last = before ? before - 1 : INT64_MAX,
				 .since_us = f->since_us ? f->since_us : INT64_MIN,
				 .until_us = f->until_us ? f->until_us : INT64_MAX};
	int r = search_prepare_rows(&m->s, ATTEMPT_COLUMNS, " ORDER BY id DESC", &q, e);
	if (r == 0)
		r = rows_each(&m->s.rows, q, &span, requests_take, m, e);
	if (r == -ENOMEM)
		return err_set(e, r, "out of memory");
	if (r >= 0 && m->s.rows.cut && !m->found->next)
		r = requests_read_cut(m, e);
	if (r >= 0 && m->found->n) /* rows are in the order of writing, which is that of times but nearly */
		qsort(m->found->all, m->found->n, sizeof(m->found->all[0]), requests_compare_newest);
	return r < 0 ? r : requests_read_clients(m, e);
}

int requests_find(const char *path, const struct search_filter *f, int64_t before, size_t limit,
		  struct requests **ret, struct err *e)
{
	struct requests_reader m = {.found = calloc(1, sizeof(*m.found)),
				    .limit = limit && limit < REQUESTS_MAX ? limit : REQUESTS_MAX};
	if (!m.found)
		return err_set(e, -ENOMEM, "out of memory");
	int r = search_open(path, f, &m.s, e);
	if (r == 0)
		r = requests_read(&m, before, e);
	search_close(&m.s);
	if (r < 0) {
		requests_free(m.found);
		return r;
	}
	*ret = m.found;
	return 0;
}

int requests_of(const char *path, const char *request_id, struct requests **ret, struct err *e)
{
	struct search_filter f = SEARCH_FILTER_ALL;
	f.request_id = request_id;
	int r = requests_find(path, &f, 0, REQUESTS_MAX, ret, e);
	if (r == 0 && (*ret)->n)
		qsort((*ret)->all, (*ret)->n, sizeof((*ret)->all[0]), requests_compare_times);
	return r;
}

static int requests_join(struct requests *const *all, size_t n, struct requests *into)
{
	size_t count = 0;
	for (size_t i = 0; i < n; i++)
		count += all[i]->n;
	into->all = calloc(count + 1, sizeof(*into->all));
	if (!into->all)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (all[i]->n)
			memcpy(into->all + into->n, all[i]->all, all[i]->n * sizeof(*into->all));
		into->n += all[i]->n;
		into->cut |= all[i]->cut;
		if (all[i]->cut_us > into->cut_us)
			into->cut_us = all[i]->cut_us;
	}
	return 0;
}

/* Of one file it is as it was; of several a row's id tells nothing, so what is left is told by its time. */
int requests_merge(struct requests *const *all, size_t n, bool oldest_first, size_t limit,
		   struct requests **ret, struct err *e)
{
	CLEANUP(requests_freep) struct requests *merged = calloc(1, sizeof(*merged));
	bool more = false;
	if (!merged || requests_join(all, n, merged) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++)
		more |= all[i]->next != 0;
	if (n == 1)
		merged->next = all[0]->next;
	else if (merged->n)
		qsort(merged->all, merged->n, sizeof(merged->all[0]),
		      oldest_first ? requests_compare_times : requests_compare_newest);
	if (!oldest_first && limit && merged->n > limit) {
		merged->n = limit;
		more = true;
	}
	if (n > 1 && more && merged->n)
		merged->more_us = merged->all[merged->n - 1].time_us;
	*ret = steal(merged);
	return 0;
}

struct requests *requests_free(struct requests *r)
{
	if (r) {
		free(r->all);
		free(r);
	}
	return NULL;
}
