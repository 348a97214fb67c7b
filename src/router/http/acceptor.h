/*
 * Acceptor: takes the connections of one listening socket, and resumes by itself after whatever kept it from
 * that.
 *
 * Why:       libmicrohttpd stops listening when accept() fails and resumes when one of its own connections
 *            closes; a quiet listener whose process ran out of descriptors has none and was deaf forever.
 *            Here accepting is tried again by a timer.
 * Closing:   what the kernel has accepted, or is about to, is handed over first. A filter drops new attempts
 *            meanwhile, so that the queue has an end; their clients try again a second later, and meet who
 *            listens by then. A socket that outlives this process (listen_address.h), and so does its queue,
 *            is left at once to who comes next: a filter would be his, too.
 * Threads:   the loop's; acceptor_outage any.
 */
#ifndef ROUTER_HTTP_ACCEPTOR_H
#define ROUTER_HTTP_ACCEPTOR_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/loop.h"

#define ACCEPTOR_RETRY_MS 100

struct acceptor;

/* Owns the descriptor from then on. It may call acceptor_pause, nothing else of the acceptor. */
typedef void (*acceptor_take_fn)(void *arg, int fd, const struct sockaddr *peer, socklen_t length);

/* `fd` is owned from here on, also after an error. `reserve` descriptors are kept back for when there are no
 * others. `outlives`: the socket outlives this process; it may be said of it later, too
 * (listen_address_leave). */
int acceptor_new(struct loop *loop, int fd, bool outlives, unsigned reserve, acceptor_take_fn take, void *arg,
		 struct acceptor **ret);
struct acceptor *acceptor_free(struct acceptor *a);  /* resets what waits in the kernel; NULL is allowed */
void acceptor_pause(struct acceptor *a, bool pause); /* no room: what comes waits in the kernel */
void acceptor_close(struct acceptor *a);	     /* begins to close */
bool acceptor_closed(const struct acceptor *a);	     /* nothing comes any more */

/* Whether some acceptor of this process is, or was within the last second, out of descriptors or memory. */
bool acceptor_outage(void);

#endif
