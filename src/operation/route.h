/*
 * Route table: which operation of a service a request belongs to.
 *
 * Why:       matching stays pure, so that a decision can be replayed; and it is never lenient: a target that
 *            is unusual in any way matches nothing, goes to legacy unchanged and is recorded as (unmapped),
 *            never as a wrong operation.
 * Ownership: the table borrows its operations; a match borrows from them and from the target it was made of.
 * Threads:   immutable after new; any thread may match. A match allocates nothing.
 * Errors:    -EEXIST two operations that match the same requests, -EINVAL a bad template; both with a
 *            sentence.
 * Limits:    ROUTE_MAX_PARAMETERS per template, ROUTE_MAX_SEGMENTS segments.
 *
 * What matches: the method, exactly (methods are case-sensitive; HEAD does not match GET), and the target's
 * path, which is everything before the first '?'. It is compared segment by segment, case-sensitively. An
 * escape of an unreserved character (RFC 3986 §2.3: %61) is that character; any other escape stands only for
 * itself. A parameter {name} matches one whole segment, not empty.
 * What is unusual and matches nothing: targets that are not origin-form (http://…, *, host:port), '#',
 * control characters or blanks, empty segments (//) and a trailing slash unless the template has it, "." and
 * ".." (also escaped), broken escapes, and %2F or %00 anywhere.
 * Which one wins: reading segments from the left, text before a parameter. The order in the file does not
 * matter.
 */
#ifndef OPERATION_ROUTE_H
#define OPERATION_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

#define ROUTE_MAX_PARAMETERS 8
#define ROUTE_MAX_SEGMENTS 32

/* The router's own paths on every service listener; no operation may be under them. */
#define ROUTE_RESERVED "/_migration/"

struct operation;
struct route_table;

struct route_parameter {
	struct span name;  /* of the operation's template */
	struct span value; /* of the target, still escaped */
};

struct route_match {
	const struct operation *operation;
	size_t n_parameters;
	struct route_parameter parameters[ROUTE_MAX_PARAMETERS];
};

/* Whether `path` is a template: "/a/{name}/b". Names are letters, digits and '_'. -EINVAL with a sentence. */
int route_template_check(struct span path, struct err *e);

int route_table_new(const struct operation *operations, size_t n, struct route_table **ret, struct err *e);
struct route_table *route_table_free(struct route_table *t); /* NULL is allowed; returns NULL */

bool route_match(const struct route_table *t, struct span method, struct span target,
		 struct route_match *ret);

/* The parameter, its escapes resolved; appended. False if there is none of that name, or it is beyond
 * the buffer's limit. */
bool route_parameter(const struct route_match *m, struct span name, struct buf *decoded);

/* The part of a target before '?' (all of it without one). */
struct span route_path(struct span target);

/* The first query parameter of that name, decoded as forms are ('+' is a blank; a broken escape stays as it
 * is); appended. False if there is none, or it is beyond the buffer's limit. A parameter without '=' is
 * there and empty. */
bool route_query(struct span target, struct span name, struct buf *decoded);

/* Of a target whose parameters are all known: 0, or -EINVAL with a sentence about the first that is none of
 * `names`, or is given twice. */
int route_query_check(struct span target, const char *const *names, size_t n, struct err *e);

/* All query parameters of that name: `at` is {0} before the first call. Each value replaces what is in
 * `decoded`. False at the end; a value beyond the buffer's limit leaves decoded->error set and `decoded`
 * empty. */
bool route_query_next(struct span target, struct span name, size_t *at, struct buf *decoded);

#endif
