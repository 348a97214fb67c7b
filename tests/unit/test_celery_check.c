/* The check of the celery backend on recorded answers of real workers (tests/fixtures/celery/pidbox.json);
 * which of them answer, and how often, is up to the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "support/celery_world.h"

#define CHANNEL "/0.celery.pidbox"

struct world {
	struct celery_world c;
	struct redis *ears[2]; /* where workers listen: those that answer, and one that does not */
	struct redis_subscription *subscriptions[2];
	struct json_doc *recorded;
	unsigned workers;		       /* that answer */
	const char *registered[2], *queues[2]; /* bodies of their answers instead; NULL: as recorded */
	const char *configured, *reported;     /* what all of them answer to conf and report; NULL: {} */
	bool late; /* the answers come twice, the second ones for a question that nobody has put */
	unsigned questions;
	struct task_check check;
	struct task_health health;
	char text[512];
	int64_t integer;
};

/* --- the workers ---------------------------------------------------------------------------------------- */

static void push(struct world *w, struct span list, const char *ticket, struct span body)
{
	CLEANUP(buf_releasep) struct buf message = BUF_INIT(16u << 20);
	buf_puts(&message, "{\"body\": \"");
	base64_encode(body, &message);
	buf_printf(&message,
		   "\", \"content-encoding\": \"utf-8\", \"content-type\": \"application/json\", "
		   "\"headers\": {\"ticket\": \"%s\", "
		   "\"clock\": 3}}",
		   ticket);
	const struct span words[] = {SPAN_LIT("LPUSH"), list, buf_span(&message)};
	redis_command(w->c.worker, words, 3, 0, NULL, NULL);
}

static const char *other_body(const struct world *w, const char *method, unsigned worker)
{
	if (strcmp(method, "registered") == 0)
		return w->registered[worker];
	return strcmp(method, "active_queues") == 0 ? w->queues[worker] : NULL;
}

static void answer(struct world *w, struct span list, const char *method, const char *ticket)
{
	const struct json_node *n = json_first(json_get(json_get(json_root(w->recorded), "answers"), method));
	for (unsigned i = 0; !n && i < w->workers; i++) {
		CLEANUP(buf_releasep) struct buf body = BUF_INIT(1u << 20);
		const char *told = strcmp(method, "conf") == 0 ? w->configured : w->reported;
		buf_printf(&body, "{\"%s\": %s}", i ? "two@host" : "one@host", told ? told : "{}");
		push(w, list, ticket, buf_span(&body));
	}
	for (unsigned i = 0; n && i < w->workers; i++, n = json_next(n)) {
		CLEANUP(buf_releasep) struct buf body = BUF_INIT(1u << 20);
		const char *other = other_body(w, method, i);
		json_print(json_get(n, "body"), &body);
		if (w->late)
			push(w, list, "00000000-0000-4000-8000-000000000000", buf_span(&body));
		push(w, list, ticket, other ? span_of(other) : buf_span(&body));
	}
}

static void on_question(void *arg, struct span payload)
{
	struct world *w = arg;
	static const struct span pointer = SPAN_INIT("/body");
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(1u << 20), list = BUF_INIT(256);
	struct span text;
	struct json_doc *doc;
	assert_true(json_pointer(payload, pointer, &text));
	assert_int_equal(base64_decode((struct span){text.ptr + 1, text.len - 2}, &body), 0);
	assert_int_equal(json_doc_parse(buf_span(&body), &doc, NULL), 0);
	const struct json_node *to = json_get(json_root(doc), "reply_to"),
			       *method = json_get(json_root(doc), "method");
	/* As kombu does: the default exchange takes the routing key for the queue's name. */
	assert_string_equal(json_string(json_get(to, "exchange")), "");
	buf_puts(&list, json_string(json_get(to, "routing_key")));
	w->questions++;
	answer(w, buf_span(&list), json_string(method), json_string(json_get(json_root(doc), "ticket")));
	json_doc_free(doc);
}

static void on_ready(void *arg)
{
	celery_world_happened(&((struct world *)arg)->c);
}

static void on_ignored(void *arg, struct span payload)
{
	(void)arg, (void)payload;
}

static void listen_on(struct world *w, size_t ears, const struct redis_listener *listener)
{
	w->subscriptions[ears] = redis_subscribe(w->ears[ears], SPAN_LIT(CHANNEL), listener, w);
	celery_world_wait(&w->c, 1);
}

static void listen_silently(struct world *w)
{
	static const struct redis_listener listener = {.ready = on_ready, .message = on_ignored};
	listen_on(w, 1, &listener);
}

/* Each has a connection of its own; the first one's answers for both. */
static void listen_as_workers(struct world *w, unsigned workers)
{
	static const struct redis_listener listener = {.ready = on_ready, .message = on_question};
	w->workers = workers;
	listen_on(w, 0, &listener);
	if (workers == 2)
		listen_silently(w);
}

/* --- set-up --------------------------------------------------------------------------------------------- */

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20);
	char path[512];
	struct redis_url url;
	struct err e;
	celery_world_start(&w->c);
	assert_int_equal(redis_url_parse(span_of(w->c.server.url), &url, &e), 0);
	const struct redis_options o = {.url = &url};
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(redis_new(w->c.loop, &o, &w->ears[i], &e), 0);
	redis_url_release(&url);
	snprintf(path, sizeof(path), "%s/tests/fixtures/celery/pidbox.json", getenv("SOURCE_ROOT"));
	assert_int_equal(file_read(path, 1u << 20, &text, &e), 0);
	assert_int_equal(json_doc_parse(buf_span(&text), &w->recorded, &e), 0);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	for (size_t i = 0; i < 2; i++) {
		redis_unsubscribe(w->subscriptions[i]);
		redis_free(w->ears[i]);
	}
	json_doc_free(w->recorded);
	celery_world_stop(&w->c);
	free(w);
	return 0;
}

static void on_check(void *arg, const struct task_check *c)
{
	struct world *w = arg;
	w->check = *c;
	celery_world_happened(&w->c);
}

static void on_reply(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		     const struct err *why)
{
	struct world *w = arg;
	(void)why;
	assert_int_equal(outcome, REDIS_ANSWERED);
	w->integer = redis_reply_integer(reply);
	span_copy(redis_reply_text(reply), w->text, sizeof(w->text));
	celery_world_happened(&w->c);
}

static void command(struct world *w, const struct span *words, size_t n)
{
	redis_command(w->c.worker, words, n, 0, on_reply, w);
	celery_world_wait(&w->c, 1);
}

static void check(struct world *w, const char *task, const char *queue)
{
	const struct task_probe probe = {.task = span_of(task), .queue = span_of(queue)};
	task_check(w->c.client, &probe, on_check, w);
	celery_world_wait(&w->c, 1);
}

static void assert_check(const struct world *w, enum task_answer known, enum task_answer worker,
			 const char *missing)
{
	assert_string_equal(w->check.missing, missing);
	assert_int_equal(w->check.known, known);
	assert_int_equal(w->check.worker, worker);
}

/* Soon: the answer is told while the removal is on its way, on another connection. */
static void assert_nothing_left(struct world *w)
{
	const struct span words[] = {SPAN_LIT("DBSIZE")};
	int64_t deadline = clock_mono_ms() + 10000;
	do
		command(w, words, 1);
	while (w->integer && clock_mono_ms() < deadline);
	assert_int_equal(w->integer, 0);
}

/* After a round in which somebody did not answer: the list for what comes late goes by itself. */
static void assert_goes_by_itself(struct world *w)
{
	CLEANUP(buf_releasep) struct buf key = BUF_INIT(512);
	const struct span size[] = {SPAN_LIT("DBSIZE")}, any[] = {SPAN_LIT("RANDOMKEY")};
	int64_t deadline = clock_mono_ms() + 10000;
	do
		command(w, any, 1);
	while (!strstr(w->text, "reply.celery.pidbox") && clock_mono_ms() < deadline);
	buf_puts(&key, w->text);
	const struct span ttl[] = {SPAN_LIT("TTL"), buf_span(&key)};
	do
		command(w, ttl, 2);
	while (w->integer <= 0 && clock_mono_ms() < deadline);
	assert_true(w->integer > 0);
	command(w, size, 1);
	assert_int_equal(w->integer, 1);
}

/* --- tests ---------------------------------------------------------------------------------------------- */

static void what_workers_have(void **state)
{
	struct world *w = *state;
	listen_as_workers(w, 1); /* one@host, of the queues celery and a */
	check(w, "add_numbers", NULL);
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES, "");
	assert_true(w->check.reachable);
	assert_nothing_left(w);
	check(w, "add_numbers", "a");
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES, "");
	check(w, "slow", NULL); /* told as "slow [rate_limit=10/m]" when asked for that */
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES, "");
	check(w, "add_number", NULL);
	assert_check(w, TASK_ANSWER_NO, TASK_ANSWER_YES,
		     "no live worker has registered task \"add_number\"; registered are: add_numbers, "
		     "appx.with_default_name, echo, slow");
	check(w, "echo", "c");
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_NO, "worker one@host consumes celery, a, not \"c\"");
	assert_int_equal(w->questions, 4); /* one round for all of them */
}

static void several_at_once_are_one_round(void **state)
{
	struct world *w = *state;
	listen_as_workers(w, 1);
	for (int i = 0; i < 3; i++) {
		const struct task_probe probe = {.task = SPAN_LIT("echo")};
		task_check(w->c.client, &probe, on_check, w);
	}
	celery_world_wait(&w->c, 3);
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES, "");
	assert_int_equal(w->questions, 4);
}

static void nobody_listens(void **state)
{
	struct world *w = *state;
	check(w, "echo", NULL);
	assert_true(w->check.reachable);
	assert_int_equal(w->check.known, TASK_ANSWER_UNKNOWN);
	assert_int_equal(w->check.worker, TASK_ANSWER_NO);
	assert_non_null(strstr(w->check.missing, "no worker listens on "));
	assert_nothing_left(w);
}

static void a_worker_that_does_not_answer(void **state)
{
	struct world *w = *state;
	int64_t begin = clock_mono_ms();
	listen_as_workers(w, 0);
	check(w, "echo", NULL);
	assert_check(w, TASK_ANSWER_UNKNOWN, TASK_ANSWER_UNKNOWN,
		     "workers listen, but none answered in time");
	/* a round ends by itself, however busy the machine is */
	assert_true(clock_mono_ms() - begin < 20000);
	assert_goes_by_itself(w);
}

/* Two listen, one answers: what it does not know may be known to the other. */
static void an_incomplete_round_claims_nothing(void **state)
{
	struct world *w = *state;
	int64_t begin = clock_mono_ms();
	listen_as_workers(w, 1);
	listen_silently(w);
	check(w, "echo", NULL);
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES, "");
	check(w, "other", NULL);
	assert_check(w, TASK_ANSWER_UNKNOWN, TASK_ANSWER_YES,
		     "not every worker answered, and of those that did none has registered task \"other\"; "
		     "registered are: add_numbers, "
		     "appx.with_default_name, echo, slow");
	check(w, "echo", "b");
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_UNKNOWN,
		     "not every worker answered; worker one@host consumes celery, a, not \"b\"");
	/* a round ends by itself, however busy the machine is */
	assert_true(clock_mono_ms() - begin < 20000);
	assert_int_equal(w->questions, 4);
	assert_goes_by_itself(w);
}

/* What a worker has that was deployed with another version of the code. */
static void a_worker_of_the_queue_that_lacks_the_task(void **state)
{
	struct world *w = *state;
	listen_as_workers(w, 2);
	w->registered[0] = "{\"one@host\": [\"add_numbers\"]}";
	check(w, "echo", NULL);
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES,
		     "task \"echo\" is registered with two@host, which does not consume \"celery\"; its "
		     "workers do not know the task");
	w->queues[1] = "{\"two@host\": [{\"name\": \"celery\"}]}";
	celery_world_set(&w->c, "health_interval", "1ms");
	celery_world_pass(&w->c, 5);
	check(w, "echo", NULL);
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES,
		     "worker one@host consumes \"celery\" without having registered task \"echo\": what it "
		     "receives will fail");
}

static void odd_answers_are_passed_over(void **state)
{
	static const char *const bodies[] = {"",
					     "no json",
					     "[]",
					     "{}",
					     "{\"one@host\": null}",
					     "{\"one@host\": [1, null, {}, [\"a\"]]}",
					     "\xff"};
	struct world *w = *state;
	listen_as_workers(w, 1);
	celery_world_set(&w->c, "health_interval", "1ms");
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		w->registered[0] = w->queues[0] = bodies[i];
		celery_world_pass(&w->c, 5); /* the last answer is too old by then */
		check(w, "echo", NULL);
		assert_true(w->check.known != TASK_ANSWER_YES && w->check.missing[0]);
	}
	assert_nothing_left(w);
}

static void answers_to_another_question_do_not_count(void **state)
{
	struct world *w = *state;
	listen_as_workers(w, 1);
	w->late = true;
	check(w, "echo", NULL);
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES, "");
	assert_nothing_left(w);
}

static void ask_priority(struct world *w, int priority, bool unawaited)
{
	const struct task_probe probe = {
		.task = SPAN_LIT("echo"), .priority = priority, .unawaited = unawaited};
	celery_world_pass(&w->c, 5); /* the last answer is too old by then */
	task_check(w->c.client, &probe, on_check, w);
	celery_world_wait(&w->c, 1);
}

static void a_priority_whose_list_nobody_reads_is_refused(void **state)
{
	struct world *w = *state;
	listen_as_workers(w, 1);
	celery_world_set(&w->c, "health_interval", "1ms");
	ask_priority(w, 5, false);
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES, "");
	w->configured = "{\"broker_transport_options\": {\"priority_steps\": [0, 5, 9]}}";
	ask_priority(w, 5, false);
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_NO,
		     "worker one@host reads the lists of \"celery\" for the priorities 0, 5, 9, with the sep "
		     "\"\\u0006\\u0016\"; nobody reads "
		     "priority 5, which this backend maps to step 3 with the sep \"\\u0006\\u0016\"");
	ask_priority(w, 0, false);
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES, "");
	w->configured = "{\"broker_transport_options\": {\"sep\": \":\"}}";
	ask_priority(w, 0, false);
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES, "");
	ask_priority(w, 9, false);
	assert_int_equal(w->check.worker, TASK_ANSWER_NO);
	celery_world_set(&w->c, "sep", ":");
	ask_priority(w, 9, false);
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES, "");
}

static void results_that_nobody_keeps_are_said(void **state)
{
	struct world *w = *state;
	listen_as_workers(w, 1);
	celery_world_set(&w->c, "health_interval", "1ms");
	w->registered[0] =
		"{\"one@host\": [\"add_numbers [ignore_result=False]\", \"echo [ignore_result=True]\"]}";
	ask_priority(w, 0, false);
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES, "");
	w->reported = "{\"ok\": \"\\nsoftware -> celery:5.7.0 (recovery) kombu:5.7.0 py:3.11\"}";
	ask_priority(w, 0, false);
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES, "");
	w->reported = "{\"ok\": \"\\nsoftware -> celery:5.2.7 (dawn-chorus) kombu:5.2.4 py:3.11\"}";
	ask_priority(w, 0, false);
	assert_non_null(
		strstr(w->check.missing,
		       "worker one@host (Celery 5.2) keeps no result of task \"echo\" (ignore_result)"));
	ask_priority(w, 0, true);
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES, "");
}

static void results_that_cannot_be_found_or_read_are_said(void **state)
{
	struct world *w = *state;
	listen_as_workers(w, 1);
	celery_world_set(&w->c, "health_interval", "1ms");
	w->configured = "{\"result_serializer\": \"pickle\"}";
	ask_priority(w, 0, false);
	assert_non_null(strstr(w->check.missing, "result_serializer \"pickle\""));
	w->configured = "{\"result_backend_transport_options\": {\"global_keyprefix\": \"shop\"}}";
	ask_priority(w, 0, false);
	assert_non_null(strstr(w->check.missing, "global_keyprefix \"shop\""));
	celery_world_set(&w->c, "result_key_prefix", "shop");
	ask_priority(w, 0, false);
	assert_check(w, TASK_ANSWER_YES, TASK_ANSWER_YES, "");
}

static void forbidden(struct world *w, const char *user, const char *rules)
{
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(256), line = BUF_INIT(512);
	struct err e;
	buf_printf(&line, "ACL SETUSER %s on >p %s", user, rules);
	redis_server_say(&w->c.server, line.ptr);
	buf_printf(&url, "redis+socket://%s:p@%s", user, w->c.server.socket);
	w->c.client = task_client_free(w->c.client);
	celery_world_set(&w->c, "broker_url", url.ptr);
	assert_int_equal(task_client_new(w->c.options, w->c.loop, &w->c.client, &e), 0);
}

static void what_the_user_may_not_do_is_named(void **state)
{
	struct world *w = *state;
	listen_as_workers(w, 1);
	forbidden(w, "mute", "~* &* +@all -publish");
	check(w, "echo", NULL);
	assert_true(w->check.reachable);
	assert_int_equal(w->check.worker, TASK_ANSWER_UNKNOWN);
	assert_non_null(strstr(w->check.missing, "NOPERM"));
	assert_non_null(strstr(w->check.missing, "publish"));
	forbidden(w, "deaf", "~* resetchannels &/0.celery.pidbox +@all");
	check(w, "echo", NULL);
	assert_false(w->check.reachable);
	assert_non_null(strstr(w->check.missing, "results cannot be received: "));
	assert_non_null(strstr(w->check.missing, "NOPERM"));
}

static void a_full_redis_is_said(void **state)
{
	struct world *w = *state;
	listen_as_workers(w, 1);
	redis_server_say(&w->c.server, "CONFIG SET maxmemory 1");
	check(w, "echo", NULL);
	assert_false(w->check.reachable);
	assert_non_null(strstr(w->check.missing, "OOM"));
	redis_server_say(&w->c.server, "CONFIG SET maxmemory 0");
}

static void redis_is_gone(void **state)
{
	struct world *w = *state;
	redis_server_kill(&w->c.server);
	check(w, "echo", NULL);
	assert_false(w->check.reachable);
	assert_int_equal(w->check.known, TASK_ANSWER_UNKNOWN);
	assert_int_equal(w->check.worker, TASK_ANSWER_UNKNOWN);
	assert_non_null(strstr(w->check.missing, "Redis at "));
}

static void on_health(void *arg, const struct task_health *h)
{
	struct world *w = arg;
	w->health = *h;
	celery_world_happened(&w->c);
}

static void health_and_check_take_turns(void **state)
{
	struct world *w = *state;
	const struct task_probe probe = {.task = SPAN_LIT("echo")};
	listen_as_workers(w, 2);
	task_check(w->c.client, &probe, on_check, w);
	task_health(w->c.client, on_health, w);
	celery_world_wait(&w->c, 2);
	assert_int_equal(w->check.known, TASK_ANSWER_YES);
	assert_true(w->health.worker);
	assert_int_equal(w->questions, 5);
	assert_nothing_left(w);
}

static void the_client_may_go_meanwhile(void **state)
{
	struct world *w = *state;
	const struct task_probe probe = {.task = SPAN_LIT("echo")};
	listen_as_workers(w, 1);
	for (int i = 0; i < 2; i++)
		task_check(w->c.client, &probe, on_check, w);
	w->c.frees = true;
	celery_world_wait(&w->c, 1);
	assert_null(w->c.client);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {TEST(what_workers_have),
					   TEST(several_at_once_are_one_round),
					   TEST(nobody_listens),
					   TEST(a_worker_that_does_not_answer),
					   TEST(an_incomplete_round_claims_nothing),
					   TEST(a_worker_of_the_queue_that_lacks_the_task),
					   TEST(odd_answers_are_passed_over),
					   TEST(a_priority_whose_list_nobody_reads_is_refused),
					   TEST(results_that_nobody_keeps_are_said),
					   TEST(results_that_cannot_be_found_or_read_are_said),
					   TEST(answers_to_another_question_do_not_count),
					   TEST(what_the_user_may_not_do_is_named),
					   TEST(a_full_redis_is_said),
					   TEST(redis_is_gone),
					   TEST(health_and_check_take_turns),
					   TEST(the_client_may_go_meanwhile)};
	if (!celery_world_possible())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
