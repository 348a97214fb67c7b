#include "cli/gate.h"

#include <inttypes.h>
#include <stdio.h>

#define EPSILON 1e-9 /* 99.0 of 100.0 must pass a floor of 99.0 */

static enum gate_verdict too_few(const struct gate_options *o, enum outcome_side side, const struct report_rate *a,
				 char why[GATE_TEXT_MAX])
{
	snprintf(why, GATE_TEXT_MAX, "%s has %" PRIu64 " counted attempts, %" PRIu64 " are asked for", report_side_name(side),
		 a->counted, o->min_executions);
	return GATE_NOT_ENOUGH_DATA;
}

static bool enough(const struct gate_options *o, const struct report_rate *a)
{
	return a->known && a->counted >= o->min_executions;
}

enum gate_verdict gate_check(const struct gate_options *o, const struct report *r, char why[GATE_TEXT_MAX])
{
	const struct report_rate *task = &r->total.sides[OUTCOME_TASK].attempts;
	const struct report_rate *legacy = &r->total.sides[OUTCOME_LEGACY].attempts;
	if (!enough(o, task))
		return too_few(o, OUTCOME_TASK, task, why);
	double rate = task->rate * 100, below = (legacy->rate - task->rate) * 100;
	if (rate < o->min_success - EPSILON) {
		snprintf(why, GATE_TEXT_MAX, "task_abstraction succeeds in %.3f%% of %" PRIu64 ", below %g%%", rate,
			 task->counted, o->min_success);
		return GATE_BREACHED;
	}
	if (o->max_regression >= 0 && !enough(o, legacy))
		return too_few(o, OUTCOME_LEGACY, legacy, why);
	if (o->max_regression >= 0 && below > o->max_regression + EPSILON) {
		snprintf(why, GATE_TEXT_MAX,
			 "task_abstraction (%.3f%% of %" PRIu64 ") is %.3f points below legacy_services (%.3f%% of %" PRIu64
			 "), more than %g",
			 rate, task->counted, below, legacy->rate * 100, legacy->counted, o->max_regression);
		return GATE_BREACHED;
	}
	snprintf(why, GATE_TEXT_MAX, "task_abstraction succeeds in %.3f%% of %" PRIu64, rate, task->counted);
	return GATE_HEALTHY;
}

const char *gate_verdict_text(enum gate_verdict v)
{
	return v == GATE_HEALTHY ? "healthy" : v == GATE_BREACHED ? "breached" : "not enough data";
}
