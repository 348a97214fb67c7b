/*
 * Compare redaction: an answer's body made fit to be kept as a sample. Pure.
 *
 * Taken out: what is at or beneath a listed pattern, what lies beneath a member whose name says that it is
 *            a secret (compare_names_secret), and within other strings what looks like one (base/text.h):
 *            the last is a guess and only the second line.
 * Not JSON:  nothing of it is fit.
 * Threads:   any; no state.
 */
#ifndef COMPARE_COMPARE_REDACT_H
#define COMPARE_COMPARE_REDACT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/span.h"
#include "compare/compare_path.h"

struct compare_redaction {
	const struct compare_pattern *patterns;
	size_t n_patterns;
};

/* *token*, *password*, *secret*, *authorization*, in any case, and the names of base/text.h. */
bool compare_names_secret(struct span name);

/* Appends valid JSON compactly, with "***" for what is taken out; what does not fit into out's limit is cut,
 * followed by …, and is not an error. Of `places` (spans within the text, or others) reports which are in
 * what was taken out. Errors: compare_tree_make's. */
int compare_redact_json(struct span text, const struct compare_redaction *r, const struct span *places,
			bool *ret_secret, size_t n_places, struct buf *out);

/* A single value that is not within a redacted place, for people: a number as it is, a string masked and cut
 * at `max` bytes, of an object or array only that it is one. */
int compare_redact_value(struct span raw, size_t max, struct buf *out);

#endif
