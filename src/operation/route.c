#include "operation/route.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/digits.h"
#include "operation/operation.h"

struct route_segment {
	bool parameter;
	struct span text; /* of a parameter: its name */
};

struct route {
	const struct operation *operation;
	size_t n_segments;
	struct route_segment segments[ROUTE_MAX_SEGMENTS];
};

struct route_table {
	size_t n;
	size_t first[ROUTE_MAX_SEGMENTS + 2]; /* where the routes of so many segments begin */
	struct route routes[];
};

/* --- characters ----------------------------------------------------------------------------------------- */

static bool is_alnum(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* RFC 3986 §2.3 */
static bool is_unreserved(unsigned char c)
{
	return is_alnum(c) || c == '-' || c == '.' || c == '_' || c == '~';
}

/* RFC 3986 §3.3, without the escapes */
static bool is_pchar(unsigned char c)
{
	return is_unreserved(c) || (c && strchr("!$&'()*+,;=:@", c));
}

/* The byte that an escape at `s` stands for; -1 when there is no whole one. */
static int escape(struct span s)
{
	if (s.len == 0 || s.ptr[0] != '%')
		return -1;
	return hex_byte(s.ptr + 1, s.ptr + s.len);
}

static void skip(struct span *s, size_t n)
{
	s->ptr += n;
	s->len -= n;
}

/* Paths are compared in units: a character, or (from 256 on) an escape that only stands for itself. */
#define UNIT_END (-1)
#define UNIT_ODD (-2)
static int next_unit(struct span *s)
{
	if (s->len == 0)
		return UNIT_END;
	unsigned char c = (unsigned char)s->ptr[0];
	if (c != '%') {
		skip(s, 1);
		return is_pchar(c) ? c : UNIT_ODD;
	}
	int byte = escape(*s);
	if (byte <= 0 || byte == '/')
		return UNIT_ODD;
	skip(s, 3);
	return is_unreserved((unsigned char)byte) ? byte : 256 + byte;
}

/* As memcmp; nothing odd equals anything. */
static int compare_units(struct span a, struct span b)
{
	for (;;) {
		int x = next_unit(&a), y = next_unit(&b);
		if (x != y || x == UNIT_ODD)
			return x < y ? -1 : 1;
		if (x == UNIT_END)
			return 0;
	}
}

/* "." and "..", escaped or not. */
static bool is_dots(struct span s)
{
	return compare_units(s, SPAN_LIT(".")) == 0 || compare_units(s, SPAN_LIT("..")) == 0;
}

static bool is_odd(struct span segment)
{
	int unit;
	do
		unit = next_unit(&segment);
	while (unit >= 0);
	return unit == UNIT_ODD;
}

/* Cuts a path that begins with '/' into what is between the slashes; returns how many, or SIZE_MAX
 * beyond the limit. */
static size_t split(struct span path, struct span segments[ROUTE_MAX_SEGMENTS])
{
	size_t n = 0;
	while (path.len) {
		skip(&path, 1); /* the slash */
		const char *slash = path.len ? memchr(path.ptr, '/', path.len) : NULL;
		size_t length = slash ? (size_t)(slash - path.ptr) : path.len;
		if (n == ROUTE_MAX_SEGMENTS)
			return SIZE_MAX;
		segments[n++] = (struct span){path.ptr, length};
		skip(&path, length);
	}
	return n;
}

/* --- templates ------------------------------------------------------------------------------------------ */

static int compile_parameter(struct span text, struct route_segment *ret, struct err *e)
{
	struct span name = {text.ptr + 1, text.len - 2};
	bool good = name.len > 0;
	for (size_t i = 0; i < name.len; i++)
		good = good && (is_alnum((unsigned char)name.ptr[i]) || name.ptr[i] == '_');
	if (!good)
		return err_set(e, -EINVAL, "the parameter %.*s must be named with letters, digits and \"_\"",
			       SPAN_ARG(text));
	*ret = (struct route_segment){.parameter = true, .text = name};
	return 0;
}

static int compile_text(struct span text, bool last, struct route_segment *ret, struct err *e)
{
	if (text.len == 0 && !last)
		return err_set(e, -EINVAL, "an empty segment (\"//\") never matches");
	if (memchr(text.ptr, '{', text.len) || memchr(text.ptr, '}', text.len))
		return err_set(e, -EINVAL, "a parameter must be a whole segment: {name}, not \"%.*s\"",
			       SPAN_ARG(text));
	if (is_odd(text) || is_dots(text))
		return err_set(e, -EINVAL, "the segment \"%.*s\" never matches", SPAN_ARG(text));
	*ret = (struct route_segment){.text = text};
	return 0;
}

static int compile_segment(struct span text, bool last, struct route_segment *ret, struct err *e)
{
	if (text.len >= 2 && text.ptr[0] == '{' && text.ptr[text.len - 1] == '}')
		return compile_parameter(text, ret, e);
	return compile_text(text, last, ret, e);
}

static int check_parameters(const struct route *r, struct err *e)
{
	size_t parameters = 0;
	for (size_t i = 0; i < r->n_segments; i++) {
		if (!r->segments[i].parameter)
			continue;
		if (++parameters > ROUTE_MAX_PARAMETERS)
			return err_set(e, -EINVAL, "more than %d parameters", ROUTE_MAX_PARAMETERS);
		for (size_t j = 0; j < i; j++)
			if (r->segments[j].parameter && span_eq(r->segments[i].text, r->segments[j].text))
				return err_set(e, -EINVAL, "the parameter {%.*s} is listed twice",
					       SPAN_ARG(r->segments[i].text));
	}
	return 0;
}

static int compile(struct span path, struct route *ret, struct err *e)
{
	if (path.len == 0 || path.ptr[0] != '/')
		return err_set(e, -EINVAL, "a path begins with \"/\"");
	if (memchr(path.ptr, '?', path.len) || memchr(path.ptr, '#', path.len))
		return err_set(e, -EINVAL, "a path has no \"?\" or \"#\": query parameters are not matched");
	struct span texts[ROUTE_MAX_SEGMENTS];
	ret->n_segments = split(path, texts);
	if (ret->n_segments == SIZE_MAX)
		return err_set(e, -EINVAL, "more than %d segments", ROUTE_MAX_SEGMENTS);
	for (size_t i = 0; i < ret->n_segments; i++) {
		int code = compile_segment(texts[i], i + 1 == ret->n_segments, &ret->segments[i], e);
		if (code < 0)
			return code;
	}
	return check_parameters(ret, e);
}

int route_template_check(struct span path, struct err *e)
{
	struct route r;
	return compile(path, &r, e);
}

/* --- table ---------------------------------------------------------------------------------------------- */

static int route_compare_spans(struct span a, struct span b)
{
	size_t least = a.len < b.len ? a.len : b.len;
	int c = least ? memcmp(a.ptr, b.ptr, least) : 0;
	return c ? c : (a.len > b.len) - (a.len < b.len);
}

static int route_compare_segments(const struct route_segment *a, const struct route_segment *b)
{
	if (a->parameter || b->parameter)
		return (int)a->parameter - (int)b->parameter;
	return compare_units(a->text, b->text);
}

/* Fewer segments first (they have their own range in the table), then text before a parameter from the
 * left. */
static int by_precedence(const void *a, const void *b)
{
	const struct route *x = a, *y = b;
	if (x->n_segments != y->n_segments)
		return x->n_segments < y->n_segments ? -1 : 1;
	for (size_t i = 0; i < x->n_segments; i++) {
		int c = route_compare_segments(&x->segments[i], &y->segments[i]);
		if (c)
			return c;
	}
	return route_compare_spans(x->operation->method, y->operation->method);
}

static int check_doubles(const struct route_table *t, struct err *e)
{
	for (size_t i = 1; i < t->n; i++) {
		const struct operation *a = t->routes[i - 1].operation, *b = t->routes[i].operation;
		if (by_precedence(&t->routes[i - 1], &t->routes[i]) == 0)
			return err_set(
				e, -EEXIST, "the operations \"%.*s\" and \"%.*s\" match the same requests",
				SPAN_ARG(a < b ? a->name : b->name), SPAN_ARG(a < b ? b->name : a->name));
	}
	return 0;
}

DEFINE_CLEANUP(struct route_table *, route_table_free)

int route_table_new(const struct operation *operations, size_t n, struct route_table **ret, struct err *e)
{
	CLEANUP(route_table_freep) struct route_table *t = malloc(sizeof(*t) + n * sizeof(t->routes[0]));
	if (!t)
		return err_set(e, -ENOMEM, "out of memory");
	t->n = n;
	for (size_t i = 0; i < n; i++) {
		t->routes[i].operation = &operations[i];
		int code = compile(operations[i].path, &t->routes[i], e);
		if (code < 0)
			return err_prefix(e, code, "operation \"%.*s\"", SPAN_ARG(operations[i].name));
	}
	qsort(t->routes, n, sizeof(t->routes[0]), by_precedence);
	int code = check_doubles(t, e);
	if (code < 0)
		return code;
	for (size_t count = 0, at = 0; count < sizeof(t->first) / sizeof(t->first[0]); count++) {
		while (at < n && t->routes[at].n_segments < count)
			at++;
		t->first[count] = at;
	}
	*ret = steal(t);
	return 0;
}

struct route_table *route_table_free(struct route_table *t)
{
	free(t);
	return NULL;
}

/* --- matching ------------------------------------------------------------------------------------------- */

struct span route_path(struct span target)
{
	const char *query = target.len ? memchr(target.ptr, '?', target.len) : NULL;
	return (struct span){target.ptr, query ? (size_t)(query - target.ptr) : target.len};
}

static bool match_segments(const struct route *r, const struct span *segments, struct route_match *ret)
{
	size_t parameters = 0;
	for (size_t i = 0; i < r->n_segments; i++) {
		const struct route_segment *s = &r->segments[i];
		if (!s->parameter) {
			if (compare_units(s->text, segments[i]) != 0)
				return false;
			continue;
		}
		if (segments[i].len == 0 || is_dots(segments[i]))
			return false;
		ret->parameters[parameters++] = (struct route_parameter){s->text, segments[i]};
	}
	ret->operation = r->operation;
	ret->n_parameters = parameters;
	return true;
}

bool route_match(const struct route_table *t, struct span method, struct span target, struct route_match *ret)
{
	ret->operation = NULL;
	ret->n_parameters = 0;
	struct span path = route_path(target), segments[ROUTE_MAX_SEGMENTS];
	if (path.len == 0 || path.ptr[0] != '/')
		return false;
	size_t n = split(path, segments);
	if (n == SIZE_MAX)
		return false;
	for (size_t i = 0; i < n; i++)
		if (is_odd(segments[i]))
			return false;
	for (size_t i = t->first[n]; i < t->first[n + 1]; i++)
		if (span_eq(t->routes[i].operation->method, method) &&
		    match_segments(&t->routes[i], segments, ret))
			return true;
	return false;
}

bool route_parameter(const struct route_match *m, struct span name, struct buf *decoded)
{
	for (size_t i = 0; i < m->n_parameters; i++) {
		if (!span_eq(m->parameters[i].name, name))
			continue;
		struct span s = m->parameters[i].value;
		int failed = 0;
		while (s.len && !failed) {
			int byte = escape(s);
			failed = buf_putc(decoded, byte >= 0 ? (char)byte : s.ptr[0]);
			skip(&s, byte >= 0 ? 3 : 1);
		}
		return !failed;
	}
	return false;
}

/* --- query ---------------------------------------------------------------------------------------------- */

/* The next decoded byte of a form-encoded text, or -1 at its end. */
static int next_form_byte(struct span *s)
{
	if (s->len == 0)
		return -1;
	int byte = escape(*s);
	if (byte >= 0) {
		skip(s, 3);
		return byte;
	}
	byte = s->ptr[0] == '+' ? ' ' : (unsigned char)s->ptr[0];
	skip(s, 1);
	return byte;
}

static bool form_equals(struct span encoded, struct span plain)
{
	for (size_t i = 0;; i++) {
		int byte = next_form_byte(&encoded);
		if (byte < 0 || i == plain.len)
			return byte < 0 && i == plain.len;
		if (byte != (unsigned char)plain.ptr[i])
			return false;
	}
}

/* The next "name=value" of a query that begins at *at; *at is moved past it. */
static bool next_pair(struct span target, size_t *at, struct span *ret_name, struct span *ret_value)
{
	if (*at >= target.len)
		return false;
	struct span rest = {target.ptr + *at, target.len - *at};
	const char *end = memchr(rest.ptr, '&', rest.len);
	struct span pair = {rest.ptr, end ? (size_t)(end - rest.ptr) : rest.len};
	*at += pair.len + 1;
	const char *equals = pair.len ? memchr(pair.ptr, '=', pair.len) : NULL;
	*ret_name = (struct span){pair.ptr, equals ? (size_t)(equals - pair.ptr) : pair.len};
	*ret_value = equals ? (struct span){equals + 1, pair.len - ret_name->len - 1} : SPAN_LIT("");
	return true;
}

/* The next encoded value of that name. */
static bool route_find_value(struct span target, struct span name, size_t *at, struct span *ret)
{
	if (*at == 0)
		*at = route_path(target).len + 1;
	struct span key;
	while (next_pair(target, at, &key, ret))
		if (form_equals(key, name))
			return true;
	return false;
}

static int decode_form(struct span encoded, struct buf *out)
{
	int byte, failed = 0;
	while (!failed && (byte = next_form_byte(&encoded)) >= 0)
		failed = buf_putc(out, (char)byte);
	return failed;
}

bool route_query(struct span target, struct span name, struct buf *decoded)
{
	size_t at = 0;
	struct span value;
	return route_find_value(target, name, &at, &value) && decode_form(value, decoded) == 0;
}

#define PARAMETERS_MAX 32 /* that one target may have a use for */

int route_query_check(struct span target, const char *const *names, size_t n, struct err *e)
{
	bool seen[PARAMETERS_MAX] = {false};
	size_t at = route_path(target).len + 1;
	struct span name, value;
	while (next_pair(target, &at, &name, &value)) {
		size_t i = 0;
		while (i < n && !form_equals(name, span_of(names[i])))
			i++;
		if (i == n && name.len + value.len)
			return err_set(e, -EINVAL, "unknown parameter \"%.*s\"",
				       (int)(name.len < 64 ? name.len : 64), name.ptr);
		if (i < n && seen[i])
			return err_set(e, -EINVAL, "%s is given twice", names[i]);
		if (i < n)
			seen[i] = true;
	}
	return 0;
}

bool route_query_next(struct span target, struct span name, size_t *at, struct buf *decoded)
{
	buf_clear(decoded);
	struct span value;
	if (!route_find_value(target, name, at, &value))
		return false;
	int failed = decode_form(value, decoded);
	if (failed) {
		buf_clear(decoded);
		decoded->error = failed;
	}
	return true;
}
