/*
 * Lookup: the addresses of a name, asked of the system (getaddrinfo) without blocking the loop.
 *
 * Why:       the system's resolver blocks, for as long as its name servers are silent. A thread of its own
 *            per lookup: those of libuv's pool are few, and databases wait for them.
 * Threads:   start and cancel on the loop's thread; `told` is called there.
 * Ownership: a lookup is gone once `told` was called, or with lookup_cancel; the thread may continue in vain,
 *            and nobody waits for it.
 * Limits:    LOOKUP_MAX addresses, in the system's order (RFC 6724), families taken in turns (RFC 8305 §4).
 */
#ifndef BASE_LOOKUP_H
#define BASE_LOOKUP_H

#include <stddef.h>

#include "base/loop.h"

#define LOOKUP_MAX 8
#define LOOKUP_TEXT 80 /* a numeric address with its scope and NUL */

struct lookup;

/* n > 0 addresses, or 0 and `why`: a sentence. Good until it returns. */
typedef void (*lookup_fn)(void *arg, const char (*addresses)[LOOKUP_TEXT], size_t n, const char *why);

/* -ENOMEM, -EAGAIN */
int lookup_start(struct loop *loop, const char *name, lookup_fn told, void *arg, struct lookup **ret);
struct lookup *lookup_cancel(struct lookup *l); /* no call follows; NULL is allowed */

#endif
