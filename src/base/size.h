/*
 * Sizes as people write them: 16384, 16KiB, 64MiB, 1 GiB, also kB, MB, GB, TB (powers of 1000). The one
 * reader for every file, setting and argument.
 */
#ifndef BASE_SIZE_H
#define BASE_SIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

#define SIZE_TEXT_MAX 24
#define SIZE_RANGE_MAX 128

/* -EINVAL: not a number, an unknown unit, or above 2^64 - 1. */
int size_parse(const char *text, uint64_t *ret_bytes);
/* 16777216 → "16MiB" */
void size_format(uint64_t bytes, char out[SIZE_TEXT_MAX]);

/* A size of min to max bytes; false leaves *ret as it was. */
bool size_within(struct span text, uint64_t min, uint64_t max, uint64_t *ret_bytes);
/* What was expected: "a size from 1 to 64MiB (bytes, or with KiB, MiB, GiB)" */
void size_range(uint64_t min, uint64_t max, char out[SIZE_RANGE_MAX]);

#endif
