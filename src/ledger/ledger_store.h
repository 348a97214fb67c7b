/*
 * What a store of the ledger is: the file (ledger_file.h), or a Redis that several routers share
 * (ledger_redis.h). Private to src/ledger.
 */
#ifndef LEDGER_LEDGER_STORE_H
#define LEDGER_LEDGER_STORE_H

#include "ledger/ledger.h"

/* Each as the public function of its name. */
struct ledger_verbs {
	struct ledger *(*stop)(struct ledger *l);
	void (*ask)(struct ledger *l, struct loop *loop, struct span group, struct span key,
		    ledger_told_fn fn, void *arg);
	void (*put)(struct ledger *l, struct loop *loop, const struct ledger_entry *entry, const char *turn,
		    ledger_done_fn fn, void *arg);
	void (*remove)(struct ledger *l, struct loop *loop, const struct ledger_entry *entry,
		       ledger_done_fn fn, void *arg);
	void (*take)(struct ledger *l, struct loop *loop, const struct ledger_entry *key, const char *turn,
		     ledger_done_fn fn, void *arg);
	void (*leave)(struct ledger *l, const struct ledger_entry *key, const char *turn);
	int (*share)(struct ledger *l, struct err *e);
	void (*unshare)(struct ledger *l);
	void (*status)(struct ledger *l, struct ledger_status *ret);
};

struct ledger { /* the first member of each store */
	const struct ledger_verbs *verbs;
};

#endif
