#include "operation/idempotency.h"

#include <stdio.h>
#include <string.h>

/* --- the field ------------------------------------------------------------------------------------------ */

/* sf-string: the text between the quotes, escapes resolved; what follows it in *rest. */
static bool idempotency_string(struct span value, struct idempotency_key_text *ret, struct span *rest)
{
	size_t n = 0, i = 1;
	if (value.len < 2 || value.ptr[0] != '"')
		return false;
	for (; i < value.len && value.ptr[i] != '"'; i++) {
		unsigned char c = (unsigned char)value.ptr[i];
		if (c == '\\') {
			if (++i == value.len || !memchr("\"\\", value.ptr[i], 2))
				return false;
			c = (unsigned char)value.ptr[i];
		}
		if (c < 0x20 || c > 0x7e || n == IDEMPOTENCY_KEY_MAX)
			return false;
		ret->text[n++] = (char)c;
	}
	ret->text[n] = '\0';
	*rest = (struct span){value.ptr + i + 1, value.len - i - 1};
	return i < value.len && n > 0;
}

/* *( ";" *SP parameter ): what they are is not looked at, but that they are some. */
static bool idempotency_parameters(struct span rest)
{
	rest = span_trim(rest);
	return rest.len == 0 || (rest.ptr[0] == ';' && rest.len > 1);
}

enum idempotency_key idempotency_key_find(const struct http_field *fields, size_t n,
					  struct idempotency_key_text *ret)
{
	struct span value = SPAN_NONE, rest;
	for (size_t i = 0; i < n; i++) {
		if (!span_is_nocase(fields[i].name, "Idempotency-Key"))
			continue;
		if (value.ptr)
			return IDEMPOTENCY_KEY_MALFORMED;
		value = fields[i].value;
	}
	if (!value.ptr)
		return IDEMPOTENCY_KEY_NONE;
	if (!idempotency_string(span_trim(value), ret, &rest) || !idempotency_parameters(rest))
		return IDEMPOTENCY_KEY_MALFORMED;
	return IDEMPOTENCY_KEY_FOUND;
}

/* --- digests -------------------------------------------------------------------------------------------- */

/* Each part is hashed by itself first: their lengths are fixed then, and no part can reach into the next. */
static void idempotency_hash(const struct span *parts, size_t n, char out[CRYPTO_SHA256_HEX])
{
	char all[4 * CRYPTO_SHA256_HEX];
	size_t length = 0;
	for (size_t i = 0; i < n; i++) {
		crypto_sha256_hex(parts[i], all + length);
		length += CRYPTO_SHA256_HEX - 1;
	}
	crypto_sha256_hex((struct span){all, length}, out);
}

void idempotency_digest(struct span service, struct span operation, struct span owner, struct span key,
			char out[CRYPTO_SHA256_HEX])
{
	const struct span parts[] = {service, operation, owner, key};
	idempotency_hash(parts, 4, out);
}

void idempotency_fingerprint(struct span method, struct span target, struct span body,
			     char out[CRYPTO_SHA256_HEX])
{
	const struct span parts[] = {method, target, body};
	idempotency_hash(parts, 3, out);
}

void idempotency_task_id(const char digest[CRYPTO_SHA256_HEX], const char fingerprint[CRYPTO_SHA256_HEX],
			 char out[CRYPTO_ID_HEX])
{
	char hash[CRYPTO_SHA256_HEX];
	const struct span parts[] = {SPAN_LIT("task"), span_of(digest), span_of(fingerprint)};
	idempotency_hash(parts, 3, hash);
	snprintf(out, CRYPTO_ID_HEX, "%.32s", hash);
}
