#include "outcomes/histogram.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define SUB (1u << HISTOGRAM_SUB_BITS)

/*
 * Values below SUB are their own bucket. Above, a value with its highest bit at position p (p >= SUB_BITS)
 * falls into octave p - SUB_BITS + 1, in which the SUB_BITS bits below the highest choose the bucket.
 */
unsigned histogram_bucket(int64_t value)
{
	if (value < (int64_t)SUB)
		return value < 0 ? 0 : (unsigned)value;
	if (value >= (int64_t)1 << HISTOGRAM_MAX_BITS)
		return HISTOGRAM_BUCKETS - 1;
	unsigned shift = 63u - (unsigned)__builtin_clzll((unsigned long long)value) - HISTOGRAM_SUB_BITS;
	return ((shift + 1) << HISTOGRAM_SUB_BITS) + (unsigned)((uint64_t)value >> shift) - SUB;
}

int64_t histogram_lowest(unsigned bucket)
{
	unsigned octave = bucket >> HISTOGRAM_SUB_BITS;
	if (octave == 0)
		return bucket;
	return (int64_t)(SUB + (bucket & (SUB - 1))) << (octave - 1);
}

int64_t histogram_highest(unsigned bucket)
{
	return histogram_lowest(bucket + 1) - 1;
}

void histogram_init(struct histogram *h)
{
	memset(h, 0, sizeof(*h));
	h->lowest = HISTOGRAM_BUCKETS;
}

static void add_count(struct histogram *h, unsigned bucket, uint64_t n)
{
	uint64_t sum = h->counts[bucket] + n;
	h->counts[bucket] = sum < n || sum > UINT32_MAX ? UINT32_MAX : (uint32_t)sum;
	if (bucket < h->lowest)
		h->lowest = bucket;
	if (bucket >= h->end)
		h->end = bucket + 1;
}

void histogram_add(struct histogram *h, int64_t value)
{
	add_count(h, histogram_bucket(value), 1);
}

static void put_varint(struct buf *out, uint64_t v)
{
	char bytes[10];
	size_t n = 0;
	for (; v >= 0x80; v >>= 7)
		bytes[n++] = (char)(v | 0x80);
	bytes[n++] = (char)v;
	buf_append(out, bytes, n);
}

int histogram_encode(const struct histogram *h, struct buf *out)
{
	unsigned next = 0;
	for (unsigned i = h->lowest; i < h->end; i++) {
		if (h->counts[i] == 0)
			continue;
		put_varint(out, i - next);
		put_varint(out, h->counts[i]);
		next = i + 1;
	}
	return out->error;
}

static int take_varint(struct span *in, uint64_t *ret)
{
	uint64_t v = 0;
	for (unsigned shift = 0; shift < 63 && in->len; shift += 7) {
		unsigned char c = (unsigned char)*in->ptr++;
		in->len--;
		v |= (uint64_t)(c & 0x7f) << shift;
		if (!(c & 0x80)) {
			*ret = v;
			return 0;
		}
	}
	return -EBADMSG;
}

/* 1 = a pair, 0 = the end. `next` is the bucket after the last one. */
static int take_pair(struct span *in, unsigned *next, unsigned *bucket, uint64_t *n)
{
	uint64_t skipped;
	if (in->len == 0)
		return 0;
	if (take_varint(in, &skipped) < 0 || take_varint(in, n) < 0 || *n > UINT32_MAX ||
	    *next >= HISTOGRAM_BUCKETS || skipped >= HISTOGRAM_BUCKETS - *next)
		return -EBADMSG;
	*bucket = *next + (unsigned)skipped;
	*next = *bucket + 1;
	return 1;
}

int histogram_decode(struct histogram *h, struct span encoded)
{
	unsigned next = 0, bucket;
	uint64_t n;
	int r;
	while ((r = take_pair(&encoded, &next, &bucket, &n)) > 0)
		add_count(h, bucket, n);
	return r;
}

int histogram_sum_decode(struct histogram_sum *s, struct span encoded)
{
	unsigned next = 0, bucket;
	uint64_t n;
	int r;
	while ((r = take_pair(&encoded, &next, &bucket, &n)) > 0) {
		s->counts[bucket] += n;
		s->total += n;
	}
	return r;
}

void histogram_sum_add(struct histogram_sum *s, int64_t value)
{
	s->counts[histogram_bucket(value)]++;
	s->total++;
}

int64_t histogram_sum_quantile(const struct histogram_sum *s, double quantile)
{
	if (s->total == 0)
		return -1;
	uint64_t rank = (uint64_t)ceil(quantile * (double)s->total), seen = 0;
	if (rank < 1)
		rank = 1;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += s->counts[i];
		if (seen >= rank)
			return (histogram_lowest(i) + histogram_highest(i)) / 2;
	}
	return histogram_highest(HISTOGRAM_BUCKETS - 1);
}
