/*
 * Carrying over: a snapshot's text, completed with flags in use that it has lost.
 *
 * Why:       a flag that vanishes from its source by mistake must not move everybody to the other side at
 *            once; the rest of the new snapshot still takes effect at once. Works on the JSON of the snapshot
 *            API, where each flag is self-contained.
 * Threads:   pure.
 */
#ifndef FLAGS_SOURCE_CARRY_H
#define FLAGS_SOURCE_CARRY_H

#include <stddef.h>

#include "base/buf.h"
#include "base/span.h"
#include "flags/source/flag_source.h"

/* Appends `text` to `out`, with those of `used` that it lacks and `old` (SPAN_NONE: there is none) has.
 * -EBADMSG when either is not a JSON object, buf's errors. */
int carry_flags(struct span text, struct span old, const char *const *used, size_t n_used, struct buf *out,
		struct flag_carried *ret);

#endif
