/*
 * Who is the master: asked of Redis' Sentinels, all at once, and again while its answer is in use.
 *
 * Why:       a connection to a master that was demoted may stay open (a network that is cut, a server that is
 *            stopped): the Sentinels know, the connection does not.
 * Rules:     the answer with the highest configuration epoch counts; a round waits for the others for a
 *            moment only. An older epoch than one heard before counts if a majority of all Sentinels says
 *            so: one that was cut off keeps to the old master, and ones that were set up anew begin at 0.
 * Threads:   the loop's own.
 * Ownership: belongs to who made it; redis_sentinel_free may be called from its callback.
 * Source:    redis.io/docs, "Guidelines for Redis clients with support for Redis Sentinel".
 */
#ifndef BASE_REDIS_SENTINEL_H
#define BASE_REDIS_SENTINEL_H

#include "base/err.h"
#include "base/loop.h"
#include "base/redis_url.h"

struct redis_sentinel;

/* `host` is borrowed until it returns, and NULL if nobody can say, with a sentence in `why`. */
typedef void (*redis_master_fn)(void *arg, const char *host, unsigned port, const struct err *why);

int redis_sentinel_new(struct loop *loop, const struct redis_url *u, unsigned timeout_ms, redis_master_fn fn,
		       void *arg, struct redis_sentinel **ret, struct err *e);
struct redis_sentinel *redis_sentinel_free(struct redis_sentinel *s); /* NULL is allowed; returns NULL */
/* Begins a round; its end is told by fn, never from within this call. One under way goes on. */
void redis_sentinel_ask(struct redis_sentinel *s);
/* From now on a round each second, or no more. */
void redis_sentinel_watch(struct redis_sentinel *s, bool on);

#endif
