/*
 * Phases: which of its steps a flag is on, and what is missing for the next one (design, "Phases"). Pure.
 */
#ifndef MOVE_PHASE_H
#define MOVE_PHASE_H

#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"

#define PHASE_LABEL_MAX 160
#define PHASE_WHY_MAX 640
#define PHASE_NOWHERE (-1)

/* What the flag itself shows. */
struct phase_state {
	bool disabled;			   /* a variant flag that is switched off */
	double everybody;		   /* percent that goes to tasks */
	double segments[CONFIG_MAX_STEPS]; /* the same of the segment of each step; of others 0 */
};

/* The last step whose target the flag shows; PHASE_NOWHERE. */
int phase_stands(const struct rollout_steps *steps, const struct phase_state *state);
/* "5 %", "beta_users" */
void phase_label(const struct rollout_step *s, char out[PHASE_LABEL_MAX]);
/* "0 %, beta_users, 5 %" */
void phase_labels(const struct rollout_steps *steps, char *out, size_t size);
/* Whether someone is on the task side by this step, so that there is something to judge. */
bool phase_has_task(const struct rollout_steps *steps, int step);

enum phase_verdict { PHASE_GO, PHASE_WAIT, PHASE_BREACH };

/* What is known of the step the flag is on. */
struct phase_evidence {
	int64_t since_us, now_us; /* wall clock: when it was reached */
	bool breach;		  /* of any operation, or what makes its evidence worthless */
	bool unreadable;	  /* whether there is one is unknown */
	bool safe;		  /* every operation's */
	/* Percent of the answers that may differ, by what was compared: the upper end of Wilson's interval
	 * for 95 %, so that few pairs do not pass for good ones. The worst operation's, with its counts. */
	bool differences_known;
	double differences;
	uint64_t compared, differing;
	bool person;		 /* has agreed */
	char why[PHASE_WHY_MAX]; /* what the evidence says: one sentence */
};

/* *ret_why: what is missing, or in the way; what is said of PHASE_GO is the evidence. */
enum phase_verdict phase_judge(const struct rollout_steps *steps, int step, const struct phase_evidence *e,
			       char why[PHASE_WHY_MAX]);

enum phase_stage { STAGE_OFF, STAGE_SHADOW, STAGE_ROLLING, STAGE_COMPLETE, STAGE_DRAINED };

/* Of an operation: percent of everybody by its flags together, whether a segment of them has tasks, the
 * share that is shadowed, and whether nothing has used its legacy side. */
enum phase_stage phase_stage(double everybody, bool segment, double shadow, bool drained);
const char *phase_stage_text(enum phase_stage s);

#endif
