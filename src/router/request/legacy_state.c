#include "router/request/legacy_state.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"

const char *legacy_state_kind(enum legacy_failure f)
{
	static const char *const kinds[LEGACY_FAILURES] = {
		[LEGACY_CONNECT] = "refused",
		[LEGACY_CONNECT_TIMEOUT] = "connect_timeout",
		[LEGACY_OVERLOADED] = "overload",
		[LEGACY_RESET] = "reset",
		[LEGACY_TIMEOUT] = "timeout",
		[LEGACY_MALFORMED] = "malformed",
		[LEGACY_TRUNCATED] = "truncated",
		[LEGACY_NAME] = "dns",
		[LEGACY_TLS] = "tls",
	};
	return (unsigned)f < LEGACY_FAILURES ? kinds[f] : "unknown";
}

void legacy_state_failed(struct legacy_state *s, const char *service, enum legacy_failure f,
			 const char *detail)
{
	int64_t now = clock_mono_ms();
	atomic_store_explicit(&s->tried, true, memory_order_relaxed);
	uint64_t before = atomic_fetch_add(&s->kinds[f].count, 1);
	atomic_store(&s->kinds[f].last_ms, now);
	if (atomic_fetch_or(&s->failing, 1u << f) & 1u << f)
		return;
	atomic_store(&s->kinds[f].before, before);
	atomic_store(&s->kinds[f].began_ms, now);
	log_warn("legacy_failing", LOG_STR("service", service), LOG_STR("kind", legacy_state_kind(f)),
		 LOG_STR("error", detail));
}

void legacy_state_answered(struct legacy_state *s)
{
	if (!atomic_load_explicit(&s->tried, memory_order_relaxed)) /* once: the line stays shared */
		atomic_store_explicit(&s->tried, true, memory_order_relaxed);
	if (atomic_load_explicit(&s->failing, memory_order_relaxed))
		atomic_store(&s->answered_ms, clock_mono_ms());
}

void legacy_state_look(struct legacy_state *s, const char *service)
{
	int64_t now = clock_mono_ms();
	for (unsigned f = 0; f < LEGACY_FAILURES; f++) {
		int64_t last = atomic_load(&s->kinds[f].last_ms);
		if (!(atomic_load(&s->failing) & 1u << f) || now - last < LEGACY_STATE_QUIET_MS ||
		    atomic_load(&s->answered_ms) < last)
			continue;
		atomic_fetch_and(&s->failing, ~(1u << f));
		log_info("legacy_recovered", LOG_STR("service", service),
			 LOG_STR("kind", legacy_state_kind((enum legacy_failure)f)),
			 LOG_INT("failures",
				 atomic_load(&s->kinds[f].count) - atomic_load(&s->kinds[f].before)),
			 LOG_INT("lasted_ms", last - atomic_load(&s->kinds[f].began_ms)));
	}
}

bool legacy_state_tried(const struct legacy_state *s)
{
	return atomic_load_explicit(&s->tried, memory_order_relaxed);
}

bool legacy_state_reachable(const struct legacy_state *s)
{
	const unsigned connecting =
		1u << LEGACY_CONNECT | 1u << LEGACY_CONNECT_TIMEOUT | 1u << LEGACY_NAME | 1u << LEGACY_TLS;
	return !(atomic_load(&s->failing) & connecting);
}

void legacy_state_write_json(const struct legacy_state *s, const char *service, struct buf *out)
{
	unsigned failing = atomic_load(&s->failing), n = 0;
	unsigned long long errors = 0;
	buf_puts(out, "{\"service\":");
	json_quote(out, span_of(service));
	buf_printf(out, ",\"reachable\":%s,\"failing\":[", legacy_state_reachable(s) ? "true" : "false");
	for (unsigned f = 0; f < LEGACY_FAILURES; f++) {
		errors += atomic_load(&s->kinds[f].count);
		if (failing & 1u << f)
			buf_printf(out, "%s\"%s\"", n++ ? "," : "",
				   legacy_state_kind((enum legacy_failure)f));
	}
	buf_printf(out, "],\"errors\":%llu}", errors);
}

void legacy_state_read(const struct legacy_state *s, bool *ret_reachable, char *kinds, size_t size,
		       uint64_t *ret_errors)
{
	unsigned failing = atomic_load(&s->failing);
	size_t at = 0;
	*ret_reachable = legacy_state_reachable(s);
	*ret_errors = 0;
	kinds[0] = '\0';
	for (unsigned f = 0; f < LEGACY_FAILURES; f++) {
		*ret_errors += atomic_load(&s->kinds[f].count);
		if (failing & 1u << f && at < size)
			at += (size_t)snprintf(kinds + at, size - at, "%s%s", at ? ", " : "",
					       legacy_state_kind((enum legacy_failure)f));
	}
}
