/*
 * Setting back: what the guard writes after a breach (docs/design.md, "Moving", 7 to 9).
 *
 * Why:       the hold that a breach brings about is this router's (and its replicas') own; the percentage
 *            that everybody sees stays what it was until someone writes it.
 * Bound:     to the split that breached: whatever else the flags say by then is someone's decision, and
 *            stays.
 */
#ifndef MOVE_SETBACK_H
#define MOVE_SETBACK_H

#include "move/place.h"

#define SETBACK_WHY_MAX 512

struct setback {
	char service[32], operation[64]; /* that breached */
	uint64_t split;			 /* decide_split then */
	double keeps;			 /* the share (0..1) that was safe last and stays; 0: none */
	char why[SETBACK_WHY_MAX];	 /* what the guard says, a sentence */
	struct span evidence;		 /* its verdict as JSON; SPAN_NONE: none */
};

enum setback_result {
	SETBACK_MADE,
	SETBACK_MOOT, /* the flags have changed since, or nothing is left to change: nothing was written */
	SETBACK_NOT_AS_ASKED,
};

struct setback_done {
	char flag[128], command[16]; /* "" as long as none was chosen */
	double percent;		     /* <0: the command has none */
	char message[MOVE_MESSAGE_MAX + 1];
	bool unrecorded;
};

/* Reads, chooses the flag, and writes. A setback_result, or -errno with the sentence: nothing was changed,
 * and it may be tried again. */
int move_set_back(struct rollout_place *p, const struct setback *s, struct setback_done *ret, struct err *e);

#endif
