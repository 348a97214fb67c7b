#include "base/nearest.h"

#include <stdint.h>

size_t nearest_edits(struct span a, struct span b)
{
	size_t row[NEAREST_MAX + 1];
	if (a.len > NEAREST_MAX || b.len > NEAREST_MAX)
		return SIZE_MAX;
	for (size_t j = 0; j <= b.len; j++)
		row[j] = j;
	for (size_t i = 1; i <= a.len; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= b.len; j++) {
			size_t replaced = diagonal + (a.ptr[i - 1] != b.ptr[j - 1]);
			diagonal = row[j];
			size_t least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
			row[j] = least < replaced ? least : replaced;
		}
	}
	return row[b.len];
}

const char *nearest_word(struct span word, const char *const *known, size_t n)
{
	const char *best = NULL;
	size_t least = SIZE_MAX;
	for (size_t i = 0; i < n; i++) {
		size_t e = nearest_edits(word, span_of(known[i]));
		if (e < least) {
			least = e;
			best = known[i];
		}
	}
	return best && least <= 1 + strlen(best) / 4 ? best : NULL;
}
