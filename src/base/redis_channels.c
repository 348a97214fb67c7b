#include "base/redis_channels.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS_MIN 64

/* FNV-1a. Names are made by us from random ids, nobody outside can make them collide. */
static uint64_t redis_channels_hash_of(struct span name)
{
	uint64_t h = 0xcbf29ce484222325u;
	for (size_t i = 0; i < name.len; i++)
		h = (h ^ (unsigned char)name.ptr[i]) * 0x100000001b3u;
	return h;
}

static struct redis_channel **bucket(const struct redis_channels *t, uint64_t hash)
{
	return &t->buckets[hash & (t->n_buckets - 1)];
}

struct redis_channel *redis_channels_find(const struct redis_channels *t, struct span name)
{
	uint64_t h = redis_channels_hash_of(name);
	struct redis_channel *c = t->n_buckets ? *bucket(t, h) : NULL;
	while (c && (c->hash != h || !span_eq((struct span){c->name, c->length}, name)))
		c = c->next;
	return c;
}

static bool redis_channels_grow(struct redis_channels *t)
{
	struct redis_channels bigger = *t;
	bigger.n_buckets = t->n_buckets ? t->n_buckets * 2 : BUCKETS_MIN;
	bigger.buckets = calloc(bigger.n_buckets, sizeof(*bigger.buckets));
	if (!bigger.buckets)
		return t->n_buckets > 0; /* longer chains, then */
	for (size_t i = 0; i < t->n_buckets; i++)
		for (struct redis_channel *c = t->buckets[i], *next; c; c = next) {
			next = c->next;
			c->next = *bucket(&bigger, c->hash);
			*bucket(&bigger, c->hash) = c;
		}
	free(t->buckets);
	*t = bigger;
	return true;
}

struct redis_channel *redis_channels_add(struct redis_channels *t, struct span name)
{
	struct redis_channel *c = redis_channels_find(t, name);
	if (c)
		return c;
	if (t->n >= t->n_buckets && !redis_channels_grow(t))
		return NULL;
	c = calloc(1, sizeof(*c) + name.len + 1);
	if (!c)
		return NULL;
	memcpy(c->name, name.ptr, name.len);
	c->length = name.len;
	c->hash = redis_channels_hash_of(name);
	c->next = *bucket(t, c->hash);
	*bucket(t, c->hash) = c;
	t->n++;
	return c;
}

void redis_channels_remove(struct redis_channels *t, struct redis_channel *c)
{
	struct redis_channel **at = bucket(t, c->hash);
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	t->n--;
	free(c);
}

struct redis_channel *redis_channels_next(const struct redis_channels *t, const struct redis_channel *c)
{
	if (c && c->next)
		return c->next;
	for (size_t i = c ? (c->hash & (t->n_buckets - 1)) + 1 : 0; i < t->n_buckets; i++)
		if (t->buckets[i])
			return t->buckets[i];
	return NULL;
}

void redis_channels_release(struct redis_channels *t)
{
	for (struct redis_channel *c = redis_channels_next(t, NULL), *next; c; c = next) {
		next = redis_channels_next(t, c);
		c->orphan = true;
		if (!c->telling)
			free(c);
	}
	free(t->buckets);
	*t = (struct redis_channels){.n = 0};
}

void redis_channel_join(struct redis_channel *c, struct redis_subscription *s)
{
	s->channel = c;
	LIST_INSERT_HEAD(&c->listeners, s, place);
}

void redis_channel_leave(struct redis_subscription *s)
{
	struct redis_channel *c = s->channel;
	if (c->cursor == s)
		c->cursor = LIST_NEXT(s, place);
	LIST_REMOVE(s, place);
}

bool redis_channel_tell(struct redis_channel *c, const struct span *payload)
{
	c->telling = true;
	c->cursor = LIST_FIRST(&c->listeners);
	while (c->cursor) {
		struct redis_subscription *s = c->cursor;
		c->cursor = LIST_NEXT(s, place);
		if (payload)
			s->listener->message(s->arg, *payload);
		else
			s->listener->ready(s->arg);
	}
	c->telling = false;
	bool there = !c->orphan;
	if (!there)
		free(c);
	return there;
}
