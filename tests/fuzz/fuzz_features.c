/* Any bytes as a features file, under both servers' rules. */
#include "evaluate_all.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span text = {(const char *)data, size};
	for (enum flag_rules rules = 0; rules < FLAG_RULES_COUNT; rules++) {
		struct flag_snapshot *s = NULL;
		struct err e;
		if (flag_snapshot_parse_features("fuzz.yml", text, rules, &s, &e) == 0)
			evaluate_all(s, text);
		flag_snapshot_unref(s);
	}
	return 0;
}
