/*
 * Waiting until routers have a change: each is asked for its snapshot's digest again and again, all at once.
 */
#ifndef CLI_ROLLOUT_WAIT_H
#define CLI_ROLLOUT_WAIT_H

#include <stdint.h>

#include "cli/rollout_command.h"

struct rollout_wait {
	const struct rollout_arguments *arguments;
	char before[ADMIN_MAX][PLACE_DIGEST_MAX]; /* what each router had; "" when it did not answer */
	struct buf token;
};

/* Before the change: what the routers have. -EACCES and the like of the token's file. */
int wait_prepare(struct rollout_place *p, const struct rollout_arguments *a, struct rollout_wait *w, struct err *e);
void wait_release(struct rollout_wait *w);
/* After it: until all have the digest that the place shows now, or a later one (then the place is read again). Says the time of each
 * since `since_ms` (monotonic), and on standard error which have not. 0, or ROLLOUT_NOT_AS_ASKED. */
int wait_routers(struct rollout_place *p, const struct rollout_wait *w, int64_t since_ms);

#endif
