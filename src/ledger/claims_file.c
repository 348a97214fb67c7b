#include "ledger/claims_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/db.h"
#include "base/file.h"
#include "base/log.h"

#define APPLICATION_ID 0x4d52474c /* as the ledger's: one file */
#define BUSY_MS 1000		  /* of a lock that somebody waits for */
#define SWEEP_AT_ONCE 1000

enum {
	SQL_FIND,
	SQL_COUNT,
	SQL_TAKE,
	SQL_MOVE,
	SQL_NOTE,
	SQL_ANSWER,
	SQL_RELEASE,
	SQL_NEWEST,
	SQL_SWEEP,
	SQL_N
};

static const char *const statements[SQL_N] = {
	[SQL_FIND] = "SELECT scope, fingerprint, token, side, phase, backend, task_id, created_us, keep_us, "
		     "stranger, status, fields, body FROM claims WHERE key = ?1",
	[SQL_COUNT] = "SELECT n, bytes FROM claim_counts WHERE scope = ?1",
	[SQL_TAKE] = "INSERT INTO claims (key, scope, fingerprint, token, side, phase, backend, task_id, "
		     "created_us, keep_us, stranger, status, bytes) "
		     "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0, 0)",
	[SQL_MOVE] = "UPDATE claims SET fingerprint = ?2, token = ?3, side = ?4, phase = 0, backend = ?5, "
		     "task_id = ?6 WHERE key = ?1 AND token = ?7 AND phase < 2",
	[SQL_NOTE] = "UPDATE claims SET phase = 1, task_id = ?3 WHERE key = ?1 AND token = ?2 AND phase = 0",
	[SQL_ANSWER] = "UPDATE claims SET phase = 2, status = ?3, fields = ?4, body = ?5, bytes = ?6 "
		       "WHERE key = ?1 AND task_id = ?2 AND side = 0 AND phase < 2",
	[SQL_RELEASE] = "DELETE FROM claims WHERE key = ?1 AND token = ?2 AND phase = 0",
	[SQL_NEWEST] = "SELECT max(created_us) FROM claims",
	[SQL_SWEEP] =
		"DELETE FROM claims WHERE rowid IN (SELECT rowid FROM claims WHERE created_us + keep_us < ?1 "
		"LIMIT ?2)",
};

/* The counts of each scope, of all ("") and of strangers ("s") are the file's own business, so that every
 * process finds them right. */
#define COUNT_MORE(who, n, bytes) \
	"INSERT INTO claim_counts VALUES (" who ", " n ", " bytes ") ON CONFLICT (scope) DO UPDATE SET " \
	"n = n + excluded.n, bytes = bytes + excluded.bytes;"
static const char schema[] =
	"CREATE TABLE IF NOT EXISTS claims (key TEXT NOT NULL UNIQUE, scope TEXT NOT NULL, fingerprint TEXT "
	"NOT NULL,"
	" token TEXT NOT NULL, side INTEGER NOT NULL, phase INTEGER NOT NULL, backend TEXT NOT NULL,"
	" task_id TEXT NOT NULL, created_us INTEGER NOT NULL, keep_us INTEGER NOT NULL, stranger INTEGER NOT "
	"NULL,"
	" status INTEGER NOT NULL, fields BLOB, body BLOB, bytes INTEGER NOT NULL);"
	"CREATE INDEX IF NOT EXISTS claims_end ON claims (created_us + keep_us);"
	"CREATE TABLE IF NOT EXISTS claim_counts (scope TEXT PRIMARY KEY, n INTEGER NOT NULL,"
	" bytes INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TRIGGER IF NOT EXISTS claims_in AFTER INSERT ON claims BEGIN " COUNT_MORE(
		"new.scope", "1", "new.bytes") COUNT_MORE("''", "1", "new.bytes")
		COUNT_MORE("'s'", "new.stranger",
			   "0") "END;"
				"CREATE TRIGGER IF NOT EXISTS claims_out AFTER DELETE ON claims "
				"BEGIN " COUNT_MORE("old.scope", "-1", "-old.bytes") COUNT_MORE("''", "-1",
												"-old.bytes")
					COUNT_MORE("'s'", "-old.stranger",
						   "0") "DELETE FROM claim_counts WHERE scope = old.scope "
							"AND n <= 0; END;"
							"CREATE TRIGGER IF NOT EXISTS claims_grow AFTER "
							"UPDATE OF bytes ON claims BEGIN " COUNT_MORE(
								"new.scope", "0", "new.bytes - old.bytes")
								COUNT_MORE("''", "0",
									   "new.bytes - old.bytes") "END;";

struct claims_file {
	struct db *db;
	struct db_stmt *sql[SQL_N];
};

/* --- opening -------------------------------------------------------------------------------------------- */

struct claims_file *claims_file_close(struct claims_file *f)
{
	if (!f)
		return NULL;
	for (size_t i = 0; i < SQL_N; i++)
		db_stmt_free(f->sql[i]);
	db_close(f->db);
	free(f);
	return NULL;
}

static int claims_file_make(struct claims_file *f, const char *path, struct err *e)
{
	struct db_options o = {.path = path,
			       .sync_full = true,
			       .busy_timeout_ms = BUSY_MS,
			       .application_id = APPLICATION_ID};
	int64_t there;
	int r = file_make_parent(path, 0700, e);
	if (r == 0)
		r = db_open(&o, &f->db, e);
	if (r == 0) /* who only looks takes no lock */
		r = db_query_int64(f->db, "SELECT count(*) FROM sqlite_master WHERE name = 'claims_grow'",
				   &there, e);
	if (r < 0 || there)
		return r;
	r = db_begin(f->db, e);
	if (r == 0)
		r = db_exec(f->db, schema, e);
	if (r == 0)
		r = db_commit(f->db, e);
	if (r < 0)
		db_rollback(f->db);
	return r;
}

static void copy_row(struct db_stmt *from, struct db_stmt *to)
{
	for (int i = 0; i < 15; i++) {
		bool text = i < 4 || i == 6 || i == 7, blob = i == 12 || i == 13;
		if (text)
			db_bind_text(to, i + 1, db_column_text(from, i));
		else if (blob)
			db_bind_blob(to, i + 1, db_column_blob(from, i));
		else
			db_bind_int64(to, i + 1, db_column_int64(from, i));
	}
}

/* A file that was deleted or replaced is still open here, and can be read. */
static int copy_claims(struct claims_file *old, struct claims_file *f, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *from = NULL;
	CLEANUP(db_stmt_freep) struct db_stmt *to = NULL;
	int r = db_prepare(
		old->db,
		"SELECT key, scope, fingerprint, token, side, phase, backend, task_id, created_us, "
		"keep_us, stranger, status, fields, body, bytes FROM claims",
		&from, e);
	if (r == 0)
		r = db_prepare(
			f->db,
			"INSERT OR IGNORE INTO claims (key, scope, fingerprint, token, side, phase, backend, "
			"task_id, created_us, keep_us, stranger, status, fields, body, bytes) VALUES (?1, "
			"?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
			&to, e);
	while (r == 0 && (r = db_step(from, e)) == 1) {
		copy_row(from, to);
		r = db_run(to, e);
	}
	return r;
}

static int copy_all(struct claims_file *old, struct claims_file *f, struct err *e)
{
	int r = db_begin(f->db, e);
	if (r == 0)
		r = copy_claims(old, f, e);
	if (r == 0)
		r = db_commit(f->db, e);
	if (r < 0)
		db_rollback(f->db);
	return r;
}

int claims_file_open(const char *path, struct claims_file *old, struct claims_file **ret, struct err *e)
{
	struct claims_file *f = calloc(1, sizeof(*f));
	int r = f ? claims_file_make(f, path, e) : err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; r == 0 && i < SQL_N; i++)
		r = db_prepare(f->db, statements[i], &f->sql[i], e);
	if (r == 0 && old)
		r = copy_all(old, f, e);
	if (r < 0) {
		claims_file_close(f);
		return r;
	}
	claims_file_close(old);
	*ret = f;
	return 0;
}

bool claims_file_moved(const struct claims_file *f)
{
	return db_moved(f->db);
}

int claims_file_begin(struct claims_file *f, struct err *e)
{
	return db_begin(f->db, e);
}

int claims_file_commit(struct claims_file *f, struct err *e)
{
	return db_commit(f->db, e);
}

void claims_file_rollback(struct claims_file *f)
{
	for (size_t i = 0; i < SQL_N; i++)
		db_reset(f->sql[i]);
	db_rollback(f->db);
}

/* --- one claim ------------------------------------------------------------------------------------------ */

static void read_claim(struct db_stmt *s, struct claim *ret)
{
	span_copy(db_column_text(s, 0), ret->scope, sizeof(ret->scope));
	span_copy(db_column_text(s, 1), ret->fingerprint, sizeof(ret->fingerprint));
	span_copy(db_column_text(s, 2), ret->token, sizeof(ret->token));
	ret->side = db_column_int64(s, 3) == CLAIM_LEGACY ? CLAIM_LEGACY : CLAIM_TASK;
	ret->phase = (enum claim_phase)db_column_int64(s, 4);
	span_copy(db_column_text(s, 5), ret->backend, sizeof(ret->backend));
	span_copy(db_column_text(s, 6), ret->task_id, sizeof(ret->task_id));
	ret->created_us = db_column_int64(s, 7);
	ret->keep_us = db_column_int64(s, 8);
	ret->stranger = db_column_int64(s, 9) != 0;
	ret->status = (int)db_column_int64(s, 10);
}

int claims_file_look(struct claims_file *f, const struct claim *want, enum claim_answer *ret,
		     struct claim *there, struct buf *fields, struct buf *body, struct err *e)
{
	struct db_stmt *s = f->sql[SQL_FIND];
	db_bind_text(s, 1, span_of(want->key));
	int r = db_step(s, e);
	*ret = r == 1 ? CLAIM_THERE : CLAIM_NONE;
	if (r == 1) {
		*there = *want;
		read_claim(s, there);
		r = buf_append_span(fields, db_column_blob(s, 11));
		if (r == 0)
			r = buf_append_span(body, db_column_blob(s, 12));
		if (r < 0)
			err_set(e, r, "out of memory");
	}
	db_reset(s);
	return r;
}

static int count_of(struct claims_file *f, const char *scope, int64_t *ret_n, int64_t *ret_bytes,
		    struct err *e)
{
	struct db_stmt *s = f->sql[SQL_COUNT];
	db_bind_text(s, 1, span_of(scope));
	int r = db_step(s, e);
	*ret_n = r == 1 ? db_column_int64(s, 0) : 0;
	*ret_bytes = r == 1 ? db_column_int64(s, 1) : 0;
	db_reset(s);
	return r < 0 ? r : 0;
}

/* CLAIM_MINE when there is room for one more. */
static int find_room(struct claims_file *f, const struct claim *want, unsigned max_of_scope,
		     enum claim_answer *ret, struct err *e)
{
	int64_t n = 0, all = 0, strangers = 0, bytes;
	int r = count_of(f, want->scope, &n, &bytes, e);
	if (r == 0)
		r = count_of(f, "", &all, &bytes, e);
	if (r == 0 && want->stranger)
		r = count_of(f, "s", &strangers, &bytes, e);
	*ret = CLAIM_MINE;
	if (n >= max_of_scope)
		*ret = CLAIM_CROWDED;
	else if (all >= CLAIMS_MAX || strangers >= CLAIMS_MAX / 4)
		*ret = CLAIM_FULL;
	return r;
}

static void bind_claim(struct db_stmt *s, const struct claim *c)
{
	db_bind_text(s, 1, span_of(c->key));
	db_bind_text(s, 2, span_of(c->scope));
	db_bind_text(s, 3, span_of(c->fingerprint));
	db_bind_text(s, 4, span_of(c->token));
	db_bind_int64(s, 5, c->side);
	db_bind_int64(s, 6, c->phase);
	db_bind_text(s, 7, span_of(c->backend));
	db_bind_text(s, 8, span_of(c->task_id));
	db_bind_int64(s, 9, c->created_us);
	db_bind_int64(s, 10, c->keep_us);
	db_bind_int64(s, 11, c->stranger);
}

int claims_file_take(struct claims_file *f, const struct claim *want, unsigned max_of_scope,
		     enum claim_answer *ret, struct err *e)
{
	int r = find_room(f, want, max_of_scope, ret, e);
	if (r < 0 || *ret != CLAIM_MINE)
		return r;
	bind_claim(f->sql[SQL_TAKE], want);
	return db_run(f->sql[SQL_TAKE], e);
}

int claims_file_move(struct claims_file *f, const char *owner, const struct claim *to, bool *ret_moved,
		     struct err *e)
{
	struct db_stmt *s = f->sql[SQL_MOVE];
	db_bind_text(s, 1, span_of(to->key));
	db_bind_text(s, 2, span_of(to->fingerprint));
	db_bind_text(s, 3, span_of(to->token));
	db_bind_int64(s, 4, to->side);
	db_bind_text(s, 5, span_of(to->backend));
	db_bind_text(s, 6, span_of(to->task_id));
	db_bind_text(s, 7, span_of(owner));
	int r = db_run(s, e);
	*ret_moved = r == 0 && db_changes(f->db) == 1;
	return r;
}

int claims_file_note(struct claims_file *f, const struct claim *to, struct err *e)
{
	struct db_stmt *s = f->sql[SQL_NOTE];
	db_bind_text(s, 1, span_of(to->key));
	db_bind_text(s, 2, span_of(to->token));
	db_bind_text(s, 3, span_of(to->task_id));
	return db_run(s, e);
}

/* Half of all room is for others. */
static int has_room_for(struct claims_file *f, const struct claim *of, int64_t more, bool *ret, struct err *e)
{
	int64_t n, own = 0, all = 0;
	int r = count_of(f, of->scope, &n, &own, e);
	if (r == 0)
		r = count_of(f, "", &n, &all, e);
	*ret = all + more <= CLAIMS_BYTES && own + more <= CLAIMS_BYTES / 2;
	return r;
}

int claims_file_answer(struct claims_file *f, const struct claim *of, bool keeps, int status,
		       struct span fields, struct span body, bool *ret_kept, struct err *e)
{
	struct db_stmt *s = f->sql[SQL_ANSWER];
	int64_t bytes = (int64_t)(fields.len + body.len);
	int r = keeps ? has_room_for(f, of, bytes, &keeps, e) : 0;
	if (r < 0)
		return r;
	db_bind_text(s, 1, span_of(of->key));
	db_bind_text(s, 2, span_of(of->task_id));
	db_bind_int64(s, 3, keeps ? status : 0);
	db_bind_blob(s, 4, keeps ? fields : SPAN_NONE);
	db_bind_blob(s, 5, keeps ? body : SPAN_NONE);
	db_bind_int64(s, 6, keeps ? bytes : 0);
	*ret_kept = keeps;
	return db_run(s, e);
}

int claims_file_release(struct claims_file *f, const struct claim *of, struct err *e)
{
	struct db_stmt *s = f->sql[SQL_RELEASE];
	db_bind_text(s, 1, span_of(of->key));
	db_bind_text(s, 2, span_of(of->token));
	return db_run(s, e);
}

/* --- all of them ---------------------------------------------------------------------------------------- */

int claims_file_newest(struct claims_file *f, int64_t *ret_us, struct err *e)
{
	int r = db_step(f->sql[SQL_NEWEST], e);
	*ret_us = r == 1 ? db_column_int64(f->sql[SQL_NEWEST], 0) : 0;
	db_reset(f->sql[SQL_NEWEST]);
	return r < 0 ? r : 0;
}

int claims_file_totals(struct claims_file *f, int64_t *ret_claims, int64_t *ret_bytes, struct err *e)
{
	return count_of(f, "", ret_claims, ret_bytes, e);
}

int claims_file_sweep(struct claims_file *f, int64_t now_us, int64_t *ret_removed, struct err *e)
{
	db_bind_int64(f->sql[SQL_SWEEP], 1, now_us);
	db_bind_int64(f->sql[SQL_SWEEP], 2, SWEEP_AT_ONCE);
	int r = db_run(f->sql[SQL_SWEEP], e);
	*ret_removed = r == 0 ? db_changes(f->db) : 0;
	return r;
}
