/*
 * Addresses of Redis servers, as Celery and redis-py write them.
 *
 *   redis://[[user]:password@]host[:port][/db]          also valkey://
 *   redis+socket:///path/to.sock[?virtual_host=db]      also unix:// and socket://
 *
 * User, password, host and path are percent-decoded. Of the query only virtual_host, db, username and
 * password are read; what belongs to a Python client's own settings (socket_timeout, health_check_interval,
 * …) is passed over.
 * Errors:    the sentences and redis_url_where hold neither user nor password.
 */
#ifndef BASE_REDIS_URL_H
#define BASE_REDIS_URL_H

#include <stdbool.h>

#include "base/err.h"
#include "base/span.h"

#define REDIS_WHERE_MAX 320

struct redis_url {
	char *host; /* NULL for a unix socket; without the brackets of an IPv6 address */
	char *path; /* of a unix socket, or NULL */
	unsigned port;
	char *user, *password; /* NULL: none */
	unsigned db;
};

/* -EINVAL with a sentence; `ret` then holds nothing. `rediss://` and `sentinel://` are refused by name. */
int redis_url_parse(struct span url, struct redis_url *ret, struct err *e);
void redis_url_release(struct redis_url *u);
/* The same server, the same user, and the same database unless `any_db`. */
bool redis_url_same(const struct redis_url *a, const struct redis_url *b, bool any_db);
/* host:port/db or path/db, for people. */
void redis_url_where(const struct redis_url *u, char out[REDIS_WHERE_MAX]);

#endif
