/*
 * How many requests each organization has in flight at a service (limits.max_in_flight_per_organization).
 *
 * Why:       one organization's burst must not take the places of all others. Each is counted by itself,
 *            never together with one that shares a slot by chance.
 * Limits:    an organization is there while it has a request in flight: no more than there are of those.
 * Threads:   any; a place belongs to one thread. A short lock of one of ORGANIZATION_SHARDS, once when a
 *            request comes and once when it goes, and none where no limit is configured.
 */
#ifndef ROUTER_REQUEST_ORGANIZATIONS_H
#define ROUTER_REQUEST_ORGANIZATIONS_H

#include "base/span.h"

#define ORGANIZATION_SHARDS 64

struct organizations;
struct organization_place;

int organizations_new(struct organizations **ret);		   /* -ENOMEM */
struct organizations *organizations_free(struct organizations *o); /* NULL is allowed; returns NULL */

/* 0, and a place where memory allows (else NULL, uncounted); -EBUSY: it has `max` in flight. */
int organization_take(struct organizations *o, struct span service, struct span organization, unsigned max,
		      struct organization_place **ret);
void organization_give(struct organizations *o, struct organization_place *place); /* NULL is allowed */

#endif
