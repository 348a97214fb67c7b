/*
 * Addresses: where the host of an origin is, as last looked up.
 *
 * Why:       a kept answer saves a lookup per connection; one kept for too long sends everybody where nobody
 *            is any more. What is older than ADDRESSES_FRESH_MS is used while it is looked up again; what is
 *            older than ADDRESSES_MAX_MS only when the name cannot be looked up. Whoever finds nobody at any
 *            of them asks again at once.
 * Threads:   one loop.
 */
#ifndef LEGACY_ADDRESSES_H
#define LEGACY_ADDRESSES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/lookup.h"
#include "legacy/link.h"

#define ADDRESSES_FRESH_MS 5000
#define ADDRESSES_MAX_MS 60000

struct addresses;

/* Waits for a lookup's end. */
struct addresses_waiter {
	struct link link;					   /* leaves by link_remove, at any time */
	void (*told)(struct addresses_waiter *w, const char *why); /* why: NULL when it succeeded */
};

/* `host`: a name, which must outlive it. NULL: no memory. */
struct addresses *addresses_new(struct loop *loop, const char *host);
struct addresses *addresses_free(struct addresses *a); /* nobody waits any more */

/* Whether there are any to begin with; starts a lookup in the background when they have aged. */
bool addresses_ready(struct addresses *a);
/* Waits for the lookup in progress, or for a new one. Never called from within. -ENOMEM, -EAGAIN. */
int addresses_ask(struct addresses *a, struct addresses_waiter *w);
size_t addresses_count(const struct addresses *a);
/* The i-th to try: the one that answered last comes first. */
const char *addresses_at(const struct addresses *a, size_t i);
void addresses_prefer(struct addresses *a, const char *address);

#endif
