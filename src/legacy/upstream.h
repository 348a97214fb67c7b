/*
 * What the calls of one upstream share: its pool, the queue of those that wait for a connection, memory for
 * reuse, and the list of calls with something to do soon. It knows calls only as links in its lists: what is
 * done with one is a function of the upstream_verbs. Inside src/legacy only.
 */
#ifndef LEGACY_UPSTREAM_H
#define LEGACY_UPSTREAM_H

#include "legacy/legacy.h"
#include "legacy/link.h"
#include "legacy/origin.h"
#include "legacy/pool.h"

/* An answer is received into one block: its head, then body bytes not yet taken. */
#define UPSTREAM_BLOCK_BODY 65536

struct block {
	struct block *next;
};

/* What an upstream does with the links in its lists. */
struct upstream_verbs {
	bool (*leave_queue)(struct link *queued); /* false: there is no connection for it yet */
	void (*look)(struct link *soon);
	void (*free_idle)(struct link *idle); /* it is in no list any more */
};

struct legacy_upstream {
	struct loop *loop;
	const struct upstream_verbs *verbs;
	struct origin origin;
	struct pool *pool;
	struct legacy_options options; /* its strings are not used after new */
	struct link queue;	       /* calls waiting for a connection, first come first served */
	unsigned n_queued;
	struct link soon; /* calls to be looked at outside of their caller's call */
	struct loop_timer *soon_timer;
	uint64_t soon_at;
	struct link idle_calls; /* for reuse */
	unsigned n_idle_calls;
	struct block *blocks; /* for reuse */
	unsigned n_blocks;
	size_t block_size;
};

/* As legacy_upstream_new. `verbs` outlives the upstream. */
int upstream_new(struct loop *loop, const struct legacy_options *o, const struct upstream_verbs *verbs,
		 struct legacy_upstream **ret, struct err *e);

char *upstream_take_block(struct legacy_upstream *u); /* block_size bytes; NULL if out of memory */
void upstream_give_block(struct legacy_upstream *u, char *block);

/* A connection has become free: the first of the queue gets it. */
void upstream_serve_queue(struct legacy_upstream *u);

/* `soon` is checked after so many ms: 0 = in the next round, before the loop waits. */
void upstream_look_soon(struct legacy_upstream *u, struct link *of_call, uint64_t after_ms);

#endif
