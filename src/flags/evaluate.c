/*
 * Evaluation of one flag, as Flipt does it (docs/protocols/flipt.md, "Evaluation"). Pure: no clock, no
 * allocation.
 */
#include "base/checksum.h"
#include "flags/model.h"
#include "flags/trace.h"

/* What is asked, and where the answer goes. */
struct question {
	const struct flag *flag;
	struct span entity_id;
	const struct flag_context *context;
	size_t n_context;
	enum flag_rules rules;
	const struct flag_trace *trace;
	struct flag_result *result;
};

/* The last entry of a key counts; a missing one is "". */
static struct span context_value(const struct question *q, const struct constraint *c)
{
	if (c->type == CONSTRAINT_ENTITY_ID)
		return q->entity_id;
	for (size_t i = q->n_context; i-- > 0;) {
		if (span_eq(q->context[i].key, c->property))
			return q->context[i].value;
	}
	return SPAN_LIT("");
}

static bool segment_matches(const struct question *q, const struct segment *s)
{
	const struct constraint *deciding = NULL;
	struct span value = SPAN_NONE;
	for (size_t i = 0; i < s->n_constraints && !deciding; i++) {
		struct span v = context_value(q, &s->constraints[i]);
		if (constraint_match(&s->constraints[i], v) == s->any) {
			deciding = &s->constraints[i];
			value = v;
		}
	}
	bool matched = s->any ? deciding || s->n_constraints == 0 : !deciding;
	if (q->trace)
		trace_segment(q->trace, s, matched, deciding, value);
	return matched;
}

/* Every segment is checked, since the answer lists all that matched. On true the result holds their
 * keys. */
static bool condition_holds(const struct question *q, const struct condition *c, const char *what,
			    size_t index)
{
	struct flag_result *r = q->result;
	r->segments = 0;
	trace_condition(q->trace, what, index, c);
	for (size_t i = 0; i < c->n_segments; i++) {
		if (segment_matches(q, c->segments[i]))
			r->segment_keys[r->segments++] = c->segments[i]->key.ptr;
	}
	bool holds = c->all ? r->segments == c->n_segments : r->segments > 0;
	trace_condition_end(q->trace, what, c, r->segments, holds);
	if (!holds)
		r->segments = 0;
	return holds;
}

static int variant_bucket(const struct question *q)
{
	return (int)(checksum_crc32(q->flag->key_crc, q->entity_id) % MODEL_BUCKETS);
}

static int threshold_bucket(const struct question *q)
{
	/* The other way round than for variants: entity first, then the key. */
	return (int)(checksum_crc32(checksum_crc32(CHECKSUM_CRC32_START, q->entity_id), q->flag->key) % 100);
}

static void choose_variant(const struct question *q, const struct rule *rule)
{
	struct flag_result *r = q->result;
	if (rule->n_distributions == 0) {
		r->match = true;
		r->reason = FLAG_REASON_MATCH;
		flag_trace_say(q->trace, 2, "the rule has no share above 0 %%: variant \"%.*s\"",
			       SPAN_ARG(r->variant));
		return;
	}
	r->bucket = variant_bucket(q);
	r->by_percentage = rule->by_percentage;
	const struct distribution *chosen = NULL;
	for (size_t i = 0; i < rule->n_distributions && !chosen; i++) {
		if (r->bucket < rule->distributions[i].limit)
			chosen = &rule->distributions[i];
	}
	trace_distribution(q->trace, rule, r->bucket, chosen);
	if (!chosen)
		return; /* v1, past the last limit: no match, and the reason stays as it was preset */
	r->match = true;
	r->reason = FLAG_REASON_MATCH;
	r->variant = chosen->variant;
	r->attachment = chosen->attachment;
}

static void evaluate_variant(const struct question *q)
{
	const struct flag *f = q->flag;
	struct flag_result *r = q->result;
	if (f->has_default) {
		r->reason = FLAG_REASON_DEFAULT;
		r->variant = f->default_variant;
		r->attachment = f->default_attachment;
	}
	if (!f->enabled) {
		r->reason = FLAG_REASON_DISABLED;
		flag_trace_say(q->trace, 1, "the flag is disabled: its rules are not evaluated");
		return;
	}
	for (size_t i = 0; i < f->n_rules; i++) {
		if (condition_holds(q, &f->rules[i].condition, "rule", i)) {
			choose_variant(q, &f->rules[i]);
			return;
		}
	}
	if (f->has_default)
		flag_trace_say(q->trace, 1, "no rule matched: default variant \"%.*s\"",
			       SPAN_ARG(f->default_variant));
	else
		flag_trace_say(q->trace, 1, "no rule matched, and there is no default variant");
}

/* Thresholds of 0 or less and above 99 take no one or everyone: hashes are whole numbers from 0 to 99. */
static bool threshold_splits(const struct rollout *rollout)
{
	return rollout->percentage > 0 && rollout->percentage <= 99;
}

static bool threshold_holds(const struct question *q, const struct rollout *rollout, size_t index)
{
	struct flag_result *r = q->result;
	if (r->bucket < 0)
		r->bucket = threshold_bucket(q);
	r->by_percentage |= threshold_splits(rollout);
	bool holds = (float)r->bucket < rollout->percentage;
	trace_threshold(q->trace, index, rollout, r->bucket, holds);
	return holds;
}

/* A disabled boolean flag still runs its rollouts; `enabled` is merely what it answers when none matches. */
static void evaluate_boolean(const struct question *q)
{
	const struct flag *f = q->flag;
	struct flag_result *r = q->result;
	for (size_t i = 0; i < f->n_rollouts; i++) {
		const struct rollout *rollout = &f->rollouts[i];
		if (rollout->is_threshold ? !threshold_holds(q, rollout, i)
					  : !condition_holds(q, &rollout->condition, "rollout", i))
			continue;
		r->reason = FLAG_REASON_MATCH;
		r->enabled = rollout->value;
		flag_trace_say(q->trace, 2, "so the answer is %s", r->enabled ? "true" : "false");
		return;
	}
	r->reason = FLAG_REASON_DEFAULT;
	r->enabled = f->enabled;
	flag_trace_say(q->trace, 1, "no rollout matched: the flag's own value, %s",
		       r->enabled ? "true" : "false");
}

void flag_evaluate(const struct flag_snapshot *s, const struct flag *f, struct span entity_id,
		   const struct flag_context *context, size_t n_context, struct flag_result *ret,
		   const struct flag_trace *trace)
{
	struct question q = {f, entity_id, context, n_context, s->rules, trace, ret};
	ret->type = f->type;
	ret->reason = FLAG_REASON_UNKNOWN;
	ret->match = ret->enabled = ret->by_percentage = false;
	ret->variant = ret->attachment = SPAN_LIT("");
	ret->bucket = -1;
	ret->segments = 0;
	if (f->broken) {
		flag_trace_say(trace, 0, "flag \"%s\" is set aside: %s", f->key.ptr, f->broken);
		return;
	}
	trace_flag(trace, f);
	if (f->type == FLAG_VARIANT)
		evaluate_variant(&q);
	else
		evaluate_boolean(&q);
}

/* --- what chance alone could have answered ------------------------------------------------------------ */

struct sharing {
	void (*fn)(void *arg, double share, const struct flag_result *r);
	void *arg;
};

static void share_variant(const struct question *q, const struct rule *rule, const struct sharing *to)
{
	struct flag_result *r = q->result;
	struct flag_result past = *r; /* past the last limit: no match, as it was preset */
	int from = 0;
	r->match = true;
	r->reason = FLAG_REASON_MATCH;
	r->by_percentage = past.by_percentage = true;
	for (size_t i = 0; i < rule->n_distributions && from < MODEL_BUCKETS; i++) {
		const struct distribution *d = &rule->distributions[i];
		int limit = d->limit < MODEL_BUCKETS ? d->limit : MODEL_BUCKETS;
		if (limit <= from)
			continue;
		r->variant = d->variant;
		r->attachment = d->attachment;
		to->fn(to->arg, (double)(limit - from) / MODEL_BUCKETS, r);
		from = limit;
	}
	if (from < MODEL_BUCKETS)
		to->fn(to->arg, (double)(MODEL_BUCKETS - from) / MODEL_BUCKETS, &past);
}

static void share_variants(const struct question *q, const struct sharing *to)
{
	const struct flag *f = q->flag;
	for (size_t i = 0; i < f->n_rules && f->enabled; i++) {
		const struct rule *rule = &f->rules[i];
		if (!condition_holds(q, &rule->condition, "rule", i))
			continue;
		if (!rule->by_percentage)
			break;
		if (f->has_default) {
			q->result->reason = FLAG_REASON_DEFAULT;
			q->result->variant = f->default_variant;
			q->result->attachment = f->default_attachment;
		}
		share_variant(q, rule, to);
		return;
	}
	evaluate_variant(q);
	to->fn(to->arg, 1, q->result);
}

static void share_boolean(const struct question *q, const struct sharing *to)
{
	const struct flag *f = q->flag;
	struct flag_result *r = q->result;
	int from = 0;
	r->reason = FLAG_REASON_MATCH;
	for (size_t i = 0; i < f->n_rollouts && from < 100; i++) {
		const struct rollout *rollout = &f->rollouts[i];
		int limit = 100;
		r->by_percentage |= rollout->is_threshold && threshold_splits(rollout);
		r->enabled = rollout->value;
		if (rollout->is_threshold)
			while (limit > from && !((float)(limit - 1) < rollout->percentage))
				limit--;
		else if (!condition_holds(q, &rollout->condition, "rollout", i))
			continue;
		if (limit > from)
			to->fn(to->arg, (double)(limit - from) / 100, r);
		from = limit > from ? limit : from;
	}
	r->reason = FLAG_REASON_DEFAULT;
	r->enabled = f->enabled;
	if (from < 100)
		to->fn(to->arg, (double)(100 - from) / 100, r);
}

void flag_each_share(const struct flag_snapshot *s, const struct flag *f, struct span entity_id,
		     const struct flag_context *context, size_t n_context,
		     void (*fn)(void *arg, double share, const struct flag_result *r), void *arg)
{
	struct flag_result r = {.type = f->type,
				.reason = FLAG_REASON_UNKNOWN,
				.variant = SPAN_LIT(""),
				.attachment = SPAN_LIT(""),
				.bucket = -1};
	struct question q = {f, entity_id, context, n_context, s->rules, NULL, &r};
	struct sharing to = {fn, arg};
	if (f->broken)
		fn(arg, 1, &r);
	else if (f->type == FLAG_VARIANT)
		share_variants(&q, &to);
	else
		share_boolean(&q, &to);
}

const char *flag_reason_text(enum flag_reason r)
{
	switch (r) {
	case FLAG_REASON_UNKNOWN:
		return "UNKNOWN_EVALUATION_REASON";
	case FLAG_REASON_DISABLED:
		return "FLAG_DISABLED_EVALUATION_REASON";
	case FLAG_REASON_MATCH:
		return "MATCH_EVALUATION_REASON";
	case FLAG_REASON_DEFAULT:
		return "DEFAULT_EVALUATION_REASON";
	}
	return "UNKNOWN_EVALUATION_REASON";
}
