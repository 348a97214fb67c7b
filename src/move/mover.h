/*
 * Mover: the threads on which a router changes percentages.
 *
 * Why:       a change reads, writes and waits for Flipt or a disk; whoever asks for one is on a loop that
 *            must not. People's and the guard's have a thread each, so that the guard waits for no person.
 * Shape:     a job runs on its lane's thread with a place of its own, then `done` is called on the loop. Of
 *            two that change the same flag, the second waits for the first.
 * Limits:    MOVER_WAITING jobs wait on a lane. A call to Flipt takes MOVER_CALL_MS at most.
 * Ownership: the job is its owner's until `done`; it cannot be taken back.
 * Threads:   start and stop on the loop's.
 */
#ifndef MOVE_MOVER_H
#define MOVE_MOVER_H

#include "base/loop.h"
#include "move/place.h"

#define MOVER_WAITING 8
#define MOVER_CALL_MS 10000
#define MOVER_SAID_MAX 65536
#define MOVER_ANY ""

struct mover;

enum mover_lane { MOVER_PEOPLE, MOVER_GUARD, MOVER_LANES };

struct mover_job {
	/* On the lane's thread. What it returns is `result`. */
	int (*run)(struct mover_job *job, struct rollout_place *p, struct err *e);
	void (*done)(struct mover_job *job); /* on the loop */
	const struct config *config;	     /* good until `done` */
	const char *flag;		     /* that it changes; NULL: none; MOVER_ANY: it is not known yet */
	/* Filled in when it is done. */
	int result; /* a move_result, or -errno with err; -ECANCELED: the router ends */
	struct err err;
	struct buf said; /* what was said, as it would be at a terminal; the owner releases it */
	/* The mover's. */
	struct loop_work work;
	struct mover_job *next;
	enum mover_lane lane;
};

int mover_start(struct loop *loop, struct mover **ret, struct err *e);
/* What runs gives up within a moment, what waits is not begun; `done` is called for each. NULL is allowed. */
struct mover *mover_stop(struct mover *m);
/* -EBUSY: too many are waiting. */
int mover_add(struct mover *m, enum mover_lane lane, struct mover_job *job);

#endif
