/*
 * Position: on which of its steps a flag stands, as its place shows it now.
 */
#ifndef MOVE_POSITION_H
#define MOVE_POSITION_H

#include "move/phase.h"
#include "move/place.h"
#include "move/users.h"

/* The flag as the place has read it (place_read). -EINVAL when routers set it aside, -ENOENT. */
int position_state(const struct rollout_place *p, struct flag_users *u, const struct rollout_steps *steps,
		   struct phase_state *ret, struct err *e);
/* -EINVAL when the flag can never show one of its steps: no rule is about a segment, or a boolean flag is to
 * act in tenths. */
int position_check_steps(const struct rollout_place *p, struct flag_users *u,
			 const struct rollout_steps *steps, struct err *e);
/* Whether two are the same; a tenth of a percent is another. */
bool position_same(const struct rollout_steps *steps, const struct phase_state *a,
		   const struct phase_state *b);
/* Whether what would be edited (place_read_document) says what was read (place_read): they are two texts of a
 * server, and someone may have changed it in between. */
int position_document_agrees(const struct rollout_place *p, struct flag_users *u, bool *ret, struct err *e);

#endif
