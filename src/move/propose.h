/*
 * Proposals: a change as it is shown to someone before it is made, with the digest that binds what is made to
 *            what
 * was shown (docs/design.md, "Moving").
 *
 * Ownership: a proposal owns its buffers; proposal_release.
 */
#ifndef MOVE_PROPOSE_H
#define MOVE_PROPOSE_H

#include "base/crypto.h"
#include "move/census.h"

#define PROPOSAL_OPERATIONS_MAX 64
#define PROPOSAL_NEWEST 500000 /* attempts whose identities are looked at */

struct proposal_operation {
	char name[100];	 /* "service.operation" */
	double from, to; /* percent of everybody to tasks, all its flags together */
	size_t flags;
};

struct move_proposal {
	char command[16], flag[128], segment[128], step[160], place[512]; /* step: that advance would make */
	double percent;							  /* that was asked for; <0: none */
	double from, to; /* percent of everybody, or of the segment's members, whom the flag says task to */
	bool of_segment;
	bool nothing; /* to change */
	bool blind;   /* an emergency, where what everybody gets cannot be evaluated: no figures */
	char digest[CRYPTO_SHA256_HEX];
	char question[DRAFT_QUESTION_MAX]; /* what to agree to in particular; "": nothing */
	struct buf changes, notes;	   /* one a line */
	struct proposal_operation operations[PROPOSAL_OPERATIONS_MAX];
	size_t n_operations;
	bool counted; /* `census` could be made */
	char census_trouble[ERR_TEXT_MAX];
	struct census_sum census;
};

/* What the request would do now. Writes nothing. As move_change and move_advance; with MOVE_DONE and an empty
 * digest there is no change to make (advance: the last step). */
int move_propose(struct rollout_place *p, const struct move_request *q, struct move_proposal *ret,
		 struct err *e);
void proposal_release(struct move_proposal *p);

/* Makes the change if `digest` is that of a proposal made now; -ESTALE when it is not. */
int move_apply(struct rollout_place *p, const struct move_request *q, const char *digest,
	       struct move_done *ret, struct err *e);

int proposal_to_json(const struct move_proposal *p, struct buf *out);

#endif
