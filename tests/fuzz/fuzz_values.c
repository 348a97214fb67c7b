/* A constraint of any type and operator against any value: the first byte chooses, a zero byte parts the
 * two texts. */
#include <stdint.h>

#include "flags/constraint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena a = ARENA_INIT(16 << 20);
	struct constraint c;
	if (size < 2)
		return 0;
	const char *rest = (const char *)data + 2;
	const char *zero = memchr(rest, '\0', size - 2);
	struct span value = {rest, zero ? (size_t)(zero - rest) : size - 2};
	struct span v = zero ? (struct span){zero + 1, size - 3 - value.len} : value;
	if (constraint_compile(&a, data[0] % (CONSTRAINT_OTHER + 1), data[1] % (OP_OTHER + 1), SPAN_LIT("p"),
			       value, &c) == 0)
		constraint_match(&c, v);
	arena_release(&a);
	return 0;
}
