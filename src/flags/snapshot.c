/*
 * Flipt's snapshot JSON → snapshot. The shape is docs/protocols/flipt.md, "Snapshot", and the recorded
 * ones.
 *
 * What a newer server knows and this program does not cannot be guessed: an unknown type, operator or word
 * sets the flag aside that contains it, and no other. An operator that is known, but not for its type,
 * never matches, as for Flipt. JSON is read as spans: values may hold NUL bytes, and a percentage is
 * rounded to float32 once, as Go does.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "flags/model.h"
#include "flags/number.h"
#include "flags/print.h"

struct reader {
	const char *name;
	struct flag_snapshot *snapshot;
	struct err *e;
};

/* A member that is looked for, and where its raw value goes (SPAN_NONE when it is missing or null). */
struct member {
	const char *key;
	struct span *ret;
};

/* --- values --------------------------------------------------------------------------------------------- */
static int fail(const struct reader *r, const char *where, const char *sentence)
{
	return err_set(r->e, -EBADMSG, "%s: %s: %s", r->name, where, sentence);
}

static int out_of_memory(const struct reader *r)
{
	return err_set(r->e, -ENOMEM, "%s: out of memory, or larger than a snapshot may be", r->name);
}

static bool key_is(struct span quoted, const char *key)
{
	size_t n = strlen(key);
	return quoted.len == n + 2 && memcmp(quoted.ptr + 1, key, n) == 0;
}

static void take_members(struct span object, const struct member *members, size_t n)
{
	struct json_iter it;
	struct span key, value;
	for (size_t i = 0; i < n; i++)
		*members[i].ret = SPAN_NONE;
	if (!object.ptr || json_type_of(object) != JSON_OBJECT)
		return;
	json_iter_init(&it, object);
	while (json_iter_next(&it, &key, &value)) {
		for (size_t i = 0; i < n; i++) {
			if (key_is(key, members[i].key))
				*members[i].ret = json_type_of(value) == JSON_NULL ? SPAN_NONE : value;
		}
	}
}

#define TAKE(object, ...) \
	take_members((object), (const struct member[]){__VA_ARGS__}, \
		     sizeof((const struct member[]){__VA_ARGS__}) / sizeof(struct member))

/* A string's content in the arena; "" when it is missing. */
static int take_text(const struct reader *r, struct span value, const char *where, struct span *ret)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT);
	if (value.ptr && json_type_of(value) != JSON_STRING)
		return fail(r, where, "must be a string");
	if (value.ptr && json_unescape(value, &text) < 0)
		return text.error ? out_of_memory(r)
				  : fail(r, where, "contains an escape that is not a character");
	return arena_copy(&r->snapshot->arena, buf_span(&text), ret) < 0 ? out_of_memory(r) : 0;
}

static int take_bool(const struct reader *r, struct span value, const char *where, bool *ret)
{
	*ret = value.ptr && json_type_of(value) == JSON_TRUE;
	if (value.ptr && !*ret && json_type_of(value) != JSON_FALSE)
		return fail(r, where, "must be true or false");
	return 0;
}

static int take_float(const struct reader *r, struct span value, const char *where, float *ret)
{
	char text[64];
	*ret = 0;
	if (!value.ptr)
		return 0;
	if (json_type_of(value) != JSON_NUMBER || value.len >= sizeof(text))
		return fail(r, where, "must be a number");
	span_copy(value, text, sizeof(text));
	*ret = strtof(text, NULL);
	return isfinite(*ret) && fabsf(*ret) <= 1e30f ? 0 : fail(r, where, "is out of range");
}

static int need_array(const struct reader *r, struct span value, const char *where, size_t *ret_count)
{
	struct json_iter it;
	struct span key, item;
	*ret_count = 0;
	if (!value.ptr)
		return 0;
	if (json_type_of(value) != JSON_ARRAY)
		return fail(r, where, "must be an array");
	json_iter_init(&it, value);
	while (json_iter_next(&it, &key, &item))
		++*ret_count;
	return 0;
}

/* Begins to iterate over an array that may be missing. */
static void begin(struct json_iter *it, struct span array)
{
	json_iter_init(it, array.ptr ? array : SPAN_LIT("[]"));
}

static bool word_begins(struct span quoted, const char *prefix)
{
	return quoted.len > 1 && span_starts((struct span){quoted.ptr + 1, quoted.len - 1}, span_of(prefix));
}

/* A word with one of two meanings, distinguished by how it begins (ALL_… or ANY_…, OR_… or AND_…); the first
 * when it is missing. */
static int take_either(const struct reader *r, struct span word, const char *no, const char *yes,
		       const char *where, bool *ret)
{
	*ret = word.ptr && word_begins(word, yes);
	if (!word.ptr || *ret || word_begins(word, no))
		return 0;
	char sentence[120];
	snprintf(sentence, sizeof(sentence), "has the unknown word %.*s", word.len > 60 ? 60 : (int)word.len,
		 word.ptr);
	return fail(r, where, sentence);
}

/* --- segments ------------------------------------------------------------------------------------------- */
static int read_constraint(const struct reader *r, struct span object, const char *where,
			   struct constraint *ret)
{
	struct span type_raw, op_raw, property_raw, value_raw, type_text, op_text, property, value;
	enum constraint_type type = CONSTRAINT_OTHER;
	enum constraint_op op = OP_OTHER;
	TAKE(object, {"type", &type_raw}, {"operator", &op_raw}, {"property", &property_raw},
	     {"value", &value_raw});
	int error = take_text(r, type_raw, where, &type_text);
	if (error == 0)
		error = take_text(r, op_raw, where, &op_text);
	if (error == 0)
		error = take_text(r, property_raw, where, &property);
	if (error == 0)
		error = take_text(r, value_raw, where, &value);
	if (error < 0)
		return error;
	if (!constraint_type_parse(type_text, &type))
		return fail(r, where, "has a constraint of an unknown type");
	if (!constraint_op_parse(op_text, &op))
		return fail(r, where, "has a constraint with an unknown operator");
	if (!constraint_op_fits(type, op))
		model_warn(r->snapshot, "%s: operator \"%.40s\" is not known for this type; it never matches",
			   where, op_text.ptr);
	if (constraint_compile(&r->snapshot->arena, type, op, property, value, ret) < 0)
		return out_of_memory(r);
	if (ret->malformed)
		model_warn(r->snapshot, "%s: %s%s", where, ret->why,
			   model_drops_segments(r->snapshot->rules) ? "; Flipt drops the whole segment" : "");
	return 0;
}

static int read_segment(const struct reader *r, struct span object, const char *where, struct segment *ret)
{
	struct span key, match, constraints, item;
	struct json_iter it;
	char place[MODEL_PLACE_MAX];
	TAKE(object, {"key", &key}, {"matchType", &match}, {"constraints", &constraints});
	int error = take_text(r, key, where, &ret->key);
	if (error == 0 && ret->key.len == 0)
		error = fail(r, where, "has a segment without a key");
	if (error < 0)
		return error;
	snprintf(place, sizeof(place), "%s, segment \"%.40s\"", where, ret->key.ptr);
	error = need_array(r, constraints, place, &ret->n_constraints);
	if (error == 0)
		error = take_either(r, match, "ALL_", "ANY_", place, &ret->any);
	if (error < 0)
		return error;
	ret->declared = true;
	ret->constraints = arena_new(&r->snapshot->arena, struct constraint, ret->n_constraints + 1);
	if (!ret->constraints)
		return out_of_memory(r);
	begin(&it, constraints);
	for (size_t i = 0; json_iter_next(&it, &key, &item); i++) {
		error = read_constraint(r, item, place, &ret->constraints[i]);
		if (error < 0)
			return error;
	}
	model_segment_finish(r->snapshot, ret);
	return 0;
}

static int read_condition(const struct reader *r, struct span segments, struct span op, const char *where,
			  struct condition *ret)
{
	struct json_iter it;
	struct span key, item;
	size_t n;
	int error = need_array(r, segments, where, &n);
	if (error == 0)
		error = take_either(r, op, "OR_", "AND_", where, &ret->all);
	if (error < 0)
		return error;
	struct segment *all = arena_new(&r->snapshot->arena, struct segment, n + 1);
	ret->segments = arena_new(&r->snapshot->arena, const struct segment *,
				  n < FLAG_MAX_SEGMENTS_PER_RULE ? n + 1 : FLAG_MAX_SEGMENTS_PER_RULE);
	if (!all || !ret->segments)
		return out_of_memory(r);
	begin(&it, segments);
	for (size_t i = 0; json_iter_next(&it, &key, &item); i++) {
		error = read_segment(r, item, where, &all[i]);
		if (error < 0)
			return error;
		if (!model_condition_add(ret, &all[i]))
			return fail(r, where, "too many segments in one rule");
	}
	return 0;
}

/* --- variant flags -------------------------------------------------------------------------------------- */
static int read_distribution(const struct reader *r, struct span object, const char *where,
			     struct distribution *ret)
{
	struct span key, attachment, rollout;
	TAKE(object, {"variantKey", &key}, {"variantAttachment", &attachment}, {"rollout", &rollout});
	int error = take_text(r, key, where, &ret->variant);
	if (error == 0)
		error = take_text(r, attachment, where, &ret->attachment);
	if (error == 0)
		error = take_float(r, rollout, where, &ret->rollout);
	return error;
}

/* v1 lists a rule once per segment, each time with its distributions once per segment: `times` of them. */
static int read_rule(const struct reader *r, struct span object, size_t times, const char *where,
		     struct rule *ret)
{
	struct span segments, op, distributions, key, item;
	struct json_iter it;
	TAKE(object, {"segments", &segments}, {"segmentOperator", &op}, {"distributions", &distributions});
	int error = read_condition(r, segments, op, where, &ret->condition);
	if (error == 0)
		error = need_array(r, distributions, where, &ret->n_distributions);
	if (error < 0)
		return error;
	if (ret->n_distributions % times == 0)
		ret->n_distributions /= times;
	ret->distributions = arena_new(&r->snapshot->arena, struct distribution, ret->n_distributions + 1);
	if (!ret->distributions)
		return out_of_memory(r);
	begin(&it, distributions);
	for (size_t i = 0; i < ret->n_distributions && json_iter_next(&it, &key, &item); i++) {
		error = read_distribution(r, item, where, &ret->distributions[i]);
		if (error < 0)
			return error;
	}
	model_rule_finish(r->snapshot, ret, where);
	return 0;
}

static struct span rule_id(struct span rule)
{
	struct span id;
	TAKE(rule, {"id", &id});
	return id;
}

static int read_rules(const struct reader *r, struct span rules, const char *where, struct flag *ret)
{
	struct json_iter it;
	struct span key, rule, next;
	size_t n;
	char place[MODEL_PLACE_MAX];
	int error = need_array(r, rules, where, &n);
	if (error < 0)
		return error;
	ret->rules = arena_new(&r->snapshot->arena, struct rule, n + 1);
	if (!ret->rules)
		return out_of_memory(r);
	begin(&it, rules);
	bool more = json_iter_next(&it, &key, &rule);
	while (more) {
		size_t times = 1;
		struct span id = rule_id(rule);
		while ((more = json_iter_next(&it, &key, &next)) && r->snapshot->rules == FLAG_RULES_V1 &&
		       id.len > 2 && span_eq(id, rule_id(next)))
			times++;
		model_place(place, where, "rule", ret->n_rules);
		error = read_rule(r, rule, times, place, &ret->rules[ret->n_rules++]);
		if (error < 0)
			return error;
		rule = next;
	}
	return 0;
}

static int read_default(const struct reader *r, struct span object, const char *where, struct flag *ret)
{
	struct span key, attachment;
	if (!object.ptr)
		return 0;
	TAKE(object, {"key", &key}, {"attachment", &attachment});
	ret->has_default = true;
	int error = take_text(r, key, where, &ret->default_variant);
	return error < 0 ? error : take_text(r, attachment, where, &ret->default_attachment);
}

/* --- boolean flags -------------------------------------------------------------------------------------- */
static int read_rollout(const struct reader *r, struct span object, const char *where, struct rollout *ret)
{
	struct span threshold, segment, type, percentage, value, segments, op;
	TAKE(object, {"threshold", &threshold}, {"segment", &segment}, {"type", &type});
	bool is_threshold = false;
	int error = take_either(r, type, "SEGMENT_", "THRESHOLD_", where, &is_threshold);
	if (error < 0)
		return error;
	if (threshold.ptr) {
		TAKE(threshold, {"percentage", &percentage}, {"value", &value});
		ret->is_threshold = true;
		error = take_float(r, percentage, where, &ret->percentage);
		if (error < 0)
			return error;
		model_threshold_check(r->snapshot, ret->percentage, where);
		return take_bool(r, value, where, &ret->value);
	}
	if (!segment.ptr)
		return fail(r, where, "has neither a segment nor a threshold");
	TAKE(segment, {"value", &value}, {"segments", &segments}, {"segmentOperator", &op});
	error = read_condition(r, segments, op, where, &ret->condition);
	return error < 0 ? error : take_bool(r, value, where, &ret->value);
}

static int read_rollouts(const struct reader *r, struct span rollouts, const char *where, struct flag *ret)
{
	struct json_iter it;
	struct span key, item;
	char place[MODEL_PLACE_MAX];
	int error = need_array(r, rollouts, where, &ret->n_rollouts);
	if (error < 0)
		return error;
	ret->rollouts = arena_new(&r->snapshot->arena, struct rollout, ret->n_rollouts + 1);
	if (!ret->rollouts)
		return out_of_memory(r);
	begin(&it, rollouts);
	for (size_t i = 0; json_iter_next(&it, &key, &item); i++) {
		model_place(place, where, "rollout", i);
		error = read_rollout(r, item, place, &ret->rollouts[i]);
		if (error < 0)
			return error;
	}
	return 0;
}

/* --- the document --------------------------------------------------------------------------------------- */
/* The contents of a flag whose key is known. */
static int read_parts(const struct reader *r, struct span object, struct flag *ret)
{
	struct span type, enabled, rules, rollouts, fallback, broken, why;
	char place[MODEL_PLACE_MAX];
	bool boolean;
	snprintf(place, sizeof(place), "flag \"%.60s\"", ret->key.ptr);
	TAKE(object, {"type", &type}, {"enabled", &enabled}, {"rules", &rules}, {"rollouts", &rollouts},
	     {"defaultVariant", &fallback}, {PRINT_BROKEN, &broken});
	if (broken.ptr) { /* it was set aside where this was printed */
		int error = take_text(r, broken, place, &why);
		return error < 0 ? error : err_set(r->e, -EBADMSG, "%s", why.ptr);
	}
	if (take_either(r, type, "VARIANT_", "BOOLEAN_", place, &boolean) < 0)
		return fail(r, place, "has an unknown type");
	ret->type = boolean ? FLAG_BOOLEAN : FLAG_VARIANT;
	int error = take_bool(r, enabled, place, &ret->enabled);
	if (error < 0 || boolean)
		return error < 0 ? error : read_rollouts(r, rollouts, place, ret);
	error = read_default(r, fallback, place, ret);
	return error < 0 ? error : read_rules(r, rules, place, ret);
}

/* A fault of this flag sets it aside; *ret_named: whether it has a key by which someone can ask for it.
 * -ENOMEM. */
static int read_flag(const struct reader *r, struct span object, size_t index, struct flag *ret,
		     bool *ret_named)
{
	struct span key;
	char place[MODEL_PLACE_MAX];
	struct err fault = {""};
	struct reader own = {.name = r->name, .snapshot = r->snapshot, .e = &fault};
	snprintf(place, sizeof(place), "flags[%zu]", index);
	TAKE(object, {"key", &key});
	int error = key.ptr ? take_text(&own, key, place, &ret->key) : fail(&own, place, "has no key");
	if (error == 0 && ret->key.len == 0)
		error = fail(&own, place, "has an empty key");
	*ret_named = error == 0;
	if (error == -EBADMSG) {
		model_mistake(r->snapshot, "%s; nobody can use it", fault.text);
		return 0;
	}
	if (error == 0) {
		model_flag_finish(ret);
		error = read_parts(&own, object, ret);
	}
	if (error == -EBADMSG) {
		model_set_aside(r->snapshot, ret, fault.text);
		return 0;
	}
	return error < 0 ? out_of_memory(r) : 0;
}

static int finish(const struct reader *r, struct span text, struct span digest)
{
	if (model_finish(r->snapshot, r->name) < 0)
		return out_of_memory(r);
	/* The server's own, when it tells one: the spacing of its JSON is random. */
	if (digest.ptr && json_type_of(digest) == JSON_STRING && digest.len > 2 &&
	    digest.len < sizeof(r->snapshot->digest)) {
		char own[MODEL_DIGEST_MAX];
		span_copy((struct span){digest.ptr + 1, digest.len - 2}, own, sizeof(own));
		flag_snapshot_set_digest(r->snapshot, own);
	} else {
		model_digest(r->snapshot, text);
	}
	return 0;
}

static int read_document(struct reader *r, struct span text, enum flag_rules rules)
{
	struct span whole, flags, digest, key, item;
	struct json_iter it;
	size_t n;
	if (!json_pointer(text, SPAN_LIT(""), &whole) || json_type_of(whole) != JSON_OBJECT)
		return fail(r, "snapshot", "must be an object");
	TAKE(whole, {"flags", &flags}, {"digest", &digest});
	/* An error answer is an object too; without flags it is no snapshot, not an empty one. */
	if (!flags.ptr)
		return fail(r, "flags", "is missing");
	int error = need_array(r, flags, "flags", &n);
	if (error < 0)
		return error;
	if (model_new(rules, n, &r->snapshot) < 0)
		return out_of_memory(r);
	begin(&it, flags);
	for (size_t i = 0; json_iter_next(&it, &key, &item); i++) {
		bool named = false;
		error = read_flag(r, item, i, &r->snapshot->flags[r->snapshot->n_flags], &named);
		if (error < 0)
			return error;
		r->snapshot->n_flags += named;
	}
	return finish(r, text, digest);
}

int flag_snapshot_parse_json(const char *name, struct span text, enum flag_rules rules,
			     struct flag_snapshot **ret, struct err *e)
{
	struct reader r = {.name = name, .e = e};
	if (text.len > FLAG_MAX_DOCUMENT)
		return err_set(e, -EFBIG, "%s: larger than the limit of %u bytes", name, FLAG_MAX_DOCUMENT);
	int error = json_validate(text, e);
	if (error < 0)
		return err_prefix(e, error, "%s", name);
	error = read_document(&r, text, rules);
	if (error < 0) {
		flag_snapshot_unref(r.snapshot);
		return error;
	}
	*ret = r.snapshot;
	return 0;
}
