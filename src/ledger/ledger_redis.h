/*
 * The ledger in a Redis that several routers share (design, "Replicas").
 *
 * Threads:   one of its own, with a loop and one connection: questions and changes of this process are in
 *            order there. Nothing blocks but the start, which waits for the first connection (timeout_ms).
 * Layout:    <prefix>entry:<length of group>:<group>:<key>, a hash of backend, task, version (of the writer)
 *            and at (µs by the server's clock), which expires after LEDGER_TTL_DAYS; <prefix>group:<group>, a
 *            sorted set of its keys by `at`.
 *            <prefix>turn:…, as entry, a hash of side and token: the start of the key that is under way.
 * Fencing:   a put that the server executes after its caller gave up does nothing (it carries its end by the
 *            server's clock), and one that has no answer is followed by a removal. Removals wait, in memory,
 *            until they could be written; a key with one that waits is LEDGER_UNKNOWN.
 * Errors:    what the server says (LOADING, READONLY, OOM, NOAUTH, …), no answer in time, no connection: all
 *            are LEDGER_UNKNOWN, or -EIO.
 */
#ifndef LEDGER_LEDGER_REDIS_H
#define LEDGER_LEDGER_REDIS_H

#include "ledger/ledger.h"

/* -ENOTSUP in a build without hiredis. */
int ledger_redis_start(const struct ledger_options *o, struct ledger **ret, struct err *e);

#endif
