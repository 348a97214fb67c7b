/*
 * HTTP client for APIs (Flipt, Temporal, Hatchet, webhooks, `http` handlers), on the loop. Over libcurl's
 * multi interface.
 *
 * Why:       libcurl sends a request again, silently, when a kept-alive connection turns out dead (http.md).
 *            Here a request is written at most once unless it says `may_resend`, and every failure says
 *            whether it may have been written. Passing legacy traffic on is not for this client: see legacy/.
 * Threads:   a client and its calls belong to one loop.
 * Ownership: everything in a request is copied by http_start. A call belongs to its caller until `done` was
 *            called or http_cancel; both end it. The reply borrows until `done` returns.
 * Errors:    http_start: -EINVAL for what can never be sent (URL, field), -ENOMEM. Later ones are the reply's
 *            `failure`.
 * Limits:    heads HTTP_MAX_HEAD bytes; bodies as the request says.
 * HTTP/2:    only where the client is made for it (gRPC), with one stream at a time on a connection.
 * Not done:  proxies from the environment, cookies, netrc, alternative services: all off.
 */
#ifndef BASE_HTTP_CLIENT_H
#define BASE_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/http_message.h"
#include "base/loop.h"
#include "base/span.h"

#define HTTP_MAX_HEAD 65536

struct http_client; /* connections of one loop, with their TLS settings */
struct http_call;   /* one request in progress */

struct http_client_options {
	const char *ca_file;		      /* PEM; NULL: the system's */
	const char *client_cert, *client_key; /* PEM files; NULL: none */
	unsigned max_connections;	      /* kept and open; 0: 64 */
	/* kept-alive connections older than this are not used again; 0: 60 s */
	unsigned keep_ms;
	/* HTTP/2: over http:// by prior knowledge, over https:// by ALPN. Each call has a connection for
	 * itself while it goes on: the long polls of some hold up nothing of others. */
	bool http2;
};

struct http_call_request {
	const char *method; /* GET, POST, … */
	const char *url;    /* http:// or https:// */
	const struct http_field *fields;
	size_t n_fields;
	struct span body;	     /* SPAN_NONE: none */
	const char *ca_file;	     /* NULL: the client's */
	unsigned connect_timeout_ms; /* 0: 10 s */
	unsigned timeout_ms;	     /* from start to the end of the body; 0: none (streams) */
	unsigned idle_timeout_ms;    /* between two pieces of the answer, connecting included; 0: none */
	size_t max_body;	     /* bytes of the answer's body; 0: 16 MiB. For streams: of one piece */
	/* idempotent: libcurl may send again on a new connection, and redirects are followed */
	bool may_resend;
	/* never one that was used before, and not kept after: nothing can fail for its age */
	bool fresh_connection;
	unsigned max_redirects; /* needs may_resend */
};

enum http_failure {
	HTTP_OK,	    /* an answer of any status */
	HTTP_NOT_CONNECTED, /* nothing was sent */
	HTTP_TLS_FAILED,    /* nothing was sent: certificate or handshake */
	HTTP_NO_REPLY,	    /* written, at least in part, and no whole answer came */
	HTTP_TIMED_OUT,	    /* see `sent` */
	HTTP_TOO_LARGE,	    /* the answer is above its limit; the request was sent */
	HTTP_MALFORMED,	    /* the answer is no HTTP; the request was sent */
};

struct http_reply {
	enum http_failure failure;
	bool sent;	      /* a connection was there and the request may have been written */
	int status;	      /* of the last answer, 0 when none came */
	struct span head;     /* field lines as received; see http_reply_field */
	struct span trailers; /* HTTP/2: field lines after the body */
	struct span body;     /* whole, when HTTP_OK and not streaming */
	const char *detail;   /* a sentence for people when failed, no secrets */
};

/* The value of the first field of this name in field lines, blanks trimmed, or SPAN_NONE. */
struct span http_line_field(struct span lines, const char *name);
/* The same in the head. */
struct span http_reply_field(const struct http_reply *r, const char *name);

struct http_events {
	void *arg;
	/* Once, unless cancelled; the call is gone when it returns. Never from within http_start. */
	void (*done)(void *arg, const struct http_reply *reply);
	/* Streams: set to get the body in pieces as they come (only for status 2xx; other bodies are kept
	 * for `done`). */
	void (*piece)(void *arg, struct span bytes);
	/* Optional, once the final head is there. */
	void (*head)(void *arg, int status);
};

int http_client_new(struct loop *loop, const struct http_client_options *o, struct http_client **ret,
		    struct err *e);
/* Calls in progress are dropped without their callbacks. NULL is allowed; returns NULL. Not from within a
 * callback. */
struct http_client *http_client_free(struct http_client *c);

int http_start(struct http_client *c, const struct http_call_request *r, const struct http_events *events,
	       struct http_call **ret, struct err *e);
/* At any time, even within its own callbacks; no callback follows. NULL is allowed; returns NULL. */
struct http_call *http_cancel(struct http_call *call);

#endif
