#include "guard/gate.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define EPSILON 1e-9 /* 99.0 of 100.0 must pass a floor of 99.0 */
#define SUSPICIOUS 3 /* so many counted attempts can already be certain of the worst */
#define SENTENCE_MAX 256

/* --- sides ---------------------------------------------------------------------------------------------- */

static uint64_t gate_rejected(const struct report_rate *a)
{
	return a->results[OUTCOME_REJECTED];
}

/* Attempts that ended by themselves: cancelled ones say nothing. */
static uint64_t gate_seen(const struct report_rate *a)
{
	return a->counted + gate_rejected(a);
}

static double gate_rejected_percent(const struct report_rate *a)
{
	return gate_seen(a) ? 100.0 * (double)gate_rejected(a) / (double)gate_seen(a) : 0;
}

static double gate_success_percent(const struct report_rate *a)
{
	return a->counted ? 100.0 * (double)a->results[OUTCOME_SUCCESS] / (double)a->counted : 0;
}

static const struct report_rate *gate_side(const struct report_operation *op, enum outcome_side side)
{
	return &op->sides[side].attempts;
}

static const struct report_operation *gate_find(const struct report *r, const struct report_operation *like)
{
	for (size_t i = 0; r && i < r->operation_count; i++)
		if (strcmp(r->operations[i].service, like->service) == 0 &&
		    strcmp(r->operations[i].operation, like->operation) == 0)
			return &r->operations[i];
	return NULL;
}

/* The legacy side to compare with: of the span, else of before; NULL: neither has enough. */
static const struct report_rate *gate_legacy(const struct gate_options *o, const struct report_operation *op,
					     const struct report_operation *before)
{
	if (gate_seen(gate_side(op, OUTCOME_LEGACY)) >= o->min_executions)
		return gate_side(op, OUTCOME_LEGACY);
	if (before && gate_seen(gate_side(before, OUTCOME_LEGACY)) >= o->min_executions)
		return gate_side(before, OUTCOME_LEGACY);
	return NULL;
}

/* --- the limits ----------------------------------------------------------------------------------------- */

struct gate_case {
	const struct gate_options *o;
	const struct report_rate *task, *legacy; /* legacy: NULL where there is none to compare with */
	char *why;
};

/* Each: true where it has something to say, with *ret and the sentence. */
typedef bool gate_rule(const struct gate_case *c, enum gate_verdict *ret);

static bool gate_rule_success(const struct gate_case *c, enum gate_verdict *ret)
{
	double rate = gate_success_percent(c->task);
	if (c->task->counted < c->o->min_executions || rate >= c->o->min_success - EPSILON)
		return false;
	snprintf(c->why, SENTENCE_MAX, "task_abstraction succeeds in %.3f%% of %" PRIu64 ", below %g%%", rate,
		 c->task->counted, c->o->min_success);
	*ret = GATE_BREACHED;
	return true;
}

static bool gate_rule_rejected(const struct gate_case *c, enum gate_verdict *ret)
{
	double task = gate_rejected_percent(c->task),
	       legacy = c->legacy ? gate_rejected_percent(c->legacy) : 0;
	if (gate_seen(c->task) < c->o->min_executions || task - legacy <= c->o->max_rejected + EPSILON)
		return false;
	*ret = c->legacy ? GATE_BREACHED : GATE_NOT_ENOUGH_DATA;
	if (c->legacy)
		snprintf(c->why, SENTENCE_MAX,
			 "task_abstraction rejects %.1f%% of %" PRIu64 ", legacy_services %.1f%% of %" PRIu64
			 ": more than %g points apart",
			 task, gate_seen(c->task), legacy, gate_seen(c->legacy), c->o->max_rejected);
	else
		snprintf(c->why, SENTENCE_MAX,
			 "task_abstraction rejects %.1f%% of %" PRIu64
			 ", and legacy_services has too few attempts to compare with",
			 task, gate_seen(c->task));
	return true;
}

static bool gate_rule_regression(const struct gate_case *c, enum gate_verdict *ret)
{
	if (c->o->max_regression < 0 || c->task->counted < c->o->min_executions)
		return false;
	if (!c->legacy || c->legacy->counted < c->o->min_executions) {
		snprintf(c->why, SENTENCE_MAX,
			 "legacy_services has fewer than %" PRIu64 " counted attempts to compare with",
			 c->o->min_executions);
		*ret = GATE_NOT_ENOUGH_DATA;
		return true;
	}
	double task = gate_success_percent(c->task), legacy = gate_success_percent(c->legacy);
	if (legacy - task <= c->o->max_regression + EPSILON)
		return false;
	snprintf(c->why, SENTENCE_MAX,
		 "task_abstraction (%.3f%% of %" PRIu64
		 ") is %.3f points below legacy_services (%.3f%% of %" PRIu64 "), more than %g",
		 task, c->task->counted, legacy - task, legacy, c->legacy->counted, c->o->max_regression);
	*ret = GATE_BREACHED;
	return true;
}

static bool gate_rule_latency(const struct gate_case *c, enum gate_verdict *ret)
{
	int64_t task = c->task->p95_us, legacy = c->legacy ? c->legacy->p95_us : -1;
	*ret = GATE_BREACHED;
	if (c->task->counted < c->o->min_executions || task < 0)
		return false;
	if (c->o->max_latency_us && task > c->o->max_latency_us) {
		snprintf(c->why, SENTENCE_MAX, "task_abstraction's p95 is %.3f s, above %.3f s",
			 (double)task / 1e6, (double)c->o->max_latency_us / 1e6);
		return true;
	}
	if (c->o->max_slowdown <= 0 || legacy < 0 || c->legacy->counted < c->o->min_executions ||
	    (double)task <= (double)legacy * c->o->max_slowdown || task - legacy <= GATE_SLOWER_US)
		return false;
	snprintf(c->why, SENTENCE_MAX,
		 "task_abstraction's p95 is %.3f s, legacy_services' %.3f s: more than %g times as long",
		 (double)task / 1e6, (double)legacy / 1e6, c->o->max_slowdown);
	return true;
}

/* Last: nothing was found, and there was enough to find it in. */
static bool gate_rule_enough(const struct gate_case *c, enum gate_verdict *ret)
{
	if (c->task->counted >= c->o->min_executions)
		return false;
	snprintf(c->why, SENTENCE_MAX,
		 "task_abstraction has %" PRIu64 " counted attempts, %" PRIu64 " are required",
		 c->task->counted, c->o->min_executions);
	*ret = GATE_NOT_ENOUGH_DATA;
	return true;
}

/* A breach that is known is not excused by what is not known. */
static enum gate_verdict gate_judge(const struct gate_case *c)
{
	static gate_rule *const rules[] = {gate_rule_success, gate_rule_rejected, gate_rule_regression,
					   gate_rule_latency, gate_rule_enough};
	char own[SENTENCE_MAX], unknown[SENTENCE_MAX] = "";
	enum gate_verdict v;
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		struct gate_case one = *c;
		one.why = own;
		if (!rules[i](&one, &v))
			continue;
		if (v == GATE_BREACHED) {
			memcpy(c->why, own, SENTENCE_MAX);
			return v;
		}
		if (!*unknown)
			memcpy(unknown, own, sizeof(unknown));
	}
	if (*unknown) {
		memcpy(c->why, unknown, SENTENCE_MAX);
		return GATE_NOT_ENOUGH_DATA;
	}
	snprintf(c->why, SENTENCE_MAX, "task_abstraction succeeds in %.3f%% of %" PRIu64,
		 gate_success_percent(c->task), c->task->counted);
	return GATE_HEALTHY;
}

/* --- all operations ------------------------------------------------------------------------------------- */

struct gate_run {
	const struct gate_options *o;
	const struct report *baseline;
	void (*each)(void *arg, const struct gate_finding *f);
	void *arg;
	char *why;
	size_t few; /* operations with task attempts, but too few of them */
	int weight;
	enum gate_verdict verdict;
	struct report_operation others, others_before; /* sums over those with too few */
};

static void gate_add(struct report_operation *sum, const struct report_operation *op)
{
	for (int side = 0; side < OUTCOME_SIDE_COUNT; side++) {
		struct report_rate *a = &sum->sides[side].attempts;
		for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
			a->results[i] += op->sides[side].attempts.results[i];
		a->counted += op->sides[side].attempts.counted;
		a->p50_us = a->p95_us = a->p99_us = -1;
	}
}

/* What weighs most stays; of equals the first. */
static int gate_weight(enum gate_verdict v, bool weighs)
{
	if (v == GATE_BREACHED)
		return 4;
	if (v == GATE_NOT_ENOUGH_DATA)
		return weighs ? 3 : 1;
	return 2;
}

static void gate_note(struct gate_run *g, const struct gate_finding *f, bool weighs)
{
	int weight = gate_weight(f->verdict, weighs);
	if (weight > g->weight) {
		g->weight = weight;
		g->verdict = f->verdict;
		snprintf(g->why, GATE_TEXT_MAX, "%s%s%s: %s", f->service, *f->service ? "." : "",
			 f->operation, f->why);
	}
	if (g->each)
		g->each(g->arg, f);
}

/* Too few for a verdict, and yet certainly below the floor: that must not pass for healthy. */
static bool gate_is_suspicious(const struct gate_options *o, const struct report_rate *task)
{
	return task->known && task->counted >= SUSPICIOUS && task->high * 100 < o->min_success;
}

static void gate_look_at(struct gate_run *g, const struct report_operation *op)
{
	const struct report_operation *before = gate_find(g->baseline, op);
	char why[SENTENCE_MAX];
	struct gate_case c = {g->o, gate_side(op, OUTCOME_TASK), gate_legacy(g->o, op, before), why};
	if (gate_seen(c.task) == 0)
		return; /* nobody has moved */
	bool few = gate_seen(c.task) < g->o->min_executions;
	struct gate_finding f = {op->service, op->operation, gate_judge(&c), why};
	gate_note(g, &f, !few || gate_is_suspicious(g->o, c.task));
	if (!few)
		return;
	g->few++;
	gate_add(&g->others, op);
	if (before)
		gate_add(&g->others_before, before);
}

static void gate_look_at_others(struct gate_run *g)
{
	char why[SENTENCE_MAX], name[64];
	struct gate_case c = {g->o, gate_side(&g->others, OUTCOME_TASK),
			      gate_legacy(g->o, &g->others, &g->others_before), why};
	if (g->few < 2)
		return;
	snprintf(name, sizeof(name), "%zu operations with too few attempts together", g->few);
	struct gate_finding f = {"", name, gate_judge(&c), why};
	if (f.verdict != GATE_NOT_ENOUGH_DATA)
		gate_note(g, &f, true);
}

bool gate_needs_baseline(const struct gate_options *o, const struct report *r)
{
	for (size_t i = 0; i < r->operation_count; i++)
		if (gate_seen(gate_side(&r->operations[i], OUTCOME_TASK)) > 0 &&
		    !gate_legacy(o, &r->operations[i], NULL))
			return true;
	return false;
}

enum gate_verdict gate_check(const struct gate_options *o, const struct report *r,
			     const struct report *baseline,
			     void (*each)(void *arg, const struct gate_finding *f), void *arg,
			     char why[GATE_TEXT_MAX])
{
	struct gate_run g = {.o = o,
			     .baseline = baseline,
			     .each = each,
			     .arg = arg,
			     .why = why,
			     .verdict = GATE_NOT_ENOUGH_DATA};
	why[0] = '\0';
	for (size_t i = 0; i < r->operation_count; i++)
		gate_look_at(&g, &r->operations[i]);
	gate_look_at_others(&g);
	if (!*why)
		snprintf(why, GATE_TEXT_MAX, "task_abstraction has no attempts, %" PRIu64 " are required",
			 o->min_executions);
	return g.verdict;
}

const char *gate_verdict_text(enum gate_verdict v)
{
	static const char *const texts[] = {[GATE_HEALTHY] = "healthy",
					    [GATE_BREACHED] = "breached",
					    [GATE_NOT_ENOUGH_DATA] = "not enough data"};
	return texts[v];
}
