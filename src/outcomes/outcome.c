#include "outcomes/outcome.h"

#include <stddef.h>
#include <string.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/text.h"

static const char *const sides[] = {"legacy", "task"};
static const char *const roles[] = {"primary", "fallback", "shadow"};
static const char *const results[] = {"success", "rejected", "failure", "timeout", "unknown", "cancelled"};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
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

void outcome_error(struct span error, char dst[OUTCOME_ERROR_MAX])
{
	/* Masked before it is cut: of a secret that is cut the rest would not be known for one. */
	CLEANUP(buf_releasep) struct buf masked = BUF_INIT(2 * TEXT_MASKED_MAX);
	dst[0] = '\0';
	if (error.len && text_put_masked(&masked, error) == 0)
		text_copy(buf_span(&masked), dst, OUTCOME_ERROR_MAX);
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
