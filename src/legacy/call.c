#include "legacy/call.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "legacy/request_head.h"

#define IDLE_CALLS 256
#define IDLE_OUT_MAX 2048 /* what an idle call keeps of its memory */
#define IDLE_FIELDS_MAX 32
/* A head waits so long for its body's first bytes, to share a segment and a system call with them. */
#define HOLD_MS 1

const char *legacy_failure_text(enum legacy_failure f)
{
	static const char *const texts[] = {
		[LEGACY_CONNECT] = "could not connect",
		[LEGACY_CONNECT_TIMEOUT] = "no connection in time",
		[LEGACY_OVERLOADED] = "too many calls wait for a connection",
		[LEGACY_RESET] = "connection lost before the answer",
		[LEGACY_TIMEOUT] = "no answer in time",
		[LEGACY_MALFORMED] = "malformed answer",
		[LEGACY_TRUNCATED] = "answer cut short",
		[LEGACY_NAME] = "the name could not be resolved",
		[LEGACY_TLS] = "no TLS connection",
	};
	return (unsigned)f < sizeof(texts) / sizeof(texts[0]) ? texts[f] : "unknown failure";
}

void call_soon(struct legacy_call *c)
{
	upstream_look_soon(c->upstream, &c->soon, 0);
}

void call_fail(struct legacy_call *c, enum legacy_failure f, const char *detail)
{
	if (c->failure >= 0)
		return;
	c->failure = f;
	span_copy(span_of(detail), c->detail, sizeof(c->detail));
	call_let_go(c, false);
	call_soon(c);
}

void call_let_go(struct legacy_call *c, bool keep)
{
	struct line *line = steal(c->line);
	if (c->state == CALL_QUEUED) {
		link_remove(&c->link);
		c->upstream->n_queued--;
	}
	c->state = CALL_OVER;
	c->deadline = 0;
	if (!line)
		return;
	if (keep)
		pool_keep(line, c->response.keep_timeout_s);
	else
		pool_close(line);
	upstream_serve_queue(c->upstream);
}

/* --- time ----------------------------------------------------------------------------------------------- */

static void expire(struct legacy_call *c)
{
	char detail[96];
	if (c->state == CALL_QUEUED) {
		snprintf(detail, sizeof(detail), "no connection became free in %u ms",
			 c->upstream->options.connect_timeout_ms);
		call_fail(c, LEGACY_CONNECT_TIMEOUT, detail);
		return;
	}
	if (c->blocked)
		call_fail(c, LEGACY_TIMEOUT, "the upstream stopped reading the request");
	else
		call_fail(c, LEGACY_TIMEOUT, c->head_known ? "the answer stalled" : "no answer");
}

static void call_on_timer(void *arg)
{
	struct legacy_call *c = arg;
	uint64_t now = loop_now_ms(c->upstream->loop);
	c->timer_at = 0;
	if (!c->deadline)
		return;
	if (now >= c->deadline) {
		expire(c);
		return;
	}
	c->timer_at = c->deadline;
	loop_timer_start(c->timer, c->deadline - now);
}

void call_limit(struct legacy_call *c, unsigned ms)
{
	if (ms == 0) {
		c->deadline = 0;
		return;
	}
	c->deadline = loop_now_ms(c->upstream->loop) + ms;
	if (c->timer_at && c->timer_at <= c->deadline)
		return; /* it looks again when it fires */
	c->timer_at = c->deadline;
	loop_timer_start(c->timer, ms);
}

/* The upstream has a limited time for what is its turn; while the caller has more to send or does not read,
 * there is none. */
void call_set_limit(struct legacy_call *c)
{
	const struct legacy_options *o = &c->upstream->options;
	if (c->state != CALL_OPEN)
		return;
	if (c->paused || !c->line_written)
		call_limit(c, c->blocked && !c->paused ? o->idle_timeout_ms : 0);
	else if (c->blocked)
		call_limit(c, o->idle_timeout_ms);
	else if (!call_request_done(c) && !c->expects_continue)
		call_limit(c, 0);
	else
		call_limit(c, c->head_known ? o->idle_timeout_ms : c->response_timeout_ms);
}

/* --- the line ------------------------------------------------------------------------------------------- */

void call_watch(struct legacy_call *c)
{
	if (c->state == CALL_OPEN && !c->line_broken)
		connection_watch(c->line->connection,
				 (c->paused ? 0 : LOOP_READ) | (c->blocked ? LOOP_WRITE : 0));
}

static void on_made(void *arg, enum connection_result r, const char *detail)
{
	struct legacy_call *c = arg;
	if (r != CONNECTION_MADE) {
		static const enum legacy_failure failures[] = {
			[CONNECTION_REFUSED] = LEGACY_CONNECT,
			[CONNECTION_TIMED_OUT] = LEGACY_CONNECT_TIMEOUT,
			[CONNECTION_NO_NAME] = LEGACY_NAME,
			[CONNECTION_NO_TLS] = LEGACY_TLS,
		};
		/* After a retry, CONNECT would wrongly say that nothing was sent. */
		call_fail(c, c->written ? LEGACY_RESET : failures[r], detail);
		return;
	}
	c->state = CALL_OPEN;
	c->busy++;
	call_writable(c);
	c->busy--;
	if (c->freed)
		legacy_call_free(c);
}

static void call_on_ready(void *arg, unsigned events)
{
	struct legacy_call *c = arg;
	c->busy++;
	if (events & LOOP_ERROR)
		c->line_broken = true;
	if (events & (LOOP_READ | LOOP_ERROR))
		call_receive(c);
	if ((events & LOOP_WRITE) && c->state == CALL_OPEN)
		call_writable(c);
	call_tell(c);
	c->busy--;
	if (c->freed)
		legacy_call_free(c);
}

static const struct connection_events line_events = {.made = on_made, .ready = call_on_ready};

/* false: all connections are in use. */
static bool find_line(struct legacy_call *c, bool only_new)
{
	struct pool *pool = c->upstream->pool;
	c->line_broken = c->line_written = c->blocked = false;
	c->line_number++;
	c->line = only_new ? NULL : pool_take(pool, &line_events, c);
	c->reused = c->line != NULL;
	if (c->line) {
		c->state = CALL_OPEN;
		return true;
	}
	if (pool_full(pool))
		return false;
	c->state = CALL_CONNECTING;
	if (pool_connect(pool, &line_events, c, &c->line) < 0)
		call_fail(c, LEGACY_CONNECT, "out of memory");
	return true;
}

static void wait_in_queue(struct legacy_call *c)
{
	struct legacy_upstream *u = c->upstream;
	if (u->n_queued == u->options.max_queued) {
		c->state = CALL_OVER;
		call_fail(c, LEGACY_OVERLOADED, "all connections are in use and the queue is full");
		return;
	}
	c->state = CALL_QUEUED;
	link_append(&u->queue, &c->link);
	u->n_queued++;
	call_limit(c, u->options.connect_timeout_ms);
}

static bool call_leave_queue(struct link *queued)
{
	struct legacy_call *c = LINK_OWNER(queued, struct legacy_call, link);
	if (!find_line(c, false)) {
		c->state = CALL_QUEUED;
		return false;
	}
	link_remove(&c->link);
	c->upstream->n_queued--;
	c->deadline = 0;
	if (c->state == CALL_OPEN)
		call_soon(c);
	return true;
}

void call_replace_line(struct legacy_call *c, bool only_new)
{
	pool_close(steal(c->line));
	c->deadline = 0;
	c->out_sent = 0;
	c->write_dead = false;
	/* Its own connection was just given up, so there is room. */
	if (!find_line(c, only_new))
		call_fail(c, LEGACY_OVERLOADED, "no connection to replace a dead one");
	else if (c->state == CALL_OPEN)
		call_soon(c);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static struct legacy_call *take_call(struct legacy_upstream *u)
{
	struct legacy_call *c;
	if (!link_alone(&u->idle_calls)) {
		c = LINK_OWNER(u->idle_calls.next, struct legacy_call, link);
		link_remove(&c->link);
		u->n_idle_calls--;
		return c;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	if (loop_timer_new(u->loop, call_on_timer, c, &c->timer) < 0) {
		free(c);
		return NULL;
	}
	c->upstream = u;
	buf_init(&c->out, CALL_HEAD_MAX + 2 * CALL_OUT_MAX);
	link_init(&c->link);
	link_init(&c->soon);
	return c;
}

/* All but what is kept from one call to the next: memory and timer. */
static void reset_call(struct legacy_call *c)
{
	struct legacy_call clean = {
		.upstream = c->upstream,
		.out = c->out,
		.response = c->response,
		.timer = c->timer,
		.timer_at = c->timer_at,
		.failure = -1,
		.state = CALL_OVER,
	};
	*c = clean;
	buf_clear(&c->out);
	link_init(&c->link);
	link_init(&c->soon);
}

static void destroy_call(struct legacy_call *c)
{
	loop_timer_free(c->timer);
	buf_release(&c->out);
	response_release(&c->response);
	free(c);
}

static void call_put_call(struct legacy_call *c)
{
	struct legacy_upstream *u = c->upstream;
	if (u->n_idle_calls == IDLE_CALLS) {
		destroy_call(c);
		return;
	}
	if (c->out.capacity > IDLE_OUT_MAX)
		buf_release(&c->out);
	if (c->response.capacity > IDLE_FIELDS_MAX)
		response_release(&c->response);
	c->deadline = 0; /* its timer may fire in vain */
	link_prepend(&u->idle_calls, &c->link);
	u->n_idle_calls++;
}

static void call_free_idle(struct link *idle)
{
	destroy_call(LINK_OWNER(idle, struct legacy_call, link));
}

static bool expects_continue(const struct legacy_request *r)
{
	for (size_t i = 0; i < r->n_fields; i++)
		if (span_is_nocase(r->fields[i].name, "Expect"))
			return true;
	return false;
}

static void take_request(struct legacy_call *c, const struct legacy_request *r)
{
	c->has_body = r->has_body;
	c->chunked = r->has_body && r->content_length < 0;
	c->body_left = r->has_body && !c->chunked ? r->content_length : 0;
	c->ended = !r->has_body;
	c->expects_continue = r->has_body && expects_continue(r);
	c->response_timeout_ms =
		r->response_timeout_ms ? r->response_timeout_ms : c->upstream->options.response_timeout_ms;
	c->may_retry = r->retry_if_kept_died && !r->has_body;
	response_begin(&c->response, span_is(r->method, "HEAD"), c->upstream->options.max_head);
}

static void hold(struct legacy_call *c)
{
	c->held = true;
	upstream_look_soon(c->upstream, &c->soon, HOLD_MS);
}

int legacy_call_start(struct legacy_upstream *u, const struct legacy_request *r,
		      const struct legacy_events *events, struct legacy_call **ret)
{
	struct legacy_call *c = take_call(u);
	if (!c)
		return -ENOMEM;
	reset_call(c);
	c->events = *events;
	take_request(c, r);
	int e = request_head_append(&c->out, r, &u->origin);
	if (e == 0 && c->out.len > CALL_HEAD_MAX)
		e = -EFBIG;
	if (e < 0) {
		call_put_call(c);
		return e;
	}
	/* Those who wait already come first. */
	if (!link_alone(&u->queue) || !find_line(c, false))
		wait_in_queue(c);
	else if (c->state == CALL_OPEN && (!c->has_body || c->expects_continue))
		call_flush(c);
	else if (c->state == CALL_OPEN)
		hold(c);
	*ret = c;
	return 0;
}

/* Something is to be done outside of the caller's call: send a head that has waited, read on, or tell of a
 * failure. */
static void call_look(struct link *soon)
{
	struct legacy_call *c = LINK_OWNER(soon, struct legacy_call, soon);
	c->busy++;
	if (c->state == CALL_OPEN && !c->blocked && !c->write_dead)
		call_writable(c);
	/* Otherwise the watch tells. */
	if (c->state == CALL_OPEN &&
	    (c->line_broken || c->write_dead || connection_buffers(c->line->connection)))
		call_receive(c);
	call_tell(c);
	c->busy--;
	if (c->freed)
		legacy_call_free(c);
}

static const struct upstream_verbs call_verbs = {
	.leave_queue = call_leave_queue,
	.look = call_look,
	.free_idle = call_free_idle,
};

int legacy_upstream_new(struct loop *loop, const struct legacy_options *o, struct legacy_upstream **ret,
			struct err *e)
{
	return upstream_new(loop, o, &call_verbs, ret, e);
}

struct legacy_call *legacy_call_free(struct legacy_call *c)
{
	if (!c)
		return NULL;
	c->freed = true;
	if (c->state != CALL_OVER)
		call_let_go(c, false);
	link_remove(&c->soon);
	upstream_give_block(c->upstream, steal(c->block));
	if (c->busy == 0)
		call_put_call(c);
	return NULL;
}
