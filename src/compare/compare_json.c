/* Two JSON texts, place by place. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "compare/compare_internal.h"
#include "compare/compare_tree.h"
#include "compare/compare_value.h"

enum { LEFT, RIGHT };

struct json_compare {
	const struct compare_options *options;
	struct compare_result *result;
	struct compare_tree trees[2];
	struct compare_path path;
	uint32_t *at; /* of each rule's pattern, per level */
	uint64_t work;
	enum compare_why why; /* other than none: over */
};

/* The rules of one place, together. */
struct json_rule {
	bool ignore, map, unordered;
	struct compare_fold fold;
	const char *key;
	double tolerance, relative, similarity;
};

static void json_walk(struct json_compare *c, unsigned level, uint32_t a, uint32_t b);

static bool json_over(const struct json_compare *c)
{
	return c->why != COMPARE_WHY_NONE || c->result->more;
}

static void json_spend(struct json_compare *c, size_t bytes)
{
	c->work += 1 + c->options->n_rules / 8 + bytes / 16;
	if (c->work > COMPARE_WORK_MAX && c->why == COMPARE_WHY_NONE)
		c->why = COMPARE_WHY_WORK;
}

/* --- rules ---------------------------------------------------------------------------------------------- */

static uint32_t *json_positions(const struct json_compare *c, unsigned level)
{
	return c->at + (size_t)level * c->options->n_rules;
}

/* Level + 1 is the place one step below. */
static void json_step(struct json_compare *c, unsigned level, struct span name, int64_t index)
{
	const uint32_t *from = json_positions(c, level);
	uint32_t *to = json_positions(c, level + 1);
	for (size_t i = 0; i < c->options->n_rules; i++)
		to[i] = from[i] ? compare_pattern_step(&c->options->rules[i].pattern, from[i], name, index)
				: 0;
}

static struct json_rule json_rule_at(const struct json_compare *c, unsigned level)
{
	struct json_rule rule = {0};
	const uint32_t *at = json_positions(c, level);
	for (size_t i = 0; i < c->options->n_rules; i++) {
		const struct compare_rule *r = &c->options->rules[i];
		if (!at[i] || !compare_pattern_matched(&r->pattern, at[i]))
			continue;
		rule.ignore |= r->ignore;
		rule.map |= r->map;
		rule.unordered |= r->unordered;
		rule.fold.letters |= r->fold_case;
		rule.fold.space |= r->fold_space;
		rule.key = r->key ? r->key : rule.key;
		rule.tolerance = r->tolerance > rule.tolerance ? r->tolerance : rule.tolerance;
		rule.relative = r->relative > rule.relative ? r->relative : rule.relative;
		if (r->similarity > 0 && (rule.similarity <= 0 || r->similarity < rule.similarity))
			rule.similarity = r->similarity;
	}
	return rule;
}

/* --- what differs --------------------------------------------------------------------------------------- */

static const struct compare_node *json_node(const struct json_compare *c, int side, uint32_t node)
{
	return &c->trees[side].nodes[node];
}

static void json_note(struct json_compare *c, enum compare_kind kind, struct span left, struct span right)
{
	compare_note(c->result, c->path.text, kind, left, right);
}

/* A child of which the other side has none; its place is at level + 1. */
static void json_alone(struct json_compare *c, unsigned level, int side, uint32_t node, int64_t index,
		       struct span written)
{
	const struct compare_node *child = json_node(c, side, node);
	json_spend(c, 0);
	json_step(c, level, child->name, index);
	if (json_rule_at(c, level + 1).ignore)
		return;
	struct compare_path_mark mark = compare_path_enter(&c->path, written);
	if (side == LEFT)
		json_note(c, COMPARE_MISSING, child->value, SPAN_NONE);
	else
		json_note(c, COMPARE_EXTRA, SPAN_NONE, child->value);
	compare_path_leave(&c->path, mark);
}

static void json_pair(struct json_compare *c, unsigned level, uint32_t a, uint32_t b, int64_t index,
		      struct span written)
{
	json_step(c, level, json_node(c, LEFT, a)->name, index);
	struct compare_path_mark mark = compare_path_enter(&c->path, written);
	json_walk(c, level + 1, a, b);
	compare_path_leave(&c->path, mark);
}

/* --- strings and numbers -------------------------------------------------------------------------------- */

/* A string's characters, folded. */
static int json_string_put(struct span raw, struct compare_fold fold, struct buf *out)
{
	if (!fold.letters && !fold.space)
		return json_unescape(raw, out);
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(raw.len);
	int r = json_unescape(raw, &text);
	return r < 0 ? r : compare_text_fold(buf_span(&text), fold, out);
}

static void json_strings(struct json_compare *c, const struct json_rule *rule, struct span a, struct span b)
{
	json_spend(c, a.len + b.len);
	if (span_eq(a, b))
		return;
	CLEANUP(buf_releasep) struct buf x = BUF_INIT(a.len), y = BUF_INIT(b.len);
	if (json_string_put(a, rule->fold, &x) < 0 || json_string_put(b, rule->fold, &y) < 0) {
		c->why = COMPARE_WHY_MEMORY;
		return;
	}
	if (span_eq(buf_span(&x), buf_span(&y)))
		return;
	if (rule->similarity <= 0) {
		json_note(c, COMPARE_VALUE, a, b);
		return;
	}
	json_spend(c, (a.len + b.len) * 32); /* it sorts */
	if (json_over(c))
		return;
	double alike = compare_text_similarity(buf_span(&x), buf_span(&y));
	if (alike < 0)
		c->why = COMPARE_WHY_MEMORY;
	else if (alike < rule->similarity)
		json_note(c, COMPARE_TEXT, a, b);
}

static void json_numbers(struct json_compare *c, const struct json_rule *rule, struct span a, struct span b)
{
	json_spend(c, a.len + b.len);
	if (json_equal(a, b) != 1 && !compare_numbers_close(a, b, rule->tolerance, rule->relative))
		json_note(c, COMPARE_VALUE, a, b);
}

/* --- objects and arrays --------------------------------------------------------------------------------- */

struct json_children {
	uint32_t *at, n;
};

static void json_children_release(struct json_children *l)
{
	free(l->at);
}

static bool json_children_of(struct json_compare *c, int side, uint32_t node, struct json_children *ret)
{
	json_spend(c, json_node(c, side, node)->children * 16);
	if (compare_tree_children(&c->trees[side], node, &ret->at, &ret->n) == 0)
		return true;
	c->why = COMPARE_WHY_MEMORY;
	return false;
}

static void json_objects(struct json_compare *c, unsigned level, const struct json_rule *rule, uint32_t a,
			 uint32_t b)
{
	CLEANUP(json_children_release) struct json_children x = {0}, y = {0};
	if (!json_children_of(c, LEFT, a, &x) || !json_children_of(c, RIGHT, b, &y))
		return;
	uint32_t i = 0, j = 0;
	while ((i < x.n || j < y.n) && !json_over(c)) {
		struct span left = i < x.n ? json_node(c, LEFT, x.at[i])->name : SPAN_NONE;
		struct span right = j < y.n ? json_node(c, RIGHT, y.at[j])->name : SPAN_NONE;
		int order = i == x.n ? 1 : -1;
		if (i < x.n && j < y.n)
			order = compare_tree_order(left, right);
		struct span written = order <= 0 ? left : right;
		if (rule->map)
			written = SPAN_LIT("*");
		if (order == 0)
			json_pair(c, level, x.at[i], y.at[j], -1, written);
		else if (order < 0)
			json_alone(c, level, LEFT, x.at[i], -1, written);
		else
			json_alone(c, level, RIGHT, y.at[j], -1, written);
		i += order <= 0;
		j += order >= 0;
	}
}

static void json_arrays(struct json_compare *c, unsigned level, uint32_t a, uint32_t b)
{
	uint32_t i = a + 1, j = b + 1, left_end = json_node(c, LEFT, a)->after,
		 right_end = json_node(c, RIGHT, b)->after;
	for (int64_t index = 0; (i < left_end || j < right_end) && !json_over(c); index++) {
		if (i >= left_end)
			json_alone(c, level, RIGHT, j, index, SPAN_LIT("*"));
		else if (j >= right_end)
			json_alone(c, level, LEFT, i, index, SPAN_LIT("*"));
		else
			json_pair(c, level, i, j, index, SPAN_LIT("*"));
		i = i < left_end ? json_node(c, LEFT, i)->after : i;
		j = j < right_end ? json_node(c, RIGHT, j)->after : j;
	}
}

/* --- arrays in any order -------------------------------------------------------------------------------- */

static uint64_t json_hash(struct json_compare *c, int side, unsigned level, uint32_t node);

static uint64_t json_hash_string(struct json_compare *c, struct span raw, struct compare_fold fold)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(raw.len);
	json_spend(c, raw.len);
	if (json_string_put(raw, fold, &text) < 0)
		c->why = COMPARE_WHY_MEMORY;
	return compare_hash(JSON_STRING, buf_span(&text).ptr, text.len);
}

/* Members in any order: their sum. */
static uint64_t json_hash_children(struct json_compare *c, int side, unsigned level, uint32_t node)
{
	CLEANUP(json_children_release) struct json_children list = {0};
	const struct compare_node *parent = json_node(c, side, node);
	uint64_t hash = parent->type;
	if (!json_children_of(c, side, node, &list))
		return 0;
	for (uint32_t i = 0; i < list.n && !json_over(c); i++) {
		struct span name = json_node(c, side, list.at[i])->name;
		bool member = parent->type == JSON_OBJECT;
		json_step(c, level, name, member ? -1 : (int64_t)i);
		if (json_rule_at(c, level + 1).ignore)
			continue;
		uint64_t value = json_hash(c, side, level + 1, list.at[i]);
		if (member)
			hash += compare_hash(value, name.ptr, name.len);
		else
			hash = compare_hash(hash, &value, sizeof(value));
	}
	return hash;
}

/* Values that the rules call equal have the same hash, but for nested arrays in any order and for what is
 * close or alike in them, which counts as one value. */
static uint64_t json_hash(struct json_compare *c, int side, unsigned level, uint32_t node)
{
	const struct compare_node *n = json_node(c, side, node);
	struct json_rule rule = json_rule_at(c, level);
	json_spend(c, 0);
	switch (n->type) {
	case JSON_STRING:
		return rule.similarity > 0 ? JSON_STRING : json_hash_string(c, n->value, rule.fold);
	case JSON_NUMBER:
		json_spend(c, n->value.len);
		return rule.tolerance > 0 || rule.relative > 0 ? JSON_NUMBER : compare_number_hash(n->value);
	case JSON_ARRAY:
	case JSON_OBJECT:
		return json_hash_children(c, side, level, node);
	default:
		return n->type;
	}
}

static uint64_t json_hash_key(struct json_compare *c, struct span element, const char *key)
{
	struct span value;
	json_spend(c, element.len);
	if (!json_pointer(element, span_of(key), &value))
		return 0;
	switch (json_type_of(value)) {
	case JSON_STRING:
		return json_hash_string(c, value, (struct compare_fold){0});
	case JSON_NUMBER:
		return compare_number_hash(value);
	default:
		return compare_hash(JSON_OBJECT, value.ptr, value.len);
	}
}

struct json_element {
	uint64_t hash;
	uint32_t index, node;
	bool paired;
};

struct json_elements {
	struct json_element *at;
	uint32_t n;
};

static void json_elements_release(struct json_elements *l)
{
	free(l->at);
}

static int json_element_by_hash(const void *a, const void *b)
{
	const struct json_element *x = a, *y = b;
	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return (x->index > y->index) - (x->index < y->index);
}

static int json_element_by_index(const void *a, const void *b)
{
	const struct json_element *x = a, *y = b;
	return (x->index > y->index) - (x->index < y->index);
}

static void json_elements_of(struct json_compare *c, int side, unsigned level, const struct json_rule *rule,
			     uint32_t array, struct json_elements *ret)
{
	const struct compare_node *parent = json_node(c, side, array);
	*ret = (struct json_elements){0};
	ret->at = calloc(parent->children + 1, sizeof(*ret->at));
	if (!ret->at) {
		c->why = COMPARE_WHY_MEMORY;
		return;
	}
	for (uint32_t node = array + 1; node < parent->after && !json_over(c);
	     node = json_node(c, side, node)->after) {
		struct json_element *e = &ret->at[ret->n];
		*e = (struct json_element){.index = ret->n++, .node = node};
		json_step(c, level, SPAN_NONE, e->index);
		e->hash = rule->key ? json_hash_key(c, json_node(c, side, node)->value, rule->key)
				    : json_hash(c, side, level + 1, node);
	}
	qsort(ret->at, ret->n, sizeof(*ret->at), json_element_by_hash);
}

/* Those with the same hash are compared with each other. */
static void json_pair_by_hash(struct json_compare *c, unsigned level, struct json_elements *x,
			      struct json_elements *y)
{
	uint32_t i = 0, j = 0;
	while (i < x->n && j < y->n && !json_over(c)) {
		struct json_element *a = &x->at[i], *b = &y->at[j];
		if (a->hash == b->hash) {
			a->paired = b->paired = true;
			json_pair(c, level, a->node, b->node, a->index, SPAN_LIT("*"));
		}
		uint64_t left = a->hash, right = b->hash;
		i += left <= right;
		j += right <= left;
	}
}

static uint32_t json_next_unpaired(const struct json_elements *l, uint32_t from)
{
	while (from < l->n && l->at[from].paired)
		from++;
	return from;
}

/* The rest in order: without a key the first with the first, so that differences are reported by place. */
static void json_pair_rest(struct json_compare *c, unsigned level, const struct json_rule *rule,
			   struct json_elements *x, struct json_elements *y)
{
	qsort(x->at, x->n, sizeof(*x->at), json_element_by_index);
	qsort(y->at, y->n, sizeof(*y->at), json_element_by_index);
	uint32_t i = json_next_unpaired(x, 0), j = json_next_unpaired(y, 0);
	while ((i < x->n || j < y->n) && !json_over(c)) {
		bool left = i < x->n, right = j < y->n;
		if (left && right && !rule->key)
			json_pair(c, level, x->at[i].node, y->at[j].node, x->at[i].index, SPAN_LIT("*"));
		if (left && (rule->key || !right))
			json_alone(c, level, LEFT, x->at[i].node, x->at[i].index, SPAN_LIT("*"));
		if (right && (rule->key || !left))
			json_alone(c, level, RIGHT, y->at[j].node, y->at[j].index, SPAN_LIT("*"));
		i = left ? json_next_unpaired(x, i + 1) : i;
		j = right ? json_next_unpaired(y, j + 1) : j;
	}
}

static void json_sets(struct json_compare *c, unsigned level, const struct json_rule *rule, uint32_t a,
		      uint32_t b)
{
	CLEANUP(json_elements_release) struct json_elements x = {0}, y = {0};
	json_elements_of(c, LEFT, level, rule, a, &x);
	json_elements_of(c, RIGHT, level, rule, b, &y);
	if (json_over(c))
		return;
	json_pair_by_hash(c, level, &x, &y);
	json_pair_rest(c, level, rule, &x, &y);
}

/* --- all ------------------------------------------------------------------------------------------------ */

static bool json_same_type(enum json_type a, enum json_type b)
{
	return a == b || (a == JSON_TRUE && b == JSON_FALSE) || (a == JSON_FALSE && b == JSON_TRUE);
}

static void json_walk(struct json_compare *c, unsigned level, uint32_t a, uint32_t b)
{
	const struct compare_node *x = json_node(c, LEFT, a), *y = json_node(c, RIGHT, b);
	struct json_rule rule = json_rule_at(c, level);
	json_spend(c, 0);
	if (rule.ignore || json_over(c))
		return;
	if (!json_same_type(x->type, y->type)) {
		json_note(c, COMPARE_TYPE, x->value, y->value);
		return;
	}
	switch (x->type) {
	case JSON_STRING:
		json_strings(c, &rule, x->value, y->value);
		break;
	case JSON_NUMBER:
		json_numbers(c, &rule, x->value, y->value);
		break;
	case JSON_OBJECT:
		json_objects(c, level, &rule, a, b);
		break;
	case JSON_ARRAY:
		if (rule.unordered)
			json_sets(c, level, &rule, a, b);
		else
			json_arrays(c, level, a, b);
		break;
	default:
		if (x->type != y->type)
			json_note(c, COMPARE_VALUE, x->value, y->value);
	}
}

static enum compare_why json_why(int error)
{
	switch (error) {
	case 0:
		return COMPARE_WHY_NONE;
	case -ELOOP:
		return COMPARE_WHY_DEPTH;
	case -E2BIG:
		return COMPARE_WHY_VALUES;
	default:
		return COMPARE_WHY_MEMORY;
	}
}

static void json_compare_run(struct json_compare *c)
{
	/* One level more: children of the deepest containers are there. */
	c->at = calloc((COMPARE_DEPTH_MAX + 2) * (c->options->n_rules + 1), sizeof(*c->at));
	if (!c->at) {
		c->why = COMPARE_WHY_MEMORY;
		return;
	}
	for (size_t i = 0; i < c->options->n_rules; i++)
		c->at[i] = compare_pattern_start(&c->options->rules[i].pattern);
	compare_path_init(&c->path, "body:");
	json_walk(c, 0, 0, 0);
	free(c->at);
}

enum compare_why compare_json(struct span left, struct span right, const struct compare_options *o,
			      struct compare_result *result)
{
	struct json_compare c = {.options = o, .result = result};
	c.why = json_why(compare_tree_make(left, &c.trees[LEFT]));
	if (c.why == COMPARE_WHY_NONE)
		c.why = json_why(compare_tree_make(right, &c.trees[RIGHT]));
	if (c.why == COMPARE_WHY_NONE)
		json_compare_run(&c);
	compare_tree_release(&c.trees[LEFT]);
	compare_tree_release(&c.trees[RIGHT]);
	return c.why;
}
