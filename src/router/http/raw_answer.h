/*
 * Raw answer: one whole answer written to a connection past the library that reads it.
 *
 * Why:       libmicrohttpd takes no answer in the middle of a body, and has one of its own for heads that it
 *            has no room for. While it reads it writes nothing, so the answer can be written alongside it,
 *            as the last one of the connection. And 0.9.75 has no answer without a field of framing that
 *            keeps the connection.
 * Errors:    -EAGAIN when nothing was written; another one when the answer is not, or not wholly, out.
 */
#ifndef ROUTER_HTTP_RAW_ANSWER_H
#define ROUTER_HTTP_RAW_ANSWER_H

#include "router/http/listener.h"

/* The fields by the listener's rules (see exchange_respond), with Date, Content-Length and `Connection:
 * close`. Shuts the writing side once it is sent. `reason` goes into the status line. */
int raw_answer_send(int fd, const char *reason, const struct http_response *r, struct span body);
/* To HEAD, or a 304: a head without Content-Length, after which the connection is kept; so it says to a
 * client of HTTP/1.0. */
int raw_answer_send_unframed(int fd, const char *reason, bool http10, const struct http_response *r);

#endif
