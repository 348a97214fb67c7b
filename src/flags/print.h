/*
 * Print: a snapshot as the JSON of Flipt's snapshot API, from which flag_snapshot_parse_json makes one that answers alike.
 *
 * Why:       whatever a source's own format is, what is kept on disk and what is carried over is one format, in which each flag is
 *            complete in itself.
 * Not kept:  what no answer depends on: names, descriptions, whether a segment was declared.
 * Threads:   pure; the snapshot is immutable.
 */
#ifndef FLAGS_PRINT_H
#define FLAGS_PRINT_H

#include "flags/flags.h"

int flag_snapshot_print(const struct flag_snapshot *s, struct buf *out); /* appends; buf's errors */

#endif
