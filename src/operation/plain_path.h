/*
 * A path as read by a server that normalizes paths: what two servers could take for different paths.
 *
 * Why:       the router takes a target as it is; a legacy service behind it may decode, merge and cut first,
 *            and then serve a call that the router took for another one.
 * Threads:   pure.
 */
#ifndef OPERATION_PLAIN_PATH_H
#define OPERATION_PLAIN_PATH_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/span.h"

/* Writes the path of `target` without scheme and authority, query and fragment, decoded (twice encoded, too),
 * with \ as /, without parameters after ';', empty and dot segments, a trailing slash, and what follows a
 * NUL. False if it is that already; then, and beyond `out`'s limit, `out` has no meaning. */
bool plain_path(struct span target, struct buf *out);

#endif
