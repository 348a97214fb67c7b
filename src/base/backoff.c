#include "base/backoff.h"

#include <stdint.h>

#include "base/crypto.h"

unsigned backoff_ms(unsigned first_ms, unsigned max_ms, unsigned failures)
{
	uint64_t ms = first_ms;
	while (failures-- > 1 && ms < max_ms)
		ms *= 2;
	if (ms > max_ms)
		ms = max_ms;
	unsigned half = (unsigned)ms / 2;
	return (unsigned)ms - half + crypto_random_below(half + 1);
}
