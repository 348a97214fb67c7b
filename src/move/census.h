/*
 * Census: who of the recorded identities a draft would move.
 *
 * Threads:   one; reads outcomes.db, beside a router that writes.
 * Cost:      a group-by over the attempts that are looked at.
 */
#ifndef MOVE_CENSUS_H
#define MOVE_CENSUS_H

#include "move/draft.h"

#define CENSUS_LARGEST_MAX 5

struct census_party {
	char name[128]; /* plain text, cut */
	int64_t moved, requests;
};

struct census_kind {
	size_t known, to_task, to_legacy, elsewhere, unknown;
	struct census_party largest[CENSUS_LARGEST_MAX]; /* of those that would move */
	size_t n_largest;
};

struct census_sum {
	bool nobody; /* nobody is on record */
	bool cut;    /* there are more identities than were looked at */
	int64_t requests, to_task, to_legacy, unknown;
	struct census_kind users, organizations;
};

/* Of those who asked operations that ask the flag, among the `newest` attempts (0: all). Errors: db.h's. */
int census_of(const struct rollout_place *p, const struct move_request *q, const struct rollout_draft *d,
	      int64_t newest, struct census_sum *ret, struct err *e);

#endif
