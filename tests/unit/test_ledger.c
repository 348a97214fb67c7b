/* ledger: durable before it is called back, found after a restart, gone after a removal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/db.h"
#include "ledger/ledger_file.h"
#include "support/scratch.h"

static char folder[SCRATCH_MAX], path[SCRATCH_MAX];

static int setup(void **state)
{
	(void)state;
	scratch_make(folder);
	scratch_path(folder, "ledger.db", path);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	scratch_remove(folder);
	return 0;
}

struct waiting {
	struct loop *loop;
	int left, error;
};

static void on_put(void *arg, int error)
{
	struct waiting *w = arg;
	if (error)
		w->error = error;
	if (--w->left == 0)
		loop_stop(w->loop);
}

/* Gone from lookups when it returns; from the file some time later. */
static void take_out(struct ledger *l, struct span group, struct span key)
{
	struct ledger_entry e = {0};
	assert_int_equal(ledger_entry_set(&e, group, key), 0);
	ledger_remove(l, NULL, &e, NULL, NULL);
}

static void put_many(struct ledger *l, int n)
{
	struct waiting w = {.left = n};
	assert_int_equal(loop_new(&w.loop), 0);
	for (int i = 0; i < n; i++) {
		struct ledger_entry e = {.backend = "embedded"};
		char key[32];
		snprintf(key, sizeof(key), "container-%d", i);
		assert_int_equal(ledger_entry_set(&e, SPAN_LIT("container"), span_of(key)), 0);
		ledger_put(l, w.loop, &e, NULL, on_put, &w);
	}
	loop_run(w.loop);
	assert_int_equal(w.error, 0);
	loop_free(w.loop);
}

static void entries_survive_a_restart(void **state)
{
	(void)state;
	struct ledger *l;
	struct ledger_entry e;
	struct err why;
	assert_int_equal(ledger_file_start(path, &l, &why), 0);
	put_many(l, 2000);
	assert_true(ledger_lookup(l, SPAN_LIT("container"), SPAN_LIT("container-1999"), &e));
	assert_false(ledger_lookup(l, SPAN_LIT("other"), SPAN_LIT("container-1999"), &e));
	take_out(l, SPAN_LIT("container"), SPAN_LIT("container-7"));
	assert_false(ledger_lookup(l, SPAN_LIT("container"), SPAN_LIT("container-7"), &e));
	ledger_stop(l);

	assert_int_equal(ledger_file_start(path, &l, &why), 0);
	assert_true(ledger_lookup(l, SPAN_LIT("container"), SPAN_LIT("container-0"), &e));
	assert_string_equal(e.backend, "embedded");
	assert_false(ledger_lookup(l, SPAN_LIT("container"), SPAN_LIT("container-7"), &e));
	struct ledger_status s;
	ledger_status(l, &s);
	assert_int_equal(s.entries, 1999);
	ledger_stop(l);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

/* More than there are places for at first: each is found, and found again after some have gone. */
static void a_hundred_thousand_entries_are_all_found(void **state)
{
	enum { MANY = 150000, STEP = 997 };
	static const char fill[] =
		"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 149999)"
		" INSERT INTO entries SELECT 'run', 'r-' || i, 'embedded', 'task-' || i, "
		"4000000000000000 FROM n";
	(void)state;
	struct ledger *l;
	struct ledger_entry e;
	struct err why;
	struct db *db;
	char key[32], task[32];
	assert_int_equal(ledger_file_start(path, &l, &why), 0);
	ledger_stop(l);
	assert_int_equal(db_open(&(struct db_options){.path = path}, &db, &why), 0);
	assert_int_equal(db_exec(db, fill, &why), 0);
	db_close(db);
	assert_int_equal(ledger_file_start(path, &l, &why), 0);
	for (int i = 0; i < MANY; i += STEP) {
		snprintf(key, sizeof(key), "r-%d", i);
		take_out(l, SPAN_LIT("run"), span_of(key));
	}
	for (int i = 0; i < MANY; i++) {
		snprintf(key, sizeof(key), "r-%d", i);
		snprintf(task, sizeof(task), "task-%d", i);
		enum ledger_answer is = ledger_lookup(l, SPAN_LIT("run"), span_of(key), &e);
		assert_int_equal(is, i % STEP ? LEDGER_FOUND : LEDGER_NONE);
		if (is == LEDGER_FOUND)
			assert_string_equal(e.task_id, task);
	}
	ledger_stop(l);
}

static void what_was_called_back_survives_kill_9(void **state)
{
	(void)state;
	pid_t child = fork();
	if (child == 0) {
		struct ledger *l;
		struct err why;
		if (ledger_file_start(path, &l, &why) != 0)
			_exit(1);
		put_many(l, 10);
		kill(getpid(), SIGKILL);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	struct ledger *l;
	struct ledger_entry e;
	struct err why;
	assert_int_equal(ledger_file_start(path, &l, &why), 0);
	for (int i = 0; i < 10; i++) {
		char key[32];
		snprintf(key, sizeof(key), "container-%d", i);
		assert_true(ledger_lookup(l, SPAN_LIT("container"), span_of(key), &e));
	}
	ledger_stop(l);
}

/* 0: by a removal that is waited for, 1: by a legacy start, 2: by a legacy start right behind a removal. */
static void end_all_and_die(int way)
{
	struct ledger *l;
	struct err why;
	struct waiting w = {.left = 10};
	if (ledger_file_start(path, &l, &why) != 0 || loop_new(&w.loop) != 0)
		_exit(1);
	put_many(l, 10);
	for (int i = 0; i < 10; i++) {
		struct ledger_entry e = {0};
		char key[32];
		snprintf(key, sizeof(key), "container-%d", i);
		ledger_entry_set(&e, SPAN_LIT("container"), span_of(key));
		if (way == 2)
			take_out(l, SPAN_LIT("container"), span_of(key));
		if (way == 0)
			ledger_remove(l, w.loop, &e, on_put, &w);
		else
			ledger_take(l, w.loop, &e, "", on_put, &w);
	}
	if (w.left)
		loop_run(w.loop);
	kill(getpid(), SIGKILL);
}

static void a_removal_that_was_called_back_survives_kill_9(void **state)
{
	(void)state;
	for (int way = 0; way < 3; way++) {
		pid_t child = fork();
		if (child == 0)
			end_all_and_die(way);
		int status;
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		struct ledger *l;
		struct ledger_status s;
		struct err why;
		assert_int_equal(ledger_file_start(path, &l, &why), 0);
		ledger_status(l, &s);
		assert_int_equal(s.entries, 0);
		ledger_stop(l);
	}
}

static void a_removal_beats_the_put_before_it(void **state)
{
	(void)state;
	struct ledger *l;
	struct ledger_entry e = {.backend = "embedded"}, found;
	struct err why;
	struct waiting w = {.left = 500};
	assert_int_equal(ledger_file_start(path, &l, &why), 0);
	assert_int_equal(loop_new(&w.loop), 0);
	assert_int_equal(ledger_entry_set(&e, SPAN_LIT("container"), SPAN_LIT("x")), 0);
	for (int i = 0; i < 500; i++) {
		ledger_put(l, w.loop, &e, NULL, on_put, &w);
		take_out(l, SPAN_LIT("container"), SPAN_LIT("x"));
	}
	loop_run(w.loop);
	assert_int_equal(ledger_entry_set(&e, SPAN_LIT("container"), SPAN_LIT("last")), 0);
	w.left = 1;
	ledger_put(l, w.loop, &e, NULL, on_put, &w); /* called back after everything before it */
	loop_run(w.loop);
	assert_int_equal(w.error, 0);
	assert_false(ledger_lookup(l, SPAN_LIT("container"), SPAN_LIT("x"), &found));
	assert_true(ledger_lookup(l, SPAN_LIT("container"), SPAN_LIT("last"), &found));
	loop_free(w.loop);
	ledger_stop(l);
}

/* A clock that went astray made pins disappear from look-ups, and their calls went to legacy. */
static void an_entry_counts_until_it_was_swept_whatever_the_clock_says(void **state)
{
	(void)state;
	struct ledger *l;
	struct ledger_entry e = {.backend = "embedded", .created_us = 1}, found;
	struct err why;
	struct waiting w = {.left = 1};
	assert_int_equal(ledger_file_start(path, &l, &why), 0);
	put_many(l, 1);
	put_many(l, 1); /* the first sweep is over once this is called back */
	assert_int_equal(loop_new(&w.loop), 0);
	assert_int_equal(ledger_entry_set(&e, SPAN_LIT("container"), SPAN_LIT("x")), 0);
	ledger_put(l, w.loop, &e, NULL, on_put, &w);
	loop_run(w.loop);
	loop_free(w.loop);
	assert_int_equal(w.error, 0);
	assert_int_equal(ledger_lookup(l, SPAN_LIT("container"), SPAN_LIT("x"), &found), LEDGER_FOUND);
	ledger_stop(l);
	assert_int_equal(ledger_file_start(path, &l, &why), 0);
	assert_int_equal(ledger_lookup(l, SPAN_LIT("container"), SPAN_LIT("x"), &found), LEDGER_FOUND);
	ledger_stop(l);
}

static void a_deleted_file_is_made_anew(void **state)
{
	(void)state;
	struct ledger *l;
	struct ledger_entry found;
	struct err why;
	assert_int_equal(ledger_file_start(path, &l, &why), 0);
	put_many(l, 1);
	assert_int_equal(unlink(path), 0);
	put_many(l, 3);
	ledger_stop(l);
	assert_int_equal(ledger_file_start(path, &l, &why), 0);
	assert_true(ledger_lookup(l, SPAN_LIT("container"), SPAN_LIT("container-2"), &found));
	ledger_stop(l);
}

/* --- a file that cannot be read: what it may have is not known, which is not the same as nothing -------- */

#define PATIENCE_MS 60000

static enum ledger_answer look(struct ledger *l, const char *key)
{
	struct ledger_entry found;
	return ledger_lookup(l, SPAN_LIT("container"), span_of(key), &found);
}

static void wait_for(struct ledger *l, const char *key, enum ledger_answer answer)
{
	for (int64_t until = clock_mono_ms() + PATIENCE_MS; look(l, key) != answer;) {
		assert_true(clock_mono_ms() < until);
		usleep(10000);
	}
}

static void wait_until_failing(struct ledger *l)
{
	struct ledger_status s = {0};
	for (int64_t until = clock_mono_ms() + PATIENCE_MS; !s.failing; ledger_status(l, &s)) {
		assert_true(clock_mono_ms() < until);
		usleep(10000);
	}
}

/* Another program has the file for itself. */
static struct db *lock_file(void)
{
	struct db *db;
	struct db_options o = {.path = path, .busy_timeout_ms = PATIENCE_MS};
	struct err e = {""};
	if (db_open(&o, &db, &e) < 0 || db_exec(db, "PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE", &e) < 0)
		fail_msg("%s", e.text);
	return db;
}

static struct ledger *started(void)
{
	struct ledger *l;
	struct err e = {""};
	if (ledger_file_start(path, &l, &e) < 0)
		fail_msg("%s", e.text);
	return l;
}

static void what_a_locked_file_has_is_unknown_until_it_was_read(void **state)
{
	(void)state;
	struct ledger *l = started();
	put_many(l, 2);
	ledger_stop(l);
	struct db *other = lock_file();
	l = started();
	assert_int_equal(look(l, "container-0"), LEDGER_UNKNOWN);
	assert_int_equal(look(l, "never"), LEDGER_UNKNOWN);
	assert_true(ledger_may_have(l, SPAN_LIT("container")));
	take_out(l, SPAN_LIT("container"), SPAN_LIT("container-0"));
	/* legacy's from now on, whatever the file says */
	assert_int_equal(look(l, "container-0"), LEDGER_NONE);
	wait_until_failing(l);
	db_close(other);
	wait_for(l, "container-1", LEDGER_FOUND);
	wait_for(l, "never", LEDGER_NONE);
	assert_int_equal(look(l, "container-0"), LEDGER_NONE);
	assert_true(ledger_may_have(l, SPAN_LIT("container")));
	assert_false(ledger_may_have(l, SPAN_LIT("other")));
	ledger_stop(l);
	l = started();
	assert_int_equal(look(l, "container-0"), LEDGER_NONE);
	assert_int_equal(look(l, "container-1"), LEDGER_FOUND);
	ledger_stop(l);
}

static void what_a_damaged_file_has_is_unknown(void **state)
{
	(void)state;
	struct ledger *l = started();
	put_many(l, 2000);
	ledger_stop(l);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	FILE *f = fopen(path, "r+");
	assert_non_null(f);
	assert_int_equal(fseek(f, 4096 * 2, SEEK_SET), 0);
	for (long i = 4096 * 2; i < st.st_size; i++)
		fputc(0xAA, f);
	assert_int_equal(fclose(f), 0);
	l = started();
	assert_int_equal(look(l, "container-7"), LEDGER_UNKNOWN);
	assert_int_equal(look(l, "never"), LEDGER_UNKNOWN);
	struct ledger_status s;
	ledger_status(l, &s);
	assert_true(s.failing && s.last_error[0]);
	/* Whoever takes it away says so that there is nothing. */
	assert_int_equal(unlink(path), 0);
	wait_for(l, "container-7", LEDGER_NONE);
	ledger_stop(l);
}

static void a_removal_that_cannot_be_written_is_written_later(void **state)
{
	(void)state;
	struct ledger *l = started();
	put_many(l, 2);
	ledger_stop(l);
	l = started();
	put_many(l, 1); /* it has the file open, and has nothing to write */
	struct db_options o = {.path = path, .busy_timeout_ms = PATIENCE_MS};
	struct db *other;
	assert_int_equal(db_open(&o, &other, NULL), 0);
	assert_int_equal(db_exec(other, "BEGIN IMMEDIATE", NULL), 0);
	take_out(l, SPAN_LIT("container"), SPAN_LIT("container-1"));
	wait_until_failing(l);
	assert_int_equal(look(l, "container-1"), LEDGER_NONE);
	assert_int_equal(look(l, "container-0"), LEDGER_FOUND); /* memory has it all */
	db_close(other);
	ledger_stop(l);
	l = started();
	assert_int_equal(look(l, "container-1"), LEDGER_NONE);
	assert_int_equal(look(l, "container-0"), LEDGER_FOUND);
	ledger_stop(l);
}

static void a_file_that_was_replaced_gets_what_memory_has(void **state)
{
	(void)state;
	struct ledger *l = started();
	put_many(l, 3);
	take_out(l, SPAN_LIT("container"), SPAN_LIT("container-2"));
	assert_int_equal(unlink(path), 0);
	put_many(l, 1);
	ledger_stop(l);
	l = started();
	assert_int_equal(look(l, "container-0"), LEDGER_FOUND);
	assert_int_equal(look(l, "container-1"), LEDGER_FOUND);
	assert_int_equal(look(l, "container-2"), LEDGER_NONE);
	ledger_stop(l);
}

static void keys_are_never_cut(void **state)
{
	(void)state;
	struct ledger_entry e;
	char key[LEDGER_KEY_MAX];
	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = 'k';
	assert_int_equal(ledger_entry_set(&e, SPAN_LIT("g"), (struct span){key, sizeof(key)}), -ENAMETOOLONG);
	assert_int_equal(ledger_entry_set(&e, SPAN_LIT("g"), (struct span){key, sizeof(key) - 1}), 0);
	assert_int_equal(ledger_entry_set(&e, SPAN_LIT("g"), (struct span){"a\0b", 3}), -ENAMETOOLONG);
}

static void a_folder_in_its_place_is_said_at_start(void **state)
{
	(void)state;
	struct ledger *l;
	struct err why;
	assert_true(ledger_file_start(folder, &l, &why) < 0);
	assert_non_null(strstr(why.text, folder));
}

/* --- two processes at one file; here two ledgers of one, whose locks exclude each other as those of two
 * do --- */

static void put_one(struct ledger *l, const char *key)
{
	struct waiting w = {.left = 1};
	struct ledger_entry e = {.backend = "embedded"};
	assert_int_equal(loop_new(&w.loop), 0);
	assert_int_equal(ledger_entry_set(&e, SPAN_LIT("container"), span_of(key)), 0);
	ledger_put(l, w.loop, &e, NULL, on_put, &w);
	loop_run(w.loop);
	assert_int_equal(w.error, 0);
	loop_free(w.loop);
}

static bool is_shared(struct ledger *l)
{
	struct ledger_status s;
	ledger_status(l, &s);
	return s.shared;
}

/* The answer once it is one: another process may be at it. */
static enum ledger_answer settled(struct ledger *l, const char *key)
{
	enum ledger_answer answer = look(l, key);
	for (int i = 0; i < 3000 && answer == LEDGER_UNKNOWN; i++) {
		usleep(10000);
		answer = look(l, key);
	}
	return answer;
}

static void await_alone(struct ledger *l)
{
	for (int i = 0; i < 3000 && is_shared(l); i++)
		usleep(10000);
	assert_false(is_shared(l));
}

static void two_processes_see_what_the_other_one_writes(void **state)
{
	(void)state;
	struct ledger *old, *new;
	struct err why;
	assert_int_equal(ledger_file_start(path, &old, &why), 0);
	put_one(old, "before");
	assert_false(is_shared(old));
	assert_int_equal(ledger_share(old, &why), 0);
	assert_int_equal(ledger_file_start(path, &new, &why), 0);
	assert_true(is_shared(new));
	put_one(old, "of-the-old");
	put_one(new, "of-the-new");
	assert_int_equal(look(new, "before"), LEDGER_FOUND);
	assert_int_equal(look(new, "of-the-old"), LEDGER_FOUND);
	assert_int_equal(look(old, "of-the-new"), LEDGER_FOUND);
	assert_int_equal(look(old, "nobodys"), LEDGER_NONE);
	take_out(old, SPAN_LIT("container"), SPAN_LIT("before"));
	assert_int_equal(look(old, "before"), LEDGER_NONE);
	assert_int_not_equal(look(new, "before"), LEDGER_FOUND);
	assert_int_equal(settled(new, "before"), LEDGER_NONE);
	take_out(new, SPAN_LIT("container"), SPAN_LIT("of-the-old"));
	assert_int_not_equal(look(old, "of-the-old"), LEDGER_FOUND);
	assert_int_equal(settled(old, "of-the-old"), LEDGER_NONE);
	ledger_stop(old);
	await_alone(new);
	assert_int_equal(look(new, "before"), LEDGER_NONE);
	assert_int_equal(look(new, "of-the-old"), LEDGER_NONE);
	assert_int_equal(look(new, "of-the-new"), LEDGER_FOUND);
	ledger_stop(new);
}

static void who_failed_to_take_over_leaves_what_he_wrote(void **state)
{
	(void)state;
	struct ledger *old, *new;
	struct err why;
	assert_int_equal(ledger_file_start(path, &old, &why), 0);
	put_one(old, "before");
	assert_int_equal(ledger_share(old, &why), 0);
	assert_int_equal(ledger_file_start(path, &new, &why), 0);
	put_one(new, "of-the-new");
	take_out(new, SPAN_LIT("container"), SPAN_LIT("before"));
	ledger_stop(new);
	assert_true(is_shared(old)); /* as long as it is held so: another one may be about to open the file */
	ledger_unshare(old);
	await_alone(old);
	assert_int_equal(look(old, "of-the-new"), LEDGER_FOUND);
	assert_int_equal(look(old, "before"), LEDGER_NONE);
	ledger_stop(old);
}

/* A removal that is not in the file yet, or cannot be written, must not be seen as an entry by anybody. */
static void a_removal_under_way_is_unknown_to_the_other_process(void **state)
{
	(void)state;
	struct ledger *old, *new;
	struct db *other;
	struct err why;
	assert_int_equal(ledger_file_start(path, &old, &why), 0);
	put_one(old, "x");
	assert_int_equal(ledger_share(old, &why), 0);
	assert_int_equal(ledger_file_start(path, &new, &why), 0);
	struct db_options o = {.path = path, .busy_timeout_ms = 10000};
	assert_int_equal(db_open(&o, &other, &why), 0);
	assert_int_equal(db_begin(other, &why), 0);
	take_out(old, SPAN_LIT("container"), SPAN_LIT("x"));
	for (int i = 0; i < 300; i++) { /* beyond the patience of the one that writes */
		assert_int_equal(look(old, "x"), LEDGER_NONE);
		assert_int_equal(look(new, "x"), LEDGER_UNKNOWN);
		usleep(10000);
	}
	db_rollback(other);
	db_close(other);
	assert_int_equal(settled(new, "x"), LEDGER_NONE);
	ledger_stop(old);
	await_alone(new);
	assert_int_equal(look(new, "x"), LEDGER_NONE);
	ledger_stop(new);
}

static void what_was_being_removed_by_a_killed_process_is_unknown_until_alone(void **state)
{
	(void)state;
	struct ledger *new;
	struct db *other;
	struct err why;
	int ready[2], go[2];
	char c = 0;
	assert_int_equal(pipe(ready) | pipe(go), 0);
	pid_t child = fork();
	if (child == 0) {
		struct ledger *l;
		if (ledger_file_start(path, &l, &why) != 0)
			_exit(1);
		put_one(l, "x");
		if (ledger_share(l, &why) != 0 || write(ready[1], "", 1) != 1 || read(go[0], &c, 1) != 1)
			_exit(1);
		take_out(l, SPAN_LIT("container"), SPAN_LIT("x"));
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	assert_int_equal(ledger_file_start(path, &new, &why), 0);
	assert_int_equal(look(new, "x"), LEDGER_FOUND);
	struct db_options o = {.path = path, .busy_timeout_ms = 10000};
	assert_int_equal(db_open(&o, &other, &why), 0);
	assert_int_equal(db_begin(other, &why), 0);
	assert_int_equal(write(go[1], "", 1), 1);
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	db_rollback(other);
	db_close(other);
	await_alone(new);
	assert_int_equal(look(new, "x"), LEDGER_FOUND); /* the removal was not written, as after any kill */
	ledger_stop(new);
	for (int i = 0; i < 2; i++)
		close(ready[i]), close(go[i]);
}

static void nobody_is_shared_with_whom_one_would_not_see(void **state)
{
	(void)state;
	struct ledger *l;
	struct err why;
	char pending[SCRATCH_MAX];
	scratch_path(folder, "ledger.db-pending", pending);
	assert_int_equal(ledger_file_start(path, &l, &why), 0);
	assert_int_equal(unlink(pending), 0);
	assert_int_equal(ledger_share(l, &why), -ESTALE);
	assert_non_null(strstr(why.text, "ledger.db-pending"));
	ledger_stop(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(entries_survive_a_restart, setup, teardown),
		cmocka_unit_test_setup_teardown(a_hundred_thousand_entries_are_all_found, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_called_back_survives_kill_9, setup, teardown),
		cmocka_unit_test_setup_teardown(a_removal_that_was_called_back_survives_kill_9, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_removal_beats_the_put_before_it, setup, teardown),
		cmocka_unit_test_setup_teardown(an_entry_counts_until_it_was_swept_whatever_the_clock_says,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_deleted_file_is_made_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(what_a_locked_file_has_is_unknown_until_it_was_read, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_a_damaged_file_has_is_unknown, setup, teardown),
		cmocka_unit_test_setup_teardown(a_removal_that_cannot_be_written_is_written_later, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_file_that_was_replaced_gets_what_memory_has, setup,
						teardown),
		cmocka_unit_test_setup_teardown(two_processes_see_what_the_other_one_writes, setup, teardown),
		cmocka_unit_test_setup_teardown(who_failed_to_take_over_leaves_what_he_wrote, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_removal_under_way_is_unknown_to_the_other_process, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			what_was_being_removed_by_a_killed_process_is_unknown_until_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_is_shared_with_whom_one_would_not_see, setup,
						teardown),
		cmocka_unit_test(keys_are_never_cut),
		cmocka_unit_test_setup_teardown(a_folder_in_its_place_is_said_at_start, setup, teardown)};
	if (crypto_setup() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
