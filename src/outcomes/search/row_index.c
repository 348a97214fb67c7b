#include "outcomes/search/row_index.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "outcomes/search/error_pattern.h"
#include "outcomes/histogram.h"
#include "outcomes/outcome.h"
#include "outcomes/search/row_filter.h"

#define KEYS_PER_ROW 7
#define KEY_SLOTS (16 * ROW_INDEX_RANGE) /* a power of two, twice as many as there can be keys */
_Static_assert(KEY_SLOTS > 2 * KEYS_PER_ROW * ROW_INDEX_RANGE, "room for each key");
#define FAILED \
	"(error IS NOT NULL OR series IN (SELECT id FROM series WHERE result NOT IN ('success', " \
	"'rejected')))"
#define ENCODED_MAX (HISTOGRAM_BUCKETS * 8)

static const char index_schema[] =
	"ALTER TABLE outcomes ADD COLUMN error TEXT;"
	"DROP VIEW IF EXISTS attempts;"
	"CREATE VIEW attempts AS SELECT o.id, strftime('%Y-%m-%dT%H:%M:%fZ', o.time_us / 1000000.0, "
	"'unixepoch') AS time,"
	"  s.service, s.operation, o.organisation AS organization, o.user, s.side, s.backend, s.role, "
	"s.reason, o.variant, s.result, s.answered, o.http_status, o.latency_us, o.task_id, o.request_id,"
	"  c.client, o.error"
	"  FROM outcomes o JOIN series s ON s.id = o.series LEFT JOIN clients c ON c.row = o.id;"
	"CREATE TABLE row_chunks (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, earliest_us INTEGER NOT "
	"NULL,"
	"  latest_us INTEGER NOT NULL, filter BLOB NOT NULL);"
	"CREATE TABLE organization_hours (hour INTEGER NOT NULL, organization TEXT NOT NULL,"
	"  series INTEGER NOT NULL, count INTEGER NOT NULL, latency_us INTEGER NOT NULL, first_us INTEGER "
	"NOT NULL,"
	"  last_us INTEGER NOT NULL, histogram BLOB NOT NULL, PRIMARY KEY (hour, organization, series))"
	"  WITHOUT ROWID;"
	"CREATE TABLE error_hours (hour INTEGER NOT NULL, series INTEGER NOT NULL, http_status INTEGER NOT "
	"NULL,"
	"  error TEXT NOT NULL, count INTEGER NOT NULL, first_us INTEGER NOT NULL, last_us INTEGER NOT NULL,"
	"  sample INTEGER NOT NULL, PRIMARY KEY (hour, series, http_status, error)) WITHOUT ROWID;";

/* A day's cells are made of its hours once these are over, an hour at a time. */
static const char days_schema[] =
	"CREATE TABLE organization_days (day INTEGER NOT NULL, organization TEXT NOT NULL,"
	"  series INTEGER NOT NULL, count INTEGER NOT NULL, first_us INTEGER NOT NULL, last_us INTEGER NOT "
	"NULL,"
	"  PRIMARY KEY (day, organization, series)) WITHOUT ROWID;"
	"CREATE TABLE organization_days_until (hour INTEGER NOT NULL);"
	"INSERT INTO organization_days_until VALUES (0);";

#define ADD_TO_DAY \
	" ON CONFLICT (day, organization, series) DO UPDATE SET count = count + excluded.count," \
	" first_us = min(first_us, excluded.first_us), last_us = max(last_us, excluded.last_us)"
#define HOUR_US INT64_C(3600000000)

struct row_index {
	struct db *db;
	struct db_stmt *next_hour, *add_hour, *add_late, *read_until, *put_until, *forget_days;
	int64_t days_until; /* an hour: those before are in days */
	struct db_stmt *next, *rows, *add_chunk, *sorted, *find_sums, *put_sums;
	struct db_stmt *errors, *count_errors, *update_error, *put_error;
	struct db_stmt *forget_chunks, *forget_sums, *forget_errors;
	uint64_t keys[KEY_SLOTS]; /* a set; 0 = free */
	size_t n_keys;
	struct histogram histogram;
	struct buf encoded;
};

/* Of one hour, organization and series, while rows in this order are read. */
struct hour_sums {
	int64_t hour, series, count, latency_us, first_us, last_us;
	char organization[sizeof(((struct outcome *)NULL)->organization)];
};

/* --- opening -------------------------------------------------------------------------------------------- */

static int index_make_tables(struct db *db, const char *table, const char *schema, struct err *e)
{
	char there[128];
	int64_t n;
	snprintf(there, sizeof(there), "SELECT count(*) FROM sqlite_master WHERE name = '%s'", table);
	int r = db_query_int64(db, there, &n, e);
	if (r < 0 || n > 0)
		return r;
	r = db_begin(db, e);
	if (r == 0) /* another process may just have done it */
		r = db_query_int64(db, there, &n, e);
	if (r == 0 && n == 0)
		r = db_exec(db, schema, e);
	if (r == 0)
		r = db_commit(db, e);
	if (r < 0)
		db_rollback(db);
	return r;
}

int row_index_prepare(struct db *db, struct err *e)
{
	int r = index_make_tables(db, "row_chunks", index_schema, e);
	return r < 0 ? r : index_make_tables(db, "organization_days", days_schema, e);
}

static int index_prepare_statements(struct row_index *x, struct err *e)
{
	const struct {
		struct db_stmt **stmt;
		const char *sql;
	} all[] = {
		{&x->next, "SELECT max(coalesce((SELECT max(last) FROM row_chunks) + 1, 0),"
			   " coalesce((SELECT min(id) FROM outcomes), 0))"},
		{&x->rows, "SELECT time_us, request_id, user, organisation, task_id, series, error, " FAILED
			   " FROM outcomes WHERE id BETWEEN ? AND ?"},
		{&x->add_chunk, "INSERT INTO row_chunks VALUES (?,?,?,?,?)"},
		{&x->sorted, "SELECT time_us / 3600000000 AS hour, organisation, series, time_us, latency_us"
			     " FROM outcomes WHERE id BETWEEN ? AND ? AND organisation IS NOT NULL"
			     " ORDER BY hour, organisation, series"},
		{&x->find_sums,
		 "SELECT count, latency_us, first_us, last_us, histogram FROM organization_hours"
		 " WHERE hour = ? AND organization = ? AND series = ?"},
		{&x->put_sums, "INSERT OR REPLACE INTO organization_hours VALUES (?,?,?,?,?,?,?,?)"},
		{&x->errors, /* what failed before there were texts, too */
		 "SELECT time_us / 3600000000, series, http_status, error, time_us, id FROM outcomes"
		 " WHERE id BETWEEN ? AND ? AND " FAILED},
		{&x->count_errors, "SELECT count(*) FROM error_hours WHERE hour = ?"},
		{&x->update_error,
		 "UPDATE error_hours SET count = count + 1, first_us = min(first_us, ?5), last_us = "
		 "max(last_us, ?5),"
		 " sample = ?6 WHERE hour = ?1 AND series = ?2 AND http_status = ?3 AND error = ?4"},
		{&x->put_error, "INSERT INTO error_hours VALUES (?1,?2,?3,?4,1,?5,?5,?6)"},
		{&x->forget_chunks, "DELETE FROM row_chunks WHERE last < ?"},
		{&x->forget_sums, "DELETE FROM organization_hours"
				  " WHERE hour < (SELECT minute / 60 FROM row_marks ORDER BY row LIMIT 1)"},
		{&x->next_hour, "SELECT min(hour) FROM organization_hours WHERE hour >= ?"},
		{&x->add_hour, "INSERT INTO organization_days SELECT hour / 24, organization, series, count,"
			       " first_us, last_us FROM organization_hours WHERE hour = ?" ADD_TO_DAY},
		{&x->add_late, "INSERT INTO organization_days VALUES (?,?,?,?,?,?)" ADD_TO_DAY},
		{&x->read_until, "SELECT hour FROM organization_days_until"},
		{&x->put_until, "UPDATE organization_days_until SET hour = ?"},
		{&x->forget_days, "DELETE FROM organization_days"
				  " WHERE day < (SELECT minute / 1440 FROM row_marks ORDER BY row LIMIT 1)"},
		{&x->forget_errors,
		 "DELETE FROM error_hours"
		 " WHERE hour < (SELECT minute / 60 FROM row_marks ORDER BY row LIMIT 1)"}};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		int r = db_prepare(x->db, all[i].sql, all[i].stmt, e);
		if (r < 0)
			return r;
	}
	return 0;
}

int row_index_new(struct db *db, struct row_index **ret, struct err *e)
{
	CLEANUP(row_index_freep) struct row_index *x = calloc(1, sizeof(*x));
	if (!x)
		return err_set(e, -ENOMEM, "out of memory");
	x->db = db;
	x->encoded = BUF_INIT(ENCODED_MAX);
	int r = index_prepare_statements(x, e);
	if (r == 0)
		*ret = steal(x);
	return r;
}

struct row_index *row_index_free(struct row_index *x)
{
	if (!x)
		return NULL;
	struct db_stmt *all[] = {x->next,	   x->rows,	 x->add_chunk,	   x->sorted,
				 x->find_sums,	   x->put_sums,	 x->errors,	   x->count_errors,
				 x->update_error,  x->put_error, x->forget_chunks, x->forget_sums,
				 x->forget_errors, x->next_hour, x->add_hour,	   x->add_late,
				 x->read_until,	   x->put_until, x->forget_days};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		db_stmt_free(all[i]);
	buf_release(&x->encoded);
	free(x);
	return NULL;
}

/* --- the chunk and its filter --------------------------------------------------------------------------- */

static void index_add_key(struct row_index *x, enum row_filter_kind kind, struct span text)
{
	if (!text.len)
		return;
	uint64_t key = row_filter_key(kind, text);
	size_t at = key % KEY_SLOTS;
	while (x->keys[at] && x->keys[at] != key)
		at = (at + 1) % KEY_SLOTS;
	x->n_keys += x->keys[at] != key;
	x->keys[at] = key;
}

static void index_add_keys(struct row_index *x)
{
	char pattern[OUTCOME_ERROR_MAX];
	struct span error = db_column_text(x->rows, 6);
	index_add_key(x, ROW_REQUEST, db_column_text(x->rows, 1));
	index_add_key(x, ROW_USER, db_column_text(x->rows, 2));
	index_add_key(x, ROW_ORGANIZATION, db_column_text(x->rows, 3));
	index_add_key(x, ROW_TASK, db_column_text(x->rows, 4));
	index_add_key(x, ROW_SERIES, db_column_text(x->rows, 5));
	if (db_column_int64(x->rows, 7))
		index_add_key(x, ROW_FAILED, db_column_text(x->rows, 3));
	if (!error.len)
		return;
	error_pattern(error, pattern);
	index_add_key(x, ROW_ERROR, span_of(pattern));
}

static int index_make_filter(struct row_index *x, unsigned char **ret, size_t *ret_size)
{
	*ret_size = row_filter_size(x->n_keys);
	*ret = calloc(1, *ret_size);
	for (size_t i = 0; *ret && i < KEY_SLOTS; i++)
		if (x->keys[i])
			row_filter_add(*ret, *ret_size, x->keys[i]);
	return *ret ? 0 : -ENOMEM;
}

static int index_add_chunk(struct row_index *x, int64_t first, int64_t last, struct err *e)
{
	int64_t earliest = INT64_MAX, latest = INT64_MIN; /* of no rows: in no span */
	unsigned char *filter;
	size_t size;
	int r;
	x->n_keys = 0;
	memset(x->keys, 0, sizeof(x->keys));
	db_bind_int64(x->rows, 1, first);
	db_bind_int64(x->rows, 2, last);
	while ((r = db_step(x->rows, e)) > 0) {
		int64_t time_us = db_column_int64(x->rows, 0);
		earliest = time_us < earliest ? time_us : earliest;
		latest = time_us > latest ? time_us : latest;
		index_add_keys(x);
	}
	if (r < 0)
		return r;
	if (index_make_filter(x, &filter, &size) < 0)
		return err_set(e, -ENOMEM, "%s: out of memory", db_path(x->db));
	db_bind_int64(x->add_chunk, 1, first);
	db_bind_int64(x->add_chunk, 2, last);
	db_bind_int64(x->add_chunk, 3, earliest);
	db_bind_int64(x->add_chunk, 4, latest);
	db_bind_blob(x->add_chunk, 5, (struct span){(const char *)filter, size});
	r = db_run(x->add_chunk, e);
	free(filter);
	return r;
}

/* --- organizations -------------------------------------------------------------------------------------- */

static void index_bind_sums(struct db_stmt *q, const struct hour_sums *s)
{
	db_bind_int64(q, 1, s->hour);
	db_bind_text(q, 2, span_of(s->organization));
	db_bind_int64(q, 3, s->series);
}

/* What the file has of it already. */
static int index_add_known(struct row_index *x, struct hour_sums *s, struct err *e)
{
	struct db_stmt *q = x->find_sums;
	index_bind_sums(q, s);
	int r = db_step(q, e);
	if (r <= 0)
		return r;
	int64_t first_us = db_column_int64(q, 2), last_us = db_column_int64(q, 3);
	s->count += db_column_int64(q, 0);
	s->latency_us += db_column_int64(q, 1);
	s->first_us = first_us < s->first_us ? first_us : s->first_us;
	s->last_us = last_us > s->last_us ? last_us : s->last_us;
	r = histogram_decode(&x->histogram, db_column_blob(q, 4));
	db_reset(q);
	return r < 0 ? err_set(e, -EUCLEAN, "%s: a damaged histogram in organization_hours", db_path(x->db))
		     : 0;
}

/* Its hour is in the day already. */
static int index_add_late(struct row_index *x, const struct hour_sums *s, struct err *e)
{
	struct db_stmt *q = x->add_late;
	db_bind_int64(q, 1, s->hour / 24);
	db_bind_text(q, 2, span_of(s->organization));
	db_bind_int64(q, 3, s->series);
	db_bind_int64(q, 4, s->count);
	db_bind_int64(q, 5, s->first_us);
	db_bind_int64(q, 6, s->last_us);
	return db_run(q, e);
}

static int index_put_sums(struct row_index *x, struct hour_sums *s, struct err *e)
{
	if (s->count == 0)
		return 0;
	int r = s->hour < x->days_until ? index_add_late(x, s, e) : 0;
	if (r == 0)
		r = index_add_known(x, s, e);
	if (r < 0)
		return r;
	buf_clear(&x->encoded);
	if (histogram_encode(&x->histogram, &x->encoded) < 0)
		return err_set(e, -ENOMEM, "%s: out of memory", db_path(x->db));
	index_bind_sums(x->put_sums, s);
	db_bind_int64(x->put_sums, 4, s->count);
	db_bind_int64(x->put_sums, 5, s->latency_us);
	db_bind_int64(x->put_sums, 6, s->first_us);
	db_bind_int64(x->put_sums, 7, s->last_us);
	db_bind_blob(x->put_sums, 8, buf_span(&x->encoded));
	s->count = 0;
	return db_run(x->put_sums, e);
}

static int index_sum_row(struct row_index *x, struct hour_sums *s, struct err *e)
{
	struct db_stmt *q = x->sorted;
	struct span organization = db_column_text(q, 1);
	int64_t hour = db_column_int64(q, 0), series = db_column_int64(q, 2), time_us = db_column_int64(q, 3),
		latency_us = db_column_int64(q, 4);
	if (s->count == 0 || hour != s->hour || series != s->series ||
	    !span_is(organization, s->organization)) {
		int r = index_put_sums(x, s, e);
		if (r < 0)
			return r;
		*s = (struct hour_sums){
			.hour = hour, .series = series, .first_us = time_us, .last_us = time_us};
		span_copy(organization, s->organization, sizeof(s->organization));
		histogram_init(&x->histogram);
	}
	s->count++;
	s->latency_us += latency_us > 0 ? latency_us : 0;
	s->first_us = time_us < s->first_us ? time_us : s->first_us;
	s->last_us = time_us > s->last_us ? time_us : s->last_us;
	histogram_add(&x->histogram, latency_us);
	return 0;
}

static int index_sum_organizations(struct row_index *x, int64_t first, int64_t last, struct err *e)
{
	struct hour_sums s = {.count = 0};
	int r;
	db_bind_int64(x->sorted, 1, first);
	db_bind_int64(x->sorted, 2, last);
	while ((r = db_step(x->sorted, e)) > 0 && (r = index_sum_row(x, &s, e)) == 0)
		;
	db_reset(x->sorted);
	return r < 0 ? r : index_put_sums(x, &s, e);
}

/* --- errors --------------------------------------------------------------------------------------------- */

static int index_run_error(struct row_index *x, struct db_stmt *q, struct span pattern, struct err *e)
{
	for (int i = 1; i <= 3; i++)
		db_bind_int64(q, i, db_column_int64(x->errors, i - 1));
	db_bind_text(q, 4, pattern);
	db_bind_int64(q, 5, db_column_int64(x->errors, 4));
	db_bind_int64(q, 6, db_column_int64(x->errors, 5));
	return db_run(q, e);
}

static int index_put_error(struct row_index *x, struct span pattern, struct err *e)
{
	int r = index_run_error(x, x->update_error, pattern, e);
	if (r == 0 && db_changes(x->db) == 0)
		r = index_run_error(x, x->put_error, pattern, e);
	return r;
}

static int index_count_error(struct row_index *x, struct err *e)
{
	char pattern[OUTCOME_ERROR_MAX];
	error_pattern(db_column_text(x->errors, 3), pattern);
	int r = index_run_error(x, x->update_error, span_of(pattern), e);
	if (r < 0 || db_changes(x->db) > 0)
		return r;
	db_bind_int64(x->count_errors, 1, db_column_int64(x->errors, 0));
	r = db_step(x->count_errors, e);
	if (r < 0)
		return r;
	bool full = db_column_int64(x->count_errors, 0) >= ROW_INDEX_ERRORS_MAX;
	db_reset(x->count_errors);
	return index_put_error(x, full ? SPAN_LIT(ROW_INDEX_OTHER) : span_of(pattern), e);
}

static int index_count_errors(struct row_index *x, int64_t first, int64_t last, struct err *e)
{
	int r;
	db_bind_int64(x->errors, 1, first);
	db_bind_int64(x->errors, 2, last);
	while ((r = db_step(x->errors, e)) > 0 && (r = index_count_error(x, e)) == 0)
		;
	db_reset(x->errors);
	return r;
}

/* --- all of it ------------------------------------------------------------------------------------------ */

static int index_ask(struct db_stmt *q, int64_t *ret, bool *none, struct err *e)
{
	int r = db_step(q, e);
	if (r < 0)
		return r;
	*none = db_column_is_null(q, 0);
	*ret = db_column_int64(q, 0);
	db_reset(q);
	return 0;
}

/* One more hour, if it is over; what comes late is added by index_add_late. */
static int index_add_day(struct row_index *x, int64_t now_us, struct err *e)
{
	int64_t hour;
	bool none;
	db_bind_int64(x->next_hour, 1, x->days_until);
	int r = index_ask(x->next_hour, &hour, &none, e);
	if (r < 0 || none || hour >= now_us / HOUR_US - 1)
		return r;
	db_bind_int64(x->add_hour, 1, hour);
	r = db_run(x->add_hour, e);
	db_bind_int64(x->put_until, 1, hour + 1);
	if (r == 0)
		r = db_run(x->put_until, e);
	return r < 0 ? r : 1;
}

int row_index_step(struct row_index *x, int64_t last_id, int64_t now_us, struct err *e)
{
	int64_t first;
	bool none;
	int r = index_ask(x->next, &first, &none, e);
	if (r == 0) /* another process may have gone on */
		r = index_ask(x->read_until, &x->days_until, &none, e);
	if (r < 0)
		return r;
	int64_t last = first + ROW_INDEX_RANGE - 1;
	if (first <= 0 || last > last_id)
		return index_add_day(x, now_us, e);
	r = index_add_chunk(x, first, last, e);
	if (r == 0)
		r = index_sum_organizations(x, first, last, e);
	if (r == 0)
		r = index_count_errors(x, first, last, e);
	return r < 0 ? r : 1;
}

int row_index_retain(struct row_index *x, int64_t row, struct err *e)
{
	db_bind_int64(x->forget_chunks, 1, row);
	int r = db_run(x->forget_chunks, e);
	if (r == 0)
		r = db_run(x->forget_sums, e);
	if (r == 0)
		r = db_run(x->forget_days, e);
	return r == 0 ? db_run(x->forget_errors, e) : r;
}
