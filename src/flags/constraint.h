/*
 * Constraint: one comparison of a segment, compiled once and matched often.
 *
 * Source:    docs/protocols/flipt.md, "Constraints"; the recorded corpora decide.
 * Ownership: everything is in the snapshot's arena.
 * Threads:   immutable after compiling.
 */
#ifndef FLAGS_CONSTRAINT_H
#define FLAGS_CONSTRAINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/span.h"
#include "flags/instant.h"

#define CONSTRAINT_SET_MAX 1000000 /* elements of an isoneof set */

enum constraint_type {
	CONSTRAINT_STRING,
	CONSTRAINT_NUMBER,
	CONSTRAINT_BOOLEAN,
	CONSTRAINT_DATETIME,
	CONSTRAINT_ENTITY_ID,
	CONSTRAINT_OTHER, /* a type known only to a newer server */
};

enum constraint_op {
	OP_EQ,
	OP_NEQ,
	OP_EMPTY,
	OP_NOT_EMPTY,
	OP_PREFIX,
	OP_SUFFIX,
	OP_CONTAINS,
	OP_NOT_CONTAINS,
	OP_IS_ONE_OF,
	OP_IS_NOT_ONE_OF,
	OP_PRESENT,
	OP_NOT_PRESENT,
	OP_LT,
	OP_LTE,
	OP_GT,
	OP_GTE,
	OP_TRUE,
	OP_FALSE,
	OP_OTHER, /* never matches */
};

struct constraint {
	enum constraint_type type;
	enum constraint_op op;
	bool malformed; /* the value does not fit type and operator; `why` says so */
	const char *why;
	struct span property, value; /* as written */
	double number;
	struct instant instant;
	const struct span *strings; /* isoneof: sorted, for strings and entity ids */
	const double *numbers;	    /* isoneof: sorted, for numbers */
	size_t n_set;
};

/* Short and long spellings ("string", STRING_COMPARISON_TYPE, STRING_CONSTRAINT_COMPARISON_TYPE; "eq",
 * EQ_COMPARISON_OPERATOR); false if it is unknown. */
bool constraint_type_parse(struct span text, enum constraint_type *ret);
bool constraint_op_parse(struct span text, enum constraint_op *ret);
const char *constraint_type_text(enum constraint_type type);
const char *constraint_op_text(enum constraint_op op);
/* Whether Flipt knows the operator for that type; any other never matches. */
bool constraint_op_fits(enum constraint_type type, enum constraint_op op);

/* Parses `value` into what matching needs. A value that does not parse is not an error: it makes the
 * constraint malformed. `property` and `value` must outlive the constraint (arena). -ENOMEM. */
int constraint_compile(struct arena *a, enum constraint_type type, enum constraint_op op,
		       struct span property, struct span value, struct constraint *ret);

/* `v` is the context's value, or the entity id for CONSTRAINT_ENTITY_ID; absent counts as "". A malformed
 * constraint does not match. */
bool constraint_match(const struct constraint *c, struct span v);

/* Without the white space of Unicode (the White_Space property) at both ends, as Go's strings.TrimSpace. */
struct span constraint_trim(struct span v);

#endif
