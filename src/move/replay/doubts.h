/*
 * Doubts: where a decision about a recorded identity hangs on what was not recorded.
 *
 * Why:       who would move is asked of those who really came, and outcomes have neither everything that a
 *            request said nor, always, the id that was hashed. What cannot be known is counted as unknown.
 * Threads:   pure.
 */
#ifndef MOVE_REPLAY_DOUBTS_H
#define MOVE_REPLAY_DOUBTS_H

#include "move/users.h"
#include "outcomes/recorded.h"

#define DOUBTS_MAX 64 /* segments of an operation's flags that ask for what may be unknown */

/* A segment's constraints on properties, with values that would make a difference. */
struct doubt {
	char segment[128], property[128]; /* the first of those */
	struct segment_context context;
	size_t identities; /* whose answer it could change; counted by who asks */
};

struct doubts {
	const struct operation *op;
	struct doubt list[DOUBTS_MAX];
	size_t n;
};

/* *ret is zeroed before. */
void doubts_of(struct doubts *ret, const struct config *config, const struct flag_snapshot *flags,
	       const struct operation *op);

/* What is known of a recorded identity. */
struct recorded_known {
	bool user, organization;
	bool entity;	/* what is hashed; also where there is none */
	bool pseudonym; /* the user is recorded as one */
};

/* The input of a decision about it, without flags; what is not known is absent. */
void recorded_input(const struct config *config, const struct operation *op, const struct recorded *r,
		    struct decide_input *ret, struct recorded_known *known);
/* The doubt's properties that are not known of it, with the values that would make a difference: how many. */
size_t doubt_unknown(const struct doubt *d, const struct operation *op, const struct recorded_known *known,
		     struct flag_context unknown[ROLLOUT_CONTEXT_MAX]);

#endif
