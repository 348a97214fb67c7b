/*
 * TLS below a connection of hiredis, where the distribution's hiredis has it (Debian 13; REDIS_HAS_TLS).
 *
 * Why:       hiredis verifies a certificate's chain, but not that it is the server's: the session is made
 *            here. The files are read for each connection, so that a renewed certificate is used by the
 *            next one.
 * Threads:   any.
 */
#ifndef BASE_REDIS_TLS_H
#define BASE_REDIS_TLS_H

#include "base/err.h"
#include "base/redis_url.h"

struct redisContext;
struct ssl_st; /* a session: OpenSSL's SSL, the connection's once it has begun */

/* Whether a connection could be begun: its files are there and fit together. -EINVAL with a sentence. */
int redis_tls_check(const struct redis_url *u, struct err *e);
/* On a connection that is being made to `host`, which the certificate must name. The handshake goes on
 * with the connection's events; its failure is the connection's. */
int redis_tls_begin(struct redisContext *c, const struct redis_url *u, const char *host, struct ssl_st **ret,
		    struct err *e);
/* Before each turn of hiredis: what others left in this thread's queue of errors is not this session's. */
void redis_tls_turn(void);
/* Why a session failed, after such a turn; false: TLS has nothing to say of it. */
bool redis_tls_reason(const struct ssl_st *session, char *room, size_t size);

#endif
