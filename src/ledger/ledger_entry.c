#include <errno.h>
#include <string.h>

#include "ledger/ledger.h"

int ledger_entry_set(struct ledger_entry *entry, struct span group, struct span key)
{
	if (group.len >= LEDGER_GROUP_MAX || key.len >= LEDGER_KEY_MAX ||
	    memchr(key.ptr ? key.ptr : "", '\0', key.len))
		return -ENAMETOOLONG;
	span_copy(group, entry->group, sizeof(entry->group));
	span_copy(key, entry->key, sizeof(entry->key));
	return 0;
}
