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

#include "base/crypto.h"
#include "metrics/ledger.h"
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

static void put_many(struct ledger *l, int n)
{
	struct waiting w = {.left = n};
	assert_int_equal(loop_new(&w.loop), 0);
	for (int i = 0; i < n; i++) {
		struct ledger_entry e = {.backend = "embedded"};
		char key[32];
		snprintf(key, sizeof(key), "container-%d", i);
		assert_int_equal(ledger_entry_set(&e, SPAN_LIT("container"), span_of(key)), 0);
		ledger_put(l, w.loop, &e, on_put, &w);
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
	assert_int_equal(ledger_start(path, &l, &why), 0);
	put_many(l, 2000);
	assert_true(ledger_lookup(l, SPAN_LIT("container"), SPAN_LIT("container-1999"), &e));
	assert_false(ledger_lookup(l, SPAN_LIT("other"), SPAN_LIT("container-1999"), &e));
	ledger_remove(l, SPAN_LIT("container"), SPAN_LIT("container-7"));
	assert_false(ledger_lookup(l, SPAN_LIT("container"), SPAN_LIT("container-7"), &e));
	ledger_stop(l);

	assert_int_equal(ledger_start(path, &l, &why), 0);
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

static void what_was_called_back_survives_kill_9(void **state)
{
	(void)state;
	pid_t child = fork();
	if (child == 0) {
		struct ledger *l;
		struct err why;
		if (ledger_start(path, &l, &why) != 0)
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
	assert_int_equal(ledger_start(path, &l, &why), 0);
	for (int i = 0; i < 10; i++) {
		char key[32];
		snprintf(key, sizeof(key), "container-%d", i);
		assert_true(ledger_lookup(l, SPAN_LIT("container"), span_of(key), &e));
	}
	ledger_stop(l);
}

static void a_removal_beats_the_put_before_it(void **state)
{
	(void)state;
	struct ledger *l;
	struct ledger_entry e = {.backend = "embedded"}, found;
	struct err why;
	struct waiting w = {.left = 500};
	assert_int_equal(ledger_start(path, &l, &why), 0);
	assert_int_equal(loop_new(&w.loop), 0);
	assert_int_equal(ledger_entry_set(&e, SPAN_LIT("container"), SPAN_LIT("x")), 0);
	for (int i = 0; i < 500; i++) {
		ledger_put(l, w.loop, &e, on_put, &w);
		ledger_remove(l, SPAN_LIT("container"), SPAN_LIT("x"));
	}
	loop_run(w.loop);
	assert_int_equal(ledger_entry_set(&e, SPAN_LIT("container"), SPAN_LIT("last")), 0);
	w.left = 1;
	ledger_put(l, w.loop, &e, on_put, &w); /* called back after everything before it */
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
	assert_int_equal(ledger_start(path, &l, &why), 0);
	put_many(l, 1);
	put_many(l, 1); /* the first sweep is over once this is called back */
	assert_int_equal(loop_new(&w.loop), 0);
	assert_int_equal(ledger_entry_set(&e, SPAN_LIT("container"), SPAN_LIT("x")), 0);
	ledger_put(l, w.loop, &e, on_put, &w);
	loop_run(w.loop);
	loop_free(w.loop);
	assert_int_equal(w.error, 0);
	assert_int_equal(ledger_lookup(l, SPAN_LIT("container"), SPAN_LIT("x"), &found), LEDGER_FOUND);
	ledger_stop(l);
	assert_int_equal(ledger_start(path, &l, &why), 0);
	assert_int_equal(ledger_lookup(l, SPAN_LIT("container"), SPAN_LIT("x"), &found), LEDGER_FOUND);
	ledger_stop(l);
}

static void a_deleted_file_is_made_anew(void **state)
{
	(void)state;
	struct ledger *l;
	struct ledger_entry found;
	struct err why;
	assert_int_equal(ledger_start(path, &l, &why), 0);
	put_many(l, 1);
	assert_int_equal(unlink(path), 0);
	put_many(l, 3);
	ledger_stop(l);
	assert_int_equal(ledger_start(path, &l, &why), 0);
	assert_true(ledger_lookup(l, SPAN_LIT("container"), SPAN_LIT("container-2"), &found));
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
	assert_true(ledger_start(folder, &l, &why) < 0);
	assert_non_null(strstr(why.text, folder));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(entries_survive_a_restart, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_called_back_survives_kill_9, setup, teardown),
		cmocka_unit_test_setup_teardown(a_removal_beats_the_put_before_it, setup, teardown),
		cmocka_unit_test_setup_teardown(an_entry_counts_until_it_was_swept_whatever_the_clock_says, setup, teardown),
		cmocka_unit_test_setup_teardown(a_deleted_file_is_made_anew, setup, teardown),
		cmocka_unit_test(keys_are_never_cut),
		cmocka_unit_test_setup_teardown(a_folder_in_its_place_is_said_at_start, setup, teardown),
	};
	if (crypto_setup() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
