#include <stdlib.h>
#include <string.h>

#include "standing/standing_internal.h"

static int compare_names(const void *a, const void *b)
{
	const struct standing_name *x = a, *y = b;
	int r = strcmp(x->operation, y->operation);
	r = r ? r : strcmp(x->service, y->service);
	return r ? r : (x->at > y->at) - (x->at < y->at);
}

void standing_names_sort(struct standing_name *names, size_t n)
{
	qsort(names, n, sizeof(*names), compare_names);
}

static int compare_with_span(struct span s, const char *text)
{
	size_t n = strlen(text);
	size_t both = s.len < n ? s.len : n;
	int r = both ? memcmp(s.ptr, text, both) : 0;
	return r ? r : (s.len > n) - (s.len < n);
}

const struct standing_name *standing_names_find(const struct standing_name *names, size_t n,
						struct span service, struct span operation)
{
	size_t low = 0, high = n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int r = compare_with_span(operation, names[middle].operation);
		r = r ? r : compare_with_span(service, names[middle].service);
		if (r > 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < n && span_is(operation, names[low].operation) && span_is(service, names[low].service))
		return &names[low];
	return NULL;
}
