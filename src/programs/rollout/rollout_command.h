/*
 * The commands of migration-rollout, each in a file of its own.
 */
#ifndef PROGRAMS_ROLLOUT_ROLLOUT_COMMAND_H
#define PROGRAMS_ROLLOUT_ROLLOUT_COMMAND_H

#include "move/move.h"
#include "move/place.h"

#define ADMIN_MAX 16

struct rollout_arguments {
	struct move_request move;
	const char *admin[ADMIN_MAX];
	size_t n_admin;
	const char *admin_token_file;
	unsigned timeout_s; /* of --wait */
	bool wait, json, watch;
};

/* 0, a move_result whose sentences were said already, or <0 with the sentence in e and nothing changed. */
int command_get(struct rollout_place *p, const struct rollout_arguments *a, struct err *e);
int command_stage(struct rollout_place *p, const struct rollout_arguments *a, struct err *e);
/* set, enable, disable, rollback, advance; until the routers have it, if asked to wait. */
int command_change(struct rollout_place *p, const struct rollout_arguments *a, struct err *e);

#endif
