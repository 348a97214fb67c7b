#include "base/crypto.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "base/digits.h"

int crypto_setup(void)
{
	return sodium_init() < 0 ? -EIO : 0;
}

/* Ids are made per request: one system call for many of them. What was handed out is wiped, so that a later
 * look into memory tells no earlier id. */
static void take_random(unsigned char *out, size_t n)
{
	static _Thread_local unsigned char pool[1024];
	static _Thread_local size_t left;
	if (left < n) {
		randombytes_buf(pool, sizeof(pool));
		left = sizeof(pool);
	}
	memcpy(out, pool + left - n, n);
	sodium_memzero(pool + left - n, n);
	left -= n;
}

void crypto_random_id(char out[CRYPTO_ID_HEX])
{
	unsigned char b[16];
	take_random(b, sizeof(b));
	sodium_bin2hex(out, CRYPTO_ID_HEX, b, sizeof(b));
}

void crypto_uuid4(char out[CRYPTO_UUID])
{
	unsigned char b[16];
	char hex[33];
	take_random(b, sizeof(b));
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	sodium_bin2hex(hex, sizeof(hex), b, sizeof(b));
	static const unsigned char groups[] = {8, 4, 4, 4, 12};
	const char *from = hex;
	for (size_t i = 0; i < sizeof(groups); i++) {
		memcpy(out, from, groups[i]);
		from += groups[i];
		out += groups[i];
		*out++ = i + 1 < sizeof(groups) ? '-' : '\0';
	}
}

unsigned crypto_random_below(unsigned limit)
{
	return randombytes_uniform(limit);
}

void crypto_sha256_hex(struct span data, char out[CRYPTO_SHA256_HEX])
{
	unsigned char hash[crypto_hash_sha256_BYTES];
	crypto_hash_sha256(hash, (const unsigned char *)(data.ptr ? data.ptr : ""), data.len);
	sodium_bin2hex(out, CRYPTO_SHA256_HEX, hash, sizeof(hash));
}

bool crypto_sha256_read(struct span text, char out[CRYPTO_SHA256_HEX])
{
	if (text.len != CRYPTO_SHA256_HEX - 1)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		int digit = hex_digit(text.ptr[i]);
		if (digit < 0)
			return false;
		out[i] = "0123456789abcdef"[digit];
	}
	out[text.len] = '\0';
	return true;
}

void crypto_hmac_sha256_hex(struct span key, struct span data, char out[CRYPTO_SHA256_HEX])
{
	unsigned char mac[crypto_auth_hmacsha256_BYTES];
	crypto_auth_hmacsha256_state st;
	crypto_auth_hmacsha256_init(&st, (const unsigned char *)(key.ptr ? key.ptr : ""), key.len);
	crypto_auth_hmacsha256_update(&st, (const unsigned char *)(data.ptr ? data.ptr : ""), data.len);
	crypto_auth_hmacsha256_final(&st, mac);
	sodium_bin2hex(out, CRYPTO_SHA256_HEX, mac, sizeof(mac));
}

uint64_t crypto_hash64(struct span data)
{
	static const unsigned char key[crypto_shorthash_KEYBYTES];
	unsigned char hash[crypto_shorthash_BYTES];
	uint64_t value = 0;
	crypto_shorthash(hash, (const unsigned char *)(data.ptr ? data.ptr : ""), data.len, key);
	for (size_t i = 0; i < sizeof(value); i++)
		value |= (uint64_t)hash[i] << 8 * i;
	return value;
}

bool crypto_equal(struct span a, struct span b)
{
	return a.len == b.len && sodium_memcmp(a.ptr ? a.ptr : "", b.ptr ? b.ptr : "", a.len) == 0;
}
