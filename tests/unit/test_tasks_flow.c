/* Workflows of any shape in tasks.db: begin, join, failure, cancelling, time, other programs, a crash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/db.h"
#include "base/json.h"
#include "support/scratch.h"
#include "support/workflow_yaml.h"
#include "tasks/queue/store.h"

#define LEASES_MAX 300

struct fixture {
	char folder[SCRATCH_MAX], database[SCRATCH_MAX];
	struct store *s;
	struct err e;
	struct buf text, seen; /* seen: "task args\n" of what was leased */
	struct task_result r;
	struct workflow_yaml y;
	unsigned timeout_ms;
	struct store_lease leases[LEASES_MAX];
	unsigned n;
};

static void open_store(struct fixture *f)
{
	struct store_options o = {.path = f->database, .max_result = 1000, .grace_ms = 2};
	assert_int_equal(store_open(&o, &f->s, &f->e), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	scratch_make(f->folder);
	scratch_path(f->folder, "tasks.db", f->database);
	open_store(f);
	buf_init(&f->text, 1 << 20);
	buf_init(&f->seen, 1 << 20);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(store_integrity_check(f->s, &f->e), 0);
	store_close(f->s);
	scratch_remove(f->folder);
	workflow_yaml_release(&f->y);
	buf_release(&f->text);
	buf_release(&f->seen);
	free(f);
	return 0;
}

static unsigned attempts(void *arg, struct span name, bool idempotent)
{
	(void)arg, (void)name;
	return idempotent ? 3 : 1;
}

static int taken(void *arg, const struct store_lease *l)
{
	struct fixture *f = arg;
	if (l->workflow)
		return store_flow_start(f->s, l, &f->y.w, f->timeout_ms, &f->e);
	buf_printf(&f->seen, "%.*s %.*s\n", SPAN_ARG(l->name), SPAN_ARG(l->args));
	f->leases[f->n++] = *l;
	return 0;
}

/* What is leased now. */
static void expect_leased(struct fixture *f, const char *expected)
{
	struct span queues[] = {SPAN_LIT("default")};
	struct store_lease_request r = {.queues = queues,
					.n_queues = 1,
					.worker = SPAN_LIT("w"),
					.lease_ms = 60000,
					.limit = LEASES_MAX,
					.max_attempts = attempts,
					.taken = taken,
					.arg = f};
	int n;
	f->n = 0;
	buf_clear(&f->seen);
	do { /* a workflow that begins is one, too */
		assert_int_equal(store_begin(f->s, &f->e), 0);
		n = store_lease(f->s, &r, &f->e);
		assert_true(n >= 0);
		assert_int_equal(store_commit(f->s, &f->e), 0);
	} while (n > 0);
	assert_string_equal(f->seen.ptr ? f->seen.ptr : "", expected);
}

static void begin_flow(struct fixture *f, const char *yaml, const char *args)
{
	struct store_task t = {.id = SPAN_LIT("flow"),
			       .name = SPAN_LIT("w"),
			       .queue = SPAN_LIT("default"),
			       .args = span_of(args),
			       .kwargs = SPAN_LIT("{}"),
			       .owner = SPAN_LIT("o"),
			       .workflow = true,
			       .traceparent =
				       SPAN_LIT("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")};
	assert_int_equal(workflow_yaml_read(&f->y, span_of(yaml)), 0);
	assert_string_equal(f->y.problems.ptr ? f->y.problems.ptr : "", "");
	assert_int_equal(store_begin(f->s, &f->e), 0);
	assert_int_equal(store_insert(f->s, &t, &f->e), 0);
	assert_int_equal(store_commit(f->s, &f->e), 0);
}

static void finish(struct fixture *f, unsigned i, struct store_outcome o)
{
	assert_int_equal(store_begin(f->s, &f->e), 0);
	assert_int_equal(store_finish(f->s, f->leases[i].seq, f->leases[i].token, &o, &f->e), 0);
	assert_int_equal(store_commit(f->s, &f->e), 0);
}

static void complete(struct fixture *f, unsigned i, const char *result)
{
	finish(f, i, (struct store_outcome){.result = span_of(result)});
}

static void expect_flow(struct fixture *f, enum task_status status, const char *text)
{
	assert_int_equal(store_get(f->s, SPAN_LIT("flow"), &f->text, &f->r, &f->e), 0);
	assert_int_equal(f->r.status, status);
	struct span said = status == TASK_COMPLETED ? f->r.result : f->r.error;
	CLEANUP(freep) char *copy = said.ptr ? span_dup(said) : NULL;
	assert_string_equal(copy ? copy : "", text);
}

/* One number about the file, as another program sees it. */
static int64_t count(struct fixture *f, const char *sql)
{
	CLEANUP(db_closep) struct db *db = NULL;
	struct db_options o = {.path = f->database, .busy_timeout_ms = 1000};
	int64_t n = -1;
	assert_int_equal(db_open(&o, &db, &f->e), 0);
	assert_int_equal(db_query_int64(db, sql, &n, &f->e), 0);
	return n;
}

static void another_program(struct fixture *f, const char *sql)
{
	CLEANUP(db_closep) struct db *db = NULL;
	struct db_options o = {.path = f->database, .busy_timeout_ms = 1000};
	assert_int_equal(db_open(&o, &db, &f->e), 0);
	assert_int_equal(db_exec(db, sql, &f->e), 0);
}

#define DIAMOND \
	"name: w\nsteps:\n" \
	"  - a\n" \
	"  - parallel: [b, c]\n" \
	"  - {task: d, args: [{$ref: 'step:b'}, {$ref: 'step:c/x'}, {$ref: 'input:'}]}\n"

static void a_graph_runs_through(void **state)
{
	struct fixture *f = *state;
	begin_flow(f, DIAMOND, "[9007199254740993]");
	expect_leased(f, "a [9007199254740993]\n");
	expect_flow(f, TASK_RUNNING, "");
	complete(f, 0, "1.0");
	expect_leased(f, "b [1.0]\nc [1.0]\n");
	assert_string_equal(f->leases[1].traceparent,
			    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
	complete(f, 1, "{\"x\":-0.0}");
	expect_flow(f, TASK_RUNNING, "");
	complete(f, 0, "\"b\"");
	expect_leased(f, "d [\"b\",-0.0,9007199254740993]\n");
	complete(f, 0, "[]");
	expect_flow(f, TASK_COMPLETED, "{\"a\":1.0,\"b\":\"b\",\"c\":{\"x\":-0.0},\"d\":[]}");
	assert_int_equal(count(f, "SELECT count(*) FROM flow_due"), 0);
}

static void items_of_a_for_each_run_beside_each_other(void **state)
{
	struct fixture *f = *state;
	begin_flow(f,
		   "name: w\nsteps:\n"
		   "  - task: a\n"
		   "    for_each: {over: {$ref: 'input:/l'}, max: 256, key: {$ref: 'item:/k'}}\n"
		   "    args: [{$ref: 'item:/v'}]\n"
		   "result: {$ref: 'step:a'}\n",
		   "[{\"l\":[{\"k\":\"x\",\"v\":1.0},{\"k\":\"y\",\"v\":2},{\"k\":\"z\",\"v\":3}]}]");
	expect_leased(f, "a [1.0]\na [2]\na [3]\n");
	complete(f, 2, "3");
	complete(f, 0, "1");
	complete(f, 1, "2");
	expect_flow(f, TASK_COMPLETED, "{\"x\":1,\"y\":2,\"z\":3}");
}

static void the_largest_for_each_runs_through(void **state)
{
	struct fixture *f = *state;
	CLEANUP(buf_releasep) struct buf args = BUF_INIT(1 << 16), expected = BUF_INIT(1 << 16);
	buf_puts(&args, "[[0");
	for (int i = 1; i < WORKFLOW_MAX_ITEMS; i++)
		buf_puts(&args, ",0");
	buf_puts(&args, "]]");
	for (int i = 0; i < WORKFLOW_MAX_ITEMS; i++)
		buf_puts(&expected, "a [0]\n");
	begin_flow(f, "name: w\nsteps: [{task: a, for_each: {over: {$ref: 'input:'}, max: 256}}]\n",
		   args.ptr);
	expect_leased(f, expected.ptr);
	for (unsigned i = 0; i < WORKFLOW_MAX_ITEMS; i++)
		complete(f, i, "1");
	assert_int_equal(store_get(f->s, SPAN_LIT("flow"), &f->text, &f->r, &f->e), 0);
	assert_int_equal(f->r.status, TASK_COMPLETED);
	assert_int_equal(f->r.result.len, strlen("{\"a\":[]}") + 2 * WORKFLOW_MAX_ITEMS - 1);
}

static void nothing_to_do_is_done_at_once(void **state)
{
	struct fixture *f = *state;
	begin_flow(f, "name: w\nsteps: [{task: a, for_each: {$ref: 'input:'}}]\n", "[[]]");
	expect_leased(f, "");
	expect_flow(f, TASK_COMPLETED, "{\"a\":[]}");
}

static void expect_steps(struct fixture *f, const char *expected)
{
	CLEANUP(buf_releasep) struct buf steps = BUF_INIT(1 << 20), told = BUF_INIT(1 << 16);
	struct json_iter it;
	struct span key, value, part;
	assert_int_equal(store_steps(f->s, SPAN_LIT("flow"), &steps, &f->e), 0);
	assert_int_equal(json_validate(buf_span(&steps), &f->e), 0);
	json_iter_init(&it, buf_span(&steps));
	while (json_iter_next(&it, &key, &value)) {
		static const char *const parts[] = {"/name", "/item", "/status", "/error"};
		for (size_t i = 0; i < 4; i++)
			if (json_pointer(value, span_of(parts[i]), &part))
				buf_printf(&told, "%.*s ", SPAN_ARG(part));
		assert_true(json_pointer(value, SPAN_LIT("/submitted_at"), &part) &&
			    json_type_of(part) == JSON_STRING);
	}
	assert_string_equal(told.ptr, expected);
}

static void its_steps_are_told_with_their_states(void **state)
{
	struct fixture *f = *state;
	begin_flow(f, "name: w\nsteps: [a, {task: b, for_each: {$ref: 'step:a'}}]\n", "[1]");
	expect_leased(f, "a [1]\n");
	expect_steps(f, "\"a\" \"running\" ");
	complete(f, 0, "[1,2]");
	expect_steps(f, "\"a\" \"completed\" \"b\" 0 \"pending\" \"b\" 1 \"pending\" ");
	expect_leased(f, "b [1]\nb [2]\n");
	finish(f, 1, (struct store_outcome){.error = SPAN_LIT("no space")});
	finish(f, 0, (struct store_outcome){.error = SPAN_LIT("cancelled"), .cancelled = true});
	expect_steps(f, "\"a\" \"completed\" \"b\" 0 \"cancelled\" \"cancelled\" \"b\" 1 \"failed\" \"no "
			"space\" ");
	CLEANUP(buf_releasep) struct buf none = BUF_INIT(100);
	assert_int_equal(store_steps(f->s, SPAN_LIT("nothing"), &none, &f->e), STORE_E_NOT_FOUND);
}

static void a_failed_step_stops_all_others(void **state)
{
	struct fixture *f = *state;
	begin_flow(f, "name: w\nsteps: [{parallel: [{steps: [a, d]}, b, {task: c, queue: nobody}]}, e]\n",
		   "[]");
	expect_leased(f, "a []\nb []\n");
	finish(f, 1, (struct store_outcome){.error = SPAN_LIT("no space"), .detail = SPAN_LIT("where")});
	expect_flow(f, TASK_FAILED, "step \"b\": no space");
	assert_true(span_is(f->r.error_detail, "where"));
	assert_false(f->r.cancelled);
	assert_int_equal(count(f, "SELECT count(*) FROM task WHERE name = 'c' AND cancelled = 1"), 1);
	assert_int_equal(count(f, "SELECT count(*) FROM task WHERE name = 'a' AND state = 1 AND cancel = 1"),
			 1);
	complete(f, 0, "1"); /* it did not hear */
	expect_leased(f, "");
	expect_flow(f, TASK_FAILED, "step \"b\": no space");
	assert_int_equal(count(f, "SELECT count(*) FROM flow_due"), 0);
}

static void a_value_that_is_missing_fails_the_whole(void **state)
{
	struct fixture *f = *state;
	begin_flow(f, "name: w\nsteps: [a, {task: b, input: {x: {$ref: 'step:a/x'}}}]\n", "[]");
	expect_leased(f, "a []\n");
	complete(f, 0, "{}");
	expect_flow(f, TASK_FAILED, "step \"b\": there is nothing at step:a/x");
	expect_leased(f, "");
}

static void a_result_has_its_limit(void **state)
{
	struct fixture *f = *state;
	char large[700];
	memset(large, '1', sizeof(large));
	large[sizeof(large) - 1] = '\0';
	begin_flow(f, "name: w\nsteps: [{parallel: [a, b]}]\n", "[]");
	expect_leased(f, "a []\nb []\n");
	complete(f, 0, large);
	complete(f, 1, large);
	expect_flow(f, TASK_FAILED, "the results of the steps are larger together than the limit");
}

static void cancel(struct fixture *f)
{
	assert_int_equal(store_begin(f->s, &f->e), 0);
	assert_int_equal(store_cancel(f->s, SPAN_LIT("flow"), &f->e), 0);
	assert_int_equal(store_commit(f->s, &f->e), 0);
}

static void cancelled_what_waits_ends_and_what_runs_is_asked(void **state)
{
	struct fixture *f = *state;
	begin_flow(f, "name: w\nsteps: [{parallel: [a, {task: b, queue: nobody}]}, c]\n", "[]");
	expect_leased(f, "a []\n");
	cancel(f);
	expect_flow(f, TASK_FAILED, "step \"b\": cancelled before it was started");
	assert_true(f->r.cancelled);
	assert_int_equal(count(f, "SELECT cancel FROM task WHERE name = 'a'"), 1);
	finish(f, 0, (struct store_outcome){.error = SPAN_LIT("cancelled while it ran"), .cancelled = true});
	expect_leased(f, "");
	assert_int_equal(count(f, "SELECT count(*) FROM task WHERE state < 2"), 0);
}

static void cancelled_while_all_run_it_ends_when_they_have(void **state)
{
	struct fixture *f = *state;
	begin_flow(f, "name: w\nsteps: [{parallel: [a, b]}, c]\n", "[]");
	expect_leased(f, "a []\nb []\n");
	cancel(f);
	expect_flow(f, TASK_RUNNING, "");
	complete(f, 0, "1");
	expect_flow(f, TASK_RUNNING, "");
	complete(f, 1, "1");
	expect_flow(f, TASK_FAILED, "cancelled between two steps");
	assert_true(f->r.cancelled);
	expect_leased(f, "");
}

static void pass_ms(int ms)
{
	int64_t until = clock_mono_ms() + ms;
	while (clock_mono_ms() <= until)
		poll(NULL, 0, 1);
}

static void sweep(struct fixture *f, int64_t retention_ms)
{
	unsigned n = 0;
	assert_int_equal(store_sweep(f->s, retention_ms, &n, &f->e), 0);
}

static void its_time_is_up_and_the_open_steps_are_named(void **state)
{
	struct fixture *f = *state;
	f->timeout_ms = 5;
	begin_flow(f, "name: w\nsteps: [{parallel: [a, b, {task: c, queue: nobody}]}]\n", "[]");
	expect_leased(f, "a []\nb []\n");
	complete(f, 1, "1");
	pass_ms(10);
	sweep(f, 0);
	expect_flow(f, TASK_FAILED, "timed out after 5 ms in steps \"a\", \"c\"");
	assert_int_equal(count(f, "SELECT cancel FROM task WHERE name = 'a'"), 1);
	assert_int_equal(count(f, "SELECT state FROM task WHERE name = 'c'"), TASK_FAILED);
	complete(f, 0, "1");
	expect_flow(f, TASK_FAILED, "timed out after 5 ms in steps \"a\", \"c\"");
}

static void forgotten_as_a_whole(void **state)
{
	struct fixture *f = *state;
	begin_flow(f, DIAMOND, "[1]");
	expect_leased(f, "a [1]\n");
	complete(f, 0, "1");
	pass_ms(2);
	sweep(f, 1); /* a step alone is not old, its workflow runs */
	assert_int_equal(count(f, "SELECT count(*) FROM task WHERE name = 'a'"), 1);
	expect_leased(f, "b [1]\nc [1]\n");
	complete(f, 0, "1");
	complete(f, 1, "{\"x\":1}");
	expect_leased(f, "d [1,1,1]\n");
	complete(f, 0, "1");
	pass_ms(2);
	sweep(f, 1);
	assert_int_equal(count(f,
			       "SELECT (SELECT count(*) FROM task) + (SELECT count(*) FROM input) + (SELECT "
			       "count(*) FROM output) + (SELECT count(*) FROM flow) + (SELECT count(*) FROM "
			       "flow_due) + (SELECT count(*) FROM task_trace)"),
			 0);
}

/* --- other programs, and crashes ------------------------------------------------------------------------ */

/* What a program of before does when a step of its ends: it knows nothing of these workflows. */
#define OLD_END(name) \
	"UPDATE task SET state = 2, cancelled = 0, completed_us = 1, lease_until = 0 WHERE name = '" name \
	"';INSERT INTO output (seq, result) SELECT seq, '7' FROM task WHERE name = '" name "'"

static void what_an_older_worker_ended_is_found_by_the_next_sweep(void **state)
{
	struct fixture *f = *state;
	begin_flow(f, DIAMOND, "[1]");
	expect_leased(f, "a [1]\n");
	another_program(f, OLD_END("a"));
	expect_leased(f, "");
	sweep(f, 0);
	expect_leased(f, "b [7]\nc [7]\n");
}

static void what_an_older_router_cancelled_is_stopped_by_the_next_sweep(void **state)
{
	struct fixture *f = *state;
	begin_flow(f, DIAMOND, "[1]");
	expect_leased(f, "a [1]\n");
	another_program(f, "UPDATE task SET cancel = 1 WHERE id = 'flow'");
	sweep(f, 0);
	assert_int_equal(count(f, "SELECT cancel FROM task WHERE name = 'a'"), 1);
	another_program(f, "UPDATE task SET state = 3 WHERE id = 'flow'"); /* its time was up */
	complete(f, 0, "1");
	expect_leased(f, "");
	assert_int_equal(count(f, "SELECT count(*) FROM task WHERE state < 2"), 0);
}

static void an_older_file_gets_the_tables_and_its_tasks_go_on(void **state)
{
	struct fixture *f = *state;
	static const struct store_step two[] = {
		{.name = SPAN_INIT("x"), .task = SPAN_INIT("a"), .queue = SPAN_INIT("default")},
		{.name = SPAN_INIT("y"), .task = SPAN_INIT("b"), .queue = SPAN_INIT("default")}};
	begin_flow(f, "name: w\nsteps: [a, b]\n", "[1]");
	assert_int_equal(count(f, "SELECT count(*) FROM flow"), 0);
	struct store_lease l = {.seq = 1, .token = 77};
	another_program(f, "UPDATE task SET state = 1, token = 77 WHERE id = 'flow'");
	assert_int_equal(store_begin(f->s, &f->e), 0);
	assert_int_equal(store_workflow_start(f->s, &l, two, 2, 0, &f->e), 0);
	assert_int_equal(store_commit(f->s, &f->e), 0);
	/* as it was before there were such workflows */
	f->s = store_close(f->s);
	another_program(f, "DROP TRIGGER flow_gone; DROP TRIGGER flow_cancelled; DROP TRIGGER flow_ended;"
			   "DROP TRIGGER flow_step_ended; DROP TABLE flow_due; DROP TABLE flow");
	int64_t version = count(f, "PRAGMA user_version");
	open_store(f);
	assert_int_equal(count(f, "PRAGMA user_version"), version); /* older programs go on with it */
	expect_leased(f, "a [1]\n");
	complete(f, 0, "5");
	expect_leased(f, "b [5]\n");
	expect_steps(f, "\"x\" \"completed\" \"y\" \"running\" ");
	complete(f, 0, "6");
	expect_flow(f, TASK_COMPLETED, "{\"x\":5,\"y\":6}");
}

static void a_newer_programs_workflow_is_left_to_it(void **state)
{
	struct fixture *f = *state;
	begin_flow(f, DIAMOND, "[1]");
	expect_leased(f, "a [1]\n");
	another_program(f,
			"UPDATE flow SET definition = replace(definition, '\"format\":1', '\"format\":2')");
	complete(f, 0, "1");
	expect_leased(f, "");
	expect_flow(f, TASK_RUNNING, "");
	sweep(f, 0);
	another_program(f,
			"UPDATE flow SET definition = replace(definition, '\"format\":2', '\"format\":1')");
	sweep(f, 0);
	expect_leased(f, "b [1]\nc [1]\n");
}

/* A child that is killed in the middle of a transaction, at each of its commits. */
static void killed_in_the_middle_nothing_is_lost_or_doubled(void **state)
{
	struct fixture *f = *state;
	begin_flow(f, DIAMOND, "[1]");
	expect_leased(f, "a [1]\n");
	for (int at = 0; at < 2; at++) {
		f->s = store_close(f->s);
		pid_t child = fork();
		if (child == 0) {
			struct store_outcome o = {.result = SPAN_LIT("1")};
			open_store(f);
			if (store_begin(f->s, &f->e) == 0 &&
			    store_finish(f->s, f->leases[0].seq, f->leases[0].token, &o, &f->e) == 0 && at)
				store_commit(f->s, &f->e);
			_exit(0);
		}
		assert_int_equal(waitpid(child, NULL, 0), child);
		open_store(f);
		assert_int_equal(count(f, "SELECT count(*) FROM task WHERE name IN ('b', 'c')"), at ? 2 : 0);
	}
	expect_leased(f, "b [1]\nc [1]\n");
	complete(f, 0, "1");
	complete(f, 1, "{\"x\":1}");
	expect_leased(f, "d [1,1,1]\n");
}

int main(void)
{
	crypto_setup();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_graph_runs_through, setup, teardown),
		cmocka_unit_test_setup_teardown(items_of_a_for_each_run_beside_each_other, setup, teardown),
		cmocka_unit_test_setup_teardown(the_largest_for_each_runs_through, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_to_do_is_done_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(its_steps_are_told_with_their_states, setup, teardown),
		cmocka_unit_test_setup_teardown(a_failed_step_stops_all_others, setup, teardown),
		cmocka_unit_test_setup_teardown(a_value_that_is_missing_fails_the_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(a_result_has_its_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(cancelled_what_waits_ends_and_what_runs_is_asked, setup,
						teardown),
		cmocka_unit_test_setup_teardown(cancelled_while_all_run_it_ends_when_they_have, setup,
						teardown),
		cmocka_unit_test_setup_teardown(its_time_is_up_and_the_open_steps_are_named, setup, teardown),
		cmocka_unit_test_setup_teardown(forgotten_as_a_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(what_an_older_worker_ended_is_found_by_the_next_sweep, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_an_older_router_cancelled_is_stopped_by_the_next_sweep,
						setup, teardown),
		cmocka_unit_test_setup_teardown(an_older_file_gets_the_tables_and_its_tasks_go_on, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_newer_programs_workflow_is_left_to_it, setup, teardown),
		cmocka_unit_test_setup_teardown(killed_in_the_middle_nothing_is_lost_or_doubled, setup,
						teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
