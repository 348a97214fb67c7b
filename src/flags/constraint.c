#include "flags/constraint.h"

#include <errno.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "flags/number.h"

/* --- names ---------------------------------------------------------------------------------------------- */
static const char *const type_names[] = {
	[CONSTRAINT_STRING] = "string",	      [CONSTRAINT_NUMBER] = "number",
	[CONSTRAINT_BOOLEAN] = "boolean",     [CONSTRAINT_DATETIME] = "datetime",
	[CONSTRAINT_ENTITY_ID] = "entity_id", [CONSTRAINT_OTHER] = "unknown",
};

static const char *const op_names[] = {
	[OP_EQ] = "eq",
	[OP_NEQ] = "neq",
	[OP_EMPTY] = "empty",
	[OP_NOT_EMPTY] = "notempty",
	[OP_PREFIX] = "prefix",
	[OP_SUFFIX] = "suffix",
	[OP_CONTAINS] = "contains",
	[OP_NOT_CONTAINS] = "notcontains",
	[OP_IS_ONE_OF] = "isoneof",
	[OP_IS_NOT_ONE_OF] = "isnotoneof",
	[OP_PRESENT] = "present",
	[OP_NOT_PRESENT] = "notpresent",
	[OP_LT] = "lt",
	[OP_LTE] = "lte",
	[OP_GT] = "gt",
	[OP_GTE] = "gte",
	[OP_TRUE] = "true",
	[OP_FALSE] = "false",
	[OP_OTHER] = "unknown",
};

static bool drop_suffix(struct span *s, const char *suffix)
{
	size_t n = strlen(suffix);
	if (s->len < n || memcmp(s->ptr + s->len - n, suffix, n) != 0)
		return false;
	s->len -= n;
	return true;
}

bool constraint_type_parse(struct span text, enum constraint_type *ret)
{
	if (!drop_suffix(&text, "_CONSTRAINT_COMPARISON_TYPE"))
		drop_suffix(&text, "_COMPARISON_TYPE");
	for (enum constraint_type t = CONSTRAINT_STRING; t < CONSTRAINT_OTHER; t++) {
		if (span_is_nocase(text, type_names[t])) {
			*ret = t;
			return true;
		}
	}
	return false;
}

/* The long names spell words apart (IS_ONE_OF_COMPARISON_OPERATOR), the short ones do not (isoneof). */
bool constraint_op_parse(struct span text, enum constraint_op *ret)
{
	char word[24];
	size_t n = 0;
	bool is_long = drop_suffix(&text, "_COMPARISON_OPERATOR");
	for (size_t i = 0; i < text.len; i++) {
		if (is_long && text.ptr[i] == '_')
			continue;
		if (n == sizeof(word))
			return false;
		word[n++] = text.ptr[i];
	}
	struct span s = {word, n};
	for (enum constraint_op op = OP_EQ; op < OP_OTHER; op++) {
		if (is_long ? span_is_nocase(s, op_names[op]) : span_is(s, op_names[op])) {
			*ret = op;
			return true;
		}
	}
	return false;
}

const char *constraint_type_text(enum constraint_type type)
{
	return type_names[type];
}

const char *constraint_op_text(enum constraint_op op)
{
	return op_names[op];
}

bool constraint_op_fits(enum constraint_type type, enum constraint_op op)
{
	switch (type) {
	case CONSTRAINT_STRING:
	case CONSTRAINT_ENTITY_ID:
		return op <= OP_IS_NOT_ONE_OF;
	case CONSTRAINT_NUMBER:
		return op == OP_EQ || op == OP_NEQ || (op >= OP_IS_ONE_OF && op <= OP_GTE);
	case CONSTRAINT_DATETIME:
		return op == OP_EQ || op == OP_NEQ || (op >= OP_PRESENT && op <= OP_GTE);
	case CONSTRAINT_BOOLEAN:
		return op == OP_PRESENT || op == OP_NOT_PRESENT || op == OP_TRUE || op == OP_FALSE;
	case CONSTRAINT_OTHER:
		return false;
	}
	return false;
}

/* --- white space ---------------------------------------------------------------------------------------- */
/* Bytes of the white space character that s begins with, or 0. */
static size_t space_at(const unsigned char *s, size_t n)
{
	if (s[0] < 0x80)
		return s[0] == ' ' || (s[0] >= '\t' && s[0] <= '\r');
	if (n >= 2 && s[0] == 0xC2)
		return s[1] == 0x85 || s[1] == 0xA0 ? 2 : 0;
	if (n < 3)
		return 0;
	if (s[0] == 0xE1)
		return s[1] == 0x9A && s[2] == 0x80 ? 3 : 0; /* U+1680 */
	if (s[0] == 0xE3)
		return s[1] == 0x80 && s[2] == 0x80 ? 3 : 0; /* U+3000 */
	if (s[0] != 0xE2)
		return 0;
	if (s[1] == 0x80) /* U+2000..200A, 2028, 2029, 202F */
		return s[2] <= 0x8A || s[2] == 0xA8 || s[2] == 0xA9 || s[2] == 0xAF ? 3 : 0;
	return s[1] == 0x81 && s[2] == 0x9F ? 3 : 0; /* U+205F */
}

/* The same for the character that the n bytes at s end with. */
static size_t space_before(const unsigned char *s, size_t n)
{
	for (size_t width = 1; width <= 3 && width <= n; width++) {
		if (space_at(s + n - width, width) == width)
			return width;
	}
	return 0;
}

struct span constraint_trim(struct span v)
{
	const unsigned char *p = (const unsigned char *)v.ptr;
	size_t n;
	while (v.len && (n = space_at(p, v.len)))
		p += n, v.len -= n;
	while (v.len && (n = space_before(p, v.len)))
		v.len -= n;
	return (struct span){(const char *)p, v.len};
}

/* --- compiling ------------------------------------------------------------------------------------------ */
static int compare_spans(const void *a, const void *b)
{
	const struct span *x = a, *y = b;
	size_t n = x->len < y->len ? x->len : y->len;
	int r = n ? memcmp(x->ptr, y->ptr, n) : 0;
	return r ? r : (x->len > y->len) - (x->len < y->len);
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b; /* JSON has no NaN */
	return (x > y) - (x < y);
}

static int malformed(struct constraint *c, const char *why)
{
	c->malformed = true;
	c->why = why;
	return 0;
}

static bool set_string(struct arena *a, struct span item, struct span *ret, int *error)
{
	/* Go decodes null into a string as the empty one. */
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(item.len * 3 + 1);
	enum json_type type = json_type_of(item);
	if (type != JSON_STRING && type != JSON_NULL)
		return false;
	int r = type == JSON_STRING ? json_unescape(item, &text) : 0;
	if (r == 0)
		r = arena_copy(a, buf_span(&text), ret);
	*error = r;
	return r == 0;
}

static bool set_number(struct span item, double *ret)
{
	*ret = 0;
	if (json_type_of(item) == JSON_NULL)
		return true;
	return json_type_of(item) == JSON_NUMBER && number_parse(item, ret);
}

static size_t count_items(struct span array)
{
	struct json_iter it;
	struct span key, item;
	size_t n = 0;
	json_iter_init(&it, array);
	while (json_iter_next(&it, &key, &item))
		n++;
	return n;
}

/* `null` is the empty set, as for Go. */
static int compile_set(struct arena *a, struct constraint *c)
{
	bool numeric = c->type == CONSTRAINT_NUMBER;
	const char *why = numeric ? "the value is not a JSON array of numbers"
				  : "the value is not a JSON array of strings";
	if (json_validate(c->value, NULL) != 0)
		return malformed(c, why);
	struct span set;
	if (!json_pointer(c->value, SPAN_LIT(""), &set))
		return malformed(c, why);
	if (json_type_of(set) == JSON_NULL)
		return 0;
	if (json_type_of(set) != JSON_ARRAY)
		return malformed(c, why);
	size_t n = count_items(set);
	if (n > CONSTRAINT_SET_MAX)
		return malformed(c, "the set is too large");
	struct span *strings = numeric ? NULL : arena_new(a, struct span, n + 1);
	double *numbers = numeric ? arena_new(a, double, n + 1) : NULL;
	if (!strings && !numbers)
		return -ENOMEM;
	struct json_iter it;
	struct span key, item;
	size_t i = 0;
	int error = 0;
	json_iter_init(&it, set);
	for (; json_iter_next(&it, &key, &item); i++) {
		if (numeric ? !set_number(item, &numbers[i]) : !set_string(a, item, &strings[i], &error))
			return error < 0 ? error : malformed(c, why);
	}
	if (strings && n)
		qsort(strings, n, sizeof(*strings), compare_spans);
	if (numbers && n)
		qsort(numbers, n, sizeof(*numbers), compare_doubles);
	c->strings = strings;
	c->numbers = numbers;
	c->n_set = n;
	return 0;
}

static bool compares_order(enum constraint_op op)
{
	return op == OP_EQ || op == OP_NEQ || (op >= OP_LT && op <= OP_GTE);
}

int constraint_compile(struct arena *a, enum constraint_type type, enum constraint_op op,
		       struct span property, struct span value, struct constraint *ret)
{
	*ret = (struct constraint){.type = type, .op = op, .property = property, .value = value};
	if (type == CONSTRAINT_OTHER)
		return malformed(ret, "the type is unknown");
	if (!constraint_op_fits(type, op))
		return 0; /* never matches, but does not spoil its segment */
	if (op == OP_IS_ONE_OF || op == OP_IS_NOT_ONE_OF)
		return compile_set(a, ret);
	if (type == CONSTRAINT_NUMBER && compares_order(op) && !number_parse(value, &ret->number))
		return malformed(ret, "the value is not a number");
	if (type == CONSTRAINT_DATETIME && compares_order(op) && !instant_parse(value, &ret->instant))
		return malformed(ret, "the value is not an RFC 3339 date");
	return 0;
}

/* --- matching ------------------------------------------------------------------------------------------- */
static bool in_strings(const struct constraint *c, struct span v)
{
	return c->n_set && bsearch(&v, c->strings, c->n_set, sizeof(*c->strings), compare_spans);
}

static bool in_numbers(const struct constraint *c, double v)
{
	return c->n_set && v == v && bsearch(&v, c->numbers, c->n_set, sizeof(*c->numbers), compare_doubles);
}

static bool contains(struct span v, struct span part)
{
	return part.len == 0 || memmem(v.ptr, v.len, part.ptr, part.len);
}

static bool match_string(const struct constraint *c, struct span v)
{
	switch (c->op) {
	case OP_EQ:
		return span_eq(v, c->value);
	case OP_NEQ:
		return !span_eq(v, c->value);
	case OP_PREFIX:
		return span_starts(constraint_trim(v), c->value);
	case OP_SUFFIX:
		v = constraint_trim(v);
		return v.len >= c->value.len &&
		       span_eq((struct span){v.ptr + (v.len - c->value.len), c->value.len}, c->value);
	case OP_CONTAINS:
		return contains(v, c->value);
	case OP_NOT_CONTAINS:
		return !contains(v, c->value);
	case OP_IS_ONE_OF:
		return in_strings(c, v);
	case OP_IS_NOT_ONE_OF:
		return !in_strings(c, v);
	default:
		return false;
	}
}

static bool match_number(const struct constraint *c, struct span text)
{
	double v;
	if (!number_parse(text, &v))
		return false;
	switch (c->op) {
	case OP_EQ:
		return v == c->number;
	case OP_NEQ:
		return v != c->number;
	case OP_LT:
		return v < c->number;
	case OP_LTE:
		return v <= c->number;
	case OP_GT:
		return v > c->number;
	case OP_GTE:
		return v >= c->number;
	case OP_IS_ONE_OF:
		return in_numbers(c, v);
	case OP_IS_NOT_ONE_OF:
		return !in_numbers(c, v);
	default:
		return false;
	}
}

static bool match_datetime(const struct constraint *c, struct span text)
{
	struct instant v;
	if (!instant_parse(text, &v))
		return false;
	int order = instant_compare(v, c->instant);
	switch (c->op) {
	case OP_EQ:
		return order == 0;
	case OP_NEQ:
		return order != 0;
	case OP_LT:
		return order < 0;
	case OP_LTE:
		return order <= 0;
	case OP_GT:
		return order > 0;
	case OP_GTE:
		return order >= 0;
	default:
		return false;
	}
}

static bool one_of_words(struct span v, const char *const words[6])
{
	for (size_t i = 0; i < 6; i++) {
		if (span_is(v, words[i]))
			return true;
	}
	return false;
}

/* The constraint's own value plays no part. */
static bool match_boolean(const struct constraint *c, struct span v)
{
	static const char *const yes[6] = {"1", "t", "T", "TRUE", "true", "True"};
	static const char *const no[6] = {"0", "f", "F", "FALSE", "false", "False"};
	return (c->op == OP_TRUE && one_of_words(v, yes)) || (c->op == OP_FALSE && one_of_words(v, no));
}

bool constraint_match(const struct constraint *c, struct span v)
{
	if (c->malformed || !constraint_op_fits(c->type, c->op))
		return false;
	if (c->op == OP_EMPTY || c->op == OP_NOT_PRESENT)
		return constraint_trim(v).len == 0;
	if (c->op == OP_NOT_EMPTY || c->op == OP_PRESENT)
		return constraint_trim(v).len != 0;
	if (v.len == 0)
		return false;
	switch (c->type) {
	case CONSTRAINT_STRING:
	case CONSTRAINT_ENTITY_ID:
		return match_string(c, v);
	case CONSTRAINT_NUMBER:
		return match_number(c, v);
	case CONSTRAINT_BOOLEAN:
		return match_boolean(c, v);
	case CONSTRAINT_DATETIME:
		return match_datetime(c, v);
	case CONSTRAINT_OTHER:
		return false;
	}
	return false;
}
