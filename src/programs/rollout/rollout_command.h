/*
 * The commands of migration-rollout, each in a file of its own.
 */
#ifndef PROGRAMS_ROLLOUT_ROLLOUT_COMMAND_H
#define PROGRAMS_ROLLOUT_ROLLOUT_COMMAND_H

#include "programs/rollout/rollout_place.h"

#define ADMIN_MAX 16

struct rollout_arguments {
	const char *config, *segment, *journal, *command, *flag;
	const char *admin[ADMIN_MAX];
	size_t n_admin;
	const char *admin_token_file;
	double percent;	    /* <0: the command has none */
	unsigned timeout_s; /* of --wait */
	bool yes, dry_run, wait, json, watch;
	const char *message; /* for the history; NULL: none */
	/* Of a step that advance makes: nobody is asked whether it more than doubles a share, since it was
	 * agreed upon when it was configured; what it is recorded with; and what must hold of what was read
	 * each time before it is written (0, or -errno with the sentence). */
	const char *step;
	struct span evidence;
	int (*still)(void *arg, const struct rollout_place *p, struct err *e);
	void *still_arg;
};

/* To legacy, and that at once: nothing stops these but the write itself. */
bool arguments_are_emergency(const struct rollout_arguments *a);

/* What the whole program returns. */
enum rollout_exit {
	ROLLOUT_DONE,	 /* or nothing to do */
	ROLLOUT_REFUSED, /* failed or refused: nothing was changed */
	ROLLOUT_USAGE,	 /* arguments or configuration */
	/* something was changed, but not all is as asked for: the output says what was written */
	ROLLOUT_NOT_AS_ASKED,
	ROLLOUT_NOT_YET, /* advance: something is missing that may come; nothing was changed */
	ROLLOUT_BREACH,	 /* advance: an operation is worse on the task side; nothing was changed */
};

/* 0, a rollout_exit whose sentences were said already, or <0 with the sentence in e and nothing changed. */
int command_get(struct rollout_place *p, const struct rollout_arguments *a, struct err *e);
int command_plan(struct rollout_place *p, const struct rollout_arguments *a, struct err *e);
int command_change(struct rollout_place *p, const struct rollout_arguments *a, struct err *e);
int command_advance(struct rollout_place *p, const struct rollout_arguments *a, struct err *e);
int command_stage(struct rollout_place *p, const struct rollout_arguments *a, struct err *e);

#endif
