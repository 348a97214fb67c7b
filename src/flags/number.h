/*
 * Numbers as Go's strconv.ParseFloat(s, 64) reads them, which is how Flipt reads them.
 *
 * Source: docs/protocols/flipt.md, "number"; the recorded corpora decide. Nothing is trimmed; underscores
 * between digits, hexadecimal floats (the `p` exponent is required), inf and an unsigned nan are numbers;
 * overflow is not.
 */
#ifndef FLAGS_NUMBER_H
#define FLAGS_NUMBER_H

#include <stdbool.h>

#include "base/span.h"

bool number_parse(struct span text, double *ret);

#endif
