/* base/db: modes, statements, transactions, migrations, errors, damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/db.h"
#include "support/scratch.h"

struct place {
	char folder[SCRATCH_MAX], file[SCRATCH_MAX];
};

static int make_place(void **state)
{
	static struct place p;
	scratch_make(p.folder);
	scratch_path(p.folder, "t.db", p.file);
	*state = &p;
	return 0;
}

static int remove_place(void **state)
{
	struct place *p = *state;
	scratch_remove(p->folder);
	return 0;
}

static struct db *open_db(struct place *p)
{
	struct db *db = NULL;
	struct err e = {""};
	if (db_open(&(struct db_options){.path = p->file, .application_id = 77, .vacuum_pages = true}, &db,
		    &e) < 0)
		fail_msg("%s", e.text);
	return db;
}

static int mode_of(const char *path, const char *end)
{
	char full[SCRATCH_MAX + 8];
	struct stat st;
	snprintf(full, sizeof(full), "%s%s", path, end);
	assert_int_equal(stat(full, &st), 0);
	return (int)(st.st_mode & 0777);
}

static void files_are_private_whatever_the_umask(void **state)
{
	struct place *p = *state;
	mode_t old = umask(0);
	struct db *db = open_db(p);
	umask(old);
	assert_int_equal(db_exec(db, "CREATE TABLE t (a)", NULL), 0);
	assert_int_equal(mode_of(p->file, ""), 0600);
	assert_int_equal(mode_of(p->file, "-wal"), 0600);
	assert_int_equal(mode_of(p->file, "-shm"), 0600);
	db_close(db);
}

static void values_come_back_as_they_went_in(void **state)
{
	struct db *db = open_db(*state);
	struct db_stmt *s = NULL;
	struct err e;
	assert_int_equal(db_exec(db, "CREATE TABLE t (a, b, c, d)", &e), 0);
	assert_int_equal(db_prepare(db, "INSERT INTO t VALUES (?,?,?,?)", &s, &e), 0);
	db_bind_int64(s, 1, INT64_MIN);
	db_bind_text(s, 2, SPAN_LIT("a\0b"));
	db_bind_blob(s, 3, SPAN_LIT(""));
	db_bind_null(s, 4);
	assert_int_equal(db_run(s, &e), 0);
	assert_int_equal(db_changes(db), 1);
	assert_int_equal(db_last_insert_rowid(db), 1);
	s = db_stmt_free(s);

	assert_int_equal(db_prepare(db, "SELECT * FROM t", &s, &e), 0);
	assert_int_equal(db_step(s, &e), 1);
	assert_true(db_column_int64(s, 0) == INT64_MIN);
	assert_true(span_eq(db_column_text(s, 1), SPAN_LIT("a\0b")));
	assert_non_null(db_column_blob(s, 2).ptr);
	assert_int_equal(db_column_blob(s, 2).len, 0);
	assert_true(db_column_is_null(s, 3));
	assert_null(db_column_text(s, 3).ptr);
	assert_int_equal(db_step(s, &e), 0);
	db_stmt_free(s);
	db_close(db);
}

static void a_bad_binding_is_told_by_step(void **state)
{
	struct db *db = open_db(*state);
	struct db_stmt *s = NULL;
	struct err e = {""};
	assert_int_equal(db_prepare(db, "SELECT ?", &s, &e), 0);
	db_bind_int64(s, 2, 1);
	assert_int_equal(db_step(s, &e), -EIO);
	assert_non_null(strstr(e.text, "t.db: "));
	assert_int_equal(db_step(s, &e), 1);
	db_stmt_free(s);
	db_close(db);
}

static void transactions_and_constraints(void **state)
{
	struct db *db = open_db(*state);
	struct err e = {""};
	int64_t n;
	assert_int_equal(db_exec(db, "CREATE TABLE t (a PRIMARY KEY)", &e), 0);
	assert_int_equal(db_begin(db, &e), 0);
	assert_int_equal(db_exec(db, "INSERT INTO t VALUES (1)", &e), 0);
	assert_int_equal(db_exec(db, "INSERT INTO t VALUES (1)", &e), -EEXIST);
	assert_non_null(strstr(e.text, "UNIQUE constraint failed: t.a"));
	db_rollback(db);
	db_rollback(db);
	assert_int_equal(db_query_int64(db, "SELECT count(*) FROM t", &n, &e), 0);
	assert_int_equal(n, 0);
	assert_int_equal(db_begin(db, &e), 0);
	assert_int_equal(db_exec(db, "INSERT INTO t VALUES (1)", &e), 0);
	assert_int_equal(db_commit(db, &e), 0);
	assert_int_equal(db_query_int64(db, "SELECT a FROM t WHERE a = 2", &n, &e), -ENOENT);
	db_close(db);
}

static void a_lock_of_someone_else_is_busy(void **state)
{
	struct db *a = open_db(*state), *b = open_db(*state);
	struct err e = {""};
	assert_int_equal(db_exec(a, "BEGIN EXCLUSIVE", &e), 0);
	assert_int_equal(db_begin(b, &e), -EBUSY);
	assert_non_null(strstr(e.text, "locked"));
	db_rollback(a);
	assert_int_equal(db_begin(b, &e), 0);
	db_rollback(b);
	db_close(a);
	db_close(b);
}

static void migrations_run_once_and_a_newer_file_is_refused(void **state)
{
	struct db *db = open_db(*state);
	struct err e = {""};
	int64_t v;
	static const char *const steps[] = {"CREATE TABLE a (x); INSERT INTO a VALUES (1)",
					    "ALTER TABLE a ADD COLUMN y"};
	static const char *const wrong[] = {"", "", "CREATE TABLE b (x); nonsense"};
	assert_int_equal(db_migrate(db, steps, 1, &e), 0);
	assert_int_equal(db_migrate(db, steps, 2, &e), 0);
	assert_int_equal(db_migrate(db, steps, 2, &e), 0);
	assert_int_equal(db_user_version(db, &v, &e), 0);
	assert_int_equal(v, 2);
	assert_int_equal(db_query_int64(db, "SELECT count(*) FROM a", &v, &e), 0);
	assert_int_equal(v, 1);
	assert_true(db_migrate(db, wrong, 3, &e) < 0); /* leaves neither table nor version */
	assert_int_equal(db_query_int64(db, "SELECT count(*) FROM sqlite_master WHERE name = 'b'", &v, &e),
			 0);
	assert_int_equal(v, 0);
	assert_int_equal(db_migrate(db, steps, 1, &e), -EPROTO);
	assert_non_null(strstr(e.text, "schema version 2"));
	db_close(db);
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void what_cannot_be_opened_says_why(void **state)
{
	struct place *p = *state;
	struct db *db = NULL;
	struct err e = {""};
	struct db_options o = {.path = p->file, .read_only = true, .application_id = 77};
	assert_int_equal(db_open(&o, &db, &e), -ENOENT);
	assert_non_null(strstr(e.text, "No such file"));
	o.path = p->folder;
	assert_int_equal(db_open(&o, &db, &e), -EISDIR);
	o.path = p->file;
	write_file(p->file, "this is a text of some length, surely not a database, and longer than a header "
			    "of 100 bytes. "
			    "It goes on for a bit so that SQLite reads a whole header.");
	assert_int_equal(db_open(&o, &db, &e), -EMEDIUMTYPE);
	assert_non_null(strstr(e.text, "not a database"));
	unlink(p->file);
	db_close(open_db(p));
	o.application_id = 78;
	assert_int_equal(db_open(&o, &db, &e), -EMEDIUMTYPE);
	assert_non_null(strstr(e.text, "not one of this program's"));
	assert_null(db);
}

static void read_only_reads_what_a_writer_commits(void **state)
{
	struct place *p = *state;
	struct db *w = open_db(p), *r = NULL;
	struct err e = {""};
	int64_t n;
	assert_int_equal(db_exec(w, "CREATE TABLE t (a)", &e), 0);
	assert_int_equal(db_open(&(struct db_options){.path = p->file, .read_only = true}, &r, &e), 0);
	assert_int_equal(db_exec(w, "INSERT INTO t VALUES (1)", &e), 0);
	assert_int_equal(db_query_int64(r, "SELECT count(*) FROM t", &n, &e), 0);
	assert_int_equal(n, 1);
	assert_int_equal(db_exec(r, "DELETE FROM t", &e), -EROFS);
	assert_int_equal(db_begin(r, &e), -EROFS);
	db_close(r);
	db_close(w);
}

static void pages_are_counted_given_back_and_checkpointed(void **state)
{
	struct place *p = *state;
	struct db *db = open_db(p);
	struct err e = {""};
	struct stat st;
	assert_int_equal(
		db_exec(db,
			"CREATE TABLE t (a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n "
			"WHERE i < 1000) INSERT INTO t SELECT randomblob(1000) FROM n",
			&e),
		0);
	int64_t full = db_page_count(db);
	assert_true(full * db_page_size(db) > 1000000);
	assert_int_equal(db_exec(db, "DELETE FROM t", &e), 0);
	assert_true(db_free_pages(db) > full / 2);
	assert_int_equal(db_vacuum_pages(db, full, &e), 0);
	assert_true(db_page_count(db) < full / 10);
	assert_int_equal(db_integrity_check(db, &e), 0);
	assert_int_equal(db_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", &e), 0);
	char wal[SCRATCH_MAX];
	scratch_path(p->folder, "t.db-wal", wal);
	assert_int_equal(stat(wal, &st), 0);
	assert_int_equal(st.st_size, 0);
	assert_false(db_moved(db));
	assert_int_equal(unlink(p->file), 0);
	assert_true(db_moved(db));
	db_close(db);
}

static void damage_is_found(void **state)
{
	struct place *p = *state;
	struct db *db = open_db(p);
	struct err e = {""};
	assert_int_equal(
		db_exec(db, "CREATE TABLE t (a); CREATE INDEX i ON t (a); INSERT INTO t VALUES (1), (2)", &e),
		0);
	db_close(db);
	int fd = open(p->file, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	char junk[4096];
	memset(junk, 0xee, sizeof(junk));
	assert_int_equal(pwrite(fd, junk, sizeof(junk), 2 * 4096), sizeof(junk));
	close(fd);
	db = open_db(p);
	assert_int_equal(db_integrity_check(db, &e), -EUCLEAN);
	assert_non_null(strstr(e.text, p->file));
	db_close(db);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, make_place, remove_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(files_are_private_whatever_the_umask),
		CASE(values_come_back_as_they_went_in),
		CASE(a_bad_binding_is_told_by_step),
		CASE(transactions_and_constraints),
		CASE(a_lock_of_someone_else_is_busy),
		CASE(migrations_run_once_and_a_newer_file_is_refused),
		CASE(what_cannot_be_opened_says_why),
		CASE(read_only_reads_what_a_writer_commits),
		CASE(pages_are_counted_given_back_and_checkpointed),
		CASE(damage_is_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
