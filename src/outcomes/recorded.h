/*
 * Recorded identities: who made requests of which operation, and how many, as far as outcomes.db reaches
 * back.
 *
 * Why:       what a change would do is asked of those who really come.
 * Threads:   one; reads only, beside a router that writes.
 */
#ifndef OUTCOMES_RECORDED_H
#define OUTCOMES_RECORDED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

#define RECORDED_MAX 2000000 /* combinations that are read; more are left out */

struct recorded {
	struct span service, operation;
	struct span user, organization; /* SPAN_NONE: the request had none */
	int64_t requests;
};

/* Whether a recorded id is a pseudonym (outcomes.hash_users), or may have been cut: then it is not the id
 * that was hashed. */
bool recorded_user_is_pseudonym(struct span user);
bool recorded_may_be_cut(struct span id);

/* Once for each combination of organization, user and operation among the `newest` attempts (0: all that are
 * kept). `fn` returns 0 to continue, <0 to end with that. -ENOENT when nothing was ever recorded. 1 when
 * there were more than RECORDED_MAX. */
int recorded_each(const char *path, int64_t newest, int (*fn)(void *arg, const struct recorded *r), void *arg,
		  struct err *e);

/* What was decided for them: once for each combination of the above with a side, backend and reason, of the
 * primary attempts that began in the span (0: open). *ret_first_us: when the first attempt that is kept
 * began, 0 if there is none: of the time before it nothing can be said. Returns as recorded_each. */
struct recorded_decision {
	struct recorded who;
	int side, reason; /* enumerations of outcome.h; reason: REASON_OTHER where it is another version's */
	struct span backend;
};
int recorded_each_decision(const char *path, int64_t since_us, int64_t until_us, int64_t *ret_first_us,
			   int (*fn)(void *arg, const struct recorded_decision *d), void *arg, struct err *e);

#endif
