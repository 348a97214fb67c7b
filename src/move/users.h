/*
 * Who uses a flag: the operations that ask it, and what its variants mean to them.
 *
 * Ownership: borrows the configuration.
 */
#ifndef MOVE_USERS_H
#define MOVE_USERS_H

#include "flags/asked.h"
#include "rollout/rollout.h"
#include "router/decide.h"

#define ROLLOUT_CONTEXT_MAX 16

struct flag_users {
	const struct config *config;
	const char *flag;
	struct operation own;	    /* stands for an operation where none asks the flag */
	struct rollout_sides sides; /* for rollout_open; its arg is this struct, which must not move */
	/* a variant that operations take differently, and who; "" as long as none was met */
	char disagree[256];
};

void flag_users_init(struct flag_users *u, const struct config *c, const char *flag);
/* The index-th operation that asks the flag (or whose backend it decides); NULL: no more. */
const struct operation *flag_users_at(const struct flag_users *u, size_t index);
bool operation_asks(const struct config *c, const struct operation *op, struct span flag);

/* Someone made up of whom an operation's flags are asked (population.h): a user, or an organization where
 * that is hashed. For a flag that no operation asks: op is NULL. The result borrows from u. */
struct decide_input flag_users_like(const struct flag_users *u, const struct operation *op,
				    const struct flag_snapshot *s);

/* The context that makes someone be of a segment, as far as its constraints tell; the values lie in the
 * struct. */
struct segment_context {
	struct flag_context entries[ROLLOUT_CONTEXT_MAX];
	char values[ROLLOUT_CONTEXT_MAX][FLAG_ASKED_VALUE_MAX];
	size_t n;
	bool entity; /* it asks for particular entities: no context makes anyone be of it */
};
void segment_context_of(const struct flag *f, const char *segment, struct segment_context *ret);

#endif
