/*
 * A call, inside src/legacy. call.c: its life and its time limits; call_send.c: the request; call_receive.c:
 * the answer.
 *
 * State       line  what happens                                next
 * QUEUED      no    waits for a connection                      CONNECTING, OPEN, OVER
 * CONNECTING  yes   the connection is being made                OPEN, OVER
 * OPEN        yes   request and answer                          OVER; when the kept line was dead again
 *                                                               CONNECTING or OPEN
 * OVER        no    the answer is complete, or the call failed  -
 *
 * Callbacks are made only from the loop (call_on_ready, call_look), never from within a function of the
 * caller's.
 */
#ifndef LEGACY_CALL_H
#define LEGACY_CALL_H

#include "base/buf.h"
#include "legacy/response.h"
#include "legacy/upstream.h"

#define CALL_OUT_MAX 65536	 /* bytes of a request's body that may wait in here */
#define CALL_HEAD_MAX (1u << 20) /* bytes of a request's head; the listener's limit is lower */

enum call_state { CALL_QUEUED, CALL_CONNECTING, CALL_OPEN, CALL_OVER };

struct legacy_call {
	struct legacy_upstream *upstream;
	struct legacy_events events;
	struct line *line;
	unsigned line_number; /* counts the lines it has had: addresses come again */
	enum call_state state;
	struct link link; /* in the queue, or among the idle calls */
	struct link soon;
	unsigned busy; /* callbacks running */
	bool freed;    /* its caller is done with it, but we are in one of its callbacks */

	/* The request. `out` holds what has not been sent, from out_sent on (for a retry also what has). */
	struct buf out;
	size_t out_sent;
	int64_t body_left; /* with Content-Length: what the caller has still to give */
	bool has_body, chunked, expects_continue;
	unsigned response_timeout_ms;
	bool may_retry; /* idempotent and whole in `out` */
	bool reused;	/* the line is a kept one */
	bool retried;
	bool written;	    /* a byte of the request has been handed to the kernel, on any line */
	bool line_written;  /* … on this line */
	bool held;	    /* the head waits for the body's first bytes */
	bool ended;	    /* the caller has given all */
	bool blocked;	    /* the socket takes no more for now */
	bool want_writable; /* the caller was told to wait */
	bool write_dead;    /* the socket takes no more forever; an answer may still be there */

	/* The answer. block: [0, head_size) head, [begin, end) body bytes not taken yet. */
	struct response response;
	char *block;
	size_t begin, end;
	bool head_known, head_told, got_continue;
	bool body_fresh;  /* something to be reported by `readable` */
	bool end_told;	  /* the caller has seen LEGACY_READ_END */
	bool paused;	  /* the block is full */
	bool line_broken; /* the watch has ended; reading continues until the socket says why */
	struct legacy_answer answer;

	int failure; /* enum legacy_failure, -1 */
	bool failure_told;
	char detail[160];

	struct loop_timer
		*timer; /* kept with the call; fires early or in vain rather than being moved at each piece */
	uint64_t timer_at, deadline; /* loop time in ms, 0 = none */
};

/* call.c */
void call_fail(struct legacy_call *c, enum legacy_failure f, const char *detail);
void call_let_go(struct legacy_call *c, bool keep); /* of the line */
/* The kept line has died before anything was sent on it, or the request may be sent once more. */
void call_replace_line(struct legacy_call *c, bool only_new);
void call_limit(struct legacy_call *c, unsigned ms); /* the deadline is so far from now; 0 = none */
void call_set_limit(struct legacy_call *c);	     /* … as the state of an open call asks for */
void call_watch(struct legacy_call *c);
void call_soon(struct legacy_call *c);

/* call_send.c */
void call_flush(struct legacy_call *c);		     /* as much as the socket takes */
bool call_request_done(const struct legacy_call *c); /* all given and all written */
void call_writable(struct legacy_call *c);	     /* the socket may take more: flush, then tell */

/* call_receive.c */
void call_receive(struct legacy_call *c);
void call_tell(struct legacy_call *c); /* head, readable, failed: whatever is due */

#endif
