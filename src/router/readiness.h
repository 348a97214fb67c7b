/*
 * Readiness: the calls that a backend is known not to run, as the last checks found it.
 *
 * Why:       a task whose backend is unreachable, has no worker or does not know it keeps its caller waiting
 *            until the time limit, and may run long after the caller was answered. What is known before a
 *            submission decides before it (docs/design.md, reason `backend_not_ready`). Only a definite no
 *            counts: what a backend cannot tell does not.
 * Shape:     made by the control thread after a round of checks, then immutable; planes hold references and
 *            hand it to decide.
 * Ownership: texts are copied. Reference counted.
 * Threads:   any, once shared; put only by who made it, before.
 */
#ifndef ROUTER_READINESS_H
#define ROUTER_READINESS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

struct readiness;

struct readiness *readiness_new(void); /* empty: everything may be submitted. NULL: no memory */
const struct readiness *readiness_ref(const struct readiness *r);
const struct readiness *readiness_unref(const struct readiness *r); /* NULL is allowed; returns NULL */

/* This operation's task would not be run on that backend. `why`: a sentence for operators, cut to its
 * room. -ENOMEM. */
int readiness_put(struct readiness *r, struct span service, struct span operation, struct span backend,
		  struct span why);
/* The sentence, or NULL: nothing is known against it. `r` may be NULL. Good as long as the reference. */
const char *readiness_against(const struct readiness *r, struct span service, struct span operation,
			      struct span backend);
/* The same entries with the same sentences: those are reported, too. Either may be NULL, which is empty. */
bool readiness_equal(const struct readiness *a, const struct readiness *b);

/* How many operations of this backend, and the sentence of the first (untouched when there is none). */
size_t readiness_count_of(const struct readiness *r, struct span backend, const char **ret_why);
size_t readiness_count(const struct readiness *r); /* NULL: 0 */
struct readiness_entry {
	char service[32], operation[64], backend[16];
	char why[256];
};
const struct readiness_entry *readiness_at(const struct readiness *r, size_t i);

#endif
