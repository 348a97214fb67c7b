/*
 * Guard holds: the operations whose task side is held at legacy, since the guard found it worse.
 *
 * Why:       decide() stays a pure function of what it is handed (docs/design.md, "The guard").
 * Shape:     made by the control thread when a verdict changes, then immutable; planes hold references.
 * Ownership: texts are copied. Reference counted.
 * Threads:   any, once shared; put only by who made it, before.
 */
#ifndef ROUTER_GUARD_HOLDS_H
#define ROUTER_GUARD_HOLDS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

struct guard_holds;

struct guard_hold {
	char service[32], operation[64];
	/* outcomes.db has not been read: whether it is held is not known. Then only what a percentage decided
	 * is held: without one legacy may be gone (design, "The guard", 7) */
	bool unknown;
	double keeps; /* the share of the task side that was safe last and goes on; 0: none */
};

struct guard_holds *guard_holds_new(void); /* empty. NULL: no memory */
const struct guard_holds *guard_holds_ref(const struct guard_holds *h);
const struct guard_holds *guard_holds_unref(const struct guard_holds *h);  /* NULL is fine; returns NULL */
int guard_holds_put(struct guard_holds *h, const struct guard_hold *hold); /* -ENOMEM */
/* NULL: it is not held. `h` may be NULL, which is empty. Good as long as the reference. */
const struct guard_hold *guard_holds_find(const struct guard_holds *h, struct span service,
					  struct span operation);
bool guard_holds_equal(const struct guard_holds *a, const struct guard_holds *b); /* NULL is empty */
size_t guard_holds_count(const struct guard_holds *h);
const struct guard_hold *guard_holds_at(const struct guard_holds *h, size_t i);

#endif
