/*
 * `migration-router evaluate`: flags evaluated in bulk, one JSON object per line in, the same plus `result`
 * out.
 *
 * Why:       what a change of the flags would do to a list of users can be seen before anyone is moved; and
 *            the recorded corpora (tests/fixtures/flipt/v2/evaluations.jsonl) are replayed through it.
 * In:        {"flag": "…", "type": "variant"|"boolean", "entity_id": "…", "context": {"k": "v"}}; type may be
 *            missing (the
 *            flag's own), entity_id and context too ("" and {}). Other members are passed on; an old `result`
 *            is replaced.
 * Out:       result is {"match", "variant_key", "reason", "segment_keys", "attachment"} for a variant flag,
 *            {"enabled", "reason", "segment_keys"} for a boolean one, {"error": "…"} when there is no such
 *            flag or it is of the other type.
 */
#ifndef PROGRAMS_ROUTER_EVALUATE_H
#define PROGRAMS_ROUTER_EVALUATE_H

#include "base/buf.h"
#include "base/err.h"
#include "flags/flags.h"

#define EVALUATE_MAX_LINE (16u << 20) /* bytes of a line */
#define EVALUATE_MAX_CONTEXT 1024     /* entries of a context */

/* Appends the answer to one line, without a newline. -EBADMSG when the line is no such object; buf's
 * errors. */
int evaluate_line(const struct flag_snapshot *s, struct span line, struct buf *out, struct err *e);

/* The sub-command, argv[0] being its name: (--features FILE | --snapshot FILE) [--rules v1|v2.0|v2.9|v2.11];
 * reads standard input, writes standard output. Exit codes: 0 done, 1 the flags could not be read or the
 * output not written, 2 usage or a bad line. */
int evaluate_command(int argc, char **argv);

#endif
