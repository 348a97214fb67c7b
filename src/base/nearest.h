/*
 * Nearest word: what someone meant who wrote a word that is not known.
 *
 * Threads: any; no state.
 */
#ifndef BASE_NEAREST_H
#define BASE_NEAREST_H

#include <stddef.h>

#include "base/span.h"

#define NEAREST_MAX 128 /* bytes of a word; longer ones are near to nothing */

/* Levenshtein distance in bytes; SIZE_MAX when one is too long. */
size_t nearest_edits(struct span a, struct span b);
/* The nearest of `known`, NULL when none is near: for keys and values, of which the reader sees all. */
const char *nearest_word(struct span word, const char *const *known, size_t n);

#endif
