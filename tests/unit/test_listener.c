/* listener: a real one, in a thread with a loop, and clients that say exactly which bytes go out and when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "router/listener.h"
#include "support/raw_cases.h"
#include "support/raw_client.h"

/*
 * The handler of the tests does what the target's path says:
 *   /now      answers in head, without looking at the body
 *   /sink     takes the body, answers with the number of its bytes
 *   /later    the same, one round later (so the library has suspended it)
 *   /pause    takes the body only while the gate is open
 *   /early    answers 413 after the first piece of the body
 *   /wait     reads the body and never answers
 *   /hold     neither reads nor answers
 *   /refuse   answers 401 without reading the body, one round later
 *   /stream   a streamed answer of ?n bytes, known length
 *   /chunks   the same of unknown length
 *   /gated    of unknown length, one piece of 5 bytes each time the gate opens
 *   /cut      of known length, cut in its middle; /cutchunks of unknown length
 *   /short    says one byte more than it has
 *   /s204 /s304 /head204 …   see bodyless()
 *   /abort    aborts one round later
 *   /bighead  an answer with a field of ?n bytes
 */
struct served {
	struct loop *loop;
	struct listener *listener;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under lock */
	unsigned heads, bodies, ends, gones, finished, finished_gone, refused;
	unsigned refused_status;
	uint64_t body_bytes;
	bool gate;
	struct call *waiting; /* of /pause and /gated */
	struct call *held;    /* the last of /hold */
	unsigned dry;	      /* pulls that had nothing */
	uint64_t pulled;
	char seen[65536];     /* the last head as the handler saw it */
	struct http_request last;
	struct loop_work posted;
	void (*todo)(struct served *s);
	bool todo_done;
};

struct call {
	struct served *s;
	struct exchange *x;
	struct loop_work work;
	char path[32];
	uint64_t bytes, left;
	bool deferred, over;
	int rounds;
};

static void count(struct served *s, unsigned *counter)
{
	pthread_mutex_lock(&s->lock);
	++*counter;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static unsigned get(struct served *s, const unsigned *counter)
{
	pthread_mutex_lock(&s->lock);
	unsigned n = *counter;
	pthread_mutex_unlock(&s->lock);
	return n;
}

static uint64_t get64(struct served *s, const uint64_t *counter)
{
	pthread_mutex_lock(&s->lock);
	uint64_t n = *counter;
	pthread_mutex_unlock(&s->lock);
	return n;
}

static void expect_seen(struct served *s, const char *expected)
{
	pthread_mutex_lock(&s->lock);
	assert_string_equal(s->seen, expected);
	pthread_mutex_unlock(&s->lock);
}

/* Waits for an event, not for a time; the limit only ends a broken test. */
static void wait_until(struct served *s, const unsigned *counter, unsigned at_least)
{
	struct timespec limit;
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += RAW_PATIENCE_S;
	pthread_mutex_lock(&s->lock);
	int r = 0;
	while (*counter < at_least && r == 0)
		r = pthread_cond_timedwait(&s->changed, &s->lock, &limit);
	unsigned n = *counter;
	pthread_mutex_unlock(&s->lock);
	assert_true(n >= at_least);
}

static const struct http_field plain[] = {{{"Content-Type", 12}, {"text/plain", 10}}};

static void respond_text(struct call *c, int status, const char *text)
{
	struct http_response r = {.status = status, .fields = plain, .n_fields = 1};
	exchange_respond(c->x, &r, span_of(text));
}

static void respond_big_head(struct call *c)
{
	char *value = malloc(c->left);
	assert(value);
	memset(value, 'v', c->left);
	struct http_field f = {{"X-Big", 5}, {value, c->left}};
	struct http_response r = {.status = 200, .fields = &f, .n_fields = 1};
	exchange_respond(c->x, &r, SPAN_LIT("big"));
	free(value);
}

static void respond_count(struct call *c)
{
	char text[32];
	snprintf(text, sizeof(text), "%llu", (unsigned long long)c->bytes);
	respond_text(c, 200, text);
}

static bool is(const struct call *c, const char *path)
{
	return strcmp(c->path, path) == 0;
}

static long pull(void *user, struct exchange *x, char *out, size_t size)
{
	struct call *c = user;
	(void)x;
	if (is(c, "/gated")) {
		pthread_mutex_lock(&c->s->lock);
		bool open = c->s->gate;
		c->s->gate = false;
		c->s->waiting = c;
		pthread_mutex_unlock(&c->s->lock);
		if (!open) {
			count(c->s, &c->s->dry);
			return 0;
		}
		if (++c->rounds > 3)
			return EXCHANGE_END;
		memcpy(out, "piece", 5);
		return 5;
	}
	bool cutting = strncmp(c->path, "/cut", 4) == 0;
	if (c->left == 0)
		return cutting ? EXCHANGE_CUT : EXCHANGE_END;
	size_t n = c->left < size ? (size_t)c->left : size;
	memset(out, 'd', n);
	c->left -= n;
	pthread_mutex_lock(&c->s->lock);
	c->s->pulled += n;
	pthread_mutex_unlock(&c->s->lock);
	return (long)n;
}

static void respond_stream(struct call *c)
{
	struct http_response r = {.status = 200, .fields = plain, .n_fields = 1};
	int64_t n = (int64_t)c->left;
	if (is(c, "/stream"))
		exchange_respond_stream(c->x, &r, n, pull);
	else if (is(c, "/cut"))
		exchange_respond_stream(c->x, &r, n + 1, pull);
	else if (is(c, "/short"))
		exchange_respond_stream(c->x, &r, n + 1, pull);
	else
		exchange_respond_stream(c->x, &r, -1, pull);
}

static void bodyless(struct call *c)
{
	struct http_response r = {.status = 200, .fields = plain, .n_fields = 1};
	int64_t length = c->left ? (int64_t)c->left : -1;
	if (is(c, "/s204"))
		r.status = 204;
	else if (is(c, "/s304"))
		r.status = 304;
	exchange_respond_bodyless(c->x, &r, length);
}

static bool streams(const struct call *c)
{
	return is(c, "/stream") || is(c, "/chunks") || is(c, "/gated") || is(c, "/cut") || is(c, "/cutchunks") ||
	       is(c, "/short");
}

static void on_deferred(struct loop_work *work)
{
	struct call *c = (struct call *)((char *)work - offsetof(struct call, work));
	c->deferred = false;
	if (c->over) {
		free(c);
		return;
	}
	if (is(c, "/refuse"))
		respond_text(c, 401, "no");
	else if (is(c, "/abort"))
		exchange_abort(c->x);
	else
		respond_count(c);
}

static void defer(struct call *c)
{
	c->deferred = true;
	loop_defer(c->s->loop, &c->work);
}

static void show(struct served *s, const struct http_request *r)
{
	size_t n = (size_t)snprintf(s->seen, sizeof(s->seen), "%.*s %.*s %.*s cl=%lld chunked=%d expect=%d\n",
				    SPAN_ARG(r->method), SPAN_ARG(r->target), SPAN_ARG(r->version),
				    (long long)r->content_length, r->chunked, r->expects_continue);
	for (size_t i = 0; i < r->n_fields && n < sizeof(s->seen); i++)
		n += (size_t)snprintf(s->seen + n, sizeof(s->seen) - n, "%.*s=[%.*s]\n",
				      SPAN_ARG(r->fields[i].name), SPAN_ARG(r->fields[i].value));
}

static void *on_head(void *arg, struct exchange *x, const struct http_request *r)
{
	struct served *s = arg;
	struct call *c = calloc(1, sizeof(*c));
	assert(c);
	c->s = s;
	c->x = x;
	c->work.fn = on_deferred;
	size_t n = 0;
	while (n < r->target.len && r->target.ptr[n] != '?')
		n++;
	span_copy((struct span){r->target.ptr, n}, c->path, sizeof(c->path));
	if (n + 3 < r->target.len && r->target.ptr[n + 1] == 'n')
		c->left = strtoull(r->target.ptr + n + 3, NULL, 10);
	pthread_mutex_lock(&s->lock);
	show(s, r);
	pthread_mutex_unlock(&s->lock);
	if (is(c, "/hold"))
		s->held = c;
	count(s, &s->heads);
	if (is(c, "/now"))
		respond_text(c, 200, "now");
	else if (is(c, "/bighead"))
		respond_big_head(c);
	else if (is(c, "/refuse") || is(c, "/abort"))
		defer(c);
	else if (is(c, "/s204") || is(c, "/s304") || is(c, "/head"))
		bodyless(c);
	else if (!is(c, "/hold"))
		exchange_read_body(x);
	return c;
}

static size_t on_body(void *user, struct exchange *x, const char *bytes, size_t n)
{
	struct call *c = user;
	struct served *s = c->s;
	(void)bytes;
	pthread_mutex_lock(&s->lock);
	if (is(c, "/pause") && !s->gate) {
		s->waiting = c;
		n = 0;
	}
	c->bytes += n;
	s->body_bytes += n;
	pthread_mutex_unlock(&s->lock);
	count(s, &s->bodies);
	if (is(c, "/early")) {
		struct http_response r = {.status = 413};
		exchange_respond(x, &r, SPAN_LIT("too large"));
	}
	return n;
}

static void on_body_end(void *user, struct exchange *x)
{
	struct call *c = user;
	(void)x;
	count(c->s, &c->s->ends);
	if (is(c, "/wait"))
		return;
	if (streams(c))
		respond_stream(c);
	else if (is(c, "/later"))
		defer(c);
	else
		respond_count(c);
}

static void on_client_gone(void *user, struct exchange *x)
{
	struct call *c = user;
	(void)x;
	count(c->s, &c->s->gones);
}

static void on_finished(void *user, struct exchange *x, bool gone)
{
	struct call *c = user;
	struct served *s = c->s;
	(void)x;
	pthread_mutex_lock(&s->lock);
	if (s->waiting == c)
		s->waiting = NULL;
	s->finished_gone += gone;
	pthread_mutex_unlock(&s->lock);
	count(s, &s->finished);
	if (c->deferred)
		c->over = true;
	else
		free(c);
}

static void on_refused(void *arg, int status, const char *why)
{
	struct served *s = arg;
	assert(why);
	pthread_mutex_lock(&s->lock);
	s->refused_status = (unsigned)status;
	pthread_mutex_unlock(&s->lock);
	count(s, &s->refused);
}

/* --- the thread ----------------------------------------------------------------------------------------------------- */

static void *run(void *arg)
{
	struct served *s = arg;
	loop_run(s->loop);
	return NULL;
}

static void on_posted(struct loop_work *work)
{
	struct served *s = (struct served *)((char *)work - offsetof(struct served, posted));
	s->todo(s);
	pthread_mutex_lock(&s->lock);
	s->todo_done = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

/* Runs something on the loop's thread and waits for it. */
static void on_loop(struct served *s, void (*todo)(struct served *))
{
	s->todo = todo;
	s->todo_done = false;
	s->posted.fn = on_posted;
	loop_post(s->loop, &s->posted);
	pthread_mutex_lock(&s->lock);
	while (!s->todo_done)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

static const struct listener_options usual = {
	.address = "127.0.0.1:0",
	.max_connections = 100,
	.max_head = 16384,
	.head_timeout_ms = 10000,
	.idle_timeout_ms = 20000,
	.max_drain = 1 << 20,
};

static struct served *serve(const struct listener_options *o)
{
	struct served *s = calloc(1, sizeof(*s));
	struct listener_handler h = {s, on_head, on_body, on_body_end, on_client_gone, on_finished, on_refused};
	struct err e = {""};
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	assert_int_equal(loop_new(&s->loop), 0);
	assert_int_equal(listener_start(s->loop, o, &h, &s->listener, &e), 0);
	assert_int_equal(pthread_create(&s->thread, NULL, run, s), 0);
	return s;
}

static void do_stop(struct served *s)
{
	s->listener = listener_stop(s->listener);
	loop_stop(s->loop);
}

static void stop(struct served *s)
{
	on_loop(s, do_stop);
	pthread_join(s->thread, NULL);
	assert_int_equal(s->heads, s->finished);
	loop_free(s->loop);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	free(s);
}

static int ask(struct served *s, const char *request)
{
	int fd = raw_connect(listener_port(s->listener));
	assert_true(fd >= 0);
	assert_true(raw_say(fd, request));
	return fd;
}

static const char *body_of(const char *answer)
{
	const char *p = strstr(answer, "\r\n\r\n");
	return p ? p + 4 : "";
}

/* --- answers -------------------------------------------------------------------------------------------------------- */

static void answers_and_keeps_the_connection(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	int fd = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	char out[4096];
	assert_int_equal(raw_read_answer(fd, false, out, sizeof(out)), 200);
	assert_string_equal(body_of(out), "now");
	assert_null(strstr(out, "Connection"));
	assert_non_null(strstr(out, "Content-Length: 3\r\n"));
	for (int i = 0; i < 3; i++) {
		assert_true(raw_say(fd, "POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"));
		assert_int_equal(raw_read_answer(fd, false, out, sizeof(out)), 200);
		assert_string_equal(body_of(out), "5");
	}
	wait_until(s, &s->finished, 4);
	assert_int_equal(get(s, &s->finished_gone), 0);
	close(fd);
	stop(s);
}

static void streams_of_known_and_unknown_length(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	static char out[1 << 20];
	int fd = ask(s, "GET /stream?n=200000 HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_int_equal(raw_read_answer(fd, false, out, sizeof(out)), 200);
	assert_int_equal(strlen(body_of(out)), 200000);
	assert_true(raw_say(fd, "GET /chunks?n=200000 HTTP/1.1\r\nHost: a\r\n\r\n"));
	assert_int_equal(raw_read_answer(fd, false, out, sizeof(out)), 200);
	assert_true(strlen(body_of(out)) > 200000);
	assert_true(raw_say(fd, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n"));
	assert_int_equal(raw_read_answer(fd, false, out, sizeof(out)), 200);
	close(fd);
	stop(s);
}

/* --- what is refused ------------------------------------------------------------------------------------------------ */

static int status_of(const char *answer)
{
	return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? atoi(answer + 9) : -1;
}

static size_t answers_in(const char *bytes)
{
	size_t n = 0;
	for (const char *p = bytes; (p = strstr(p, "HTTP/1.1 ")); p += 9)
		n += p[9] >= '1' && p[9] <= '9';
	return n;
}

/* Each case is followed by a request that must not be served when the case is refused: the connection is closed. */
static void run_raw_case(struct served *s, const struct raw_case *c, size_t piece)
{
	char out[8192];
	unsigned heads = get(s, &s->heads), refused = get(s, &s->refused);
	int fd = raw_connect(listener_port(s->listener));
	for (size_t i = 0; i < c->length; i += piece)
		if (!raw_send(fd, c->bytes + i, c->length - i < piece ? c->length - i : piece))
			break;
	raw_say(fd, "GET /now HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
	raw_read_all(fd, out, sizeof(out), NULL);
	close(fd);
	if (status_of(out) != c->status)
		fail_msg("%s: expected %d, got %.100s", c->name, c->status, out);
	if (c->status == 200) {
		assert_true(get(s, &s->heads) >= heads + 1);
		return;
	}
	/* The library itself sends its head twice for a bad Content-Length (http.md). */
	if (answers_in(out) != 1 && !strstr(out, "value for <b>Content-Length</b>"))
		fail_msg("%s: %zu answers: %s", c->name, answers_in(out), out);
	bool in_body = strncmp(c->name, "chunk size", 10) == 0 || strncmp(c->name, "chunk longer", 12) == 0;
	if (get(s, &s->heads) != heads + in_body)
		fail_msg("%s: the handler heard of it", c->name);
	if (!in_body && status_of(out) != 413 && strstr(out, "problem+json"))
		assert_int_equal(get(s, &s->refused), refused + 1);
}

static void smuggling_shapes_are_refused(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	for (size_t i = 0; i < RAW_CASES; i++)
		run_raw_case(s, &raw_cases[i], 1 << 20);
	stop(s);
}

static void smuggling_shapes_in_pieces_are_refused(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	for (size_t i = 0; i < RAW_CASES; i++)
		run_raw_case(s, &raw_cases[i], 7);
	stop(s);
}

static void expect_answer(int fd, int status, const char *body)
{
	char out[4096];
	int got = raw_read_answer(fd, false, out, sizeof(out));
	if (got != status)
		fail_msg("expected %d, got %d: %s", status, got, out);
	if (body)
		assert_string_equal(body_of(out), body);
}

static void expect_status_and_close(struct served *s, const char *request, size_t n, int status)
{
	char out[4096];
	enum raw_end end;
	int fd = raw_connect(listener_port(s->listener));
	assert_true(raw_send(fd, request, n));
	raw_read_all(fd, out, sizeof(out), &end);
	assert_int_equal(status_of(out), status);
	assert_int_equal(end, RAW_EOF);
	close(fd);
}

static void heads_have_limits(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	static char head[40000];
	int n = snprintf(head, sizeof(head), "GET /now HTTP/1.1\r\nHost: a\r\n");
	for (int i = 0; i < HTTP_FIELDS_MAX; i++)
		n += snprintf(head + n, sizeof(head) - (size_t)n, "X-%d: 1\r\n", i);
	n += snprintf(head + n, sizeof(head) - (size_t)n, "\r\n");
	expect_status_and_close(s, head, (size_t)n, 431);
	/* 15 KiB are served, on the same connection again; 17 KiB are not; 30 KiB and a long target neither (the library) */
	n = snprintf(head, sizeof(head), "GET /now HTTP/1.1\r\nHost: a\r\nX-A: %*s\r\n\r\n", 15000, "x");
	int fd = ask(s, head);
	expect_answer(fd, 200, "now");
	assert_true(raw_say(fd, head));
	expect_answer(fd, 200, "now");
	close(fd);
	n = snprintf(head, sizeof(head), "GET /now HTTP/1.1\r\nHost: a\r\nX-A: %*s\r\n\r\n", 17000, "x");
	expect_status_and_close(s, head, (size_t)n, 431);
	assert_int_equal(get(s, &s->refused_status), 431);
	n = snprintf(head, sizeof(head), "GET /now?%0*d HTTP/1.1\r\nHost: a\r\n\r\n", 8000, 1);
	fd = ask(s, head);
	expect_answer(fd, 200, "now");
	close(fd);
	assert_int_equal(get(s, &s->heads), 3);
	stop(s);
}

static void a_head_of_many_cookies_and_arguments_leaves_room_for_the_answer(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	static char head[20000], unit[8000];
	for (int k = 0; k < 3000; k += 50) {
		memset(unit, '&', (size_t)k);
		unit[k] = 0;
		snprintf(head, sizeof(head), "GET /now?%s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", unit);
		char out[4096];
		int fd = ask(s, head);
		raw_read_all(fd, out, sizeof(out), NULL);
		close(fd);
		int status = status_of(out);
		if (status != 200)
			fail_msg("%d arguments: %s", k, out);
		memset(unit, ';', (size_t)k);
		snprintf(head, sizeof(head), "GET /now HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCookie: a=b%s\r\n\r\n", unit);
		fd = ask(s, head);
		raw_read_all(fd, out, sizeof(out), NULL);
		close(fd);
		status = status_of(out);
		if (status != 200 && status != 431)
			fail_msg("%d cookies: %s", k, out);
	}
	stop(s);
}

static void heads_of_answers_have_a_limit(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	static char out[40000];
	int fd = ask(s, "GET /bighead?n=12000 HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_int_equal(raw_read_answer(fd, false, out, sizeof(out)), 200);
	assert_string_equal(body_of(out), "big");
	assert_true(raw_say(fd, "GET /bighead?n=20000 HTTP/1.1\r\nHost: a\r\n\r\n"));
	assert_int_equal(raw_read_answer(fd, false, out, sizeof(out)), 502);
	assert_int_equal(raw_wait_end(fd), RAW_EOF);
	close(fd);
	stop(s);
}

static void connections_have_a_limit(void **state)
{
	(void)state;
	struct listener_options o = usual;
	o.max_connections = 2;
	struct served *s = serve(&o);
	int a = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(a, 200, "now");
	int b = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(b, 200, "now");
	char out[4096];
	int c = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	raw_read_all(c, out, sizeof(out), NULL);
	assert_int_equal(status_of(out), 503);
	assert_non_null(strstr(out, "\r\nRetry-After: 1\r\n"));
	close(c);
	assert_int_equal(get(s, &s->heads), 2);
	assert_true(raw_say(a, "GET /now HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
	expect_answer(a, 200, "now");
	assert_int_equal(raw_wait_end(a), RAW_EOF); /* closed by the listener, so no longer counted */
	close(a);
	c = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(c, 200, "now");
	close(b);
	close(c);
	stop(s);
}

static void listening_fails_with_a_sentence(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	static const char *const bad[] = {"", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "::1:80",
					  "[::1]", "[::1:80", "localhost:80", "256.0.0.1:80", ":80", "unix:/tmp/x"};
	struct listener_handler h = {s, on_head, on_body, on_body_end, on_client_gone, on_finished, on_refused};
	struct listener_options o = usual;
	struct listener *l;
	struct err e;
	struct loop *loop;
	assert_int_equal(loop_new(&loop), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		o.address = bad[i];
		assert_int_equal(listener_start(loop, &o, &h, &l, &e), -EINVAL);
		assert_non_null(strstr(e.text, bad[i]));
	}
	char taken[32];
	snprintf(taken, sizeof(taken), "127.0.0.1:%u", listener_port(s->listener));
	o.address = taken;
	assert_int_equal(listener_start(loop, &o, &h, &l, &e), -EADDRINUSE);
	assert_non_null(strstr(e.text, taken));
	o.address = "192.0.2.1:0";
	assert_int_equal(listener_start(loop, &o, &h, &l, &e), -EADDRNOTAVAIL);
	o.address = "[::1]:0";
	int r = listener_start(loop, &o, &h, &l, &e);
	if (r == 0)
		listener_stop(l);
	o.address = "*:0";
	assert_int_equal(listener_start(loop, &o, &h, &l, &e), 0);
	assert_true(listener_port(l) > 0);
	listener_stop(l);
	loop_free(loop);
	stop(s);
}

static void two_listeners_share_a_port(void **state)
{
	(void)state;
	struct listener_options o = usual;
	o.reuse_port = true;
	struct served *s = serve(&o);
	char address[32];
	snprintf(address, sizeof(address), "127.0.0.1:%u", listener_port(s->listener));
	o.address = address;
	struct served *t = serve(&o);
	for (int i = 0; i < 40; i++) {
		int fd = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
		expect_answer(fd, 200, "now");
		close(fd);
	}
	assert_true(get(s, &s->heads) > 0);
	assert_true(get(t, &t->heads) > 0);
	stop(t);
	stop(s);
}

/* --- framing -------------------------------------------------------------------------------------------------------- */

static void answers_without_a_body_keep_or_close_the_connection(void **state)
{
	(void)state;
	static const struct {
		const char *request;
		int status;
		const char *has, *has_not;
		bool closes;
	} cases[] = {
		{"HEAD /head?n=1234", 200, "Content-Length: 1234\r\n", "chunked", false},
		{"HEAD /head", 200, "Connection: close\r\n", "Content-Length", true},
		{"HEAD /stream?n=500000", 200, "Content-Length: 500000\r\n", "chunked", false},
		{"HEAD /chunks?n=5", 200, "Connection: close\r\n", "Content-Length", true},
		{"HEAD /now", 200, "Content-Length: 3\r\n", "chunked", false},
		{"GET /s204", 204, "HTTP/1.1 204", "Content-Length", false},
		{"GET /s204?n=7", 204, "HTTP/1.1 204", "Content-Length", false},
		{"HEAD /s204", 204, "HTTP/1.1 204", "Content-Length", false},
		{"GET /s304?n=77", 304, "Content-Length: 77\r\n", "chunked", false},
		{"GET /s304", 304, "Connection: close\r\n", "Content-Length", true},
		{"HEAD /s304?n=77", 304, "Content-Length: 77\r\n", "chunked", false},
	};
	struct served *s = serve(&usual);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char out[8192], request[128];
		snprintf(request, sizeof(request), "%s HTTP/1.1\r\nHost: a\r\n\r\n", cases[i].request);
		int fd = ask(s, request);
		int status = raw_read_answer(fd, true, out, sizeof(out));
		if (status != cases[i].status || !strstr(out, cases[i].has) || strstr(out, cases[i].has_not))
			fail_msg("%s: %d %s", cases[i].request, status, out);
		if (cases[i].closes) {
			if (raw_wait_end(fd) != RAW_EOF)
				fail_msg("%s: bytes behind the head, or no end", cases[i].request);
		} else {
			assert_true(raw_say(fd, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n"));
			expect_answer(fd, 200, "now");
		}
		close(fd);
	}
	stop(s);
}

static void http_1_0_is_served(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	char out[16384];
	enum raw_end end;
	int fd = ask(s, "GET /now HTTP/1.0\r\n\r\n");
	raw_read_all(fd, out, sizeof(out), &end);
	assert_string_equal(body_of(out), "now");
	assert_int_equal(end, RAW_EOF);
	close(fd);
	fd = ask(s, "GET /later HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	expect_answer(fd, 200, "0");
	assert_true(raw_say(fd, "GET /chunks?n=5000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
	raw_read_all(fd, out, sizeof(out), &end);
	assert_int_equal(end, RAW_EOF);
	assert_int_equal(strlen(body_of(out)), 5000);
	assert_null(strstr(out, "chunked"));
	close(fd);
	wait_until(s, &s->finished, 3);
	assert_int_equal(get(s, &s->finished_gone), 0);
	stop(s);
}

static void cut_bodies_never_look_whole(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	char out[16384];
	enum raw_end end;
	int fd = ask(s, "GET /cut?n=1000 HTTP/1.1\r\nHost: a\r\n\r\n");
	raw_read_all(fd, out, sizeof(out), &end);
	assert_non_null(strstr(out, "Content-Length: 1001\r\n"));
	assert_int_equal(strlen(body_of(out)), 1000);
	close(fd);
	fd = ask(s, "GET /short?n=1000 HTTP/1.1\r\nHost: a\r\n\r\n");
	raw_read_all(fd, out, sizeof(out), &end);
	assert_non_null(strstr(out, "Content-Length: 1001\r\n"));
	assert_int_equal(strlen(body_of(out)), 1000);
	close(fd);
	fd = ask(s, "GET /cutchunks?n=1000 HTTP/1.1\r\nHost: a\r\n\r\n");
	raw_read_all(fd, out, sizeof(out), &end);
	assert_non_null(strstr(out, "chunked"));
	assert_null(strstr(out, "\r\n0\r\n"));
	close(fd);
	fd = ask(s, "GET /cutchunks?n=1000 HTTP/1.0\r\n\r\n");
	raw_read_all(fd, out, sizeof(out), &end);
	assert_int_equal(end, RAW_RESET); /* nothing else tells a cut from an end there */
	close(fd);
	wait_until(s, &s->finished, 4);
	assert_int_equal(get(s, &s->finished_gone), 4);
	stop(s);
}

static void heads_arrive_as_they_were_sent(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	int fd = ask(s, "GET /now//a/../b%2F%zz?x=%20&y&&z=#f;\xff HTTP/1.1\r\nX-B:  one \t\r\nhOST: a\r\nX-A:\r\nx-b: two\r\n\r\n");
	expect_answer(fd, 200, NULL);
	expect_seen(s, "GET /now//a/../b%2F%zz?x=%20&y&&z=#f;\xff HTTP/1.1 cl=-1 chunked=0 expect=0\n"
				     "X-B=[one]\nhOST=[a]\nX-A=[]\nx-b=[two]\n");
	assert_true(raw_say(fd, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"));
	expect_answer(fd, 200, "0");
	expect_seen(s, "OPTIONS * HTTP/1.1 cl=-1 chunked=0 expect=0\nHost=[a]\n");
	assert_true(raw_say(fd, "GET http://b:80/now?x HTTP/1.1\r\nHost: a\r\n\r\n"));
	expect_answer(fd, 200, "0");
	expect_seen(s, "GET http://b:80/now?x HTTP/1.1 cl=-1 chunked=0 expect=0\nHost=[a]\n");
	assert_true(raw_say(fd, "PURGE /now HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
	expect_answer(fd, 200, "now");
	expect_seen(s, "PURGE /now HTTP/1.1 cl=0 chunked=0 expect=0\nHost=[a]\nContent-Length=[0]\n");
	close(fd);
	stop(s);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	int fd = ask(s, "POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
			"GET /now HTTP/1.1\r\nHost: a\r\n\r\n"
			"HEAD /stream?n=9 HTTP/1.1\r\nHost: a\r\n\r\n"
			"POST /later HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
			"GET /chunks?n=4 HTTP/1.1\r\nHost: a\r\n\r\n"
			"GET /now HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
			"GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	char out[4096];
	expect_answer(fd, 200, "3");
	expect_answer(fd, 200, "now");
	assert_int_equal(raw_read_answer(fd, true, out, sizeof(out)), 200);
	expect_answer(fd, 200, "2");
	expect_answer(fd, 200, "4\r\ndddd\r\n0\r\n\r\n");
	expect_answer(fd, 200, "now");
	assert_true(raw_wait_end(fd) != RAW_OPEN);
	close(fd);
	assert_int_equal(get(s, &s->heads), 6);
	stop(s);
}

/* --- bodies --------------------------------------------------------------------------------------------------------- */

static void bodies_of_every_framing_arrive(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	int fd = ask(s, "POST /sink HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
	expect_answer(fd, 200, "0");
	assert_true(raw_say(fd, "POST /sink HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
	assert_true(raw_say(fd, "5;ext=1\r\nhello\r\n00A\r\n0123456789\r\n"));
	wait_until(s, &s->bodies, 2);
	assert_true(raw_say(fd, "0\r\nX-Trailer: 1\r\nX-Other: 2\r\n\r\n"));
	expect_answer(fd, 200, "15");
	assert_true(raw_say(fd, "POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nabcd"));
	wait_until(s, &s->bodies, 3);
	assert_true(raw_say(fd, "efgh"));
	expect_answer(fd, 200, "8");
	close(fd);
	stop(s);
}

static void a_client_that_waits_for_100_gets_it_when_the_body_is_wanted(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	char out[4096];
	int fd = ask(s, "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
	static const char go[] = "HTTP/1.1 100 Continue\r\n\r\n";
	raw_read_all(fd, out, sizeof(go), NULL);
	assert_string_equal(out, go);
	assert_true(raw_say(fd, "hello"));
	expect_answer(fd, 200, "5");
	assert_true(raw_say(fd, "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"));
	raw_read_all(fd, out, sizeof(out), NULL);
	assert_int_equal(status_of(out), 401);
	assert_int_equal(answers_in(out), 1);
	close(fd);
	stop(s);
}

static void read_the_held(struct served *s)
{
	exchange_read_body(s->held->x);
}

static void nothing_is_read_before_it_is_wanted(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	int fd = ask(s, "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
	wait_until(s, &s->heads, 1);
	int other = ask(s, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n"); /* some rounds go by */
	expect_answer(other, 200, "0");
	assert_int_equal(get(s, &s->bodies), 0);
	on_loop(s, read_the_held);
	expect_answer(fd, 200, NULL);
	assert_int_equal(get64(s, &s->body_bytes), 5);
	int get_fd = ask(s, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	wait_until(s, &s->heads, 3);
	on_loop(s, read_the_held);
	expect_answer(get_fd, 200, "0");
	close(get_fd);
	close(other);
	close(fd);
	stop(s);
}

static int ask_with_body(struct served *s, const char *path, size_t n)
{
	char head[128];
	snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", path, n);
	return ask(s, head);
}

static void early_answers_are_seen(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	static char body[1 << 19];
	char out[4096];
	/* While the body is being read: the rest is dropped first. */
	int fd = ask_with_body(s, "/early", sizeof(body));
	assert_true(raw_send(fd, body, sizeof(body)));
	raw_read_all(fd, out, sizeof(out), NULL);
	assert_int_equal(status_of(out), 413);
	assert_non_null(strstr(out, "Connection: close\r\n"));
	close(fd);
	/* Before any of it was read: at once, and the client may finish sending. */
	fd = ask_with_body(s, "/refuse", sizeof(body));
	struct pollfd p = {.fd = fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, RAW_PATIENCE_S * 1000), 1);
	assert_true(raw_send(fd, body, sizeof(body)));
	raw_read_all(fd, out, sizeof(out), NULL);
	assert_int_equal(status_of(out), 401);
	close(fd);
	wait_until(s, &s->finished, 2);
	assert_int_equal(get(s, &s->finished_gone), 0);
	stop(s);
}

static void a_body_beyond_the_drain_limit_is_cut(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	static char body[1 << 16];
	int fd = ask_with_body(s, "/early", 1 << 30);
	int sent = 0;
	while (sent < (1 << 30) / (int)sizeof(body) && raw_send(fd, body, sizeof(body)))
		sent++;
	assert_true(sent < 1000);
	close(fd);
	wait_until(s, &s->finished, 1);
	assert_int_equal(get(s, &s->finished_gone), 1);
	stop(s);
}

/* --- back-pressure -------------------------------------------------------------------------------------------------- */

#define MUCH (64u << 20)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

static long peak_kib(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return u.ru_maxrss;
}

static void expect_little_memory(long before)
{
#ifdef SANITIZED
	(void)before;
#else
	assert_true(peak_kib() - before < 8192);
#endif
}

static void open_gate(struct served *s)
{
	pthread_mutex_lock(&s->lock);
	s->gate = true;
	struct call *c = s->waiting;
	pthread_mutex_unlock(&s->lock);
	if (c && is(c, "/pause"))
		exchange_resume_body(c->x);
	else if (c)
		exchange_resume_response(c->x);
}

/* Sends until the kernel takes no more for a while. */
static size_t send_until_stuck(int fd, size_t most)
{
	static char block[65536];
	size_t sent = 0;
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	while (sent < most && poll(&p, 1, 300) == 1) {
		size_t n = most - sent < sizeof(block) ? most - sent : sizeof(block);
		ssize_t r = send(fd, block, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (r < 0 && errno == EAGAIN)
			continue;
		assert_true(r > 0);
		sent += (size_t)r;
	}
	return sent;
}

static void a_slow_handler_stops_the_client(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	long before = peak_kib();
	int fd = ask_with_body(s, "/pause", MUCH);
	size_t sent = send_until_stuck(fd, MUCH);
	assert_true(sent < MUCH / 2);
	assert_int_equal(get64(s, &s->body_bytes), 0);
	on_loop(s, open_gate);
	assert_int_equal(send_until_stuck(fd, MUCH - sent), MUCH - sent);
	expect_answer(fd, 200, "67108864");
	expect_little_memory(before);
	close(fd);
	stop(s);
}

static size_t read_and_count(int fd, size_t want)
{
	static char block[65536];
	size_t n = 0;
	ssize_t r;
	while (n < want && (r = recv(fd, block, sizeof(block), 0)) > 0)
		n += (size_t)r;
	return n;
}

static void a_slow_client_stops_the_handler(void **state)
{
	(void)state;
	static const char *const paths[] = {"/stream", "/chunks"};
	for (int i = 0; i < 2; i++) {
		struct served *s = serve(&usual);
		long before = peak_kib();
		char request[128];
		snprintf(request, sizeof(request), "GET %s?n=%u HTTP/1.1\r\nHost: a\r\n\r\n", paths[i], MUCH);
		int fd = ask(s, request);
		char first[100];
		raw_read_all(fd, first, sizeof(first), NULL);
		int other = ask(s, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n"); /* nobody else is held up */
		expect_answer(other, 200, "0");
		close(other);
		assert_true(get64(s, &s->pulled) < MUCH / 2);
		assert_true(read_and_count(fd, MUCH) >= MUCH - 100);
		expect_little_memory(before);
		close(fd);
		stop(s);
	}
}

static void a_streamed_answer_waits_for_its_source(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	int fd = ask(s, "GET /gated HTTP/1.1\r\nHost: a\r\n\r\n");
	for (unsigned i = 1; i <= 4; i++) {
		wait_until(s, &s->dry, i);
		on_loop(s, open_gate);
	}
	expect_answer(fd, 200, "5\r\npiece\r\n5\r\npiece\r\n5\r\npiece\r\n0\r\n\r\n");
	assert_true(raw_say(fd, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n"));
	expect_answer(fd, 200, "now");
	close(fd);
	stop(s);
}

/* --- clients that go ------------------------------------------------------------------------------------------------ */

static void close_by_reset(int fd)
{
	struct linger at_once = {.l_onoff = 1, .l_linger = 0};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
}

static void a_client_that_resets_is_noticed_at_every_stage(void **state)
{
	(void)state;
	static const struct {
		const char *request;
		bool body, dry;
	} stages[] = {
		{"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n", false, false},
		{"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n", false, false},
		{"POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", false, false},
		{"POST /pause HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", true, false},
		{"POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", true, false},
		{"GET /gated HTTP/1.1\r\nHost: a\r\n\r\n", false, true},
	};
	for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++) {
		struct served *s = serve(&usual);
		int fd = ask(s, stages[i].request);
		wait_until(s, &s->heads, 1);
		wait_until(s, &s->bodies, stages[i].body);
		wait_until(s, &s->dry, stages[i].dry);
		close_by_reset(fd);
		wait_until(s, &s->finished, 1);
		assert_int_equal(get(s, &s->finished_gone), 1);
		assert_int_equal(get(s, &s->gones), 1);
		stop(s);
	}
}

static void clients_that_go_in_their_head_or_body_leave_nothing(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	static const char request[] = "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab";
	for (size_t n = 0; n < sizeof(request); n++) {
		for (int reset = 0; reset < 2; reset++) {
			int fd = raw_connect(listener_port(s->listener));
			assert_true(raw_send(fd, request, n));
			reset ? close_by_reset(fd) : (void)close(fd);
		}
	}
	int fd = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(fd, 200, "now");
	close(fd);
	stop(s);
}

static void a_half_close_counts_only_when_configured(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	/* before the answer, and in the midst of a streamed one */
	int fd = ask(s, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	wait_until(s, &s->heads, 1);
	shutdown(fd, SHUT_WR);
	int other = ask(s, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(other, 200, "0");
	on_loop(s, read_the_held);
	expect_answer(fd, 200, "0");
	close(fd);
	fd = ask(s, "GET /gated HTTP/1.1\r\nHost: a\r\n\r\n");
	wait_until(s, &s->dry, 1);
	shutdown(fd, SHUT_WR);
	for (unsigned i = 1; i <= 4; i++) {
		wait_until(s, &s->dry, i);
		on_loop(s, open_gate);
	}
	expect_answer(fd, 200, "5\r\npiece\r\n5\r\npiece\r\n5\r\npiece\r\n0\r\n\r\n");
	close(fd);
	/* request and end in one */
	fd = ask(s, "POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
	shutdown(fd, SHUT_WR);
	expect_answer(fd, 200, "2");
	close(fd);
	close(other);
	assert_int_equal(get(s, &s->gones), 0);
	stop(s);

	struct listener_options o = usual;
	o.half_close_is_gone = true;
	s = serve(&o);
	fd = ask(s, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
	wait_until(s, &s->heads, 1);
	shutdown(fd, SHUT_WR);
	wait_until(s, &s->finished, 1);
	assert_int_equal(get(s, &s->gones), 1);
	close(fd);
	stop(s);
}

static void an_aborted_exchange_closes_without_an_answer(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	int fd = ask(s, "GET /abort HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_int_equal(raw_wait_end(fd), RAW_EOF);
	close(fd);
	fd = ask(s, "POST /abort HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
	assert_int_equal(raw_wait_end(fd), RAW_EOF);
	close(fd);
	wait_until(s, &s->finished, 2);
	assert_int_equal(get(s, &s->finished_gone), 2);
	assert_int_equal(get(s, &s->gones), 0);
	stop(s);
}

/* --- limits in time ------------------------------------------------------------------------------------------------- */

static void a_head_that_comes_byte_by_byte_is_cut(void **state)
{
	(void)state;
	struct listener_options o = usual;
	o.head_timeout_ms = 200;
	struct served *s = serve(&o);
	int fd = raw_connect(listener_port(s->listener));
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int sent = 0;
	while (sent < 500 && poll(&p, 1, 10) == 0) /* the pace of the client: 100 bytes/s */
		sent += raw_say(fd, sent < 4 ? "GET " + sent : "x") ? 1 : 0;
	assert_true(sent < 500);
	assert_true(raw_wait_end(fd) != RAW_OPEN);
	wait_until(s, &s->refused, 1);
	assert_int_equal(get(s, &s->refused_status), 408);
	close(fd);
	/* the same after the request line */
	fd = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\nX-A: ");
	p.fd = fd;
	for (sent = 0; sent < 500 && poll(&p, 1, 10) == 0;)
		sent += raw_say(fd, "x") ? 1 : 0;
	assert_true(sent < 500);
	assert_true(raw_wait_end(fd) != RAW_OPEN);
	close(fd);
	assert_int_equal(get(s, &s->heads), 0);
	stop(s);
}

static void idle_and_stalled_clients_are_cut_but_waiting_ones_are_not(void **state)
{
	(void)state;
	struct listener_options o = usual;
	o.idle_timeout_ms = 200;
	struct served *s = serve(&o);
	int waiting = ask(s, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	wait_until(s, &s->heads, 1);
	/* kept, without a request */
	int fd = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(fd, 200, "now");
	assert_int_equal(raw_wait_end(fd), RAW_EOF);
	close(fd);
	/* a body that stops */
	fd = ask(s, "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
	assert_int_equal(raw_wait_end(fd), RAW_RESET);
	close(fd);
	wait_until(s, &s->finished, 2);
	/* an answer that is not read: streamed, and in one piece */
	fd = ask(s, "GET /stream?n=67108864 HTTP/1.1\r\nHost: a\r\n\r\n");
	wait_until(s, &s->finished, 3);
	close(fd);
	assert_int_equal(get(s, &s->finished_gone), 2);
	assert_int_equal(get(s, &s->gones), 2);
	on_loop(s, read_the_held);
	expect_answer(waiting, 200, "0");
	close(waiting);
	stop(s);
}

/* --- ending --------------------------------------------------------------------------------------------------------- */

static void quiesce(struct served *s)
{
	listener_quiesce(s->listener);
}

static void quiescing_lets_running_exchanges_end(void **state)
{
	(void)state;
	struct served *s = serve(&usual);
	int idle = ask(s, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
	expect_answer(idle, 200, "now");
	int running = ask(s, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	wait_until(s, &s->heads, 2);
	on_loop(s, quiesce);
	assert_int_equal(raw_wait_end(idle), RAW_EOF);
	int late = raw_connect(listener_port(s->listener));
	assert_int_equal(late, -1);
	on_loop(s, read_the_held);
	char out[4096];
	enum raw_end end;
	raw_read_all(running, out, sizeof(out), &end);
	assert_int_equal(status_of(out), 200);
	assert_non_null(strstr(out, "Connection: close\r\n"));
	assert_int_equal(end, RAW_EOF);
	close(idle);
	close(running);
	stop(s);
}

static void stopping_ends_what_runs(void **state)
{
	(void)state;
	static const char *const requests[] = {
		"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab",
		"POST /pause HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab",
		"POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab",
		"GET /gated HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /stream?n=67108864 HTTP/1.1\r\nHost: a\r\n\r\n",
	};
	struct served *s = serve(&usual);
	int fds[6];
	for (int i = 0; i < 6; i++)
		fds[i] = ask(s, requests[i]);
	wait_until(s, &s->heads, 6);
	wait_until(s, &s->bodies, 2);
	wait_until(s, &s->dry, 1);
	stop(s); /* asserts that each head was finished */
	for (int i = 0; i < 6; i++)
		close(fds[i]);
}

static void the_self_test_passes(void **state)
{
	(void)state;
	struct err e = {""};
	int r = listener_self_test(&e);
	if (r)
		fail_msg("%s", e.text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_self_test_passes),
		cmocka_unit_test(answers_and_keeps_the_connection),
		cmocka_unit_test(smuggling_shapes_are_refused),
		cmocka_unit_test(smuggling_shapes_in_pieces_are_refused),
		cmocka_unit_test(heads_have_limits),
		cmocka_unit_test(a_head_of_many_cookies_and_arguments_leaves_room_for_the_answer),
		cmocka_unit_test(heads_of_answers_have_a_limit),
		cmocka_unit_test(connections_have_a_limit),
		cmocka_unit_test(listening_fails_with_a_sentence),
		cmocka_unit_test(two_listeners_share_a_port),
		cmocka_unit_test(answers_without_a_body_keep_or_close_the_connection),
		cmocka_unit_test(http_1_0_is_served),
		cmocka_unit_test(cut_bodies_never_look_whole),
		cmocka_unit_test(heads_arrive_as_they_were_sent),
		cmocka_unit_test(pipelined_requests_are_answered_in_order),
		cmocka_unit_test(bodies_of_every_framing_arrive),
		cmocka_unit_test(a_client_that_waits_for_100_gets_it_when_the_body_is_wanted),
		cmocka_unit_test(nothing_is_read_before_it_is_wanted),
		cmocka_unit_test(early_answers_are_seen),
		cmocka_unit_test(a_body_beyond_the_drain_limit_is_cut),
		cmocka_unit_test(a_slow_handler_stops_the_client),
		cmocka_unit_test(a_slow_client_stops_the_handler),
		cmocka_unit_test(a_streamed_answer_waits_for_its_source),
		cmocka_unit_test(a_client_that_resets_is_noticed_at_every_stage),
		cmocka_unit_test(clients_that_go_in_their_head_or_body_leave_nothing),
		cmocka_unit_test(a_half_close_counts_only_when_configured),
		cmocka_unit_test(an_aborted_exchange_closes_without_an_answer),
		cmocka_unit_test(a_head_that_comes_byte_by_byte_is_cut),
		cmocka_unit_test(idle_and_stalled_clients_are_cut_but_waiting_ones_are_not),
		cmocka_unit_test(quiescing_lets_running_exchanges_end),
		cmocka_unit_test(stopping_ends_what_runs),
		cmocka_unit_test(streams_of_known_and_unknown_length),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
