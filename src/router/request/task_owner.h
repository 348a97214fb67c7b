/*
 * Task owner: who may ask for a task's result by its id later (Prefer: respond-async).
 *
 * Why:       a task id in a URL must not be a key to someone else's data: only the same credentials and the
 *            same organization find it; for anyone else it does not exist. The ledger remembers, so that this
 *            holds on every backend and after a restart.
 */
#ifndef ROUTER_REQUEST_TASK_OWNER_H
#define ROUTER_REQUEST_TASK_OWNER_H

#include <stdbool.h>

#include "base/span.h"
#include "ledger/ledger.h"

#define TASK_OWNER_GROUP "(async)"

/* The ledger's entry for one task of one owner (auth_owner). Its id is in the key; where entries of pins have
 * it stands the name that the operation gives the task, as much as there is room for, since not every backend
 * tells it. Older routers put the id there and never looked at it. */
void task_owner_entry(struct span task_id, struct span task_name, const char *owner, struct span backend,
		      struct ledger_entry *ret);
/* By which the ledger is asked for it, in TASK_OWNER_GROUP. */
struct span task_owner_key(struct span task_id, const char *owner, char out[LEDGER_KEY_MAX]);
/* Whether the entry may be that of a task of this name: all of what it has of a name agrees. */
bool task_owner_may_name(const struct ledger_entry *entry, struct span task_name);
/* The whole name, or SPAN_NONE if there is none (a router of before) or it was cut. Borrows. */
struct span task_owner_name(const struct ledger_entry *entry, struct span task_id);

#endif
