#include "metrics/outcome.h"

#include <stddef.h>
#include <string.h>

#include "base/crypto.h"
#include "base/text.h"

static const char *const sides[] = {"legacy", "task"};
static const char *const roles[] = {"primary", "fallback", "shadow"};
static const char *const results[] = {"success", "rejected", "failure", "timeout", "unknown", "cancelled"};
static const char *const reasons[] = {"flag",	     "flag_disabled", "no_match", "env_default", "flag_missing", "flag_unavailable",
				      "no_identity", "pinned",	      "breaker_open", "guard",	     "override",
				      "body_too_large", "input_too_large", "backend_unknown", "backend_not_ready",
				      "unmapped", "pin_unknown", "flag_broken", "input_not_representable"};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
_Static_assert(COUNT(reasons) == REASON_COUNT, "a text for each reason");
_Static_assert(COUNT(results) == OUTCOME_RESULT_COUNT, "a text for each result");
_Static_assert(COUNT(roles) == OUTCOME_ROLE_COUNT, "a text for each role");
_Static_assert(COUNT(sides) == OUTCOME_SIDE_COUNT, "a text for each side");

static const char *text_of(const char *const *texts, size_t n, unsigned value)
{
	return value < n ? texts[value] : "?";
}

static int value_of(const char *const *texts, size_t n, struct span text)
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
		return; /* it fits: … stands only where it was cut (or where an id ends so; then it gets its digits too) */
	crypto_sha256_hex(id, hash);
	text_copy(id, dst, size - DIGITS);
	memcpy(hash + DIGITS, "", 1);
	strcat(dst, hash);
}

const char *outcome_side_text(enum outcome_side s)
{
	return text_of(sides, COUNT(sides), s);
}

const char *outcome_role_text(enum outcome_role r)
{
	return text_of(roles, COUNT(roles), r);
}

const char *outcome_result_text(enum outcome_result r)
{
	return text_of(results, COUNT(results), r);
}

const char *outcome_reason_text(enum outcome_reason r)
{
	return text_of(reasons, COUNT(reasons), r);
}

int outcome_side_parse(struct span text)
{
	return value_of(sides, COUNT(sides), text);
}

int outcome_role_parse(struct span text)
{
	return value_of(roles, COUNT(roles), text);
}

int outcome_result_parse(struct span text)
{
	return value_of(results, COUNT(results), text);
}

int outcome_reason_parse(struct span text)
{
	return value_of(reasons, COUNT(reasons), text);
}
