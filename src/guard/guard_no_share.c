/* In place of guard_share.c in a build without hiredis, whose configuration refuses a Redis. */
#include <errno.h>
#include <stddef.h>

#include "guard/guard_share.h"

int guard_share_start(const struct guard_share_options *o, struct guard_share **ret, struct err *e)
{
	(void)o;
	(void)ret;
	return err_set(e, -ENOTSUP, "this build has no Redis client (hiredis)");
}

struct guard_share *guard_share_stop(struct guard_share *s)
{
	(void)s;
	return NULL;
}

bool guard_share_works(struct guard_share *s)
{
	(void)s;
	return false;
}

struct span guard_share_key(struct guard_share *s, char room[CRYPTO_SHA256_HEX])
{
	(void)s, (void)room;
	return SPAN_NONE;
}

void guard_share_trouble(struct guard_share *s, char ret[256])
{
	(void)s;
	ret[0] = '\0';
}

int guard_share_follow(struct guard_share *s, const char *name, struct guard_share_slot **ret)
{
	(void)s, (void)name, (void)ret;
	return -ENOTSUP;
}

struct guard_share_slot *guard_share_unfollow(struct guard_share_slot *slot)
{
	(void)slot;
	return NULL;
}

bool guard_share_wants(struct guard_share_slot *slot)
{
	(void)slot;
	return false;
}

bool guard_share_asking(struct guard_share_slot *slot)
{
	(void)slot;
	return false;
}

int guard_share_ask(struct guard_share_slot *slot, const struct guard_share_question *q)
{
	(void)slot, (void)q;
	return -ENOTSUP;
}

struct guard_share_answer *guard_share_take(struct guard_share_slot *slot)
{
	(void)slot;
	return NULL;
}
