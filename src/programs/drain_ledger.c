#include "programs/drain_ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ledger/ledger_share.h"
#include "router/request/task_owner.h"

static void drain_describe(const struct ledger_group *g, struct drain_held *ret)
{
	*ret = (struct drain_held){.count = g->entries, .oldest_us = g->oldest_us, .newest_us = g->newest_us};
	memcpy(ret->backend, g->backend, sizeof(ret->backend));
	if (strcmp(g->group, TASK_OWNER_GROUP) == 0)
		snprintf(ret->what, sizeof(ret->what), "tasks answered with 202, running or to be asked for");
	else if (strcmp(g->group, LEDGER_GROUP_CLAIMS) == 0)
		snprintf(ret->what, sizeof(ret->what),
			 "calls with an Idempotency-Key whose task has not ended");
	else if (g->group[0] == '(')
		snprintf(ret->what, sizeof(ret->what), "entries of %s", g->group);
	else
		snprintf(ret->what, sizeof(ret->what), "pins of group %s", g->group);
}

/* The ledger does not know whose groups are. */
static bool drain_wants_group(const char *const *groups, size_t n, const char *group)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(groups[i], group) == 0)
			return true;
	return n == 0;
}

void drain_ledger_read(const char *path, const char *const *wanted, size_t n_wanted, struct drain_ledger *ret)
{
	CLEANUP(freep) struct ledger_group *groups = calloc(DRAIN_LEDGER_GROUPS_MAX, sizeof(*groups));
	struct err e = {"out of memory"};
	size_t n = 0;
	int r = path && groups ? ledger_read_groups(path, groups, DRAIN_LEDGER_GROUPS_MAX, &n, &e) : -1;
	if (r < 0)
		snprintf(ret->error, sizeof(ret->error),
			 "what is pinned to the task side cannot be read (--ledger FILE): %s", e.text);
	else if (!ledger_share_in_use(path)) /* a file of before, where state is in a Redis by now */
		snprintf(ret->error, sizeof(ret->error),
			 "no running router uses %.200s: current pins are unknown (state in a Redis: ask a "
			 "router, "
			 "--router URL; else --ledger FILE)",
			 path);
	for (size_t i = 0; i < n; i++)
		if (drain_wants_group(wanted, n_wanted, groups[i].group))
			drain_describe(&groups[i], &ret->held[ret->n++]);
}

void drain_ledger_read_redis(const char *url, const char *prefix, unsigned timeout_ms,
			     struct drain_ledger *ret)
{
	CLEANUP(freep) struct ledger_group *groups = calloc(DRAIN_LEDGER_GROUPS_MAX, sizeof(*groups));
	struct err e = {"out of memory"};
	size_t n = 0;
	if (!groups || ledger_read_redis(url, prefix, timeout_ms, groups, DRAIN_LEDGER_GROUPS_MAX, &n,
					 ret->store, &e) < 0)
		snprintf(ret->error, sizeof(ret->error), "what is pinned to the task side cannot be read: %s",
			 e.text);
	for (size_t i = 0; i < n; i++)
		drain_describe(&groups[i], &ret->held[ret->n++]);
}

void drain_ledger_into(const struct drain_ledger *l, struct drain_options *o)
{
	o->held = l->held;
	o->n_held = l->n;
	o->held_store = l->store;
	o->held_error = *l->error ? l->error : NULL;
}
