/*
 * The legacy side: passes one request on to a legacy service and hands its answer back, byte for byte.
 *
 * Why:       libcurl's own HTTP resends behind your back and reorders; here CURLOPT_CONNECT_ONLY connects
 *            (names, TCP, TLS) and our framing runs over it. A request is written at most once; only a GET or
 *            HEAD whose kept-alive connection turned out dead before any byte of an answer is sent once more,
 *            on a new connection.
 * Threads:   an upstream (one legacy base URL) belongs to one loop and has its own pool of kept-alive
 *            connections.
 * Ownership: a legacy_call belongs to its caller from start to free; free at any time cancels it (the
 *            upstream connection is then closed, never reused).
 * Limits:    heads of answers, connections, kept-alive connections and their age: options.
 *
 * Life of a call:
 *   start → (connect or reuse) → writes head, then what the caller offers by legacy_call_write → `writable`
 *   when it had taken less than all → legacy_call_end marks the end of the request's body
 *   `head`     the answer's head (1xx other than 100 are dropped; 100 → `on_continue`)
 *   `readable` body bytes (or the end) can be pulled by legacy_call_read
 *   `failed`   instead, at any time; nothing else is called after it
 */
#ifndef LEGACY_LEGACY_H
#define LEGACY_LEGACY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/http_message.h"
#include "base/loop.h"
#include "base/span.h"

struct legacy_upstream;
struct legacy_call;

struct legacy_options {
	/* http://host:port[/prefix] or https://…; the prefix is put before the target */
	const char *base_url;
	const char *server_name;  /* for TLS, in place of the URL's host; NULL: that */
	const char *ca_file;	  /* NULL: the system's */
	unsigned max_connections; /* per upstream (that is: per thread); above it calls queue */
	/* calls waiting for a connection; above it fails with LEGACY_OVERLOADED */
	unsigned max_queued;
	unsigned max_kept;
	unsigned keep_ms; /* idle life of a kept-alive connection; shorter than the upstream's own */
	unsigned connect_timeout_ms;
	unsigned response_timeout_ms; /* from the end of the request to the answer's head */
	unsigned idle_timeout_ms;     /* between two pieces, either way */
	size_t max_head;	      /* bytes of an answer's head */
};

enum legacy_failure {
	LEGACY_CONNECT, /* could not connect: nothing was sent */
	LEGACY_CONNECT_TIMEOUT,
	LEGACY_OVERLOADED, /* queue full: nothing was sent */
	LEGACY_RESET,	   /* connection lost after the request began to be written */
	LEGACY_TIMEOUT,	   /* no answer, or it stalled */
	LEGACY_MALFORMED,  /* not HTTP, contradictory framing, head too large */
	LEGACY_TRUNCATED,  /* the answer's body ended early */
	LEGACY_NAME,	   /* the host's name has no address: nothing was sent */
	LEGACY_TLS,	   /* no TLS connection, or with the wrong one: nothing was sent */
};
#define LEGACY_FAILURES (LEGACY_TLS + 1)
const char *legacy_failure_text(enum legacy_failure f);

struct legacy_answer {
	int status;
	struct span reason;
	/* in order, duplicates kept, as received; good until the call is freed */
	const struct http_field *fields;
	size_t n_fields;
	/* of the body: exact when known, -1 when chunked or until close; 0 for HEAD, 204, 304 */
	int64_t length;
	int64_t content_length; /* what the field said (HEAD, 304 too), -1 without one */
};

struct legacy_events {
	void *arg;
	void (*on_continue)(void *arg);
	void (*head)(void *arg, const struct legacy_answer *a); /* `a` is good until the call is freed */
	void (*readable)(void *arg);
	void (*writable)(void *arg);
	void (*failed)(void *arg, enum legacy_failure f, bool request_written, const char *detail);
};

struct legacy_request {
	struct span method, target;
	/* end-to-end fields, final; Host included. Connection is added by the upstream */
	const struct http_field *fields;
	size_t n_fields;
	int64_t content_length;	      /* >= 0: sent as Content-Length when `has_length`; -1: chunked */
	bool has_body;		      /* false: no framing field is sent unless has_length */
	bool has_length;	      /* the caller sent Content-Length (may be 0) */
	unsigned response_timeout_ms; /* 0: the upstream's */
	bool retry_if_kept_died;      /* GET and HEAD without a body only */
};

/* Once per process, before any upstream and any thread: libcurl's global state, SIGPIPE ignored. -errno. */
int legacy_setup(void);

/* Not to be freed while calls of it exist. -EINVAL for a bad base URL or limits. */
int legacy_upstream_new(struct loop *loop, const struct legacy_options *o, struct legacy_upstream **ret,
			struct err *e);
struct legacy_upstream *legacy_upstream_free(struct legacy_upstream *u);
unsigned legacy_upstream_connections(const struct legacy_upstream *u);
unsigned legacy_upstream_waiting(const struct legacy_upstream *u); /* calls that wait for a connection */
/* Whether dot segments of the target lead out of the base URL's prefix, however an upstream may read them:
 * decoded (several times, too), with \ for /, with parameters after "..", with empty segments merged. */
bool legacy_upstream_is_left(const struct legacy_upstream *u, struct span target);
void legacy_upstream_close_kept(struct legacy_upstream *u);

/* Spans of the request are copied before it returns. Callbacks are never called from within start. */
int legacy_call_start(struct legacy_upstream *u, const struct legacy_request *r,
		      const struct legacy_events *events, struct legacy_call **ret);
/* Takes up to n bytes of the body (framing added here) into a bounded buffer and the socket; returns how
 * many. */
size_t legacy_call_write(struct legacy_call *c, const char *bytes, size_t n);
void legacy_call_end(struct legacy_call *c);

#define LEGACY_READ_END (-1)	/* the body is complete; the connection has gone back to the pool */
#define LEGACY_READ_FAILED (-2) /* truncated or reset: `failed` was or will be called */
/* Up to `size` decoded body bytes; 0 = nothing now, `readable` comes. */
long legacy_call_read(struct legacy_call *c, char *out, size_t size);
/* The decoded body bytes at hand, not taken; *complete: nothing comes after them. Good until the next
 * legacy_call_read, the next event or free. A small answer can so be handed on whole from within `head`. */
struct span legacy_call_peek(const struct legacy_call *c, bool *complete);
struct legacy_call *legacy_call_free(struct legacy_call *c); /* NULL is allowed */

#endif
