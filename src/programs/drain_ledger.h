/*
 * What the ledger has of the task side, as drain tells it: for migration-status and for the router itself.
 */
#ifndef PROGRAMS_DRAIN_LEDGER_H
#define PROGRAMS_DRAIN_LEDGER_H

#include "ledger/ledger_read.h"
#include "outcomes/drain/drain.h"

#define DRAIN_LEDGER_GROUPS_MAX 1000

struct drain_ledger {
	struct drain_held held[DRAIN_LEDGER_GROUPS_MAX];
	size_t n;
	char store[LEDGER_STORE_MAX];
	char error[ERR_TEXT_MAX + 256]; /* "" = it was read */
};

/* *ret is zeroed before. `groups`: those that count; none: all. */
void drain_ledger_read(const char *path, const char *const *groups, size_t n_groups,
		       struct drain_ledger *ret);
/* … of the Redis that replicas share; blocks, as ledger_read_redis does */
void drain_ledger_read_redis(const char *url, const char *prefix, unsigned timeout_ms,
			     struct drain_ledger *ret);
void drain_ledger_into(const struct drain_ledger *l, struct drain_options *o); /* borrows it */

#endif
