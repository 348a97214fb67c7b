/* The Redis client over TLS, against a real server. The authority is made here by the openssl command. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/redis.h"
#include "support/redis_group.h"

#define PATIENCE_MS 60000

static const char *const make_certificates =
	"cd '%s' && exec >log 2>&1 && for a in ca other; do "
	"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $a.key -out $a.pem "
	"-days 2 "
	"-subj \"/CN=$a\"; done && for a in good named; do "
	"openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $a.key -out req.pem "
	"-subj '/CN=redis' && "
	"if [ $a = good ]; then echo subjectAltName=IP:127.0.0.1 >ext; "
	"else echo subjectAltName=DNS:another.example >ext; fi && "
	"openssl x509 -req -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out $a.pem -days 2 "
	"-extfile ext; done";

struct world {
	char folder[SCRATCH_MAX];
	struct redis_group group; /* of its servers only the two, one of them with another certificate */
	unsigned good, named, plain;
	struct loop *loop;
	struct redis *redis;
	struct loop_timer *guard;
	enum redis_outcome outcome;
	char text[1024];
	unsigned open, heard;
};

static void on_guard(void *arg)
{
	struct world *w = arg;
	fail_msg("nothing happened for 60 s; last: %s", w->text);
}

static void on_said(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		    const struct err *why)
{
	struct world *w = arg;
	w->outcome = outcome;
	span_copy(outcome == REDIS_ANSWERED ? redis_reply_text(reply) : span_of(why->text), w->text,
		  sizeof(w->text));
	if (--w->open == 0)
		loop_stop(w->loop);
}

static void wait_for(struct world *w)
{
	loop_timer_start(w->guard, PATIENCE_MS);
	loop_run(w->loop);
	loop_timer_stop(w->guard);
}

static void run(struct world *w, const char *line)
{
	struct span words[8];
	size_t n = 0;
	for (const char *at = line; *at; n++) {
		size_t length = strcspn(at, " ");
		words[n] = (struct span){at, length};
		at += length + (at[length] == ' ');
	}
	w->open = 1;
	redis_command(w->redis, words, n, 0, on_said, w);
	wait_for(w);
}

static int try_connect(struct world *w, unsigned port, const char *query, struct err *e)
{
	struct redis_url u;
	char url[1024];
	w->redis = redis_free(w->redis);
	snprintf(url, sizeof(url), "rediss://127.0.0.1:%u/0?%s", port, query);
	int r = redis_url_parse(span_of(url), &u, e);
	const struct redis_options o = {.url = &u,
					.command_timeout_ms = 20000,
					.connect_timeout_ms = 5000,
					.backoff_min_ms = 20,
					.backoff_max_ms = 100};
	if (r == 0)
		r = redis_new(w->loop, &o, &w->redis, e);
	redis_url_release(&u);
	return r;
}

/* @ in the query is the folder. */
static void connect_to(struct world *w, unsigned port, const char *query)
{
	char text[1024];
	struct err e = {""};
	size_t n = 0;
	for (const char *p = query; *p && n + SCRATCH_MAX < sizeof(text); p++) {
		if (*p == '@')
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", w->folder);
		else
			text[n++] = *p;
	}
	text[n] = '\0';
	if (try_connect(w, port, text, &e) < 0)
		fail_msg("%s", e.text);
}

static unsigned serve(struct world *w, struct group_server *s, const char *certificate, char *clients)
{
	char cert[64], key[64];
	snprintf(cert, sizeof(cert), "%s.pem", certificate);
	snprintf(key, sizeof(key), "%s.key", certificate);
	return group_serve_tls(s, w->folder, cert, key, clients);
}

static int setup(void **state)
{
	static struct world world;
	struct world *w = &world;
	char line[4096];
	*w = (struct world){.open = 0};
	scratch_make(w->folder);
	snprintf(line, sizeof(line), make_certificates, w->folder);
	assert_int_equal(system(line), 0);
	w->good = serve(w, &w->group.first, "good", "optional");
	w->named = serve(w, &w->group.second, "named", "yes");
	w->plain = w->group.first.port;
	assert_int_equal(loop_new(&w->loop), 0);
	assert_int_equal(loop_timer_new(w->loop, on_guard, w, &w->guard), 0);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	redis_free(w->redis);
	loop_timer_free(w->guard);
	loop_free(w->loop);
	group_kill(&w->group.first);
	group_kill(&w->group.second);
	scratch_remove(w->folder);
	return 0;
}

static void assert_refused(const struct world *w, const char *text)
{
	assert_int_equal(w->outcome, REDIS_NOT_SENT);
	if (!strstr(w->text, text))
		fail_msg("%s", w->text);
}

/* --- whom it believes ----------------------------------------------------------------------------------- */

static void a_server_is_believed_by_its_certificate_and_name(void **state)
{
	struct world *w = *state;
	connect_to(w, w->good, "ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=@/ca.pem");
	run(w, "PING");
	assert_string_equal(w->text, "PONG");
	connect_to(w, w->good, "ssl_ca_certs=@/other.pem");
	run(w, "SET it plain");
	assert_refused(w, "the server's certificate is not good");
	connect_to(w, w->good, "");
	run(w, "SET it plain");
	assert_refused(w, "the server's certificate is not good");
	connect_to(w, w->good, "ssl_cert_reqs=CERT_NONE");
	run(w, "GET it");
	assert_int_equal(w->outcome, REDIS_ANSWERED);
	assert_string_equal(w->text, "");
}

static void a_certificate_for_another_name_is_not_the_servers(void **state)
{
	struct world *w = *state;
	const char *mine = "&ssl_certfile=@/good.pem&ssl_keyfile=@/good.key&ssl_ca_certs=@/ca.pem";
	char query[256];
	snprintf(query, sizeof(query), "ssl_cert_reqs=required%s", mine);
	connect_to(w, w->named, query);
	run(w, "PING");
	assert_refused(w, "IP address mismatch");
	snprintf(query, sizeof(query), "ssl_check_hostname=false%s", mine);
	connect_to(w, w->named, query);
	run(w, "PING");
	assert_string_equal(w->text, "PONG");
}

static void a_server_that_wants_a_certificate_gets_it(void **state)
{
	struct world *w = *state;
	connect_to(w, w->named, "ssl_check_hostname=false&ssl_ca_certs=@/ca.pem");
	run(w, "PING");
	assert_int_equal(w->outcome, REDIS_NOT_SENT);
}

static void a_plain_server_gets_no_plain_command(void **state)
{
	struct world *w = *state;
	char answer[64];
	connect_to(w, w->plain, "ssl_cert_reqs=none");
	run(w, "SET plainly done");
	assert_refused(w, "Redis at 127.0.0.1");
	group_ask(&w->group.first, "EXISTS plainly", answer, sizeof(answer));
	assert_string_equal(answer, ":0\r\n");
}

static void files_that_cannot_be_used_are_named_at_the_start(void **state)
{
	struct world *w = *state;
	struct err e = {""};
	assert_true(try_connect(w, w->good, "ssl_ca_certs=/nowhere/ca.pem", &e) < 0);
	assert_non_null(strstr(e.text, "/nowhere/ca.pem"));
}

/* As it is when a certificate is renewed: the file is read for each connection. */
static void a_renewed_file_is_used_by_the_next_connection(void **state)
{
	struct world *w = *state;
	char line[2048];
	snprintf(line, sizeof(line), "cp '%s/other.pem' '%s/mine.pem'", w->folder, w->folder);
	assert_int_equal(system(line), 0);
	connect_to(w, w->good, "ssl_ca_certs=@/mine.pem");
	run(w, "PING");
	assert_refused(w, "not good");
	snprintf(line, sizeof(line), "cp '%s/ca.pem' '%s/mine.pem'", w->folder, w->folder);
	assert_int_equal(system(line), 0);
	for (int i = 0; i < 600 && w->outcome != REDIS_ANSWERED; i++) {
		poll(NULL, 0, 20);
		run(w, "PING");
	}
	assert_string_equal(w->text, "PONG");
}

/* --- what it carries ------------------------------------------------------------------------------------ */

#define PIECE (300u << 10)
#define PIECES 40

static void on_piece(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		     const struct err *why)
{
	struct world *w = arg;
	(void)why;
	assert_int_equal(outcome, REDIS_ANSWERED);
	if (redis_reply_type(reply) == REDIS_TEXT) {
		struct span text = redis_reply_text(reply);
		assert_int_equal(text.len, PIECE);
		assert_int_equal(text.ptr[0], text.ptr[PIECE - 1]);
		w->heard++;
	}
	if (--w->open == 0)
		loop_stop(w->loop);
}

static void much_goes_both_ways_whole(void **state)
{
	struct world *w = *state;
	char *piece = malloc(PIECE), keys[PIECES][16];
	connect_to(w, w->good, "ssl_ca_certs=@/ca.pem");
	w->heard = 0;
	w->open = 2 * PIECES;
	for (int i = 0; i < PIECES; i++) {
		snprintf(keys[i], sizeof(keys[i]), "piece-%d", i);
		memset(piece, 'a' + i % 26, PIECE);
		const struct span set[] = {SPAN_LIT("SET"), span_of(keys[i]), {piece, PIECE}},
				  get[] = {SPAN_LIT("GET"), span_of(keys[i])};
		redis_command(w->redis, set, 3, 0, on_piece, w);
		redis_command(w->redis, get, 2, 0, on_piece, w);
	}
	free(piece);
	wait_for(w);
	assert_int_equal(w->heard, PIECES);
}

static void on_ready(void *arg)
{
	struct world *w = arg;
	char answer[64];
	group_ask(&w->group.first, "PUBLISH news hello", answer, sizeof(answer));
	assert_string_equal(answer, ":1\r\n");
}

static void on_message(void *arg, struct span payload)
{
	struct world *w = arg;
	span_copy(payload, w->text, sizeof(w->text));
	loop_stop(w->loop);
}

static void what_is_published_is_heard(void **state)
{
	struct world *w = *state;
	const struct redis_listener listener = {on_ready, on_message};
	connect_to(w, w->good, "ssl_ca_certs=@/ca.pem");
	struct redis_subscription *s = redis_subscribe(w->redis, SPAN_LIT("news"), &listener, w);
	wait_for(w);
	assert_string_equal(w->text, "hello");
	redis_unsubscribe(s);
}

/* Not only the end of the connection: what a server that has gone could not read is not written. */
static void a_connection_that_the_server_closes_is_made_anew(void **state)
{
	struct world *w = *state;
	char answer[64];
	connect_to(w, w->good, "ssl_ca_certs=@/ca.pem");
	for (int i = 0; i < 20; i++) {
		run(w, "PING");
		assert_string_equal(w->text, "PONG");
		group_ask(&w->group.first, "CLIENT KILL TYPE normal SKIPME yes", answer, sizeof(answer));
		run(w, "INCR after-a-kill");
		for (int tries = 0; tries < 600 && w->outcome == REDIS_NOT_SENT; tries++) {
			poll(NULL, 0, 20);
			run(w, "INCR after-a-kill");
		}
		if (w->outcome != REDIS_ANSWERED)
			fail_msg("%s", w->text);
	}
	run(w, "GET after-a-kill");
	assert_string_equal(w->text, "20");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_server_is_believed_by_its_certificate_and_name),
		cmocka_unit_test(a_certificate_for_another_name_is_not_the_servers),
		cmocka_unit_test(a_server_that_wants_a_certificate_gets_it),
		cmocka_unit_test(a_plain_server_gets_no_plain_command),
		cmocka_unit_test(files_that_cannot_be_used_are_named_at_the_start),
		cmocka_unit_test(a_renewed_file_is_used_by_the_next_connection),
		cmocka_unit_test(much_goes_both_ways_whole),
		cmocka_unit_test(what_is_published_is_heard),
		cmocka_unit_test(a_connection_that_the_server_closes_is_made_anew),
	};
	signal(SIGPIPE, SIG_IGN);
	if (system("command -v openssl redis-server >/dev/null 2>&1") != 0) {
		printf("skipped: no openssl command, or no redis-server\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
