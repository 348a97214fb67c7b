/* The HTTP client against a tiny server that says exactly what it is told, and counts what it was asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/http_client.h"

/* What the server does with the n-th request of a connection. NULL: closes without an answer. */
struct origin {
	int fd;
	char url[64];
	pthread_t thread;
	const char *answers[4];
	bool keep;  /* the connection stays open after an answer */
	bool hangs; /* never answers */
	atomic_uint requests, connections;
	char last[8192];
};

static bool read_request(struct origin *o, int c)
{
	size_t n = 0;
	ssize_t got;
	while ((got = read(c, o->last + n, sizeof(o->last) - 1 - n)) > 0) {
		n += (size_t)got;
		o->last[n] = '\0';
		const char *body = strstr(o->last, "\r\n\r\n"),
			   *length = strcasestr(o->last, "content-length:");
		if (body && n >= (size_t)(body + 4 - o->last) + (length ? strtoul(length + 15, NULL, 10) : 0))
			return true;
	}
	return false;
}

static void *serve(void *arg)
{
	struct origin *o = arg;
	int c;
	while ((c = accept(o->fd, NULL, NULL)) >= 0) {
		atomic_fetch_add(&o->connections, 1);
		while (read_request(o, c)) {
			const char *answer = o->answers[atomic_fetch_add(&o->requests, 1)];
			if (o->hangs)
				continue;
			if (!answer || write(c, answer, strlen(answer)) < 0 || !o->keep)
				break;
		}
		close(c);
	}
	return NULL;
}

static void origin_start(struct origin *o)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	o->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(o->fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(o->fd, 16), 0);
	assert_int_equal(getsockname(o->fd, (struct sockaddr *)&a, &n), 0);
	snprintf(o->url, sizeof(o->url), "http://127.0.0.1:%d/x", ntohs(a.sin_port));
	assert_int_equal(pthread_create(&o->thread, NULL, serve, o), 0);
}

static void origin_stop(struct origin *o)
{
	shutdown(o->fd, SHUT_RDWR);
	pthread_join(o->thread, NULL);
	close(o->fd);
}

struct asking {
	struct loop *loop;
	struct http_client *client;
	struct http_call *call;
	enum http_failure failure;
	bool sent, done, cancel_in_piece;
	int status;
	char body[4096], type[128], pieces[4096];
	struct loop_timer *timer;
};

static void on_done(void *arg, const struct http_reply *r)
{
	struct asking *a = arg;
	a->call = NULL;
	a->done = true;
	a->failure = r->failure;
	a->sent = r->sent;
	a->status = r->status;
	span_copy(r->body, a->body, sizeof(a->body));
	span_copy(http_reply_field(r, "x-type"), a->type, sizeof(a->type));
	if (r->failure != HTTP_OK)
		assert_true(strlen(r->detail) > 0);
	loop_stop(a->loop);
}

static void on_piece(void *arg, struct span bytes)
{
	struct asking *a = arg;
	strncat(a->pieces, bytes.ptr, bytes.len);
	if (a->cancel_in_piece) {
		a->call = http_cancel(a->call);
		loop_stop(a->loop);
	}
}

static void asking_start(struct asking *a)
{
	struct err e;
	assert_int_equal(loop_new(&a->loop), 0);
	assert_int_equal(http_client_new(a->loop, NULL, &a->client, &e), 0);
}

static void asking_end(struct asking *a)
{
	http_client_free(a->client);
	loop_free(a->loop);
}

static void ask(struct asking *a, const struct http_call_request *r, bool stream)
{
	struct http_events events = {.arg = a, .done = on_done, .piece = stream ? on_piece : NULL};
	struct err e = {""};
	a->done = false;
	assert_int_equal(http_start(a->client, r, &events, &a->call, &e), 0);
	assert_false(a->done);
	loop_run(a->loop);
}

#define OK_HELLO "HTTP/1.1 200 OK\r\nX-Type:  a b \r\nContent-Length: 5\r\n\r\nhello"

static void a_request_goes_out_as_said(void **state)
{
	(void)state;
	struct origin o = {.answers = {OK_HELLO}};
	struct asking a = {0};
	struct http_field fields[] = {{SPAN_LIT("X-Empty"), SPAN_LIT("")}, {SPAN_LIT("X-A"), SPAN_LIT("1")}};
	origin_start(&o);
	asking_start(&a);
	struct http_call_request r = {
		.method = "POST", .url = o.url, .fields = fields, .n_fields = 2, .body = SPAN_LIT("{}")};
	ask(&a, &r, false);
	assert_int_equal(a.failure, HTTP_OK);
	assert_int_equal(a.status, 200);
	assert_string_equal(a.body, "hello");
	assert_string_equal(a.type, "a b");
	assert_non_null(strstr(o.last, "POST /x HTTP/1.1\r\n"));
	assert_non_null(strstr(o.last, "X-Empty:\r\n"));
	assert_non_null(strstr(o.last, "\r\n\r\n{}"));
	static const char *const absent[] = {"Expect", "Accept", "User-Agent", "Content-Type", "Cookie"};
	for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
		assert_null(strcasestr(o.last, absent[i]));
	asking_end(&a);
	origin_stop(&o);
}

static void failures_are_told_apart(void **state)
{
	(void)state;
	static const struct {
		const char *answer;
		bool hangs;
		enum http_failure failure;
	} cases[] = {{NULL, false, HTTP_NO_REPLY},
		     {"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", false, HTTP_NO_REPLY},
		     {"HTTP/1.1 200 OK\r\nContent-Length: "
		      "200\r\n\r\n01234567890123456789012345678901234567890123456789"
		      "01234567890123456789012345678901234567890123456789",
		      false, HTTP_TOO_LARGE},
		     {NULL, true, HTTP_TIMED_OUT},
		     {"SMTP hello\r\n\r\n", false, HTTP_MALFORMED}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct origin o = {.answers = {cases[i].answer}, .hangs = cases[i].hangs};
		struct asking a = {0};
		origin_start(&o);
		asking_start(&a);
		struct http_call_request r = {.method = "POST",
					      .url = o.url,
					      .body = SPAN_LIT("x"),
					      .timeout_ms = cases[i].hangs ? 100 : 5000,
					      .max_body = 60};
		ask(&a, &r, false);
		assert_int_equal(a.failure, cases[i].failure);
		assert_true(a.sent);
		asking_end(&a);
		origin_stop(&o);
		assert_int_equal(o.requests, 1);
	}
}

static void what_was_not_sent_is_known(void **state)
{
	(void)state;
	struct origin o = {0};
	struct asking a = {0};
	origin_start(&o);
	origin_stop(&o); /* its port is free now: nobody listens */
	asking_start(&a);
	struct http_call_request r = {.method = "GET", .url = o.url};
	ask(&a, &r, false);
	assert_int_equal(a.failure, HTTP_NOT_CONNECTED);
	assert_false(a.sent);
	asking_end(&a);
}

static void tls_failures_send_nothing(void **state)
{
	(void)state;
	struct origin o = {.answers = {OK_HELLO}};
	struct asking a = {0};
	char url[sizeof(o.url) + 1];
	origin_start(&o);
	asking_start(&a);
	snprintf(url, sizeof(url), "https%.58s", o.url + 4);
	struct http_call_request r = {
		.method = "POST", .url = url, .body = SPAN_LIT("secret"), .timeout_ms = 300};
	ask(&a, &r, false);
	/* a plain server waits for more */
	assert_true(a.failure == HTTP_TLS_FAILED || a.failure == HTTP_TIMED_OUT);
	assert_false(a.sent);
	asking_end(&a);
	origin_stop(&o);
}

/* libcurl would send the second POST again, on a new connection, when the kept one is closed under it. */
static void a_dead_kept_connection_sends_nothing_twice(void **state)
{
	(void)state;
	for (int resend = 0; resend < 2; resend++) {
		struct origin o = {.answers = {OK_HELLO, NULL, OK_HELLO}, .keep = true};
		struct asking a = {0};
		origin_start(&o);
		asking_start(&a);
		struct http_call_request r = {.method = "POST",
					      .url = o.url,
					      .body = SPAN_LIT("x"),
					      .timeout_ms = 5000,
					      .may_resend = resend};
		ask(&a, &r, false);
		assert_int_equal(a.failure, HTTP_OK);
		ask(&a, &r, false);
		assert_int_equal(a.failure, resend ? HTTP_OK : HTTP_NO_REPLY);
		assert_true(a.sent);
		asking_end(&a);
		origin_stop(&o);
		assert_int_equal(o.requests, resend ? 3 : 2);
		if (resend)
			/* else libcurl has connected again as well, but the origin may have ended before
			 * it accepted */
			assert_int_equal(o.connections, 2);
	}
}

static void streams_come_in_pieces_and_can_be_cancelled(void **state)
{
	(void)state;
	for (int cancel = 0; cancel < 2; cancel++) {
		struct origin o = {.answers = {"HTTP/1.1 200 OK\r\nTransfer-Encoding: "
					       "chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"}};
		struct asking a = {.cancel_in_piece = cancel};
		origin_start(&o);
		asking_start(&a);
		struct http_call_request r = {.method = "GET", .url = o.url, .idle_timeout_ms = 5000};
		ask(&a, &r, true);
		assert_int_equal(a.done, !cancel);
		if (!cancel)
			assert_string_equal(a.pieces, "abcde");
		assert_string_equal(a.body, "");
		asking_end(&a);
		origin_stop(&o);
	}
}

static void a_silent_stream_ends(void **state)
{
	(void)state;
	struct origin o = {.hangs = true};
	struct asking a = {0};
	origin_start(&o);
	asking_start(&a);
	struct http_call_request r = {.method = "GET", .url = o.url, .idle_timeout_ms = 100};
	ask(&a, &r, true);
	assert_int_equal(a.failure, HTTP_TIMED_OUT);
	asking_end(&a);
	origin_stop(&o);
}

static void what_can_never_be_sent_is_refused(void **state)
{
	(void)state;
	struct asking a = {0};
	struct http_events events = {.arg = &a, .done = on_done};
	struct http_field bad = {SPAN_LIT("X"), SPAN_LIT("a\r\nY: b")};
	struct http_call_request cases[] = {
		{.method = "GET", .url = "file:///etc/passwd"},
		{.method = "GET", .url = "http://a b/"},
		{.method = "GET /", .url = "http://127.0.0.1:1/"},
		{.method = "GET", .url = "http://127.0.0.1:1/", .fields = &bad, .n_fields = 1},
	};
	asking_start(&a);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err e = {""};
		assert_int_equal(http_start(a.client, &cases[i], &events, &a.call, &e), -EINVAL);
		assert_true(strlen(e.text) > 0);
	}
	asking_end(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_goes_out_as_said),
		cmocka_unit_test(failures_are_told_apart),
		cmocka_unit_test(what_was_not_sent_is_known),
		cmocka_unit_test(tls_failures_send_nothing),
		cmocka_unit_test(a_dead_kept_connection_sends_nothing_twice),
		cmocka_unit_test(streams_come_in_pieces_and_can_be_cancelled),
		cmocka_unit_test(a_silent_stream_ends),
		cmocka_unit_test(what_can_never_be_sent_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
