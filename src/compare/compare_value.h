/*
 * Compare values: numbers within a tolerance, texts folded or alike. Pure.
 *
 * Numbers:   equal as decimals whatever their length; what a tolerance forgives is computed in long double,
 *            and a tolerance that is finer than its precision at that size forgives nothing.
 * Texts:     folding takes ASCII letters as lower case, runs of white space as one blank, none at the ends.
 *            Similarity is the Sørensen-Dice coefficient over the multisets of trigrams of characters (of the
 *            folded texts, with blanks around), 0 … 1: its cost is that of sorting them.
 * Threads:   any; no state.
 */
#ifndef COMPARE_COMPARE_VALUE_H
#define COMPARE_COMPARE_VALUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

struct compare_fold {
	bool letters, space;
};

/* Whether the difference is at most `absolute`, or at most `relative` times the larger magnitude. Both texts
 * are JSON numbers. */
bool compare_numbers_close(struct span a, struct span b, double absolute, double relative);

/* Equal numbers (1, 1.0, 10e-1) have the same hash. */
uint64_t compare_number_hash(struct span number);

/* Appends. Errors: buf's. */
int compare_text_fold(struct span text, struct compare_fold fold, struct buf *out);

/* 0 … 1; -ENOMEM as a negative number. */
double compare_text_similarity(struct span a, struct span b);

uint64_t compare_hash(uint64_t seed, const void *bytes, size_t n);

#endif
