#include "programs/rollout/rollout_evidence.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "outcomes/report.h"
#include "programs/status/gate.h"

/* What one operation's figures say; the worst one's are told. */
enum evidence_weight { EVIDENCE_SAFE, EVIDENCE_NOT_ENOUGH, EVIDENCE_UNREADABLE, EVIDENCE_BREACH };

struct evidence_one {
	enum evidence_weight weight;
	const char *judge, *verdict;
	char why[PHASE_WHY_MAX];
	int64_t since_us;
};

/* --- fixed limits (migration-status --gate) --------------------------------------------------------------- */

static enum gate_verdict evidence_gate_of(const struct report_options *o, char why[GATE_TEXT_MAX], struct err *e,
					  int *ret_error)
{
	const struct gate_options limits = GATE_DEFAULTS;
	CLEANUP(report_freep) struct report *r = NULL, *baseline = NULL;
	*ret_error = report_make(o, &r, e);
	if (*ret_error < 0)
		return GATE_NOT_ENOUGH_DATA;
	if (gate_needs_baseline(&limits, r)) {
		struct report_options before = *o;
		before.until_us = o->since_us;
		before.since_us = o->since_us - GATE_BASELINE_US;
		report_make(&before, &baseline, NULL);
	}
	return gate_check(&limits, r, baseline, NULL, NULL, why);
}

static enum evidence_weight evidence_of_gate(enum gate_verdict v)
{
	if (v == GATE_BREACHED)
		return EVIDENCE_BREACH;
	return v == GATE_HEALTHY ? EVIDENCE_SAFE : EVIDENCE_NOT_ENOUGH;
}

/* Over the whole step, and its last quarter of an hour by itself: what broke just now must not drown in a week. */
static void evidence_ask_gate(const struct evidence_question *q, const char *service, const char *operation,
			      struct evidence_one *ret)
{
	struct report_options o = {.path = q->config->outcomes.path, .service = service, .operation = operation};
	const int64_t now_us = clock_wall_us(), since[] = {now_us - GATE_SPAN_US, q->since_us};
	struct err e = {""};
	ret->judge = "gate";
	for (size_t i = 0; i < 2 && ret->weight < EVIDENCE_UNREADABLE; i++) {
		char why[GATE_TEXT_MAX] = "";
		int error;
		o.since_us = i == 0 && since[0] < q->since_us ? q->since_us : since[i];
		enum gate_verdict v = evidence_gate_of(&o, why, &e, &error);
		ret->weight = error < 0 ? EVIDENCE_UNREADABLE : evidence_of_gate(v);
		ret->verdict = error < 0 ? "cannot be read" : gate_verdict_text(v);
		snprintf(ret->why, sizeof(ret->why), "%s", error < 0 ? e.text : why);
	}
}

/* --- all operations --------------------------------------------------------------------------------------- */

static void evidence_ask(const struct evidence_question *q, const struct operation *op, struct evidence_one *ret)
{
	CLEANUP(freep) char *service = span_dup(op->service), *operation = span_dup(op->name);
	*ret = (struct evidence_one){.since_us = q->since_us};
	if (!service || !operation) {
		*ret = (struct evidence_one){EVIDENCE_UNREADABLE, "gate", "cannot be read", "out of memory", 0};
		return;
	}
	if (q->has_task) {
		evidence_ask_gate(q, service, operation, ret);
		return;
	}
	ret->judge = "nobody";
	ret->verdict = "nothing to judge";
	snprintf(ret->why, sizeof(ret->why), "%s.%s: nobody is on the task side", service, operation);
}

static void evidence_to_json(const struct operation *op, const struct evidence_one *one, struct buf *json)
{
	const struct {
		const char *name;
		struct span text;
	} members[] = {{"service", op->service},
		       {"operation", op->name},
		       {"judge", span_of(one->judge)},
		       {"verdict", span_of(one->verdict)},
		       {"why", span_of(one->why)}};
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		buf_printf(json, "%c\"%s\":", i ? ',' : '{', members[i].name);
		json_quote(json, members[i].text);
	}
	buf_putc(json, '}');
}

static void evidence_take(const struct evidence_one *one, struct phase_evidence *ret)
{
	memcpy(ret->why, one->why, sizeof(ret->why));
	ret->breach = one->weight == EVIDENCE_BREACH;
	ret->unreadable = one->weight == EVIDENCE_UNREADABLE;
	ret->safe = one->weight == EVIDENCE_SAFE;
}

void evidence_of_operation(const struct evidence_question *q, const struct operation *op,
			   struct phase_evidence *ret, const char **ret_verdict)
{
	struct evidence_one one;
	evidence_ask(q, op, &one);
	evidence_take(&one, ret);
	ret->since_us = one.since_us;
	*ret_verdict = one.verdict;
}

void evidence_read(const struct evidence_question *q, struct phase_evidence *ret, struct buf *json)
{
	const struct operation *op;
	enum evidence_weight worst = EVIDENCE_SAFE;
	ret->since_us = q->since_us;
	snprintf(ret->why, sizeof(ret->why), "no operation asks the flag");
	buf_puts(json, "{\"operations\":[");
	for (size_t i = 0; (op = flag_users_at(q->users, i)); i++) {
		struct evidence_one one;
		evidence_ask(q, op, &one);
		if (i)
			buf_putc(json, ',');
		evidence_to_json(op, &one, json);
		if (one.since_us > ret->since_us)
			ret->since_us = one.since_us;
		if (i && one.weight <= worst)
			continue;
		worst = one.weight;
		evidence_take(&one, ret);
	}
	buf_puts(json, "]}");
}
