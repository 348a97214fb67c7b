/*
 * A draft: what everybody gets now, and what they would get after a change.
 *
 * Why:       plans, questions and checks compare the same two snapshots.
 * Ownership: the draft owns both.
 */
#ifndef MOVE_DRAFT_H
#define MOVE_DRAFT_H

#include "move/move.h"
#include "move/place.h"
#include "move/users.h"

struct rollout_draft {
	struct flag_snapshot *now, *then;
	struct rollout_plan plan; /* of place->flags; place->document may have its rules elsewhere */
	double from, to;	  /* percent of everybody whom the flag by itself says task to */
	bool of_segment;
	char missing[256]; /* who would be led to a backend that is not configured; "" when nobody */
	char unused[320];  /* no operation uses the flag: the change moves nobody; "" when one does */
	double segment_from, segment_to; /* of the segment's members; where of_segment */
};

/* What the command wants of a document. */
int draft_plan(const struct rollout_document *d, const struct move_request *a, struct rollout_plan *ret,
	       struct err *e);
/* -ENOENT when there is no such flag: the sentence lists near ones. */
int draft_find_flag(const struct flag_snapshot *s, const char *key, const struct flag **ret, struct err *e);
/* From what the place has read. -EINVAL when the change is refused. */
int draft_make(const struct rollout_place *p, struct flag_users *u, const struct move_request *a,
	       struct rollout_draft *ret, struct err *e);
void draft_release(struct rollout_draft *d);
/* The two shares of everybody or of the segment's members, whichever the command is about. */
double draft_from(const struct rollout_draft *d);
double draft_to(const struct rollout_draft *d);

/* Where what it comes to is known to be another percentage than was asked for: says so. "" otherwise. */
void draft_say_otherwise(const struct rollout_draft *d, const struct move_request *a, char text[256]);

#define DRAFT_QUESTION_MAX 1400
/* What someone should agree to, all of it in one sentence: more than doubling, and where the outcome is known
 * to be another than what was asked for. "" when there is nothing. */
void draft_question(const struct rollout_draft *d, const struct move_request *a,
		    char question[DRAFT_QUESTION_MAX]);

/* "rule 1, variant "25": 5 % → 10 %" */
void draft_change_text(const struct rollout_change *c, char text[256]);
/* What someone should know of the draft before it is written. */
void draft_notes(const struct rollout_draft *d, const struct move_request *a,
		 void (*each)(void *arg, const char *note), void *arg);

/* The changes, one line each. */
void draft_show_changes(const struct rollout_place *p, const struct rollout_plan *plan);
/* What someone should know of the draft before it is written, one line each. */
void draft_show_notes(struct rollout_place *p, const struct rollout_draft *d, const struct move_request *a);

#endif
