/*
 * Path pattern: what is remembered of the path of an unmapped call (design, "Drain"). Pure.
 *
 * Why:       "what else is called?" needs the endpoint, and not whose: a path may name a user, an
 *            organization or a document, and their number has no bound.
 * Kept:      words of letters, v1, and files with a usual extension. Everything else is PATH_PATTERN_ID: what
 *            has digits, is long, escaped or unusual, and what follows a plural or a word for someone or
 *            something that has a name (users/alice, org/acme). The query is dropped.
 * Not seen:  a name that looks like an endpoint (/alice/settings). Where many occur at one place, the table
 *            folds them (unmapped.h).
 */
#ifndef OUTCOMES_PATH_PATTERN_H
#define OUTCOMES_PATH_PATTERN_H

#include "base/span.h"

#define PATH_PATTERN_MAX 96   /* bytes with NUL */
#define PATH_PATTERN_METHOD 8 /* the same of a method */
#define PATH_PATTERN_ID "{id}"
#define PATH_PATTERN_MORE "/..." /* of more segments or bytes than are kept */

/* `target` as in the request line: with or without scheme, authority and query. */
void path_pattern(struct span target, char out[PATH_PATTERN_MAX]);
/* One of RFC 9110's and PATCH, else "(other)". */
void path_pattern_method(struct span method, char out[PATH_PATTERN_METHOD]);

#endif
