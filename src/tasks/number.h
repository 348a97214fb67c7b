/*
 * Numbers as the existing Python workers treat them, from and to JSON text.
 *
 * Why:       integers stay integers of any size (9007199254740993 is not a double), floats print as Python's
 *            repr does.
 * Ownership: results are appended to the caller's buffer.
 */
#ifndef TASKS_NUMBER_H
#define TASKS_NUMBER_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/span.h"

/* Whether a JSON number is an integer to Python: no fraction and no exponent. */
bool number_is_integer(struct span number);
/* Appends Python's str() of a JSON number: "-0" → 0, 1e3 → 1000.0, 1.50 → 1.5. */
int number_text(struct span number, struct buf *out);
/* Appends a + b of two JSON numbers. -ERANGE if the sum is not a finite number (JSON has no infinity). */
int number_add(struct span a, struct span b, struct buf *out);
/* Appends repr(value): the shortest text that reads back as the same double. */
int number_repr(double value, struct buf *out);

#endif
