/*
 * A made-up population: the same identities every time, asked for what a flag or an operation says to them.
 *
 * Why:       what a percentage comes to is counted by the decision itself, not computed beside it.
 * Threads:   pure.
 *
 * `like` says who they are like: each is as it, with the part that is hashed (its entity) made up.
 */
#ifndef MOVE_POPULATION_H
#define MOVE_POPULATION_H

#include "router/decide.h"

#define POPULATION_SIZE 20000

/* Percent of them that the task side serves, all flags of the operation asked. */
double population_share(const struct decide_input *like);
/* Percent of them whose request runs on the task side beside legacy, now and then or always. */
double population_shadow(const struct decide_input *like);
/* Percent of the whole that one flag says task to. Exact to the steps in which Flipt acts: each bucket
 * counts once. */
double population_share_of_flag(const struct decide_input *like, struct span flag);

/* Whether the flags lead some of them to a backend that is not configured (they are served by legacy
 * then), and to which. */
bool population_misses_backend(const struct decide_input *like, struct span *ret_backend);

struct population_moves {
	unsigned to_task, to_legacy;
};
/* Who of them one flag would move, from like->flags to `new`. */
struct population_moves population_moves(const struct decide_input *like, struct span flag,
					 const struct flag_snapshot *new);

#endif
