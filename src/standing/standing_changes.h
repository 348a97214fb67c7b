/*
 * Standing changes: what differs between what a router knew and what it knows now, as events; and since when
 * a state that has not changed has been so. Pure.
 *
 * Why:       events and "since" are made in one place, by comparison: whatever changes a state, nobody can
 *            forget to say so, and what changed while no router ran is told at the next start.
 */
#ifndef STANDING_STANDING_CHANGES_H
#define STANDING_STANDING_CHANGES_H

#include "outcomes/events.h"
#include "standing/standing.h"

/* Sets the times of *now: of a state that is as in `before` that one's, else now->time_us. `before` may be
 * NULL: 0, except where something is wrong. */
void standing_since(const struct standing_facts *before, struct standing_facts *now);
/* One event for each difference. `before` may be NULL: none, but for what is wrong. */
void standing_each_change(const struct standing_facts *before, const struct standing_facts *now,
			  void (*fn)(void *arg, const struct event *e), void *arg);
/* Whether something changed that is to be told at once; figures that always move are not. */
bool standing_differs(const struct standing_facts *before, const struct standing_facts *now);

#endif
