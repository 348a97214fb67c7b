#include "legacy/call.h"

#include <errno.h>
#include <stdio.h>

#define PIECE_MAX CALL_OUT_MAX /* of a chunked body: what is announced must be taken */
#define CHUNK_OVERHEAD 24      /* size line and the CR LF after the data */
#define SMALL 4096	       /* so much of a chunked body waits for what comes next */

static size_t waiting(const struct legacy_call *c)
{
	return c->out.len - c->out_sent;
}

bool call_request_done(const struct legacy_call *c)
{
	return c->ended && c->line_written && waiting(c) == 0 && !c->blocked && !c->write_dead;
}

/* The socket takes nothing any more. */
static void call_send_lost(struct legacy_call *c)
{
	if (c->reused && !c->line_written && connection_send_is_atomic(c->line->connection)) {
		/* Not one byte was taken by the kernel: the upstream cannot have seen any of it. */
		call_replace_line(c, false);
		return;
	}
	/* An early answer may lie in the socket; reading tells, and what becomes of the request. */
	c->write_dead = true;
	c->written = c->line_written = true;
	c->out_sent = c->out.len;
	call_soon(c);
}

/* Returns what was taken; 0 also when the line was lost (the state tells). */
static size_t call_send_push(struct legacy_call *c, const struct iovec *parts, int n)
{
	ssize_t sent = connection_send(c->line->connection, parts, n);
	if (sent > 0)
		c->written = c->line_written = true;
	else if (sent != -EAGAIN && sent < 0)
		call_send_lost(c);
	return sent > 0 ? (size_t)sent : 0;
}

/* All of `out` is sent: forget it, unless it may be needed again. */
static void settle_out(struct legacy_call *c)
{
	if (waiting(c) == 0 && !c->may_retry) {
		buf_clear(&c->out);
		c->out_sent = 0;
	}
}

/* The TLS layer may hold bytes of its own. */
static void settle_line(struct legacy_call *c)
{
	if (c->state != CALL_OPEN || c->write_dead)
		return;
	int r = connection_flush(c->line->connection);
	if (r < 0 && r != -EAGAIN)
		call_send_lost(c);
	c->blocked = c->state == CALL_OPEN && !c->write_dead &&
		     (waiting(c) > 0 || r == -EAGAIN || c->want_writable);
}

static void after_sending(struct legacy_call *c)
{
	settle_out(c);
	settle_line(c);
	if (c->state != CALL_OPEN)
		return;
	call_watch(c);
	call_set_limit(c);
}

/* The head waits no longer. Only for that is the call taken off the list: later it may be there for other
 * reasons. */
static void release_head(struct legacy_call *c)
{
	if (c->held)
		link_remove(&c->soon);
	c->held = false;
}

/* false: on another line now; call_look sends there. */
static bool push_out(struct legacy_call *c)
{
	release_head(c);
	if (waiting(c) == 0 || c->write_dead)
		return true;
	struct iovec part = {c->out.ptr + c->out_sent, waiting(c)};
	unsigned line = c->line_number;
	size_t sent = call_send_push(c, &part, 1);
	if (c->line_number != line)
		return false;
	c->out_sent += sent;
	return true;
}

void call_flush(struct legacy_call *c)
{
	if (push_out(c))
		after_sending(c);
}

void call_writable(struct legacy_call *c)
{
	if (!push_out(c))
		return;
	settle_out(c);
	bool wanted = c->want_writable;
	c->want_writable = false;
	settle_line(c);
	/* Told before the watch is set, which mostly stays as it is then. */
	if (wanted && !c->blocked && c->state == CALL_OPEN && !c->write_dead)
		c->events.writable(c->events.arg);
	else
		c->want_writable = wanted;
	if (c->state == CALL_OPEN && !c->freed)
		after_sending(c);
}

/* --- the caller's side ------------------------------------------------------------------------------- */

static int chunk_line(char out[CHUNK_OVERHEAD], size_t n)
{
	return snprintf(out, CHUNK_OVERHEAD, "%zx\r\n", n);
}

/* Into `out`, as far as there is room. */
static size_t keep_body(struct legacy_call *c, const char *bytes, size_t n)
{
	size_t used = waiting(c) + CHUNK_OVERHEAD;
	size_t room = used < CALL_OUT_MAX ? CALL_OUT_MAX - used : 0;
	size_t take = n < room ? n : room;
	c->want_writable |= take < n;
	if (take == 0)
		return 0;
	/* What is sent is dropped first; buf_consume moves at most CALL_OUT_MAX bytes, and only when a socket
	 * is full. */
	if (!c->may_retry && c->out_sent) {
		buf_consume(&c->out, c->out_sent);
		c->out_sent = 0;
	}
	char line[CHUNK_OVERHEAD];
	if (c->chunked)
		buf_append(&c->out, line, (size_t)chunk_line(line, take));
	buf_append(&c->out, bytes, take);
	if (c->chunked)
		buf_puts(&c->out, "\r\n");
	if (c->out.error)
		call_fail(c, LEGACY_RESET, "out of memory");
	return take;
}

/* Adds to `out` what of the parts the socket did not take. */
static void keep_rest(struct legacy_call *c, const struct iovec *parts, int n, size_t sent)
{
	for (int i = 0; i < n; i++) {
		size_t skip = sent < parts[i].iov_len ? sent : parts[i].iov_len;
		sent -= skip;
		buf_append(&c->out, (const char *)parts[i].iov_base + skip, parts[i].iov_len - skip);
	}
	if (c->out.error)
		call_fail(c, LEGACY_RESET, "out of memory");
}

/* `out` and a piece of the body in one system call. Returns how much of the piece was taken. */
static size_t send_piece(struct legacy_call *c, const char *bytes, size_t n)
{
	char line[CHUNK_OVERHEAD];
	struct iovec parts[4] = {{c->out.ptr + c->out_sent, waiting(c)}};
	int count = 1;
	if (c->chunked)
		parts[count++] = (struct iovec){line, (size_t)chunk_line(line, n)};
	parts[count++] = (struct iovec){(char *)bytes, n};
	if (c->chunked)
		parts[count++] = (struct iovec){(char *)"\r\n", 2};
	unsigned line_number = c->line_number;
	size_t sent = call_send_push(c, parts, count);
	if (c->write_dead || c->state == CALL_OVER)
		return n;
	if (c->line_number != line_number)
		return keep_body(c, bytes, n);
	size_t before = sent < waiting(c) ? sent : waiting(c);
	c->out_sent += before;
	sent -= before;
	settle_out(c);
	if (!c->chunked)
		return sent;
	keep_rest(c, parts + 1, count - 1, sent);
	return n;
}

static size_t send_body(struct legacy_call *c, const char *bytes, size_t n)
{
	size_t done = 0;
	release_head(c);
	while (done < n && c->state == CALL_OPEN && !c->write_dead && (done == 0 || waiting(c) == 0)) {
		size_t piece = c->chunked && n - done > PIECE_MAX ? PIECE_MAX : n - done;
		size_t took = send_piece(c, bytes + done, piece);
		done += took;
		if (took < piece)
			break;
	}
	c->want_writable = done < n;
	if (c->state == CALL_OPEN)
		after_sending(c);
	return done;
}

static size_t call_send_offer(struct legacy_call *c, const char *bytes, size_t n)
{
	bool small = c->held && c->chunked && waiting(c) + n < SMALL;
	return c->state != CALL_OPEN || c->blocked || small ? keep_body(c, bytes, n) : send_body(c, bytes, n);
}

size_t legacy_call_write(struct legacy_call *c, const char *bytes, size_t n)
{
	if (n == 0 || c->ended || c->write_dead || c->state == CALL_OVER)
		return n;
	c->expects_continue = false;
	if (c->chunked)
		return call_send_offer(c, bytes, n);
	/* More than was announced would be taken for the next request. */
	size_t wanted = (uint64_t)c->body_left < n ? (size_t)c->body_left : n;
	size_t took = wanted ? call_send_offer(c, bytes, wanted) : 0;
	c->body_left -= (int64_t)took;
	return took == wanted ? n : took;
}

void legacy_call_end(struct legacy_call *c)
{
	if (c->ended)
		return;
	c->ended = true;
	c->expects_continue = false;
	if (c->state == CALL_OVER || c->write_dead)
		return;
	if (c->body_left > 0) {
		call_fail(c, LEGACY_RESET, "the request's body is shorter than its Content-Length");
		return;
	}
	if (c->chunked && buf_puts(&c->out, "0\r\n\r\n") < 0) {
		call_fail(c, LEGACY_RESET, "out of memory");
		return;
	}
	if (c->state == CALL_OPEN && !c->blocked)
		call_flush(c);
}
