/*
 * SQLite files: open with the right mode and pragmas, statements, transactions, migrations.
 *
 * Why:       one place knows sqlite3.h; the owners of tasks.db, outcomes.db and ledger.db share these habits.
 * Ownership: who opens a database frees its statements before closing it. Bound text and blobs are borrowed
 *            until the statement is reset or run; column spans are good until the next step, reset or free.
 * Threads:   a database and its statements belong to one thread at a time.
 * Errors:    -errno, so callers can tell kinds apart:
 *            -EBUSY locked by someone else · -ENOSPC disk full · -EROFS read-only · -EUCLEAN corrupt ·
 *            -EMEDIUMTYPE not a database, or another program's · -EPROTO made by a newer version of this
 *            program · -ENOENT, -EACCES, -EISDIR cannot be opened · -EEXIST a constraint · -EINTR interrupted
 *            · -EFBIG too large a value · -ENOMEM · -EIO the rest. Sentences begin with the file's path and
 *            carry SQLite's extended code.
 */
#ifndef BASE_DB_H
#define BASE_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/span.h"

struct db;
struct db_stmt;

struct db_options {
	const char *path;
	bool read_only; /* the file must exist; nothing is written, no journal mode changed */
	/* synchronous FULL: a commit survives a power cut; else NORMAL: it survives kill -9 */
	bool sync_full;
	bool vacuum_pages;   /* a new file gets auto_vacuum=incremental, see db_vacuum_pages */
	int busy_timeout_ms; /* how long to wait for someone else's lock; 0 = not at all */
	int cache_kib;	     /* page cache; 0 = SQLite's own (2 MiB) */
	/* a commit that leaves the WAL longer than this checkpoints it; 0 = SQLite's own (1000) */
	int wal_pages;
	/* marks a new file as ours, refuses files with another mark; 0 = not looked at */
	int application_id;
};

/* Opens, or makes with mode 0600 (its -wal and -shm take the mode of the file), in WAL mode. The mode of a
 * file that exists is left alone. */
int db_open(const struct db_options *o, struct db **ret, struct err *e);
struct db *db_close(struct db *db); /* NULL is allowed; returns NULL */
const char *db_path(const struct db *db);

/* One or more statements without results. */
int db_exec(struct db *db, const char *sql, struct err *e);
/* One statement whose first column of its first row is an integer. No row: -ENOENT. */
int db_query_int64(struct db *db, const char *sql, int64_t *ret, struct err *e);

/* --- statements ----------------------------------------------------------------------------------------- */
/* Compiled once, kept and run many times by its owner. */
int db_prepare(struct db *db, const char *sql, struct db_stmt **ret, struct err *e);
struct db_stmt *db_stmt_free(struct db_stmt *s); /* NULL is allowed; returns NULL */

/* Parameters count from 1 and stay bound across resets. An error of binding is remembered and returned by
 * db_step. */
void db_bind_int64(struct db_stmt *s, int i, int64_t value);
void db_bind_text(struct db_stmt *s, int i, struct span value); /* SPAN_NONE binds NULL */
void db_bind_blob(struct db_stmt *s, int i, struct span value); /* SPAN_NONE binds NULL */
void db_bind_null(struct db_stmt *s, int i);

/* 1 = a row is there, 0 = done, <0 = error. After 0 or an error the statement is reset. */
int db_step(struct db_stmt *s, struct err *e);
void db_reset(struct db_stmt *s);
/* For statements without results: step to the end. */
int db_run(struct db_stmt *s, struct err *e);

/* Columns of the current row count from 0. */
int64_t db_column_int64(struct db_stmt *s, int i);
struct span db_column_text(struct db_stmt *s, int i); /* NULL gives SPAN_NONE */
struct span db_column_blob(struct db_stmt *s, int i); /* NULL gives SPAN_NONE */
bool db_column_is_null(struct db_stmt *s, int i);

int64_t db_changes(struct db *db); /* rows changed by the last INSERT, UPDATE or DELETE */
int64_t db_last_insert_rowid(struct db *db);

/* --- transactions --------------------------------------------------------------------------------------- */
/* immediate: takes the write lock now, so that only this call meets -EBUSY */
int db_begin(struct db *db, struct err *e);
int db_commit(struct db *db, struct err *e); /* after an error the transaction is still to be rolled back */
void db_rollback(struct db *db);	     /* fine when there is none */

/* --- the file ------------------------------------------------------------------------------------------- */
/* Applies steps[user_version] … steps[n - 1], each with the new user_version in one transaction.
 * user_version > n: -EPROTO. */
int db_migrate(struct db *db, const char *const *steps, size_t n, struct err *e);
int db_user_version(struct db *db, int64_t *ret, struct err *e);

/* Whether something can be written now: taking the write lock does not tell a full disk. Not within a
 * transaction. */
int db_probe_write(struct db *db, struct err *e);
/* 0, or -EUCLEAN with SQLite's first finding. Reads the whole file. */
int db_integrity_check(struct db *db, struct err *e);
/* Whether another file, or none, is now at the path that was opened. */
bool db_moved(struct db *db);

int64_t db_page_size(struct db *db);
int64_t db_page_count(struct db *db); /* pages of the file, free ones included; <0 on error */
int64_t db_free_pages(struct db *db); /* pages that hold nothing now; <0 on error */
/* Gives up to `pages` free pages back to the file system, in a transaction of its own; files made with
 * vacuum_pages. */
int db_vacuum_pages(struct db *db, int64_t pages, struct err *e);

DEFINE_CLEANUP(struct db *, db_close)
DEFINE_CLEANUP(struct db_stmt *, db_stmt_free)

#endif
