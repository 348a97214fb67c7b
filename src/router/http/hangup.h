/*
 * Hang-ups: tells when the other end of a TCP connection has gone, or has shut its writing side.
 *
 * Why:       libmicrohttpd sees neither while a connection is suspended. An epoll set of its own,
 *            edge-triggered, asked for nothing but RDHUP: data that arrives wakes nobody, a half-closed peer
 *            does not spin, and a reset can be distinguished from a half-close (libuv's polling merges them).
 *            A descriptor stays in it from accept to close, so a request costs no system call.
 * Ownership: descriptors and clients are the caller's; hangup_remove before the descriptor is closed or the
 *            client freed.
 * Threads:   those of the loop.
 */
#ifndef ROUTER_HTTP_HANGUP_H
#define ROUTER_HTTP_HANGUP_H

#include "base/loop.h"

struct hangup;

/* `gone`: reset, or closed both ways; otherwise only half-closed. Must not remove any descriptor from
 * within. */
typedef void (*hangup_fn)(void *arg, void *client, bool gone);

int hangup_new(struct loop *loop, hangup_fn fn, void *arg, struct hangup **ret);
struct hangup *hangup_free(struct hangup *h); /* NULL is allowed */
int hangup_add(struct hangup *h, int fd, void *client);
void hangup_remove(struct hangup *h, int fd);

#endif
