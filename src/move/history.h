/*
 * What was changed with migration-rollout, at the router's page, or by its guard: one line of JSON per
 * change, in a file next to the outcomes.
 *
 * Why:       "who changed this, and when?" must have an answer at three in the morning. What was changed in
 *            Flipt's page or with an editor is not in it.
 */
#ifndef MOVE_HISTORY_H
#define MOVE_HISTORY_H

#include "base/err.h"
#include "config/config.h"
#include "rollout/rollout.h"

struct rollout_record {
	const char *command, *flag, *segment; /* segment: NULL for everybody */
	const char *source;		      /* rollout_place's name */
	double percent;			      /* what was asked for; <0: the command has none */
	/* percent of everybody (with a segment: of its members) that the flag says task to */
	double from, to;
	const struct rollout_plan *plan; /* values with what they were before */
	const char *who;		 /* NULL: the user who runs this process */
	const char *result;		 /* "done", "seen", or what went wrong */
	const char *step;		 /* that was made, or seen (phase_label); NULL: none */
	const char *message;		 /* --message; NULL: none */
	struct span evidence;		 /* JSON; SPAN_NONE: none */
};

/* `journal` NULL: rollouts.jsonl next to the outcomes. */
int history_path(const struct config *c, const char *journal, char **ret, struct err *e);
/* Whether a record could be written, before there is something to record. */
int history_writable(const char *path, struct err *e);
int history_write(const char *path, const struct rollout_record *record, struct err *e);
/* When the flag reached this step without a change since, and when someone last advanced it; wall
 * clock (us), 0 = not known, or never. */
struct history_reached {
	int64_t since_us, advanced_us;
};
int history_reached(const char *path, const char *flag, const char *step, struct history_reached *ret,
		    struct err *e);
/* A descriptor, to be closed; -EBUSY while someone else has one. */
int history_lock(const char *path, struct err *e);
/* To standard output, of one flag or all (NULL); as a table, or the lines as they are. */
int history_show(const char *path, const char *flag, bool json, struct err *e);

#endif
