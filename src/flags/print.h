/*
 * Print: a snapshot as the JSON of Flipt's snapshot API, from which flag_snapshot_parse_json builds an
 * equivalent one.
 *
 * Why:       whatever a source's own format is, disk and carry-over use a single format, in which each flag
 *            is self-contained.
 * Not kept:  anything that no answer depends on: names, descriptions, whether a segment was declared.
 * Threads:   pure; the snapshot is immutable.
 */
#ifndef FLAGS_PRINT_H
#define FLAGS_PRINT_H

#include "base/crypto.h"
#include "flags/flags.h"

#define PRINT_BROKEN "broken" /* the member of a flag that is set aside: why; no server sends it */

/* Appends; buf's errors. Segments are sorted by key: equivalent snapshots are printed alike, except for the
 * order of the flags. */
int flag_snapshot_print(const struct flag_snapshot *s, struct buf *out);
/* A hash of that: what the flags say, whatever their source's digest. */
int flag_snapshot_content(const struct flag_snapshot *s, char ret[CRYPTO_SHA256_HEX]);

#endif
