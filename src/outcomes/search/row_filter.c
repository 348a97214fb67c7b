#include "outcomes/search/row_filter.h"

#include "base/hash.h"

uint64_t row_filter_key(enum row_filter_kind kind, struct span text)
{
	/* FNV's last bytes reach the upper bits only: mixed at its end (the finalizer of MurmurHash3). */
	uint64_t h = hash64_span(hash64_number(HASH64_START, kind), text);
	h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd);
	h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
	h ^= h >> 33;
	return h ? h : 1; /* 0 stands for none */
}

size_t row_filter_size(size_t keys)
{
	return keys * ROW_FILTER_BITS / 8 + 8;
}

static size_t filter_place(uint64_t key, unsigned probe, size_t size)
{
	uint64_t step = key >> 32 | 1;
	return (size_t)((key + probe * step) % (size * 8));
}

void row_filter_add(unsigned char *bits, size_t size, uint64_t key)
{
	for (unsigned i = 0; i < ROW_FILTER_PROBES; i++) {
		size_t at = filter_place(key, i, size);
		bits[at / 8] |= (unsigned char)(1u << at % 8);
	}
}

bool row_filter_has(struct span filter, uint64_t key)
{
	for (unsigned i = 0; i < ROW_FILTER_PROBES && filter.len; i++) {
		size_t at = filter_place(key, i, filter.len);
		if (!((unsigned char)filter.ptr[at / 8] >> at % 8 & 1))
			return false;
	}
	return true;
}
