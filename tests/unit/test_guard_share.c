/* Replicas of one guard over a real Redis: one sequence of events, holds and releases for all, alone and
 * merged again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "guard/guard.h"
#include "outcomes/outcome_store.h"
#include "support/redis_server.h"

#define SPLIT 77
#define SHARE 0.25
#define REPLICAS 3
#define PATIENCE_MS 10000

struct replica {
	char folder[SCRATCH_MAX], file[SCRATCH_MAX + 16];
	struct series_table *series;
	struct outcome_store *store;
	struct guard *guard;
	struct recorder_tap tap;
	struct span user_key;
	unsigned changes;
};

struct world {
	struct redis_server server;
	struct replica replicas[REPLICAS];
};

static void count_change(void *arg)
{
	((struct replica *)arg)->changes++;
}

static void expect_split(struct replica *p, uint64_t split)
{
	struct guard_expected x;
	memset(&x, 0, sizeof(x));
	snprintf(x.service, sizeof(x.service), "prompt");
	snprintf(x.operation, sizeof(x.operation), "answer");
	x.mode = GUARD_HOLD;
	x.rule = (struct guard_rule){0.01, 0.1, 2, 0.005};
	x.split = split;
	assert_int_equal(guard_expect(p->guard, &x, 1), 0);
}

static void replica_start(struct replica *p, const char *url)
{
	struct err e = {""};
	if (!p->folder[0]) {
		scratch_make(p->folder);
		snprintf(p->file, sizeof(p->file), "%s/outcomes.db", p->folder);
	}
	assert_int_equal(series_table_new(&p->series), 0);
	assert_int_equal(outcome_store_open(p->file, p->series, &p->store, &e), 0);
	assert_int_equal(guard_new(count_change, p, &p->guard), 0);
	assert_int_equal(guard_share_with(p->guard, url, "test:", 300, &e), 0);
	guard_tap(p->guard, &p->tap);
	assert_int_equal(p->tap.opened(p->tap.arg, outcome_store_db(p->store), &e), 0);
	expect_split(p, SPLIT);
}

static void replica_stop(struct replica *p)
{
	p->tap.closed(p->tap.arg);
	p->store = outcome_store_close(p->store);
	p->guard = guard_free(p->guard);
	p->series = series_table_free(p->series);
}

static void replica_flush(struct replica *p, const struct outcome *o, size_t n)
{
	struct series *series[64];
	struct err e = {""};
	for (size_t i = 0; i < n; i++)
		series[i] = series_of(p->series, &o[i]);
	struct outcome_batch b = {.outcomes = o,
				  .series = series,
				  .count = n,
				  .user_key = p->user_key,
				  .now_us = clock_wall_us(),
				  .taps = {&p->tap}};
	assert_int_equal(outcome_store_write(p->store, &b, &e), 0);
}

/* As the recorder does, whenever somebody says that there is something to do. */
static void turn(struct world *w)
{
	for (int i = 0; i < REPLICAS; i++)
		if (w->replicas[i].guard && w->replicas[i].tap.due(w->replicas[i].tap.arg))
			replica_flush(&w->replicas[i], NULL, 0);
	usleep(2000);
}

static struct guard_operation_verdict verdict(struct replica *p, bool *ret_known)
{
	struct guard_verdicts *now;
	bool known;
	assert_int_equal(guard_now(p->guard, ret_known ? ret_known : &known, &now), 0);
	assert_int_equal(now->n, 1);
	struct guard_operation_verdict v = now->operations[0];
	guard_verdicts_free(now);
	return v;
}

typedef bool (*saying)(struct replica *p, int64_t n);

static bool is_known(struct replica *p, int64_t n)
{
	bool known;
	(void)n;
	verdict(p, &known);
	return known;
}

static bool is_held(struct replica *p, int64_t n)
{
	return verdict(p, NULL).held == (n != 0);
}

static bool has_bad(struct replica *p, int64_t n)
{
	const uint64_t *bad = verdict(p, NULL).kinds[GUARD_FAILURE].bad;
	return bad[OUTCOME_TASK] + bad[OUTCOME_LEGACY] == (uint64_t)n;
}

static bool has_seen(struct replica *p, int64_t n)
{
	struct guard_operation_verdict v = verdict(p, NULL);
	return v.entities[OUTCOME_TASK] + v.entities[OUTCOME_LEGACY] == (uint64_t)n;
}

static bool is_in_epoch(struct replica *p, int64_t n)
{
	struct guard_operation_verdict v = verdict(p, NULL);
	return v.epoch == n && v.generation > 0;
}

static bool is_alone(struct replica *p, int64_t n)
{
	char why[256];
	(void)n;
	return guard_is_shared(p->guard, why) && why[0];
}

static bool is_not_alone(struct replica *p, int64_t n)
{
	return !is_alone(p, n);
}

static void dump(struct world *w)
{
	for (int i = 0; i < REPLICAS; i++) {
		if (!w->replicas[i].guard)
			continue;
		bool known;
		char why[256];
		struct guard_operation_verdict v = verdict(&w->replicas[i], &known);
		guard_is_shared(w->replicas[i].guard, why);
		print_message("# r%d known %d alone %s epoch %d (%s) gen %d verdict %s held %d bad %d seen "
			      "%d by %s\n",
			      i, known, why, (int)v.epoch, v.began_because, (int)v.generation,
			      guard_verdict_text(v.verdict), v.held, (int)v.kinds[0].bad[1],
			      (int)(v.entities[0] + v.entities[1]), v.found_by);
	}
}

static void wait_at(struct world *w, struct replica *p, saying says, int64_t n)
{
	int64_t until = clock_mono_ms() + PATIENCE_MS;
	while (!says(p, n)) {
		if (clock_mono_ms() >= until)
			dump(w);
		assert_true(clock_mono_ms() < until);
		turn(w);
	}
}

static void wait_all(struct world *w, saying says, int64_t n)
{
	for (int i = 0; i < REPLICAS; i++)
		if (w->replicas[i].guard)
			wait_at(w, &w->replicas[i], says, n);
}

static struct outcome outcome_of(const char *entity, enum outcome_side side, enum outcome_result result)
{
	return (struct outcome){.time_us = clock_wall_us(),
				.latency_us = 1000,
				.service = "prompt",
				.operation = "answer",
				.side = side,
				.assigned = side,
				.result = result,
				.share = SHARE,
				.split = SPLIT,
				.entity = crypto_hash64(span_of(entity))};
}

static void fails_at(struct replica *p, const char *entity)
{
	struct outcome o = outcome_of(entity, OUTCOME_TASK, OUTCOME_FAILURE);
	replica_flush(p, &o, 1);
}

static int open_world(void **state)
{
	static struct world w;
	memset(&w, 0, sizeof(w));
	*state = &w;
	if (!redis_server_start(&w.server, NULL))
		return 0;
	for (int i = 0; i < REPLICAS; i++)
		replica_start(&w.replicas[i], w.server.url);
	wait_all(&w, is_known, 0);
	wait_all(&w, is_in_epoch, 1);
	return 0;
}

static int close_world(void **state)
{
	struct world *w = *state;
	if (!w->server.pid)
		return 0;
	for (int i = 0; i < REPLICAS; i++) {
		if (w->replicas[i].guard)
			replica_stop(&w->replicas[i]);
		scratch_remove(w->replicas[i].folder);
	}
	redis_server_stop(&w->server);
	return 0;
}

static struct world *world_of(void **state)
{
	struct world *w = *state;
	if (!w->server.pid)
		skip();
	return w;
}

/* --- together ------------------------------------------------------------------------------------------- */

static void three_at_a_third_breach_as_one_would(void **state)
{
	struct world *w = world_of(state);
	unsigned n = 0;
	for (; n < 20 && !verdict(&w->replicas[0], NULL).held; n++) {
		char entity[32];
		snprintf(entity, sizeof(entity), "user-%u", n);
		fails_at(&w->replicas[n % REPLICAS], entity);
		wait_all(w, has_bad, n + 1);
	}
	assert_in_range(n, 4, 6); /* as at one: test_guard.c */
	int64_t began = clock_mono_ms();
	wait_all(w, is_held, 1);
	assert_true(clock_mono_ms() - began < 1000);
	struct guard_verdicts *read;
	struct err e;
	assert_int_equal(guard_verdicts_read(w->replicas[2].file, "", "", &read, &e), 0);
	assert_true(read->operations[0].held && read->operations[0].verdict == GUARD_BREACH);
	guard_verdicts_free(read);
}

static void an_entity_at_all_of_them_counts_once(void **state)
{
	struct world *w = world_of(state);
	for (int round = 0; round < 3; round++)
		for (int i = 0; i < REPLICAS; i++)
			fails_at(&w->replicas[i], "busy");
	fails_at(&w->replicas[0], "another");
	wait_all(w, has_bad, 2);
	wait_all(w, has_seen, 2);
	for (int i = 0; i < 100; i++)
		turn(w);
	wait_all(w, has_bad, 2);
	assert_false(verdict(&w->replicas[1], NULL).held);
}

static void with_hashed_users_too(void **state)
{
	struct world *w = world_of(state);
	static const char *const keys[REPLICAS] = {"one", "another", "third"}; /* of each one's own file */
	for (int i = 0; i < REPLICAS; i++)
		w->replicas[i].user_key = span_of(keys[i]);
	for (int i = 0; i < REPLICAS; i++)
		fails_at(&w->replicas[i], "busy");
	fails_at(&w->replicas[0], "another");
	wait_all(w, has_bad, 2);
}

static void break_it(struct world *w, int at, const char *prefix)
{
	for (int i = 0; i < 8; i++) {
		char entity[32];
		snprintf(entity, sizeof(entity), "%s-%d", prefix, i);
		fails_at(&w->replicas[at], entity);
	}
}

static void a_release_at_one_releases_all_of_them_once(void **state)
{
	struct world *w = world_of(state);
	break_it(w, 0, "a");
	wait_all(w, is_held, 1);
	/* Two people at two replicas, at the same moment. */
	assert_int_equal(guard_release(w->replicas[1].guard, "prompt", "answer", "ann"), 0);
	assert_int_equal(guard_release(w->replicas[2].guard, "prompt", "answer", "bob"), 0);
	wait_all(w, is_held, 0);
	wait_all(w, is_in_epoch, 2);
	int64_t generation = verdict(&w->replicas[0], NULL).generation;
	for (int i = 0; i < REPLICAS; i++)
		assert_int_equal(verdict(&w->replicas[i], NULL).generation, generation);
	assert_non_null(strstr(verdict(&w->replicas[0], NULL).began_because, "released manually: "));
	break_it(w, 0, "a"); /* the same entities count again */
	wait_all(w, is_held, 1);
}

static void who_comes_later_finds_evidence_and_hold(void **state)
{
	struct world *w = world_of(state);
	fails_at(&w->replicas[0], "first");
	wait_all(w, has_bad, 1);
	replica_stop(&w->replicas[2]); /* and its file is lost: a new container */
	unlink(w->replicas[2].file);
	replica_start(&w->replicas[2], w->server.url);
	wait_at(w, &w->replicas[2], has_bad, 1);
	replica_stop(&w->replicas[2]);
	unlink(w->replicas[2].file);
	break_it(w, 0, "a");
	wait_at(w, &w->replicas[1], is_held, 1);
	replica_start(&w->replicas[2], w->server.url);
	bool known = false;
	while (!known) { /* it says nothing before it knows */
		turn(w);
		struct guard_operation_verdict v = verdict(&w->replicas[2], &known);
		assert_true(!known || v.held);
	}
}

static void another_split_is_another_question(void **state)
{
	struct world *w = world_of(state);
	break_it(w, 0, "a");
	wait_all(w, is_held, 1);
	expect_split(&w->replicas[1], SPLIT + 1); /* its flags are ahead */
	wait_at(w, &w->replicas[1], is_held, 0);
	wait_at(w, &w->replicas[1], is_in_epoch, 2);
	wait_at(w, &w->replicas[0], is_held, 1);
	for (int i = 0; i < 200; i++) /* and those behind lose nothing by that */
		turn(w);
	assert_true(verdict(&w->replicas[0], NULL).held);
	assert_false(verdict(&w->replicas[1], NULL).held);
	expect_split(&w->replicas[0], SPLIT + 1);
	wait_at(w, &w->replicas[0], is_in_epoch, 2);
	assert_int_equal(verdict(&w->replicas[0], NULL).generation,
			 verdict(&w->replicas[1], NULL).generation);
	expect_split(&w->replicas[2], SPLIT + 1); /* all have left: back there it begins without evidence */
	wait_at(w, &w->replicas[2], is_in_epoch, 2);
	for (int i = 0; i < REPLICAS; i++)
		expect_split(&w->replicas[i], SPLIT);
	wait_all(w, is_in_epoch, 3);
	assert_false(verdict(&w->replicas[0], NULL).held);
	wait_all(w, has_bad, 0);
}

/* --- without the server --------------------------------------------------------------------------------- */

static void without_the_server_each_goes_on_alone_and_all_is_merged(void **state)
{
	struct world *w = world_of(state);
	fails_at(&w->replicas[0], "before");
	wait_all(w, has_bad, 1);
	redis_server_kill(&w->server);
	wait_all(w, is_alone, 0);
	fails_at(&w->replicas[0], "a");
	fails_at(&w->replicas[0], "both");
	fails_at(&w->replicas[1], "both");
	fails_at(&w->replicas[1], "before"); /* it is known here */
	wait_at(w, &w->replicas[0], has_bad, 3);
	wait_at(w, &w->replicas[1], has_bad, 2);
	wait_at(w, &w->replicas[2], has_bad, 1);
	replica_stop(&w->replicas[0]);	  /* what waits is in its file */
	redis_server_restart(&w->server); /* without its memory */
	replica_start(&w->replicas[0], w->server.url);
	wait_all(w, is_not_alone, 0);
	wait_all(w, has_bad, 3);
	for (int i = 0; i < 100; i++)
		turn(w);
	wait_all(w, has_bad, 3);
	fails_at(&w->replicas[2], "before"); /* the server does not know it any more: they do */
	fails_at(&w->replicas[2], "after");
	wait_all(w, has_bad, 4);
}

static void a_hold_found_alone_is_everybodys_afterwards_and_outlives_the_server(void **state)
{
	struct world *w = world_of(state);
	redis_server_kill(&w->server);
	wait_all(w, is_alone, 0);
	break_it(w, 1, "a");
	wait_at(w, &w->replicas[1], is_held, 1);
	assert_false(verdict(&w->replicas[0], NULL).held);
	redis_server_restart(&w->server);
	wait_all(w, is_held, 1);
	redis_server_kill(&w->server); /* and all it knew: holds stay */
	wait_all(w, is_alone, 0);
	wait_all(w, is_held, 1);
	redis_server_restart(&w->server);
	wait_all(w, is_not_alone, 0);
	for (int i = 0; i < 200; i++)
		turn(w);
	wait_all(w, is_held, 1);
	replica_stop(&w->replicas[2]);
	unlink(w->replicas[2].file);
	replica_start(&w->replicas[2], w->server.url); /* who comes then is told */
	wait_at(w, &w->replicas[2], is_known, 0);
	assert_true(verdict(&w->replicas[2], NULL).held);
}

static void a_release_without_the_server_is_everybodys_afterwards(void **state)
{
	struct world *w = world_of(state);
	break_it(w, 1, "a");
	wait_all(w, is_held, 1);
	redis_server_kill(&w->server);
	wait_all(w, is_alone, 0);
	assert_int_equal(guard_release(w->replicas[0].guard, "prompt", "answer", "ann"), 0);
	wait_at(w, &w->replicas[0], is_held, 0);
	assert_true(verdict(&w->replicas[1], NULL).held);
	redis_server_restart(&w->server);
	wait_all(w, is_held, 0);
	wait_all(w, is_in_epoch, 2);
}

static void a_frozen_server_is_none(void **state)
{
	struct world *w = world_of(state);
	kill(w->server.pid, SIGSTOP);
	break_it(w, 0, "a");
	wait_at(w, &w->replicas[0], is_held, 1);
	assert_false(verdict(&w->replicas[1], NULL).held);
	kill(w->server.pid, SIGCONT);
	wait_all(w, is_held, 1);
	wait_all(w, is_not_alone, 0);
}

static void who_starts_without_the_server_knows_nothing(void **state)
{
	struct world *w = world_of(state);
	redis_server_kill(&w->server);
	wait_all(w, is_alone, 0);
	replica_stop(&w->replicas[0]);
	replica_start(&w->replicas[0], w->server.url);
	for (int i = 0; i < 100; i++)
		turn(w);
	bool known = true;
	verdict(&w->replicas[0], &known);
	assert_false(known);
	assert_true(is_known(&w->replicas[1], 0)); /* who runs on does */
	redis_server_restart(&w->server);
	wait_at(w, &w->replicas[0], is_known, 0);
}

static void what_others_write_there_is_not_believed(void **state)
{
	struct world *w = world_of(state);
	struct guard_operation_verdict v = verdict(&w->replicas[0], NULL);
	(void)v;
	redis_server_say(
		&w->server,
		"EVAL \"for _,k in ipairs(redis.call('KEYS','test:guard:*:members')) do "
		"local l=string.gsub(k,'members$','log') redis.call('RPUSH',l,'nonsense','1:80 9 9 9 9',"
		"'1:1 1 1 0 nan','0000000000000001:3 1 1 0 0.5') end\" 0");
	fails_at(&w->replicas[1], "good");
	wait_all(w, has_bad, 1);
	wait_all(w, has_seen, 1);
}

/* --- the bound ------------------------------------------------------------------------------------------ */

#define RUNS 1000
#define EVENTS 240

static uint64_t simulated_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static bool breaches(struct guard_evidence *e, const struct guard_rule *rule, bool task, double share)
{
	struct guard_bad b = {.kind = GUARD_FAILURE,
			      .assigned = task ? OUTCOME_TASK : OUTCOME_LEGACY,
			      .share = share,
			      .now_us = 1};
	guard_evidence_bad(e, rule, &b);
	return e->kinds[GUARD_FAILURE].breached_us != 0;
}

/* Equal sides, and nothing tolerated. Each replica sees a part (some entities fail at several); in the middle
 * they are merged, each in its own order: its own first. `alone`: whether any of them breached; `together`:
 * the one sequence of the log. */
static void simulate(uint64_t *s, bool *alone, bool *together)
{
	const struct guard_rule rule = {0.05, 0, 2, 0.01};
	struct guard_evidence e[REPLICAS + 1];
	bool task[EVENTS], at[EVENTS][REPLICAS];
	double share[EVENTS];
	memset(e, 0, sizeof(e));
	*alone = *together = false;
	for (int i = 0; i < EVENTS; i++) {
		share[i] = 0.05 + 0.9 * (double)(simulated_random(s) % 1000) / 1000;
		task[i] = (double)(simulated_random(s) % 1000000) / 1e6 < share[i];
		uint64_t seen = simulated_random(s);
		for (int r = 0; r < REPLICAS; r++)
			at[i][r] = seen % REPLICAS == (unsigned)r || (seen >> (8 + r)) % 4 == 0;
		*together |= breaches(&e[REPLICAS], &rule, task[i], share[i]);
	}
	for (int merged = 0; merged < 2; merged++)
		for (int r = 0; r < REPLICAS; r++)
			for (int i = 0; i < EVENTS; i++)
				if (at[i][r] != (merged != 0))
					*alone |= breaches(&e[r], &rule, task[i], share[i]);
	for (int r = 0; r < REPLICAS; r++) /* the union is the same evidence, whatever the order was */
		for (int k = 0; k < GUARD_TEST_POINTS; k++)
			assert_true(fabs(e[r].kinds[GUARD_FAILURE].worse.log_evidence[k] -
					 e[REPLICAS].kinds[GUARD_FAILURE].worse.log_evidence[k]) < 1e-6);
}

static void a_false_alarm_has_one_alpha_together_and_one_each_alone(void **state)
{
	uint64_t s = 88172645463325252u;
	unsigned alone = 0, together = 0;
	(void)state;
	for (int run = 0; run < RUNS; run++) {
		bool a, t;
		simulate(&s, &a, &t);
		alone += a;
		together += t;
	}
	print_message("# false alarms: together %.2f %%, alone and merged %.2f %%, alpha 4 %%\n",
		      100.0 * together / RUNS, 100.0 * alone / RUNS);
	assert_true(together > 0); /* it can say so */
	assert_true(together <= 0.04 * RUNS);
	assert_true(alone >= together && alone <= REPLICAS * 0.04 * RUNS);
}

#define IN_A_WORLD(f) cmocka_unit_test_setup_teardown(f, open_world, close_world)

int main(void)
{
	if (crypto_setup() < 0)
		return 1;
	signal(SIGPIPE, SIG_IGN);
	const struct CMUnitTest tests[] = {
		IN_A_WORLD(three_at_a_third_breach_as_one_would),
		IN_A_WORLD(an_entity_at_all_of_them_counts_once),
		IN_A_WORLD(with_hashed_users_too),
		IN_A_WORLD(a_release_at_one_releases_all_of_them_once),
		IN_A_WORLD(who_comes_later_finds_evidence_and_hold),
		IN_A_WORLD(another_split_is_another_question),
		IN_A_WORLD(without_the_server_each_goes_on_alone_and_all_is_merged),
		IN_A_WORLD(a_hold_found_alone_is_everybodys_afterwards_and_outlives_the_server),
		IN_A_WORLD(a_release_without_the_server_is_everybodys_afterwards),
		IN_A_WORLD(a_frozen_server_is_none),
		IN_A_WORLD(who_starts_without_the_server_knows_nothing),
		IN_A_WORLD(what_others_write_there_is_not_believed),
		cmocka_unit_test(a_false_alarm_has_one_alpha_together_and_one_each_alone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
