/*
 * Dot segments: whether a path may lead above its own root, for any server that reads it. Pure.
 *
 * Why:       a prefix in a legacy URL is a fence, and what follows it reads paths in its own way: it
 *            decodes them once, twice or not at all, takes \ for /, cuts segments at parameters, a NUL or a
 *            fragment, drops blanks and bytes that are not UTF-8, takes overlong and full-width forms for
 *            what they resemble.
 * Rule:      ".." between slashes, as it is, is counted, and may undo a segment that is one for every
 *            reader. A ".." that only some readers see has no honest use: it is refused wherever it is.
 *            All else passes, and nothing is changed.
 */
#ifndef LEGACY_DOT_SEGMENTS_H
#define LEGACY_DOT_SEGMENTS_H

#include <stdbool.h>

#include "base/span.h"

/* `path` is a target's path, without its query. Out of memory, and more than 8 levels of escapes, count as
 * yes. */
bool dot_segments_climb(struct span path);

#endif
