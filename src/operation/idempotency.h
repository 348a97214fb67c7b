/*
 * Idempotency keys of callers (draft-ietf-httpapi-idempotency-key-header): what an operation says about them,
 * how they are read, and what is stored of them.
 *
 * Why:       a caller that repeats a request must get the same task and the same answer. Keys belong to
 *            callers and may reveal something about them: only digests are stored.
 * Threads:   any.
 */
#ifndef OPERATION_IDEMPOTENCY_H
#define OPERATION_IDEMPOTENCY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/crypto.h"
#include "base/http_message.h"
#include "base/span.h"

#define IDEMPOTENCY_KEY_MAX 255 /* characters of a key, its escapes resolved */

enum idempotency_use { IDEMPOTENCY_IGNORE, IDEMPOTENCY_ACCEPT, IDEMPOTENCY_REQUIRE };

/* `idempotency:` of an operation. */
struct idempotency {
	enum idempotency_use use;
	unsigned keep_ms;
	size_t max_answer; /* bytes of a body to keep */
	unsigned max_keys; /* of one organization and credential */
	/* keys that legacy sees are not stored: they may run again on the task side */
	bool legacy_forgets;
};

enum idempotency_key {
	IDEMPOTENCY_KEY_NONE,  /* no such field */
	IDEMPOTENCY_KEY_FOUND, /* *ret is filled in */
	/* not a structured-field string (RFC 9651 §3.3.3), empty, too long, or given twice */
	IDEMPOTENCY_KEY_MALFORMED,
};

struct idempotency_key_text {
	char text[IDEMPOTENCY_KEY_MAX + 1];
};
/* Parameters after the string are ignored, as the draft requires. */
enum idempotency_key idempotency_key_find(const struct http_field *fields, size_t n,
					  struct idempotency_key_text *ret);

/* Of a key within its caller's scope. `owner`: who calls, as auth_owner() says it. */
void idempotency_digest(struct span service, struct span operation, struct span owner, struct span key,
			char out[CRYPTO_SHA256_HEX]);
/* Of the request itself. */
void idempotency_fingerprint(struct span method, struct span target, struct span body,
			     char out[CRYPTO_SHA256_HEX]);
/* The id of the task that this key and request are about, the same each time. */
void idempotency_task_id(const char digest[CRYPTO_SHA256_HEX], const char fingerprint[CRYPTO_SHA256_HEX],
			 char out[CRYPTO_ID_HEX]);

#endif
