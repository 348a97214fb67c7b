/*
 * Listen address: "127.0.0.1:5002", "[::1]:5002" or "*:5002" into a bound, listening, non-blocking socket.
 *
 * Errors: -EINVAL for an address that cannot be parsed, otherwise what socket(2), bind(2) or listen(2) say, each with a
 *         sentence. Names are not looked up: what a name resolves to at start-up is no address to rely on.
 */
#ifndef OPERATION_LISTEN_ADDRESS_H
#define OPERATION_LISTEN_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "base/err.h"

union listen_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* "*" is [::] with IPv4 as well. */
int listen_address_parse(const char *text, union listen_address *ret, struct err *e);

/* reuse_port: several sockets (of several threads) may listen on the same port and share its connections. */
int listen_address_open(const char *text, bool reuse_port, int *ret_fd, unsigned *ret_port, struct err *e);

/* Socket activation (sd_listen_fds(3)): takes the listening sockets that LISTEN_FDS and LISTEN_PID say were handed to this process.
 * listen_address_open then gives a duplicate of the one that is bound to its address. Their queues outlive this process, so that a
 * restart refuses nobody. Once, before there are threads; returns how many. */
size_t listen_address_inherit(void);
bool listen_address_is_inherited(const char *text);
void listen_address_warn_of_unused(void); /* in the log */

#endif
