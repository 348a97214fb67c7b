/*
 * Sizes as people write them: 16384, 16KiB, 64MiB, 1 GiB, also kB, MB, GB, TB (powers of 1000). The one
 * reader for every file, setting and argument.
 */
#ifndef BASE_SIZE_H
#define BASE_SIZE_H

#include <stdint.h>

#define SIZE_TEXT_MAX 24

/* -EINVAL: not a number, an unknown unit, or above 2^64 - 1. */
int size_parse(const char *text, uint64_t *ret_bytes);
/* 16777216 → "16MiB" */
void size_format(uint64_t bytes, char out[SIZE_TEXT_MAX]);

#endif
