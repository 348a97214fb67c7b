/*
 * Served: the listener's thread, the handler, and what clients need.
 */
#include "support/served.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "support/raw_client.h"

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

unsigned served_get(struct served *s, const unsigned *counter)
{
	pthread_mutex_lock(&s->lock);
	unsigned n = *counter;
	pthread_mutex_unlock(&s->lock);
	return n;
}

uint64_t served_get64(struct served *s, const uint64_t *counter)
{
	pthread_mutex_lock(&s->lock);
	uint64_t n = *counter;
	pthread_mutex_unlock(&s->lock);
	return n;
}

void served_expect_seen(struct served *s, const char *expected)
{
	pthread_mutex_lock(&s->lock);
	assert_string_equal(s->seen, expected);
	pthread_mutex_unlock(&s->lock);
}

/* Waits for an event, not for a time; the limit only ends a broken test. */
void served_wait(struct served *s, const unsigned *counter, unsigned at_least)
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
	if (exchange_respond(c->x, &r, SPAN_LIT("big")) == EXCHANGE_E_HEAD_TOO_LARGE)
		respond_text(c, 502, "too big");
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
	return is(c, "/stream") || is(c, "/chunks") || is(c, "/gated") || is(c, "/cut") ||
	       is(c, "/cutchunks") || is(c, "/short");
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
	if (is(c, "/earlystream") && c->left == 0) {
		c->left = 9;
		respond_stream(c);
	} else if (is(c, "/early")) {
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

/* --- the thread ----------------------------------------------------------------------------------------- */

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
void served_on_loop(struct served *s, void (*todo)(struct served *))
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

const struct listener_options served_usual = {
	.address = "127.0.0.1:0",
	.max_connections = 100,
	.max_head = 16384,
	.head_timeout_ms = 10000,
	.idle_timeout_ms = 20000,
	.drain_timeout_ms = 20000,
};

struct listener_handler served_handler(struct served *s)
{
	return (struct listener_handler){s,	      on_head,	 on_body, on_body_end, on_client_gone,
					 on_finished, on_refused};
}

struct served *serve(const struct listener_options *o)
{
	struct served *s = calloc(1, sizeof(*s));
	struct listener_handler h = served_handler(s);
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

void served_stop(struct served *s)
{
	served_on_loop(s, do_stop);
	pthread_join(s->thread, NULL);
	assert_int_equal(s->heads, s->finished);
	loop_free(s->loop);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	free(s);
}

void served_open_gate(struct served *s)
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

void served_read_held(struct served *s)
{
	exchange_read_body(s->held->x);
}

/* --- ending --------------------------------------------------------------------------------------------- */

void served_quiesce(struct served *s)
{
	listener_quiesce(s->listener, false);
}

/* --- clients -------------------------------------------------------------------------------------------- */

int ask(struct served *s, const char *request)
{
	int fd = raw_connect(listener_port(s->listener));
	assert_true(fd >= 0);
	assert_true(raw_say(fd, request));
	return fd;
}

int ask_with_body(struct served *s, const char *path, size_t n)
{
	char head[128];
	snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", path, n);
	return ask(s, head);
}

const char *body_of(const char *answer)
{
	const char *p = strstr(answer, "\r\n\r\n");
	return p ? p + 4 : "";
}

/* --- what is refused ------------------------------------------------------------------------------------ */

int status_of(const char *answer)
{
	return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? atoi(answer + 9) : -1;
}

size_t answers_in(const char *bytes)
{
	size_t n = 0;
	for (const char *p = bytes; (p = strstr(p, "HTTP/1.1 ")); p += 9)
		n += p[9] >= '1' && p[9] <= '9';
	return n;
}

void expect_answer(int fd, int status, const char *body)
{
	char out[4096];
	int got = raw_read_answer(fd, false, out, sizeof(out));
	if (got != status)
		fail_msg("expected %d, got %d: %s", status, got, out);
	if (body)
		assert_string_equal(body_of(out), body);
}
