/*
 * Listener: an HTTP/1.x server on one address and one loop. The only file that knows libmicrohttpd.
 *
 * Why:       everything above it sees checked requests in their own words (raw target, fields in order) and
 *            answers them asynchronously; the traps of the library (docs/protocols/http.md) stay in here.
 * Threads:   each data-plane thread has its own listener on the same port (SO_REUSEPORT); everything on its
 *            loop.
 * Ownership: an exchange (one request and its answer) belongs to the listener and is good until `finished`
 *            was called.
 * Refused here, before the handler hears of them: the request-smuggling shapes of http.md (layout check
 * included), heads
 *            above the limit, too many connections.
 *
 * Life of an exchange (each line in order; all on the loop's thread):
 *   head      the head is complete and clean. The handler looks at it and calls, then or later, at most one
 *             of
 *               exchange_read_body (it wants the body) or exchange_respond* (it answers without).
 *             Until one of them is called nothing more is read from the client: back-pressure costs nothing.
 *   body      a piece of the body. The handler returns how much it took; less than all pauses reading until
 *               exchange_resume_body. `last` is not told here:
 *   body_end  the whole body has been taken. (For a request without a body: right after exchange_read_body,
 *             never from
 *               within it.)
 *   respond   once, at any time after head. The connection is closed after the answer unless the whole body
 *             was taken:
 *               before exchange_read_body the answer goes out at once, and what the client still sends is
 *               dropped for a while (drain_timeout_ms), so that a reset does not overtake the answer;
 *               after it a whole answer (exchange_respond) goes out at once as well, past the library; for a
 *               streamed one the rest of the body is read and dropped first, since the library takes no
 *               answer in the middle of a body. A client that still sends after drain_timeout_ms is cut off
 *               and sees a reset, of a streamed one instead of the answer.
 *   finished  the last call, exactly once: the answer went out, or the client went away (`gone`), or the
 *             listener stopped.
 * `client_gone` is called at once when the client closes or resets while the exchange waits (and, if asked
 * for, when it half-closes), or when it neither reads nor writes for too long; the exchange is ended by the
 * listener then: `finished` follows later, and the exchange's functions have no effect in between. While the
 * body is being read the reading may be the first to meet it: then `finished` alone tells.
 *
 * The handler may call the exchange's functions from within its own calls (except in `finished`), and later
 * from the loop; it must not stop the listener from within them.
 *
 * A connection is closed after a request whose body was chunked: the library reads chunk framing loosely (a
 * bare LF, unusual bytes after a size), and what another server takes for the rest of the body must not be
 * served as a request.
 *
 * What the library costs: with libmicrohttpd 0.9.75 an answer to HEAD of unknown length, or a 304 that
 * announces none, closes the connection when the client has sent more requests after it (1.x keeps it); a
 * client that half-closes is cut when its body is still being read; its own refusals are HTML where several
 * connections may be meant (heads or chunked bodies that are begun; see on_log), and a request line without a
 * blank on a kept-alive connection closes without an answer.
 */
#ifndef ROUTER_HTTP_LISTENER_H
#define ROUTER_HTTP_LISTENER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/http_message.h"
#include "base/loop.h"
#include "base/span.h"

struct listener;
struct exchange;

struct listener_handler {
	void *arg;
	/* Returns the handler's own pointer for this exchange, handed to the calls below. */
	void *(*head)(void *arg, struct exchange *x, const struct http_request *r);
	size_t (*body)(void *user, struct exchange *x, const char *bytes, size_t n);
	void (*body_end)(void *user, struct exchange *x);
	void (*client_gone)(void *user, struct exchange *x);
	void (*finished)(void *user, struct exchange *x, bool gone);
	/* A request was refused by the listener itself (smuggling shape, head too large, too slow, …): for
	 * counting. It was answered with that status (408: closed without an answer). */
	void (*refused)(void *arg, int status, const char *why);
};

struct listener_options {
	const char *address; /* "127.0.0.1:5002", "[::1]:5002", "*:5002", "unix:" is not supported */
	bool reuse_port;
	unsigned max_connections; /* of this listener; above it: 503 + Retry-After + close */
	/* Above max_connections a new one is served, and the one that has been there for longest without a
	 * request (failing that, the oldest) is closed for it. */
	bool newest_first;
	bool held;	  /* accepts nothing until listener_open */
	unsigned reserve; /* descriptors kept back for its connections when the process has no others */
	/* Bytes of request line and fields, above it 431; and of the fields of an answer. 16 KiB is a good
	 * value: the library zeroes twice this much and 34 KiB more for each request on a kept-alive
	 * connection, and keeps it resident. */
	size_t max_head;
	/* From the accept to the complete head; on a kept-alive connection from the complete request line
	 * (until there it is idle). */
	unsigned head_timeout_ms;
	/* Kept connection without a request. Also a client whose turn it is, but which neither sends nor
	 * acknowledges a byte: it is cut after 1 to 1.5 times this. 0: no limit. */
	unsigned idle_timeout_ms;
	/* A client that shuts only its writing side is gone. Otherwise it gets its answer; but then one that
	 * closes in order while it waits, which looks the same at first, is noticed only by TCP's
	 * keep-alive, a minute or two later. */
	bool half_close_is_gone;
	/* so long an unwanted rest of a body is read and dropped to keep the answer readable */
	unsigned drain_timeout_ms;
};

int listener_start(struct loop *loop, const struct listener_options *o, const struct listener_handler *h,
		   struct listener **ret, struct err *e);
unsigned listener_port(const struct listener *l); /* the bound one, for port 0 */
void listener_open(struct listener *l);		  /* ends `held` */
/* Kept idle connections are closed; what the kernel has accepted is still served, then no more is accepted;
 * running exchanges continue (their connections close after). `patient`: idle ones are not closed but
 * notified with their next answer, so that no client's request crosses with the close; a second call without
 * it closes them. */
void listener_quiesce(struct listener *l, bool patient);
/* After listener_quiesce, now and then: how many connections may still bring a request, which to cut would be
 * a loss. Closes those that have brought nothing for a second; while it is patient all count, and none is
 * closed. */
unsigned listener_unheard(struct listener *l);
/* Whether there may be connections that listener_unheard does not count yet: accepting has not ended, or
 * the library has not looked. */
bool listener_settling(const struct listener *l);
unsigned listener_exchanges(const struct listener *l); /* running */
struct listener *listener_stop(struct listener *l);    /* cuts what runs (`finished` is called for each) */

/* Start-up self-test of what is taken for granted of the library: a loopback connection to a throw-away
 * daemon, clean and unclean heads, cookies, chunked bodies. -ENOTSUP with a sentence when this
 * libmicrohttpd does otherwise. */
int listener_self_test(struct err *e);
const char *listener_library(void); /* the version of libmicrohttpd that this process runs with, "1.0.1" */

/* --- exchange ------------------------------------------------------------------------------------------- */
void exchange_read_body(struct exchange *x);   /* sends 100 Continue when the client waits for it */
void exchange_resume_body(struct exchange *x); /* after body took less than all */

/* The answer. Field rules of the listener: Content-Length, Transfer-Encoding and Connection among `fields`
 * are ignored, the framing is made from `length`; everything else goes out as given, in order: an empty value
 * as one blank, and without fields that cannot be sent (CR, LF or NUL inside, a blank in the name). `Date` is
 * added when absent. Statuses below 200 are a bug. Everything is copied before the call returns. `close`:
 * close the connection afterwards. All return 0, or EXCHANGE_E_HEAD_TOO_LARGE when the fields are above
 * max_head: then nothing was answered, and another answer must be given. */
#define EXCHANGE_E_HEAD_TOO_LARGE 1
struct http_response {
	int status;
	const struct http_field *fields;
	size_t n_fields;
	bool close;
};

/* Whole body at once (copied). For HEAD its length is announced, for 204 and 304 it is dropped. */
int exchange_respond(struct exchange *x, const struct http_response *r, struct span body);
/* For HEAD, 204 and 304: `content_length` >= 0 announces a length without sending it, -1 none. */
int exchange_respond_bodyless(struct exchange *x, const struct http_response *r, int64_t content_length);

/* A streamed body: length >= 0 known, -1 unknown (chunked; closing for HTTP/1.0). The listener pulls: `pull`
 * writes up to `size` bytes and returns how many, 0 = nothing now (exchange_resume_response wakes it),
 * EXCHANGE_END, or
 * EXCHANGE_CUT: the connection is cut so that the client sees a broken body (never a shortened one that looks
 * whole). An end before a known length is a cut as well; after a known length nothing is pulled any more. For
 * HEAD, 204 and 304 it is never pulled. */
#define EXCHANGE_END (-1)
#define EXCHANGE_CUT (-2)
typedef long (*exchange_pull_fn)(void *user, struct exchange *x, char *out, size_t size);
int exchange_respond_stream(struct exchange *x, const struct http_response *r, int64_t length,
			    exchange_pull_fn pull);
void exchange_resume_response(struct exchange *x);

/* Cuts the connection without an answer. `finished` follows. */
void exchange_abort(struct exchange *x);

const struct http_request *exchange_request(const struct exchange *x);

#endif
