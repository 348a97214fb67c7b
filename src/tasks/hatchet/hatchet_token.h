/*
 * What a Hatchet token says of itself: the claims of a JWT (RFC 7519). Its signature is the engine's to
 * check.
 */
#ifndef TASKS_HATCHET_HATCHET_TOKEN_H
#define TASKS_HATCHET_HATCHET_TOKEN_H

#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

struct hatchet_claims {
	char tenant[37];	/* sub: a UUID */
	char server_url[512];	/* "" when the token has none */
	char grpc_address[256]; /* host:port; "" when it has none */
	int64_t expires_s;	/* exp, seconds since 1970; 0: none */
};

/* -EINVAL for what is no such token. The sentence tells what is wrong and shows nothing of it. */
int hatchet_token_read(struct span token, struct hatchet_claims *ret, struct err *e);

#endif
