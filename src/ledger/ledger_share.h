/*
 * Ledger share: what processes that use one ledger.db at the same time (a takeover, a router that still
 * drains) tell each other outside of it: who is there, and which keys are being taken out.
 *
 * Why:       an entry is in the file before its caller knows, but a removal reaches the file only soon
 *            after. Until then the file still shows the entry to the others, which must not believe it.
 * Shape:     <ledger.db>-pending, mode 0600, mapped by all: counters of removals in progress, by a hash of
 *            the key. A collision costs one "unknown", never a wrong side. Presence is a read lock on it,
 *            which ends with its process, however that ends.
 * Threads:   the caller's lock is held for marks; ledger_share_alone and ledger_share_moved: any.
 * Errors:    -errno with a sentence.
 */
#ifndef LEDGER_LEDGER_SHARE_H
#define LEDGER_LEDGER_SHARE_H

#include <stdbool.h>

#include "base/err.h"
#include "base/span.h"

struct ledger_share;

int ledger_share_open(const char *ledger, struct ledger_share **ret, struct err *e);
struct ledger_share *ledger_share_close(struct ledger_share *s); /* NULL is allowed */

/* Whether some process uses this ledger's file now; also false if that is unknown. */
bool ledger_share_in_use(const char *ledger);

/* No other process has it open. False if that is unknown. */
bool ledger_share_alone(const struct ledger_share *s);
/* Another file, or none, is at its path: a process that starts now would not be seen. */
bool ledger_share_moved(const struct ledger_share *s);

/* A removal of this process begins, and is in the file. */
void ledger_share_mark(struct ledger_share *s, struct span group, struct span key);
void ledger_share_unmark(struct ledger_share *s, struct span group, struct span key);
/* Whether this process, or another one, takes out a key like this one at present. */
bool ledger_share_own(const struct ledger_share *s, struct span group, struct span key);
bool ledger_share_others(const struct ledger_share *s, struct span group, struct span key);
/* Removes what killed processes have left behind; only while alone. */
void ledger_share_reset(struct ledger_share *s);

#endif
