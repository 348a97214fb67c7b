#include "tasks/number.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* An integer's sign and digits, without leading zeros; zero has no digits and is not negative. */
struct integer {
	bool negative;
	const char *digits;
	size_t n;
};

bool number_is_integer(struct span number)
{
	for (size_t i = 0; i < number.len; i++)
		if (number.ptr[i] == '.' || number.ptr[i] == 'e' || number.ptr[i] == 'E')
			return false;
	return true;
}

static struct integer integer_of(struct span s)
{
	struct integer v = {.digits = s.ptr, .n = s.len};
	if (v.n && v.digits[0] == '-') {
		v.negative = true;
		v.digits++, v.n--;
	}
	while (v.n && v.digits[0] == '0')
		v.digits++, v.n--;
	if (!v.n)
		v.negative = false;
	return v;
}

/* The decimal digit of weight 10^i. */
static int number_digit(const struct integer *v, size_t i)
{
	return i < v->n ? v->digits[v->n - 1 - i] - '0' : 0;
}

static int compare_magnitude(const struct integer *a, const struct integer *b)
{
	if (a->n != b->n)
		return a->n < b->n ? -1 : 1;
	return a->n ? memcmp(a->digits, b->digits, a->n) : 0;
}

static int add_integers(struct integer a, struct integer b, struct buf *out)
{
	bool subtract = a.negative != b.negative;
	if (subtract && compare_magnitude(&a, &b) < 0) {
		struct integer t = a;
		a = b;
		b = t;
	}
	size_t n = (a.n > b.n ? a.n : b.n) + 1;
	CLEANUP(freep) char *sum = malloc(n + 1);
	if (!sum)
		return -ENOMEM;
	int carry = 0;
	for (size_t i = 0; i < n; i++) {
		int d = number_digit(&a, i) + (subtract ? -number_digit(&b, i) : number_digit(&b, i)) + carry;
		carry = d < 0 ? -1 : d / 10;
		sum[n - 1 - i] = (char)('0' + (d + 10) % 10);
	}
	struct integer r = integer_of((struct span){sum, n});
	if (!r.n)
		return buf_putc(out, '0');
	if (a.negative)
		buf_putc(out, '-');
	return buf_append(out, r.digits, r.n);
}

/* strtod needs a NUL, which a span does not have. */
static int number_to_double(struct span s, double *ret)
{
	CLEANUP(freep) char *copy = span_dup(s);
	if (!copy)
		return -ENOMEM;
	*ret = strtod(copy, NULL);
	return 0;
}

/* The shortest digits that read back as `value`, in the form d.ddde[+-]xx. */
static void shortest(double value, char text[40])
{
	for (int digits = 0; digits < 17; digits++) {
		snprintf(text, 40, "%.*e", digits, value);
		if (strtod(text, NULL) == value)
			return;
	}
}

int number_repr(double value, struct buf *out)
{
	char text[40], digits[20];
	shortest(value, text);
	if (text[0] == '-')
		buf_putc(out, '-');
	const char *at = text + (text[0] == '-');
	char *e = strchr(text, 'e');
	int exponent = atoi(e + 1), n = 0;
	for (; at < e; at++)
		if (*at != '.')
			digits[n++] = *at;
	digits[n] = '\0';
	/* Python: exponents from -4 to 15 are written out. */
	if (exponent < -4 || exponent > 15) {
		buf_printf(out, n > 1 ? "%c.%s" : "%c%s", digits[0], digits + 1);
		return buf_printf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
	}
	if (exponent < 0)
		return buf_printf(out, "0.%.*s%s", -exponent - 1, "0000", digits);
	for (int i = 0; i <= exponent; i++)
		buf_putc(out, i < n ? digits[i] : '0');
	return buf_printf(out, ".%s", exponent + 1 < n ? digits + exponent + 1 : "0");
}

int number_text(struct span number, struct buf *out)
{
	if (number_is_integer(number))
		return add_integers(integer_of(number), (struct integer){.digits = "", .n = 0}, out);
	double value;
	int r = number_to_double(number, &value);
	if (r < 0)
		return r;
	/* Python reads 1e400 as infinity and says "inf". */
	if (isinf(value))
		return buf_puts(out, value < 0 ? "-inf" : "inf");
	return number_repr(value, out);
}

int number_add(struct span a, struct span b, struct buf *out)
{
	if (number_is_integer(a) && number_is_integer(b))
		return add_integers(integer_of(a), integer_of(b), out);
	double x, y;
	int r = number_to_double(a, &x);
	if (r == 0)
		r = number_to_double(b, &y);
	if (r < 0)
		return r;
	return isfinite(x + y) ? number_repr(x + y, out) : -ERANGE;
}
