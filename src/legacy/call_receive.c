#include "legacy/call.h"

#include <errno.h>

#define ROOM_MIN 16384 /* with less, what is unread is moved to the front first */

/* The answer is complete. The connection goes back only when nothing is left on it in either direction. */
static void call_receive_finish(struct legacy_call *c, bool leftover)
{
	bool whole = call_request_done(c) && !leftover && !c->line_broken;
	call_let_go(c, whole && c->response.keep_alive);
}

static void call_receive_take_answer(struct legacy_call *c)
{
	const struct response *r = &c->response;
	int64_t length = -1;
	if (r->framing == RESPONSE_LENGTH)
		length = r->content_length;
	else if (r->framing == RESPONSE_NO_BODY)
		length = 0;
	c->answer = (struct legacy_answer){
		.status = r->status,
		.reason = r->reason,
		.fields = r->fields,
		.n_fields = r->n_fields,
		.length = length,
		.content_length = r->content_length,
	};
	c->head_known = true;
}

static void call_receive_refuse(struct legacy_call *c)
{
	call_fail(c, LEGACY_MALFORMED, c->response.why ? c->response.why : "malformed");
}

/* n new bytes of the body stand at block + end. */
static void body_bytes(struct legacy_call *c, size_t n)
{
	size_t body;
	long used = response_body(&c->response, c->block + c->end, n, &body);
	c->end += body;
	if (body || c->response.complete)
		c->body_fresh = true;
	if (used < 0)
		call_receive_refuse(c);
	else if (c->response.complete)
		call_receive_finish(c, (size_t)used < n);
}

/* n new bytes of the head, or of head and body. */
static void head_bytes(struct legacy_call *c, size_t n)
{
	c->end += n;
	int r;
	while ((r = response_head(&c->response, c->block, c->end)) == RESPONSE_CONTINUE)
		c->got_continue = true;
	if (c->got_continue && c->expects_continue) {
		c->expects_continue = false; /* now it is the caller's turn */
		call_set_limit(c);
	}
	if (r == RESPONSE_MORE)
		return;
	if (r < 0) {
		call_receive_refuse(c);
		return;
	}
	call_receive_take_answer(c);
	size_t body = c->end - c->response.head_size;
	c->begin = c->end = c->response.head_size;
	body_bytes(c, body);
}

static bool nothing_yet(const struct legacy_call *c)
{
	return c->end == 0 && !c->head_known;
}

/* The upstream has closed (error 0), or the connection has failed. */
static void closed(struct legacy_call *c, int error)
{
	if (nothing_yet(c) && c->reused && !c->line_written) {
		call_replace_line(c, false); /* it cannot have seen any of the request */
	} else if (nothing_yet(c) && c->reused && c->may_retry && !c->retried) {
		c->retried = true;
		call_replace_line(c, true);
	} else if (!c->head_known) {
		call_fail(c, LEGACY_RESET,
			  error ? "connection reset before the answer"
				: "connection closed before the answer");
	} else if (error == 0 && response_closed(&c->response)) {
		c->body_fresh = true;
		call_receive_finish(c, true);
	} else {
		call_fail(c, LEGACY_TRUNCATED,
			  error ? "connection reset within the answer"
				: "connection closed within the answer");
	}
}

/* Where new bytes go; 0 when the block is full. */
static size_t call_receive_make_room(struct legacy_call *c)
{
	size_t size = c->upstream->block_size, base = c->response.head_size;
	if (!c->block) {
		c->block = upstream_take_block(c->upstream);
		if (!c->block) {
			call_fail(c, LEGACY_RESET, "out of memory");
			return 0;
		}
	}
	if (c->head_known && size - c->end < ROOM_MIN && c->begin > base) {
		memmove(c->block + base, c->block + c->begin, c->end - c->begin);
		c->end -= c->begin - base;
		c->begin = base;
	}
	if (c->end == size)
		c->paused = true;
	return size - c->end;
}

/* One piece; false when there is nothing more for now. */
static bool receive_piece(struct legacy_call *c)
{
	size_t room = call_receive_make_room(c);
	if (room == 0)
		return false;
	ssize_t got = connection_recv(c->line->connection, c->block + c->end, room);
	if (got == -EAGAIN) {
		/* Nothing comes any more on a line that cannot be written. */
		if (c->write_dead)
			call_fail(c, c->head_known ? LEGACY_TRUNCATED : LEGACY_RESET,
				  "connection lost while the request was sent");
		return false;
	}
	if (got <= 0) {
		closed(c, (int)got);
		return false;
	}
	if (c->reused && !c->line_written) {
		call_replace_line(c, false); /* an answer to nothing */
		return false;
	}
	if (c->head_known)
		body_bytes(c, (size_t)got);
	else
		head_bytes(c, (size_t)got);
	return c->state == CALL_OPEN;
}

void call_receive(struct legacy_call *c)
{
	if (c->state != CALL_OPEN)
		return;
	/* One piece a round is enough where the watch tells of the rest. */
	while (receive_piece(c) &&
	       (c->line_broken || c->write_dead || connection_buffers(c->line->connection)))
		;
	call_watch(c);
	/* Bytes of a head that is not complete gain no time. */
	if (c->head_known)
		call_set_limit(c);
}

/* --- telling ----------------------------------------------------------------------------------------- */

static bool unread(const struct legacy_call *c)
{
	return c->end > c->begin;
}

/* What the caller still gives is dropped; he must not wait forever to give it. */
static bool swallows(const struct legacy_call *c)
{
	return c->failure < 0 && (c->write_dead || c->state == CALL_OVER);
}

static void tell_failure(struct legacy_call *c)
{
	/* What came before the failure is read first: as much of a cut answer arrives as there is. */
	if (c->failure < 0 || c->failure_told || (c->head_told && unread(c)))
		return;
	c->failure_told = true;
	c->events.failed(c->events.arg, (enum legacy_failure)c->failure, c->written, c->detail);
}

void call_tell(struct legacy_call *c)
{
	c->busy++;
	if (c->got_continue && !c->freed) {
		c->got_continue = false;
		if (!c->head_known && c->failure < 0)
			c->events.on_continue(c->events.arg);
	}
	if (c->head_known && !c->head_told && !c->freed) {
		c->head_told = true;
		c->events.head(c->events.arg, &c->answer);
	}
	if (c->body_fresh && !c->freed) {
		c->body_fresh = false;
		if (unread(c) || (c->response.complete && !c->end_told))
			c->events.readable(c->events.arg);
	}
	if (c->want_writable && !c->freed && swallows(c)) {
		c->want_writable = false;
		c->events.writable(c->events.arg);
	}
	if (!c->freed)
		tell_failure(c);
	c->busy--;
}

/* --- the caller's side ------------------------------------------------------------------------------- */

/* There is room again. */
static void call_receive_resume(struct legacy_call *c)
{
	c->paused = false;
	if (c->state != CALL_OPEN)
		return;
	if (c->line_broken || connection_buffers(c->line->connection))
		call_soon(c); /* the watch would not tell */
	call_watch(c);
	call_set_limit(c);
}

static long nothing_left(struct legacy_call *c)
{
	if (c->response.complete) {
		c->end_told = true;
		return LEGACY_READ_END;
	}
	return c->failure < 0 ? 0 : LEGACY_READ_FAILED;
}

long legacy_call_read(struct legacy_call *c, char *out, size_t size)
{
	if (!c->head_known)
		return c->failure < 0 ? 0 : LEGACY_READ_FAILED;
	size_t n = c->end - c->begin < size ? c->end - c->begin : size;
	if (n == 0 && (size || !unread(c)))
		return nothing_left(c);
	memcpy(out, c->block + c->begin, n);
	c->begin += n;
	if (c->begin == c->end) {
		c->begin = c->end = c->response.head_size;
		if (c->failure >= 0 && !c->failure_told)
			call_soon(c);
	}
	if (c->paused &&
	    c->upstream->block_size - (c->end - c->begin) - c->response.head_size >= UPSTREAM_BLOCK_BODY / 2)
		call_receive_resume(c);
	return (long)n;
}

struct span legacy_call_peek(const struct legacy_call *c, bool *complete)
{
	*complete = c->head_known && c->response.complete;
	return c->head_known ? (struct span){c->block + c->begin, c->end - c->begin} : SPAN_NONE;
}
