#include "base/crypto.h"

#include <errno.h>
#include <stdio.h>
#include <sodium.h>

int crypto_setup(void)
{
	return sodium_init() < 0 ? -EIO : 0;
}

void crypto_random_id(char out[CRYPTO_ID_HEX])
{
	unsigned char b[16];
	randombytes_buf(b, sizeof(b));
	sodium_bin2hex(out, CRYPTO_ID_HEX, b, sizeof(b));
}

void crypto_uuid4(char out[CRYPTO_UUID])
{
	unsigned char b[16];
	randombytes_buf(b, sizeof(b));
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	snprintf(out, CRYPTO_UUID, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
		 b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
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

void crypto_hmac_sha256_hex(struct span key, struct span data, char out[CRYPTO_SHA256_HEX])
{
	unsigned char mac[crypto_auth_hmacsha256_BYTES];
	crypto_auth_hmacsha256_state st;
	crypto_auth_hmacsha256_init(&st, (const unsigned char *)(key.ptr ? key.ptr : ""), key.len);
	crypto_auth_hmacsha256_update(&st, (const unsigned char *)(data.ptr ? data.ptr : ""), data.len);
	crypto_auth_hmacsha256_final(&st, mac);
	sodium_bin2hex(out, CRYPTO_SHA256_HEX, mac, sizeof(mac));
}

bool crypto_equal(struct span a, struct span b)
{
	return a.len == b.len && sodium_memcmp(a.ptr ? a.ptr : "", b.ptr ? b.ptr : "", a.len) == 0;
}
