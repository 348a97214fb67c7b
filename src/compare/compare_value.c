#include "compare/compare_value.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/decimal.h"
#include "base/hash.h"
#include "base/utf8.h"

#define VALUE_BLANK 0x20

/* FNV-1a: no adversary gains by a collision, since what is paired by a hash is compared after. */
uint64_t compare_hash(uint64_t seed, const void *bytes, size_t n)
{
	uint64_t hash = hash64(seed ^ HASH64_START, bytes, n);
	return hash ^ hash >> 29;
}

/* --- numbers -------------------------------------------------------------------------------------------- */

/* false: it does not fit. */
static bool number_read(struct span text, long double *ret)
{
	char copy[400];
	if (text.len >= sizeof(copy))
		return false;
	span_copy(text, copy, sizeof(copy));
	*ret = strtold(copy, NULL);
	return isfinite(*ret);
}

bool compare_numbers_close(struct span a, struct span b, double absolute, double relative)
{
	long double x, y;
	if ((absolute <= 0 && relative <= 0) || !number_read(a, &x) || !number_read(b, &y))
		return false;
	long double largest = fmaxl(fabsl(x), fabsl(y)), difference = fabsl(x - y);
	/* What reading them may have taken from the difference; the tolerance was written in decimals. */
	difference += 2 * LDBL_EPSILON * largest;
	long double slack = 1 + 4 * (long double)DBL_EPSILON;
	return difference <= absolute * slack || difference <= relative * largest * slack;
}

/* One for equal numbers. */
uint64_t compare_number_hash(struct span number)
{
	struct decimal d = decimal_read(number);
	if (d.digits == d.end)
		return compare_hash(1, "0", 1);
	uint64_t hash = compare_hash(d.negative, &d.exponent, sizeof(d.exponent));
	for (const char *p = d.digits; p < d.end; p++)
		if (*p != '.')
			hash = hash64(hash, p, 1);
	return hash ^ hash >> 29;
}

/* --- texts ---------------------------------------------------------------------------------------------- */

static bool text_is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

int compare_text_fold(struct span text, struct compare_fold fold, struct buf *out)
{
	bool begun = false, gap = false;
	int r = 0;
	for (size_t i = 0; i < text.len && r == 0; i++) {
		char c = text.ptr[i];
		if (fold.space && text_is_space(c)) {
			gap = begun;
			continue;
		}
		if (fold.letters && c >= 'A' && c <= 'Z')
			c = (char)(c | 0x20);
		if (gap)
			r = buf_putc(out, ' ');
		if (r == 0)
			r = buf_putc(out, c);
		begun = true;
		gap = false;
	}
	return r;
}

static int trigram_order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

/* Three characters of 21 bits each, sorted. NULL: no memory. */
static uint64_t *trigrams_of(struct span text, size_t *ret_n)
{
	CLEANUP(buf_releasep) struct buf folded = BUF_INIT(text.len + 1);
	if (compare_text_fold(text, (struct compare_fold){true, true}, &folded) < 0)
		return NULL;
	uint64_t *grams = malloc((folded.len + 2) * sizeof(*grams));
	if (!grams)
		return NULL;
	uint64_t window = (uint64_t)VALUE_BLANK << 21 | VALUE_BLANK;
	size_t n = 0;
	const char *p = buf_span(&folded).ptr, *end = p + folded.len;
	while (p < end) {
		size_t length = utf8_sequence(p, end);
		uint32_t c = length ? utf8_character(p, length) : 0xFFFD;
		p += length ? length : 1;
		window = (window << 21 | c) & ((UINT64_C(1) << 63) - 1);
		grams[n++] = window;
	}
	grams[n++] = (window << 21 | VALUE_BLANK) & ((UINT64_C(1) << 63) - 1);
	qsort(grams, n, sizeof(*grams), trigram_order);
	*ret_n = n;
	return grams;
}

static size_t trigrams_shared(const uint64_t *a, size_t n, const uint64_t *b, size_t m)
{
	size_t i = 0, j = 0, shared = 0;
	while (i < n && j < m) {
		shared += a[i] == b[j];
		bool left = a[i] <= b[j], right = b[j] <= a[i];
		i += left;
		j += right;
	}
	return shared;
}

double compare_text_similarity(struct span a, struct span b)
{
	size_t n = 0, m = 0;
	CLEANUP(freep) uint64_t *x = trigrams_of(a, &n);
	CLEANUP(freep) uint64_t *y = trigrams_of(b, &m);
	if (!x || !y)
		return -ENOMEM;
	return 2.0 * (double)trigrams_shared(x, n, y, m) / (double)(n + m);
}
