/*
 * gRPC calls: unary and server streaming, over HTTP/2, on the loop.
 *
 * Why:       workers of Temporal and Hatchet are clients of gRPC, and no C library for it is in Debian that
 *            runs on a loop of ours; libcurl speaks the HTTP/2 of it.
 * Threads:   a channel and its calls belong to one loop.
 * Ownership: everything in a request is copied by grpc_start. A call belongs to its caller until `done` was
 *            called or grpc_cancel; both end it. What a callback is given is good until it returns.
 * Sending:   a call is written at most once unless it says `may_resend`. What was lost is UNAVAILABLE, with
 *            `sent` where the server may have taken it; whether to call again is the caller's to know.
 * Limits:    messages as the request says (a larger one is RESOURCE_EXHAUSTED); heads and trailers
 *            HTTP_MAX_HEAD bytes each.
 * Not done:  client streams, compression (refused by grpc-accept-encoding), load balancing, retries.
 * Source:    https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, statuscodes.md,
 *            http-grpc-status-mapping.md
 */
#ifndef BASE_GRPC_H
#define BASE_GRPC_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/http_message.h"
#include "base/loop.h"
#include "base/span.h"

#define GRPC_DEFAULT_MESSAGE (4u << 20)

enum grpc_code {
	GRPC_OK = 0,
	GRPC_CANCELLED = 1,
	GRPC_UNKNOWN = 2,
	GRPC_INVALID_ARGUMENT = 3,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_NOT_FOUND = 5,
	GRPC_ALREADY_EXISTS = 6,
	GRPC_PERMISSION_DENIED = 7,
	GRPC_RESOURCE_EXHAUSTED = 8,
	GRPC_FAILED_PRECONDITION = 9,
	GRPC_ABORTED = 10,
	GRPC_OUT_OF_RANGE = 11,
	GRPC_UNIMPLEMENTED = 12,
	GRPC_INTERNAL = 13,
	GRPC_UNAVAILABLE = 14,
	GRPC_DATA_LOSS = 15,
	GRPC_UNAUTHENTICATED = 16
};

/* "UNAVAILABLE" */
const char *grpc_code_name(enum grpc_code code);

struct grpc_channel; /* a server, and the connections to it */
struct grpc_call;

struct grpc_channel_options {
	const char *address; /* host:port */
	bool tls;
	const char *ca_file;		      /* PEM; NULL: the system's */
	const char *client_cert, *client_key; /* PEM files; NULL: none */
	const struct http_field *metadata;    /* of every call; names in lower case */
	size_t n_metadata;
	unsigned connect_timeout_ms; /* 0: 10 s */
	unsigned max_connections;    /* kept; 0: 64 */
};

/* Connects to nothing yet. -EINVAL names what is wrong with the address or the metadata. */
int grpc_channel_new(struct loop *loop, const struct grpc_channel_options *o, struct grpc_channel **ret,
		     struct err *e);
/* Calls in progress are dropped without their callbacks. NULL is allowed; returns NULL. Not from within a
 * callback. */
struct grpc_channel *grpc_channel_free(struct grpc_channel *c);

struct grpc_request {
	const char *path;    /* /package.Service/Method */
	struct span message; /* serialized; empty is a message, too */
	const struct http_field *metadata;
	size_t n_metadata;
	unsigned deadline_ms; /* sent as grpc-timeout; 0: none */
	/* How long the answer is waited for beyond it: the server decides at the deadline, and what it has
	 * decided is still heard. */
	unsigned grace_ms;
	unsigned idle_timeout_ms; /* between two pieces of a stream; 0: none */
	bool may_resend;	  /* libcurl may send again on a new connection */
	size_t max_message;	  /* of the answer; 0: GRPC_DEFAULT_MESSAGE */
};

struct grpc_status {
	enum grpc_code code;
	const char *message;  /* a sentence, control characters as blanks; "" when OK */
	bool sent;	      /* the server may have taken the call */
	bool of_server;	      /* the server said so itself */
	struct span trailers; /* field lines, see http_line_field; -bin values as they are */
};

struct grpc_events {
	void *arg;
	/* Each message of the answer; of a unary call one, before `done`. The call may be cancelled here. */
	void (*message)(void *arg, struct span message);
	/* Once, unless cancelled; the call is gone when it returns. Never from within grpc_start. */
	void (*done)(void *arg, const struct grpc_status *s);
};

int grpc_start(struct grpc_channel *c, const struct grpc_request *r, const struct grpc_events *events,
	       struct grpc_call **ret, struct err *e);
/* At any time, even within its own callbacks; no callback follows. NULL is allowed; returns NULL. */
struct grpc_call *grpc_cancel(struct grpc_call *call);

/* --- for the tests -------------------------------------------------------------------------------------- */

/* Appends grpc-message as the sentence it stands for: %XX as bytes, control characters as blanks, what is
 * not UTF-8 as "?". */
int grpc_put_message(struct span encoded, struct buf *out);

#endif
