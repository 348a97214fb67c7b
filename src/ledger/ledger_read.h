/*
 * Ledger read: how many entries ledger.db has, by group and backend, for programs other than the router.
 *
 * Why:       before the task side is left, someone must know what it still has.
 * Threads:   any; reads only, with a connection of its own, while a router writes. What the router is just
 *            taking out may still be counted.
 * Errors:    db.h's; -ENOENT no such file, -E2BIG more than `max` groups.
 */
#ifndef LEDGER_LEDGER_READ_H
#define LEDGER_LEDGER_READ_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "ledger/ledger.h"

/* The group that stands for claims of idempotency keys whose task has not ended. */
#define LEDGER_GROUP_CLAIMS "(idempotency)"

struct ledger_group {
	char group[LEDGER_GROUP_MAX], backend[16];
	uint64_t entries;
	int64_t oldest_us, newest_us; /* wall clock */
};

int ledger_read_groups(const char *path, struct ledger_group *ret, size_t max, size_t *ret_n, struct err *e);

#endif
