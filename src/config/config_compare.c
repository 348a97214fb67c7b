/* `compare:` of the file and of an operation, and whether an operation may be shadowed at all. */
#include <stdlib.h>
#include <string.h>

#include "base/http_message.h"
#include "base/json.h"
#include "config/config_reader.h"

#define CONFIG_REDACT_MAX 32 /* patterns of one list */
#define CONFIG_DAY_MS 86400000ull

/* A list being read: how many there are is known only then. */
struct pattern_list {
	struct compare_pattern *patterns;
	size_t n;
};

static void read_share(const struct place *p, double least, double most, double *ret)
{
	char copy[32], *end = copy;
	if (!p->node)
		return;
	span_copy(p->node->kind == YAML_SCALAR ? p->node->text : SPAN_NONE, copy, sizeof(copy));
	double value = strtod(copy, &end);
	if (end == copy || *end || !(value >= least && value <= most))
		place_mistake(p, "expected a number from %g to %g", least, most);
	else
		*ret = value;
}

static bool read_pattern(const struct place *p, struct compare_pattern *ret)
{
	struct span text;
	if (!value_text(p, &text))
		return false;
	char *copy = place_text(p->reader, text);
	const char *why = copy ? compare_pattern_read(copy, ret) : NULL;
	if (why)
		place_mistake(p, "%s", why);
	return copy && !why;
}

/* --- of the whole --------------------------------------------------------------------------------------- */

static void add_redacted(const struct place *p, void *arg)
{
	struct pattern_list *list = arg;
	if (read_pattern(p, &list->patterns[list->n]))
		list->n++;
}

/* Behind `above`, which are copied. */
static void read_redact(const struct place *p, const struct compare_redaction *above,
			struct compare_redaction *ret)
{
	size_t room = CONFIG_REDACT_MAX + (above ? above->n_patterns : 0);
	struct pattern_list list = {place_memory(p->reader, room * sizeof(*list.patterns)), 0};
	if (!list.patterns)
		return;
	for (size_t i = 0; above && i < above->n_patterns; i++)
		list.patterns[list.n++] = above->patterns[i];
	value_list(p, CONFIG_REDACT_MAX, add_redacted, &list);
	*ret = (struct compare_redaction){list.patterns, list.n};
}

void read_compare_limits(const struct place *p)
{
	static const struct field fields[] = {
		{"max_answer", FIELD_SIZE, offsetof(struct pairs_options, max_answer), 1, COMPARE_BODY_MAX},
		{"max_memory", FIELD_SIZE, offsetof(struct pairs_options, max_memory), 1, 1ull << 40},
		{"samples", FIELD_UNSIGNED, offsetof(struct pairs_options, samples), 0, 10000},
		{"max_sample", FIELD_SIZE, offsetof(struct pairs_options, max_sample), 64, 1 << 20},
		{"keep_samples", FIELD_DURATION, offsetof(struct pairs_options, keep_samples_ms), 1000,
		 45 * CONFIG_DAY_MS},
		{"keep_counts_days", FIELD_UNSIGNED, offsetof(struct pairs_options, keep_counts_days), 1,
		 3650},
		{"redact", FIELD_OTHER, 0, 0, 0},
	};
	struct config *c = config_of(p);
	c->pairs = (struct pairs_options){.max_answer = 256u << 10,
					  .max_memory = 32u << 20,
					  .samples = 50,
					  .max_sample = 16u << 10,
					  .keep_samples_ms = 7 * CONFIG_DAY_MS,
					  .keep_counts_days = 90};
	READ_FIELDS(p, fields, &c->pairs);
	struct place redact = place_member(p, "redact");
	read_redact(&redact, NULL, &c->redaction);
	if (c->pairs.max_memory < 2 * c->pairs.max_answer)
		place_mistake(p,
			      "max_memory covers all answers together and cannot be below twice max_answer");
}

/* --- of an operation ------------------------------------------------------------------------------------ */

struct rule_list {
	struct compare_rule *rules;
	size_t n;
};

static void add_ignored(const struct place *p, void *arg)
{
	struct rule_list *list = arg;
	struct compare_rule *rule = &list->rules[list->n];
	*rule = (struct compare_rule){.ignore = true};
	if (read_pattern(p, &rule->pattern))
		list->n++;
}

/* true, or the pointer of the key within an element. */
static void read_unordered(const struct place *p, struct compare_rule *rule)
{
	struct span text;
	if (!p->node || yaml_bool(p->node, &rule->unordered))
		return;
	if (!yaml_string(p->node, &text) || text.len == 0 || !json_pointer_valid(text)) {
		place_mistake(p, "expected true, or a JSON pointer to an element's key, such as /id");
		return;
	}
	rule->unordered = true;
	rule->key = place_text(p->reader, text);
}

static void add_fold(const struct place *p, void *arg)
{
	static const char *const words[] = {"case", "space"};
	struct compare_rule *rule = arg;
	size_t which;
	if (!value_choice(p, words, 2, &which))
		return;
	rule->fold_case |= which == 0;
	rule->fold_space |= which == 1;
}

static void add_rule(const struct place *p, void *arg)
{
	static const struct field fields[] = {
		{"path", FIELD_OTHER, 0, 0, 0},
		{"map", FIELD_BOOL, offsetof(struct compare_rule, map), 0, 0},
		{"unordered", FIELD_OTHER, 0, 0, 0},
		{"fold", FIELD_OTHER, 0, 0, 0},
		{"tolerance", FIELD_OTHER, 0, 0, 0},
		{"relative", FIELD_OTHER, 0, 0, 0},
		{"similarity", FIELD_OTHER, 0, 0, 0},
	};
	struct rule_list *list = arg;
	struct compare_rule *rule = &list->rules[list->n];
	struct place path = place_member(p, "path"), unordered = place_member(p, "unordered");
	struct place fold = place_member(p, "fold"), tolerance = place_member(p, "tolerance");
	struct place relative = place_member(p, "relative"), similarity = place_member(p, "similarity");
	*rule = (struct compare_rule){0};
	if (!value_mapping(p))
		return;
	READ_FIELDS(p, fields, rule);
	read_unordered(&unordered, rule);
	value_list(&fold, 2, add_fold, rule);
	read_share(&tolerance, 0, 1e300, &rule->tolerance);
	read_share(&relative, 0, 1, &rule->relative);
	read_share(&similarity, 0, 1, &rule->similarity);
	if (!path.node)
		place_mistake(&path, "missing: where the rule applies, such as body:/items/*/price");
	else if (read_pattern(&path, &rule->pattern))
		list->n++;
	if (path.node && rule->pattern.text && rule->pattern.part != COMPARE_PART_BODY)
		place_mistake(&path,
			      "rules apply to places in the body; status and fields can only be ignored");
	if (p->node->count < 2)
		place_mistake(p,
			      "has no effect: add map, unordered, fold, tolerance, relative or similarity");
}

static void add_compared_field(const struct place *p, void *arg)
{
	struct compare_options *o = arg;
	const char **names = (const char **)(uintptr_t)o->fields;
	struct span name;
	if (!value_text(p, &name))
		return;
	if (!http_is_token(name))
		place_mistake(p, "not a field name");
	names[o->n_fields] = place_text(p->reader, name);
	if (names[o->n_fields])
		o->n_fields++;
}

static void read_policy(const struct place *p, struct operation *op)
{
	static const struct field fields[] = {
		{"fields", FIELD_OTHER, 0, 0, 0},	{"ignore", FIELD_OTHER, 0, 0, 0},
		{"rules", FIELD_OTHER, 0, 0, 0},	{"redact", FIELD_OTHER, 0, 0, 0},
		{"noise_sample", FIELD_OTHER, 0, 0, 0},
	};
	struct compare_policy *policy = place_memory(p->reader, sizeof(*policy));
	const char **names = place_memory(p->reader, PAIRS_FIELDS_MAX * sizeof(*names));
	struct rule_list list = {place_memory(p->reader, 2 * COMPARE_RULES_MAX * sizeof(struct compare_rule)),
				 0};
	if (!policy || !names || !list.rules || !value_mapping(p))
		return;
	READ_FIELDS(p, fields, policy);
	struct place chosen = place_member(p, "fields"), ignore = place_member(p, "ignore");
	struct place rules = place_member(p, "rules"), redact = place_member(p, "redact");
	struct place noise = place_member(p, "noise_sample");
	policy->options.fields = names;
	value_list(&chosen, PAIRS_FIELDS_MAX, add_compared_field, &policy->options);
	value_list(&ignore, COMPARE_RULES_MAX, add_ignored, &list);
	value_list(&rules, COMPARE_RULES_MAX, add_rule, &list);
	if (list.n > COMPARE_RULES_MAX)
		place_mistake(p, "ignore and rules together: at most %d, not %zu", COMPARE_RULES_MAX, list.n);
	policy->options.rules = list.rules;
	policy->options.n_rules = list.n;
	read_redact(&redact, &config_of(p)->redaction, &policy->redaction);
	policy->noise_sample = op->repeatable ? 0.05 : 0;
	read_share(&noise, 0, 1, &policy->noise_sample);
	if (noise.node && policy->noise_sample > 0 && !op->repeatable)
		place_mistake(&noise, "needs repeatable: true, since legacy is called twice");
	op->compare = policy;
}

static void check_compared(const struct place *p, const struct operation *op)
{
	struct place compare = place_member(p, "compare");
	if (!op->compare)
		return;
	if (!op->safe_to_shadow)
		place_mistake(&compare, "needs safe_to_shadow: true: only then do both sides run a request");
	if (!op->has_task)
		place_mistake(&compare, "needs a task to compare legacy with");
	if (op->legacy_response || op->legacy_body)
		place_mistake(&compare, "cannot be combined with legacy.body or legacy.response");
	if (op->task.fire_and_forget)
		place_mistake(&compare, "cannot be combined with fire_and_forget: the task gives no answer");
}

static bool variants_shadow(const struct operation *op)
{
	for (size_t i = 0; i < op->n_variants; i++)
		if (op->variants[i].shadow)
			return true;
	return false;
}

void read_shadow(const struct place *p, struct operation *op)
{
	static const char *const sides[] = {"legacy"};
	struct place shadow = place_member(p, "shadow"), share = place_member(p, "shadow_share");
	struct place compare = place_member(p, "compare"), variants = place_member(p, "variants");
	size_t which;
	op->shadow_legacy = 0;
	if (value_choice(&shadow, sides, 1, &which))
		op->shadow_legacy = 0.1;
	if (share.node && !shadow.node)
		place_mistake(&share, "has no effect without shadow: legacy");
	read_share(&share, 0, 1, &op->shadow_legacy);
	if (shadow.node && !op->safe_to_shadow)
		place_mistake(&shadow,
			      "needs safe_to_shadow: true: legacy runs what the task has already run");
	if (shadow.node && !op->has_task)
		place_mistake(&shadow, "needs a task for legacy to run alongside");
	if (shadow.node && (op->legacy_body || op->legacy_response))
		place_mistake(&shadow, "cannot be combined with legacy.body or legacy.response");
	if (variants_shadow(op) && !op->safe_to_shadow)
		place_warning(&variants, "shadow has no effect without safe_to_shadow: true");
	if (compare.node)
		read_policy(&compare, op);
	check_compared(p, op);
}
