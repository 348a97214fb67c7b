#include "base/checksum.h"

#include <zlib.h>

uint32_t checksum_crc32(uint32_t crc, struct span bytes)
{
	/* zlib answers its start value for a NULL pointer, whatever the CRC so far. */
	if (bytes.len == 0)
		return crc;
	return (uint32_t)crc32_z(crc, (const unsigned char *)bytes.ptr, bytes.len);
}
