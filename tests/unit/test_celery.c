/* The celery backend on a loop against a real Redis; the worker is played by the test, so that it can be
 * late, twice or never. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "support/celery_world.h"

#define MANY 1000

struct world {
	struct celery_world c;
	struct task_submission submission;
	struct task_result result;
	struct task_health health;
	char id[TASK_ID_MAX], text[512], error[512];
	int code;
	int64_t integer;
	unsigned results;
	bool waits; /* for the result, from within the callback of the submission */
};

static void happened(struct world *w)
{
	celery_world_happened(&w->c);
}

static void wait_for(struct world *w, unsigned events)
{
	celery_world_wait(&w->c, events);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	celery_world_start(&w->c);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	celery_world_stop(&w->c);
	free(w);
	return 0;
}

/* --- what happens --------------------------------------------------------------------------------------- */

static void on_result(void *arg, int error, const struct task_result *r);

static void on_submitted(void *arg, const struct task_submission *s)
{
	struct world *w = arg;
	w->submission = *s;
	span_copy(s->task_id, w->id, sizeof(w->id));
	if (w->waits)
		task_wait(w->c.client, s->task_id, on_result, w);
	happened(w);
}

static void on_result(void *arg, int error, const struct task_result *r)
{
	struct world *w = arg;
	w->code = error;
	w->results++;
	if (r) {
		w->result = *r;
		span_copy(r->result, w->text, sizeof(w->text));
		span_copy(r->error, w->error, sizeof(w->error));
	}
	happened(w);
}

static void on_done(void *arg, int error, struct err *e)
{
	struct world *w = arg;
	w->code = error;
	snprintf(w->error, sizeof(w->error), "%s", e->text);
	happened(w);
}

static void on_health(void *arg, const struct task_health *h)
{
	struct world *w = arg;
	w->health = *h;
	happened(w);
}

static void on_reply(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		     const struct err *why)
{
	struct world *w = arg;
	(void)outcome, (void)why;
	w->integer = redis_reply_integer(reply);
	span_copy(redis_reply_text(reply), w->text, sizeof(w->text));
	happened(w);
}

static void submit(struct world *w, const struct task_call *call)
{
	task_submit(w->c.client, call, on_submitted, w);
	wait_for(w, 1);
}

static void ask(struct world *w, const char *verb, const char *key)
{
	const struct span words[] = {span_of(verb), span_of(key)};
	redis_command(w->c.worker, words, 2, 0, on_reply, w);
	wait_for(w, 1);
}

static void finish(struct world *w, const char *id, const char *status, const char *result)
{
	CLEANUP(buf_releasep) struct buf key = BUF_INIT(256), meta = BUF_INIT(4096);
	buf_printf(&key, "celery-task-meta-%s", id);
	buf_printf(&meta,
		   "{\"status\": \"%s\", \"result\": %s, \"traceback\": null, \"children\": [], \"task_id\": "
		   "\"%s\"}",
		   status, result, id);
	const struct span keep[] = {SPAN_LIT("SETEX"), buf_span(&key), SPAN_LIT("60"), buf_span(&meta)};
	const struct span publish[] = {SPAN_LIT("PUBLISH"), buf_span(&key), buf_span(&meta)};
	redis_command(w->c.worker, keep, 4, 0, NULL, NULL);
	redis_command(w->c.worker, publish, 3, 0, NULL, NULL);
}

static const struct task_call add = {.task = SPAN_INIT("add"), .args = SPAN_INIT("[1, 2]")};

/* --- tests ---------------------------------------------------------------------------------------------- */

static void a_submission_is_in_its_queue(void **state)
{
	struct world *w = *state;
	struct task_call call = add;
	submit(w, &call);
	assert_int_equal(w->submission.status, TASK_SUBMITTED);
	ask(w, "LLEN", "celery");
	assert_int_equal(w->integer, 1);
	call.queue = SPAN_LIT("other");
	call.priority = 7;
	call.task_id = SPAN_LIT("mine");
	submit(w, &call);
	assert_string_equal(w->id, "mine");
	ask(w, "LLEN",
	    "other\x06\x16"
	    "6");
	assert_int_equal(w->integer, 1);
}

static void nothing_but_the_message_is_written(void **state)
{
	struct world *w = *state;
	const struct span size[] = {SPAN_LIT("DBSIZE")};
	struct task_call call = add;
	call.queue = SPAN_LIT("other");
	call.awaited = true;
	submit(w, &call);
	assert_int_equal(w->submission.status, TASK_SUBMITTED);
	redis_command(w->c.worker, size, 1, 0, on_reply, w);
	wait_for(w, 1);
	assert_int_equal(w->integer, 1);
}

static void lists_follow_the_applications_options(void **state)
{
	static const struct {
		const char *steps;
		int priority;
		const char *list;
	} cases[] = {{"0, 1, 2, 5", 4, "q:2"},
		     {"0, 1, 2, 5", 9, "q:5"},
		     {"0", 9, "q"},
		     {"3,6", 0, "q:6"},
		     {"1,6", 3, "q:1"}};
	struct world *w = *state;
	struct task_call call = add;
	call.queue = SPAN_LIT("q");
	celery_world_set(&w->c, "sep", ":");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		celery_world_set(&w->c, "priority_steps", cases[i].steps);
		call.priority = cases[i].priority;
		submit(w, &call);
		ask(w, "LLEN", cases[i].list);
		assert_int_equal(w->integer, 1);
		ask(w, "DEL", cases[i].list);
	}
}

static void options_of_lists_that_are_none(void **state)
{
	static const char *const bad[][2] = {{"priority_steps", ""},	   {"priority_steps", "0,,3"},
					     {"priority_steps", "3,0"},	   {"priority_steps", "0,3,"},
					     {"priority_steps", "0,a"},	   {"priority_steps", "-1"},
					     {"priority_steps", "0,256"},  {"sep", ""},
					     {"sep", "12345678901234567"}, {"fanout_patterns", "maybe"},
					     {"fanout_prefix", "a b"}};
	struct world *w = *state;
	struct err e;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_true(task_options_set(w->c.options, span_of(bad[i][0]), span_of(bad[i][1]), &e) < 0);
}

static void what_a_worker_could_not_read_is_refused(void **state)
{
	struct world *w = *state;
	const struct task_call calls[] = {
		{.task = SPAN_LIT("t"), .args = SPAN_LIT("{}")},
		{.task = SPAN_LIT("t"), .args = SPAN_LIT("[1,]")},
		{.task = SPAN_LIT("t"), .kwargs = SPAN_LIT("[]")},
		{.task = SPAN_LIT("t"), .kwargs = SPAN_LIT("{\"a\"}")},
		{.task = SPAN_LIT("t"), .args = SPAN_LIT("[], {}")},
	};
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		submit(w, &calls[i]);
		assert_int_equal(w->submission.status, TASK_REFUSED);
		assert_non_null(strstr(w->submission.err.text, "must be a JSON"));
	}
	ask(w, "LLEN", "celery");
	assert_int_equal(w->integer, 0);
	celery_world_set(&w->c, "max_input", "5");
	submit(w, &add);
	assert_int_equal(w->submission.status, TASK_INPUT_TOO_LARGE);
}

static void redis_says_no(void **state)
{
	struct world *w = *state;
	const struct span clash[] = {SPAN_LIT("SET"), SPAN_LIT("celery"), SPAN_LIT("a text")};
	redis_command(w->c.worker, clash, 3, 0, on_reply, w);
	wait_for(w, 1);
	struct task_call call = add;
	for (int i = 0; i < 2; i++, call.awaited = true) {
		submit(w, &call);
		assert_int_equal(w->submission.status, TASK_REFUSED);
		assert_non_null(strstr(w->submission.err.text, "WRONGTYPE"));
	}
}

static void redis_gone_is_told_quickly(void **state)
{
	struct world *w = *state;
	redis_server_kill(&w->c.server);
	int64_t begin = clock_mono_ms();
	for (int i = 0; i < 20; i++) {
		submit(w, &add);
		assert_int_equal(w->submission.status, TASK_REFUSED);
	}
	assert_true(clock_mono_ms() - begin < 20000); /* 20 waits for a connection, of 3 s each, are more */
	task_get(w->c.client, SPAN_LIT("x"), on_result, w);
	wait_for(w, 1);
	assert_int_equal(w->code, TASK_E_UNREACHABLE);
	task_cancel(w->c.client, SPAN_LIT("x"), on_done, w);
	wait_for(w, 1);
	assert_int_equal(w->code, TASK_E_UNREACHABLE);
	task_health(w->c.client, on_health, w);
	wait_for(w, 1);
	assert_false(w->health.reachable);
	assert_non_null(strstr(w->health.detail, "Redis at"));
}

static void states_by_get(void **state)
{
	struct world *w = *state;
	task_get(w->c.client, SPAN_LIT("x"), on_result, w);
	wait_for(w, 1);
	assert_int_equal(w->code, 0);
	assert_int_equal(w->result.status, TASK_PENDING);
	finish(w, "x", "PROGRESS", "{\"p\": 1}");
	ask(w, "EXISTS", "celery-task-meta-x");
	task_get(w->c.client, SPAN_LIT("x"), on_result, w);
	wait_for(w, 1);
	assert_int_equal(w->result.status, TASK_RUNNING);
	finish(w, "x", "SUCCESS", "9007199254740993");
	ask(w, "EXISTS", "celery-task-meta-x");
	task_get(w->c.client, SPAN_LIT("x"), on_result, w);
	wait_for(w, 1);
	assert_int_equal(w->result.status, TASK_COMPLETED);
	assert_string_equal(w->text, "9007199254740993");
}

static void a_result_from_before_the_wait(void **state)
{
	struct world *w = *state;
	finish(w, "x", "SUCCESS", "1.0");
	ask(w, "EXISTS", "celery-task-meta-x");
	task_wait(w->c.client, SPAN_LIT("x"), on_result, w);
	wait_for(w, 1);
	assert_string_equal(w->text, "1.0");
}

static void a_wait_ends_at_the_end_only(void **state)
{
	struct world *w = *state;
	task_wait(w->c.client, SPAN_LIT("x"), on_result, w);
	task_wait(w->c.client, SPAN_LIT("x"), on_result, w); /* two for one task */
	finish(w, "x", "STARTED", "{\"pid\": 1}");
	finish(w, "x", "RETRY", "null");
	finish(w, "x", "FAILURE",
	       "{\"exc_type\": \"ValueError\", \"exc_message\": [\"bad\"], \"exc_module\": \"builtins\"}");
	wait_for(w, 2);
	finish(w, "x", "SUCCESS", "\"never told\"");
	ask(w, "EXISTS", "celery-task-meta-x");
	assert_int_equal(w->results, 2);
	assert_int_equal(w->result.status, TASK_FAILED);
	assert_string_equal(w->error, "bad");
}

static void a_cancelled_wait_is_silent(void **state)
{
	struct world *w = *state;
	struct task_wait *one = task_wait(w->c.client, SPAN_LIT("x"), on_result, w);
	task_wait_cancel(task_wait(w->c.client, SPAN_LIT("y"), on_result, w), w->c.client);
	task_wait(w->c.client, SPAN_LIT("z"), on_result, w);
	finish(w, "z", "SUCCESS", "1");
	wait_for(w, 1);
	task_wait_cancel(one, w->c.client);
	finish(w, "x", "SUCCESS", "2");
	finish(w, "y", "SUCCESS", "3");
	ask(w, "EXISTS", "celery-task-meta-y");
	assert_int_equal(w->results, 1);
}

static void a_thousand_at_once(void **state)
{
	struct world *w = *state;
	static char ids[MANY][TASK_ID_MAX];
	for (int i = 0; i < MANY; i++)
		task_submit(w->c.client, &add, on_submitted, w);
	wait_for(w, MANY);
	ask(w, "LLEN", "celery");
	assert_int_equal(w->integer, MANY);
	for (int i = 0; i < MANY; i++) {
		snprintf(ids[i], sizeof(ids[i]), "id-%d", i);
		task_wait(w->c.client, span_of(ids[i]), on_result, w);
	}
	for (int i = 0; i < MANY; i++)
		finish(w, ids[i], "SUCCESS", "1");
	wait_for(w, MANY);
	assert_int_equal(w->results, MANY);
}

static void a_wait_survives_the_server(void **state)
{
	struct world *w = *state;
	task_wait(w->c.client, SPAN_LIT("x"), on_result, w);
	task_wait(w->c.client, SPAN_LIT("y"), on_result, w);
	/* once it is told, the subscription of x, made before it, is there too */
	finish(w, "y", "SUCCESS", "1");
	wait_for(w, 1);
	redis_server_kill(&w->c.server);
	redis_server_restart(&w->c.server);
	/* Kept, and never published to us: it is the GET after the new subscription that finds it. */
	redis_server_say(&w->c.server,
			 "SETEX celery-task-meta-x 60 '{\"status\": \"SUCCESS\", \"result\": [1.0]}'");
	wait_for(w, 1);
	assert_int_equal(w->results, 2);
	assert_int_equal(w->result.status, TASK_COMPLETED);
	assert_string_equal(w->text, "[1.0]");
}

/* --- awaited: the subscription goes ahead of the submission --------------------------------------------- */

static void submit_awaited(struct world *w, const char *id)
{
	struct task_call call = add;
	call.task_id = span_of(id);
	call.awaited = true;
	submit(w, &call);
	assert_int_equal(w->submission.status, TASK_SUBMITTED);
}

static void publish(struct world *w, const char *id, redis_reply_fn fn)
{
	CLEANUP(buf_releasep) struct buf key = BUF_INIT(256);
	buf_printf(&key, "celery-task-meta-%s", id);
	const struct span words[] = {SPAN_LIT("PUBLISH"), buf_span(&key),
				     SPAN_LIT("{\"status\": \"SUCCESS\", \"result\": 7}")};
	redis_command(w->c.worker, words, 3, 0, fn, w);
}

/* PUBLISH answers how many heard it. */
static void wait_for_listeners(struct world *w, const char *id, int64_t n)
{
	do {
		publish(w, id, on_reply);
		wait_for(w, 1);
	} while (w->integer != n);
}

static void an_awaited_result_is_heard(void **state)
{
	struct world *w = *state;
	w->waits = true;
	submit_awaited(w, "first"); /* makes the connections, which cannot be ahead of it */
	finish(w, "first", "SUCCESS", "1");
	wait_for(w, 1);
	submit_awaited(w, "x");
	publish(w, "x", NULL); /* and not kept: a look would not find it */
	wait_for(w, 1);
	assert_string_equal(w->text, "7");
}

static void an_awaited_result_that_was_not_heard_is_read(void **state)
{
	struct world *w = *state;
	w->waits = true;
	const char *const ids[] = {"before-the-connection", "x", "y"};
	for (size_t i = 0; i < 3; i++) {
		CLEANUP(buf_releasep) struct buf line = BUF_INIT(256);
		buf_printf(&line,
			   "SETEX celery-task-meta-%s 60 '{\"status\": \"SUCCESS\", \"result\": [%zu]}'",
			   ids[i], i);
		redis_server_say(&w->c.server, line.ptr); /* kept, and never published to us */
		submit_awaited(w, ids[i]);
		if (w->results == i) /* or in the round in which the submission was told */
			wait_for(w, 1);
		assert_int_equal(w->results, i + 1);
		assert_int_equal(w->text[1], '0' + (int)i);
	}
}

static void a_result_may_come_before_the_submission_is_answered(void **state)
{
	struct world *w = *state;
	struct redis_server broker;
	struct err e;
	assert_true(redis_server_start(&broker, NULL));
	w->c.client = task_client_free(w->c.client);
	celery_world_set(&w->c, "broker_url", broker.url);
	celery_world_set(&w->c, "result_backend", w->c.server.url);
	assert_int_equal(celery_backend.client_new(w->c.loop, w->c.options, &w->c.client, &e), 0);
	w->waits = true;
	submit_awaited(w, "first");
	finish(w, "first", "SUCCESS", "1");
	wait_for(w, 1);
	kill(broker.pid, SIGSTOP);
	struct task_call call = add;
	call.task_id = SPAN_LIT("x");
	call.awaited = true;
	task_submit(w->c.client, &call, on_submitted, w);
	wait_for_listeners(w, "x", 1);
	finish(w, "x", "SUCCESS", "7");
	ask(w, "EXISTS", "celery-task-meta-x");
	ask(w, "EXISTS", "celery-task-meta-x"); /* what was published before this was asked has been read */
	assert_int_equal(w->results, 1);
	kill(broker.pid, SIGCONT);
	wait_for(w, 2);
	assert_int_equal(w->results, 2);
	assert_string_equal(w->text, "7");
	w->c.client = task_client_free(w->c.client);
	redis_server_stop(&broker);
}

static void nobody_waits_after_all(void **state)
{
	struct world *w = *state;
	const char *const ids[] = {"first", "a", "b", "c"};
	for (size_t i = 0; i < 4; i++)
		submit_awaited(w, ids[i]);
	wait_for_listeners(w, "a", 0);
	wait_for_listeners(w, "b", 0);
	assert_int_equal(w->results, 0);
	/* And a wait that comes too late for it is one like any other. */
	finish(w, "a", "SUCCESS", "7");
	task_wait(w->c.client, SPAN_LIT("a"), on_result, w);
	wait_for(w, 1);
	assert_string_equal(w->text, "7");
}

static void cancelling_needs_a_worker(void **state)
{
	struct world *w = *state;
	task_cancel(w->c.client, SPAN_LIT("x"), on_done, w);
	wait_for(w, 1);
	assert_int_equal(w->code, TASK_E_UNREACHABLE);
	assert_string_equal(w->error, "no worker is listening");
}

static void health_without_a_worker(void **state)
{
	struct world *w = *state;
	submit(w, &add);
	struct task_call urgent = add;
	urgent.priority = 9;
	submit(w, &urgent);
	for (int i = 0; i < 3; i++)
		task_health(w->c.client, on_health, w);
	wait_for(w, 3);
	assert_true(w->health.reachable);
	assert_false(w->health.worker);
	assert_int_equal(w->health.backlog, 2);
	assert_non_null(strstr(w->health.detail, "no worker"));
	ask(w, "EXISTS", "_kombu.binding.reply.celery.pidbox"); /* nothing stays behind */
	assert_int_equal(w->integer, 0);
}

static void the_client_may_go_from_any_callback(void **state)
{
	struct world *w = *state;
	struct err e;
	for (int i = 0; i < 5; i++) {
		if (!w->c.client)
			assert_int_equal(task_client_new(w->c.options, w->c.loop, &w->c.client, &e), 0);
		w->c.frees = true;
		struct task_call awaited = add;
		awaited.awaited = true;
		if (i == 0)
			task_submit(w->c.client, &awaited, on_submitted, w);
		else if (i == 1)
			task_get(w->c.client, SPAN_LIT("x"), on_result, w);
		else if (i == 2)
			task_cancel(w->c.client, SPAN_LIT("x"), on_done, w);
		else if (i == 3)
			task_health(w->c.client, on_health, w);
		for (int j = 0; j < 3; j++)
			task_wait(w->c.client, SPAN_LIT("end"), on_result, w);
		if (i == 4)
			finish(w, "end", "SUCCESS", "1");
		wait_for(w, 1);
		assert_null(w->c.client);
	}
	assert_int_equal(w->results, 2); /* one get, one wait: the others went with the client */
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {TEST(a_submission_is_in_its_queue),
					   TEST(what_a_worker_could_not_read_is_refused),
					   TEST(nothing_but_the_message_is_written),
					   TEST(lists_follow_the_applications_options),
					   TEST(options_of_lists_that_are_none),
					   TEST(redis_says_no),
					   TEST(redis_gone_is_told_quickly),
					   TEST(states_by_get),
					   TEST(a_result_from_before_the_wait),
					   TEST(a_wait_ends_at_the_end_only),
					   TEST(a_cancelled_wait_is_silent),
					   TEST(a_thousand_at_once),
					   TEST(a_wait_survives_the_server),
					   TEST(an_awaited_result_is_heard),
					   TEST(an_awaited_result_that_was_not_heard_is_read),
					   TEST(nobody_waits_after_all),
					   TEST(a_result_may_come_before_the_submission_is_answered),
					   TEST(cancelling_needs_a_worker),
					   TEST(health_without_a_worker),
					   TEST(the_client_may_go_from_any_callback)};
	if (!celery_world_possible())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
