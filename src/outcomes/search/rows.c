#include "outcomes/search/rows.h"

#include "outcomes/search/row_filter.h"

#define MINUTE_US INT64_C(60000000)

/* --- opening -------------------------------------------------------------------------------------------- */

int rows_open(struct db *db, struct rows_reader *ret, struct err *e)
{
	int64_t n = 0;
	*ret = (struct rows_reader){.db = db, .most = ROWS_LOOKED_MAX};
	int r = db_query_int64(db, "SELECT count(*) FROM pragma_table_info('outcomes') WHERE name = 'error'",
			       &n, e);
	ret->has_errors = n > 0;
	if (r == 0)
		r = db_query_int64(db, "SELECT count(*) FROM sqlite_master WHERE name = 'row_chunks'", &n, e);
	ret->has_index = n > 0;
	if (r == 0 && ret->has_index)
		r = db_query_int64(db, "SELECT coalesce(max(last), 0) FROM row_chunks", &ret->indexed, e);
	return r;
}

/* --- ranges --------------------------------------------------------------------------------------------- */

static bool rows_may_match(const struct rows_reader *r, struct span filter)
{
	for (size_t i = 0; i < r->n_keys; i++)
		if (!row_filter_has(filter, r->keys[i].either) && !row_filter_has(filter, r->keys[i].or))
			return false;
	return true;
}

/* One range of ids. */
static int rows_range(struct rows_reader *r, struct db_stmt *q, int64_t first, int64_t last,
		      int (*fn)(void *arg, struct db_stmt *q), void *arg, struct err *e)
{
	if (r->looked > r->most) {
		r->cut = true;
		return 1;
	}
	int64_t left = r->most - r->looked;
	if (last - first > left) { /* its newest part */
		first = last - left;
		r->cut = true;
	}
	r->looked += last - first + 1;
	r->cut_before = first;
	db_bind_int64(q, 1, first);
	db_bind_int64(q, 2, last);
	int step, code = 0;
	while (code == 0 && (step = db_step(q, e)) != 0)
		code = step < 0 ? step : fn(arg, q);
	db_reset(q);
	return code == 0 && r->cut ? 1 : code;
}

static int rows_chunks(struct rows_reader *r, struct db_stmt *q, const struct rows_span *span,
		       int (*fn)(void *arg, struct db_stmt *q), void *arg, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *chunks = NULL;
	int code = db_prepare(r->db,
			      "SELECT first, last, filter FROM row_chunks WHERE first <= ?2 AND last >= ?1"
			      " AND latest_us >= ?3 AND earliest_us < ?4 ORDER BY first DESC",
			      &chunks, e);
	if (code < 0)
		return code;
	db_bind_int64(chunks, 1, span->first);
	db_bind_int64(chunks, 2, span->last);
	db_bind_int64(chunks, 3, span->since_us);
	db_bind_int64(chunks, 4, span->until_us);
	while (code == 0 && (code = db_step(chunks, e)) > 0) {
		int64_t first = db_column_int64(chunks, 0), last = db_column_int64(chunks, 1);
		code = 0;
		if (rows_may_match(r, db_column_blob(chunks, 2)))
			code = rows_range(r, q, first > span->first ? first : span->first,
					  last < span->last ? last : span->last, fn, arg, e);
		if (code == 0)
			continue;
		return code;
	}
	return code;
}

/* The first id that can be of an attempt that began at or after a time: it is written after it began. */
static int rows_first_since(struct rows_reader *r, int64_t since_us, int64_t *ret, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *q = NULL;
	*ret = 0;
	if (since_us <= 0)
		return 0;
	int code = db_prepare(r->db, "SELECT min(row) FROM row_marks WHERE minute >= ?", &q, e);
	if (code < 0)
		return code;
	db_bind_int64(q, 1, since_us / MINUTE_US);
	code = db_step(q, e);
	if (code < 0)
		return code;
	*ret = db_column_is_null(q, 0) ? INT64_MAX : db_column_int64(q, 0);
	return 0;
}

static int64_t rows_later(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

int rows_each(struct rows_reader *r, struct db_stmt *q, const struct rows_span *asked,
	      int (*fn)(void *arg, struct db_stmt *q), void *arg, struct err *e)
{
	struct rows_span span = *asked;
	int64_t since, newest;
	int code = rows_first_since(r, span.since_us, &since, e);
	if (code == 0)
		code = db_query_int64(r->db, "SELECT coalesce(max(id), 0) FROM outcomes", &newest, e);
	if (code < 0)
		return code;
	if (span.last > newest)
		span.last = newest;
	db_bind_int64(q, 3, span.since_us);
	db_bind_int64(q, 4, span.until_us);
	int64_t tail = rows_later(r->indexed + 1, rows_later(span.first, since));
	if (tail <= span.last)
		code = rows_range(r, q, tail, span.last, fn, arg, e);
	if (code == 0 && r->indexed > 0 && span.first <= r->indexed)
		code = rows_chunks(r, q, &span, fn, arg, e);
	return code;
}

/* --- hours and the rest --------------------------------------------------------------------------------- */

static int64_t rows_floor_hour(int64_t us)
{
	return us / ROWS_HOUR_US - (us % ROWS_HOUR_US < 0);
}

static void rows_add_span(struct rows_split *s, int64_t first, int64_t last, int64_t since_us,
			  int64_t until_us)
{
	if (first <= last && since_us < until_us)
		s->spans[s->n_spans++] = (struct rows_span){first, last, since_us, until_us};
}

void rows_split(const struct rows_reader *r, int64_t since_us, int64_t until_us, struct rows_split *ret)
{
	*ret = (struct rows_split){.n_spans = 0};
	int64_t first = INT64_MIN / ROWS_HOUR_US, end = INT64_MAX / ROWS_HOUR_US;
	if (since_us != INT64_MIN)
		first = rows_floor_hour(since_us) + (since_us % ROWS_HOUR_US != 0);
	if (until_us != INT64_MAX)
		end = rows_floor_hour(until_us);
	if (r->indexed == 0 || first >= end) {
		rows_add_span(ret, 0, INT64_MAX, since_us, until_us);
		return;
	}
	ret->first_hour = first;
	ret->end_hour = end;
	rows_add_span(ret, r->indexed + 1, INT64_MAX, since_us, until_us);
	if (since_us != INT64_MIN)
		rows_add_span(ret, 0, r->indexed, since_us, first * ROWS_HOUR_US);
	if (until_us != INT64_MAX)
		rows_add_span(ret, 0, r->indexed, end * ROWS_HOUR_US, until_us);
}
