/*
 * Ledger read: how many entries a ledger has, by group and backend, for whoever only looks.
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

/* The group that stands for keys of another type in an entry's or a claim's place. */
#define LEDGER_GROUP_UNUSABLE "(unusable keys)"

#define LEDGER_STORE_MAX 24 /* with NUL */

struct ledger_group {
	char group[LEDGER_GROUP_MAX], backend[16];
	uint64_t entries;
	int64_t oldest_us, newest_us; /* wall clock */
};

int ledger_read_groups(const char *path, struct ledger_group *ret, size_t max, size_t *ret_n, struct err *e);

/* The same of a Redis that replicas share. `store` tells one memory of a server from another, "" when nobody
 * has used it yet. Blocks for ten seconds at most (-ETIMEDOUT: that many keys), on a connection of its own.
 * While the server changes the size of its table a key may be counted twice. -EIO: it cannot be told. */
int ledger_read_redis(const char *url, const char *prefix, unsigned timeout_ms, struct ledger_group *ret,
		      size_t max, size_t *ret_n, char store[LEDGER_STORE_MAX], struct err *e);

#endif
