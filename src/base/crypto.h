/*
 * Random ids, SHA-256, constant-time comparison. Over libsodium.
 */
#ifndef BASE_CRYPTO_H
#define BASE_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

#define CRYPTO_SHA256_HEX 65 /* 64 hex digits and NUL */
#define CRYPTO_ID_HEX 33     /* 128 bits as 32 hex digits and NUL */
#define CRYPTO_UUID 37	     /* 8-4-4-4-12 and NUL */

int crypto_setup(void); /* once, before threads; -EIO when there is no randomness */
void crypto_random_id(char out[CRYPTO_ID_HEX]);
void crypto_uuid4(char out[CRYPTO_UUID]);     /* RFC 9562 version 4 */
unsigned crypto_random_below(unsigned limit); /* 0 … limit-1, evenly; for jitter too */
void crypto_sha256_hex(struct span data, char out[CRYPTO_SHA256_HEX]);
/* One as someone wrote it: 64 hex digits of either case; in lower case in `out`. False: it is none, and
 * `out` is undefined. */
bool crypto_sha256_read(struct span text, char out[CRYPTO_SHA256_HEX]);
/* HMAC-SHA-256 in hex; for pseudonyms of user ids. */
void crypto_hmac_sha256_hex(struct span key, struct span data, char out[CRYPTO_SHA256_HEX]);
/* SipHash-2-4 under a fixed key: evenly spread, the same everywhere; no secret. */
uint64_t crypto_hash64(struct span data);
/* Takes as long for equal as for different content of the same length. */
bool crypto_equal(struct span a, struct span b);

#endif
