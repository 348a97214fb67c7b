#include "compare/compare.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "compare/compare_internal.h"

bool compare_note(struct compare_result *result, const char *path, enum compare_kind kind, struct span left,
		  struct span right)
{
	for (uint32_t i = 0; i < result->n; i++)
		if (strcmp(result->differences[i].path, path) == 0) {
			result->differences[i].count++;
			return true;
		}
	if (result->n == COMPARE_DIFFERENCES_MAX) {
		result->more = true;
		return false;
	}
	struct compare_difference *d = &result->differences[result->n++];
	*d = (struct compare_difference){.kind = kind, .count = 1, .left = left, .right = right};
	span_copy(span_of(path), d->path, sizeof(d->path));
	return true;
}

/* --- status and fields ---------------------------------------------------------------------------------- */

static bool compare_ignores(const struct compare_options *o, const char *path)
{
	for (size_t i = 0; i < o->n_rules; i++)
		if (o->rules[i].ignore && o->rules[i].pattern.part != COMPARE_PART_BODY &&
		    compare_pattern_covers(&o->rules[i].pattern, path))
			return true;
	return false;
}

/* The nth field of that name; false when there are fewer. */
static bool field_at(const struct compare_answer *a, const char *name, size_t nth, struct span *ret)
{
	for (size_t i = 0; i < a->n_fields; i++)
		if (span_is_nocase(a->fields[i].name, name) && nth-- == 0) {
			*ret = a->fields[i].value;
			return true;
		}
	*ret = SPAN_NONE;
	return false;
}

static void compare_field(const struct compare_answer *left, const struct compare_answer *right,
			  const struct compare_options *o, const char *name, struct compare_result *result)
{
	char path[COMPARE_PATH_SIZE];
	int n = snprintf(path, sizeof(path), "header:%s", name);
	for (char *p = path; *p && n > 0; p++)
		*p = (char)tolower((unsigned char)*p);
	if (compare_ignores(o, path))
		return;
	struct span x, y;
	for (size_t i = 0;; i++) {
		bool in_left = field_at(left, name, i, &x), in_right = field_at(right, name, i, &y);
		if (!in_left && !in_right)
			return;
		if (!in_right)
			compare_note(result, path, COMPARE_MISSING, x, y);
		else if (!in_left)
			compare_note(result, path, COMPARE_EXTRA, x, y);
		else if (!span_eq(x, y))
			compare_note(result, path, COMPARE_VALUE, x, y);
	}
}

/* --- bodies --------------------------------------------------------------------------------------------- */

/* Whether the content type says JSON, or nothing. */
static bool type_may_be_json(struct span type)
{
	if (!type.len)
		return true;
	for (size_t i = 0; i + 4 <= type.len && type.ptr[i] != ';'; i++)
		if (strncasecmp(type.ptr + i, "json", 4) == 0)
			return true;
	return false;
}

/* Old services send JSON as text/html; a text that happens to be a number is no JSON for that. */
static bool body_is_json(const struct compare_answer *a)
{
	struct span body = span_strip(a->body);
	if (!body.len || json_validate(body, NULL) != 0)
		return false;
	return type_may_be_json(a->content_type) || body.ptr[0] == '{' || body.ptr[0] == '[';
}

static bool compare_ignores_body(const struct compare_options *o)
{
	for (size_t i = 0; i < o->n_rules; i++) {
		const struct compare_pattern *p = &o->rules[i].pattern;
		if (o->rules[i].ignore && compare_pattern_matched(p, compare_pattern_start(p)))
			return true;
	}
	return false;
}

static enum compare_why compare_bodies(const struct compare_answer *left, const struct compare_answer *right,
				       const struct compare_options *o, struct compare_result *result)
{
	if (span_eq(left->body, right->body) || compare_ignores_body(o))
		return COMPARE_WHY_NONE;
	bool left_json = body_is_json(left), right_json = body_is_json(right);
	if (left_json && right_json)
		return compare_json(span_strip(left->body), span_strip(right->body), o, result);
	if (left_json != right_json && left->body.len && right->body.len)
		compare_note(result, "body:", COMPARE_TYPE, SPAN_NONE, SPAN_NONE);
	else
		compare_note(result, "body:", COMPARE_BYTES, SPAN_NONE, SPAN_NONE);
	return COMPARE_WHY_NONE;
}

/* --- all ------------------------------------------------------------------------------------------------ */

void compare_answers(const struct compare_answer *left, const struct compare_answer *right,
		     const struct compare_options *o, struct compare_result *ret)
{
	ret->verdict = COMPARE_EQUAL;
	ret->why = COMPARE_WHY_NONE;
	ret->more = false;
	ret->n = 0;
	if (left->body.len > COMPARE_BODY_MAX || right->body.len > COMPARE_BODY_MAX)
		ret->why = COMPARE_WHY_SIZE;
	if (ret->why == COMPARE_WHY_NONE) {
		if (left->status != right->status && !compare_ignores(o, "status"))
			compare_note(ret, "status", COMPARE_VALUE, SPAN_NONE, SPAN_NONE);
		for (size_t i = 0; i < o->n_fields; i++)
			compare_field(left, right, o, o->fields[i], ret);
		ret->why = compare_bodies(left, right, o, ret);
	}
	if (ret->why != COMPARE_WHY_NONE)
		ret->verdict = COMPARE_NOT_COMPARED;
	else if (ret->n)
		ret->verdict = COMPARE_DIFFERING;
}

const char *compare_kind_text(enum compare_kind k)
{
	static const char *const texts[COMPARE_KIND_COUNT] = {
		[COMPARE_VALUE] = "value", [COMPARE_TYPE] = "type", [COMPARE_MISSING] = "missing",
		[COMPARE_EXTRA] = "extra", [COMPARE_TEXT] = "text", [COMPARE_BYTES] = "bytes",
	};
	return k < COMPARE_KIND_COUNT ? texts[k] : "?";
}

const char *compare_why_text(enum compare_why w)
{
	switch (w) {
	case COMPARE_WHY_NONE:
		break;
	case COMPARE_WHY_SIZE:
		return "size";
	case COMPARE_WHY_DEPTH:
		return "depth";
	case COMPARE_WHY_VALUES:
		return "values";
	case COMPARE_WHY_WORK:
		return "work";
	case COMPARE_WHY_MEMORY:
		return "memory";
	}
	return "?";
}
