/*
 * Self-test of the listener's layout check, run at start-up: does this libmicrohttpd lay out heads as the check expects?
 * Heads go over a loopback connection to a throw-away listener in this very thread: clean ones must be served, unclean
 * ones refused (by us or by the library).
 */
#include "router/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"

#define PATIENCE_MS 5000

struct shape {
	const char *name;
	struct span head;
	bool clean;
};

#define SHAPE(n, text, ok) {.name = (n), .head = {(text), sizeof(text) - 1}, .clean = (ok)}

static const struct shape shapes[] = {
	SHAPE("a clean head", "GET /a?b=c HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n", true),
	SHAPE("an empty value", "GET / HTTP/1.1\r\nHost: a\r\nX-A:\r\nX-B: 2\r\n\r\n", true),
	SHAPE("blanks around a value", "GET / HTTP/1.1\r\nHost:  a  \r\nX-B: \t2 \r\n\r\n", true),
	SHAPE("a head without fields", "GET / HTTP/1.0\r\n\r\n", true),
	SHAPE("cookies and arguments", "GET /?a&b=%20 HTTP/1.1\r\nHost: a\r\nCookie: c=d; e=f\r\n\r\n", true),
	SHAPE("a folded line", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n two\r\nX-B: 2\r\n\r\n", false),
	SHAPE("a folded last line", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n two\r\n\r\n", false),
	SHAPE("a bare LF", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\nX-B: 2\r\n\r\n", false),
	SHAPE("a bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", false),
	SHAPE("a bare LF after the last field", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\n\r\n", false),
	SHAPE("a bare LF as the empty line", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\n", false),
	SHAPE("a NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\0 2\r\n\r\n", false),
	SHAPE("a NUL at the end of a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\0\r\nX-B: 2\r\n\r\n", false),
	SHAPE("a NUL in the target", "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n", false),
};

struct trial {
	struct loop *loop;
	bool late;
};

static void *on_head(void *arg, struct exchange *x, const struct http_request *r)
{
	(void)r;
	struct http_response ok = {.status = 200, .close = true};
	exchange_respond(x, &ok, SPAN_LIT(""));
	return arg;
}

static size_t on_body(void *user, struct exchange *x, const char *bytes, size_t n)
{
	(void)user, (void)x, (void)bytes;
	return n;
}

static void on_event(void *user, struct exchange *x)
{
	(void)user, (void)x;
}

static void on_finished(void *user, struct exchange *x, bool gone)
{
	(void)user, (void)x, (void)gone;
}

static void on_refused(void *arg, int status, const char *why)
{
	(void)arg, (void)status, (void)why;
}

static void on_late(void *arg)
{
	struct trial *t = arg;
	t->late = true;
	loop_stop(t->loop);
}

static void on_answer(void *arg, unsigned events)
{
	struct trial *t = arg;
	(void)events;
	loop_stop(t->loop);
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

/* Sends the head and lets the loop run until something comes back. *ret_status: 0 for a connection closed without an
 * answer. */
static int converse(struct loop *loop, int fd, struct span head, int *ret_status)
{
	struct trial t = {.loop = loop};
	struct loop_timer *timer = NULL;
	struct loop_watch *watch = NULL;
	int r = send(fd, head.ptr, head.len, MSG_NOSIGNAL) == (ssize_t)head.len ? 0 : -EIO;
	if (r == 0)
		r = loop_timer_new(loop, on_late, &t, &timer);
	if (r == 0)
		r = loop_watch_new(loop, fd, LOOP_READ, on_answer, &t, &watch);
	if (r == 0) {
		loop_timer_start(timer, PATIENCE_MS);
		r = loop_run(loop);
	}
	loop_watch_free(watch);
	loop_timer_free(timer);
	if (r < 0 || t.late)
		return r < 0 ? r : -ETIMEDOUT;
	char line[16] = "";
	ssize_t n = recv(fd, line, sizeof(line) - 1, MSG_DONTWAIT);
	*ret_status = n >= 12 ? atoi(line + 9) : 0;
	return 0;
}

static int try_shape(struct loop *loop, unsigned port, const struct shape *s, struct err *e)
{
	CLEANUP(closep) int fd = open_client(port);
	int status = 0;
	int r = fd < 0 ? fd : converse(loop, fd, s->head, &status);
	if (r < 0)
		return err_set(e, r, "self-test of the listener, %s: %s", s->name, strerror(-r));
	if ((status == 200) != s->clean)
		return err_set(e, -ENOTSUP,
			       "self-test of the listener: %s was %s; this libmicrohttpd lays out heads differently, and "
			       "request smuggling could not be noticed",
			       s->name, s->clean ? "refused" : "not noticed");
	return 0;
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
	static const struct listener_handler handler = {NULL,	  on_head,     on_body,	  on_event,
							on_event, on_finished, on_refused};
	struct listener *l;
	int r = listener_start(loop, &options, &handler, &l, e);
	if (r < 0)
		return err_prefix(e, r, "self-test");
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]) && r == 0; i++)
		r = try_shape(loop, listener_port(l), &shapes[i], e);
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
