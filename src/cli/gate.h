/*
 * Gate: whether a report is good enough to go on with a rollout. Pure.
 *
 * Checked:  the task side's success rate against a floor, and against the legacy side's. A side with fewer counted attempts
 *           than asked for gives no verdict: that is neither healthy nor breached.
 */
#ifndef CLI_GATE_H
#define CLI_GATE_H

#include <stdint.h>

#include "metrics/report.h"

struct gate_options {
	double min_success;	 /* percent */
	double max_regression;	 /* percentage points below the legacy side's rate; < 0 = not compared */
	uint64_t min_executions; /* counted attempts per side */
};

#define GATE_DEFAULTS ((struct gate_options){.min_success = 99.0, .max_regression = -1, .min_executions = REPORT_FEW})

enum gate_verdict { GATE_HEALTHY = 0, GATE_BREACHED = 1, GATE_NOT_ENOUGH_DATA = 3 }; /* also the exit codes */

#define GATE_TEXT_MAX 256
/* `why` is one sentence without a full stop. */
enum gate_verdict gate_check(const struct gate_options *o, const struct report *r, char why[GATE_TEXT_MAX]);
const char *gate_verdict_text(enum gate_verdict v);

#endif
