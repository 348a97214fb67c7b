#include "base/span.h"

#include <stdlib.h>

void span_copy(struct span a, char *dst, size_t size)
{
	size_t n = a.len < size - 1 ? a.len : size - 1;
	/* Step back over continuation bytes, so that a cut never leaves half a character. */
	if (n < a.len)
		while (n > 0 && ((unsigned char)a.ptr[n] & 0xC0) == 0x80)
			n--;
	if (n)
		memcpy(dst, a.ptr, n);
	dst[n] = '\0';
}

char *span_dup(struct span a)
{
	char *copy = malloc(a.len + 1);
	if (!copy)
		return NULL;
	if (a.len)
		memcpy(copy, a.ptr, a.len);
	copy[a.len] = '\0';
	return copy;
}
