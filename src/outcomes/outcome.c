#include "outcomes/outcome.h"

#include <stddef.h>
#include <string.h>

#include "base/crypto.h"
#include "base/text.h"

static const char *const sides[] = {"legacy", "task"};
static const char *const roles[] = {"primary", "fallback", "shadow"};
static const char *const results[] = {"success", "rejected", "failure", "timeout", "unknown", "cancelled"};
/* In the order of the enumeration. */
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
_Static_assert(COUNT(results) == OUTCOME_RESULT_COUNT, "a text for each result");
_Static_assert(COUNT(roles) == OUTCOME_ROLE_COUNT, "a text for each role");
_Static_assert(COUNT(sides) == OUTCOME_SIDE_COUNT, "a text for each side");

static const char *outcome_text_of(const char *const *texts, size_t n, unsigned value)
{
	return value < n ? texts[value] : "?";
}

static int outcome_value_of(const char *const *texts, size_t n, struct span text)
{
	for (size_t i = 0; i < n; i++)
		if (span_is(text, texts[i]))
			return (int)i;
	return -1;
}

void outcome_id(struct span id, char *dst, size_t size)
{
	enum { DIGITS = 16, SIGN = 3 };
	char hash[CRYPTO_SHA256_HEX];
	text_copy(id, dst, size);
	size_t n = strlen(dst);
	if (id.len < size / 6 || n < SIGN || strcmp(dst + n - SIGN, "\xe2\x80\xa6") != 0)
		/* it fits: … stands only where it was cut (or where an id ends so; then it gets its digits
		 * too) */
		return;
	crypto_sha256_hex(id, hash);
	text_copy(id, dst, size - DIGITS);
	memcpy(hash + DIGITS, "", 1);
	strcat(dst, hash);
}

const char *outcome_side_text(enum outcome_side s)
{
	return outcome_text_of(sides, COUNT(sides), s);
}

const char *outcome_role_text(enum outcome_role r)
{
	return outcome_text_of(roles, COUNT(roles), r);
}

const char *outcome_result_text(enum outcome_result r)
{
	return outcome_text_of(results, COUNT(results), r);
}

const char *outcome_reason_text(enum outcome_reason r)
{
	return r < COUNT(reasons) ? reasons[r].name : "?";
}

const char *outcome_reason_meaning(enum outcome_reason r)
{
	return r < COUNT(reasons) ? reasons[r].meaning : "?";
}

int outcome_side_parse(struct span text)
{
	return outcome_value_of(sides, COUNT(sides), text);
}

int outcome_role_parse(struct span text)
{
	return outcome_value_of(roles, COUNT(roles), text);
}

int outcome_result_parse(struct span text)
{
	return outcome_value_of(results, COUNT(results), text);
}

int outcome_reason_parse(struct span text)
{
	for (size_t i = 0; i < COUNT(reasons); i++)
		if (span_is(text, reasons[i].name))
			return (int)i;
	return -1;
}
