/*
 * Address ranges: "10.0.0.0/8", "::1", "unix".
 *
 * Why:       identity headers count only from proxies that are trusted by their address.
 * Threads:   any; plain values.
 */
#ifndef OPERATION_CIDR_H
#define OPERATION_CIDR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/span.h"

struct cidr {
	sa_family_t family;  /* AF_INET6 for both kinds of addresses, AF_UNIX */
	uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d (RFC 4291 §2.5.5.2) */
	unsigned bits;	     /* of the 128 */
};

/* An address with or without "/bits", or "unix". Bits of the address beyond the mask are a mistake.
 * -EINVAL with a sentence. */
int cidr_parse(struct span text, struct cidr *ret, struct err *e);

/* An IPv4 peer on an IPv6 socket (::ffff:a.b.c.d) is the IPv4 address. */
bool cidr_contains(const struct cidr *c, const struct sockaddr *peer, socklen_t peer_length);

#endif
