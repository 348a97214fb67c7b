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
 */
struct served {
	struct loop *loop;
	struct listener *listener;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under lock */
	unsigned heads, bodies, ends, gones, finished, finished_gone, refused;
	int refused_status;
	uint64_t body_bytes;
	bool gate;
	struct call *waiting; /* of /pause and /gated */
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
		if (!open)
			return 0;
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
	count(s, &s->heads);
	if (is(c, "/now"))
		respond_text(c, 200, "now");
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
	s->refused_status = status;
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
		cmocka_unit_test(streams_of_known_and_unknown_length),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
