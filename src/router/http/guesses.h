/*
 * Guesses: wrong credentials by peer, so that they are logged and cannot be tried without end.
 *
 * Why:       who guesses gets GUESSES_PER_MINUTE tries a minute and address; credentials that were right
 *            before in this process are taken even then, so nobody is shut out by a neighbor behind the
 *            same address.
 * Limits:    GUESSES_PEERS addresses (IPv6: their /64); the one that has been quiet for longest makes room.
 * Threads:   any; under a lock. Credentials are known by their SHA-256 alone.
 */
#ifndef ROUTER_HTTP_GUESSES_H
#define ROUTER_HTTP_GUESSES_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/crypto.h"

#define GUESSES_PER_MINUTE 20
#define GUESSES_PEERS 64

struct guesses;

int guesses_new(struct guesses **ret);		 /* -ENOMEM */
struct guesses *guesses_free(struct guesses *g); /* NULL is allowed; returns NULL */

/* Whether these credentials are to be looked at now. */
bool guesses_allow(struct guesses *g, const struct sockaddr *peer, const char hash[CRYPTO_SHA256_HEX]);
void guesses_right(struct guesses *g, const char hash[CRYPTO_SHA256_HEX]);
/* Logs `event` for the first of a minute and peer, and once when the tries of a minute are used up. */
void guesses_wrong(struct guesses *g, const struct sockaddr *peer, const char *event);

#endif
