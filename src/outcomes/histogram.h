/*
 * Latency histogram: log-linear buckets, 32 to the octave.
 *
 * Why:       percentiles over tens of millions of attempts must come from sums of small records. A bucket is
 *            at most 1/32 of its value wide and its middle is reported: the error is at most 1.6 %, and
 *            nothing below 64 µs is rounded. (The scheme of HdrHistogram with 5 bits of precision.)
 * Stored as: pairs of LEB128 varints (indexes skipped since the last pair, count), only buckets that are not
 *            empty.
 * Limits:    values above 2^40 µs (12 days) count as that; counts saturate at 2^32 - 1 per bucket and record.
 */
#ifndef OUTCOMES_HISTOGRAM_H
#define OUTCOMES_HISTOGRAM_H

#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

#define HISTOGRAM_SUB_BITS 5
#define HISTOGRAM_MAX_BITS 40
#define HISTOGRAM_BUCKETS (((HISTOGRAM_MAX_BITS - HISTOGRAM_SUB_BITS) + 1) << HISTOGRAM_SUB_BITS)

struct histogram {
	unsigned lowest, end; /* buckets that may be other than 0: [lowest, end) */
	uint32_t counts[HISTOGRAM_BUCKETS];
};

/* Sums of many, in the report. */
struct histogram_sum {
	uint64_t total;
	uint64_t counts[HISTOGRAM_BUCKETS];
};

unsigned histogram_bucket(int64_t value); /* negative counts as 0 */
/* The values of a bucket are lowest … highest, both included. */
int64_t histogram_lowest(unsigned bucket);
int64_t histogram_highest(unsigned bucket);

void histogram_init(struct histogram *h);
void histogram_add(struct histogram *h, int64_t value);
int histogram_encode(const struct histogram *h, struct buf *out); /* appends; buf's errors */
/* Both add what was encoded to what is there. -EBADMSG if it is not a histogram; then some of it may have
 * been added. */
int histogram_decode(struct histogram *h, struct span encoded);
int histogram_sum_decode(struct histogram_sum *s, struct span encoded);

void histogram_sum_add(struct histogram_sum *s, int64_t value);
/* The value below or at which a share of `quantile` (0 … 1) lies, by nearest rank; -1 when empty. */
int64_t histogram_sum_quantile(const struct histogram_sum *s, double quantile);

#endif
