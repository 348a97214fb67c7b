#include "guard/guard_evidence.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SHARE_TOLERATED 1.05 /* odds: 25 % is between 24 and 26 */
#define NEGLIGIBLE_POINTS 8
#define MISSING_MAX 1e15

static const struct guard_question more_question = {SHARE_TOLERATED, GUARD_ABOVE, GUARD_PRIOR_SHARE};
static const struct guard_question fewer_question = {1 / SHARE_TOLERATED, GUARD_BELOW, GUARD_PRIOR_SHARE};

static struct guard_question worse_question(const struct guard_rule *rule)
{
	return (struct guard_question){1 + rule->tolerated, GUARD_ABOVE, GUARD_PRIOR_HARM};
}

static struct guard_question harmless_question(const struct guard_rule *rule)
{
	return (struct guard_question){rule->harm, GUARD_BELOW, GUARD_PRIOR_HARM};
}

/* The kinds' tests are of entities that may be the same: only the sum of their alphas is a bound. */
double guard_needed_worse(const struct guard_rule *rule, enum guard_kind kind)
{
	return -log(rule->alpha * (kind == GUARD_FAILURE ? 0.8 : 0.1));
}

/* All kinds must pass, so that none of them has to share. */
double guard_needed_harmless(const struct guard_rule *rule)
{
	return -log(rule->alpha);
}

/* Evidence that the kind's share among the task side's entities is below `negligible`: a mixture over smaller
 * shares, down to none. */
static double negligible_evidence(const struct guard_evidence *e, const struct guard_rule *rule,
				  enum guard_kind kind)
{
	double n = (double)e->seen[OUTCOME_TASK], bad = (double)e->kinds[kind].bad_seen[OUTCOME_TASK];
	double q = rule->negligible, most = -INFINITY, sum = 0, logs[NEGLIGIBLE_POINTS];
	if (!(q > 0))
		return 0;
	for (int i = 0; i < NEGLIGIBLE_POINTS; i++) {
		double p = i == 0 ? 0 : q / (double)(1 << i);
		double of_bad = bad > 0 ? bad * log(p / q) : 0;
		logs[i] = of_bad + (n - bad) * (log1p(-p) - log1p(-q)) - log(NEGLIGIBLE_POINTS);
		most = fmax(most, logs[i]);
	}
	for (int i = 0; i < NEGLIGIBLE_POINTS; i++)
		sum += exp(logs[i] - most);
	return most + log(sum);
}

static double harmless_evidence(const struct guard_evidence *e, const struct guard_rule *rule,
				enum guard_kind kind)
{
	struct guard_question q = harmless_question(rule);
	return fmax(guard_test_evidence(&e->kinds[kind].harmless, &q), negligible_evidence(e, rule, kind));
}

/* Two tests for one alpha; what is safe once stays so, a breach comes before it. */
static void guard_heed_safe(struct guard_kind_evidence *k, const struct guard_rule *rule, double evidence,
			    int64_t now_us)
{
	if (!k->safe_us && evidence >= guard_needed_harmless(rule) + log(2))
		k->safe_us = now_us;
}

void guard_evidence_seen(struct guard_evidence *e, const struct guard_rule *rule, const struct guard_sight *s)
{
	bool task = s->served == OUTCOME_TASK;
	if (!guard_test_add(&e->more, &more_question, task, s->share))
		return;
	guard_test_add(&e->fewer, &fewer_question, task, s->share);
	e->tested++;
	e->share_sum += s->share;
	e->seen[s->assigned]++;
	e->entities[s->served] += s->stands_for;
	if (s->assigned == OUTCOME_TASK && !task && s->reason < GUARD_REASONS)
		e->diverted[s->reason]++;
	double needed = -log(rule->alpha / 2);
	if (!e->mismatch_us && (guard_test_evidence(&e->more, &more_question) >= needed ||
				guard_test_evidence(&e->fewer, &fewer_question) >= needed))
		e->mismatch_us = s->now_us;
	for (int k = 0; k < GUARD_KIND_COUNT; k++)
		if (s->assigned == OUTCOME_TASK && !e->kinds[k].safe_us)
			guard_heed_safe(&e->kinds[k], rule, negligible_evidence(e, rule, k), s->now_us);
}

void guard_evidence_bad(struct guard_evidence *e, const struct guard_rule *rule, const struct guard_bad *b)
{
	struct guard_kind_evidence *k = &e->kinds[b->kind];
	struct guard_question worse = worse_question(rule), harmless = harmless_question(rule);
	bool task = b->assigned == OUTCOME_TASK;
	if (!guard_test_add(&k->worse, &worse, task, b->share))
		return;
	guard_test_add(&k->harmless, &harmless, task, b->share);
	k->bad[b->assigned]++;
	k->bad_seen[b->assigned] += b->seen;
	if (!k->breached_us && guard_test_evidence(&k->worse, &worse) >= guard_needed_worse(rule, b->kind))
		k->breached_us = b->now_us;
	guard_heed_safe(k, rule, harmless_evidence(e, rule, b->kind), b->now_us);
}

/* --- the verdict ---------------------------------------------------------------------------------------- */

/* Entities of both sides until a kind is safe, were the task side no worse; INFINITY: never. */
static double guard_missing_of(const struct guard_evidence *e, const struct guard_rule *rule, int kind)
{
	const struct guard_kind_evidence *k = &e->kinds[kind];
	struct guard_question q = harmless_question(rule);
	double entities = (double)(e->entities[OUTCOME_LEGACY] + e->entities[OUTCOME_TASK]);
	double bad = (double)(k->bad[OUTCOME_LEGACY] + k->bad[OUTCOME_TASK]);
	double needed = guard_needed_harmless(rule) + log(2), by_odds = INFINITY, by_share = INFINITY;
	double share = e->tested ? e->share_sum / (double)e->tested : 0;
	double growth = guard_test_growth(&q, 1, share);
	if (bad > 0 && growth > 0)
		by_odds = (needed - guard_test_evidence(&k->harmless, &q)) / growth * entities / bad;
	double task = (double)e->seen[OUTCOME_TASK], rate = 0;
	if (task > 0)
		rate = (double)k->bad_seen[OUTCOME_TASK] / task;
	double of_task = -log1p(-rule->negligible);
	if (rule->negligible > 0 && rate < rule->negligible && share > 0)
		by_share = (needed - negligible_evidence(e, rule, kind)) / of_task / share;
	return fmax(1, fmin(by_odds, by_share));
}

static void guard_fill_missing(const struct guard_evidence *e, const struct guard_rule *rule, int64_t now_us,
			       struct guard_operation_verdict *v)
{
	double missing = 0, entities = (double)(v->entities[0] + v->entities[1]);
	for (int kind = 0; kind < GUARD_KIND_COUNT; kind++)
		if (v->kinds[kind].judged && v->kinds[kind].verdict != GUARD_SAFE)
			missing = fmax(missing, guard_missing_of(e, rule, kind));
	double seconds = (double)(now_us - v->began_us) / 1e6;
	bool known = missing < MISSING_MAX;
	v->missing_entities = known ? (uint64_t)ceil(missing) : GUARD_UNKNOWN;
	v->missing_seconds = GUARD_UNKNOWN;
	if (known && entities > 0 && seconds > 0 && missing / entities * seconds < MISSING_MAX)
		v->missing_seconds = (uint64_t)ceil(missing / entities * seconds);
}

static void guard_fill_kind(const struct guard_evidence *e, const struct guard_rule *rule, int kind,
			    struct guard_kind_verdict *k)
{
	const struct guard_kind_evidence *of = &e->kinds[kind];
	struct guard_question worse = worse_question(rule);
	memcpy(k->bad, of->bad, sizeof(k->bad));
	k->worse = guard_test_evidence(&of->worse, &worse);
	k->worse_needed = guard_needed_worse(rule, kind);
	k->harmless = harmless_evidence(e, rule, kind);
	k->harmless_needed = guard_needed_harmless(rule) + log(2);
	k->breached_us = of->breached_us;
	k->safe_us = of->safe_us;
	k->verdict = GUARD_NOT_ENOUGH_DATA;
	if (of->breached_us)
		k->verdict = GUARD_BREACH;
	else if (of->safe_us)
		k->verdict = GUARD_SAFE;
}

static const char *share_reason(const struct guard_evidence *e, double seen, double expected)
{
	int most = 0;
	for (int i = 1; i < GUARD_REASONS; i++)
		if (e->diverted[i] > e->diverted[most])
			most = i;
	if (seen < expected && e->diverted[most] > 0)
		return outcome_reason_text(most);
	return NULL;
}

static void guard_fill_share(const struct guard_evidence *e, struct guard_operation_verdict *v)
{
	double all = (double)(e->entities[OUTCOME_LEGACY] + e->entities[OUTCOME_TASK]);
	memcpy(v->entities, e->entities, sizeof(v->entities));
	v->share = e->tested ? e->share_sum / (double)e->tested : 0;
	v->share_seen = all > 0 ? (double)e->entities[OUTCOME_TASK] / all : 0;
	v->share_mismatch = e->mismatch_us != 0;
	if (!v->share_mismatch)
		return;
	const char *reason = share_reason(e, v->share_seen, v->share);
	if (reason)
		snprintf(v->share_reason, sizeof(v->share_reason),
			 "most of the missing ones went to legacy as %s", reason);
	else
		snprintf(v->share_reason, sizeof(v->share_reason),
			 "nothing diverted them: entity ids may not be evenly hashed, or another router has "
			 "other flags");
}

void guard_evidence_verdict(const struct guard_evidence *e, const struct guard_rule *rule, bool judge_slow,
			    int64_t now_us, struct guard_operation_verdict *v)
{
	bool safe = true, breach = false;
	for (int kind = 0; kind < GUARD_KIND_COUNT; kind++) {
		struct guard_kind_verdict *k = &v->kinds[kind];
		guard_fill_kind(e, rule, kind, k);
		k->judged = kind != GUARD_SLOW || judge_slow;
		breach = breach || (k->judged && k->verdict == GUARD_BREACH);
		safe = safe && (!k->judged || k->verdict == GUARD_SAFE);
	}
	guard_fill_share(e, v);
	v->verdict = GUARD_NOT_ENOUGH_DATA;
	if (breach)
		v->verdict = GUARD_BREACH;
	else if (v->share_mismatch)
		v->verdict = GUARD_SHARE_MISMATCH;
	else if (safe)
		v->verdict = GUARD_SAFE;
	v->missing_entities = v->missing_seconds = 0;
	if (v->verdict == GUARD_NOT_ENOUGH_DATA)
		guard_fill_missing(e, rule, now_us, v);
}
