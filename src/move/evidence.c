#include "move/evidence.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "guard/guard_verdict.h"
#include "outcomes/report.h"
#include "pairs/differences.h"
#include "guard/gate.h"

/* What one operation's figures say; the worst one's are reported. */
enum evidence_weight { EVIDENCE_SAFE, EVIDENCE_NOT_ENOUGH, EVIDENCE_UNREADABLE, EVIDENCE_BREACH };

struct evidence_one {
	enum evidence_weight weight;
	const char *judge, *verdict;
	char why[PHASE_WHY_MAX];
	int64_t since_us;
};

/* --- fixed limits (migration-status --gate) ------------------------------------------------------------- */

static enum gate_verdict evidence_gate_of(const struct report_options *o, char why[GATE_TEXT_MAX],
					  struct err *e, int *ret_error)
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

/* Over the whole step, and its last quarter of an hour by itself: what broke just now must not drown in a
 * week. */
static void evidence_ask_gate(const struct evidence_question *q, const char *service, const char *operation,
			      struct evidence_one *ret)
{
	struct report_options o = {
		.path = q->config->outcomes.path, .service = service, .operation = operation};
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

/* --- the guard ------------------------------------------------------------------------------------------ */

static void evidence_say_guard(const struct guard_operation_verdict *v, struct evidence_one *ret)
{
	CLEANUP(buf_releasep) struct buf line = BUF_INIT(PHASE_WHY_MAX - 1);
	buf_printf(&line, "%s.%s: ", v->service, v->operation);
	guard_verdict_to_text(v, &line);
	snprintf(ret->why, sizeof(ret->why), "%.*s", SPAN_ARG(buf_span(&line)));
}

/* An epoch of another split says nothing of this step. A breach stays until a new one begins. */
static void evidence_take_guard(const struct evidence_question *q, const struct operation *op,
				const struct guard_operation_verdict *v, struct evidence_one *ret)
{
	bool current = q->flags && v->split == decide_split(op, q->flags);
	ret->judge = "guard";
	ret->verdict = guard_verdict_text(v->verdict);
	evidence_say_guard(v, ret);
	if (current && v->began_us > ret->since_us)
		ret->since_us = v->began_us;
	if (v->held || v->verdict == GUARD_BREACH || v->verdict == GUARD_SHARE_MISMATCH) {
		ret->weight = EVIDENCE_BREACH;
	} else if (!current) {
		ret->weight = EVIDENCE_NOT_ENOUGH;
		ret->verdict = guard_verdict_text(GUARD_NOT_ENOUGH_DATA);
		snprintf(ret->why, sizeof(ret->why), "%s.%s: the guard has no evidence for this step yet",
			 v->service, v->operation);
	} else {
		ret->weight = v->verdict == GUARD_SAFE ? EVIDENCE_SAFE : EVIDENCE_NOT_ENOUGH;
	}
}

/* False where the guard does not judge: it is off, or no hash decides. A breach counts always. */
static bool evidence_ask_guard(const struct evidence_question *q, const struct operation *op,
			       const char *service, const char *operation, struct evidence_one *ret)
{
	CLEANUP(guard_verdicts_freep) struct guard_verdicts *list = NULL;
	struct err e = {""};
	int r = guard_verdicts_read(q->config->outcomes.path, service, operation, &list, &e);
	if (r < 0) {
		bool nothing_yet = r == -ENOENT && !q->has_task;
		ret->weight = EVIDENCE_UNREADABLE;
		ret->judge = "guard";
		ret->verdict = "cannot be read";
		snprintf(ret->why, sizeof(ret->why), "%s", e.text);
		return !nothing_yet;
	}
	if (!list->n || !list->operations[0].epoch || list->operations[0].mode == GUARD_OFF)
		return false;
	evidence_take_guard(q, op, &list->operations[0], ret);
	return ret->weight == EVIDENCE_BREACH || (q->has_task && !q->of_segment);
}

/* --- differences ---------------------------------------------------------------------------------------- */

/* The upper end of Wilson's interval for 95 %, in percent. */
static double evidence_upper(uint64_t n, uint64_t of)
{
	const double z = 1.959964, m = (double)of, p = (double)n / m;
	return 100 * (p + z * z / (2 * m) + z * sqrt(p * (1 - p) / m + z * z / (4 * m * m))) /
	       (1 + z * z / m);
}

/* Pairs of legacy with itself that must have been compared before "not beyond noise" means "just noise"
 * rather than "too few to tell". */
#define EVIDENCE_NOISE_MIN 100

/* False: nothing was compared. Where legacy differs from itself just as much, nothing counts. */
static bool evidence_count_pairs(const struct evidence_question *q, const struct operation *op,
				 uint64_t *ret_compared, uint64_t *ret_differing)
{
	CLEANUP(differences_freep) struct differences *d = NULL;
	CLEANUP(freep) char *service = span_dup(op->service), *operation = span_dup(op->name);
	const struct differences_options o = {.paths = {q->config->outcomes.path},
					      .n_paths = 1,
					      .since_us = q->since_us,
					      .service = service,
					      .operation = operation};
	if (!service || !operation || differences_make(&o, &d, NULL) < 0 || d->n_operations == 0)
		return false;
	const struct differences_operation *found = &d->operations[0];
	*ret_compared = found->counts.compared[PAIRS_SIDES];
	bool noise = found->counts.compared[PAIRS_NOISE] >= EVIDENCE_NOISE_MIN && !found->beyond;
	*ret_differing = noise ? 0 : found->counts.differing[PAIRS_SIDES];
	return *ret_compared > 0;
}

static void evidence_read_differences(const struct evidence_question *q, struct phase_evidence *ret)
{
	const struct operation *op;
	ret->differences_known = true;
	for (size_t i = 0; (op = flag_users_at(q->users, i)); i++) {
		uint64_t compared, differing;
		if (!evidence_count_pairs(q, op, &compared, &differing)) {
			ret->differences_known = false;
			return;
		}
		double upper = evidence_upper(differing, compared);
		if (i && upper <= ret->differences)
			continue;
		ret->differences = upper;
		ret->compared = compared;
		ret->differing = differing;
	}
}

/* --- all operations ------------------------------------------------------------------------------------- */

static void evidence_ask(const struct evidence_question *q, const struct operation *op,
			 struct evidence_one *ret)
{
	CLEANUP(freep) char *service = span_dup(op->service), *operation = span_dup(op->name);
	*ret = (struct evidence_one){.since_us = q->since_us};
	if (!service || !operation) {
		*ret = (struct evidence_one){EVIDENCE_UNREADABLE, "gate", "cannot be read", "out of memory",
					     0};
		return;
	}
	if (evidence_ask_guard(q, op, service, operation, ret))
		return;
	*ret = (struct evidence_one){.since_us = q->since_us};
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
	snprintf(ret->why, sizeof(ret->why), "no operation uses the flag");
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
	buf_puts(json, "]");
	evidence_read_differences(q, ret);
	if (ret->differences_known)
		buf_printf(json,
			   ",\"compared\":%" PRIu64 ",\"differing\":%" PRIu64 ",\"may_differ_percent\":%.3g",
			   ret->compared, ret->differing, ret->differences);
	buf_putc(json, '}');
}
