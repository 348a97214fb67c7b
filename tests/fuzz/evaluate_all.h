/* What is done with a snapshot that loads, wherever it came from: every flag is evaluated and explained. */
#include <stdint.h>

#include "flags/flags.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ignore(void *arg, unsigned depth, const char *sentence)
{
	size_t *n = arg;
	*n += depth + strlen(sentence);
}

static void evaluate_all(const struct flag_snapshot *s, struct span text)
{
	size_t said = 0;
	const struct flag_trace trace = {ignore, &said};
	/* The text itself is as good a value as any: what its constraints compare with is in it. */
	const struct flag_context context[] = {{SPAN_LIT("p"), text}, {SPAN_LIT("n"), SPAN_LIT("5")}};
	struct flag_result r;
	for (size_t i = 0; i < flag_snapshot_count(s); i++)
		flag_evaluate(s, flag_snapshot_at(s, i), SPAN_LIT("user-1"), context, 2, &r, &trace);
}
