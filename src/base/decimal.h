/*
 * JSON's numbers as decimals, without the precision that a double would lose: 1, 1.0 and 10e-1 are one value,
 * 9007199254740993 is not its neighbor.
 */
#ifndef BASE_DECIMAL_H
#define BASE_DECIMAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

/* 0.d₁d₂d₃… × 10^exponent, without zeros at either end; no digits for zero. */
struct decimal {
	bool negative;
	const char *digits, *end; /* first significant digit, after the last; a point may lie between */
	int64_t exponent;
};

/* Of a valid JSON number, into which it points. Exponents saturate: beyond that both sides of a comparison
 * are absurd, and equal only if spelled alike. */
struct decimal decimal_read(struct span number);

#endif
