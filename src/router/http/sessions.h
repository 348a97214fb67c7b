/*
 * Sessions: browsers that have shown an admin token, each known by a random cookie (design, "Moving").
 *
 * Why:       a browser cannot send Authorization by itself, and a token must not lie in a cookie.
 * Kept:      the hash of the cookie, the hash of the token (so that its scope is asked anew for each request,
 *            and the session ends when the token does), and a random form token against forged requests. In
 *            this process only: after a restart one signs in again.
 * Limits:    SESSIONS_OF_TOKEN for one token, the oldest of its own making room; SESSIONS_MAX in all, then
 *            the one that has not been used for longest makes room. Only who has a token can take room at
 *            all.
 * Threads:   one.
 * Times:     monotonic milliseconds, the caller's.
 */
#ifndef ROUTER_HTTP_SESSIONS_H
#define ROUTER_HTTP_SESSIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/crypto.h"
#include "base/span.h"

#define SESSIONS_MAX 256
#define SESSIONS_OF_TOKEN 16
#define SESSIONS_COOKIE (2 * (CRYPTO_ID_HEX - 1) + 1) /* 256 bits in hex, and NUL */

struct sessions;

struct session {
	char token[CRYPTO_SHA256_HEX]; /* hash of the token it began with */
	char form[CRYPTO_ID_HEX];      /* that every form of it has to bring back */
	int64_t ends_ms;
};

int sessions_new(struct sessions **ret);	    /* -ENOMEM */
struct sessions *sessions_free(struct sessions *s); /* NULL is allowed; returns NULL */

void sessions_begin(struct sessions *s, const char token[CRYPTO_SHA256_HEX], int64_t now_ms, int64_t lasts_ms,
		    char ret_cookie[SESSIONS_COOKIE]);
/* False: there is none of that cookie, or its time is over. */
bool sessions_find(struct sessions *s, struct span cookie, int64_t now_ms, struct session *ret);
void sessions_end(struct sessions *s, struct span cookie);

#endif
