/* In place of what needs a Redis in a build without hiredis, whose configuration refuses a
 * Redis. */
#include <errno.h>

#include "ledger/claims_redis.h"
#include "ledger/ledger_read.h"
#include "ledger/ledger_redis.h"

int ledger_redis_start(const struct ledger_options *o, struct ledger **ret, struct err *e)
{
	(void)o;
	(void)ret;
	return err_set(e, -ENOTSUP, "this build has no Redis client (hiredis)");
}

int ledger_read_redis(const char *url, const char *prefix, unsigned timeout_ms, struct ledger_group *ret,
		      size_t max, size_t *ret_n, char store[LEDGER_STORE_MAX], struct err *e)
{
	(void)url, (void)prefix, (void)timeout_ms, (void)ret, (void)max, (void)ret_n, (void)store;
	return err_set(e, -ENOTSUP, "this build has no Redis client (hiredis)");
}

int claims_redis_start(const struct ledger_options *o, struct claims_redis **ret, struct err *e)
{
	(void)o;
	(void)ret;
	return err_set(e, -ENOTSUP, "this build has no Redis client (hiredis)");
}

void claims_redis_stop(struct claims_redis *c)
{
	(void)c;
}

void claims_redis_take(struct claims_redis *c, struct loop *loop, const struct claim *want,
		       unsigned max_of_scope, claim_fn fn, void *arg)
{
	(void)c, (void)loop, (void)want, (void)max_of_scope, (void)fn, (void)arg;
}

void claims_redis_look(struct claims_redis *c, struct loop *loop, const struct claim *want, claim_fn fn,
		       void *arg)
{
	(void)c, (void)loop, (void)want, (void)fn, (void)arg;
}

void claims_redis_move(struct claims_redis *c, struct loop *loop, const char owner[CRYPTO_ID_HEX],
		       const struct claim *to, claim_fn fn, void *arg)
{
	(void)c, (void)loop, (void)owner, (void)to, (void)fn, (void)arg;
}

void claims_redis_note(struct claims_redis *c, const struct claim *to)
{
	(void)c, (void)to;
}

void claims_redis_answer(struct claims_redis *c, const struct claim *of, bool keeps, int status,
			 struct span fields, struct span body)
{
	(void)c, (void)of, (void)keeps, (void)status, (void)fields, (void)body;
}

void claims_redis_release(struct claims_redis *c, const struct claim *of)
{
	(void)c, (void)of;
}

void claims_redis_status(struct claims_redis *c, struct claims_status *ret)
{
	(void)c, (void)ret;
}
