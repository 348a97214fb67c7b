#include "outcomes/outcome_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/db.h"
#include "outcomes/recorder.h"
#include "outcomes/rollup_days.h"
#include "outcomes/rollup_fold.h"
#include "outcomes/search/row_index.h"
#include "outcomes/usage_store.h"

#define MINUTE_US 60000000LL
#define MINUTES_KEPT 2	     /* open minutes stay in memory so long after their end */
#define DELETE_ROWS_MIN 1000 /* a chunk of retention */
#define DELETE_ROWS_MAX 50000
#define DELETE_MINUTES 10
#define VACUUM_PAGES 500 /* given back at a time, when many are free */
#define ENCODED_MAX (HISTOGRAM_BUCKETS * 8)

/* The column is called organisation; to rename it would stop older programs that have the file open. */
static const char *const schema[OUTCOME_STORE_VERSION] = {
	"CREATE TABLE series (id INTEGER PRIMARY KEY, service TEXT NOT NULL, operation TEXT NOT NULL, side "
	"TEXT NOT NULL,"
	"  backend TEXT NOT NULL, role TEXT NOT NULL, reason TEXT NOT NULL, result TEXT NOT NULL, answered "
	"INTEGER NOT NULL,"
	"  UNIQUE (service, operation, side, backend, role, reason, result, answered));"
	"CREATE TABLE outcomes (id INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, series INTEGER NOT NULL,"
	"  latency_us INTEGER NOT NULL, http_status INTEGER NOT NULL, organisation TEXT, user TEXT, variant "
	"TEXT,"
	"  task_id TEXT, request_id TEXT);"
	"CREATE TABLE rollups (minute INTEGER NOT NULL, series INTEGER NOT NULL, count INTEGER NOT NULL,"
	"  latency_us INTEGER NOT NULL, histogram BLOB NOT NULL, PRIMARY KEY (minute, series)) WITHOUT ROWID;"
	"CREATE TABLE drops (minute INTEGER PRIMARY KEY, count INTEGER NOT NULL);"
	"CREATE TABLE row_marks (row INTEGER PRIMARY KEY, minute INTEGER NOT NULL);"
	"CREATE VIEW attempts AS SELECT o.id, strftime('%Y-%m-%dT%H:%M:%fZ', o.time_us / 1000000.0, "
	"'unixepoch') AS time,"
	"  s.service, s.operation, o.organisation, o.user, s.side, s.backend, s.role, s.reason, o.variant, "
	"s.result,"
	"  s.answered, o.http_status, o.latency_us, o.task_id, o.request_id"
	"  FROM outcomes o JOIN series s ON s.id = o.series;",
	ROLLUP_FOLD_SCHEMA};

/*
 * Where callers came from. A table of its own, and no new version: what an older program reads and writes
 * stays as it is, so that one can go back to it, and look with it.
 */
static const char clients_schema[] =
	"CREATE TABLE IF NOT EXISTS clients (row INTEGER PRIMARY KEY, client TEXT NOT NULL);"
	"DROP VIEW IF EXISTS attempts;"
	"CREATE VIEW attempts AS SELECT o.id, strftime('%Y-%m-%dT%H:%M:%fZ', o.time_us / 1000000.0, "
	"'unixepoch') AS time,"
	"  s.service, s.operation, o.organisation AS organization, o.user, s.side, s.backend, s.role, "
	"s.reason, "
	"o.variant, s.result,"
	"  s.answered, o.http_status, o.latency_us, o.task_id, o.request_id, c.client"
	"  FROM outcomes o JOIN series s ON s.id = o.series LEFT JOIN clients c ON c.row = o.id;";

struct outcome_store {
	struct db *db;
	struct series_table *series;
	struct db_stmt *add_series, *find_series, *add_row, *find_rollup, *put_rollup, *add_drops, *add_mark;
	struct db_stmt *add_client, *delete_clients;
	struct db_stmt *first_row, *old_row, *delete_rows, *delete_marks, *clamp_marks, *first_rollup,
		*delete_rollups, *delete_drops;
	struct rollup_fold *fold;
	struct rollup_days *days;
	struct usage_store *usage;
	struct row_index *index;
	int64_t next_row;
	int64_t data_version;  /* SQLite's: differs once another connection has written */
	int64_t marked_minute; /* of the last row_mark; -1 = none yet by this store */
	struct buf encoded;
};

/* --- opening -------------------------------------------------------------------------------------------- */

static int prepare_all(struct outcome_store *s, struct err *e)
{
	const struct {
		struct db_stmt **stmt;
		const char *sql;
	} all[] = {
		{&s->find_series,
		 "SELECT id FROM series WHERE service=? AND operation=? AND side=? AND backend=? AND role=?"
		 " AND reason=? AND result=? AND answered=?"},
		{&s->add_series,
		 "INSERT INTO series (service, operation, side, backend, role, reason, result, answered)"
		 " VALUES (?,?,?,?,?,?,?,?)"},
		{&s->add_row, "INSERT INTO outcomes (id, time_us, series, latency_us, http_status, "
			      "organisation, user, variant,"
			      " task_id, request_id, error) VALUES (?,?,?,?,?,?,?,?,?,?,?)"},
		{&s->add_client, "INSERT OR REPLACE INTO clients VALUES (?,?)"},
		{&s->delete_clients, "DELETE FROM clients WHERE row < ?"},
		{&s->find_rollup,
		 "SELECT count, latency_us, histogram FROM rollups WHERE minute=? AND series=?"},
		{&s->put_rollup, "INSERT OR REPLACE INTO rollups VALUES (?,?,?,?,?)"},
		{&s->add_drops, "INSERT INTO drops (minute, count) VALUES (?1,?2) ON CONFLICT (minute) DO "
				"UPDATE SET count = count + ?2"},
		{&s->add_mark, "INSERT OR REPLACE INTO row_marks VALUES (?,?)"},
		{&s->first_row, "SELECT (SELECT min(id) FROM outcomes), (SELECT max(id) FROM outcomes)"},
		/* Ids are in the order of writing, so what comes before the first id of a minute is older
		 * than it. A clock that was wrong for a while makes this delete less, never more. */
		{&s->old_row, "SELECT min(row) FROM row_marks WHERE minute >= ?"},
		{&s->delete_rows, "DELETE FROM outcomes WHERE id < ?"},
		{&s->delete_marks,
		 "DELETE FROM row_marks WHERE row < ? AND row < (SELECT max(row) FROM row_marks)"},
		{&s->clamp_marks, /* Where all are to come the clock is behind now. */
		 "UPDATE row_marks SET minute = ?1 WHERE minute > ?1"
		 " AND (SELECT minute FROM row_marks ORDER BY row LIMIT 1) <= ?1"},
		{&s->first_rollup, "SELECT min(minute) FROM rollups"},
		{&s->delete_rollups, "DELETE FROM rollups WHERE minute < ?"},
		{&s->delete_drops, "DELETE FROM drops WHERE minute < ?"}};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		int r = db_prepare(s->db, all[i].sql, all[i].stmt, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* What is in memory may be of a transaction that was undone, or of another file: it is read again when
 * needed. */
static void outcome_store_forget(struct outcome_store *s)
{
	for (struct series *x = series_first(s->series); x; x = x->next) {
		x->row = 0;
		while (x->minutes) {
			struct series_minute *next = x->minutes->next;
			free(x->minutes);
			x->minutes = next;
		}
	}
	s->marked_minute = -1;
	usage_store_forget(s->usage);
}

static int add_clients_table(struct outcome_store *s, struct err *e)
{
	static const char there[] = "SELECT count(*) FROM sqlite_master WHERE name = 'attempts' "
				    "AND sql LIKE '%AS organization%client%'";
	int64_t n;
	int r = db_query_int64(s->db, there, &n, e);
	if (r < 0 || n > 0)
		return r;
	r = db_exec(s->db, "BEGIN IMMEDIATE", e);
	if (r == 0)
		r = db_exec(s->db, clients_schema, e);
	if (r == 0)
		r = db_exec(s->db, "COMMIT", e);
	if (r < 0)
		db_rollback(s->db);
	return r;
}

static int read_next_row(struct outcome_store *s, struct err *e)
{
	int64_t last;
	int r = db_query_int64(s->db,
			       "SELECT max(coalesce((SELECT max(id) FROM outcomes), 0),"
			       " coalesce((SELECT max(row) FROM row_marks), 1) - 1)",
			       &last, e);
	s->next_row = last + 1;
	return r;
}

int outcome_store_open(const char *path, struct series_table *series, struct outcome_store **ret,
		       struct err *e)
{
	CLEANUP(outcome_store_closep) struct outcome_store *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, "%s: out of memory", path);
	s->series = series;
	s->encoded = BUF_INIT(ENCODED_MAX);
	struct db_options o = {
		.path = path,
		.busy_timeout_ms = 100,
		.cache_kib = 16384,
		.wal_pages = 4000,
		.vacuum_pages = true,
		.application_id = OUTCOME_STORE_APPLICATION,
	};
	int r = db_open(&o, &s->db, e);
	if (r == 0)
		r = db_migrate(s->db, schema, OUTCOME_STORE_VERSION, e);
	if (r == 0)
		r = add_clients_table(s, e);
	if (r == 0)
		r = row_index_prepare(s->db, e);
	if (r == 0)
		r = prepare_all(s, e);
	if (r == 0)
		r = rollup_fold_new(s->db, &s->fold, e);
	if (r == 0)
		r = rollup_days_new(s->db, &s->days, e);
	if (r == 0)
		r = row_index_new(s->db, &s->index, e);
	if (r == 0)
		r = usage_store_new(s->db, &s->usage, e);
	if (r == 0)
		r = read_next_row(s, e);
	if (r < 0)
		return r;
	outcome_store_forget(s);
	*ret = steal(s);
	return 0;
}

struct outcome_store *outcome_store_close(struct outcome_store *s)
{
	if (!s)
		return NULL;
	struct db_stmt *all[] = {s->add_series,	   s->find_series,    s->add_row,      s->find_rollup,
				 s->put_rollup,	   s->add_drops,      s->add_mark,     s->first_row,
				 s->old_row,	   s->delete_rows,    s->delete_marks, s->clamp_marks,
				 s->first_rollup,  s->delete_rollups, s->delete_drops, s->add_client,
				 s->delete_clients};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		db_stmt_free(all[i]);
	rollup_fold_free(s->fold);
	rollup_days_free(s->days);
	usage_store_free(s->usage);
	row_index_free(s->index);
	db_close(s->db);
	buf_release(&s->encoded);
	free(s);
	return NULL;
}

int outcome_store_newest(struct outcome_store *s, int64_t *ret_us, struct err *e)
{
	int64_t minute;
	int r = db_query_int64(s->db,
			       "SELECT coalesce((SELECT minute FROM row_marks ORDER BY row DESC LIMIT 1), 0)",
			       &minute, e);
	*ret_us = r == 0 ? minute * MINUTE_US : 0;
	return r;
}

struct db *outcome_store_db(struct outcome_store *s)
{
	return s->db;
}

bool outcome_store_moved(struct outcome_store *s)
{
	return db_moved(s->db);
}

/* --- writing -------------------------------------------------------------------------------------------- */

static void bind_series(struct db_stmt *q, const struct series *x)
{
	db_bind_text(q, 1, span_of(x->service));
	db_bind_text(q, 2, span_of(x->operation));
	db_bind_text(q, 3, span_of(outcome_side_text(x->side)));
	db_bind_text(q, 4, span_of(x->backend));
	db_bind_text(q, 5, span_of(outcome_role_text(x->role)));
	db_bind_text(q, 6, span_of(outcome_reason_text(x->reason)));
	db_bind_text(q, 7, span_of(outcome_result_text(x->result)));
	db_bind_int64(q, 8, x->answered);
}

static int resolve_series(struct outcome_store *s, struct series *x, struct err *e)
{
	if (x->row)
		return 0;
	bind_series(s->find_series, x);
	int r = db_step(s->find_series, e);
	if (r == 1) {
		x->row = db_column_int64(s->find_series, 0);
		db_reset(s->find_series);
		return 0;
	}
	if (r < 0)
		return r;
	bind_series(s->add_series, x);
	r = db_run(s->add_series, e);
	if (r == 0)
		x->row = db_last_insert_rowid(s->db);
	return r;
}

static struct span outcome_store_text_or_null(const char *text, size_t size)
{
	size_t n = strnlen(text, size);
	return n ? (struct span){text, n} : SPAN_NONE;
}
#define FIELD(array) outcome_store_text_or_null((array), sizeof(array))

/* As it is, or as a pseudonym where there is a key. */
static struct span personal(struct span text, struct span user_key, char pseudonym[CRYPTO_SHA256_HEX])
{
	if (!text.ptr || !user_key.ptr)
		return text;
	crypto_hmac_sha256_hex(user_key, text, pseudonym);
	return span_of(pseudonym);
}

static int add_client(struct outcome_store *s, const struct outcome *o, struct span user_key, struct err *e)
{
	char pseudonym[CRYPTO_SHA256_HEX];
	struct span client = FIELD(o->client);
	if (!client.ptr)
		return 0;
	db_bind_int64(s->add_client, 1, s->next_row);
	db_bind_text(s->add_client, 2, personal(client, user_key, pseudonym));
	return db_run(s->add_client, e);
}

static int index_row(struct outcome_store *s, const struct outcome *o, const struct series *x,
		     struct span user, struct err *e)
{
	const struct gathered_row row = {
		.id = s->next_row,
		.time_us = o->time_us,
		.latency_us = o->latency_us,
		.series = x->row,
		.http_status = o->http_status,
		.failed = o->error[0] || (x->result != OUTCOME_SUCCESS && x->result != OUTCOME_REJECTED),
		.request_id = FIELD(o->request_id),
		.user = user,
		.organization = FIELD(o->organization),
		.task_id = FIELD(o->task_id),
		.error = FIELD(o->error)};
	return row_index_add(s->index, &row, e);
}

static int outcome_store_add_row(struct outcome_store *s, const struct outcome *o, const struct series *x,
				 struct span user_key, struct err *e)
{
	char pseudonym[CRYPTO_SHA256_HEX];
	struct span user = personal(FIELD(o->user), user_key, pseudonym);
	struct db_stmt *q = s->add_row;
	db_bind_int64(q, 1, s->next_row);
	db_bind_int64(q, 2, o->time_us);
	db_bind_int64(q, 3, x->row);
	db_bind_int64(q, 4, o->latency_us);
	db_bind_int64(q, 5, o->http_status);
	db_bind_text(q, 6, FIELD(o->organization));
	db_bind_text(q, 7, user);
	db_bind_text(q, 8, FIELD(o->variant));
	db_bind_text(q, 9, FIELD(o->task_id));
	db_bind_text(q, 10, FIELD(o->request_id));
	db_bind_text(q, 11, FIELD(o->error));
	int r = db_run(q, e);
	if (r == 0)
		r = add_client(s, o, user_key, e);
	if (r == 0)
		r = index_row(s, o, x, user, e);
	if (r == 0)
		s->next_row++;
	return r;
}

static int read_rollup(struct outcome_store *s, struct series_minute *m, struct err *e)
{
	db_bind_int64(s->find_rollup, 1, m->minute);
	db_bind_int64(s->find_rollup, 2, m->series->row);
	int r = db_step(s->find_rollup, e);
	if (r <= 0)
		return r;
	m->count = (uint64_t)db_column_int64(s->find_rollup, 0);
	m->latency_us = (uint64_t)db_column_int64(s->find_rollup, 1);
	r = histogram_decode(&m->histogram, db_column_blob(s->find_rollup, 2));
	db_reset(s->find_rollup);
	return r < 0 ? err_set(e, -EUCLEAN, "%s: a damaged histogram in rollups", db_path(s->db)) : 0;
}

/* The sums of a minute, with what the file holds of it already: from before a restart, or before the clock
 * jumped back. */
static int open_minute(struct outcome_store *s, struct series *x, int64_t minute, struct series_minute **ret,
		       struct err *e)
{
	for (struct series_minute *m = x->minutes; m; m = m->next)
		if (m->minute == minute) {
			*ret = m;
			return 0;
		}
	struct series_minute *m = malloc(sizeof(*m));
	if (!m)
		return err_set(e, -ENOMEM, "%s: out of memory", db_path(s->db));
	*m = (struct series_minute){.minute = minute, .series = x};
	histogram_init(&m->histogram);
	int r = read_rollup(s, m, e);
	if (r < 0) {
		free(m);
		return r;
	}
	m->next = x->minutes;
	x->minutes = m;
	*ret = m;
	return 0;
}

static int64_t outcome_store_minute_of(int64_t time_us)
{
	int64_t m = time_us / MINUTE_US;
	return time_us % MINUTE_US < 0 ? m - 1 : m;
}

static int add_outcome(struct outcome_store *s, const struct outcome *o, struct series *x,
		       const struct outcome_batch *b, struct err *e)
{
	int r = resolve_series(s, x, e);
	if (r == 0)
		r = outcome_store_add_row(s, o, x, b->user_key, e);
	struct series_minute *m = NULL;
	if (r == 0)
		r = open_minute(s, x, outcome_store_minute_of(o->time_us), &m, e);
	if (r < 0)
		return r;
	m->count++;
	m->latency_us += o->latency_us > 0 ? (uint64_t)o->latency_us : 0;
	histogram_add(&m->histogram, o->latency_us);
	m->dirty = true;
	return usage_store_add(s->usage, o, x, b->now_us, e);
}

static int write_minute(struct outcome_store *s, struct series_minute *m, struct err *e)
{
	buf_clear(&s->encoded);
	int r = histogram_encode(&m->histogram, &s->encoded);
	if (r < 0)
		return err_set(e, r, "%s: out of memory", db_path(s->db));
	db_bind_int64(s->put_rollup, 1, m->minute);
	db_bind_int64(s->put_rollup, 2, m->series->row);
	db_bind_int64(s->put_rollup, 3, (int64_t)m->count);
	db_bind_int64(s->put_rollup, 4, (int64_t)m->latency_us);
	db_bind_blob(s->put_rollup, 5, buf_span(&s->encoded));
	m->dirty = false;
	return db_run(s->put_rollup, e);
}

static int write_minutes(struct outcome_store *s, struct err *e)
{
	for (struct series *x = series_first(s->series); x; x = x->next)
		for (struct series_minute *m = x->minutes; m; m = m->next) {
			int r = m->dirty ? write_minute(s, m, e) : 0;
			if (r < 0)
				return r;
		}
	return 0;
}

static int write_drops(struct outcome_store *s, const struct outcome_batch *b, struct err *e)
{
	for (size_t i = 0; i < b->drop_count; i++) {
		db_bind_int64(s->add_drops, 1, b->drops[i].minute);
		db_bind_int64(s->add_drops, 2, (int64_t)b->drops[i].count);
		int r = db_run(s->add_drops, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int write_mark(struct outcome_store *s, int64_t minute, struct err *e)
{
	if (minute == s->marked_minute)
		return 0;
	db_bind_int64(s->add_mark, 1, s->next_row);
	db_bind_int64(s->add_mark, 2, minute);
	s->marked_minute = minute;
	return db_run(s->add_mark, e);
}

/* Its mistakes cost nobody his outcomes: what it wrote is undone, and `tap_error` says why. */
static int write_tap(struct outcome_store *s, const struct outcome_batch *b, const struct recorder_tap *tap,
		     struct err *tap_error, struct err *e)
{
	struct recorder_batch of = {b->outcomes, b->count, b->user_key, b->now_us};
	int r = db_exec(s->db, "SAVEPOINT tap", e);
	if (r < 0)
		return r;
	if (tap->write(tap->arg, &of, tap_error) < 0)
		return db_exec(s->db, "ROLLBACK TO tap; RELEASE tap", e);
	tap_error->text[0] = '\0';
	return db_exec(s->db, "RELEASE tap", e);
}

static int write_taps(struct outcome_store *s, const struct outcome_batch *b,
		      struct err errors[RECORDER_TAPS_MAX], struct err *e)
{
	int r = 0;
	for (int i = 0; i < RECORDER_TAPS_MAX && r == 0; i++)
		if (b->taps[i])
			r = write_tap(s, b, b->taps[i], &errors[i], e);
	return r;
}

static void end_taps(const struct outcome_batch *b, bool committed,
		     const struct err errors[RECORDER_TAPS_MAX])
{
	for (int i = 0; i < RECORDER_TAPS_MAX; i++)
		if (b->taps[i])
			b->taps[i]->ended(b->taps[i]->arg, committed,
					  errors[i].text[0] ? errors[i].text : NULL);
}

static int outcome_store_write_all(struct outcome_store *s, const struct outcome_batch *b,
				   struct err tap_errors[RECORDER_TAPS_MAX], struct err *e)
{
	int r = b->count ? write_mark(s, outcome_store_minute_of(b->now_us), e) : 0;
	for (size_t i = 0; r == 0 && i < b->count; i++)
		r = add_outcome(s, &b->outcomes[i], b->series[i], b, e);
	if (r == 0)
		r = write_minutes(s, e);
	if (r == 0)
		r = write_drops(s, b, e);
	if (r == 0)
		r = usage_store_write(s->usage, series_first(s->series), b->now_us, e);
	if (r == 0)
		r = write_taps(s, b, tap_errors, e);
	return r == 0 ? db_commit(s->db, e) : r;
}

static void close_old_minutes(struct outcome_store *s, int64_t now_minute)
{
	for (struct series *x = series_first(s->series); x; x = x->next)
		for (struct series_minute **at = &x->minutes; *at;) {
			struct series_minute *m = *at;
			if (m->minute <= now_minute && m->minute > now_minute - MINUTES_KEPT) {
				at = &m->next;
				continue;
			}
			*at = m->next;
			free(m);
		}
}

/* Another process may have written since: its ids are not to be given again, its sums not to be overwritten.
 * In the transaction, which keeps others from writing. */
static int heed_others(struct outcome_store *s, struct err *e)
{
	int64_t version;
	int r = db_query_int64(s->db, "PRAGMA data_version", &version, e);
	if (r < 0 || version == s->data_version)
		return r;
	r = read_next_row(s, e);
	if (r < 0)
		return r;
	outcome_store_forget(s);
	s->data_version = version;
	return 0;
}

int outcome_store_write(struct outcome_store *s, const struct outcome_batch *b, struct err *e)
{
	int r = db_begin(s->db, e);
	if (r < 0)
		return r;
	int64_t next_row = s->next_row;
	struct err tap_errors[RECORDER_TAPS_MAX] = {0};
	r = heed_others(s, e);
	if (r == 0)
		r = outcome_store_write_all(s, b, tap_errors, e);
	end_taps(b, r == 0, tap_errors);
	if (r < 0) {
		db_rollback(s->db);
		s->next_row = next_row;
		outcome_store_forget(s);
		row_index_forget(s->index);
		return r;
	}
	close_old_minutes(s, outcome_store_minute_of(b->now_us));
	return 0;
}

bool outcome_store_is_due(const struct outcome_store *s, int64_t now_us)
{
	return usage_store_is_due(s->usage, now_us);
}

/* --- retention ------------------------------------------------------------------------------------------ */

struct row_range {
	int64_t first, last; /* 0 = no rows */
};

static int read_range(struct outcome_store *s, struct row_range *ret, struct err *e)
{
	int r = db_step(s->first_row, e);
	if (r < 0)
		return r;
	*ret = (struct row_range){db_column_int64(s->first_row, 0), db_column_int64(s->first_row, 1)};
	db_reset(s->first_row);
	return 0;
}

/* The first row that age lets stay. */
static int first_young(struct outcome_store *s, const struct outcome_limits *l, int64_t *ret, struct err *e)
{
	int r = 0;
	if (!l->keep_marks) { /* times to come: the clock was ahead when they were written */
		db_bind_int64(s->clamp_marks, 1, outcome_store_minute_of(l->now_us));
		r = db_run(s->clamp_marks, e);
	}
	if (r < 0)
		return r;
	db_bind_int64(s->old_row, 1, outcome_store_minute_of(l->rows_before_us));
	r = db_step(s->old_row, e);
	if (r < 0)
		return r;
	*ret = db_column_is_null(s->old_row, 0) ? s->next_row : db_column_int64(s->old_row, 0);
	db_reset(s->old_row);
	return 0;
}

/* The first row that the size lets stay, as far as the mean size of a row tells. 5 % below the limit, so that
 * this is not needed again at once. */
static int64_t first_fitting(struct outcome_store *s, const struct outcome_limits *l,
			     const struct row_range *range)
{
	int64_t used = (db_page_count(s->db) - db_free_pages(s->db)) * db_page_size(s->db);
	if (l->max_bytes == 0 || used <= 0 || (uint64_t)used <= l->max_bytes || range->first == 0)
		return range->first;
	double share = ((double)used - 0.95 * (double)l->max_bytes) / (double)used;
	return range->first + (int64_t)(share * (double)(range->last - range->first + 1)) + DELETE_ROWS_MIN;
}

static int delete_before(struct outcome_store *s, int64_t row, struct err *e)
{
	db_bind_int64(s->delete_rows, 1, row);
	int r = db_run(s->delete_rows, e);
	if (r == 0) {
		db_bind_int64(s->delete_clients, 1, row);
		r = db_run(s->delete_clients, e);
	}
	if (r == 0) {
		db_bind_int64(s->delete_marks, 1, row);
		r = db_run(s->delete_marks, e);
	}
	if (r == 0)
		r = row_index_retain(s->index, row, e);
	return r;
}

static int retain_rows(struct outcome_store *s, const struct outcome_limits *l, struct err *e)
{
	struct row_range range;
	int64_t young;
	int r = read_range(s, &range, e);
	if (r == 0)
		r = first_young(s, l, &young, e);
	if (r < 0 || range.first == 0)
		return r;
	int64_t fitting = first_fitting(s, l, &range), until = young > fitting ? young : fitting;
	if (until <= range.first)
		return 0;
	int64_t chunk = range.first + DELETE_ROWS_MAX < until ? range.first + DELETE_ROWS_MAX : until;
	r = delete_before(s, chunk, e);
	return r < 0 ? r : chunk < until && chunk <= range.last;
}

static int retain_rollups(struct outcome_store *s, const struct outcome_limits *l, struct err *e)
{
	int64_t until = outcome_store_minute_of(l->rollups_before_us);
	db_bind_int64(s->delete_drops, 1, until);
	int r = db_run(s->delete_drops, e);
	if (r == 0)
		r = usage_store_retain(s->usage, l->rollups_before_us, e);
	if (r == 0)
		r = db_step(s->first_rollup, e);
	if (r < 0)
		return r;
	bool none = db_column_is_null(s->first_rollup, 0);
	int64_t first = db_column_int64(s->first_rollup, 0);
	db_reset(s->first_rollup);
	if (none || first >= until)
		return 0;
	int64_t chunk = first + DELETE_MINUTES < until ? first + DELETE_MINUTES : until;
	db_bind_int64(s->delete_rollups, 1, chunk);
	r = db_run(s->delete_rollups, e);
	return r < 0 ? r : chunk < until;
}

/* Free pages are used again by new rows; only a quarter of the file or more is given back to the file
 * system. */
static int outcome_store_give_back(struct outcome_store *s, struct err *e)
{
	int64_t pages = db_page_count(s->db), free_pages = db_free_pages(s->db);
	if (free_pages < VACUUM_PAGES || free_pages < pages / 4)
		return 0;
	int r = db_vacuum_pages(s->db, VACUUM_PAGES, e);
	return r < 0 ? r : 1;
}

int outcome_store_retain(struct outcome_store *s, const struct outcome_limits *l, struct err *e)
{
	int r = db_begin(s->db, e);
	if (r < 0)
		return r;
	int rows = retain_rows(s, l, e);
	int rollups = rows < 0 ? rows : retain_rollups(s, l, e);
	int folded =
		rollups ? rollups
			: rollup_fold_step(s->fold,
					   outcome_store_minute_of(l->now_us) - ROLLUP_FOLD_AFTER_MINUTES, e);
	int indexed = folded ? folded : row_index_step(s->index, s->next_row - 1, l->now_us, e);
	int days = indexed ? indexed : rollup_days_step(s->days, e);
	r = days < 0 ? days : db_commit(s->db, e);
	if (r < 0) {
		db_rollback(s->db);
		row_index_forget(s->index);
	}
	if (r < 0 || folded) /* a minute kept in memory may just have become part of an hour */
		outcome_store_forget(s);
	if (r < 0)
		return r;
	int vacuum = rows || days ? 0 : outcome_store_give_back(s, e);
	return vacuum < 0 ? vacuum : rows || days || vacuum;
}

void outcome_store_name(const char *path, char out[OUTCOME_STORE_NAME])
{
	struct stat st;
	char host[256] = "", text[512];
	if (stat(path, &st) < 0)
		return;
	gethostname(host, sizeof(host) - 1);
	snprintf(text, sizeof(text), "%s %llx %llx", host, (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	crypto_sha256_hex(span_of(text), out);
}
