/*
 * CRC-32 (IEEE 802.3, as zlib and Go's hash/crc32 compute it). Over zlib.
 *
 * Not here: anything that must resist an adversary; that is crypto.h.
 */
#ifndef BASE_CHECKSUM_H
#define BASE_CHECKSUM_H

#include <stdint.h>

#include "base/span.h"

#define CHECKSUM_CRC32_START 0u

/* Continues a CRC: crc32(a + b) is checksum_crc32(checksum_crc32(CHECKSUM_CRC32_START, a), b). */
uint32_t checksum_crc32(uint32_t crc, struct span bytes);

#endif
