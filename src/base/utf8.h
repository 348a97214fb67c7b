/*
 * UTF-8, one character at a time.
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length of the sequence at text < end (RFC 3629: no overlong forms, no surrogates, up to U+10FFFF), 0 when
 * it is none. */
static inline size_t utf8_sequence(const char *text, const char *end)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t left = (size_t)(end - text);
	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xC2 || p[0] > 0xF4)
		return 0;
	size_t n = 2 + (p[0] >= 0xE0) + (p[0] >= 0xF0);
	if (left < n)
		return 0;
	unsigned char least = 0x80, most = 0xBF;
	if (p[0] == 0xE0)
		least = 0xA0;
	else if (p[0] == 0xED)
		most = 0x9F;
	else if (p[0] == 0xF0)
		least = 0x90;
	else if (p[0] == 0xF4)
		most = 0x8F;
	if (p[1] < least || p[1] > most)
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((p[i] & 0xC0) != 0x80)
			return 0;
	return n;
}

/* The character of a sequence of n bytes that utf8_sequence has found. */
static inline uint32_t utf8_character(const char *text, size_t n)
{
	static const unsigned char first[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
	uint32_t c = (unsigned char)text[0] & first[n];
	for (size_t i = 1; i < n; i++)
		c = c << 6 | ((unsigned char)text[i] & 0x3F);
	return c;
}

#endif
