/*
 * Self-test of what the listener takes for granted of its library, run at startup: does this libmicrohttpd
 * lay out heads as the layout check expects, leave cookies alone, end connections with a chunked body, and
 * frame answers without a body? Requests go over a loopback connection to a throw-away listener in this very
 * thread: clean ones must be served, unclean ones refused (by us or by the library), and never more than is
 * meant.
 */
#include "router/http/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"

#define PATIENCE_MS 5000

enum meant { REFUSED, SERVED, ONCE_AT_MOST, NOTHING_BEHIND };

struct shape {
	const char *name;
	struct span request;
	enum meant meant;
};

/* clang-format off */
#define SHAPE(n, text, m) {.name = (n), .request = {(text), sizeof(text) - 1}, .meant = (m)}
/* clang-format on */
#define POST_CHUNKED "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
#define HIDDEN "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

static const struct shape shapes[] = {
	SHAPE("a clean head", "GET /a?b=c HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n", SERVED),
	SHAPE("an empty value", "GET / HTTP/1.1\r\nHost: a\r\nX-A:\r\nX-B: 2\r\n\r\n", SERVED),
	SHAPE("blanks around a value", "GET / HTTP/1.1\r\nHost:  a  \r\nX-B: \t2 \r\n\r\n", SERVED),
	SHAPE("a head without fields", "GET / HTTP/1.0\r\n\r\n", SERVED),
	SHAPE("cookies and arguments", "GET /?a&b=%20 HTTP/1.1\r\nHost: a\r\nCookie: c=d; e=f\r\n\r\n",
	      SERVED),
	SHAPE("a folded line", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n two\r\nX-B: 2\r\n\r\n", REFUSED),
	SHAPE("a folded last line", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n two\r\n\r\n", REFUSED),
	SHAPE("a bare LF", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\nX-B: 2\r\n\r\n", REFUSED),
	SHAPE("a bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", REFUSED),
	SHAPE("a bare LF after the last field", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\n\r\n", REFUSED),
	SHAPE("a bare LF as the empty line", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\n", REFUSED),
	SHAPE("a NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\0 2\r\n\r\n", REFUSED),
	SHAPE("a NUL at the end of a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\0\r\nX-B: 2\r\n\r\n",
	      REFUSED),
	SHAPE("a NUL in the target", "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n", REFUSED),
	SHAPE("a cookie that cannot be read", "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=\"\r\n\r\n", SERVED),
	SHAPE("two cookie fields", "GET / HTTP/1.1\r\nCookie: a=\"\r\nHost: a\r\ncookie: b=\"\r\n\r\n",
	      SERVED),
	SHAPE("a length and chunks",
	      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: "
	      "chunked\r\n\r\n0\r\n\r\n",
	      REFUSED),
	SHAPE("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
	      REFUSED),
	SHAPE("a chunked body", POST_CHUNKED "5\r\nhello\r\n0\r\n\r\n", SERVED),
	SHAPE("a request behind a chunked body", POST_CHUNKED "5\r\nhello\r\n0\r\n\r\n" HIDDEN, ONCE_AT_MOST),
	SHAPE("a request behind chunks of bare LFs", POST_CHUNKED "5\nhello\n0\n\n" HIDDEN, ONCE_AT_MOST),
	SHAPE("a request within an extension", POST_CHUNKED "0;\n\n" HIDDEN, ONCE_AT_MOST),
	SHAPE("an answer without a body", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" HIDDEN, NOTHING_BEHIND)};

struct trial {
	struct loop *loop;
	int fd;
	bool late;
	size_t n;
	char answer[4096]; /* NUL-terminated */
};

static const struct http_response ok = {.status = 200, .close = true};

static void *trial_on_head(void *arg, struct exchange *x, const struct http_request *r)
{
	static const struct http_response kept = {.status = 200};
	++*(unsigned *)arg;
	if (r->has_body)
		exchange_read_body(x);
	else if (span_is(r->method, "HEAD"))
		exchange_respond_bodyless(x, &kept, -1);
	else
		exchange_respond(x, &ok, SPAN_LIT(""));
	return arg;
}

static size_t trial_on_body(void *user, struct exchange *x, const char *bytes, size_t n)
{
	(void)user, (void)x, (void)bytes;
	return n;
}

static void trial_on_body_end(void *user, struct exchange *x)
{
	(void)user;
	exchange_respond(x, &ok, SPAN_LIT(""));
}

static void trial_on_gone(void *user, struct exchange *x)
{
	(void)user, (void)x;
}

static void trial_on_finished(void *user, struct exchange *x, bool gone)
{
	(void)user, (void)x, (void)gone;
}

static void trial_on_refused(void *arg, int status, const char *why)
{
	(void)arg, (void)status, (void)why;
}

static void on_late(void *arg)
{
	struct trial *t = arg;
	t->late = true;
	loop_stop(t->loop);
}

static void trial_on_answer(void *arg, unsigned events)
{
	struct trial *t = arg;
	(void)events;
	ssize_t n = recv(t->fd, t->answer + t->n, sizeof(t->answer) - 1 - t->n, MSG_DONTWAIT);
	if (n > 0)
		t->n += (size_t)n;
	else if (n == 0 || (errno != EAGAIN && errno != EINTR)) /* also when it is full */
		loop_stop(t->loop);
	t->answer[t->n] = 0;
}

static int open_client(unsigned port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CLEANUP(closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return -errno;
	return steal_fd(&fd);
}

/* Sends the request, and lets the loop run until the listener has closed. */
static int converse(struct trial *t, struct span request)
{
	struct loop_timer *timer = NULL;
	struct loop_watch *watch = NULL;
	int r = send(t->fd, request.ptr, request.len, MSG_NOSIGNAL) == (ssize_t)request.len ? 0 : -EIO;
	if (r == 0)
		r = loop_timer_new(t->loop, on_late, t, &timer);
	if (r == 0)
		r = loop_watch_new(t->loop, t->fd, LOOP_READ, trial_on_answer, t, &watch);
	if (r == 0) {
		loop_timer_start(timer, PATIENCE_MS);
		r = loop_run(t->loop);
	}
	loop_watch_free(watch);
	loop_timer_free(timer);
	return r == 0 && t->late ? -ETIMEDOUT : r;
}

static unsigned answers_in(const char *text)
{
	unsigned n = 0;
	for (; (text = strstr(text, "HTTP/1.1 ")); text++)
		n++;
	return n;
}

static bool is_next_or_end(const char *head_end)
{
	return head_end && (!head_end[4] || strncmp(head_end + 4, "HTTP/1.1 ", 9) == 0);
}

static bool is_as_meant(const struct trial *t, enum meant meant, unsigned heads)
{
	bool served = t->n >= 12 && atoi(t->answer + 9) == 200;
	switch (meant) {
	case REFUSED:
		return !served && heads == 0;
	case SERVED:
		return served && heads == 1;
	case NOTHING_BEHIND:
		return served && is_next_or_end(strstr(t->answer, "\r\n\r\n"));
	case ONCE_AT_MOST:
		break;
	}
	return heads <= 1 && answers_in(t->answer) <= 1;
}

static int try_shape(struct loop *loop, unsigned port, unsigned *heads, const struct shape *s, struct err *e)
{
	CLEANUP(closep) int fd = open_client(port);
	struct trial t = {.loop = loop, .fd = fd};
	*heads = 0;
	int r = fd < 0 ? fd : converse(&t, s->request);
	if (r < 0)
		return err_set(e, r, "self-test of the listener, %s: %s", s->name, strerror(-r));
	if (is_as_meant(&t, s->meant, *heads))
		return 0;
	return err_set(
		e, -ENOTSUP,
		"self-test of the listener: %s was %s; this libmicrohttpd (%s) reads heads differently, and "
		"request smuggling could not be noticed",
		s->name, s->meant == SERVED ? "not served" : "not noticed", listener_library());
}

static int try_all(struct loop *loop, struct err *e)
{
	static const struct listener_options options = {
		.address = "127.0.0.1:0",
		.max_connections = 16,
		.max_head = 4096,
		.head_timeout_ms = PATIENCE_MS,
		.idle_timeout_ms = PATIENCE_MS,
		.drain_timeout_ms = PATIENCE_MS,
	};
	unsigned heads;
	const struct listener_handler handler = {
		&heads,	       trial_on_head,	  trial_on_body,   trial_on_body_end,
		trial_on_gone, trial_on_finished, trial_on_refused};
	struct listener *l;
	int r = listener_start(loop, &options, &handler, &l, e);
	if (r < 0)
		return err_prefix(e, r, "self-test");
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]) && r == 0; i++)
		r = try_shape(loop, listener_port(l), &heads, &shapes[i], e);
	listener_stop(l);
	return r;
}

int listener_self_test(struct err *e)
{
	struct loop *loop;
	int r = loop_new(&loop);
	if (r < 0)
		return err_set(e, r, "self-test of the listener: %s", strerror(-r));
	r = try_all(loop, e);
	loop_free(loop);
	return r;
}
