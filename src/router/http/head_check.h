/*
 * Head check: is the head of a request one that every HTTP implementation reads in the same way?
 *
 * Why:       the listener's library accepts nearly every request-smuggling shape (docs/protocols/http.md);
 *            what is ambiguous is refused here, before anything is decided or forwarded. Pure: no I/O, no
 *            library.
 * Not here:  shapes that the library hides from what it hands out (folded lines, bare LF, NUL):
 *            layout_check.h.
 * Source:    RFC 9112 §2-§7 (framing, targets, Host), RFC 9110 §5.5 and §5.6.2 (values, tokens), §9.3.6,
 *            §10.1.1.
 */
#ifndef ROUTER_HTTP_HEAD_CHECK_H
#define ROUTER_HTTP_HEAD_CHECK_H

#include "router/http/listener.h"

/*
 * Looks at method, target, version and fields of `r` (values untrimmed) and fills in its framing: chunked,
 * content_length, has_body, expects_continue. 0 when the head is clean; otherwise the status to refuse it
 * with, and in ret_why a constant sentence.
 */
int head_check(struct http_request *r, const char **ret_why);

#endif
