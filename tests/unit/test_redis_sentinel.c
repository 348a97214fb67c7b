/* The Redis client and real Sentinels: whom it follows, and whom it does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/redis.h"
#include "support/redis_group.h"

#define PATIENCE_MS 60000
#define COMMAND_MS 30000 /* longer than any failover here: it must not be what ends a wait */

struct world {
	struct redis_group group;
	struct loop *loop;
	struct redis *redis;
	struct loop_timer *guard, *again;
	const char *line, *wanted; /* said until the answer has this in it */
	enum redis_outcome outcome;
	char text[1024];
	bool answered;
};

static void on_guard(void *arg)
{
	struct world *w = arg;
	fail_msg("nothing happened for 60 s; last: %s", w->text);
}

static void say(void *arg);

static void on_said(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		    const struct err *why)
{
	struct world *w = arg;
	w->outcome = outcome;
	span_copy(outcome == REDIS_ANSWERED ? redis_reply_text(reply) : span_of(why->text), w->text,
		  sizeof(w->text));
	if (!w->wanted || strstr(w->text, w->wanted))
		loop_stop(w->loop);
	else
		loop_timer_start(w->again, 20);
}

static void say(void *arg)
{
	struct world *w = arg;
	struct span words[8];
	size_t n = 0;
	for (const char *at = w->line; *at; n++) {
		size_t length = strcspn(at, " ");
		words[n] = (struct span){at, length};
		at += length + (at[length] == ' ');
	}
	redis_command(w->redis, words, n, 0, on_said, w);
}

static void run(struct world *w, const char *line, const char *wanted)
{
	w->line = line;
	w->wanted = wanted;
	loop_timer_start(w->guard, PATIENCE_MS);
	say(w);
	loop_run(w->loop);
	loop_timer_stop(w->guard);
}

static void connect_to(struct world *w, const char *url)
{
	struct redis_url u;
	struct err e;
	assert_int_equal(redis_url_parse(span_of(url), &u, &e), 0);
	const struct redis_options o = {.url = &u,
					.command_timeout_ms = COMMAND_MS,
					.connect_timeout_ms = 2000,
					.backoff_min_ms = 20,
					.backoff_max_ms = 100};
	assert_int_equal(redis_new(w->loop, &o, &w->redis, &e), 0);
	redis_url_release(&u);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	assert_true(redis_group_start(&w->group));
	assert_int_equal(loop_new(&w->loop), 0);
	assert_int_equal(loop_timer_new(w->loop, on_guard, w, &w->guard), 0);
	assert_int_equal(loop_timer_new(w->loop, say, w, &w->again), 0);
	connect_to(w, w->group.url);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	redis_free(w->redis);
	loop_timer_free(w->guard);
	loop_timer_free(w->again);
	loop_free(w->loop);
	redis_group_stop(&w->group);
	free(w);
	return 0;
}

static void failed_over(struct world *w, unsigned sentinel)
{
	char port[16];
	snprintf(port, sizeof(port), "\r\n%u\r\n", w->group.second.port);
	group_await(&w->group.sentinels[sentinel], "SENTINEL GET-MASTER-ADDR-BY-NAME " GROUP_MASTER, port);
}

/* --- the master ----------------------------------------------------------------------------------------- */

static void the_master_is_found_and_followed_when_it_is_killed(void **state)
{
	struct world *w = *state;
	run(w, "SET here first", "OK");
	group_await(&w->group.first, "GET here", "first");
	group_kill(&w->group.first);
	run(w, "SET here second", "OK");
	group_await(&w->group.second, "GET here", "second");
}

/* Its connection stays open, and no answer ever comes: the Sentinels say so, long before the time limit. */
static void a_master_that_only_stopped_is_left_when_the_sentinels_have_replaced_it(void **state)
{
	struct world *w = *state;
	run(w, "SET here first", "OK");
	group_signal(&w->group.first, SIGSTOP);
	run(w, "SET here stopped", NULL);
	assert_int_equal(w->outcome, REDIS_NO_REPLY);
	assert_non_null(strstr(w->text, "another server the master"));
	run(w, "SET here second", "OK");
	group_await(&w->group.second, "GET here", "second");
	/* The former master has what was written to it, when it goes on; it becomes a replica and drops
	 * it. */
	group_signal(&w->group.first, SIGCONT);
	group_await(&w->group.first, "GET here", "second");
}

/* --- who is none ---------------------------------------------------------------------------------------- */

/* The Sentinels still name it: what it is itself decides. */
static void one_that_was_demoted_behind_the_sentinels_back_gets_no_command(void **state)
{
	struct world *w = *state;
	char line[64], answer[64];
	for (unsigned i = 0; i < GROUP_SENTINELS; i++)
		group_signal(&w->group.sentinels[i], SIGSTOP);
	snprintf(line, sizeof(line), "REPLICAOF 127.0.0.1 %u", w->group.second.port);
	group_ask(&w->group.second, "REPLICAOF NO ONE", answer, sizeof(answer));
	group_ask(&w->group.first, line, answer, sizeof(answer));
	assert_string_equal(answer, "+OK\r\n");
	group_signal(&w->group.sentinels[0], SIGCONT);
	run(w, "SET here nobody", NULL);
	assert_int_equal(w->outcome, REDIS_NOT_SENT);
	assert_non_null(strstr(w->text, "is not a master"));
}

/* It was cut off during the failover: alone it would lead back to the former master, which is alive. */
static void a_sentinel_that_knows_only_an_earlier_master_is_not_believed(void **state)
{
	struct world *w = *state;
	struct redis_group *g = &w->group;
	char answer[64];
	run(w, "SET here first", "OK");
	group_kill(&g->sentinels[2]);
	group_signal(&g->first, SIGSTOP);
	failed_over(w, 0);
	failed_over(w, 1);
	run(w, "SET here second", "OK");
	group_signal(&g->sentinels[0], SIGSTOP);
	group_signal(&g->sentinels[1], SIGSTOP);
	group_first_anew(g);
	group_sentinel_restart(g, 2);
	group_ask(&g->second, "CLIENT KILL TYPE normal SKIPME yes", answer, sizeof(answer));
	run(w, "SET here third", "know only of an earlier master");
	assert_int_equal(w->outcome, REDIS_NOT_SENT);
	group_await(&g->first, "ROLE", "master");
	group_await(&g->first, "DBSIZE", ":0");
	group_signal(&g->sentinels[0], SIGCONT);
	run(w, "SET here fourth", "OK");
	group_await(&g->second, "GET here", "fourth");
}

static void a_name_that_the_sentinels_do_not_know_is_said(void **state)
{
	struct world *w = *state;
	char url[128];
	redis_free(w->redis);
	snprintf(url, sizeof(url), "sentinel://127.0.0.1:%u?master_name=nobody", w->group.sentinels[0].port);
	connect_to(w, url);
	run(w, "PING", NULL);
	assert_int_equal(w->outcome, REDIS_NOT_SENT);
	assert_non_null(strstr(w->text, "knows no master named nobody"));
}

/* One of them that takes no connections, and one that answers nothing, keep nobody from the master for
 * long. */
static void sentinels_that_are_away_or_frozen_do_not_hold_up_the_others(void **state)
{
	struct world *w = *state;
	group_kill(&w->group.sentinels[0]);
	group_signal(&w->group.sentinels[1], SIGSTOP);
	run(w, "SET here first", NULL);
	assert_int_equal(w->outcome, REDIS_ANSWERED);
	assert_string_equal(w->text, "OK");
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_master_is_found_and_followed_when_it_is_killed, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			a_master_that_only_stopped_is_left_when_the_sentinels_have_replaced_it, setup,
			teardown),
		cmocka_unit_test_setup_teardown(
			one_that_was_demoted_behind_the_sentinels_back_gets_no_command, setup, teardown),
		cmocka_unit_test_setup_teardown(a_sentinel_that_knows_only_an_earlier_master_is_not_believed,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_name_that_the_sentinels_do_not_know_is_said, setup,
						teardown),
		cmocka_unit_test_setup_teardown(sentinels_that_are_away_or_frozen_do_not_hold_up_the_others,
						setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
