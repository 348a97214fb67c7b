/* legacy: calls against a scripted service that counts what it executes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "support/legacy_scene.h"

/* Sends a whole request and runs until its answer has been read or it has failed. */
static void exchange(struct scene *t, struct seen *s, const char *method, const char *body)
{
	struct legacy_request r = simple_request(method, "/x?y=1");
	if (body) {
		r.has_body = r.has_length = true;
		r.content_length = (int64_t)strlen(body);
	}
	*s = (struct seen){.piece = body, .piece_length = body ? strlen(body) : 0, .end_after = true};
	s->to_send = s->piece_length;
	seen_start(s, &t->client, &r);
	if (body)
		seen_send(s);
	assert_true(seen_run(s));
}

static bool idle_until(struct client *c, const atomic_int *value, int wanted)
{
	for (int i = 0; i < 2000 && atomic_load(value) != wanted; i++)
		client_run_ms(c, 5);
	return atomic_load(value) == wanted;
}

/* --- what goes out and comes in ---------------------------------------------------------------------- */

static const char *const first_answer =
	"HTTP/1.1 207 Fine indeed\r\nX-A: 1\r\nset-cookie: b\r\nSet-Cookie:  a \r\nX-A: 2\r\n"
	"X-Empty:\r\nContent-Length: 5\r\n\r\nhello";

static void echo_head(struct raw_origin *o, int fd, int index)
{
	(void)index;
	char head[4096];
	while (raw_read_head(o, fd, head, sizeof(head))) {
		memcpy(o->arg, head, strlen(head) + 1);
		raw_puts(fd, first_answer);
	}
}

static void passes_requests_and_answers_as_they_are(void **state)
{
	(void)state;
	char head[4096] = "";
	struct scene t;
	open_scene(&t, echo_head, head, NULL);
	const struct http_field fields[] = {
		{SPAN_LIT("Host"), SPAN_LIT("a.example:80")},
		{SPAN_LIT("x-B"), SPAN_LIT("2")},
		{SPAN_LIT("X-b"), SPAN_LIT("")},
		{SPAN_LIT("Content-Length"), SPAN_LIT("77")},
		{SPAN_LIT("Transfer-Encoding"), SPAN_LIT("x")},
		{SPAN_LIT("Connection"), SPAN_LIT("close")},
		{SPAN_LIT("X-High"), SPAN_LIT("\xe9")},
	};
	struct legacy_request r = simple_request("PROPFIND", "/a//b/../%2e?x=%00&\xff");
	r.fields = fields;
	r.n_fields = sizeof(fields) / sizeof(fields[0]);
	struct seen s = {0};
	seen_start(&s, &t.client, &r);
	assert_true(seen_run(&s));
	assert_int_equal(s.heads, 1);
	assert_int_equal(s.status, 207);
	assert_int_equal(s.length, 5);
	assert_string_equal(s.head.ptr,
			    "X-A: 1\nset-cookie: b\nSet-Cookie: a\nX-A: 2\nX-Empty: \nContent-Length: 5\n");
	assert_string_equal(s.body.ptr, "hello");
	assert_true(s.ended);
	seen_free(&s);
	close_scene(&t); /* and its threads have ended */
	assert_string_equal(
		head, "PROPFIND /a//b/../%2e?x=%00&\xff HTTP/1.1\r\nHost: a.example:80\r\nx-B: 2\r\nX-b: \r\n"
		      "X-High: \xe9\r\n\r\n");
}

static void keeps_connections(void **state)
{
	(void)state;
	char head[4096];
	struct scene t;
	open_scene(&t, echo_head, head, NULL);
	for (int i = 0; i < 20; i++) {
		struct seen s;
		exchange(&t, &s, "GET", NULL);
		assert_true(s.ended);
		assert_string_equal(s.body.ptr, "hello");
		seen_free(&s);
	}
	assert_int_equal(atomic_load(&t.origin->connections), 1);
	assert_int_equal(atomic_load(&t.origin->requests), 20);
	assert_int_equal(legacy_upstream_connections(t.client.upstream), 1);
	legacy_upstream_close_kept(t.client.upstream);
	assert_int_equal(legacy_upstream_connections(t.client.upstream), 0);
	close_scene(&t);
}

/* --- a kept connection that has died ----------------------------------------------------------------- */

/* First request of the first connection is answered; what happens to the next is `arg`. Others are answered.
 */
enum death {
	CLOSED_IDLE,
	RESET_IDLE,
	CLOSED_AFTER_REQUEST,
	RESET_AFTER_REQUEST,
	HALF_A_HEAD,
	SPEAKS_UNASKED
};

static const char *const ok_answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

static bool read_body(int fd, const char *head)
{
	const char *length = strcasestr(head, "Content-Length: ");
	char body[65536];
	size_t n = length ? strtoul(length + 16, NULL, 10) : 0;
	return n <= sizeof(body) && raw_read(fd, body, n);
}

static void die_in_some_way(struct raw_origin *o, int fd, enum death how)
{
	char head[4096];
	if (how == RESET_IDLE || how == RESET_AFTER_REQUEST)
		raw_reset_on_close(fd);
	if (how == SPEAKS_UNASKED) {
		raw_puts(fd, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECRET");
		raw_wait_closed(fd);
	}
	if (how == CLOSED_IDLE || how == RESET_IDLE || how == SPEAKS_UNASKED)
		return;
	if (raw_read_head(o, fd, head, sizeof(head)) && read_body(fd, head) && how == HALF_A_HEAD)
		raw_puts(fd, "HTTP/1.1 200 OK\r\nContent-Le");
}

static void dies_once(struct raw_origin *o, int fd, int index)
{
	char head[4096];
	while (raw_read_head(o, fd, head, sizeof(head)) && read_body(fd, head) && raw_puts(fd, ok_answer))
		if (index == 0) {
			die_in_some_way(o, fd, *(enum death *)o->arg);
			return;
		}
}

/* The second request meets the dead connection; `executed`: requests that the service has read in the end. */
static void second_request(enum death how, const char *method, const char *body, struct seen *s,
			   int *executed)
{
	struct scene t;
	open_scene(&t, dies_once, &how, NULL);
	exchange(&t, s, "GET", NULL);
	assert_true(s->ended);
	seen_free(s);
	exchange(&t, s, method, body);
	*executed = atomic_load(&t.origin->requests);
	s->call = legacy_call_free(s->call);
	close_scene(&t);
}

static void sends_a_post_never_twice(void **state)
{
	(void)state;
	static const enum death deaths[] = {CLOSED_AFTER_REQUEST, RESET_AFTER_REQUEST, HALF_A_HEAD};
	static const char *const methods[] = {"POST", "DELETE", "PUT", "PATCH"};
	for (size_t i = 0; i < 3; i++)
		for (size_t m = 0; m < 4; m++) {
			struct seen s;
			int executed;
			second_request(deaths[i], methods[m], m == 1 ? NULL : "{\"a\":1}", &s, &executed);
			assert_int_equal(executed, 2);
			assert_int_equal(s.failures, 1);
			assert_int_equal(s.failure, LEGACY_RESET);
			assert_true(s.written);
			assert_int_equal(s.heads, 0);
			seen_free(&s);
		}
}

static void sends_a_get_once_more(void **state)
{
	(void)state;
	static const enum death deaths[] = {CLOSED_AFTER_REQUEST, RESET_AFTER_REQUEST};
	for (size_t i = 0; i < 2; i++) {
		struct seen s;
		int executed;
		second_request(deaths[i], "GET", NULL, &s, &executed);
		assert_int_equal(executed, 3);
		assert_true(s.ended);
		assert_string_equal(s.body.ptr, "ok");
		seen_free(&s);
	}
}

static void does_not_repeat_what_was_half_answered(void **state)
{
	(void)state;
	struct seen s;
	int executed;
	second_request(HALF_A_HEAD, "GET", NULL, &s, &executed);
	assert_int_equal(executed, 2);
	assert_int_equal(s.failure, LEGACY_RESET);
	seen_free(&s);
}

static void always_dies(struct raw_origin *o, int fd, int index)
{
	char head[4096];
	if (index == 0 && raw_read_head(o, fd, head, sizeof(head)))
		raw_puts(fd, ok_answer);
	raw_read_head(o, fd, head, sizeof(head));
}

static void sends_a_get_only_once_more(void **state)
{
	(void)state;
	struct scene t;
	open_scene(&t, always_dies, NULL, NULL);
	struct seen s;
	exchange(&t, &s, "GET", NULL);
	assert_true(s.ended);
	seen_free(&s);
	exchange(&t, &s, "GET", NULL);
	assert_int_equal(s.failures, 1);
	assert_int_equal(s.failure, LEGACY_RESET);
	assert_int_equal(atomic_load(&t.origin->requests), 3);
	seen_free(&s);
	close_scene(&t);
}

/* A connection seen to be dead, or that has said what nobody asked for, is not used: another one serves any
 * method. */
static void leaves_dead_connections_alone(void **state)
{
	(void)state;
	static const enum death deaths[] = {CLOSED_IDLE, RESET_IDLE, SPEAKS_UNASKED};
	for (size_t i = 0; i < 3; i++) {
		struct scene t;
		enum death how = deaths[i];
		open_scene(&t, dies_once, &how, NULL);
		struct seen s;
		exchange(&t, &s, "GET", NULL);
		seen_free(&s);
		assert_true(idle_until(&t.client, &t.origin->open, 0));
		exchange(&t, &s, "POST", "{}");
		assert_true(s.ended);
		assert_string_equal(s.body.ptr, "ok");
		assert_int_equal(atomic_load(&t.origin->requests), 2);
		assert_int_equal(atomic_load(&t.origin->connections), 2);
		seen_free(&s);
		close_scene(&t);
	}
}

/* … also when the loop has not been told yet: the request is started right after the connection's end has
 * arrived. */
static void looks_at_a_connection_before_use(void **state)
{
	(void)state;
	struct scene t;
	enum death how = CLOSED_IDLE;
	open_scene(&t, dies_once, &how, NULL);
	struct seen s;
	exchange(&t, &s, "GET", NULL);
	seen_free(&s);
	while (atomic_load(&t.origin->open)) /* its thread closes; the loop does not run */
		sched_yield();
	exchange(&t, &s, "POST", "{}");
	assert_true(s.ended);
	assert_int_equal(atomic_load(&t.origin->requests), 2);
	seen_free(&s);
	close_scene(&t);
}

/* --- table of answers -------------------------------------------------------------------------------- */

struct canned {
	const char *method, *answer;
	int status; /* 0: it fails with `failure` */
	const char *body;
	int64_t length, content_length;
	bool kept;
	enum legacy_failure failure;
	int heads;
};

static void canned_answer(struct raw_origin *o, int fd, int index)
{
	(void)index;
	char head[4096];
	const struct canned *c = o->arg;
	if (!raw_read_head(o, fd, head, sizeof(head)))
		return;
	raw_puts(fd, c->answer);
	/* An answer that ends by itself leaves the connection open: the client decides. */
	if (c->kept)
		raw_wait_closed(fd);
}

#define CUT LEGACY_TRUNCATED
#define BAD LEGACY_MALFORMED
static const struct canned canned[] = {
	{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", 0, 0, true, 0, 1},
	{"GET", "HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc", 200, "abc", 3, 3, true, 0, 1},
	{"GET", "HTTP/1.1 204 No\r\n\r\n", 204, "", 0, -1, true, 0, 1},
	{"GET", "HTTP/1.1 304 Not\r\nContent-Length: 10\r\n\r\n", 304, "", 0, 10, true, 0, 1},
	{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", 200, "", 0, 10, true, 0, 1},
	{"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, "", 0, -1, true, 0, 1},
	{"HEAD", "HTTP/1.1 200 OK\r\n\r\n", 200, "", 0, -1, true, 0, 1},
	{"GET",
	 "HTTP/1.1 200 OK\r\nTransfer-Encoding: "
	 "chunked\r\n\r\n3\r\nabc\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
	 200, "abc0123456789", -1, -1, true, 0, 1},
	{"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", 200, "", -1, -1, true, 0,
	 1},
	{"GET", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive\r\n\r\na", 200, "a", 1, 1,
	 true, 0, 1},
	{"GET",
	 "HTTP/1.1 102 P\r\nX: 1\r\n\r\nHTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
	 200, "a", 1, 1, true, 0, 1},
	{"GET", "HTTP/1.1 200 OK\nContent-Length: 1\n\na", 200, "a", 1, 1, true, 0, 1},
	{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\na", 200, "a", 1, 1, true, 0,
	 1},
	{"GET", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", 200, "a", 1, 1, false, 0, 1},
	{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: x, Close\r\n\r\na", 200, "a", 1, 1,
	 false, 0, 1},
	{"GET", "HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, "until the end", -1, -1, false, 0, 1},
	{"GET", "HTTP/1.0 200 OK\r\n\r\n", 200, "", -1, -1, false, 0, 1},
	/* Bytes behind the answer: it is good, the connection is not. */
	{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\n", 200, "a", 1, 1, false, 0,
	 1},
	{"GET", "HTTP/1.1 204 No\r\n\r\nbody", 204, "", 0, -1, false, 0, 1},
	{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, "", 0, 3, false, 0, 1},
	/* Cut short */
	{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", 0, "abc", 10, 10, false, CUT, 1},
	{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", 0, "", 10, 10, false, CUT, 1},
	{"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", 0, "abc", -1, -1, false, CUT,
	 1},
	{"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 0, "abc", -1, -1, false,
	 CUT, 1},
	{"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", 0, "abc", -1, -1,
	 false, CUT, 1},
	{"GET", "HTTP/1.1 200 OK\r\nContent-Len", 0, "", 0, 0, false, LEGACY_RESET, 0},
	{"GET", "", 0, "", 0, 0, false, LEGACY_RESET, 0},
	/* Malformed */
	{"GET", "hello\r\n\r\n", 0, "", 0, 0, false, BAD, 0},
	{"GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", 0, "", 0, 0, false, BAD, 0},
	/* Both: chunked counts, and the connection is not used again (RFC 9112 §6.3). */
	{"GET",
	 "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	 200, "abc", -1, -1, false, 0, 1},
	{"GET",
	 "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	 200, "abc", -1, -1, false, 0, 1},
	{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc", 200, "abc", 3, 3, true, 0, 1},
	{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabc", 0, "", 0, 0, false, BAD, 0},
	{"GET", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nabc", 0, "", 0, 0, false, BAD, 0},
	{"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 0, "", -1, -1, false, BAD, 1},
	{"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", 0, "abc", -1, -1, false,
	 BAD, 1}};

static void understands_answers(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(canned) / sizeof(canned[0]); i++) {
		const struct canned *c = &canned[i];
		struct scene t;
		open_scene(&t, canned_answer, (void *)c, NULL);
		struct seen s;
		exchange(&t, &s, c->method, NULL);
		if (c->heads != s.heads || s.ended != (c->status != 0) ||
		    (c->status && s.status != c->status) || (!c->status && s.failure != c->failure))
			fail_msg("%s: %d heads, status %d, %s (%s)", c->answer, s.heads, s.status,
				 s.ended ? "ended" : legacy_failure_text(s.failure), s.detail);
		assert_string_equal(s.body.ptr ? s.body.ptr : "", c->body);
		if (c->heads) {
			assert_int_equal(s.length, c->length);
			assert_int_equal(s.content_length, c->content_length);
		}
		if (!c->status)
			assert_int_equal(legacy_call_read(s.call, (char[1]){0}, 1), LEGACY_READ_FAILED);
		if (legacy_upstream_connections(t.client.upstream) != c->kept)
			fail_msg("%s: %u connections left", c->answer,
				 legacy_upstream_connections(t.client.upstream));
		assert_int_equal(atomic_load(&t.origin->requests), 1);
		seen_free(&s);
		close_scene(&t);
	}
}

static void reset_in_the_body(struct raw_origin *o, int fd, int index)
{
	char head[4096];
	(void)index;
	if (!raw_read_head(o, fd, head, sizeof(head)))
		return;
	raw_puts(fd, "HTTP/1.1 200 OK\r\n\r\nabc");
	/* Reset only after the client has told by closing nothing: it acknowledges through `arg`. */
	while (!atomic_load((atomic_int *)o->arg))
		sched_yield();
	raw_reset_on_close(fd);
}

static void a_reset_is_no_end(void **state)
{
	(void)state;
	atomic_int go = 0;
	struct scene t;
	open_scene(&t, reset_in_the_body, &go, NULL);
	struct legacy_request r = simple_request("GET", "/");
	struct seen s = {0};
	seen_start(&s, &t.client, &r);
	assert_true(seen_run_head(&s));
	atomic_store(&go, 1);
	assert_true(seen_run(&s));
	assert_int_equal(s.failure, LEGACY_TRUNCATED);
	assert_string_equal(s.body.ptr, "abc");
	assert_false(s.ended);
	seen_free(&s);
	close_scene(&t);
}

/* Every answer of the table in pieces of one byte means the same. */
static void byte_by_byte(struct raw_origin *o, int fd, int index)
{
	(void)index;
	char head[4096];
	if (!raw_read_head(o, fd, head, sizeof(head)))
		return;
	for (const char *p = o->arg; *p; p++)
		if (!raw_send(fd, p, 1))
			return;
	raw_wait_closed(fd);
}

static void takes_answers_in_any_pieces(void **state)
{
	(void)state;
	static const char *const answer =
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
		"5\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n";
	struct scene t;
	open_scene(&t, byte_by_byte, (void *)answer, NULL);
	struct seen s;
	exchange(&t, &s, "GET", NULL);
	assert_true(s.ended);
	assert_int_equal(s.continues, 1);
	assert_string_equal(s.body.ptr, "hello world");
	assert_int_equal(legacy_upstream_connections(t.client.upstream), 1);
	seen_free(&s);
	close_scene(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(passes_requests_and_answers_as_they_are),
		cmocka_unit_test(keeps_connections),
		cmocka_unit_test(sends_a_post_never_twice),
		cmocka_unit_test(sends_a_get_once_more),
		cmocka_unit_test(does_not_repeat_what_was_half_answered),
		cmocka_unit_test(sends_a_get_only_once_more),
		cmocka_unit_test(leaves_dead_connections_alone),
		cmocka_unit_test(looks_at_a_connection_before_use),
		cmocka_unit_test(understands_answers),
		cmocka_unit_test(a_reset_is_no_end),
		cmocka_unit_test(takes_answers_in_any_pieces),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
