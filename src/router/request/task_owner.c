#include "router/request/task_owner.h"

#include <stdio.h>
#include <string.h>

/* Ids and owners are hex or UUIDs, so that the blank between them keeps them apart, and both always fit. */
struct span task_owner_key(struct span task_id, const char *owner, char out[LEDGER_KEY_MAX])
{
	snprintf(out, LEDGER_KEY_MAX, "%.*s %s", SPAN_ARG(task_id), owner);
	return span_of(out);
}

void task_owner_entry(struct span task_id, struct span task_name, const char *owner, struct span backend,
		      struct ledger_entry *ret)
{
	char key[LEDGER_KEY_MAX];
	*ret = (struct ledger_entry){0};
	ledger_entry_set(ret, SPAN_LIT(TASK_OWNER_GROUP), task_owner_key(task_id, owner, key));
	span_copy(backend, ret->backend, sizeof(ret->backend));
	span_copy(task_name, ret->task_id, sizeof(ret->task_id));
}

bool task_owner_may_name(const struct ledger_entry *entry, struct span task_name)
{
	struct ledger_entry cut;
	span_copy(task_name, cut.task_id, sizeof(cut.task_id));
	return strcmp(entry->task_id, cut.task_id) == 0;
}

struct span task_owner_name(const struct ledger_entry *entry, struct span task_id)
{
	struct span name = span_of(entry->task_id);
	/* One that was cut may be shorter by a part of a character. */
	bool whole = name.len && name.len + 4 < sizeof(entry->task_id) && !span_eq(name, task_id);
	return whole ? name : SPAN_NONE;
}
