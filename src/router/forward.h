/*
 * Forwarding: which fields of a request go upstream, and which of an answer come back. Pure; nothing is
 * copied.
 *
 * Why:       rule 6 (everything end-to-end passes as it is) and RFC 9110 §7.6 in one place that a table can
 *            test.
 * Ownership: the fields written to `out` borrow from the input, from the context, or are constants.
 * Limits:    `out` needs room for the input and FORWARD_EXTRA more; FORWARD_MAX_NAMED fields named by
 *            Connection.
 *
 * What goes, both ways: Connection and the fields it names, Keep-Alive, Proxy-Connection, TE (trailers are
 * dropped here, so they must not be announced as welcome), Trailer, Transfer-Encoding, Upgrade;
 * Proxy-Authorization, Proxy-Authenticate and Proxy-Authentication-Info, which are for the next proxy and no
 * business of an origin; Content-Length, since the message is framed again. From requests also
 * X-Migration-Override and X-Migration-Override-Secret, and, unless the peer is trusted, X-Migration-Shadow.
 *
 * What Connection cannot remove: RFC 9110 §7.6.1 forbids to name fields that are meant for all recipients,
 * and a caller that does so behind a proxy of ours could strip what that proxy added (an identity, a
 * credential). Such a name is ignored: Host, Content-*, Authorization, Cookie, Via, Forwarded, X-Forwarded-*,
 * X-Request-ID, traceparent, tracestate, and `protected_names`.
 *
 * Via: a field of our own comes last, "1.1 migration-router (<id>)" (the version that was received); those
 * present stay. The id is random, one per process and service. A request is a loop when our own id is in its
 * Via: this service of this process has passed it on before. Other routers there do not make a loop: a
 * service that calls the next one with its caller's fields is honest. A loop through processes that end, or
 * behind someone who drops comments, ends at FORWARD_MAX_HOPS. Where Via is turned off for an origin, the
 * same is in X-Migration-Via, which is checked everywhere.
 */
#ifndef ROUTER_FORWARD_H
#define ROUTER_FORWARD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/span.h"
#include "config/config.h"
#include "legacy/legacy.h"
#include "base/http_message.h"

#define FORWARD_PSEUDONYM "migration-router"
#define FORWARD_EXTRA 7 /* Host, X-Request-ID, Via, X-Forwarded-For, -Proto, -Host, X-Real-IP */
/* says to legacy that nobody waits for the answer (docs/design.md, "Shadow and compare") */
#define FORWARD_SHADOW_FIELD "X-Migration-Shadow"
#define FORWARD_MAX_HOPS 10 /* routers in Via; with more it is a loop */
#define FORWARD_VIA_MAX 64
#define FORWARD_MAX_NAMED 16 /* by Connection; more is FORWARD_E_CONNECTION */

struct forward_context {
	struct span request_id;	  /* sent as X-Request-ID when the request has none, or an empty one */
	struct span host_instead; /* Host, whatever was sent; SPAN_NONE: as it was sent */
	enum forward_forwarded forwarded; /* not FORWARD_AUTO, which counts as FORWARD_KEEP */
	struct span peer;		  /* its address, for the modes that add it */
	bool peer_trusted;
	struct buf *scratch; /* for values that are put together; the fields borrow from it */
	struct span host;    /* sent as Host when the request has none (HTTP/1.0); SPAN_NONE: nothing */
	bool received_http10;
	bool drop_expect; /* the router has answered 100 Continue itself */
	/* Random, of this service and process; SPAN_NONE: no loop is looked for but by its length. */
	struct span own_id;
	struct span via; /* the value of our own Via field: forward_write_via */
	bool via_off;	 /* it goes as X-Migration-Via */
	const struct span *protected_names;
	size_t n_protected;
};

#define FORWARD_E_LOOP 1       /* → 508 Loop Detected */
#define FORWARD_E_CONNECTION 2 /* Connection names too many fields → 400 */
/* 0, FORWARD_E_*, or -ENOSPC when `size` is too small. */
int forward_request(const struct http_field *in, size_t n, const struct forward_context *c,
		    struct http_field *out, size_t size, size_t *ret_n);
/* 0, FORWARD_E_CONNECTION (→ 502), or -ENOSPC. `with_via`: our own Via is added. */
int forward_answer(const struct http_field *in, size_t n, bool with_via, struct http_field *out, size_t size,
		   size_t *ret_n);

/* The request's own X-Request-ID (the first, when it is not empty), else a new UUID in `made`. */
struct span forward_request_id(const struct http_field *in, size_t n, char made[CRYPTO_UUID]);

/* How often our pseudonym stands in one value of Via (RFC 9110 §7.6.3). *seen is set when `id` is the
 * comment of one. */
unsigned forward_count_via(struct span via, struct span id, bool *seen);
/* Our own field's value, with its NUL. */
void forward_write_via(bool received_http10, struct span id, char out[FORWARD_VIA_MAX]);

bool forward_tells_of_others(struct span name); /* Forwarded and its kin, as above */

#endif
