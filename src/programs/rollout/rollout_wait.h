/*
 * Waiting until routers have a change: each is asked for its snapshot's digest again and again, all at once.
 */
#ifndef PROGRAMS_ROLLOUT_ROLLOUT_WAIT_H
#define PROGRAMS_ROLLOUT_ROLLOUT_WAIT_H

#include <stdint.h>

#include "programs/rollout/rollout_command.h"

struct rollout_wait;

/* Before the change: notes what the routers have, and keeps looking whenever the place's loop turns, so that
 * the time at which one has the change is known even where this program learns its digest later. -errno of
 * the token's file. */
int wait_begin(struct rollout_place *p, const struct rollout_arguments *a, struct rollout_wait **ret,
	       struct err *e);
struct rollout_wait *wait_end(struct rollout_wait *w); /* NULL is allowed; returns NULL */
/* After it: until all have the digest that the place shows now, or a later one (then the place is read
 * again). Says how long each took since `since_ms` (monotonic), and on standard error which have not. 0,
 * or MOVE_NOT_AS_ASKED. */
int wait_routers(struct rollout_wait *w, int64_t since_ms);

#endif
