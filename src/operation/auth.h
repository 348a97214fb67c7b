/*
 * Callers' credentials: bearer tokens against a list of SHA-256 hashes, and the fingerprint that owns a task.
 *
 * Why:       the task side must not be opened to everybody by mistake; tokens are never kept, logged or
 *            compared in clear.
 * Ownership: all borrows or is constant.
 * Threads:   any.
 * Limits:    AUTH_MAX_HASHES hashes. Each is compared in constant time, without stopping at a match.
 */
#ifndef OPERATION_AUTH_H
#define OPERATION_AUTH_H

#include <stddef.h>

#include "base/http_message.h"
#include "base/crypto.h"
#include "base/err.h"
#include "base/span.h"
#include "operation/operation.h"

#define AUTH_MAX_HASHES 10000

enum auth_result {
	AUTH_ACCEPTED,
	AUTH_MISSING,	/* no credentials, or of another scheme → 401 */
	AUTH_MALFORMED, /* Authorization repeated, or a malformed bearer token → 400 */
	AUTH_WRONG,	/* unknown token → 401 */
	AUTH_ASK,	/* AUTH_CHECK: its endpoint has to say */
};

/* Hex SHA-256 of the credentials; "" without any. */
struct auth_fingerprint {
	char hex[CRYPTO_SHA256_HEX];
};

/* AUTH_NONE accepts everything except a repeated Authorization, AUTH_UNSET nothing. *ret_fingerprint is set
 * in any case: of the token where it is a bearer token, of the whole value otherwise; with AUTH_CHECK of all
 * its credentials. */
enum auth_result auth_check(const struct auth *a, const struct http_field *fields, size_t n,
			    struct auth_fingerprint *ret_fingerprint);

/* One credential of a request. */
enum auth_found { AUTH_ABSENT, AUTH_FOUND, AUTH_AMBIGUOUS };
enum auth_found auth_credential_find(const struct auth_credential *c, const struct http_field *fields,
				     size_t n, struct span *ret);

int auth_status(enum auth_result r); /* 200, 401 or 400 */
/* value of WWW-Authenticate (RFC 6750 §3); SPAN_NONE when accepted */
struct span auth_challenge(enum auth_result r);

/* Who may query a task: the same credentials for the same organization (SPAN_NONE differs from an empty
 * one). Opaque text for task_call.owner. */
void auth_owner(const struct auth_fingerprint *f, struct span organization, char out[CRYPTO_SHA256_HEX]);

/* The next hash of a list of them, in lower case, cut off from *rest: 1, 0 at its end, -EBADMSG for a line
 * that holds something else, behind which it goes on. One hash in hex a line; blanks, empty lines and
 * anything after # are skipped. *number counts the lines, from 0. */
int auth_next_hash(struct span *rest, unsigned *number, char out[CRYPTO_SHA256_HEX]);

#endif
