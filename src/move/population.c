#include "move/population.h"

#include <stdio.h>

#define BUCKETS 1000 /* of variant flags; boolean ones use the first hundred */
#define MEMBER_MAX 32

static struct decide_input member(const struct decide_input *like, unsigned i, char name[MEMBER_MAX])
{
	struct decide_input in = *like;
	snprintf(name, MEMBER_MAX, "made-up-%u", i);
	if (in.entity.ptr == in.organization.ptr)
		in.organization = span_of(name);
	else
		in.user = span_of(name);
	in.entity = span_of(name);
	return in;
}

double population_share(const struct decide_input *like)
{
	unsigned task = 0;
	for (unsigned i = 0; i < POPULATION_SIZE; i++) {
		char name[MEMBER_MAX];
		struct decide_input in = member(like, i, name);
		struct decision d;
		decide(&in, &d, NULL);
		task += d.side == OUTCOME_TASK;
	}
	return 100.0 * task / POPULATION_SIZE;
}

double population_shadow(const struct decide_input *like)
{
	unsigned shadowed = 0;
	for (unsigned i = 0; i < POPULATION_SIZE; i++) {
		char name[MEMBER_MAX];
		struct decide_input in = member(like, i, name);
		struct decision d;
		decide(&in, &d, NULL);
		shadowed += d.shadow > 0;
	}
	return 100.0 * shadowed / POPULATION_SIZE;
}

bool population_misses_backend(const struct decide_input *like, struct span *ret_backend)
{
	for (unsigned i = 0; i < POPULATION_SIZE; i++) {
		char name[MEMBER_MAX];
		struct decide_input in = member(like, i, name);
		struct decision d;
		decide(&in, &d, NULL);
		*ret_backend = d.unknown;
		if (d.reason == REASON_BACKEND_UNKNOWN)
			return true;
	}
	return false;
}

double population_share_of_flag(const struct decide_input *like, struct span flag)
{
	bool seen[BUCKETS] = {false};
	unsigned n = 0, task = 0, without = 0, task_without = 0;
	for (unsigned i = 0; i < POPULATION_SIZE; i++) {
		char name[MEMBER_MAX];
		struct decide_input in = member(like, i, name);
		struct decide_vote v;
		decide_flag(&in, flag, &v);
		if (v.bucket < 0) {
			without++;
			task_without += v.task;
		} else if (!seen[v.bucket]) {
			seen[v.bucket] = true;
			n++;
			task += v.task;
		}
	}
	double of_buckets = n ? 100.0 * task / n : 0,
	       of_others = without ? 100.0 * task_without / without : 0;
	return (of_buckets * (POPULATION_SIZE - without) + of_others * without) / POPULATION_SIZE;
}

struct population_moves population_moves(const struct decide_input *like, struct span flag,
					 const struct flag_snapshot *new)
{
	struct population_moves moves = {0};
	for (unsigned i = 0; i < POPULATION_SIZE; i++) {
		char name[MEMBER_MAX];
		struct decide_input in = member(like, i, name);
		struct decide_vote was, is;
		decide_flag(&in, flag, &was);
		in.flags = new;
		decide_flag(&in, flag, &is);
		moves.to_task += !was.task && is.task;
		moves.to_legacy += was.task && !is.task;
	}
	return moves;
}
