/*
 * Claims in a Redis that several routers share: as claims.h, and so each its functions.
 *
 * Layout:    <prefix>claim:<key>, a hash that expires with `keep`; <prefix>claims, <prefix>claims:strangers
 *            and <prefix>claims:scope:<scope>, sorted sets of keys by their end, for the limits.
 * Fencing:   a claim that the server would take after its caller gave up is not taken; one of which there was
 *            no answer is released, as soon as that can be written.
 * Limits:    of the claims' number as the file's. Bytes of answers are the server's to limit (maxmemory):
 *            what it does not take is not kept.
 */
#ifndef LEDGER_CLAIMS_REDIS_H
#define LEDGER_CLAIMS_REDIS_H

#include "ledger/claims.h"
#include "ledger/ledger.h"

struct claims_redis;

/* -ENOTSUP in a build without hiredis. */
int claims_redis_start(const struct ledger_options *o, struct claims_redis **ret, struct err *e);
void claims_redis_stop(struct claims_redis *c);

void claims_redis_take(struct claims_redis *c, struct loop *loop, const struct claim *want,
		       unsigned max_of_scope, claim_fn fn, void *arg);
void claims_redis_look(struct claims_redis *c, struct loop *loop, const struct claim *want, claim_fn fn,
		       void *arg);
void claims_redis_move(struct claims_redis *c, struct loop *loop, const char owner[CRYPTO_ID_HEX],
		       const struct claim *to, claim_fn fn, void *arg);
void claims_redis_note(struct claims_redis *c, const struct claim *to);
void claims_redis_answer(struct claims_redis *c, const struct claim *of, bool keeps, int status,
			 struct span fields, struct span body);
void claims_redis_release(struct claims_redis *c, const struct claim *of);
void claims_redis_status(struct claims_redis *c, struct claims_status *ret);

#endif
