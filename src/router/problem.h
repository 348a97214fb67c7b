/*
 * Problem details: the body of an error that the router itself makes (RFC 9457).
 *
 * Ownership: everything borrows; the body is appended to a buffer.
 * Threads:   any.
 */
#ifndef ROUTER_PROBLEM_H
#define ROUTER_PROBLEM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/span.h"

#define PROBLEM_CONTENT_TYPE "application/problem+json"

struct problem_member {
	const char *name; /* not one of RFC 9457's own */
	struct span value;
	bool json; /* value is JSON already; otherwise it becomes a string. SPAN_NONE: null */
};

struct problem {
	int status;
	const char *type;		      /* a URI; NULL: about:blank, the status says it all */
	const char *title;		      /* NULL: the status's phrase */
	struct span detail;		      /* SPAN_NONE: none */
	struct span instance;		      /* the request id, or SPAN_NONE; written as a URI reference */
	const struct problem_member *members; /* task_id, … */
	size_t n_members;
};

/* bytes of a detail, a title or a text member; what is longer is cut at a character, with … */
#define PROBLEM_TEXT_MAX 4096
#define PROBLEM_MAX (64u << 10) /* room in which every problem fits, at least without its members and texts */

/* {"type","title","status","detail","instance", members…}. What does not fit into `out` is left out: the
 * members and texts first. Errors: buf's, when not even type, title and status fit; nothing is appended then.
 * Never half a document. */
int problem_render(const struct problem *p, struct buf *out);

/* The phrase of a status (RFC 9110 §15 and others that the router uses); that of its class for an unknown
 * one. */
const char *problem_title(int status);

#endif
