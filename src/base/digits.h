/*
 * Digits of numbers in texts, decimal and hexadecimal.
 *
 * Threads: any; no state.
 */
#ifndef BASE_DIGITS_H
#define BASE_DIGITS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

static inline bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Of either case; -1 when it is none. */
static inline int hex_digit(char c)
{
	if (is_digit(c))
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The number of the next n (1 to 8) hexadecimal digits; false when there are not so many. */
static inline bool hex_read(const char *p, const char *end, size_t n, uint32_t *ret)
{
	uint32_t value = 0;
	if ((size_t)(end - p) < n)
		return false;
	for (size_t i = 0; i < n; i++) {
		int digit = hex_digit(p[i]);
		if (digit < 0)
			return false;
		value = value << 4 | (uint32_t)digit;
	}
	*ret = value;
	return true;
}

/* The byte of two of them, as after % and \x; -1 when there are no two. */
static inline int hex_byte(const char *p, const char *end)
{
	uint32_t value;
	return hex_read(p, end, 2, &value) ? (int)value : -1;
}

/* 1*DIGIT, leading zeros too, and nothing else; false above `max` and leaves *ret. */
static inline bool digits_read(struct span text, uint64_t max, uint64_t *ret)
{
	uint64_t value = 0;
	for (size_t i = 0; i < text.len; i++) {
		if (!is_digit(text.ptr[i]))
			return false;
		uint64_t digit = (uint64_t)(text.ptr[i] - '0');
		if (digit > max || value > (max - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	if (text.len == 0)
		return false;
	*ret = value;
	return true;
}

#endif
