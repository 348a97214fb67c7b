/*
 * Features file → snapshot. The grammar is docs/protocols/flipt.md, "Features file": short and long
 * spellings alike.
 *
 * What Flipt refuses is a mistake of its element, reported with file, line and key: that flag is set aside
 * (flag_broken), or those that ask for that segment, and no other; an unknown key is one, for it may be a
 * misspelled one. Of the document itself an unknown key or version is a reported mistake, and no more.
 * The one thing taken that Flipt refuses is a rule on an undeclared segment `default`, which is how people
 * write "everybody"; any other undeclared segment is a mistake, for a misspelled name must not mean
 * everybody.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/yaml.h"
#include "flags/model.h"
#include "flags/namespaces.h"

struct features {
	struct yaml_doc **docs; /* of the files, chained */
	size_t n_docs;
	const struct yaml_node **roots; /* the first of each */
	struct yaml_doc *doc;		/* whose document is being loaded */
	struct span namespace_key;	/* documents of others are not looked at */
	unsigned document;		/* being loaded, from 0 */
	struct flag_snapshot *snapshot;
	const struct segment *const *segments; /* sorted by key */
	size_t n_segments;
	const struct segment *everybody; /* stands for an undeclared `default`; NULL until needed */
	struct err *e;
};

/* A word of an enumeration and what it means; several words may mean the same. */
struct word {
	const char *text;
	int value;
};

static const struct word flag_types[] = {{"VARIANT_FLAG_TYPE", FLAG_VARIANT},
					 {"variant", FLAG_VARIANT},
					 {"BOOLEAN_FLAG_TYPE", FLAG_BOOLEAN},
					 {"boolean", FLAG_BOOLEAN},
					 {NULL, 0}};
static const struct word match_types[] = {{"ALL_MATCH_TYPE", false},
					  {"ALL_SEGMENT_MATCH_TYPE", false},
					  {"all", false},
					  {"ANY_MATCH_TYPE", true},
					  {"ANY_SEGMENT_MATCH_TYPE", true},
					  {"any", true},
					  {NULL, 0}};
static const struct word segment_operators[] = {{"OR_SEGMENT_OPERATOR", false},
						{"or", false},
						{"AND_SEGMENT_OPERATOR", true},
						{"and", true},
						{NULL, 0}};

/* --- messages ------------------------------------------------------------------------------------------- */
static int fail(const struct features *f, const struct yaml_node *at, const char *where, const char *key,
		const char *sentence)
{
	return err_set(f->e, -EBADMSG, "%s:%u: %s%s%s: %s", yaml_name(f->doc), at ? at->line : 1, where,
		       *where && *key ? ": " : "", key, sentence);
}

static int out_of_memory(const struct features *f)
{
	return err_set(f->e, -ENOMEM, "%s: out of memory, or larger than a snapshot may be",
		       yaml_name(f->doc));
}

static const struct yaml_node *unknown_key(const struct yaml_node *mapping, const char *const *known)
{
	for (const struct yaml_node *n = mapping->first; n; n = n->next) {
		size_t i = 0;
		while (known[i] && !span_is(n->key->text, known[i]))
			i++;
		if (!known[i])
			return n->key;
	}
	return NULL;
}

static int refuse_unknown_keys(const struct features *f, const struct yaml_node *mapping, const char *where,
			       const char *const *known)
{
	char key[80];
	const struct yaml_node *odd = unknown_key(mapping, known);
	if (!odd)
		return 0;
	span_copy(odd->text, key, sizeof(key));
	return fail(f, odd, where, key, "unknown key");
}

/* A mistake of an element stays with it: the errors of what is loaded meanwhile go to `own`. Returns what
 * they went to. */
static struct err *begin_element(struct features *f, struct err *own)
{
	struct err *old = f->e;
	own->text[0] = '\0';
	f->e = own;
	return old;
}

/* --- values --------------------------------------------------------------------------------------------- */
static bool is_absent(const struct yaml_node *n)
{
	return !n || yaml_is_null(n);
}

/* `key` of a mapping as text in the arena; `required` or else "". */
static int take_text(const struct features *f, const struct yaml_node *mapping, const char *where,
		     const char *key, bool required, struct span *ret)
{
	const struct yaml_node *n = yaml_get(mapping, key);
	struct span text = SPAN_LIT("");
	if (is_absent(n)) {
		if (required)
			return fail(f, n ? n : mapping, where, key, "is missing");
	} else if (!yaml_string(n, &text)) {
		return fail(f, n, where, key, "must be a text");
	} else if (required && text.len == 0) {
		return fail(f, n, where, key, "must not be empty");
	}
	return arena_copy(&f->snapshot->arena, text, ret) < 0 ? out_of_memory(f) : 0;
}

static int take_bool(const struct features *f, const struct yaml_node *mapping, const char *where,
		     const char *key, bool *ret)
{
	const struct yaml_node *n = yaml_get(mapping, key);
	*ret = false;
	if (!is_absent(n) && !yaml_bool(n, ret))
		return fail(f, n, where, key, "must be true or false");
	return 0;
}

static int take_percent(const struct features *f, const struct yaml_node *mapping, const char *where,
			const char *key, float *ret)
{
	const struct yaml_node *n = yaml_get(mapping, key);
	double v = 0;
	*ret = 0;
	if (!is_absent(n) && (!yaml_double(n, &v) || fabs(v) > 1e30))
		return fail(f, n, where, key, "must be a number");
	*ret = (float)v;
	return 0;
}

static int take_word(const struct features *f, const struct yaml_node *n, const char *where, const char *key,
		     const struct word *words, int *ret)
{
	struct span text = SPAN_LIT("");
	if (is_absent(n))
		return 0; /* *ret keeps the default */
	if (!yaml_string(n, &text))
		return fail(f, n, where, key, "must be a word");
	for (; words->text; words++) {
		if (span_is(text, words->text)) {
			*ret = words->value;
			return 0;
		}
	}
	char sentence[160];
	snprintf(sentence, sizeof(sentence), "\"%.60s\" is not known", text.ptr);
	return fail(f, n, where, key, sentence);
}

/* A list that may be missing. */
static int take_list(const struct features *f, const struct yaml_node *mapping, const char *where,
		     const char *key, const struct yaml_node **ret_first, size_t *ret_count)
{
	const struct yaml_node *n = yaml_get(mapping, key);
	*ret_first = NULL;
	*ret_count = 0;
	if (is_absent(n))
		return 0;
	if (n->kind != YAML_SEQUENCE)
		return fail(f, n, where, key, "must be a list");
	*ret_first = n->first;
	*ret_count = n->count;
	return 0;
}

/* Which of a key's two values is meant nobody can say; the sentence has file and line. */
static int refuse_fault(const struct features *f, const struct yaml_node *n)
{
	const char *fault = yaml_fault(n);
	return fault ? err_set(f->e, -EBADMSG, "%s", fault) : 0;
}

static int need_mapping(const struct features *f, const struct yaml_node *n, const char *where)
{
	return n->kind == YAML_MAPPING ? 0 : fail(f, n, where, "", "must be a mapping");
}

/* An element of a set, as JSON. What Flipt takes for text is text: true, false and nothing, too. */
static int add_to_set(const struct features *f, const struct yaml_node *item, const char *where, bool numbers,
		      struct buf *set)
{
	double number;
	bool is_number = yaml_double(item, &number), truth;
	if (item->kind != YAML_SCALAR)
		return fail(f, item, where, "value", "a set holds strings or numbers");
	if (numbers && !is_number)
		return fail(f, item, where, "value",
			    "a set of numbers holds something else (a number in quotes is a string)");
	if (!numbers && is_number)
		return fail(f, item, where, "value", "a set of strings holds a number: put it in quotes");
	if (set->len > 1)
		buf_putc(set, ',');
	if (numbers)
		buf_printf(set, "%.17g", number);
	else if (yaml_bool(item, &truth))
		buf_puts(set, truth ? "\"true\"" : "\"false\"");
	else
		json_quote(set, yaml_is_null(item) ? SPAN_LIT("") : item->text);
	return 0;
}

/* From format 1.6 on a set is a list; before, a JSON array in quotes. Both mean the same text. */
static int take_value(const struct features *f, const struct yaml_node *constraint, const char *where,
		      bool numbers, struct span *ret)
{
	CLEANUP(buf_releasep) struct buf set = BUF_INIT(FLAG_MAX_DOCUMENT);
	const struct yaml_node *list = yaml_get(constraint, "value");
	struct span op;
	enum constraint_op is = OP_OTHER;
	if (!list || list->kind != YAML_SEQUENCE)
		return take_text(f, constraint, where, "value", false, ret);
	if (!yaml_string(yaml_get(constraint, "operator"), &op) || !constraint_op_parse(op, &is) ||
	    (is != OP_IS_ONE_OF && is != OP_IS_NOT_ONE_OF))
		return fail(f, list, where, "value", "only isoneof and isnotoneof take a list");
	buf_putc(&set, '[');
	for (const struct yaml_node *item = list->first; item; item = item->next) {
		int r = add_to_set(f, item, where, numbers, &set);
		if (r < 0)
			return r;
	}
	buf_putc(&set, ']');
	return set.error || arena_copy(&f->snapshot->arena, buf_span(&set), ret) < 0 ? out_of_memory(f) : 0;
}

/* --- segments ------------------------------------------------------------------------------------------- */
static int load_constraint(const struct features *f, const struct yaml_node *n, const char *where,
			   size_t index, struct constraint *ret)
{
	static const char *const known[] = {"type", "property", "operator", "value", "description", NULL};
	char place[MODEL_PLACE_MAX];
	struct span type_text, op_text, property, value;
	enum constraint_type type;
	enum constraint_op op;
	model_place(place, where, "constraint", index);
	int r = need_mapping(f, n, place);
	if (r == 0)
		r = take_text(f, n, place, "type", true, &type_text);
	if (r == 0)
		r = take_text(f, n, place, "operator", true, &op_text);
	if (r == 0)
		r = take_text(f, n, place, "property", false, &property);
	if (r == 0)
		r = take_value(f, n, place,
			       span_is_nocase(type_text, "number") ||
				       span_starts(type_text, SPAN_LIT("NUMBER_")),
			       &value);
	if (r == 0)
		r = refuse_unknown_keys(f, n, place, known);
	if (r < 0)
		return r;
	if (!constraint_type_parse(type_text, &type))
		return fail(f, yaml_get(n, "type"), place, "type", "is not a known constraint type");
	if (!constraint_op_parse(op_text, &op))
		return fail(f, yaml_get(n, "operator"), place, "operator", "is not a known operator");
	if (!constraint_op_fits(type, op))
		return fail(f, yaml_get(n, "operator"), place, "operator", "does not apply to this type");
	if (type != CONSTRAINT_ENTITY_ID && property.len == 0)
		return fail(f, n, place, "property", "is missing");
	if (constraint_compile(&f->snapshot->arena, type, op, property, value, ret) < 0)
		return out_of_memory(f);
	if (ret->malformed)
		model_warn(f->snapshot, "%s:%u: %s: %s%s", yaml_name(f->doc), n->line, place, ret->why,
			   model_drops_segments(f->snapshot->rules) ? "; Flipt drops the whole segment" : "");
	return 0;
}

static int load_segment(const struct features *f, const struct yaml_node *n, size_t index,
			struct segment *ret)
{
	static const char *const known[] = {"key",	 "name",	"description", "match_type",
					    "matchType", "constraints", "metadata",    NULL};
	char place[MODEL_PLACE_MAX];
	const struct yaml_node *c;
	int any = false;
	snprintf(place, sizeof(place), "segments[%zu]", index);
	int r = need_mapping(f, n, place);
	if (r == 0)
		r = take_text(f, n, place, "key", true, &ret->key);
	if (r < 0)
		return r;
	snprintf(place, sizeof(place), "segment \"%.100s\"", ret->key.ptr);
	const char *match_key = yaml_get(n, "match_type") ? "match_type" : "matchType";
	r = refuse_fault(f, n);
	if (r == 0)
		r = take_word(f, yaml_get(n, match_key), place, match_key, match_types, &any);
	if (r == 0)
		r = take_list(f, n, place, "constraints", &c, &ret->n_constraints);
	if (r == 0)
		r = refuse_unknown_keys(f, n, place, known);
	if (r < 0)
		return r;
	ret->any = any;
	ret->declared = true;
	ret->constraints = arena_new(&f->snapshot->arena, struct constraint, ret->n_constraints + 1);
	if (!ret->constraints)
		return out_of_memory(f);
	for (size_t i = 0; i < ret->n_constraints && r == 0; i++, c = c->next)
		r = load_constraint(f, c, place, i, &ret->constraints[i]);
	model_segment_finish(f->snapshot, ret);
	return r;
}

static int compare_keys(struct span a, struct span b)
{
	int r = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
	return r ? r : (a.len > b.len) - (a.len < b.len);
}

static int compare_segments(const void *a, const void *b)
{
	return compare_keys((*(const struct segment *const *)a)->key,
			    (*(const struct segment *const *)b)->key);
}

static int compare_key_with_segment(const void *key, const void *segment)
{
	return compare_keys(*(const struct span *)key, (*(const struct segment *const *)segment)->key);
}

/* One that cannot be understood is kept by its key, so that what asks for it knows why. *ret_named:
 * whether it has a key. */
static int load_segment_apart(struct features *f, const struct yaml_node *n, size_t index,
			      struct segment *ret, bool *ret_named)
{
	struct err fault, *old = begin_element(f, &fault);
	int r = load_segment(f, n, index, ret);
	f->e = old;
	*ret_named = ret->key.len > 0;
	if (r == -EBADMSG) {
		ret->broken = model_keep(f->snapshot, fault.text);
		model_mistake(f->snapshot, "%s", fault.text);
		return 0;
	}
	return r < 0 ? out_of_memory(f) : 0;
}

/* Which of the two is meant nobody can say. They are neighbors in the sorted list, and so are their
 * pointers' targets in no order. */
static void refuse_twins(struct features *f, struct segment **all, unsigned line)
{
	for (size_t i = 1; i < f->n_segments; i++) {
		char why[ERR_TEXT_MAX];
		if (!span_eq(all[i]->key, all[i - 1]->key))
			continue;
		snprintf(why, sizeof(why), "%s:%u: segments: key: segment \"%.100s\" is declared twice",
			 yaml_name(f->doc), line, all[i]->key.ptr);
		all[i]->broken = all[i - 1]->broken = model_keep(f->snapshot, why);
		model_mistake(f->snapshot, "%s", why);
	}
}

/* The next document of the namespace that counts, from `root` on; NULL: there is none. */
static const struct yaml_node *own_document(const struct features *f, const struct yaml_node *root)
{
	while (root && (root->kind != YAML_MAPPING || !span_eq(namespace_of(root), f->namespace_key)))
		root = root->next;
	return root;
}

/* Messages name the file that contains it. */
static const struct yaml_node *enter_document(struct features *f, const struct yaml_node *root)
{
	size_t at = 0;
	for (const struct yaml_node *n = root ? yaml_root(f->docs[0]) : NULL; n && n != root; n = n->next)
		while (at + 1 < f->n_docs && n->next == f->roots[at + 1])
			at++;
	f->doc = f->docs[at];
	return root;
}

#define EACH_DOCUMENT(f, root) \
	(root) = enter_document((f), own_document((f), yaml_root((f)->docs[0]))), (f)->document = 0; \
	(root); \
	(root) = enter_document((f), own_document((f), (root)->next)), (f)->document++

static int load_segment_list(struct features *f, const struct yaml_node *n, struct segment *all,
			     struct segment **sorted)
{
	for (size_t i = 0; n; i++, n = n->next) {
		struct segment *s = &all[f->n_segments];
		bool named = false;
		int r = load_segment_apart(f, n, i, s, &named);
		if (r < 0)
			return r;
		s->document = f->document;
		if (named)
			sorted[f->n_segments++] = s;
		else
			*s = (struct segment){.broken = NULL}; /* the next one's place */
	}
	return 0;
}

/* What is no list declares none: flags that ask for one are set aside, all others count. */
static void take_segments(const struct features *f, const struct yaml_node *root,
			  const struct yaml_node **ret_first, size_t *ret_count)
{
	if (take_list(f, root, "", "segments", ret_first, ret_count) < 0)
		f->e->text[0] = '\0'; /* judge_document tells it */
}

static int load_segments(struct features *f)
{
	const struct yaml_node *root, *n;
	size_t count = 0, all_count = 0;
	unsigned line = 1;
	for (EACH_DOCUMENT(f, root)) {
		take_segments(f, root, &n, &count);
		all_count += count;
		line = count ? yaml_get(root, "segments")->line : line;
	}
	struct segment *all = arena_new(&f->snapshot->arena, struct segment, all_count + 1);
	struct segment **sorted = arena_new(&f->snapshot->arena, struct segment *, all_count + 1);
	if (!all || !sorted)
		return out_of_memory(f);
	for (EACH_DOCUMENT(f, root)) {
		take_segments(f, root, &n, &count);
		int r = load_segment_list(f, n, all, sorted);
		if (r < 0)
			return r;
	}
	if (f->n_segments)
		qsort(sorted, f->n_segments, sizeof(*sorted), compare_segments);
	f->segments = (const struct segment *const *)sorted;
	refuse_twins(f, sorted, line);
	return 0;
}

/* The undeclared segment `default`: everybody. */
static const struct segment *everybody(struct features *f, const struct yaml_node *at)
{
	if (!f->everybody) {
		struct segment *s = arena_new(&f->snapshot->arena, struct segment, 1);
		if (!s)
			return NULL;
		s->key = SPAN_LIT("default");
		model_warn(f->snapshot, "%s:%u: segment \"default\" is not declared; treated as everybody",
			   yaml_name(f->doc), at->line);
		f->everybody = s;
	}
	return f->everybody;
}

/* --- conditions ----------------------------------------------------------------------------------------- */
static int add_segment(struct features *f, const struct yaml_node *n, const char *where, struct condition *c)
{
	struct span key = SPAN_LIT("");
	if (!yaml_string(n, &key))
		return fail(f, n, where, "segment", "must be a segment's key");
	const struct segment *const *found = f->n_segments
						     ? bsearch(&key, f->segments, f->n_segments,
							       sizeof(*f->segments), compare_key_with_segment)
						     : NULL;
	const struct segment *s = NULL;
	if (found)
		s = *found;
	else if (span_is(key, "default"))
		s = everybody(f, n);
	if (!s) {
		char sentence[200];
		snprintf(sentence, sizeof(sentence), "segment \"%.100s\" is not declared", key.ptr);
		return fail(f, n, where, "segment", sentence);
	}
	if (s->broken) {
		char sentence[ERR_TEXT_MAX];
		snprintf(sentence, sizeof(sentence), "segment \"%.100s\" cannot be used: %.300s", key.ptr,
			 s->broken);
		return fail(f, n, where, "segment", sentence);
	}
	if (s->document > f->document)
		return fail(f, n, where, "segment",
			    "the segment is declared in a later document, which Flipt reads too late");
	if (!model_condition_add(c, s))
		return fail(f, n, where, "segment", "too many segments in one rule");
	return 0;
}

/* `from` has key, keys or segments, and operator or segmentOperator. */
static int load_keys(struct features *f, const struct yaml_node *from, const char *where, struct condition *c)
{
	const struct yaml_node *key = yaml_get(from, "key"), *keys = yaml_get(from, "keys");
	const struct yaml_node *op = yaml_get(from, "operator");
	int all = false;
	if (!keys)
		keys = yaml_get(from, "segments");
	if (!op)
		op = yaml_get(from, "segmentOperator");
	int r = take_word(f, op, where, "operator", segment_operators, &all);
	c->all = all;
	if (r < 0)
		return r;
	if (!key && !keys)
		return fail(f, from, where, "segment", "needs a key or keys");
	if (key)
		return add_segment(f, key, where, c);
	if (keys->kind != YAML_SEQUENCE && !is_absent(keys))
		return fail(f, keys, where, "keys", "must be a list");
	for (const struct yaml_node *n = keys->first; n && r == 0; n = n->next)
		r = add_segment(f, n, where, c);
	return r;
}

static size_t count_of(const struct yaml_node *n)
{
	return n && n->kind == YAML_SEQUENCE ? n->count : 0;
}

/* Of a rule or a rollout. Three spellings: segment: key; segment: {key | keys, operator}; segments +
 * segmentOperator. */
static int load_condition(struct features *f, const struct yaml_node *holder, const char *where,
			  struct condition *c)
{
	static const char *const known[] = {"key",   "keys", "segments", "operator", "segmentOperator",
					    "value", NULL};
	const struct yaml_node *segment = yaml_get(holder, "segment");
	size_t room = 1 + count_of(yaml_get(segment, "keys")) + count_of(yaml_get(segment, "segments")) +
		      count_of(yaml_get(holder, "segments"));
	if (room > FLAG_MAX_SEGMENTS_PER_RULE)
		room = FLAG_MAX_SEGMENTS_PER_RULE;
	c->segments = arena_new(&f->snapshot->arena, const struct segment *, room);
	if (!c->segments)
		return out_of_memory(f);
	if (!segment)
		return load_keys(f, holder, where, c);
	if (segment->kind == YAML_MAPPING) {
		int r = refuse_unknown_keys(f, segment, where, known);
		return r < 0 ? r : load_keys(f, segment, where, c);
	}
	return add_segment(f, segment, where, c);
}

/* --- variant flags -------------------------------------------------------------------------------------- */
struct variant {
	struct span key, attachment;
};

/* The attachment as JSON; none is `null`, as Flipt answers it. */
static int take_attachment(const struct features *f, const struct yaml_node *variant, struct span *ret)
{
	const struct yaml_node *n = yaml_get(variant, "attachment");
	CLEANUP(buf_releasep) struct buf json = BUF_INIT(FLAG_MAX_DOCUMENT);
	if (!n) {
		*ret = SPAN_LIT("null");
		return 0;
	}
	if (yaml_to_json(n, &json) < 0 || arena_copy(&f->snapshot->arena, buf_span(&json), ret) < 0)
		return out_of_memory(f);
	return 0;
}

static int load_variants(const struct features *f, const struct yaml_node *flag, const char *where,
			 struct flag *ret, struct variant **ret_variants, size_t *ret_count)
{
	static const char *const known[] = {"key", "name", "description", "default", "attachment", NULL};
	const struct yaml_node *n;
	bool is_default;
	int r = take_list(f, flag, where, "variants", &n, ret_count);
	if (r < 0)
		return r;
	struct variant *variants = arena_new(&f->snapshot->arena, struct variant, *ret_count + 1);
	if (!variants)
		return out_of_memory(f);
	for (size_t i = 0; i < *ret_count; i++, n = n->next) {
		char place[MODEL_PLACE_MAX];
		model_place(place, where, "variant", i);
		r = need_mapping(f, n, place);
		if (r == 0)
			r = take_text(f, n, place, "key", true, &variants[i].key);
		if (r == 0)
			r = take_bool(f, n, place, "default", &is_default);
		if (r == 0)
			r = take_attachment(f, n, &variants[i].attachment);
		if (r == 0)
			r = refuse_unknown_keys(f, n, place, known);
		if (r < 0)
			return r;
		if (is_default) { /* of several the last one wins, as for Flipt */
			ret->has_default = true;
			ret->default_variant = variants[i].key;
			ret->default_attachment = variants[i].attachment;
		}
	}
	*ret_variants = variants;
	return 0;
}

static int load_distribution(const struct features *f, const struct yaml_node *n, const char *where,
			     const struct variant *variants, size_t n_variants, struct distribution *ret)
{
	static const char *const known[] = {"variant", "rollout", NULL};
	struct span key;
	int r = need_mapping(f, n, where);
	if (r == 0)
		r = take_text(f, n, where, "variant", true, &key);
	if (r == 0)
		r = take_percent(f, n, where, "rollout", &ret->rollout);
	if (r == 0 && !(ret->rollout >= 0 && ret->rollout <= 100))
		r = fail(f, yaml_get(n, "rollout"), where, "rollout", "must be from 0 to 100");
	if (r == 0)
		r = refuse_unknown_keys(f, n, where, known);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n_variants; i++) {
		if (span_eq(variants[i].key, key)) {
			ret->variant = variants[i].key;
			ret->attachment = variants[i].attachment;
			return 0;
		}
	}
	char sentence[200];
	snprintf(sentence, sizeof(sentence), "the flag has no variant \"%.100s\"", key.ptr);
	return fail(f, yaml_get(n, "variant"), where, "variant", sentence);
}

static int load_rule(struct features *f, const struct yaml_node *n, const char *where,
		     const struct variant *variants, size_t n_variants, struct rule *ret)
{
	static const char *const known[] = {
		"segment", "segments", "segmentOperator", "operator", "key", "keys",
		"rank",	   "name",     "distributions",	  NULL};
	const struct yaml_node *d;
	int r = need_mapping(f, n, where);
	if (r == 0)
		r = load_condition(f, n, where, &ret->condition);
	if (r == 0)
		r = take_list(f, n, where, "distributions", &d, &ret->n_distributions);
	if (r == 0)
		r = refuse_unknown_keys(f, n, where, known);
	if (r < 0)
		return r;
	ret->distributions = arena_new(&f->snapshot->arena, struct distribution, ret->n_distributions + 1);
	if (!ret->distributions)
		return out_of_memory(f);
	for (size_t i = 0; i < ret->n_distributions && r == 0; i++, d = d->next)
		r = load_distribution(f, d, where, variants, n_variants, &ret->distributions[i]);
	if (r < 0)
		return r;
	char place[MODEL_PLACE_MAX + 64];
	snprintf(place, sizeof(place), "%.60s:%u: %s", yaml_name(f->doc), n->line, where);
	model_rule_finish(f->snapshot, ret, place);
	return 0;
}

static int load_rules(struct features *f, const struct yaml_node *n, const char *where, struct flag *ret)
{
	struct variant *variants = NULL;
	size_t n_variants = 0;
	const struct yaml_node *item;
	int r = load_variants(f, n, where, ret, &variants, &n_variants);
	if (r == 0)
		r = take_list(f, n, where, "rules", &item, &ret->n_rules);
	if (r < 0)
		return r;
	ret->rules = arena_new(&f->snapshot->arena, struct rule, ret->n_rules + 1);
	if (!ret->rules)
		return out_of_memory(f);
	for (size_t i = 0; i < ret->n_rules && r == 0; i++, item = item->next) {
		char place[MODEL_PLACE_MAX];
		model_place(place, where, "rule", i);
		r = load_rule(f, item, place, variants, n_variants, &ret->rules[i]);
	}
	return r;
}

/* --- boolean flags -------------------------------------------------------------------------------------- */
static int load_threshold(struct features *f, const struct yaml_node *n, const char *where,
			  struct rollout *ret)
{
	static const char *const known[] = {"percentage", "value", NULL};
	ret->is_threshold = true;
	int r = need_mapping(f, n, where);
	if (r == 0)
		r = take_percent(f, n, where, "percentage", &ret->percentage);
	if (r == 0)
		r = take_bool(f, n, where, "value", &ret->value);
	if (r == 0)
		r = refuse_unknown_keys(f, n, where, known);
	if (r < 0)
		return r;
	char place[MODEL_PLACE_MAX + 64];
	snprintf(place, sizeof(place), "%.60s:%u: %s", yaml_name(f->doc), n->line, where);
	model_threshold_check(f->snapshot, ret->percentage, place);
	return 0;
}

static int load_rollout(struct features *f, const struct yaml_node *n, const char *where, struct rollout *ret)
{
	static const char *const known[] = {"segment", "threshold", "description", "rank", NULL};
	int r = need_mapping(f, n, where);
	if (r == 0)
		r = refuse_unknown_keys(f, n, where, known);
	if (r < 0)
		return r;
	const struct yaml_node *threshold = yaml_get(n, "threshold"), *segment = yaml_get(n, "segment");
	if (threshold && segment)
		return fail(f, n, where, "", "has both a segment and a threshold");
	if (threshold)
		return load_threshold(f, threshold, where, ret);
	if (!segment)
		return fail(f, n, where, "", "needs a segment or a threshold");
	r = load_condition(f, n, where, &ret->condition);
	return r < 0 ? r : take_bool(f, segment, where, "value", &ret->value);
}

static int load_rollouts(struct features *f, const struct yaml_node *n, const char *where, struct flag *ret)
{
	const struct yaml_node *item;
	int r = take_list(f, n, where, "rollouts", &item, &ret->n_rollouts);
	if (r < 0)
		return r;
	ret->rollouts = arena_new(&f->snapshot->arena, struct rollout, ret->n_rollouts + 1);
	if (!ret->rollouts)
		return out_of_memory(f);
	for (size_t i = 0; i < ret->n_rollouts && r == 0; i++, item = item->next) {
		char place[MODEL_PLACE_MAX];
		model_place(place, where, "rollout", i);
		r = load_rollout(f, item, place, &ret->rollouts[i]);
	}
	return r;
}

/* --- the document --------------------------------------------------------------------------------------- */
/* The other type's list: it would be ignored. An empty one says nothing. */
static int refuse_list(const struct features *f, const struct yaml_node *flag, const char *where,
		       const char *key, const char *sentence)
{
	const struct yaml_node *n = yaml_get(flag, key);
	return is_absent(n) || (n->kind == YAML_SEQUENCE && n->count == 0)
		       ? 0
		       : fail(f, n->key, where, key, sentence);
}

static int load_parts(struct features *f, const struct yaml_node *n, struct flag *ret)
{
	static const char *const known[] = {"key",   "name",	 "description", "type",	    "enabled",
					    "rules", "rollouts", "variants",	"metadata", NULL};
	char place[MODEL_PLACE_MAX];
	int type = FLAG_VARIANT;
	snprintf(place, sizeof(place), "flag \"%.80s\"", ret->key.ptr);
	int r = refuse_fault(f, n);
	if (r == 0)
		r = take_word(f, yaml_get(n, "type"), place, "type", flag_types, &type);
	if (r == 0)
		r = take_bool(f, n, place, "enabled", &ret->enabled);
	if (r == 0)
		r = refuse_unknown_keys(f, n, place, known);
	if (r == 0 && type == FLAG_BOOLEAN)
		r = refuse_list(f, n, place, "rules", "a boolean flag has rollouts, no rules");
	else if (r == 0)
		r = refuse_list(f, n, place, "rollouts",
				"only a flag with \"type: BOOLEAN_FLAG_TYPE\" has rollouts");
	if (r < 0)
		return r;
	ret->type = type;
	return type == FLAG_VARIANT ? load_rules(f, n, place, ret) : load_rollouts(f, n, place, ret);
}

static int load_key(const struct features *f, const struct yaml_node *n, size_t index, struct flag *ret)
{
	char place[MODEL_PLACE_MAX];
	snprintf(place, sizeof(place), "flags[%zu]", index);
	int r = need_mapping(f, n, place);
	return r < 0 ? r : take_text(f, n, place, "key", true, &ret->key);
}

/* A fault of this flag sets it aside; *ret_named: whether it has a key by which someone can ask for it.
 * -ENOMEM. */
static int load_flag(struct features *f, const struct yaml_node *n, size_t index, struct flag *ret,
		     bool *ret_named)
{
	struct err fault, *old = begin_element(f, &fault);
	int r = load_key(f, n, index, ret);
	*ret_named = r == 0;
	ret->line = n->line;
	if (f->n_docs > 1)
		ret->file = model_keep(f->snapshot, yaml_name(f->doc));
	if (r == 0) {
		model_flag_finish(ret);
		r = load_parts(f, n, ret);
	}
	f->e = old;
	if (r == -EBADMSG && *ret_named)
		model_set_aside(f->snapshot, ret, fault.text);
	else if (r == -EBADMSG)
		model_mistake(f->snapshot, "%s; nobody can use it", fault.text);
	return r < 0 && r != -EBADMSG ? out_of_memory(f) : 0;
}

/* What Flipt refuses of the document itself; every flag is judged by itself all the same. */
static void judge_document(const struct features *f, const struct yaml_node *root)
{
	static const char *const known[] = {"version", "namespace", "flags", "segments", "etag", NULL};
	static const char *const versions[] = {"1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6"};
	const struct yaml_node *version = yaml_get(root, "version"), *odd = unknown_key(root, known);
	struct span text = SPAN_LIT("");
	bool ok = is_absent(version);
	for (const struct yaml_node *n = root->first; n; n = n->next)
		if (n->fault)
			model_mistake(f->snapshot, "%s", n->fault);
	const struct yaml_node *segments = yaml_get(root, "segments");
	if (!is_absent(segments) && segments->kind != YAML_SEQUENCE)
		model_mistake(f->snapshot, "%s:%u: segments: must be a list", yaml_name(f->doc),
			      segments->line);
	if (odd)
		model_mistake(f->snapshot, "%s:%u: %.80s: unknown key", yaml_name(f->doc), odd->line,
			      odd->text.ptr);
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]) && !ok; i++)
		ok = yaml_string(version, &text) && span_is(text, versions[i]);
	if (!ok)
		model_mistake(f->snapshot,
			      "%s:%u: version: \"%.40s\" is not a known version of this format (1.0 to 1.6)",
			      yaml_name(f->doc), version->line, text.ptr);
}

static int load_flags(struct features *f, const struct yaml_node *root)
{
	const struct yaml_node *n;
	size_t count;
	int r = take_list(f, root, "", "flags", &n, &count);
	for (size_t i = 0; i < count && r == 0; i++, n = n->next) {
		bool named = false;
		r = load_flag(f, n, i, &f->snapshot->flags[f->snapshot->n_flags], &named);
		f->snapshot->n_flags += named;
	}
	return r;
}

/* How many flags there may be; also whether these are documents at all. */
static int count_flags(struct features *f, const char *name, size_t *ret)
{
	static const char sentence[] = "%s:%u: a features file is a mapping with flags and segments";
	const struct yaml_node *n;
	size_t count, documents = 0;
	*ret = 0;
	for (const struct yaml_node *root = yaml_root(f->docs[0]); root; root = root->next) {
		if (yaml_is_null(root)) /* after a last --- */
			continue;
		if (root->kind != YAML_MAPPING)
			return err_set(f->e, -EBADMSG, sentence, name, root->line);
		if (root->fault)
			return err_set(f->e, -EBADMSG, "%s", root->fault);
		int r = take_list(f, root, "", "flags", &n, &count);
		if (r < 0)
			return r;
		*ret += count;
		documents++;
	}
	return documents ? 0 : err_set(f->e, -EBADMSG, sentence, name, 1u);
}

static void tell_namespace(const struct features *f, const char *wanted)
{
	if (!own_document(f, yaml_root(f->docs[0])))
		model_mistake(
			f->snapshot,
			"%s:1: no document belongs to the namespace \"%.80s\"; the first is of \"%.*s\"",
			yaml_name(f->docs[0]), f->namespace_key.ptr,
			SPAN_ARG(namespace_of(yaml_root(f->docs[0]))));
	else if (!span_is(f->namespace_key, wanted ? wanted : NAMESPACE_DEFAULT))
		model_warn(f->snapshot,
			   "%s:1: its only namespace \"%.*s\" is used, although flags.namespace does not "
			   "name it",
			   yaml_name(f->docs[0]), SPAN_ARG(f->namespace_key));
}

static int load(struct features *f, const char *name, struct span whole, const char *wanted,
		enum flag_rules rules)
{
	const struct yaml_node *root;
	size_t n_flags;
	int r = count_flags(f, name, &n_flags);
	if (r < 0)
		return r;
	if (model_new(rules, n_flags, &f->snapshot) < 0)
		return out_of_memory(f);
	f->namespace_key = namespace_that_counts(yaml_root(f->docs[0]), wanted);
	tell_namespace(f, wanted);
	r = load_segments(f);
	for (EACH_DOCUMENT(f, root)) {
		if (r == 0) {
			judge_document(f, root);
			r = load_flags(f, root);
		}
	}
	if (r < 0)
		return r;
	if (model_finish(f->snapshot, name) < 0)
		return out_of_memory(f);
	model_digest(f->snapshot, whole);
	return 0;
}

/* --- files ---------------------------------------------------------------------------------------------- */

/* Of several files each must be documents by itself, or it is left out. */
static int read_one(struct features *f, const struct flag_text *file, struct err *e)
{
	struct yaml_doc *doc = NULL;
	if (file->error)
		return err_set(e, -EBADMSG, "%s", file->error);
	int r = yaml_parse_all(file->name, file->text, &doc, e);
	if (r < 0)
		return r;
	for (const struct yaml_node *root = yaml_root(doc); root && r == 0; root = root->next)
		if (root->fault)
			r = err_set(e, -EBADMSG, "%s", root->fault);
		else if (root->kind != YAML_MAPPING && !yaml_is_null(root))
			r = err_set(e, -EBADMSG,
				    "%s:%u: a features file is a mapping with flags and segments", file->name,
				    root->line);
	if (r < 0 || !yaml_root(doc)) {
		yaml_free(doc);
		return r;
	}
	f->roots[f->n_docs] = yaml_root(doc);
	f->docs[f->n_docs++] = doc;
	return 0;
}

static int read_all(struct features *f, const struct flag_text *files, size_t n, struct buf *left_out,
		    struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		struct err own = {""};
		int r = read_one(f, &files[i], &own);
		if (r == -ENOMEM)
			return err_set(e, r, "%s", own.text);
		if (r < 0)
			buf_printf(left_out, "%s\n", own.text);
	}
	for (size_t i = f->n_docs; i-- > 1;)
		yaml_chain(f->docs[i - 1], f->docs[i]);
	if (f->n_docs)
		return 0;
	if (left_out->len)
		return err_set(e, -EBADMSG, "%.*s", (int)strcspn(left_out->ptr, "\n"), left_out->ptr);
	return -ENOENT;
}

static int parse_files(struct features *f, const char *name, const struct flag_text *files, size_t n,
		       struct span whole, const char *namespace_key, enum flag_rules rules)
{
	CLEANUP(buf_releasep) struct buf left_out = BUF_INIT(1u << 20);
	int r = read_all(f, files, n, &left_out, f->e);
	if (r == -ENOENT)
		return err_set(f->e, -EBADMSG, "%s: all its features files are empty", name);
	if (r == 0) {
		f->doc = f->docs[0];
		r = load(f, name, whole, namespace_key, rules);
	}
	char *rest = r == 0 && left_out.len ? left_out.ptr : NULL;
	for (char *line = rest ? strsep(&rest, "\n") : NULL; line; line = strsep(&rest, "\n"))
		if (*line)
			model_mistake(f->snapshot, "%s; the file is skipped", line);
	return r;
}

int flag_snapshot_parse_files(const char *name, const struct flag_text *files, size_t n, struct span whole,
			      const char *namespace_key, enum flag_rules rules, struct flag_snapshot **ret,
			      struct err *e)
{
	struct err own = {""};
	struct features f = {.e = e ? e : &own};
	f.docs = calloc(n + 1, sizeof(*f.docs));
	f.roots = calloc(n + 1, sizeof(*f.roots));
	int r = f.docs && f.roots ? parse_files(&f, name, files, n, whole, namespace_key, rules)
				  : err_set(f.e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < f.n_docs; i++)
		yaml_free(f.docs[i]);
	free(f.docs);
	free(f.roots);
	if (r < 0)
		flag_snapshot_unref(f.snapshot);
	else
		*ret = f.snapshot;
	return r;
}

int flag_snapshot_parse_features(const char *name, struct span text, enum flag_rules rules,
				 struct flag_snapshot **ret, struct err *e)
{
	return flag_snapshot_parse_namespace(name, text, NULL, rules, ret, e);
}

int flag_snapshot_parse_namespace(const char *name, struct span text, const char *namespace_key,
				  enum flag_rules rules, struct flag_snapshot **ret, struct err *e)
{
	struct err own = {""}, *to = e ? e : &own;
	struct yaml_doc *doc = NULL;
	const struct yaml_node *root;
	if (text.len > FLAG_MAX_DOCUMENT)
		return err_set(e, -EFBIG, "%s: larger than the limit of %u bytes", name, FLAG_MAX_DOCUMENT);
	int r = yaml_parse_all(name, text, &doc, to);
	if (r < 0)
		return r;
	root = yaml_root(doc);
	struct features f = {.docs = &doc, .n_docs = 1, .roots = &root, .doc = doc, .e = to};
	r = load(&f, name, text, namespace_key, rules);
	yaml_free(doc);
	if (r < 0) {
		flag_snapshot_unref(f.snapshot);
		return r;
	}
	*ret = f.snapshot;
	return 0;
}
