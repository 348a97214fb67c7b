/*
 * Shadow: a copy of a request that runs on the task side alongside the legacy side, which serves as if it
 *         were
 * not there.
 *
 * Why:       a migration is rehearsed under real traffic before any caller depends on it. The attempt leaves
 *            an outcome of the role `shadow`; nothing of it reaches the caller, and it never pins, never
 *            falls back and never counts into a success rate. What its task does is done all the same: only
 *            operations that are declared safe_to_shadow are shadowed.
 * Life:      begun when the legacy side starts, with a bounded copy of the body as it passes (when the task
 *            needs it); submitted once legacy has the whole request, from then on independent of it; ended by
 *            the result or the operation's time limit. A request that ends before legacy has all of it takes
 *            its shadow along.
 * Threads:   everything on the plane's loop.
 * Limits:    SHADOW_MAX in flight per plane; a body of max_inspect_body, and all shadows together half of the
 *            common budget for bodies, so that decisions never starve. What is beyond is dropped and counted
 *            (migration_shadow_dropped_total), and so is what cannot become a task: credentials that the task
 *            side would refuse, a body that is not JSON, no memory.
 */
#ifndef ROUTER_SHADOW_SHADOW_H
#define ROUTER_SHADOW_SHADOW_H

#include <stdbool.h>
#include <stddef.h>

#include "base/http_message.h"
#include "base/span.h"

#define SHADOW_MAX 256

struct plane;
struct request;

/* Whether a request belongs to the share (0..1) that is shadowed. By the entity id, and so the same for it on
 * every replica and at a growing share (rule 2): crc32("shadow/<operation>/<id>") / 2^32 < share. A request
 * without one is sampled by its request id. */
bool shadow_sampled(double share, struct span operation, struct span entity, struct span request_id);

/* The legacy side starts: begins a shadow where the decision says so. */
void shadow_begin(struct request *r);
/* These bytes of the body have been handed to legacy. */
void shadow_body(struct request *r, const char *bytes, size_t n);
/* Legacy has the whole request (a body that was held for the decision is still there): the shadow goes its
 * own way. */
void shadow_submit(struct request *r);
/* The request has ended; a shadow that was not submitted by then is dropped. */
void shadow_abandon(struct request *r);

/* The task side has answered with these: begins legacy beside it where the operation says so
 * (`shadow: legacy`). Legacy runs it after the answer has gone, so that nothing of the caller's depends on
 * it and nothing can run twice by a fallback. */
void shadow_beside_task(struct request *r, const struct http_field *fields, size_t n, struct span body);

/* At the plane's end, before its task clients are freed: what runs is recorded as cancelled (its task
 * continues). */
void shadow_end_all(struct plane *p);
/* After that: frees the ones whose callbacks will not come any more. */
void shadow_free_all(struct plane *p);

#endif
