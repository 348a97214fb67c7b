#include "base/size.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Unit of a size by what follows its number; 0 for none that is known. */
static uint64_t size_unit(const char *suffix)
{
	static const struct {
		const char *suffix;
		uint64_t bytes;
	} units[] = {{"", 1},
		     {"B", 1},
		     {"KiB", 1ull << 10},
		     {"MiB", 1ull << 20},
		     {"GiB", 1ull << 30},
		     {"TiB", 1ull << 40},
		     {"kB", 1000},
		     {"MB", 1000000},
		     {"GB", 1000000000ull},
		     {"TB", 1000000000000ull}};
	while (*suffix == ' ')
		suffix++;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(suffix, units[i].suffix) == 0)
			return units[i].bytes;
	return 0;
}

int size_parse(const char *text, uint64_t *ret_bytes)
{
	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	char *end;
	errno = 0;
	unsigned long long n = strtoull(text, &end, 10);
	uint64_t unit = size_unit(end);
	if (errno || unit == 0 || n > UINT64_MAX / unit)
		return -EINVAL;
	*ret_bytes = n * unit;
	return 0;
}

void size_format(uint64_t bytes, char out[SIZE_TEXT_MAX])
{
	static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB"};
	size_t u = 0;
	while (u < 4 && bytes && bytes % 1024 == 0)
		bytes /= 1024, u++;
	snprintf(out, SIZE_TEXT_MAX, "%llu%s", (unsigned long long)bytes, units[u]);
}

bool size_within(struct span text, uint64_t min, uint64_t max, uint64_t *ret_bytes)
{
	char copy[64];
	uint64_t v;
	if (text.len == 0 || text.len >= sizeof(copy) || memchr(text.ptr, '\0', text.len))
		return false;
	memcpy(copy, text.ptr, text.len);
	copy[text.len] = '\0';
	if (size_parse(copy, &v) < 0 || v < min || v > max)
		return false;
	*ret_bytes = v;
	return true;
}

void size_range(uint64_t min, uint64_t max, char out[SIZE_RANGE_MAX])
{
	char low[SIZE_TEXT_MAX], high[SIZE_TEXT_MAX];
	size_format(min, low);
	size_format(max, high);
	snprintf(out, SIZE_RANGE_MAX, "a size from %s to %s (bytes, or with KiB, MiB, GiB)", low, high);
}
