#include "base/db.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"

/* What a WAL may keep on disk after a checkpoint; it grows beyond while a reader holds it. */
#define WAL_KEPT_BYTES 67108864

struct db {
	sqlite3 *handle;
	char *path;
	struct db_stmt *begin, *commit; /* used all the time, so compiled once */
};

struct db_stmt {
	sqlite3_stmt *stmt;
	struct db *db;
	int bind_error; /* SQLite's code of the first binding that failed since the last step */
};

/* --- errors --------------------------------------------------------------------------------------------- */

static int to_errno(int code)
{
	static const struct {
		int code, err;
	} map[] = {{SQLITE_BUSY, -EBUSY},   {SQLITE_LOCKED, -EBUSY},	  {SQLITE_PROTOCOL, -EBUSY},
		   {SQLITE_FULL, -ENOSPC},  {SQLITE_READONLY, -EROFS},	  {SQLITE_CORRUPT, -EUCLEAN},
		   {SQLITE_PERM, -EACCES},  {SQLITE_AUTH, -EACCES},	  {SQLITE_NOTADB, -EMEDIUMTYPE},
		   {SQLITE_TOOBIG, -EFBIG}, {SQLITE_CONSTRAINT, -EEXIST}, {SQLITE_CANTOPEN, -ENOENT},
		   {SQLITE_NOMEM, -ENOMEM}, {SQLITE_INTERRUPT, -EINTR}};
	for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		if ((code & 0xff) == map[i].code)
			return map[i].err;
	return -EIO;
}

static int db_fail(struct db *db, int code, struct err *e)
{
	int extended = sqlite3_extended_errcode(db->handle);
	if ((extended & 0xff) != (code & 0xff)) /* not of the last call */
		return err_set(e, to_errno(code), "%s: %s (SQLite %d)", db->path, sqlite3_errstr(code), code);
	int os = sqlite3_system_errno(db->handle);
	bool of_system = (code & 0xff) == SQLITE_IOERR || (code & 0xff) == SQLITE_CANTOPEN;
	/* A write that meets a full disk in the shared-memory file is reported as an I/O error, a quota
	 * likewise. */
	if (of_system && (os == ENOSPC || os == EDQUOT))
		code = SQLITE_FULL;
	return err_set(e, to_errno(code), "%s: %s%s%s (SQLite %d)", db->path, sqlite3_errmsg(db->handle),
		       of_system && os ? ": " : "", of_system && os ? strerror(os) : "", extended);
}

/* --- opening -------------------------------------------------------------------------------------------- */

/*
 * An existing database is never opened here: POSIX takes away every lock that the process has on a file when
 * any of its descriptors for it is closed, also those of SQLite's connections (its "How To Corrupt", 2.2).
 * Another program that then closes the database thinks itself the last and removes the WAL under those who
 * write. So this only looks.
 */
static int look_at_file(const struct db_options *o, struct err *e)
{
	struct stat st;
	if (stat(o->path, &st) < 0 ||
	    faccessat(AT_FDCWD, o->path, o->read_only ? R_OK : R_OK | W_OK, AT_EACCESS) < 0)
		return err_set(e, -errno, "%s: %s", o->path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return err_set(e, -EISDIR, "%s: %s", o->path, strerror(EISDIR));
	return S_ISREG(st.st_mode) ? 0 : err_set(e, -EMEDIUMTYPE, "%s: not a regular file", o->path);
}

/*
 * Makes a file that is not there before SQLite does, which would give it 0644 & ~umask until someone corrects
 * that; SQLite then gives -wal and -shm the mode of the file. Under a lock: a thread must not open the new
 * file while the descriptor that made it is still to be closed.
 */
static int make_file(const struct db_options *o, struct err *e)
{
	static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;
	pthread_mutex_lock(&making);
	bool there = o->read_only || access(o->path, F_OK) == 0;
	int fd = there ? -1 : open(o->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0600);
	int r = there || fd >= 0 || errno == EEXIST ? 0
						    : err_set(e, -errno, "%s: %s", o->path, strerror(errno));
	if (fd >= 0)
		close(fd);
	pthread_mutex_unlock(&making);
	return r == 0 ? look_at_file(o, e) : r;
}

static int apply_options(struct db *db, const struct db_options *o, struct err *e)
{
	CLEANUP(buf_releasep) struct buf sql = BUF_INIT(1024);
	buf_puts(&sql, "PRAGMA trusted_schema=OFF; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY;");
	if (o->cache_kib > 0)
		buf_printf(&sql, "PRAGMA cache_size=-%d;", o->cache_kib);
	if (!o->read_only) {
		if (o->vacuum_pages)
			/* only acts while the file is empty, so it comes before WAL mode writes the header */
			buf_puts(&sql, "PRAGMA auto_vacuum=INCREMENTAL;");
		buf_printf(&sql,
			   "PRAGMA journal_mode=WAL; PRAGMA synchronous=%s; PRAGMA journal_size_limit=%d;",
			   o->sync_full ? "FULL" : "NORMAL", WAL_KEPT_BYTES);
		if (o->wal_pages > 0)
			buf_printf(&sql, "PRAGMA wal_autocheckpoint=%d;", o->wal_pages);
	}
	return sql.error ? err_set(e, sql.error, "out of memory") : db_exec(db, sql.ptr, e);
}

static int check_application(struct db *db, const struct db_options *o, struct err *e)
{
	int64_t id, tables;
	/* Tables before the id: another process may be making the file now, and it makes the id before the
	 * tables. */
	int r = db_query_int64(db, "SELECT count(*) FROM sqlite_master", &tables, e);
	if (r == 0)
		r = db_query_int64(db, "PRAGMA application_id", &id, e);
	if (r < 0 || o->application_id == 0 || id == o->application_id)
		return r;
	if (id != 0 || tables != 0)
		return err_set(e, -EMEDIUMTYPE,
			       "%s: a database, but not one of this program's (application_id %lld)",
			       db->path, (long long)id);
	if (o->read_only) /* empty: made a moment ago */
		return 0;
	char sql[64];
	snprintf(sql, sizeof(sql), "PRAGMA application_id=%d", o->application_id);
	return db_exec(db, sql, e);
}

static int open_handle(struct db *db, const struct db_options *o, struct err *e)
{
	int flags = o->read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
	int code = sqlite3_open_v2(o->path, &db->handle, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
				   NULL);
	if (code != SQLITE_OK)
		return db->handle ? db_fail(db, code, e) : err_set(e, -ENOMEM, "%s: out of memory", o->path);
	sqlite3_busy_timeout(db->handle, o->busy_timeout_ms);
	int r = apply_options(db, o, e);
	if (r == 0)
		r = check_application(db, o, e);
	if (r == 0 && !o->read_only)
		r = db_prepare(db, "BEGIN IMMEDIATE", &db->begin, e);
	if (r == 0 && !o->read_only)
		r = db_prepare(db, "COMMIT", &db->commit, e);
	return r;
}

int db_open(const struct db_options *o, struct db **ret, struct err *e)
{
	int r = make_file(o, e);
	if (r < 0)
		return r;
	CLEANUP(db_closep) struct db *db = calloc(1, sizeof(*db));
	if (!db || !(db->path = strdup(o->path)))
		return err_set(e, -ENOMEM, "%s: out of memory", o->path);
	r = open_handle(db, o, e);
	if (r < 0)
		return r;
	*ret = steal(db);
	return 0;
}

/* The last connection removes the WAL by its name. When the file was replaced, that WAL may be another
 * file's. */
static void leave_wal_alone(struct db *db)
{
	int keep = 1;
	if (db->handle && db_moved(db))
		sqlite3_file_control(db->handle, NULL, SQLITE_FCNTL_PERSIST_WAL, &keep);
}

struct db *db_close(struct db *db)
{
	if (db) {
		leave_wal_alone(db);
		db_stmt_free(db->begin);
		db_stmt_free(db->commit);
		sqlite3_close_v2(db->handle);
		free(db->path);
		free(db);
	}
	return NULL;
}

const char *db_path(const struct db *db)
{
	return db->path;
}

/* --- statements ----------------------------------------------------------------------------------------- */

int db_exec(struct db *db, const char *sql, struct err *e)
{
	int code = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
	return code == SQLITE_OK ? 0 : db_fail(db, code, e);
}

int db_query_int64(struct db *db, const char *sql, int64_t *ret, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *s = NULL;
	int r = db_prepare(db, sql, &s, e);
	if (r == 0)
		r = db_step(s, e);
	if (r < 0)
		return r;
	if (r == 0)
		return err_set(e, -ENOENT, "%s: no row", db->path);
	*ret = db_column_int64(s, 0);
	return 0;
}

int db_prepare(struct db *db, const char *sql, struct db_stmt **ret, struct err *e)
{
	struct db_stmt *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, "%s: out of memory", db->path);
	s->db = db;
	int code = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &s->stmt, NULL);
	if (code != SQLITE_OK) {
		free(s);
		return db_fail(db, code, e);
	}
	*ret = s;
	return 0;
}

struct db_stmt *db_stmt_free(struct db_stmt *s)
{
	if (s) {
		sqlite3_finalize(s->stmt);
		free(s);
	}
	return NULL;
}

static void bound(struct db_stmt *s, int code)
{
	if (code != SQLITE_OK && s->bind_error == 0)
		s->bind_error = code;
}

void db_bind_int64(struct db_stmt *s, int i, int64_t value)
{
	bound(s, sqlite3_bind_int64(s->stmt, i, value));
}

void db_bind_text(struct db_stmt *s, int i, struct span value)
{
	bound(s, sqlite3_bind_text64(s->stmt, i, value.ptr, value.len, SQLITE_STATIC, SQLITE_UTF8));
}

void db_bind_blob(struct db_stmt *s, int i, struct span value)
{
	bound(s, sqlite3_bind_blob64(s->stmt, i, value.ptr, value.len, SQLITE_STATIC));
}

void db_bind_null(struct db_stmt *s, int i)
{
	bound(s, sqlite3_bind_null(s->stmt, i));
}

int db_step(struct db_stmt *s, struct err *e)
{
	int code = s->bind_error ? s->bind_error : sqlite3_step(s->stmt);
	if (code == SQLITE_ROW)
		return 1;
	int r = code == SQLITE_DONE ? 0 : db_fail(s->db, code, e);
	db_reset(s);
	return r;
}

void db_reset(struct db_stmt *s)
{
	s->bind_error = 0;
	sqlite3_reset(s->stmt);
}

int db_run(struct db_stmt *s, struct err *e)
{
	int r = db_step(s, e);
	while (r > 0)
		r = db_step(s, e);
	return r;
}

int64_t db_column_int64(struct db_stmt *s, int i)
{
	return sqlite3_column_int64(s->stmt, i);
}

struct span db_column_text(struct db_stmt *s, int i)
{
	const char *text = (const char *)sqlite3_column_text(s->stmt, i);
	return text ? (struct span){text, (size_t)sqlite3_column_bytes(s->stmt, i)} : SPAN_NONE;
}

struct span db_column_blob(struct db_stmt *s, int i)
{
	if (db_column_is_null(s, i))
		return SPAN_NONE;
	const char *bytes = sqlite3_column_blob(s->stmt, i);
	return (struct span){bytes ? bytes : "", (size_t)sqlite3_column_bytes(s->stmt, i)};
}

bool db_column_is_null(struct db_stmt *s, int i)
{
	return sqlite3_column_type(s->stmt, i) == SQLITE_NULL;
}

int64_t db_changes(struct db *db)
{
	return sqlite3_changes64(db->handle);
}

int64_t db_last_insert_rowid(struct db *db)
{
	return sqlite3_last_insert_rowid(db->handle);
}

/* --- transactions --------------------------------------------------------------------------------------- */

int db_begin(struct db *db, struct err *e)
{
	if (!db->begin)
		return err_set(e, -EROFS, "%s: opened read-only", db->path);
	return db_run(db->begin, e);
}

int db_commit(struct db *db, struct err *e)
{
	return db_run(db->commit, e);
}

void db_rollback(struct db *db)
{
	/* Some errors (disk full, I/O) have ended the transaction already. */
	if (!sqlite3_get_autocommit(db->handle))
		sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
}

/* --- the file ------------------------------------------------------------------------------------------- */

int db_user_version(struct db *db, int64_t *ret, struct err *e)
{
	return db_query_int64(db, "PRAGMA user_version", ret, e);
}

int db_probe_write(struct db *db, struct err *e)
{
	int64_t version = 0;
	char sql[64];
	int r = db_user_version(db, &version, e);
	if (r == 0)
		r = db_begin(db, e);
	/* It is written also when it stays the same. */
	snprintf(sql, sizeof(sql), "PRAGMA user_version=%lld", (long long)version);
	if (r == 0)
		r = db_exec(db, sql, e);
	if (r == 0)
		r = db_commit(db, e);
	if (r < 0)
		db_rollback(db);
	return r;
}

static int migrate_once(struct db *db, const char *step, int64_t version, struct err *e)
{
	char sql[64];
	snprintf(sql, sizeof(sql), "PRAGMA user_version=%lld", (long long)version);
	int r = db_exec(db, step, e);
	if (r == 0)
		r = db_exec(db, sql, e);
	return r == 0 ? db_commit(db, e) : r;
}

int db_migrate(struct db *db, const char *const *steps, size_t n, struct err *e)
{
	for (;;) {
		/* the version is read under the lock: another process may be migrating too */
		int r = db_begin(db, e);
		if (r < 0)
			return r;
		int64_t version = 0;
		r = db_user_version(db, &version, e);
		if (r == 0 && (version < 0 || version > (int64_t)n))
			r = err_set(e, -EPROTO, "%s: schema version %lld, this program knows up to %zu",
				    db->path, (long long)version, n);
		if (r == 0 && version < (int64_t)n)
			r = migrate_once(db, steps[version], version + 1, e);
		db_rollback(db);
		if (r < 0 || version + 1 >= (int64_t)n)
			return r;
	}
}

int db_integrity_check(struct db *db, struct err *e)
{
	CLEANUP(db_stmt_freep) struct db_stmt *s = NULL;
	int r = db_prepare(db, "PRAGMA integrity_check(1)", &s, e);
	if (r == 0)
		r = db_step(s, e);
	if (r < 0)
		return r;
	struct span found = r == 1 ? db_column_text(s, 0) : SPAN_LIT("no answer");
	return span_is(found, "ok") ? 0 : err_set(e, -EUCLEAN, "%s: %.*s", db->path, SPAN_ARG(found));
}

bool db_moved(struct db *db)
{
	int moved = 0;
	int code = sqlite3_file_control(db->handle, NULL, SQLITE_FCNTL_HAS_MOVED, &moved);
	return code == SQLITE_OK && moved != 0;
}

static int64_t pragma_or_negative(struct db *db, const char *sql)
{
	int64_t value;
	int r = db_query_int64(db, sql, &value, NULL);
	return r < 0 ? r : value;
}

int64_t db_page_size(struct db *db)
{
	return pragma_or_negative(db, "PRAGMA page_size");
}

int64_t db_page_count(struct db *db)
{
	return pragma_or_negative(db, "PRAGMA page_count");
}

int64_t db_free_pages(struct db *db)
{
	return pragma_or_negative(db, "PRAGMA freelist_count");
}

int db_vacuum_pages(struct db *db, int64_t pages, struct err *e)
{
	char sql[64];
	snprintf(sql, sizeof(sql), "PRAGMA incremental_vacuum(%lld)", (long long)pages);
	return db_exec(db, sql, e);
}
