/* In place of ledger_redis.c in a build without hiredis. */
#include <errno.h>

#include "ledger/ledger_redis.h"

int ledger_redis_start(const struct ledger_options *o, struct ledger **ret, struct err *e)
{
	(void)o;
	(void)ret;
	return err_set(e, -ENOTSUP, "this build has no Redis client (hiredis)");
}
