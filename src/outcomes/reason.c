#include "outcomes/reason.h"

#include <stddef.h>

/* In the order of the enumeration, where a new one goes right before the last (reason.h says why). */
static const struct {
	const char *name, *meaning;
} reasons[] = {
	{"flag", "the flag's rules decided"},
	{"flag_disabled", "the variant flag is disabled"},
	{"no_match", "no rule of the flag matches"},
	{"env_default", "the flag exists nowhere; the environment's default applies"},
	{"flag_missing", "the flag exists nowhere, and the environment has no default"},
	{"flag_unavailable", "no flag snapshot has ever been loaded"},
	{"no_identity", "a percentage decides, but the request has no identity"},
	{"pinned", "a follow-up call stays on the side of the first call"},
	{"breaker_open", "the backend's circuit breaker is open"},
	{"guard", "the guard holds the operation on legacy"},
	{"override", "the request asked for this side and is allowed to"},
	{"body_too_large", "the body was too large to inspect for the decision"},
	{"input_too_large", "the input exceeds the backend's limit"},
	{"backend_unknown", "the flag names a backend that is not configured"},
	{"backend_not_ready", "the backend is known to be unable to run the task now"},
	{"unmapped", "no operation matches the request"},
	{"pin_unknown", "a follow-up call whose side could not be determined"},
	{"flag_broken", "the flag's definition cannot be understood"},
	{"input_not_representable", "the task's workers would not read the input as it was sent"},
	{"flag_off", "the boolean flag is false, and none of its rollouts matches"},
	{"no_task", "no task is mapped to the operation"},
	{"refused", "the router refused the request before choosing a side: limits, credentials"},
	{"backend_busy", "the backend already has its maximum of tasks in flight"},
	{"state_unavailable",
	 "the ledger (or its Redis) could not record the start; nothing was started on the task side"},
	{"other", "recorded by another version of the router; this one does not know the reason"},
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
_Static_assert(COUNT(reasons) == REASON_COUNT, "a text for each reason");

const char *outcome_reason_text(enum outcome_reason r)
{
	return r < COUNT(reasons) ? reasons[r].name : "?";
}

const char *outcome_reason_meaning(enum outcome_reason r)
{
	return r < COUNT(reasons) ? reasons[r].meaning : "?";
}

int outcome_reason_parse(struct span text)
{
	for (size_t i = 0; i < COUNT(reasons); i++)
		if (span_is(text, reasons[i].name))
			return (int)i;
	return -1;
}
