/* The Redis client against a real server, one that dies, and one that misbehaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/redis.h"
#include "support/redis_server.h"

/* --- addresses ------------------------------------------------------------------------------------------ */

static void addresses(void **state)
{
	static const struct {
		const char *url, *where, *user, *password, *complaint;
	} cases[] = {
		{"redis://", "127.0.0.1:6379/0", NULL, NULL, NULL},
		{"redis://cache", "cache:6379/0", NULL, NULL, NULL},
		{"redis://cache:6380", "cache:6380/0", NULL, NULL, NULL},
		{"redis://cache:6380/", "cache:6380/0", NULL, NULL, NULL},
		{"redis://cache//3", "cache:6379/3", NULL, NULL, NULL},
		{"valkey://cache/3", "cache:6379/3", NULL, NULL, NULL},
		{"redis://:pass@cache/3", "cache:6379/3", NULL, "pass", NULL},
		{"redis://joe:pass@cache:1/3", "cache:1/3", "joe", "pass", NULL},
		{"redis://jo%65:p%40ss%3a%2F@cache:1/3", "cache:1/3", "joe", "p@ss:/", NULL},
		{"redis://:a@b:c@cache", "cache:6379/0", NULL, "a@b:c", NULL},
		{"redis://[::1]:7000/2", "::1:7000/2", NULL, NULL, NULL},
		{"redis://[::1]", "::1:6379/0", NULL, NULL, NULL},
		{"redis://cache/0?socket_timeout=5&db=4", "cache:6379/4", NULL, NULL, NULL},
		{"redis+socket:///run/redis%20a.sock?virtual_host=2", "/run/redis a.sock db 2", NULL, NULL,
		 NULL},
		{"unix:///run/r.sock?db=1&password=x%26y", "/run/r.sock db 1", NULL, "x&y", NULL},
		{"socket://:pw@/run/r.sock", "/run/r.sock db 0", NULL, "pw", NULL},
#ifdef REDIS_HAS_TLS
		{"rediss://:pw@cache/2", "cache:6379/2", NULL, "pw", NULL},
		{"rediss://cache/0?ssl_cert_reqs=CERT_NONE", "cache:6379/0", NULL, NULL, NULL},
		{"rediss://cache/0?ssl_cert_reqs=maybe", NULL, NULL, NULL, "ssl_cert_reqs must be"},
		{"rediss://cache/0?ssl_ciphers=secret", NULL, NULL, NULL, "ssl_ciphers is not supported"},
		{"rediss://cache/0?ssl_check_hostname=perhaps", NULL, NULL, NULL, "true or false"},
		{"rediss://cache/0?ssl_certfile=/a", NULL, NULL, NULL, "belong together"},
		{"sentinel://a?ssl_cert_reqs=required", "?/0 (Sentinel a:26379)", NULL, NULL, NULL},
#else
		{"rediss://:secret@cache/0", NULL, NULL, NULL, "rediss:// (TLS) is not supported"},
		{"valkeys://:secret@cache/0", NULL, NULL, NULL, "TLS proxy"},
		{"sentinel://:secret@a?ssl_cert_reqs=required", NULL, NULL, NULL, "TLS proxy"},
		{"sentinel://:secret@a?sentinel_ssl=true", NULL, NULL, NULL, "TLS proxy"},
#endif
		{"redis://:secret@cache/0?ssl_cert_reqs=none", NULL, NULL, NULL, "needs rediss://"},
		{"sentinel://cache", "?/0 (Sentinel cache:26379)", NULL, NULL, NULL},
		{"sentinel://:pw@a:1/3;sentinel://b:2;sentinel://[::1]:3/3", "?/3 (Sentinel a:1)", NULL, "pw",
		 NULL},
		{"sentinel://joe:pw@a;sentinel://joe:pw@b?master_name=m", "m/0 (Sentinel a:26379)", "joe",
		 "pw", NULL},
		{"sentinel://a;sentinel://:secret@b", NULL, NULL, NULL, "first Sentinel"},
		{"sentinel://a/1;sentinel://b/2", NULL, NULL, NULL, "first Sentinel"},
		{"sentinel://a?master_name=x;sentinel://b?master_name=y", NULL, NULL, NULL,
		 "different names"},
		{"sentinel://a;redis://:secret@b", NULL, NULL, NULL, "several servers"},
		{"sentinel://a?sentinel_ssl=secret", NULL, NULL, NULL, "true or false"},
		{"amqp://guest:secret@rabbit", NULL, NULL, NULL, "redis://"},
		{"redis://:secret@a/0;redis://:secret@b/0", NULL, NULL, NULL, "several servers"},
		{"redis://:secret@cache:port/0", NULL, NULL, NULL, "port"},
		{"redis://:secret@cache:0/0", NULL, NULL, NULL, "port"},
		{"redis://:secret@cache:70000/0", NULL, NULL, NULL, "port"},
		{"redis://:secret@cache/x", NULL, NULL, NULL, "database"},
		{"redis://:50%@cache", "cache:6379/0", NULL, "50%", NULL}, /* as Celery reads it */
		{"redis://:a%4@cache", "cache:6379/0", NULL, "a%4", NULL},
		{"redis://:a%zzb%25@cache", "cache:6379/0", NULL, "a%zzb%", NULL},
		{"redis://:secret%00@cache", NULL, NULL, NULL, "percent-encoding"},
		{"redis://:secret@[::1/0", NULL, NULL, NULL, "bracket"},
		{"redis+socket://secret", NULL, NULL, NULL, "absolute path"},
		{"secret", NULL, NULL, NULL, "expected a URL"},
		{"", NULL, NULL, NULL, "expected a URL"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct redis_url u;
		struct err e = {""};
		char where[REDIS_WHERE_MAX];
		int r = redis_url_parse(span_of(cases[i].url), &u, &e);
		if (cases[i].complaint) {
			assert_true(r < 0);
			assert_non_null(strstr(e.text, cases[i].complaint));
			assert_null(strstr(e.text, "secret"));
			continue;
		}
		assert_string_equal(e.text, "");
		assert_int_equal(r, 0);
		redis_url_where(&u, where);
		assert_string_equal(where, cases[i].where);
		assert_true(u.user == NULL ? cases[i].user == NULL : strcmp(u.user, cases[i].user) == 0);
		assert_true(u.password == NULL ? cases[i].password == NULL
					       : strcmp(u.password, cases[i].password) == 0);
		redis_url_release(&u);
	}
}

/* --- a client on a loop --------------------------------------------------------------------------------- */

struct world {
	struct redis_server server;
	struct loop *loop;
	struct redis *redis;
	struct loop_timer *guard;
	unsigned waiting; /* for so many events; then the loop stops */
	enum redis_outcome outcome;
	char text[1024];
	int64_t integer;
	enum redis_type type;
	char states[64]; /* i c r d */
};

static void on_guard(void *arg)
{
	(void)arg;
	fail_msg("nothing happened for 20 s");
}

static void happened(struct world *w)
{
	if (w->waiting && --w->waiting == 0)
		loop_stop(w->loop);
}

static void wait_for(struct world *w, unsigned events)
{
	w->waiting = events;
	loop_timer_start(w->guard, 20000);
	loop_run(w->loop);
	assert_int_equal(w->waiting, 0);
}

static void on_state(void *arg, enum redis_state s, const char *why)
{
	struct world *w = arg;
	size_t n = strlen(w->states);
	assert_true((s == REDIS_READY) == (why[0] == '\0') || s == REDIS_CONNECTING);
	if (n + 1 < sizeof(w->states))
		w->states[n] = "icrd"[s];
}

static void connect_to(struct world *w, const char *url, unsigned command_timeout_ms)
{
	struct redis_url u;
	struct err e;
	assert_int_equal(redis_url_parse(span_of(url), &u, &e), 0);
	const struct redis_options o = {.url = &u,
					.on_state = on_state,
					.arg = w,
					.command_timeout_ms = command_timeout_ms,
					.connect_timeout_ms = 1000,
					.backoff_min_ms = 20,
					.backoff_max_ms = 40};
	assert_int_equal(redis_new(w->loop, &o, &w->redis, &e), 0);
	redis_url_release(&u);
}

static int setup_loop(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	assert_int_equal(loop_new(&w->loop), 0);
	assert_int_equal(loop_timer_new(w->loop, on_guard, w, &w->guard), 0);
	*state = w;
	return 0;
}

static int setup(void **state)
{
	setup_loop(state);
	struct world *w = *state;
	assert_true(redis_server_start(&w->server, NULL));
	connect_to(w, w->server.url, 15000);
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	redis_free(w->redis);
	loop_timer_free(w->guard);
	loop_free(w->loop);
	if (w->server.folder[0])
		redis_server_stop(&w->server);
	free(w);
	return 0;
}

static void on_reply(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		     const struct err *why)
{
	struct world *w = arg;
	w->outcome = outcome;
	w->type = redis_reply_type(reply);
	w->integer = redis_reply_integer(reply);
	span_copy(outcome == REDIS_ANSWERED ? redis_reply_text(reply) : span_of(why->text), w->text,
		  sizeof(w->text));
	happened(w);
}

static void send(struct world *w, const char *line, unsigned timeout_ms)
{
	struct span words[8];
	size_t n = 0;
	for (const char *at = line; *at; n++) {
		size_t length = strcspn(at, " ");
		words[n] = (struct span){at, length};
		at += length + (at[length] == ' ');
	}
	redis_command(w->redis, words, n, timeout_ms, on_reply, w);
}

static void ask(struct world *w, const char *line)
{
	send(w, line, 0);
	wait_for(w, 1);
}

static void commands_and_replies(void **state)
{
	struct world *w = *state;
	assert_int_equal(redis_state(w->redis), REDIS_IDLE);
	ask(w, "SET key value");
	assert_int_equal(w->outcome, REDIS_ANSWERED);
	assert_int_equal(w->type, REDIS_STATUS);
	assert_string_equal(w->states, "cr");
	ask(w, "GET key");
	assert_int_equal(w->type, REDIS_TEXT);
	assert_string_equal(w->text, "value");
	ask(w, "GET nothing");
	assert_int_equal(w->type, REDIS_NIL);
	ask(w, "LPUSH list a b");
	assert_int_equal(w->integer, 2);
	ask(w, "LRANGE list 0 1");
	assert_int_equal(w->type, REDIS_ARRAY);
	ask(w, "LPUSH key a");
	assert_int_equal(w->outcome, REDIS_ANSWERED);
	assert_int_equal(w->type, REDIS_ERROR);
	assert_non_null(strstr(w->text, "WRONGTYPE"));
}

static void a_large_value_both_ways(void **state)
{
	struct world *w = *state;
	size_t size = 20u << 20;
	char *value = malloc(size);
	memset(value, 'v', size);
	const struct span set[] = {SPAN_LIT("SET"), SPAN_LIT("big"), {value, size}};
	redis_command(w->redis, set, 3, 0, on_reply, w);
	free(value);
	wait_for(w, 1);
	assert_int_equal(w->type, REDIS_STATUS);
	ask(w, "STRLEN big");
	assert_int_equal(w->integer, (int64_t)size);
	ask(w, "GET big");
	assert_int_equal(w->type, REDIS_TEXT);
	assert_int_equal(strlen(w->text), sizeof(w->text) - 1);
}

static void the_database_of_the_url(void **state)
{
	struct world *w = *state;
	ask(w, "SET where zero");
	redis_free(w->redis);
	char url[160];
	snprintf(url, sizeof(url), "%s?virtual_host=5", w->server.url);
	connect_to(w, url, 0);
	ask(w, "EXISTS where");
	assert_int_equal(w->integer, 0);
	redis_free(w->redis);
	snprintf(url, sizeof(url), "%s?virtual_host=99", w->server.url);
	connect_to(w, url, 0);
	ask(w, "SET where lost");
	assert_int_equal(w->outcome, REDIS_NOT_SENT); /* never in another database */
	assert_non_null(strstr(w->text, "DB index is out of range"));
}

static void passwords(void **state)
{
	struct world *w = *state;
	char url[160];
	assert_true(redis_server_start(&w->server, "se@cret"));
	const struct {
		const char *query;
		bool good;
	} cases[] = {{"password=se%40cret", true},
		     {"username=default&password=se%40cret", true},
		     {"password=wrong", false},
		     {"username=eve&password=se%40cret", false},
		     {"", false}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(url, sizeof(url), "%s?%s", w->server.url, cases[i].query);
		connect_to(w, url, 0);
		ask(w, "SET k v");
		assert_int_equal(w->outcome, cases[i].good ? REDIS_ANSWERED : REDIS_NOT_SENT);
		assert_true(cases[i].good || strstr(w->text, "WRONGPASS") || strstr(w->text, "NOAUTH"));
		assert_null(strstr(w->text, "wrong"));
		w->redis = redis_free(w->redis);
	}
}

/* --- answers about the server --------------------------------------------------------------------------- */

/* A failover behind a name: the kept connection leads to what is a replica now, the name to the new
 * primary. */
static void a_failover_is_followed(void **state)
{
	struct world *w = *state;
	struct redis_server primary;
	assert_true(redis_server_start(&primary, NULL));
	ask(w, "SET key old");
	redis_server_say(&w->server, "REPLICAOF 127.0.0.1 1");
	assert_int_equal(rename(primary.socket, w->server.socket), 0);
	send(w, "SET key new", 0);
	send(w, "GET key", 0); /* under way when the first is refused */
	wait_for(w, 2);
	assert_string_equal(w->states, "crd");
	assert_int_equal(w->outcome, REDIS_ANSWERED);
	assert_string_equal(w->text, "old");
	for (ask(w, "SET key new"); w->outcome == REDIS_NOT_SENT; ask(w, "SET key new"))
		assert_non_null(strstr(w->text, "READONLY")); /* why nobody is asked meanwhile */
	assert_int_equal(w->type, REDIS_STATUS);
	assert_string_equal(w->states, "crdcr");
	redis_server_stop(&primary);
}

static void some_errors_condemn_a_connection(void **state)
{
	static const struct {
		const char *says, *states;
	} cases[] = {
		{"-READONLY You can't write against a read only replica.\r\n", "crd"},
		{"-LOADING Redis is loading the dataset in memory\r\n", "crd"},
		{"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
		 "crd"},
		{"-NOAUTH Authentication required.\r\n", "crd"},
		{"-NOREPLICAS Not enough good replicas to write.\r\n", "crd"},
		{"-CLUSTERDOWN The cluster is down\r\n", "crd"},
		{"-NOAUTH\r\n", "crd"},
		{"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", "cr"},
		{"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "cr"},
		{"-READONLYISH something else\r\n", "cr"},
		{"-ERR unknown command\r\n", "cr"},
	};
	struct world *w = *state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fake_redis fake;
		fake_redis_start(&fake, FAKE_SAYS, sizeof("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n") - 1);
		fake.says = cases[i].says;
		memset(w->states, 0, sizeof(w->states));
		connect_to(w, fake.url, 5000);
		ask(w, "GET k");
		assert_int_equal(w->outcome, REDIS_ANSWERED);
		assert_int_equal(w->type, REDIS_ERROR);
		assert_string_equal(w->states, cases[i].states);
		w->redis = redis_free(w->redis);
		fake_redis_stop(&fake);
	}
}

/* --- what was written ----------------------------------------------------------------------------------- */

static void send_large(struct world *w, size_t size, unsigned timeout_ms)
{
	char *value = calloc(1, size);
	const struct span push[] = {SPAN_LIT("LPUSH"), SPAN_LIT("queue"), {value, size}};
	redis_command(w->redis, push, 3, timeout_ms, on_reply, w);
	free(value);
	wait_for(w, 1);
}

static void written_and_unanswered_is_told_so(void **state)
{
	struct world *w = *state;
	const enum fake_does both[] = {FAKE_CLOSES, FAKE_SAYS_NOTHING};
	for (size_t i = 0; i < 2; i++) {
		struct fake_redis fake;
		fake_redis_start(&fake, both[i],
				 sizeof("*3\r\n$5\r\nLPUSH\r\n$5\r\nqueue\r\n$1000\r\n") - 1 + 1000 + 2);
		connect_to(w, fake.url, 300);
		send_large(w, 1000, 0);
		assert_int_equal(w->outcome, REDIS_NO_REPLY);
		assert_non_null(strstr(w->text, "may have been executed"));
		w->redis = redis_free(w->redis);
		fake_redis_stop(&fake);
	}
}

static void what_was_cut_off_cannot_have_run(void **state)
{
	struct world *w = *state;
	const enum fake_does both[] = {FAKE_CLOSES, FAKE_SAYS_NOTHING};
	for (size_t i = 0; i < 2; i++) {
		struct fake_redis fake;
		fake_redis_start(&fake, both[i], 100000);
		connect_to(w, fake.url, 500);
		send_large(w, 32u << 20, 0);
		assert_int_equal(w->outcome, REDIS_NOT_SENT);
		assert_null(strstr(w->text, "may have been executed"));
		w->redis = redis_free(w->redis);
		fake_redis_stop(&fake);
	}
}

static void nobody_there_is_told_at_once(void **state)
{
	struct world *w = *state;
	struct fake_redis fake;
	fake_redis_start(&fake, FAKE_CLOSES, 1);
	fake_redis_stop(&fake); /* its port is free now */
	connect_to(w, fake.url, 5000);
	int64_t begin = clock_mono_ms();
	for (int i = 0; i < 50; i++) {
		ask(w, "PING");
		assert_int_equal(w->outcome, REDIS_NOT_SENT);
		assert_non_null(strstr(w->text, "refused"));
	}
	assert_true(clock_mono_ms() - begin < 20000); /* 50 waits for a connection, of 1 s each, are more */
	assert_memory_equal(w->states, "cd", 2);
}

static void names_are_resolved(void **state)
{
	struct world *w = *state;
	struct fake_redis fake;
	char url[64];
	fake_redis_start(&fake, FAKE_SAYS_NOTHING, 100000);
	/* ::1 comes first, where there is nobody */
	snprintf(url, sizeof(url), "redis://localhost:%u", fake.port);
	connect_to(w, url, 300);
	send(w, "GET a", 0);
	wait_for(w, 1);
	assert_int_equal(w->outcome, REDIS_NO_REPLY);
	redis_free(w->redis);
	fake_redis_stop(&fake);
	connect_to(w, "redis://no-such-host.invalid", 300);
	ask(w, "GET a");
	assert_int_equal(w->outcome, REDIS_NOT_SENT);
	redis_free(w->redis);
	connect_to(w, "redis://no-such-host.invalid", 300);
	redis_command(w->redis, (const struct span[]){SPAN_LIT("PING")}, 1, 0, on_reply, w);
	w->redis = redis_free(w->redis); /* while it is being resolved */
}

static void a_late_answer_belongs_to_nobody(void **state)
{
	struct world *w = *state;
	ask(w, "SET k v");
	send(w, "BLPOP nothing 30", 150);
	wait_for(w, 1);
	assert_int_equal(w->outcome, REDIS_NO_REPLY);
	do
		ask(w, "GET k"); /* refused for a moment: the connection did not live for a second */
	while (w->outcome == REDIS_NOT_SENT);
	assert_string_equal(w->text, "v");
}

static void a_killed_server_comes_back(void **state)
{
	struct world *w = *state;
	ask(w, "SET k v");
	redis_server_kill(&w->server);
	do
		ask(w, "GET k");
	while (w->outcome == REDIS_ANSWERED);
	redis_server_restart(&w->server);
	int64_t begin = clock_mono_ms();
	do
		ask(w, "PING");
	while (w->outcome != REDIS_ANSWERED && clock_mono_ms() - begin < 20000);
	assert_int_equal(w->outcome, REDIS_ANSWERED);
}

struct going {
	struct world *world;
	struct fake_redis fake;
};

static void go_and_send(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			const struct err *why)
{
	struct going *g = arg;
	(void)reply, (void)why;
	assert_int_equal(outcome, REDIS_ANSWERED);
	fake_redis_stop(&g->fake);
	send(g->world, "LPUSH queue message", 0);
}

/* It goes after the loop has looked for the last time before the command is written, as on a busy machine:
 * what nobody can have read is not said to have been written. */
static void what_a_server_that_has_gone_cannot_read_is_not_sent(void **state)
{
	struct going g = {.world = *state};
	const struct span get[] = {SPAN_LIT("GET"), SPAN_LIT("k")};
	fake_redis_start(&g.fake, FAKE_SAYS, sizeof("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n") - 1);
	g.fake.says = "+1\r\n";
	connect_to(g.world, g.fake.url, 1000);
	redis_command(g.world->redis, get, 2, 0, go_and_send, &g);
	wait_for(g.world, 1);
	assert_int_equal(g.world->outcome, REDIS_NOT_SENT);
}

static void free_in_callback(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			     const struct err *why)
{
	struct world *w = arg;
	(void)outcome, (void)reply, (void)why;
	w->redis = redis_free(w->redis);
	happened(w);
}

static void freed_from_within_its_callback(void **state)
{
	struct world *w = *state;
	const struct span ping[] = {SPAN_LIT("PING")};
	for (int i = 0; i < 10; i++)
		redis_command(w->redis, ping, 1, 0, i == 4 ? free_in_callback : NULL, w);
	wait_for(w, 1);
	assert_null(w->redis);
	connect_to(w, "redis://127.0.0.1:1", 100); /* and when it is told of a loss */
	redis_command(w->redis, ping, 1, 0, free_in_callback, w);
	redis_command(w->redis, ping, 1, 0, on_reply, w);
	wait_for(w, 1);
	assert_null(w->redis);
}

static void cancelled_commands_are_silent(void **state)
{
	struct world *w = *state;
	const struct span incr[] = {SPAN_LIT("INCR"), SPAN_LIT("n")};
	redis_call_cancel(redis_command(w->redis, incr, 2, 0, free_in_callback, w));
	ask(w, "GET n");
	assert_string_equal(w->text, "1");
}

/* --- subscriptions -------------------------------------------------------------------------------------- */

#define CHANNELS 500

struct listener {
	struct world *w;
	struct redis_subscription *s;
	unsigned ready, messages;
	char last[32];
	bool leaves; /* after one message */
};

static void on_ready(void *arg)
{
	struct listener *l = arg;
	l->ready++;
	happened(l->w);
}

static void on_message(void *arg, struct span payload)
{
	struct listener *l = arg;
	l->messages++;
	span_copy(payload, l->last, sizeof(l->last));
	if (l->leaves)
		l->s = redis_unsubscribe(l->s);
	happened(l->w);
}

static const struct redis_listener listener = {.ready = on_ready, .message = on_message};

static struct redis *new_commands(struct world *w)
{
	struct redis *subscriber = w->redis;
	connect_to(w, w->server.url, 0);
	return subscriber;
}

static void publish(struct world *w, const char *channel, const char *text)
{
	const struct span words[] = {SPAN_LIT("PUBLISH"), span_of(channel), span_of(text)};
	redis_command(w->redis, words, 3, 0, NULL, NULL);
}

static void many_channels(void **state)
{
	struct world *w = *state;
	struct redis *subscriber = new_commands(w);
	static struct listener l[CHANNELS];
	memset(l, 0, sizeof(l));
	char name[16];
	for (int i = 0; i < CHANNELS; i++) {
		snprintf(name, sizeof(name), "c%d", i);
		l[i] = (struct listener){.w = w, .leaves = true};
		l[i].s = redis_subscribe(subscriber, span_of(name), &listener, &l[i]);
	}
	wait_for(w, CHANNELS);
	for (int i = 0; i < CHANNELS; i++) {
		snprintf(name, sizeof(name), "c%d", i);
		publish(w, name, name);
	}
	wait_for(w, CHANNELS);
	for (int i = 0; i < CHANNELS; i++) {
		snprintf(name, sizeof(name), "c%d", i);
		assert_int_equal(l[i].ready, 1);
		assert_int_equal(l[i].messages, 1);
		assert_string_equal(l[i].last, name);
	}
	/* All have left; some channels stay on the wire until there are others. */
	do
		ask(w, "PUBLISH c0 anybody");
	while (w->integer != 0);
	struct listener again = {.w = w};
	again.s = redis_subscribe(subscriber, SPAN_LIT("c0"), &listener, &again);
	wait_for(w, 1);
	publish(w, "c0", "second");
	wait_for(w, 1);
	assert_string_equal(again.last, "second");
	assert_int_equal(l[0].messages, 1);
	redis_unsubscribe(again.s);
	redis_free(subscriber);
}

static void several_listeners_share_a_channel(void **state)
{
	struct world *w = *state;
	struct redis *subscriber = new_commands(w);
	struct listener a = {.w = w, .leaves = true}, b = {.w = w}, c = {.w = w, .leaves = true};
	a.s = redis_subscribe(subscriber, SPAN_LIT("shared"), &listener, &a);
	b.s = redis_subscribe(subscriber, SPAN_LIT("shared"), &listener, &b);
	wait_for(w, 2);
	c.s = redis_subscribe(subscriber, SPAN_LIT("shared"), &listener, &c); /* confirmed already */
	assert_int_equal(c.ready, 0);
	wait_for(w, 1);
	assert_int_equal(c.ready, 1);
	publish(w, "shared", "one");
	wait_for(w, 3);
	publish(w, "shared", "two");
	wait_for(w, 1);
	assert_int_equal(a.messages + c.messages, 2);
	assert_string_equal(b.last, "two");
	redis_unsubscribe(b.s);
	redis_free(subscriber);
}

static void leaving_and_coming_back_at_once(void **state)
{
	struct world *w = *state;
	struct redis *subscriber = new_commands(w);
	struct listener a = {.w = w}, other = {.w = w};
	other.s = redis_subscribe(subscriber, SPAN_LIT("other"), &listener, &other);
	wait_for(w, 1);
	for (int i = 0; i < 20; i++) {
		a.s = redis_subscribe(subscriber, SPAN_LIT("c"), &listener, &a);
		redis_unsubscribe(a.s);
	}
	a.s = redis_subscribe(subscriber, SPAN_LIT("c"), &listener, &a);
	wait_for(w, 1);
	assert_int_equal(a.ready, 1);
	publish(w, "c", "heard");
	wait_for(w, 1);
	assert_string_equal(a.last, "heard");
	redis_unsubscribe(a.s);
	redis_unsubscribe(other.s);
	redis_free(subscriber);
}

static void subscriptions_are_made_again(void **state)
{
	struct world *w = *state;
	struct redis *subscriber = new_commands(w);
	struct listener a = {.w = w}, b = {.w = w};
	a.s = redis_subscribe(subscriber, SPAN_LIT("a"), &listener, &a);
	b.s = redis_subscribe(subscriber, SPAN_LIT("b"), &listener, &b);
	wait_for(w, 2);
	ask(w, "CLIENT KILL TYPE pubsub");
	assert_int_equal(w->integer, 1);
	while (a.ready < 2 || b.ready < 2)
		wait_for(w, 1);
	publish(w, "a", "again");
	while (!a.messages)
		wait_for(w, 1);
	assert_string_equal(a.last, "again");
	redis_unsubscribe(a.s);
	redis_unsubscribe(b.s);
	redis_free(subscriber);
}

struct ender {
	struct world *w;
	struct redis *subscriber;
	struct redis_subscription *s[3];
	unsigned told;
};

static void on_end(void *arg, struct span payload)
{
	struct ender *e = arg;
	(void)payload;
	e->told++;
	for (size_t i = 0; i < 3; i++)
		e->s[i] = redis_unsubscribe(e->s[i]);
	e->subscriber = redis_free(e->subscriber);
	happened(e->w);
}

static void on_end_ready(void *arg)
{
	struct ender *e = arg;
	happened(e->w);
}

static const struct redis_listener ender = {.ready = on_end_ready, .message = on_end};

static void everything_may_go_within_a_message(void **state)
{
	struct world *w = *state;
	struct ender e = {.w = w, .subscriber = new_commands(w)};
	for (size_t i = 0; i < 3; i++)
		e.s[i] = redis_subscribe(e.subscriber, i < 2 ? SPAN_LIT("end") : SPAN_LIT("other"), &ender,
					 &e);
	wait_for(w, 3);
	publish(w, "end", "now");
	wait_for(w, 1);
	assert_int_equal(e.told, 1);
	ask(w, "PING");
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	crypto_setup();
#define WITH_SERVER(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define WITHOUT(f) cmocka_unit_test_setup_teardown(f, setup_loop, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses),
		WITH_SERVER(commands_and_replies),
		WITH_SERVER(a_large_value_both_ways),
		WITH_SERVER(the_database_of_the_url),
		WITHOUT(passwords),
		WITH_SERVER(a_failover_is_followed),
		WITHOUT(some_errors_condemn_a_connection),
		WITHOUT(written_and_unanswered_is_told_so),
		WITHOUT(what_was_cut_off_cannot_have_run),
		WITHOUT(nobody_there_is_told_at_once),
		WITHOUT(names_are_resolved),
		WITH_SERVER(a_late_answer_belongs_to_nobody),
		WITH_SERVER(a_killed_server_comes_back),
		WITHOUT(what_a_server_that_has_gone_cannot_read_is_not_sent),
		WITH_SERVER(freed_from_within_its_callback),
		WITH_SERVER(cancelled_commands_are_silent),
		WITH_SERVER(many_channels),
		WITH_SERVER(several_listeners_share_a_channel),
		WITH_SERVER(leaving_and_coming_back_at_once),
		WITH_SERVER(subscriptions_are_made_again),
		WITH_SERVER(everything_may_go_within_a_message),
	};
	struct redis_server probe;
	if (!redis_server_start(&probe, NULL)) {
		print_message("there is no redis-server\n");
		return 77;
	}
	redis_server_stop(&probe);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
