/*
 * Addresses of RabbitMQ servers, as Celery (kombu) writes them, of one server or several of a cluster:
 *
 *   amqp[s]://[user[:password]@]host[:port][/vhost][?query][;amqp://…]     also pyamqp:// and librabbitmq://
 *
 * User, password and vhost are percent-decoded; without a path, or with "/", the vhost is "/". Of the query
 * are read: ssl_ca_certs, ssl_certfile, ssl_keyfile (paths), ssl_cert_reqs (CERT_REQUIRED, CERT_NONE). What
 * else is there belongs to a Python client's own settings.
 * Errors:    the sentences and rabbit_where hold neither user nor password.
 */
#ifndef BASE_RABBIT_URL_H
#define BASE_RABBIT_URL_H

#include <stdbool.h>

#include "base/err.h"
#include "base/span.h"

#define RABBIT_SERVERS_MAX 8
#define RABBIT_WHERE_MAX 320

struct rabbit_server {
	char *host; /* without the brackets of an IPv6 address */
	unsigned port;
	char *user, *password, *vhost;
	bool tls, unverified;
	char *ca, *cert, *key; /* of TLS; NULL: none */
};

struct rabbit_url {
	struct rabbit_server servers[RABBIT_SERVERS_MAX];
	size_t n;
};

/* Whether it is meant for this parser, by its scheme. */
bool rabbit_url_is(struct span url);
/* -EINVAL with a sentence; `ret` then holds nothing. */
int rabbit_url_parse(struct span url, struct rabbit_url *ret, struct err *e);
int rabbit_url_copy(const struct rabbit_url *from, struct rabbit_url *to); /* 0 or -ENOMEM */
void rabbit_url_release(struct rabbit_url *u);
/* host:port and the vhost, for people: "rabbit1:5672/" */
void rabbit_where(const struct rabbit_server *s, char out[RABBIT_WHERE_MAX]);

#endif
