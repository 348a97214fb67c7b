#include "outcomes/search/row_index.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "outcomes/histogram.h"

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
	struct db_stmt *next, *rows, *add_chunk, *find_sums, *put_sums;
	struct db_stmt *count_errors, *update_error, *put_error;
	struct db_stmt *forget_chunks, *forget_sums, *forget_errors;
	struct row_gather *gather;
	bool gathering;	     /* rows from … id - 1, of the chunk that begins with `first` */
	int64_t first, from; /* what lies between them is read when the chunk is full */
	int64_t id;	     /* of the row that is expected next */
	struct histogram histogram;
	struct buf encoded;
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
		{&x->rows, "SELECT id, time_us, latency_us, series, http_status, " FAILED
			   ", request_id, user, organisation, task_id, error"
			   " FROM outcomes WHERE id BETWEEN ? AND ?"},
		{&x->add_chunk, "INSERT INTO row_chunks VALUES (?,?,?,?,?)"},
		{&x->find_sums,
		 "SELECT count, latency_us, first_us, last_us, histogram FROM organization_hours"
		 " WHERE hour = ? AND organization = ? AND series = ?"},
		{&x->put_sums, "INSERT OR REPLACE INTO organization_hours VALUES (?,?,?,?,?,?,?,?)"},
		{&x->count_errors, "SELECT count(*) FROM error_hours WHERE hour = ?"},
		{&x->update_error, "UPDATE error_hours SET count = count + ?5, first_us = min(first_us, ?6),"
				   " last_us = max(last_us, ?7), sample = max(sample, ?8)"
				   " WHERE hour = ?1 AND series = ?2 AND http_status = ?3 AND error = ?4"},
		{&x->put_error, "INSERT INTO error_hours VALUES (?1,?2,?3,?4,?5,?6,?7,?8)"},
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
	x->gather = row_gather_new();
	if (!x->gather)
		return err_set(e, -ENOMEM, "out of memory");
	int r = index_prepare_statements(x, e);
	if (r == 0)
		*ret = steal(x);
	return r;
}

struct row_index *row_index_free(struct row_index *x)
{
	if (!x)
		return NULL;
	struct db_stmt *all[] = {x->next,	   x->rows,	    x->add_chunk,     x->find_sums,
				 x->put_sums,	   x->count_errors, x->update_error,  x->put_error,
				 x->forget_chunks, x->forget_sums,  x->forget_errors, x->next_hour,
				 x->add_hour,	   x->add_late,	    x->read_until,    x->put_until,
				 x->forget_days};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		db_stmt_free(all[i]);
	row_gather_free(x->gather);
	buf_release(&x->encoded);
	free(x);
	return NULL;
}

/* --- the chunk and its filter --------------------------------------------------------------------------- */

static int index_out_of_memory(struct row_index *x, struct err *e)
{
	return err_set(e, -ENOMEM, "%s: out of memory", db_path(x->db));
}

static int index_gather(struct row_index *x, int64_t first, int64_t last, struct err *e)
{
	struct db_stmt *q = x->rows;
	int r, gathered = 0;
	db_bind_int64(q, 1, first);
	db_bind_int64(q, 2, last);
	while (gathered == 0 && (r = db_step(q, e)) > 0) {
		const struct gathered_row row = {.id = db_column_int64(q, 0),
						 .time_us = db_column_int64(q, 1),
						 .latency_us = db_column_int64(q, 2),
						 .series = db_column_int64(q, 3),
						 .http_status = (int)db_column_int64(q, 4),
						 .failed = db_column_int64(q, 5) != 0,
						 .request_id = db_column_text(q, 6),
						 .user = db_column_text(q, 7),
						 .organization = db_column_text(q, 8),
						 .task_id = db_column_text(q, 9),
						 .error = db_column_text(q, 10)};
		gathered = row_gather_add(x->gather, &row);
	}
	db_reset(q);
	return gathered < 0 ? index_out_of_memory(x, e) : r;
}

static int index_put_chunk(struct row_index *x, int64_t first, int64_t last, struct err *e)
{
	size_t size;
	unsigned char *filter = row_gather_filter(x->gather, &size);
	if (!filter)
		return index_out_of_memory(x, e);
	db_bind_int64(x->add_chunk, 1, first);
	db_bind_int64(x->add_chunk, 2, last);
	db_bind_int64(x->add_chunk, 3, row_gather_earliest(x->gather));
	db_bind_int64(x->add_chunk, 4, row_gather_latest(x->gather));
	db_bind_blob(x->add_chunk, 5, (struct span){(const char *)filter, size});
	int r = db_run(x->add_chunk, e);
	free(filter);
	return r;
}

/* --- organizations -------------------------------------------------------------------------------------- */

static void index_bind_sums(struct row_index *x, struct db_stmt *q, const struct gathered_sums *s)
{
	db_bind_int64(q, 1, s->hour);
	db_bind_text(q, 2, row_gather_text(x->gather, s));
	db_bind_int64(q, 3, s->series);
}

/* What the file has of it already. */
static int index_add_known(struct row_index *x, struct gathered_sums *s, struct err *e)
{
	struct db_stmt *q = x->find_sums;
	index_bind_sums(x, q, s);
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
static int index_add_late(struct row_index *x, const struct gathered_sums *s, struct err *e)
{
	struct db_stmt *q = x->add_late;
	db_bind_int64(q, 1, s->hour / 24);
	db_bind_text(q, 2, row_gather_text(x->gather, s));
	db_bind_int64(q, 3, s->series);
	db_bind_int64(q, 4, s->count);
	db_bind_int64(q, 5, s->first_us);
	db_bind_int64(q, 6, s->last_us);
	return db_run(q, e);
}

static int index_put_sums(struct row_index *x, const struct gathered_sums *gathered, struct err *e)
{
	struct gathered_sums s = *gathered;
	int r = s.hour < x->days_until ? index_add_late(x, &s, e) : 0;
	histogram_init(&x->histogram);
	row_gather_latencies(x->gather, &s, &x->histogram);
	if (r == 0)
		r = index_add_known(x, &s, e);
	if (r < 0)
		return r;
	buf_clear(&x->encoded);
	if (histogram_encode(&x->histogram, &x->encoded) < 0)
		return index_out_of_memory(x, e);
	index_bind_sums(x, x->put_sums, &s);
	db_bind_int64(x->put_sums, 4, s.count);
	db_bind_int64(x->put_sums, 5, s.latency_us);
	db_bind_int64(x->put_sums, 6, s.first_us);
	db_bind_int64(x->put_sums, 7, s.last_us);
	db_bind_blob(x->put_sums, 8, buf_span(&x->encoded));
	return db_run(x->put_sums, e);
}

/* --- errors --------------------------------------------------------------------------------------------- */

static int index_run_error(struct db_stmt *q, const struct gathered_sums *s, struct span pattern,
			   struct err *e)
{
	db_bind_int64(q, 1, s->hour);
	db_bind_int64(q, 2, s->series);
	db_bind_int64(q, 3, s->status);
	db_bind_text(q, 4, pattern);
	db_bind_int64(q, 5, s->count);
	db_bind_int64(q, 6, s->first_us);
	db_bind_int64(q, 7, s->last_us);
	db_bind_int64(q, 8, s->newest);
	return db_run(q, e);
}

static int index_put_error(struct row_index *x, const struct gathered_sums *s, struct span pattern,
			   struct err *e)
{
	int r = index_run_error(x->update_error, s, pattern, e);
	if (r == 0 && db_changes(x->db) == 0)
		r = index_run_error(x->put_error, s, pattern, e);
	return r;
}

static int index_count_error(struct row_index *x, const struct gathered_sums *s, struct err *e)
{
	struct span pattern = row_gather_text(x->gather, s);
	int r = index_run_error(x->update_error, s, pattern, e);
	if (r < 0 || db_changes(x->db) > 0)
		return r;
	db_bind_int64(x->count_errors, 1, s->hour);
	r = db_step(x->count_errors, e);
	if (r < 0)
		return r;
	bool full = db_column_int64(x->count_errors, 0) >= ROW_INDEX_ERRORS_MAX;
	db_reset(x->count_errors);
	return index_put_error(x, s, full ? SPAN_LIT(ROW_INDEX_OTHER) : pattern, e);
}

/* --- rows as they are written --------------------------------------------------------------------------- */

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

/* What was gathered, and is to be read before it, becomes the chunk that begins with `first`. */
static int index_put(struct row_index *x, int64_t first, struct err *e)
{
	int64_t last = first + ROW_INDEX_RANGE - 1;
	const struct gathered_sums *s;
	bool none;
	/* another process may have gone on */
	int r = index_ask(x->read_until, &x->days_until, &none, e);
	if (r == 0 && x->from > first)
		r = index_gather(x, first, x->from - 1, e);
	if (r == 0)
		r = index_put_chunk(x, first, last, e);
	row_gather_sort(x->gather);
	for (size_t n = 0; r == 0 && (s = row_gather_sums(x->gather, n)); n++)
		r = s->status < 0 ? index_put_sums(x, s, e) : index_count_error(x, s, e);
	return r;
}

void row_index_forget(struct row_index *x)
{
	x->gathering = false;
}

/* From this row on. The rows before it in its chunk are read when that is full; in a later chunk than the
 * next one it is for row_index_step. */
static int index_begin(struct row_index *x, int64_t id, struct err *e)
{
	bool none;
	int r = index_ask(x->next, &x->first, &none, e);
	row_gather_clear(x->gather);
	x->gathering = r == 0;
	x->from = x->id = id;
	return r;
}

/* All of its rows are written. */
static int index_complete(struct row_index *x, struct err *e)
{
	struct err why;
	int64_t first;
	bool none;
	x->gathering = false;
	int r = index_ask(x->next, &first, &none, e);
	if (r < 0 || first != x->first)
		return r;
	r = db_exec(x->db, "SAVEPOINT chunk", e);
	if (r < 0)
		return r;
	if (index_put(x, first, &why) < 0)
		return db_exec(x->db, "ROLLBACK TO chunk; RELEASE chunk", e);
	return db_exec(x->db, "RELEASE chunk", e);
}

int row_index_add(struct row_index *x, const struct gathered_row *row, struct err *e)
{
	int r = x->gathering && row->id == x->id ? 0 : index_begin(x, row->id, e);
	if (r < 0)
		return r;
	x->id = row->id + 1;
	if (row->id < x->first || row->id - x->first >= ROW_INDEX_RANGE)
		return 0;
	if (row_gather_add(x->gather, row) < 0)
		x->first = INT64_MAX; /* left to row_index_step */
	return row->id - x->first == ROW_INDEX_RANGE - 1 ? index_complete(x, e) : 0;
}

/* --- all of it ------------------------------------------------------------------------------------------ */

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
	if (r == 0)
		r = index_ask(x->read_until, &x->days_until, &none, e);
	if (r < 0)
		return r;
	if (first <= 0 || first + ROW_INDEX_RANGE - 1 > last_id)
		return index_add_day(x, now_us, e);
	row_index_forget(x);
	row_gather_clear(x->gather);
	x->from = first + ROW_INDEX_RANGE;
	r = index_put(x, first, e);
	return r < 0 ? r : 1;
}

int row_index_retain(struct row_index *x, int64_t row, struct err *e)
{
	if (row > x->first) /* what was gathered may be of rows that go now */
		row_index_forget(x);
	db_bind_int64(x->forget_chunks, 1, row);
	int r = db_run(x->forget_chunks, e);
	if (r == 0)
		r = db_run(x->forget_sums, e);
	if (r == 0)
		r = db_run(x->forget_days, e);
	return r == 0 ? db_run(x->forget_errors, e) : r;
}
