#include "flags/number.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/digits.h"

/* More significant digits than these cannot change which double is nearest, except that a later one was not
 * zero. */
#define DIGITS_MAX 800
/* Go stops counting an exponent's digits there; far beyond what a double can hold. */
#define EXPONENT_MAX 10000

struct literal {
	char digits[DIGITS_MAX + 2]; /* significant digits, leading zeros dropped; a sticky 1 may follow */
	size_t n_digits;
	int64_t point;	  /* value = 0.DIGITS × base^point × (10 or 2)^exponent */
	int64_t exponent; /* as written */
	bool hex, negative;
};

static bool is_hex_digit(char c)
{
	return hex_digit(c) >= 0;
}

/* Go's rule: an underscore stands between two digits; the prefix 0x counts as a digit before it. */
static bool underscores_fine(struct span s, bool hex)
{
	bool after_digit = hex; /* s begins after the prefix */
	for (size_t i = 0; i < s.len; i++) {
		bool digit = hex ? is_hex_digit(s.ptr[i]) : is_digit(s.ptr[i]);
		if (s.ptr[i] == '_') {
			bool before_digit =
				i + 1 < s.len && (hex ? is_hex_digit(s.ptr[i + 1]) : is_digit(s.ptr[i + 1]));
			if (!after_digit || !before_digit)
				return false;
		}
		after_digit = digit;
	}
	return true;
}

static void take_digit(struct literal *l, char c, bool behind_point)
{
	if (l->n_digits == 0 && c == '0') {
		l->point -= behind_point;
		return;
	}
	if (l->n_digits < DIGITS_MAX)
		l->digits[l->n_digits++] = c;
	else if (c != '0' && l->n_digits == DIGITS_MAX)
		l->digits[l->n_digits++] = '1';
	l->point += !behind_point;
}

/* Reads the digits before and after the point; false if there is none. */
static bool take_mantissa(struct literal *l, struct span *s)
{
	bool point = false, any = false;
	while (s->len) {
		char c = s->ptr[0];
		if (c == '.') {
			if (point)
				return false;
			point = true;
		} else if (l->hex ? is_hex_digit(c) : is_digit(c)) {
			any = true;
			take_digit(l, c, point);
		} else if (c != '_') {
			break;
		}
		s->ptr++, s->len--;
	}
	return any;
}

static bool take_exponent(struct literal *l, struct span *s)
{
	char mark = l->hex ? 'p' : 'e';
	if (s->len == 0 || (s->ptr[0] | 0x20) != mark)
		return !l->hex;
	s->ptr++, s->len--;
	int sign = 1;
	if (s->len && (s->ptr[0] == '+' || s->ptr[0] == '-')) {
		sign = s->ptr[0] == '-' ? -1 : 1;
		s->ptr++, s->len--;
	}
	if (s->len == 0 || !is_digit(s->ptr[0]))
		return false;
	int64_t e = 0;
	for (; s->len && (is_digit(s->ptr[0]) || s->ptr[0] == '_'); s->ptr++, s->len--) {
		if (s->ptr[0] != '_' && e < EXPONENT_MAX)
			e = e * 10 + (s->ptr[0] - '0');
	}
	l->exponent = sign * e;
	return true;
}

static int64_t clamp(int64_t e)
{
	/* With at most DIGITS_MAX digits before it, everything beyond is zero or an overflow anyway. */
	const int64_t far = 100 * EXPONENT_MAX;
	if (e > far)
		return far;
	return e < -far ? -far : e;
}

/* Up to 15 digits and a power of ten that is a double itself: one exact operation, correctly rounded. The
 * common case. */
static bool short_decimal(const struct literal *l, double *ret)
{
	static const double powers[] = {1e0,  1e1,  1e2,  1e3,	1e4,  1e5,  1e6,  1e7,
					1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
					1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
	int64_t e = l->point + l->exponent - (int64_t)l->n_digits;
	if (l->hex || l->n_digits > 15 || e < -22 || e > 22)
		return false;
	int64_t v = 0;
	for (size_t i = 0; i < l->n_digits; i++)
		v = v * 10 + (l->digits[i] - '0');
	double d = e < 0 ? (double)v / powers[-e] : (double)v * powers[e];
	*ret = l->negative ? -d : d;
	return true;
}

/* libc rounds both forms to the nearest double, ties to even, as Go does. */
static bool to_double(const struct literal *l, double *ret)
{
	char text[DIGITS_MAX + 48];
	if (l->n_digits == 0) {
		*ret = l->negative ? -0.0 : 0.0;
		return true;
	}
	if (short_decimal(l, ret))
		return true;
	int64_t point = clamp(l->hex ? l->point * 4 + l->exponent : l->point + l->exponent);
	snprintf(text, sizeof(text), "%s%s.%.*s%c%lld", l->negative ? "-" : "", l->hex ? "0x0" : "0",
		 (int)l->n_digits, l->digits, l->hex ? 'p' : 'e', (long long)point);
	*ret = strtod(text, NULL);
	return !isinf(*ret);
}

static bool special(struct span s, bool is_signed, bool negative, double *ret)
{
	if (span_is_nocase(s, "inf") || span_is_nocase(s, "infinity")) {
		*ret = negative ? -INFINITY : INFINITY;
		return true;
	}
	if (!is_signed && span_is_nocase(s, "nan")) {
		*ret = NAN;
		return true;
	}
	return false;
}

bool number_parse(struct span text, double *ret)
{
	struct span s = text;
	bool is_signed = s.len && (s.ptr[0] == '+' || s.ptr[0] == '-');
	bool negative = is_signed && s.ptr[0] == '-';
	if (is_signed)
		s.ptr++, s.len--;
	if (s.len && !is_digit(s.ptr[0]) && s.ptr[0] != '.')
		return special(s, is_signed, negative, ret);
	struct literal l;
	l.n_digits = 0;
	l.point = l.exponent = 0;
	l.negative = negative;
	l.hex = s.len >= 2 && s.ptr[0] == '0' && (s.ptr[1] | 0x20) == 'x';
	if (l.hex)
		s.ptr += 2, s.len -= 2;
	if (s.len && memchr(s.ptr, '_', s.len) && !underscores_fine(s, l.hex))
		return false;
	return take_mantissa(&l, &s) && take_exponent(&l, &s) && s.len == 0 && to_double(&l, ret);
}
