#include "traces/trace_context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"

/* --- reading -------------------------------------------------------------------------------------------- */

/* Lower case alone, as the standard has it. */
static bool trace_hex(const char *text, size_t n, bool zero_is_one)
{
	bool some = zero_is_one;
	for (size_t i = 0; i < n; i++) {
		char c = text[i];
		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
			return false;
		some |= c != '0';
	}
	return some;
}

bool trace_parent_read(struct span text, struct trace_context *ret)
{
	text = span_trim(text);
	const char *t = text.ptr;
	if (text.len < TRACE_PARENT - 1 || t[2] != '-' || t[35] != '-' || t[52] != '-')
		return false;
	if (!trace_hex(t, 2, true) || !trace_hex(t + 3, 32, false) || !trace_hex(t + 36, 16, false) ||
	    !trace_hex(t + 53, 2, true) || memcmp(t, "ff", 2) == 0)
		return false;
	bool known = memcmp(t, "00", 2) == 0;
	if (text.len > TRACE_PARENT - 1 && (known || t[55] != '-'))
		return false;
	span_copy((struct span){t + 3, 32}, ret->trace, sizeof(ret->trace));
	span_copy((struct span){t + 36, 16}, ret->span, sizeof(ret->span));
	char flags[3] = {t[53], t[54], '\0'};
	ret->flags = (uint8_t)strtoul(flags, NULL, 16) & TRACE_SAMPLED;
	return true;
}

bool trace_context_find(const struct http_field *fields, size_t n, struct trace_context *ret)
{
	const struct http_field *found = NULL;
	for (size_t i = 0; i < n; i++) {
		if (!span_is_nocase(fields[i].name, "traceparent"))
			continue;
		if (found)
			return false;
		found = &fields[i];
	}
	return found && trace_parent_read(found->value, ret);
}

void trace_state_find(const struct http_field *fields, size_t n, char ret[TRACE_STATE_MAX + 1])
{
	size_t at = 0;
	ret[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		if (!span_is_nocase(fields[i].name, "tracestate"))
			continue;
		struct span value = span_trim(fields[i].value);
		bool fits = at + value.len + (at > 0) <= TRACE_STATE_MAX;
		for (size_t k = 0; k < value.len && fits; k++)
			fits = value.ptr[k] >= ' ' && value.ptr[k] < 0x7f;
		if (!fits) {
			ret[0] = '\0';
			return;
		}
		if (at > 0 && value.len)
			ret[at++] = ',';
		memcpy(ret + at, value.ptr, value.len);
		at += value.len;
		ret[at] = '\0';
	}
}

/* --- writing -------------------------------------------------------------------------------------------- */

void trace_parent_write(const struct trace_context *c, char ret[TRACE_PARENT])
{
	snprintf(ret, TRACE_PARENT, "00-%s-%s-%02x", c->trace, c->span, c->flags);
}

void trace_new_id(char ret[TRACE_ID_HEX])
{
	_Static_assert(TRACE_ID_HEX == CRYPTO_ID_HEX, "128 bits");
	crypto_random_id(ret);
}

void trace_new_span(char ret[TRACE_SPAN_HEX])
{
	char id[CRYPTO_ID_HEX];
	crypto_random_id(id);
	memcpy(ret, id, TRACE_SPAN_HEX - 1);
	ret[TRACE_SPAN_HEX - 1] = '\0';
}

bool trace_is_among(const char trace[TRACE_ID_HEX], double share)
{
	/* of the last 56 bits, which are random also where the first ones are a time, what a double holds */
	unsigned long long bits = strtoull(trace + 18, NULL, 16) >> 4;
	return (double)bits < share * 4503599627370496.0; /* 2^52 */
}
