#include "ledger/ledger.h"

#include "ledger/ledger_file.h"
#include "ledger/ledger_redis.h"
#include "ledger/ledger_store.h"

int ledger_start(const struct ledger_options *o, struct ledger **ret, struct err *e)
{
	return o->redis ? ledger_redis_start(o, ret, e) : ledger_file_start(o->file, ret, e);
}

struct ledger *ledger_stop(struct ledger *l)
{
	return l ? l->verbs->stop(l) : NULL;
}

void ledger_ask(struct ledger *l, struct loop *loop, struct span group, struct span key, ledger_told_fn fn,
		void *arg)
{
	l->verbs->ask(l, loop, group, key, fn, arg);
}

void ledger_put(struct ledger *l, struct loop *loop, const struct ledger_entry *entry, const char *turn,
		ledger_done_fn fn, void *arg)
{
	l->verbs->put(l, loop, entry, turn, fn, arg);
}

void ledger_take(struct ledger *l, struct loop *loop, const struct ledger_entry *key, const char *turn,
		 ledger_done_fn fn, void *arg)
{
	l->verbs->take(l, loop, key, turn, fn, arg);
}

void ledger_leave(struct ledger *l, const struct ledger_entry *key, const char *turn)
{
	l->verbs->leave(l, key, turn);
}

void ledger_remove(struct ledger *l, struct loop *loop, const struct ledger_entry *entry, ledger_done_fn fn,
		   void *arg)
{
	l->verbs->remove(l, loop, entry, fn, arg);
}

int ledger_share(struct ledger *l, struct err *e)
{
	return l->verbs->share(l, e);
}

void ledger_unshare(struct ledger *l)
{
	l->verbs->unshare(l);
}

void ledger_status(struct ledger *l, struct ledger_status *ret)
{
	l->verbs->status(l, ret);
}
