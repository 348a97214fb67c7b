#include "programs/status/drain_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ledger/ledger_read.h"
#include "ledger/ledger_share.h"
#include "router/request/task_owner.h"

#define GROUPS_MAX 1000

struct drain_ledger {
	struct drain_held held[GROUPS_MAX];
	size_t n;
	char error[ERR_TEXT_MAX + 128]; /* "" = it was read */
};

/* ledger.db stands next to the outcomes unless the configuration says otherwise (outcomes: path). */
static char *drain_ledger_path(const struct drain_arguments *a)
{
	const char *slash = strrchr(a->options.path, '/');
	char *path = NULL;
	int n = slash ? (int)(slash - a->options.path) + 1 : 0;
	if (a->ledger)
		return strdup(a->ledger);
	return asprintf(&path, "%.*sledger.db", n, a->options.path) < 0 ? NULL : path;
}

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
static bool drain_wants_group(const struct drain_arguments *a, const char *group)
{
	for (size_t i = 0; i < a->n_groups; i++)
		if (strcmp(a->groups[i], group) == 0)
			return true;
	return a->n_groups == 0;
}

static void drain_read_ledger(const struct drain_arguments *a, struct drain_ledger *ret)
{
	CLEANUP(freep) char *path = drain_ledger_path(a);
	CLEANUP(freep) struct ledger_group *groups = calloc(GROUPS_MAX, sizeof(*groups));
	struct err e = {"out of memory"};
	size_t n = 0;
	int r = path && groups ? ledger_read_groups(path, groups, GROUPS_MAX, &n, &e) : -1;
	if (r < 0)
		snprintf(ret->error, sizeof(ret->error),
			 "what is pinned to the task side cannot be read (--ledger FILE): %s", e.text);
	else if (!ledger_share_in_use(path)) /* a file of before, where state is in a Redis by now */
		snprintf(ret->error, sizeof(ret->error),
			 "no running router uses %.200s: current pins are unknown (state in a Redis, "
			 "or "
			 "--ledger FILE)",
			 path);
	for (size_t i = 0; i < n; i++)
		if (drain_wants_group(a, groups[i].group))
			drain_describe(&groups[i], &ret->held[ret->n++]);
}

int drain_command(const struct drain_arguments *a, struct buf *out)
{
	CLEANUP(freep) struct drain_ledger *ledger = calloc(1, sizeof(*ledger));
	CLEANUP(drain_freep) struct drain *d = NULL;
	struct drain_options o = a->options;
	struct err e = {"out of memory"};
	if (!ledger) {
		fprintf(stderr, "migration-status: out of memory\n");
		return DRAIN_NOT_ENOUGH_DATA;
	}
	if (o.side == OUTCOME_TASK) {
		drain_read_ledger(a, ledger);
		o.held = ledger->held;
		o.n_held = ledger->n;
		o.held_error = *ledger->error ? ledger->error : NULL;
	}
	if (drain_make(&o, &d, &e) < 0) {
		fprintf(stderr, "migration-status: %s\n", e.text);
		return DRAIN_NOT_ENOUGH_DATA;
	}
	if (a->json)
		drain_to_json(d, out);
	else
		drain_to_text(d, a->columns, out);
	return (int)d->verdict;
}
