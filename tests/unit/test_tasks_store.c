/* The store's transitions, one by one: fences, leases, priorities, ends, retention, what is there twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/db.h"
#include "tasks/queue/store.h"
#include "support/scratch.h"

struct fixture {
	char folder[SCRATCH_MAX], database[SCRATCH_MAX];
	struct store *s;
	struct err e;
	struct buf text;
	struct task_result r;
	/* what was leased */
	struct store_lease leases[16];
	char names[16][TASK_NAME_MAX];
	unsigned n, attempts;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	scratch_make(f->folder);
	scratch_path(f->folder, "tasks.db", f->database);
	struct store_options o = {.path = f->database, .max_result = 1000, .grace_ms = 2};
	assert_int_equal(store_open(&o, &f->s, &f->e), 0);
	buf_init(&f->text, 1 << 20);
	f->attempts = 1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(store_integrity_check(f->s, &f->e), 0);
	store_close(f->s);
	scratch_remove(f->folder);
	buf_release(&f->text);
	free(f);
	return 0;
}

static struct store_task simple(const char *id)
{
	return (struct store_task){.id = span_of(id),
				   .name = SPAN_LIT("echo"),
				   .queue = SPAN_LIT("q"),
				   .args = SPAN_LIT("[1]"),
				   .kwargs = SPAN_LIT("{}"),
				   .owner = SPAN_LIT("o")};
}

static int insert(struct fixture *f, const struct store_task *t)
{
	assert_int_equal(store_begin(f->s, &f->e), 0);
	int r = store_insert(f->s, t, &f->e);
	assert_int_equal(store_commit(f->s, &f->e), 0);
	return r;
}

static unsigned attempts(void *arg, struct span name, bool idempotent)
{
	(void)name;
	return idempotent ? 3 : ((struct fixture *)arg)->attempts;
}

static int taken(void *arg, const struct store_lease *l)
{
	struct fixture *f = arg;
	span_copy(l->id, f->names[f->n], sizeof(f->names[0]));
	f->leases[f->n++] = *l;
	return 0;
}

static int lease(struct fixture *f, const char *queue, unsigned limit, unsigned lease_ms)
{
	struct span queues[] = {span_of(queue)};
	struct store_lease_request r = {.queues = queues,
					.n_queues = 1,
					.worker = SPAN_LIT("w"),
					.lease_ms = lease_ms,
					.limit = limit,
					.max_attempts = attempts,
					.taken = taken,
					.arg = f};
	f->n = 0;
	assert_int_equal(store_begin(f->s, &f->e), 0);
	int n = store_lease(f->s, &r, &f->e);
	assert_int_equal(store_commit(f->s, &f->e), 0);
	return n;
}

static int finish(struct fixture *f, const struct store_lease *l, struct store_outcome o)
{
	assert_int_equal(store_begin(f->s, &f->e), 0);
	int r = store_finish(f->s, l->seq, l->token, &o, &f->e);
	assert_int_equal(store_commit(f->s, &f->e), 0);
	return r;
}

static enum task_status state_of(struct fixture *f, const char *id)
{
	assert_int_equal(store_get(f->s, span_of(id), &f->text, &f->r, &f->e), 0);
	return f->r.status;
}

static unsigned sweep(struct fixture *f, int64_t retention_ms)
{
	unsigned n = 0;
	assert_int_equal(store_sweep(f->s, retention_ms, &n, &f->e), 0);
	return n;
}

static void pass_ms(int ms)
{
	int64_t until = clock_mono_ms() + ms;
	while (clock_mono_ms() <= until)
		poll(NULL, 0, 1);
}

static void the_file_is_private(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	assert_int_equal(stat(f->database, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void the_same_task_again_is_there_already(void **state)
{
	struct fixture *f = *state;
	struct store_task t = simple("a");
	assert_int_equal(insert(f, &t), 0);
	assert_int_equal(insert(f, &t), STORE_E_EXISTS);
	t.owner = SPAN_LIT("other");
	assert_int_equal(insert(f, &t), STORE_E_CONFLICT);
	int64_t backlog;
	assert_int_equal(store_backlog(f->s, &backlog, &f->e), 0);
	assert_int_equal(backlog, 1);
}

static void higher_priorities_first_then_in_order(void **state)
{
	struct fixture *f = *state;
	const char *ids[] = {"a", "b", "c", "d"};
	int priorities[] = {0, 5, 9, 5};
	for (int i = 0; i < 4; i++) {
		struct store_task t = simple(ids[i]);
		t.priority = priorities[i];
		insert(f, &t);
	}
	assert_int_equal(lease(f, "elsewhere", 9, 1000), 0);
	assert_int_equal(lease(f, "q", 3, 1000), 3);
	assert_string_equal(f->names[0], "c");
	assert_string_equal(f->names[1], "b");
	assert_string_equal(f->names[2], "d");
	assert_int_equal(lease(f, "q", 3, 1000), 1);
	assert_int_equal(lease(f, "q", 3, 1000), 0);
}

/* Its lease runs out, and the grace that the first sweep gives. */
static unsigned sweep_lost(struct fixture *f)
{
	pass_ms(4);
	assert_int_equal(sweep(f, 0), 0);
	pass_ms(6);
	return sweep(f, 0);
}

/* The store could not be written while the lease ran out: what the worker has to say comes before it is
 * called lost. */
static void a_lease_that_ran_out_has_grace(void **state)
{
	struct fixture *f = *state;
	struct store_task ends = simple("ends"), goes_on = simple("goes-on");
	insert(f, &ends);
	insert(f, &goes_on);
	assert_int_equal(lease(f, "q", 2, 1), 2);
	pass_ms(4);
	assert_int_equal(sweep(f, 0), 0);
	assert_int_equal(finish(f, &f->leases[0], (struct store_outcome){.result = SPAN_LIT("1")}), 0);
	assert_int_equal(store_begin(f->s, &f->e), 0);
	assert_int_equal(store_extend(f->s, f->leases[1].seq, f->leases[1].token, 60000, &f->e), 0);
	assert_int_equal(store_commit(f->s, &f->e), 0);
	pass_ms(6);
	assert_int_equal(sweep(f, 0), 0);
	assert_int_equal(state_of(f, "ends"), TASK_COMPLETED);
	assert_int_equal(state_of(f, "goes-on"), TASK_RUNNING);
}

/* Nothing is swept right after this store could not be written, workflows past their time included. */
static void after_trouble_nothing_is_swept_for_a_while(void **state)
{
	struct fixture *f = *state;
	struct store_options o = {.path = f->database, .busy_timeout_ms = 1, .grace_ms = 60000};
	struct db_options d = {.path = f->database};
	struct store_task t = simple("a");
	struct db *other;
	t.pending_ms = 1;
	insert(f, &t);
	store_close(f->s);
	assert_int_equal(store_open(&o, &f->s, &f->e), 0);
	assert_int_equal(db_open(&d, &other, &f->e), 0);
	assert_int_equal(db_begin(other, &f->e), 0);
	assert_int_equal(store_begin(f->s, &f->e), -EBUSY);
	db_rollback(other);
	db_close(other);
	pass_ms(4);
	assert_int_equal(sweep(f, 0), 0);
	assert_int_equal(state_of(f, "a"), TASK_PENDING);
}

static void a_late_completion_is_refused(void **state)
{
	struct fixture *f = *state;
	struct store_task t = simple("a");
	t.idempotent = true;
	insert(f, &t);
	lease(f, "q", 1, 1);
	struct store_lease first = f->leases[0];
	assert_int_equal(sweep_lost(f), 1);
	assert_int_equal(state_of(f, "a"), TASK_PENDING);
	struct store_outcome late = {.result = SPAN_LIT("\"late\"")};
	assert_int_equal(finish(f, &first, late), STORE_E_STALE);
	lease(f, "q", 1, 10000);
	assert_int_equal(f->leases[0].attempt, 2);
	assert_int_equal(finish(f, &first, late), STORE_E_STALE);
	assert_int_equal(store_begin(f->s, &f->e), 0);
	assert_int_equal(store_extend(f->s, first.seq, first.token, 1000, &f->e), STORE_E_STALE);
	assert_int_equal(store_commit(f->s, &f->e), 0);
	assert_int_equal(finish(f, &f->leases[0], (struct store_outcome){.result = SPAN_LIT("\"second\"")}),
			 0);
	assert_int_equal(finish(f, &f->leases[0], late), STORE_E_STALE);
	assert_int_equal(state_of(f, "a"), TASK_COMPLETED);
	assert_true(span_is(f->r.result, "\"second\""));
}

static void attempts_come_to_an_end(void **state)
{
	struct fixture *f = *state;
	struct store_task once = simple("once"), thrice = simple("thrice");
	thrice.idempotent = true;
	insert(f, &once);
	insert(f, &thrice);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(lease(f, "q", 9, 1), i == 0 ? 2 : 1);
		sweep_lost(f);
		assert_int_equal(state_of(f, "once"), TASK_FAILED);
		assert_true(span_is(f->r.error, STORE_WORKER_LOST));
	}
	assert_int_equal(state_of(f, "thrice"), TASK_FAILED);
	assert_int_equal(f->r.attempts, 3);
	assert_true(span_is(f->r.error, STORE_WORKER_LOST));
	assert_int_equal(lease(f, "q", 9, 1), 0);
}

static void a_kept_lease_does_not_run_out(void **state)
{
	struct fixture *f = *state;
	struct store_task t = simple("a");
	insert(f, &t);
	lease(f, "q", 1, 1);
	assert_int_equal(store_begin(f->s, &f->e), 0);
	assert_int_equal(store_extend(f->s, f->leases[0].seq, f->leases[0].token, 60000, &f->e), 0);
	assert_int_equal(store_commit(f->s, &f->e), 0);
	pass_ms(2);
	assert_int_equal(sweep(f, 0), 0);
	assert_int_equal(state_of(f, "a"), TASK_RUNNING);
}

/* After a reboot the monotonic clock begins anew: leases are void, waiting goes on by the wall clock. */
static void a_reboot_voids_leases(void **state)
{
	struct fixture *f = *state;
	struct store_task leased = simple("leased"), waits = simple("waits");
	struct db_options d = {.path = f->database};
	struct store_options o = {.path = f->database};
	struct db *db;
	waits.queue = SPAN_LIT("other");
	waits.expires_ms = 60000;
	insert(f, &leased);
	insert(f, &waits);
	assert_int_equal(lease(f, "q", 1, 3600000), 1);
	store_close(f->s);
	assert_int_equal(db_open(&d, &db, &f->e), 0);
	assert_int_equal(
		db_exec(db,
			"UPDATE boot SET id = 'before'; UPDATE task SET expires_at = 1 WHERE id = 'waits'",
			&f->e),
		0);
	db_close(db);
	assert_int_equal(store_open(&o, &f->s, &f->e), 0);
	assert_int_equal(sweep(f, 0), 1);
	assert_int_equal(state_of(f, "leased"), TASK_FAILED);
	assert_true(span_is(f->r.error, STORE_WORKER_LOST));
	assert_int_equal(state_of(f, "waits"), TASK_PENDING);
	assert_int_equal(lease(f, "other", 1, 1000), 1);
}

static void waiting_has_an_end(void **state)
{
	struct fixture *f = *state;
	struct store_task expires = simple("expires"), waits = simple("waits");
	expires.expires_ms = 1;
	waits.pending_ms = 1;
	insert(f, &expires);
	insert(f, &waits);
	pass_ms(2);
	assert_int_equal(lease(f, "q", 9, 1000), 0); /* expired, though nobody has swept yet */
	assert_int_equal(sweep(f, 0), 2);
	assert_int_equal(state_of(f, "expires"), TASK_FAILED);
	assert_true(span_is(f->r.error, "expired before a worker started it"));
	assert_int_equal(state_of(f, "waits"), TASK_FAILED);
	assert_true(span_is(f->r.error, "timed out waiting for a worker"));
}

static void results_have_a_limit(void **state)
{
	struct fixture *f = *state;
	char large[1002];
	memset(large, '1', sizeof(large));
	struct store_task t = simple("a");
	insert(f, &t);
	lease(f, "q", 1, 1000);
	assert_int_equal(finish(f, &f->leases[0], (struct store_outcome){.result = {large, 1001}}), 0);
	assert_int_equal(state_of(f, "a"), TASK_FAILED);
	assert_true(span_is(f->r.error, "the result has 1001 bytes, the limit is 1000"));
}

struct ends {
	char text[256];
};

static void on_end(void *arg, struct span id)
{
	struct ends *ends = arg;
	size_t n = strlen(ends->text);
	snprintf(ends->text + n, sizeof(ends->text) - n, "%.*s ", SPAN_ARG(id));
}

static void ends_are_told_in_order_and_forgotten_in_time(void **state)
{
	struct fixture *f = *state;
	const char *ids[] = {"a", "b", "c"};
	for (int i = 0; i < 3; i++) {
		struct store_task t = simple(ids[i]);
		insert(f, &t);
	}
	lease(f, "q", 3, 1000);
	finish(f, &f->leases[2], (struct store_outcome){.result = SPAN_LIT("1")});
	finish(f, &f->leases[0], (struct store_outcome){.error = SPAN_LIT("no")});
	struct ends ends = {""};
	int64_t n = 0;
	bool gap;
	assert_int_equal(store_finished_since(f->s, &n, 10, &gap, on_end, &ends, &f->e), 0);
	assert_string_equal(ends.text, "c a ");
	assert_false(gap);
	finish(f, &f->leases[1], (struct store_outcome){.result = SPAN_LIT("1")});
	assert_int_equal(store_finished_since(f->s, &n, 10, &gap, on_end, &ends, &f->e), 0);
	assert_string_equal(ends.text, "c a b ");
	assert_int_equal(sweep(f, 3600000), 0);
	pass_ms(2);
	assert_int_equal(sweep(f, 1), 3);
	assert_int_equal(store_get(f->s, SPAN_LIT("a"), &f->text, &f->r, &f->e), STORE_E_NOT_FOUND);
}

static void begin_workflow(struct fixture *f, const struct store_step *steps, size_t n)
{
	struct store_task t = simple("flow");
	t.workflow = true;
	t.kwargs = SPAN_LIT("{\"k\":1,\"own\":1}");
	insert(f, &t);
	assert_int_equal(lease(f, "q", 1, 1000), 1);
	assert_true(f->leases[0].workflow);
	struct store_lease l = f->leases[0];
	l.id = SPAN_LIT("flow");
	assert_int_equal(store_begin(f->s, &f->e), 0);
	assert_int_equal(store_workflow_start(f->s, &l, steps, n, 0, &f->e), 0);
	assert_int_equal(store_commit(f->s, &f->e), 0);
}

/* clang-format off */
#define TEXT(s) {(s), sizeof(s) - 1} /* SPAN_LIT is no constant */
/* clang-format on */
static const struct store_step two_steps[] = {
	{.name = TEXT("x"), .task = TEXT("echo"), .queue = TEXT("q"), .kwargs = TEXT("{\"own\":2}")},
	{.name = TEXT("y \"2\""), .task = TEXT("echo"), .queue = TEXT("other")},
};

static char seen_args[128], seen_kwargs[128];

static int look_at(void *arg, const struct store_lease *l)
{
	span_copy(l->args, seen_args, sizeof(seen_args));
	span_copy(l->kwargs, seen_kwargs, sizeof(seen_kwargs));
	return taken(arg, l);
}

static void lease_and_look(struct fixture *f, const char *queue)
{
	struct span queues[] = {span_of(queue)};
	struct store_lease_request r = {.queues = queues,
					.n_queues = 1,
					.worker = SPAN_LIT("w"),
					.lease_ms = 1000,
					.limit = 1,
					.max_attempts = attempts,
					.taken = look_at,
					.arg = f};
	f->n = 0;
	assert_int_equal(store_begin(f->s, &f->e), 0);
	assert_int_equal(store_lease(f->s, &r, &f->e), 1);
	assert_int_equal(store_commit(f->s, &f->e), 0);
}

static void a_workflow_goes_on_where_its_step_ended(void **state)
{
	struct fixture *f = *state;
	begin_workflow(f, two_steps, 2);
	assert_int_equal(state_of(f, "flow"), TASK_RUNNING);
	lease_and_look(f, "q");
	assert_string_equal(seen_args, "[1]");
	assert_string_equal(seen_kwargs, "{\"k\":1,\"own\":2}");
	finish(f, &f->leases[0], (struct store_outcome){.result = SPAN_LIT("1.0")});
	assert_int_equal(lease(f, "q", 1, 1000), 0);
	lease_and_look(f, "other");
	assert_string_equal(seen_args, "[1.0]");
	assert_string_equal(seen_kwargs, "{}");
	finish(f, &f->leases[0], (struct store_outcome){.result = SPAN_LIT("9007199254740993")});
	assert_int_equal(state_of(f, "flow"), TASK_COMPLETED);
	assert_true(span_is(f->r.result, "{\"x\":1.0,\"y \\\"2\\\"\":9007199254740993}"));
	pass_ms(2);
	assert_int_equal(sweep(f, 1), 1); /* its steps go with it */
	assert_int_equal(store_get(f->s, SPAN_LIT("flow"), &f->text, &f->r, &f->e), STORE_E_NOT_FOUND);
}

static void cancelling_a_workflow_cancels_its_step(void **state)
{
	struct fixture *f = *state;
	begin_workflow(f, two_steps, 2);
	assert_int_equal(store_begin(f->s, &f->e), 0);
	assert_int_equal(store_cancel(f->s, SPAN_LIT("flow"), &f->e), 0);
	assert_int_equal(store_commit(f->s, &f->e), 0);
	assert_int_equal(state_of(f, "flow"), TASK_FAILED);
	assert_true(f->r.cancelled);
	assert_true(span_is(f->r.error, "step \"x\": cancelled before it was started"));
	assert_int_equal(lease(f, "q", 1, 1000), 0);
}

/* --- what workers know ---------------------------------------------------------------------------------- */

static void beat_of(struct fixture *f, const char *id, const char *queues)
{
	struct store_worker w = {.id = span_of(id),
				 .name = SPAN_LIT("n"),
				 .host = SPAN_LIT("h"),
				 .queues = span_of(queues),
				 .pid = 1,
				 .concurrency = 1};
	assert_int_equal(store_begin(f->s, &f->e), 0);
	assert_int_equal(store_worker_beat(f->s, &w, &f->e), 0);
	assert_int_equal(store_commit(f->s, &f->e), 0);
}

static void publish_of(struct fixture *f, const char *id, const struct store_known *list, size_t n)
{
	assert_int_equal(store_begin(f->s, &f->e), 0);
	assert_int_equal(store_publish(f->s, span_of(id), list, n, &f->e), 0);
	assert_int_equal(store_commit(f->s, &f->e), 0);
	assert_int_equal(store_published(f->s, span_of(id), &f->e), 1);
}

static void gone(struct fixture *f, const char *id)
{
	assert_int_equal(store_begin(f->s, &f->e), 0);
	assert_int_equal(store_worker_gone(f->s, span_of(id), &f->e), 0);
	assert_int_equal(store_commit(f->s, &f->e), 0);
}

static void expect_known(struct fixture *f, const char *queue, const char *name, bool workflow,
			 enum task_answer expected, const char *sentence)
{
	enum task_answer answer;
	char why[256];
	assert_int_equal(
		store_knows(f->s, span_of(queue), span_of(name), workflow, 60000, &answer, why, &f->e), 0);
	assert_int_equal(answer, expected);
	if (sentence)
		assert_string_equal(why, sentence);
}

/* clang-format off */
#define STEP(flow, name, where) {.workflow = TEXT(flow), .task = TEXT(name), .queue = TEXT(where)}
/* clang-format on */
static const struct store_known knows_a[] = {{.task = TEXT("a")},
					     STEP("ab", "a", "q"),
					     STEP("ab", "b", "other"),
					     STEP("aa", "a", "q"),
					     STEP("aa", "a", "q")};
static const struct store_known knows_b[] = {{.task = TEXT("b")}};

static void what_no_live_worker_knows_is_told(void **state)
{
	struct fixture *f = *state;
	expect_known(f, "q", "a", false, TASK_ANSWER_UNKNOWN, NULL); /* nobody has ever said anything */
	assert_int_equal(store_published(f->s, SPAN_LIT("1"), &f->e), 0);
	beat_of(f, "1", "x,q");
	expect_known(f, "q", "a", false, TASK_ANSWER_UNKNOWN, NULL); /* of an older version, perhaps */
	publish_of(f, "1", knows_a, 5);
	expect_known(f, "q", "a", false, TASK_ANSWER_YES, NULL);
	expect_known(f, "q", "b", false, TASK_ANSWER_NO, "no worker of the queue \"q\" knows the task \"b\"");
	expect_known(f, "q", "ab", false, TASK_ANSWER_NO, NULL); /* a workflow is no task */
	expect_known(f, "elsewhere", "a", false, TASK_ANSWER_UNKNOWN, NULL);
	beat_of(f, "2", "q");
	expect_known(f, "q", "b", false, TASK_ANSWER_UNKNOWN, NULL); /* the second may know it */
	expect_known(f, "q", "a", false, TASK_ANSWER_YES, NULL);
	publish_of(f, "2", knows_b, 1);
	expect_known(f, "q", "b", false, TASK_ANSWER_YES, NULL);
	publish_of(f, "2", NULL, 0); /* said anew: all of it is replaced */
	expect_known(f, "q", "b", false, TASK_ANSWER_NO, NULL);
}

static void a_workflow_is_known_with_its_steps(void **state)
{
	struct fixture *f = *state;
	beat_of(f, "1", "q");
	publish_of(f, "1", knows_a, 5);
	expect_known(f, "q", "aa", true, TASK_ANSWER_YES, NULL);
	expect_known(f, "q", "ab", true, TASK_ANSWER_NO, "no worker serves the queue \"other\"");
	expect_known(f, "q", "a", true, TASK_ANSWER_NO,
		     "no worker of the queue \"q\" knows the workflow \"a\"");
	beat_of(f, "2", "other");
	expect_known(f, "q", "ab", true, TASK_ANSWER_UNKNOWN, NULL);
	publish_of(f, "2", NULL, 0);
	expect_known(f, "q", "ab", true, TASK_ANSWER_NO,
		     "no worker of the queue \"other\" knows the task \"b\"");
	publish_of(f, "2", knows_b, 1);
	expect_known(f, "q", "ab", true, TASK_ANSWER_YES, NULL);
}

/* By whomever it is taken: an older worker deletes rows of `worker` and knows of no other table. */
static void what_a_worker_knew_goes_with_it(void **state)
{
	struct fixture *f = *state;
	CLEANUP(db_closep) struct db *db = NULL;
	int64_t rows = -1;
	beat_of(f, "1", "q");
	publish_of(f, "1", knows_a, 5);
	beat_of(f, "2", "q");
	publish_of(f, "2", knows_b, 1);
	gone(f, "1");
	expect_known(f, "q", "a", false, TASK_ANSWER_NO, NULL);
	assert_int_equal(store_published(f->s, SPAN_LIT("1"), &f->e), 0);
	struct db_options o = {.path = f->database, .busy_timeout_ms = 1000};
	assert_int_equal(db_open(&o, &db, &f->e), 0);
	assert_int_equal(db_exec(db, "DELETE FROM worker", &f->e), 0);
	assert_int_equal(db_query_int64(db, "SELECT count(*) FROM worker_knows", &rows, &f->e), 0);
	assert_int_equal(rows, 0);
	int64_t version = 0;
	assert_int_equal(db_user_version(db, &version, &f->e), 0);
	assert_int_equal(version, 1); /* of the schema: older workers go on */
}

static void on_cancel(void *arg, int64_t seq)
{
	*(int64_t *)arg = seq;
}

static void a_running_task_is_asked_to_stop(void **state)
{
	struct fixture *f = *state;
	struct store_task t = simple("a");
	insert(f, &t);
	lease(f, "q", 1, 1000);
	int64_t asked = 0;
	assert_int_equal(store_cancelled(f->s, SPAN_LIT("w"), on_cancel, &asked, &f->e), 0);
	assert_int_equal(asked, 0);
	assert_int_equal(store_begin(f->s, &f->e), 0);
	assert_int_equal(store_cancel(f->s, SPAN_LIT("a"), &f->e), 0);
	assert_int_equal(store_cancel(f->s, SPAN_LIT("b"), &f->e), STORE_E_NOT_FOUND);
	assert_int_equal(store_commit(f->s, &f->e), 0);
	assert_int_equal(state_of(f, "a"), TASK_RUNNING);
	assert_int_equal(store_cancelled(f->s, SPAN_LIT("w"), on_cancel, &asked, &f->e), 0);
	assert_int_equal(asked, f->leases[0].seq);
}

/* No step of the schema: an older worker or router goes on with the file, and takes the trace along when it
 * deletes a task. */
static void a_trace_goes_with_its_task(void **state)
{
	struct fixture *f = *state;
	CLEANUP(db_closep) struct db *db = NULL;
	struct db_options o = {.path = f->database, .busy_timeout_ms = 1000};
	struct store_task plain = simple("plain"), traced = simple("traced");
	int64_t n = -1;
	traced.traceparent = SPAN_LIT("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
	traced.tracestate = SPAN_LIT("a=1");
	insert(f, &plain);
	assert_int_equal(lease(f, "q", 1, 1000), 1);
	assert_string_equal(f->leases[0].traceparent, "");
	insert(f, &traced);
	insert(f, &traced); /* once more: the same task */
	assert_int_equal(lease(f, "q", 1, 1000), 1);
	assert_string_equal(f->leases[0].traceparent, traced.traceparent.ptr);
	assert_string_equal(f->leases[0].tracestate, "a=1");
	assert_int_equal(db_open(&o, &db, &f->e), 0);
	assert_int_equal(db_query_int64(db, "SELECT count(*) FROM task_trace", &n, &f->e), 0);
	assert_int_equal(n, 1);
	assert_int_equal(db_exec(db, "DELETE FROM task WHERE id = 'traced'", &f->e), 0);
	assert_int_equal(db_query_int64(db, "SELECT count(*) FROM task_trace", &n, &f->e), 0);
	assert_int_equal(n, 0);
}

int main(void)
{
	crypto_setup();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_file_is_private, setup, teardown),
		cmocka_unit_test_setup_teardown(the_same_task_again_is_there_already, setup, teardown),
		cmocka_unit_test_setup_teardown(higher_priorities_first_then_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lease_that_ran_out_has_grace, setup, teardown),
		cmocka_unit_test_setup_teardown(after_trouble_nothing_is_swept_for_a_while, setup, teardown),
		cmocka_unit_test_setup_teardown(a_late_completion_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(attempts_come_to_an_end, setup, teardown),
		cmocka_unit_test_setup_teardown(a_kept_lease_does_not_run_out, setup, teardown),
		cmocka_unit_test_setup_teardown(a_reboot_voids_leases, setup, teardown),
		cmocka_unit_test_setup_teardown(waiting_has_an_end, setup, teardown),
		cmocka_unit_test_setup_teardown(results_have_a_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(ends_are_told_in_order_and_forgotten_in_time, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_no_live_worker_knows_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(a_workflow_is_known_with_its_steps, setup, teardown),
		cmocka_unit_test_setup_teardown(what_a_worker_knew_goes_with_it, setup, teardown),
		cmocka_unit_test_setup_teardown(a_workflow_goes_on_where_its_step_ended, setup, teardown),
		cmocka_unit_test_setup_teardown(cancelling_a_workflow_cancels_its_step, setup, teardown),
		cmocka_unit_test_setup_teardown(a_running_task_is_asked_to_stop, setup, teardown),
		cmocka_unit_test_setup_teardown(a_trace_goes_with_its_task, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
