/*
 * Lingering close: keeps connections that were answered before their request was read, until the client has
 * seen the answer.
 *
 * Why:       closing a socket with unread bytes resets it, and the reset overtakes the answer (RFC 9112
 *            §9.6). So our writing side is shut, and what still comes is read and dropped: until the client
 *            closes, or `max_ms` are over.
 * Threads:   those of the loop.
 * Limits:    LINGERING_MAX connections at a time; more are closed at once.
 */
#ifndef ROUTER_HTTP_LINGERING_H
#define ROUTER_HTTP_LINGERING_H

#include "base/loop.h"

#define LINGERING_MAX 1024

struct lingering;

int lingering_new(struct loop *loop, unsigned max_ms, struct lingering **ret);
struct lingering *lingering_free(struct lingering *l); /* closes what lingers; NULL is allowed */
void lingering_take(struct lingering *l, int fd);      /* the descriptor is the lingering's from now on */

#endif
