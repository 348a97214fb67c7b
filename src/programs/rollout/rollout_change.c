/*
 * set, enable, disable, rollback, advance, said at a terminal, and waiting for the routers.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "move/phase.h"
#include "programs/rollout/rollout_command.h"
#include "programs/rollout/rollout_wait.h"

#define WATCH_US 2000000 /* between two looks */

struct command {
	struct rollout_place *place;
	const struct rollout_arguments *arguments;
	struct rollout_wait *wait;
	bool unwaited; /* the routers could not be asked */
};

/* Right before the write. Nothing may keep a rollback from being made. */
static int command_before(void *arg, struct err *e)
{
	struct command *c = arg;
	if (!c->arguments->wait)
		return 0;
	int r = wait_begin(c->place, c->arguments, &c->wait, e);
	if (r == 0 || !move_is_emergency(&c->arguments->move))
		return r;
	place_say(c->place, MOVE_WARNS, "warning: cannot wait for the routers: %s\n", e->text);
	c->wait = wait_end(c->wait);
	c->unwaited = true;
	return 0;
}

static int command_after(struct command *c, int r, const struct move_done *done)
{
	if (r == 0 && done->written && c->wait)
		r = wait_routers(c->wait, done->written_ms);
	c->wait = wait_end(c->wait);
	if (r == 0 && done->written && (done->unrecorded || c->unwaited))
		r = MOVE_NOT_AS_ASKED;
	return r;
}

/* What time alone may mend: a server that is away, a file that someone is writing, another advance. */
static bool advance_may_pass(int r)
{
	static const int lasting[] = {-EINVAL,	  -ENOENT, -ENOMEM, -EALREADY,
				      -ECANCELED, -EACCES, -EPERM,  -EROFS};
	for (size_t i = 0; i < sizeof(lasting) / sizeof(lasting[0]); i++)
		if (r == lasting[i])
			return false;
	return r < 0 || r == MOVE_NOT_YET;
}

static int command_advance(struct command *c, const struct move_request *q, struct err *e)
{
	char said[PHASE_WHY_MAX] = "";
	struct move_done done;
	for (;;) {
		int r = move_advance(c->place, q, clock_wall_us(), said, sizeof(said), &done, e);
		r = command_after(c, r, &done);
		if (!c->arguments->watch || !advance_may_pass(r))
			return r;
		if (r < 0 && strcmp(e->text, said) != 0) {
			snprintf(said, sizeof(said), "%s", e->text);
			place_say(c->place, MOVE_WARNS, "warning: %s; trying again\n", e->text);
		}
		usleep(WATCH_US);
	}
}

int command_change(struct rollout_place *p, const struct rollout_arguments *a, struct err *e)
{
	struct command c = {.place = p, .arguments = a};
	struct move_request q = a->move;
	struct move_done done;
	q.before = command_before;
	q.before_arg = &c;
	if (strcmp(q.command, "advance") == 0)
		return command_advance(&c, &q, e);
	int r = move_change(p, &q, &done, e);
	return command_after(&c, r, &done);
}
