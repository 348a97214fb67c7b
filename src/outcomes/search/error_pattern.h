/*
 * Error pattern: what error texts are grouped by. Pure.
 *
 * Why:     "no document 83721" and "no document 83722" are one thing that goes wrong. What differs from one
 *          attempt to the next (numbers, ids, addresses) is ERROR_PATTERN_ANY; the rest stays.
 * Kept:    numbers from 100 to 599, which are statuses, and short words with digits (v1, utf8).
 */
#ifndef OUTCOMES_SEARCH_ERROR_PATTERN_H
#define OUTCOMES_SEARCH_ERROR_PATTERN_H

#include "base/span.h"
#include "outcomes/outcome.h"

#define ERROR_PATTERN_ANY '#'

/* Of a text as outcome_error made it. */
void error_pattern(struct span error, char out[OUTCOME_ERROR_MAX]);

#endif
