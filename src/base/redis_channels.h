/*
 * Channels of one subscribing connection: who listens to which, and what the server has confirmed. Private to
 * base/redis.
 *
 * Why:       waiting for a thousand results at once means a thousand channels on one connection, many of them
 *            for a moment only.
 * Ownership: the table owns its channels, a channel is there as long as it has subscriptions or confirmations
 *            in progress; a subscription belongs to who made it.
 * Threads:   the loop's own. Subscriptions may be removed from within a delivery, all of them.
 */
#ifndef BASE_REDIS_CHANNELS_H
#define BASE_REDIS_CHANNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/redis.h"

struct redis_channel {
	struct redis_channel *next; /* in its bucket */
	struct redis_channel *next_parked;
	LIST_HEAD(, redis_subscription) listeners;
	struct redis_subscription *cursor; /* the next one to be notified, while notifying */
	uint64_t hash;
	unsigned unconfirmed; /* SUBSCRIBE commands on their way */
	bool on_wire;	      /* subscribed, as far as what was sent goes */
	bool confirmed, telling;
	bool parked; /* in the connection's list of those nobody listens to any more, or did for a moment */
	bool orphan; /* its table went while it was telling */
	size_t length;
	char name[];
};

struct redis_subscription {
	struct redis *owner;
	struct redis_channel *channel;
	LIST_ENTRY(redis_subscription) place;
	const struct redis_listener *listener;
	void *arg;
	struct loop_work work; /* joined a confirmed channel: to be notified */
};

struct redis_channels {
	struct redis_channel **buckets;
	size_t n_buckets; /* a power of two, or 0 */
	size_t n;
};

struct redis_channel *redis_channels_find(const struct redis_channels *t, struct span name);
/* finds or makes; NULL: no memory */
struct redis_channel *redis_channels_add(struct redis_channels *t, struct span name);
void redis_channels_remove(struct redis_channels *t, struct redis_channel *c);
/* The first channel, or the one after `c`, in no order; NULL at the end. Removing `c` itself is allowed
 * after asking for the next. */
struct redis_channel *redis_channels_next(const struct redis_channels *t, const struct redis_channel *c);
void redis_channels_release(struct redis_channels *t);

void redis_channel_join(struct redis_channel *c, struct redis_subscription *s);
void redis_channel_leave(struct redis_subscription *s);
/* Tells each subscription; with a NULL payload that it is ready. The channel is not removed meanwhile
 * (telling). false: the table was released by a callback, and the channel is gone. */
bool redis_channel_tell(struct redis_channel *c, const struct span *payload);

#endif
