/*
 * Guard lines: what the guard makes of the operations, within the report and the gate of migration-status.
 *
 * Threads:   one.
 */
#ifndef PROGRAMS_STATUS_GUARD_LINES_H
#define PROGRAMS_STATUS_GUARD_LINES_H

#include "guard/guard_verdict.h"
#include "guard/gate.h"

/* Lines for people; nothing when there is nothing to say. buf's errors. */
int guard_lines_put(const struct guard_verdicts *v, struct buf *out);
/* What the gate says, given what its limits say. The guard's verdict is the gate's; a breached limit is a
 * breach besides. `why` is replaced where the guard decides. */
enum gate_verdict guard_lines_judge(const struct guard_verdicts *v, enum gate_verdict limits,
				    char why[GATE_TEXT_MAX]);

#endif
