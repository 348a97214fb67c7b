/*
 * Equality of JSON values by meaning, over spans of valid text.
 *
 * Numbers are compared as decimals (base/decimal.h), not as doubles.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/decimal.h"
#include "base/json.h"

static bool number_equal(struct span a, struct span b)
{
	struct decimal x = decimal_read(a), y = decimal_read(b);
	if (x.digits == x.end || y.digits == y.end)
		return x.digits == x.end && y.digits == y.end;
	if (x.negative != y.negative || x.exponent != y.exponent)
		return false;
	for (;;) {
		x.digits += x.digits < x.end && *x.digits == '.';
		y.digits += y.digits < y.end && *y.digits == '.';
		if (x.digits == x.end || y.digits == y.end)
			return x.digits == x.end && y.digits == y.end;
		if (*x.digits++ != *y.digits++)
			return false;
	}
}

static int string_equal(struct span a, struct span b)
{
	if (!memchr(a.ptr, '\\', a.len) && !memchr(b.ptr, '\\', b.len))
		return span_eq(a, b);
	CLEANUP(buf_releasep) struct buf x = BUF_INIT(a.len), y = BUF_INIT(b.len);
	int r = json_unescape(a, &x);
	if (r == 0)
		r = json_unescape(b, &y);
	return r < 0 ? r : span_eq(buf_span(&x), buf_span(&y));
}

/* The last member of that name: 1 found, 0 not, <0 errors. */
static int find_member(struct span object, struct span key, struct span *ret_value)
{
	struct json_iter it;
	struct span k, v;
	int found = 0;
	json_iter_init(&it, object);
	while (json_iter_next(&it, &k, &v)) {
		int r = string_equal(k, key);
		if (r < 0)
			return r;
		if (r) {
			*ret_value = v;
			found = 1;
		}
	}
	return found;
}

static int object_equal(struct span a, struct span b)
{
	struct json_iter it;
	struct span key, ignored, x, y;
	int r = 1;
	/* Every name of the one is in the other, then every name of the other has the same last value in
	 * both. */
	json_iter_init(&it, a);
	while (r > 0 && json_iter_next(&it, &key, &ignored))
		r = find_member(b, key, &y);
	json_iter_init(&it, b);
	while (r > 0 && json_iter_next(&it, &key, &ignored)) {
		r = find_member(a, key, &x);
		if (r > 0)
			r = find_member(b, key, &y);
		if (r > 0)
			r = json_equal(x, y);
	}
	return r;
}

static int array_equal(struct span a, struct span b)
{
	struct json_iter i, j;
	struct span key, x, y;
	json_iter_init(&i, a);
	json_iter_init(&j, b);
	for (;;) {
		bool more = json_iter_next(&i, &key, &x);
		if (json_iter_next(&j, &key, &y) != more)
			return 0;
		int r = more ? json_equal(x, y) : 1;
		if (r <= 0 || !more)
			return r;
	}
}

int json_equal(struct span a, struct span b)
{
	enum json_type type = json_type_of(a);
	if (type != json_type_of(b))
		return 0;
	switch (type) {
	case JSON_NUMBER:
		return number_equal(a, b);
	case JSON_STRING:
		return string_equal(a, b);
	case JSON_ARRAY:
		return array_equal(a, b);
	case JSON_OBJECT:
		return object_equal(a, b);
	default:
		return 1;
	}
}
