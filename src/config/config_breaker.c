/* `breaker:` of a backend: when it is given up for a while, and how it is tried again. */
#include "config/config_reader.h"

#define BREAKER_HOUR_MS 3600000

struct breaker_config config_breaker_default(void)
{
	return (struct breaker_config){.failures = 5, .probes = 3, .open_for_ms = 5000, .silence_ms = 3000};
}

void read_breaker(const struct place *p, struct breaker_config *ret)
{
	static const struct field fields[] = {
		{"failures", FIELD_UNSIGNED, offsetof(struct breaker_config, failures), 1, 1000},
		{"probes", FIELD_UNSIGNED, offsetof(struct breaker_config, probes), 1, 1000},
		{"open_for", FIELD_DURATION, offsetof(struct breaker_config, open_for_ms), 100,
		 BREAKER_HOUR_MS},
		{"silence", FIELD_DURATION, offsetof(struct breaker_config, silence_ms), 10, BREAKER_HOUR_MS},
	};
	if (!p->node)
		return;
	if (p->node->kind != YAML_SCALAR) {
		READ_FIELDS(p, fields, ret);
		return;
	}
	struct span text;
	ret->off = yaml_string(p->node, &text) && span_is(text, "off");
	if (!ret->off)
		place_mistake(p, "expected off, or a mapping with failures, silence, open_for and probes");
}
