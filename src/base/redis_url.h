/*
 * Addresses of Redis servers, as Celery and redis-py write them.
 *
 *   redis://[[user]:password@]host[:port][/db]          also valkey://
 *   rediss://…                                          TLS; also valkeys://
 *   redis+socket:///path/to.sock[?virtual_host=db]      also unix:// and socket://
 *   sentinel://[[user]:password@]host[:port][/db];sentinel://host[:port]…   the master that they name
 *
 * User, password, host and path are percent-decoded. Of the query are read: virtual_host, db, username and
 * password; with rediss:// and sentinel:// (where any of them means TLS to the master) ssl_cert_reqs,
 * ssl_ca_certs, ssl_certfile, ssl_keyfile and ssl_check_hostname; with sentinel:// master_name,
 * sentinel_username, sentinel_password and sentinel_ssl (TLS to the Sentinels, too). What belongs to a
 * Python client's own settings (socket_timeout, health_check_interval, …) is passed over; another ssl_… is an
 * error. Of several Sentinels the first one's URL says user, password and database, as in Celery.
 * Errors:    the sentences and redis_url_where hold neither user nor password.
 */
#ifndef BASE_REDIS_URL_H
#define BASE_REDIS_URL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/span.h"

#define REDIS_WHERE_MAX 320

#define REDIS_SENTINELS_MAX 16

struct redis_tls_files {
	char *ca, *cert, *key; /* PEM files; NULL: the system's authorities, and no certificate of ours */
};

struct redis_sentinels {
	size_t n; /* 0: the address is the server's own */
	char *hosts[REDIS_SENTINELS_MAX];
	unsigned ports[REDIS_SENTINELS_MAX];
	char *master;	       /* NULL: not said in the URL */
	char *user, *password; /* at the Sentinels */
	bool tls;	       /* to them */
};

struct redis_url {
	char *host; /* NULL for a unix socket; without the brackets of an IPv6 address */
	char *path; /* of a unix socket, or NULL */
	unsigned port;
	char *user, *password; /* NULL: none */
	unsigned db;
	bool tls;
	bool unverified, any_name; /* TLS: the certificate, or the name in it, is not verified */
	struct redis_tls_files files;
	struct redis_sentinels sentinels; /* with them host is NULL */
};

/* -EINVAL with a sentence; `ret` then holds nothing. TLS is refused by name in a build without it. */
int redis_url_parse(struct span url, struct redis_url *ret, struct err *e);
/* The master of Sentinels whose URL does not name one. -EINVAL: still unknown. */
int redis_url_set_master(struct redis_url *u, const char *name, struct err *e);
int redis_url_copy(const struct redis_url *u, struct redis_url *ret); /* -ENOMEM: `ret` holds nothing */
/* The address of one of its Sentinels, which are servers, too. */
int redis_url_of_sentinel(const struct redis_url *u, size_t index, struct redis_url *ret);
void redis_url_release(struct redis_url *u);
/* The same server, the same user, and the same database unless `any_db`. */
bool redis_url_same(const struct redis_url *a, const struct redis_url *b, bool any_db);
/* host:port/db, path db n, or master/db (Sentinel host:port), for people. */
void redis_url_where(const struct redis_url *u, char out[REDIS_WHERE_MAX]);

#endif
