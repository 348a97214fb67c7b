#include "compare/compare_redact.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "base/text.h"
#include "compare/compare_tree.h"

#define REDACTED "\"***\""
#define REDACT_CUT "\xe2\x80\xa6"

struct redactor {
	const struct compare_redaction *rules;
	const struct compare_tree *tree;
	uint32_t *at; /* of each pattern, per level */
	const struct span *places;
	bool *secret;
	size_t n_places;
	struct buf *out;
	int full; /* the first error: nothing is prefixed with a piece that did not fit */
};

static bool redact_contains(struct span name, const char *word)
{
	size_t n = strlen(word);
	for (size_t i = 0; i + n <= name.len; i++)
		if (strncasecmp(name.ptr + i, word, n) == 0)
			return true;
	return false;
}

bool compare_names_secret(struct span name)
{
	static const char *const words[] = {"token",  "password",      "passwd",
					    "secret", "authorization", "cookie"};
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (redact_contains(name, words[i]))
			return true;
	return text_names_secret(name);
}

static uint32_t *redact_positions(const struct redactor *r, unsigned level)
{
	return r->at + (size_t)level * r->rules->n_patterns;
}

/* Whether the place one step below is listed. */
static bool redact_step(struct redactor *r, unsigned level, struct span name, int64_t index)
{
	const uint32_t *from = redact_positions(r, level);
	uint32_t *to = redact_positions(r, level + 1);
	bool listed = false;
	for (size_t i = 0; i < r->rules->n_patterns; i++) {
		const struct compare_pattern *p = &r->rules->patterns[i];
		to[i] = from[i] ? compare_pattern_step(p, from[i], name, index) : 0;
		listed |= to[i] && compare_pattern_matched(p, to[i]);
	}
	return listed;
}

static void redact_put(struct redactor *r, const char *text)
{
	if (r->full == 0)
		r->full = buf_puts(r->out, text);
}

static void redact_take_out(struct redactor *r, struct span value)
{
	uintptr_t begin = (uintptr_t)value.ptr, end = begin + value.len;
	for (size_t i = 0; i < r->n_places; i++) {
		uintptr_t place = (uintptr_t)r->places[i].ptr;
		if (place >= begin && place < end)
			r->secret[i] = true;
	}
	redact_put(r, REDACTED);
}

static int redact_string(struct span raw, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(raw.len), masked = BUF_INIT(TEXT_MASKED_MAX * 4);
	int e = json_unescape(raw, &text);
	if (e == 0)
		e = text_put_masked(&masked, buf_span(&text));
	if (e == 0 && span_eq(buf_span(&text), buf_span(&masked)))
		e = buf_append_span(out, raw);
	else if (e == 0)
		e = json_quote(out, buf_span(&masked));
	return e;
}

static void redact_node(struct redactor *r, unsigned level, uint32_t node);

static void redact_children(struct redactor *r, unsigned level, const struct compare_node *parent)
{
	bool object = parent->type == JSON_OBJECT;
	int64_t index = 0;
	redact_put(r, object ? "{" : "[");
	for (uint32_t child = (uint32_t)(parent - r->tree->nodes) + 1; child < parent->after;
	     child = r->tree->nodes[child].after, index++) {
		const struct compare_node *c = &r->tree->nodes[child];
		bool listed = redact_step(r, level, c->name, object ? -1 : index);
		if (index > 0)
			redact_put(r, ",");
		if (object && r->full == 0)
			r->full = json_quote(r->out, c->name);
		if (object)
			redact_put(r, ":");
		if (listed || (object && compare_names_secret(c->name)))
			redact_take_out(r, c->value);
		else
			redact_node(r, level + 1, child);
	}
	redact_put(r, object ? "}" : "]");
}

/* Goes on when `out` is full: the places are still looked for. */
static void redact_node(struct redactor *r, unsigned level, uint32_t node)
{
	const struct compare_node *n = &r->tree->nodes[node];
	if (n->type == JSON_OBJECT || n->type == JSON_ARRAY)
		redact_children(r, level, n);
	else if (r->full == 0)
		r->full = n->type == JSON_STRING ? redact_string(n->value, r->out)
						 : buf_append_span(r->out, n->value);
}

static void redact_all(struct redactor *r)
{
	bool listed = false;
	for (size_t i = 0; i < r->rules->n_patterns; i++) {
		r->at[i] = compare_pattern_start(&r->rules->patterns[i]);
		listed |= r->at[i] && compare_pattern_matched(&r->rules->patterns[i], r->at[i]);
	}
	if (listed)
		redact_take_out(r, r->tree->nodes[0].value);
	else
		redact_node(r, 0, 0);
}

/* There is always room for the mark of a cut. */
static int redact_run(struct redactor *r, struct buf *out)
{
	size_t mark = strlen(REDACT_CUT);
	if (out->max < out->len + mark)
		return -EFBIG;
	struct buf text = BUF_INIT(out->max - out->len - mark);
	r->out = &text;
	redact_all(r);
	int e = r->full == -EFBIG ? 0 : r->full;
	if (e == 0)
		e = buf_append_span(out, buf_span(&text));
	if (e == 0 && r->full)
		e = buf_puts(out, REDACT_CUT);
	buf_release(&text);
	return e;
}

int compare_redact_json(struct span text, const struct compare_redaction *rules, const struct span *places,
			bool *ret_secret, size_t n_places, struct buf *out)
{
	struct compare_tree tree;
	struct redactor r = {
		.rules = rules, .tree = &tree, .places = places, .secret = ret_secret, .n_places = n_places};
	for (size_t i = 0; i < n_places; i++) /* there may be none, and no array then */
		ret_secret[i] = false;
	int e = compare_tree_make(text, &tree);
	if (e < 0)
		return e;
	r.at = calloc((COMPARE_DEPTH_MAX + 2) * (rules->n_patterns + 1), sizeof(*r.at));
	e = r.at ? redact_run(&r, out) : -ENOMEM;
	free(r.at);
	compare_tree_release(&tree);
	return e;
}

int compare_redact_value(struct span raw, size_t max, struct buf *out)
{
	switch (json_type_of(raw)) {
	case JSON_OBJECT:
		return buf_puts(out, "{\xe2\x80\xa6}");
	case JSON_ARRAY:
		return buf_puts(out, "[\xe2\x80\xa6]");
	case JSON_STRING: {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(raw.len + TEXT_MASKED_MAX * 24);
		int e = redact_string(raw, &text);
		return e < 0 ? e : text_put_cut(out, buf_span(&text), max);
	}
	default:
		return text_put_cut(out, raw, max);
	}
}
