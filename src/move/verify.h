/*
 * After a write: is what the source gives out now what was asked for?
 */
#ifndef MOVE_VERIFY_H
#define MOVE_VERIFY_H

#include "move/draft.h"

/* Reads the place until it shows the change (bounded), and evaluates: everybody made up and everybody
 * recorded must get what draft->then decides for them, and Flipt itself must tell some of them the same. Says
 * what share goes to tasks. 0, -EAGAIN when the change does not show (or no longer), -EIO when it shows
 * but does not do what was asked, or what reading says. */
int verify_change(struct rollout_place *p, struct flag_users *u, const struct move_request *a,
		  const struct rollout_draft *draft, struct err *e);

#endif
