/* Dot segments: a path that passes leads above its root for none of many simple readers, written without
 * the code under test. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "legacy/dot_segments.h"

enum { READER_BACKSLASH = 1, READER_CUTS = 2, READER_TRIMS = 4, READER_KEEPS_SLASH = 8, READERS = 16 };

static int value_of(char c)
{
	const char *digits = "0123456789abcdef0123456789ABCDEF", *p = c ? strchr(digits, c) : NULL;
	return p ? (int)((p - digits) % 16) : -1;
}

static size_t decoded(char *text, size_t n, bool keeps_slash)
{
	size_t out = 0;
	for (size_t i = 0; i < n; i++) {
		int high = text[i] == '%' && i + 2 < n ? value_of(text[i + 1]) : -1,
		    low = high < 0 ? -1 : value_of(text[i + 2]);
		char c = low < 0 ? text[i] : (char)(high * 16 + low);
		if (low >= 0 && keeps_slash && (c == '/' || c == '\\'))
			low = -1, c = text[i];
		text[out++] = c;
		i += low < 0 ? 0 : 2;
	}
	return out;
}

static bool leaves(const char *text, size_t n, int reader)
{
	long depth = 0;
	for (size_t begin = 0, i = 0; i <= n; i++) {
		if (i < n && text[i] != '/' && !((reader & READER_BACKSLASH) && text[i] == '\\'))
			continue;
		size_t length = i - begin;
		const char *s = text + begin;
		for (size_t k = 0; (reader & READER_CUTS) && k < length; k++)
			if (!s[k] || s[k] == ';' || s[k] == '#')
				length = k;
		while ((reader & READER_TRIMS) && length && (unsigned char)s[length - 1] <= ' ')
			length--;
		if (length == 2 && s[0] == '.' && s[1] == '.')
			depth--;
		else if (length && !(length == 1 && s[0] == '.'))
			depth++;
		if (depth < 0)
			return true;
		begin = i + 1;
	}
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (dot_segments_climb((struct span){(const char *)data, size}))
		return 0;
	char *text = malloc(size + 1);
	for (int reader = 0; text && reader < READERS; reader++) {
		size_t n = size;
		if (size)
			memcpy(text, data, size);
		for (int times = 0; times < 3; times++) {
			assert(!leaves(text, n, reader));
			n = decoded(text, n, reader & READER_KEEPS_SLASH);
		}
	}
	free(text);
	return 0;
}
