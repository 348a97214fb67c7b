/*
 * Print: a snapshot as the JSON of Flipt's snapshot API, from which flag_snapshot_parse_json makes one that
 * answers alike.
 *
 * Why:       whatever a source's own format is, what is kept on disk and what is carried over is one format,
 *            in which each flag is complete in itself.
 * Not kept:  what no answer depends on: names, descriptions, whether a segment was declared.
 * Threads:   pure; the snapshot is immutable.
 */
#ifndef FLAGS_PRINT_H
#define FLAGS_PRINT_H

#include "base/crypto.h"
#include "flags/flags.h"

#define PRINT_BROKEN "broken" /* the member that a flag has which is set aside: why; no server sends it */

/* Appends; buf's errors. Segments are sorted by key: what answers alike is printed alike, but for the
 * order of the flags. */
int flag_snapshot_print(const struct flag_snapshot *s, struct buf *out);
/* A hash of that: what the flags say, whatever digest their source gives them. */
int flag_snapshot_content(const struct flag_snapshot *s, char ret[CRYPTO_SHA256_HEX]);

#endif
