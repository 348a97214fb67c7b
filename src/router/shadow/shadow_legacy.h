/*
 * Legacy calls of shadows: legacy beside the task side that has answered (`shadow: legacy`), or once more
 * beside itself (the noise sample).
 *
 * Why:       what the caller gets does not depend on them, and neither do callers' connections: they take at
 *            most a quarter of those of a plane to a service, and are ended when a caller's call has to wait
 *            for one.
 * Life:      started with the request still there, whose head and body are copied; from then on independent
 *            of it.
 * Threads:   everything on the plane's loop.
 * Limits:    SHADOW_CALLS_MAX per plane, and as above; what is beyond is not started, or ended (PAIRS_BUSY).
 */
#ifndef ROUTER_SHADOW_SHADOW_LEGACY_H
#define ROUTER_SHADOW_SHADOW_LEGACY_H

#include <stdbool.h>

#include "base/span.h"
#include "router/shadow/pairing.h"

#define SHADOW_CALLS_MAX 64

struct plane;
struct service_runtime;

/* One call of the request's operation with this body. Its answer goes to the pairing, of which it takes a
 * reference, or NULL. `recorded`: it leaves an outcome of the role shadow. NULL, or why it was not started;
 * the pairing is told. */
const char *shadow_legacy_start(struct request *r, struct span body, struct pairing *p, enum pairs_slot slot,
				bool recorded);

/* A caller's call waits for a connection: those of this service end. */
void shadow_legacy_make_room(struct plane *p, const struct service_runtime *s);

/* At the plane's end, before its upstreams are freed. */
void shadow_legacy_end_all(struct plane *p);

#endif
