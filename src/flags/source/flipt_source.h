/*
 * A Flipt server as a source of snapshots: finds out v1 or v2, polls with ETag, and streams (v2).
 *
 * Why:       a percentage changed in Flipt takes effect at once; Flipt's outages and quirks never reach a
 *            caller (rule 1): whatever goes wrong, the last good snapshot stays, in memory and on disk.
 *            Source: docs/protocols/flipt.md.
 * Threads:   lives on the control thread's loop; `publish` is called there.
 * Ownership: options are copied.
 * Bad snapshots: one that does not parse, whose digest is not 40 hex digits (it has a hole), or whose
 *            namespace is gone is refused whole. A flag in use that is missing from an otherwise good
 *            snapshot keeps its last good definition (carried over, also on disk) until it is back or no
 *            operation uses it.
 *
 * state      what runs                                  leaves by
 * UNKNOWN    a poll of the v2 path                      404 that is not JSON → v1; anything else that answers
 *                                                       → v2
 * V1, V2     a poll every poll_ms (slower while the     an answer of the other version's kind → UNKNOWN
 *            stream is up); failures back off
 * V2         the stream: one snapshot at once, one per  end, error → poll at once, stream again with backoff;
 *            change                                     nothing for stream_idle_ms → a new stream
 */
#ifndef FLAGS_SOURCE_FLIPT_SOURCE_H
#define FLAGS_SOURCE_FLIPT_SOURCE_H

#include <stdbool.h>

#include "base/err.h"
#include "base/loop.h"
#include "flags/flags.h"
#include "flags/source/flag_source.h"

struct flipt_source;

/* Publishes the saved snapshot at once if there is a good one, then what the server has. An absent
 * server is not an error. */
int flipt_source_start(struct loop *loop, const struct flag_source_options *o,
		       const struct flag_source_events *events, struct flipt_source **ret, struct err *e);
struct flipt_source *flipt_source_stop(struct flipt_source *s);
void flipt_source_refresh(struct flipt_source *s); /* poll now */
/* The flags that operations use; keys are copied. */
int flipt_source_use(struct flipt_source *s, const struct span *keys, size_t n);
void flipt_source_status(const struct flipt_source *s, struct flag_source_status *ret);

#endif
