/*
 * Hashes of bytes: FNV-1a, of 32 and 64 bits. The same in every process and version: some are shared or
 * stored.
 *
 * Not:     for what callers choose, where collisions would cost more than a longer look (base/crypto.h),
 *          unless the start is secret.
 * Threads: any; no state.
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

#define HASH32_START UINT32_C(2166136261)
#define HASH64_START UINT64_C(14695981039346656037)

/* Each continues from `h`, first the start: what is hashed in pieces hashes as in one. */
static inline uint32_t hash32(uint32_t h, struct span text)
{
	for (size_t i = 0; i < text.len; i++)
		h = (h ^ (unsigned char)text.ptr[i]) * UINT32_C(16777619);
	return h;
}

static inline uint64_t hash64(uint64_t h, const void *bytes, size_t n)
{
	const unsigned char *p = bytes;
	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * UINT64_C(1099511628211);
	return h;
}

static inline uint64_t hash64_span(uint64_t h, struct span text)
{
	return hash64(h, text.ptr, text.len);
}

/* A number, its least byte first on every machine. */
static inline uint64_t hash64_number(uint64_t h, uint64_t value)
{
	for (unsigned i = 0; i < 64; i += 8)
		h = (h ^ (value >> i & 0xff)) * UINT64_C(1099511628211);
	return h;
}

#endif
