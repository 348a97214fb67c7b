/*
 * HTTP messages (RFC 9110): a field, the head of a request, and what can be said of a field's name alone.
 *
 * Ownership: everything is borrowed, as it was written, without the blanks around a value.
 */
#ifndef BASE_HTTP_MESSAGE_H
#define BASE_HTTP_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/span.h"

struct http_field {
	struct span name, value;
};

#define HTTP_FIELDS_MAX 256 /* fields of a head; more is 431 */

struct http_request {
	struct span method, target; /* exact bytes */
	struct span version;	    /* "HTTP/1.1" */
	const struct http_field *fields;
	size_t n_fields;
	bool chunked;		/* body framed by chunks */
	int64_t content_length; /* -1 if absent */
	bool has_body;		/* chunked, or content_length > 0 */
	bool expects_continue;	/* Expect: 100-continue */
	/* AF_INET or AF_INET6; IPv4 clients of an IPv6 socket appear as AF_INET */
	const struct sockaddr *peer;
	socklen_t peer_length;
};

/* First field of that name, SPAN_NONE if there is none. */
struct span http_request_field(const struct http_request *r, const char *name);

/* RFC 9110 §5.6.2 */
bool http_is_tchar(char c);
bool http_is_token(struct span name);
/* Whether a name is this one, in lower case, of the same length (1 or more), which the caller has
 * compared: on the path of every request, most names are dismissed by their length and first letter. */
static inline bool http_named(struct span name, const char *lower)
{
	return (name.ptr[0] | 0x20) == lower[0] && strncasecmp(name.ptr, lower, name.len) == 0;
}
/* Of one connection only: Connection, Keep-Alive, Proxy-Connection, TE, Trailer, Transfer-Encoding, Upgrade,
 * and the fields that are for the next proxy (RFC 9110 §7.6.1, §11.7). Content-Length is not among them. */
bool http_is_hop_by_hop(struct span name);

#endif
