/*
 * Listen address: "127.0.0.1:5002", "[::1]:5002" or "*:5002" into a bound, listening, non-blocking socket.
 *
 * Errors: -EINVAL for an address that cannot be parsed, otherwise what socket(2), bind(2) or listen(2) say,
 *         each with a sentence. Names are not looked up: what a name resolves to at startup is not reliable.
 */
#ifndef OPERATION_LISTEN_ADDRESS_H
#define OPERATION_LISTEN_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
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

/* Socket activation (sd_listen_fds(3)): takes the listening sockets that LISTEN_FDS and LISTEN_PID say were
 * passed to this process. listen_address_open then returns a duplicate of the one bound to its address. Their
 * queues outlive this process, so that a restart refuses nobody. Once, before there are threads; returns how
 * many. */
size_t listen_address_inherit(void);
/* Whether some socket is available for this address, of either kind; and whether it outlives this process. */
bool listen_address_is_inherited(const char *text, bool *ret_outlives);
void listen_address_warn_of_unused(void); /* in the log */

/* --- handing over to another process (app_takeover.h): any thread --------------------------------------- */

struct listen_handed {
	int fd;
	uint64_t id;   /* with whoever hands it over */
	bool outlives; /* both: it is of socket activation */
};

/* What accepts on `fd` says so, and says that it does not any more; then whether it outlives this process. */
void listen_address_register(int fd, bool outlives);
bool listen_address_unregister(int fd);
/* Duplicates of all sockets that are registered. -EMFILE and the like: *ret_n there are, to be closed. */
int listen_address_collect(struct listen_handed *out, size_t max, size_t *ret_n);
/* From now on these belong to another process: they outlive this one. */
void listen_address_leave(const uint64_t *ids, size_t n);

/* The other side: takes one (its descriptor is owned from here on); listen_address_open gives duplicates
 * of it. */
void listen_address_adopt(const struct listen_handed *handed);
/* Ends that: which were opened; the others are closed. */
size_t listen_address_adopted(uint64_t *ids, size_t max);

#endif
