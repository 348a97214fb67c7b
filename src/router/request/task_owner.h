/*
 * Task owner: who may ask for a task's result by its id later (Prefer: respond-async).
 *
 * Why:       a task id in a URL must not be a key to somebody else's data: only the same credentials and the
 *            same organization find it; for anyone else it does not exist. The ledger remembers, so that this
 *            holds on every backend and after a restart.
 */
#ifndef ROUTER_REQUEST_TASK_OWNER_H
#define ROUTER_REQUEST_TASK_OWNER_H

#include "base/span.h"
#include "ledger/ledger.h"

#define TASK_OWNER_GROUP "(async)"

/* The ledger's entry for one task of one owner (auth_owner). */
void task_owner_entry(struct span task_id, const char *owner, struct span backend, struct ledger_entry *ret);
enum ledger_answer task_owner_find(struct ledger *l, struct span task_id, const char *owner,
				   struct ledger_entry *ret);

#endif
