/*
 * Sweep: time limits for many things with one timer.
 *
 * Why:       every request starts and ends several limits; a timer each would cost more than the request.
 *            Within a kind all limits are equally long, so a list in order of starting is a list in order of
 *            ending, and starting, moving and ending are a few pointer writes.
 * Ownership: entries are embedded in what they limit; sweep_stop them before that is freed.
 * Threads:   those of the loop.
 */
#ifndef ROUTER_HTTP_SWEEP_H
#define ROUTER_HTTP_SWEEP_H

#include "base/loop.h"

#define SWEEP_KINDS_MAX 4

struct sweep;

struct sweep_entry {
	struct sweep_entry *prev, *next; /* the sweep's; NULL when not started */
	uint64_t due_ms;
	unsigned kind;
};

/* The entry is stopped already when this is called; it may be started again, or freed. */
typedef void (*sweep_fn)(void *arg, struct sweep_entry *e);

/* limits_ms[kind]; 0 means no limit for that kind. */
int sweep_new(struct loop *loop, const unsigned *limits_ms, unsigned kinds, sweep_fn fn, void *arg,
	      struct sweep **ret);
struct sweep *sweep_free(struct sweep *s); /* entries need not be stopped before; NULL is allowed */

/* starts, or starts anew in that kind */
void sweep_start(struct sweep *s, struct sweep_entry *e, unsigned kind);
void sweep_stop(struct sweep_entry *e);

/* Calls fn for each started entry of that kind, without stopping it; fn must not start or stop others. */
void sweep_each(struct sweep *s, unsigned kind, sweep_fn fn, void *arg);

#endif
