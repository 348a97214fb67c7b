#include "outcomes/search/error_pattern.h"

#include <stdbool.h>
#include <string.h>

#define ID_MIN 8 /* a word with digits that is so long is an id */

static bool pattern_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool pattern_is_word(char c)
{
	return pattern_is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
	       c == '-';
}

/* Of an address or a version: next to it a dot and another digit, or before it a colon. */
static bool pattern_is_part(struct span error, struct span word)
{
	const char *end = word.ptr + word.len, *all = error.ptr + error.len;
	return (end + 1 < all && end[0] == '.' && pattern_is_digit(end[1])) ||
	       (word.ptr > error.ptr && (word.ptr[-1] == '.' || word.ptr[-1] == ':'));
}

static bool pattern_is_any(struct span error, struct span word)
{
	size_t digits = 0;
	for (size_t i = 0; i < word.len; i++)
		digits += pattern_is_digit(word.ptr[i]);
	if (digits == 3 && word.len == 3 && !pattern_is_part(error, word))
		return word.ptr[0] < '1' || word.ptr[0] > '5';
	return digits > 0 && (digits == word.len || word.len >= ID_MIN);
}

void error_pattern(struct span error, char out[OUTCOME_ERROR_MAX])
{
	size_t n = 0;
	for (size_t i = 0; i < error.len && n + 1 < OUTCOME_ERROR_MAX;) {
		size_t end = i;
		while (end < error.len && pattern_is_word(error.ptr[end]))
			end++;
		struct span word = {error.ptr + i, end - i};
		if (word.len && pattern_is_any(error, word)) {
			out[n++] = ERROR_PATTERN_ANY;
			i = end;
			continue;
		}
		size_t length = word.len ? word.len : 1;
		if (length > OUTCOME_ERROR_MAX - 1 - n)
			length = OUTCOME_ERROR_MAX - 1 - n;
		memcpy(out + n, error.ptr + i, length);
		n += length;
		i += length;
	}
	out[n] = '\0';
}
