/*
 * Guard joint: an operation's part in what replicas share, on the recorder's thread. Private to guard*.c.
 *
 * Shape:     within the transaction: take what the server said (guard_joint_receive), hand on what was seen
 *            (guard_joint_event), write it down (guard_joint_write); after it: ask (guard_joint_ask).
 * Errors:    db.h's; *_ask: none, it is asked again.
 */
#ifndef GUARD_GUARD_JOINT_H
#define GUARD_GUARD_JOINT_H

#include "guard/guard_watched.h"

struct guard_joint_context {
	struct guard_store *store;
	struct guard_waiting *waiting;
	struct guard_share *share;
	bool works; /* the server answers: events count when they come back from it */
	int64_t now_us;
};

/* After w->now was read. */
int guard_joint_load(const struct guard_joint_context *c, struct guard_watched *w, struct err *e);
/* An epoch has just begun. `ends`: it was released, the generation that this ends; `joined`: another replica
 * has begun this one; 0 each where not. */
int guard_joint_begin(const struct guard_joint_context *c, struct guard_watched *w, int64_t ends,
		      int64_t joined, struct err *e);
/* w->moved is set when another replica has begun the epoch anew. */
int guard_joint_receive(const struct guard_joint_context *c, struct guard_watched *w, struct err *e);
int guard_joint_event(const struct guard_joint_context *c, struct guard_watched *w,
		      const struct guard_event *event, struct err *e);
/* What waits for a server that is not there counts now. */
int guard_joint_alone(const struct guard_joint_context *c, struct guard_watched *w, struct err *e);
int guard_joint_write(const struct guard_joint_context *c, struct guard_watched *w, struct err *e);
/* All of it, into a file that has nothing. */
int guard_joint_write_anew(const struct guard_joint_context *c, struct guard_watched *w, struct err *e);
void guard_joint_ask(const struct guard_joint_context *c, struct guard_watched *w);
void guard_joint_leave(struct guard_watched *w);

#endif
