/*
 * Gate: whether a report is good enough to continue a rollout. Pure.
 *
 * Checked:  each operation by itself, so that a broken one does not drown in a busy one: the task side's
 *           success rate against a floor and against the legacy side's; the share of callers that it rejects
 *           against the share that legacy rejects (401 after moving is not a task failure, and still nobody
 *           is served); its p95 against legacy's. Operations with too few attempts are judged together.
 * Baseline: where everybody has moved, legacy has nothing in the span; then what it did before counts.
 * No verdict: fewer attempts than asked for are neither healthy nor breached.
 */
#ifndef GUARD_GATE_H
#define GUARD_GATE_H

#include <stdint.h>

#include "outcomes/report.h"

struct gate_options {
	double min_success;    /* percent */
	double max_regression; /* percentage points below the legacy side's rate; < 0 = not compared */
	double max_rejected;   /* percentage points of rejected attempts above the legacy side's */
	double max_slowdown; /* times legacy's p95, and more than GATE_SLOWER_US above it; 0 = not compared */
	int64_t max_latency_us;	 /* of p95; 0 = none */
	uint64_t min_executions; /* attempts per side and operation that a verdict needs */
};

#define GATE_DEFAULTS \
	((struct gate_options){.min_success = 99.0, \
			       .max_regression = -1, \
			       .max_rejected = 5, \
			       .max_slowdown = 2, \
			       .min_executions = REPORT_FEW})
#define GATE_SPAN_US (15 * 60 * 1000000LL)	     /* what is judged by default */
#define GATE_BASELINE_US (7 * 24 * 3600 * 1000000LL) /* how far back legacy is looked for, before the span */
#define GATE_SLOWER_US 1000000 /* less than that is no slowdown: a task has to be fetched */

enum gate_verdict { GATE_HEALTHY = 0, GATE_BREACHED = 1, GATE_NOT_ENOUGH_DATA = 3 }; /* also the exit codes */

#define GATE_TEXT_MAX 384

/* One operation's, or that of all with too few attempts together. */
struct gate_finding {
	const char *service, *operation; /* service "": several operations */
	enum gate_verdict verdict;
	const char *why; /* one sentence without a full stop */
};

/* Whether a legacy side is needed that the report does not have. */
bool gate_needs_baseline(const struct gate_options *o, const struct report *r);
/* `baseline` may be NULL. `why` names the operation that decides. `each` (may be NULL) is called for every
 * one that was checked. */
enum gate_verdict gate_check(const struct gate_options *o, const struct report *r,
			     const struct report *baseline,
			     void (*each)(void *arg, const struct gate_finding *f), void *arg,
			     char why[GATE_TEXT_MAX]);
const char *gate_verdict_text(enum gate_verdict v);

#endif
