#include "base/decimal.h"

#include <string.h>

#include "base/digits.h"

static int64_t decimal_exponent(const char *p, const char *end)
{
	bool negative = p < end && *p == '-';
	int64_t value = 0;
	for (p += p < end && !is_digit(*p); p < end; p++)
		if (value < INT64_MAX / 100)
			value = value * 10 + (*p - '0');
	return negative ? -value : value;
}

struct decimal decimal_read(struct span number)
{
	const char *p = number.ptr, *end = p + number.len, *mantissa_end = p;
	struct decimal d = {.negative = *p == '-'};
	p += d.negative;
	while (mantissa_end < end && (*mantissa_end | 0x20) != 'e')
		mantissa_end++;
	const char *point = memchr(p, '.', (size_t)(mantissa_end - p));
	if (!point)
		point = mantissa_end;
	const char *last = mantissa_end;
	while (p < mantissa_end && (*p == '0' || *p == '.'))
		p++;
	while (last > p && (last[-1] == '0' || last[-1] == '.'))
		last--;
	d.digits = p;
	d.end = last;
	d.exponent = p < point ? point - p : point + 1 - p;
	if (mantissa_end < end)
		d.exponent += decimal_exponent(mantissa_end + 1, end);
	return d;
}
