/* The ledger in a Redis: what one replica writes another one finds at once; what cannot be asked is
 * unknown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "ledger/ledger.h"
#include "support/redis_server.h"

#define TIMEOUT_MS 300
#define PATIENCE_MS 10000

static struct ledger *replica_with(const char *url, unsigned timeout_ms)
{
	const struct ledger_options o = {.redis = url, .prefix = "test:", .timeout_ms = timeout_ms};
	struct ledger *l = NULL;
	struct err e;
	assert_int_equal(ledger_start(&o, &l, &e), 0);
	return l;
}

static struct ledger *replica(const char *url)
{
	return replica_with(url, TIMEOUT_MS);
}

struct told {
	struct loop *loop;
	enum ledger_answer answer;
	struct ledger_entry entry;
	int error;
};

static void on_told(void *arg, enum ledger_answer answer, const struct ledger_entry *entry)
{
	struct told *t = arg;
	t->answer = answer;
	if (entry)
		t->entry = *entry;
	loop_stop(t->loop);
}

static void on_done(void *arg, int error)
{
	struct told *t = arg;
	t->error = error;
	loop_stop(t->loop);
}

static struct told ask(struct ledger *l, const char *group, const char *key)
{
	struct told t = {0};
	assert_int_equal(loop_new(&t.loop), 0);
	ledger_ask(l, t.loop, span_of(group), span_of(key), on_told, &t);
	loop_run(t.loop);
	loop_free(t.loop);
	return t;
}

static struct ledger_entry entry_of(const char *group, const char *key, int64_t version)
{
	struct ledger_entry e = {.backend = "celery", .task_id = "task 1", .created_us = version};
	assert_int_equal(ledger_entry_set(&e, span_of(group), span_of(key)), 0);
	return e;
}

enum verb { PUT, START, REMOVE, TAKE };

static int change(enum verb verb, struct ledger *l, const struct ledger_entry *e, const char *turn)
{
	struct told t = {.error = 1};
	assert_int_equal(loop_new(&t.loop), 0);
	if (verb == PUT || verb == START)
		ledger_put(l, t.loop, e, turn, on_done, &t);
	else if (verb == TAKE)
		ledger_take(l, t.loop, e, turn, on_done, &t);
	else
		ledger_remove(l, t.loop, e, on_done, &t);
	loop_run(t.loop);
	loop_free(t.loop);
	return t.error;
}

static int put(struct ledger *l, const char *key, int64_t version)
{
	struct ledger_entry e = entry_of("container", key, version);
	return change(PUT, l, &e, NULL);
}

static int take_out(struct ledger *l, const char *key, int64_t version)
{
	struct ledger_entry e = entry_of("container", key, version);
	return change(REMOVE, l, &e, NULL);
}

static int start(struct ledger *l, const char *key, const char *backend, const char *turn)
{
	struct ledger_entry e = entry_of("container", key, clock_wall_us());
	snprintf(e.backend, sizeof(e.backend), "%s", backend);
	return change(START, l, &e, turn);
}

static int start_on_legacy(struct ledger *l, const char *key, const char *turn)
{
	struct ledger_entry e = entry_of("container", key, 0);
	return change(TAKE, l, &e, turn);
}

static void leave(struct ledger *l, const char *key, const char *turn)
{
	struct ledger_entry e = entry_of("container", key, 0);
	ledger_leave(l, &e, turn);
}

static void wait_for(struct ledger *l, bool failing, uint64_t unwritten)
{
	struct ledger_status s;
	for (int64_t end = clock_mono_ms() + PATIENCE_MS; clock_mono_ms() < end; poll(NULL, 0, 5)) {
		ledger_status(l, &s);
		if (s.failing == failing && s.unwritten == unwritten)
			return;
	}
	fail_msg("failing %d, unwritten %llu: %s", s.failing, (unsigned long long)s.unwritten, s.last_error);
}

struct pair {
	struct redis_server server;
	struct ledger *a, *b;
};

static void begin(struct pair *p)
{
	if (!redis_server_start(&p->server, NULL))
		skip();
	p->a = replica(p->server.url);
	p->b = replica(p->server.url);
}

/* Where nothing is to be late: a machine that is busy must not make it so. */
static void begin_patient(struct pair *p)
{
	if (!redis_server_start(&p->server, NULL))
		skip();
	p->a = replica_with(p->server.url, PATIENCE_MS);
	p->b = replica_with(p->server.url, PATIENCE_MS);
}

static void end(struct pair *p)
{
	ledger_stop(p->a);
	ledger_stop(p->b);
	redis_server_stop(&p->server);
}

static void what_one_replica_writes_another_one_finds_at_once(void **state)
{
	struct pair p;
	(void)state;
	begin_patient(&p);
	char key[32];
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "c %d:\n%%", i);
		assert_int_equal(ask(p.b, "container", key).answer, LEDGER_NONE);
		assert_int_equal(put(p.a, key, 1000 + i), 0);
		struct told t = ask(p.b, "container", key);
		assert_int_equal(t.answer, LEDGER_FOUND);
		assert_string_equal(t.entry.backend, "celery");
		assert_string_equal(t.entry.task_id, "task 1");
		assert_string_equal(t.entry.key, key);
		assert_int_equal(t.entry.created_us, 1000 + i);
		assert_int_equal(ask(p.b, "contain", key).answer, LEDGER_NONE);
	}
	end(&p);
}

static void a_group_is_known_to_have_nothing_when_its_last_key_is_gone(void **state)
{
	struct pair p;
	(void)state;
	begin_patient(&p);
	assert_int_equal(ask(p.b, "container", NULL).answer, LEDGER_NONE);
	assert_int_equal(put(p.a, "x", 1), 0);
	assert_int_equal(put(p.b, "x", 2), 0);
	assert_int_equal(put(p.b, "y", 3), 0);
	assert_int_equal(take_out(p.a, "x", 2), 0);
	assert_int_equal(ask(p.a, "container", NULL).answer, LEDGER_FOUND);
	assert_int_equal(ask(p.a, "contain", NULL).answer, LEDGER_NONE);
	/* Without a version what may be newer is spared; a's idea of the server's clock is a bit behind. */
	int64_t until_ms = clock_mono_ms() + PATIENCE_MS;
	do
		assert_int_equal(take_out(p.a, "y", 0), 0);
	while (ask(p.b, "container", NULL).answer != LEDGER_NONE && clock_mono_ms() < until_ms);
	assert_int_equal(ask(p.b, "container", NULL).answer, LEDGER_NONE);
	end(&p);
}

static void a_removal_takes_the_version_that_it_means_and_no_newer_one(void **state)
{
	struct pair p;
	(void)state;
	begin_patient(&p);
	assert_int_equal(put(p.a, "x", 1), 0);
	assert_int_equal(put(p.b, "x", 2), 0);
	assert_int_equal(take_out(p.a, "x", 1), 0);
	assert_int_equal(ask(p.a, "container", "x").entry.created_us, 2);
	assert_int_equal(take_out(p.a, "x", 2), 0);
	assert_int_equal(ask(p.b, "container", "x").answer, LEDGER_NONE);
	end(&p);
}

static void a_frozen_server_is_unknown_and_what_was_given_up_is_never_made(void **state)
{
	struct pair p;
	(void)state;
	begin(&p);
	assert_int_equal(put(p.a, "old", 1), 0);
	kill(p.server.pid, SIGSTOP);
	int64_t began = clock_mono_ms();
	assert_true(put(p.a, "late", 2) < 0);
	assert_in_range(clock_mono_ms() - began, 0, 20 * TIMEOUT_MS);
	assert_int_equal(ask(p.a, "container", "old").answer, LEDGER_UNKNOWN);
	assert_int_equal(ask(p.a, "container", "late").answer, LEDGER_UNKNOWN);
	assert_int_equal(take_out(p.b, "old", 1), 0); /* kept */
	wait_for(p.a, true, 0);
	kill(p.server.pid, SIGCONT);
	wait_for(p.a, false, 0);
	wait_for(p.b, false, 0);
	assert_int_equal(ask(p.b, "container", "late").answer, LEDGER_NONE);
	assert_int_equal(ask(p.a, "container", "old").answer, LEDGER_NONE);
	end(&p);
}

static void a_removal_that_waits_spares_what_was_written_after_it(void **state)
{
	struct pair p;
	(void)state;
	begin(&p);
	assert_int_equal(put(p.a, "x", 1), 0);
	kill(p.server.pid, SIGSTOP);
	assert_int_equal(take_out(p.a, "x", 0), 0);
	kill(p.server.pid, SIGCONT);
	assert_int_equal(put(p.b, "x", 2), 0); /* in the order of the server, before or after */
	wait_for(p.a, false, 0);
	struct told t = ask(p.a, "container", "x");
	assert_int_equal(t.answer, LEDGER_FOUND);
	assert_int_equal(t.entry.created_us, 2);
	end(&p);
}

static void a_server_that_became_a_replica_is_not_believed(void **state)
{
	struct pair p;
	(void)state;
	begin(&p);
	assert_int_equal(put(p.a, "x", 1), 0);
	redis_server_say(&p.server, "REPLICAOF 127.0.0.1 1");
	assert_int_equal(ask(p.a, "container", "x").answer, LEDGER_UNKNOWN);
	assert_int_equal(ask(p.b, "container", "never").answer, LEDGER_UNKNOWN);
	assert_int_equal(ask(p.b, "container", NULL).answer, LEDGER_UNKNOWN);
	assert_true(put(p.a, "y", 2) < 0);
	redis_server_say(&p.server, "REPLICAOF NO ONE");
	wait_for(p.a, false, 0);
	assert_int_equal(ask(p.a, "container", "x").answer, LEDGER_FOUND);
	assert_int_equal(ask(p.a, "container", "y").answer, LEDGER_NONE);
	end(&p);
}

static void a_full_server_takes_nothing_and_still_answers(void **state)
{
	struct pair p;
	(void)state;
	begin(&p);
	assert_int_equal(put(p.a, "x", 1), 0);
	redis_server_say(&p.server, "CONFIG SET maxmemory 1");
	assert_true(put(p.a, "y", 2) < 0);
	wait_for(p.b, true, 0); /* which has asked for nothing */
	assert_int_equal(ask(p.a, "container", "x").answer, LEDGER_FOUND);
	redis_server_say(&p.server, "CONFIG SET maxmemory 0");
	wait_for(p.a, false, 0);
	assert_int_equal(put(p.a, "y", 2), 0);
	end(&p);
}

static void a_key_of_another_type_is_unknown_and_no_outage(void **state)
{
	struct pair p;
	struct ledger_status s;
	(void)state;
	begin_patient(&p);
	redis_server_say(&p.server, "SET test:entry:9:container:odd x");
	redis_server_say(&p.server, "SET test:group:other x");
	assert_int_equal(ask(p.a, "container", "odd").answer, LEDGER_UNKNOWN);
	assert_int_equal(ask(p.a, "other", NULL).answer, LEDGER_UNKNOWN);
	assert_int_not_equal(put(p.a, "odd", 1), 0);
	assert_int_equal(take_out(p.a, "odd", 0), 0); /* tried again until the key is removed */
	ledger_status(p.a, &s);
	assert_false(s.failing);
	assert_true(s.errors >= 4 && s.unwritten == 1);
	assert_int_equal(put(p.a, "x", 1), 0);
	assert_int_equal(ask(p.b, "container", "x").answer, LEDGER_FOUND);
	assert_int_equal(ask(p.a, "container", "never").answer, LEDGER_NONE);
	redis_server_say(&p.server, "DEL test:entry:9:container:odd");
	wait_for(p.a, false, 0);
	assert_int_equal(ask(p.a, "container", "odd").answer, LEDGER_NONE);
	end(&p);
}

static void nobody_is_told_none_by_a_server_that_says_something_else(void **state)
{
	static const char *const says[] = {
		"-LOADING Redis is loading the dataset in memory\r\n",
		"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
		"-NOPERM this user has no permissions to run the 'eval' command\r\n",
		"-MISCONF Errors writing to the AOF file\r\n",
		"*0\r\n",
		"$-1\r\n",
		":0\r\n",
		"+DONE\r\n",
	};
	(void)state;
	for (size_t i = 0; i < sizeof(says) / sizeof(says[0]); i++) {
		struct fake_redis f;
		fake_redis_start(&f, FAKE_SAYS, 1);
		f.says = says[i];
		struct ledger *l = replica(f.url);
		assert_int_equal(ask(l, "container", "x").answer, LEDGER_UNKNOWN);
		assert_true(put(l, "x", 1) < 0);
		ledger_stop(l);
		fake_redis_stop(&f);
	}
}

static void a_wrong_password_is_unknown_and_never_shown(void **state)
{
	struct redis_server s;
	struct ledger_status status;
	char url[512];
	(void)state;
	if (!redis_server_start(&s, "right"))
		skip();
	snprintf(url, sizeof(url), "unix://:wr0ng@%s", s.socket);
	const char *const urls[] = {s.url, url};
	for (size_t i = 0; i < 2; i++) {
		struct ledger *l = replica(urls[i]);
		assert_int_equal(ask(l, "container", "x").answer, LEDGER_UNKNOWN);
		assert_true(put(l, "x", 1) < 0);
		ledger_status(l, &status);
		assert_true(status.failing && status.last_error[0]);
		assert_null(strstr(status.last_error, "wr0ng"));
		assert_null(strstr(status.where, "wr0ng"));
		ledger_stop(l);
	}
	redis_server_stop(&s);
}

static void a_server_that_has_lost_its_memory_is_noticed(void **state)
{
	struct pair p;
	struct ledger_status s;
	(void)state;
	begin(&p);
	assert_int_equal(ask(p.a, "container", "x").answer, LEDGER_NONE); /* behind INFO */
	ledger_status(p.a, &s);
	assert_non_null(strstr(s.warning, "appendonly"));
	redis_server_kill(&p.server);
	wait_for(p.a, true, 0);
	redis_server_restart(&p.server);
	wait_for(p.a, false, 0);
	ledger_status(p.a, &s);
	assert_int_equal(s.losses, 1);
	end(&p);
}

static void a_server_that_may_evict_is_noticed(void **state)
{
	struct redis_server server;
	struct ledger_status s = {0};
	(void)state;
	if (!redis_server_start(&server, NULL))
		skip();
	redis_server_say(&server, "CONFIG SET maxmemory 100mb");
	redis_server_say(&server, "CONFIG SET maxmemory-policy volatile-lru");
	struct ledger *l = replica(server.url);
	assert_int_equal(ask(l, "container", "x").answer, LEDGER_NONE); /* behind INFO */
	ledger_status(l, &s);
	assert_non_null(strstr(s.warning, "evict"));
	ledger_stop(l);
	redis_server_stop(&server);
}

static void of_two_starts_at_once_one_goes_on_or_both_to_one_place(void **state)
{
	struct pair p;
	(void)state;
	begin(&p);
	assert_int_equal(start(p.a, "x", "celery", "turn of a"), 0);
	assert_int_equal(start(p.b, "x", "celery", "turn of b"), 0); /* to the same place */
	assert_int_equal(start(p.b, "x", "hatchet", "turn of c"), -EBUSY);
	assert_int_equal(start_on_legacy(p.b, "x", "turn of d"), -EBUSY);
	assert_string_equal(ask(p.a, "container", "x").entry.backend, "celery");
	leave(p.a, "x", "turn of a"); /* the newer one's goes on */
	assert_int_equal(start_on_legacy(p.a, "x", "turn of d"), -EBUSY);
	leave(p.b, "x", "turn of b");
	assert_int_equal(start_on_legacy(p.b, "x", "turn of d"), 0);
	assert_int_equal(ask(p.a, "container", "x").answer, LEDGER_NONE);
	assert_int_equal(start(p.a, "x", "celery", "turn of e"), -EBUSY);
	assert_int_equal(ask(p.a, "container", "x").answer, LEDGER_NONE);
	assert_int_equal(start(p.b, "x", "celery", "turn of d"), 0); /* its own: it falls back, or forth */
	end(&p);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_one_replica_writes_another_one_finds_at_once),
		cmocka_unit_test(a_group_is_known_to_have_nothing_when_its_last_key_is_gone),
		cmocka_unit_test(a_removal_takes_the_version_that_it_means_and_no_newer_one),
		cmocka_unit_test(of_two_starts_at_once_one_goes_on_or_both_to_one_place),
		cmocka_unit_test(a_frozen_server_is_unknown_and_what_was_given_up_is_never_made),
		cmocka_unit_test(a_removal_that_waits_spares_what_was_written_after_it),
		cmocka_unit_test(a_server_that_became_a_replica_is_not_believed),
		cmocka_unit_test(a_full_server_takes_nothing_and_still_answers),
		cmocka_unit_test(a_key_of_another_type_is_unknown_and_no_outage),
		cmocka_unit_test(nobody_is_told_none_by_a_server_that_says_something_else),
		cmocka_unit_test(a_wrong_password_is_unknown_and_never_shown),
		cmocka_unit_test(a_server_that_has_lost_its_memory_is_noticed),
		cmocka_unit_test(a_server_that_may_evict_is_noticed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
