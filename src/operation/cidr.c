#include "operation/cidr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "base/digits.h"

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

static bool parse_address(struct span text, struct cidr *ret, unsigned *ret_width)
{
	char copy[INET6_ADDRSTRLEN];
	if (text.len == 0 || text.len >= sizeof(copy))
		return false;
	memcpy(copy, text.ptr, text.len);
	copy[text.len] = '\0';
	ret->family = AF_INET6;
	if (inet_pton(AF_INET6, copy, ret->address) == 1) {
		*ret_width = 128;
		return true;
	}
	memcpy(ret->address, mapped_prefix, sizeof(mapped_prefix));
	*ret_width = 32;
	return inet_pton(AF_INET, copy, ret->address + 12) == 1;
}

static bool parse_bits(struct span text, unsigned width, unsigned *ret)
{
	uint64_t bits;
	if (text.len > 3 || !digits_read(text, width, &bits))
		return false;
	*ret = (unsigned)bits;
	return true;
}

static bool bit_set(const uint8_t *address, unsigned i)
{
	return address[i / 8] & (0x80u >> (i % 8));
}

int cidr_parse(struct span text, struct cidr *ret, struct err *e)
{
	*ret = (struct cidr){.family = AF_UNIX};
	if (span_is(text, "unix"))
		return 0;
	const char *slash = text.len ? memchr(text.ptr, '/', text.len) : NULL;
	struct span address = {text.ptr, slash ? (size_t)(slash - text.ptr) : text.len};
	unsigned width, bits;
	if (!parse_address(address, ret, &width))
		return err_set(e, -EINVAL, "\"%.*s\" is not an IP address", SPAN_ARG(address));
	bits = width;
	if (slash && !parse_bits((struct span){slash + 1, text.len - address.len - 1}, width, &bits))
		return err_set(e, -EINVAL,
			       "\"%.*s\": \"/\" must be followed by a number of bits from 0 to %u",
			       SPAN_ARG(text), width);
	ret->bits = 128 - width + bits;
	for (unsigned i = ret->bits; i < 128; i++)
		if (bit_set(ret->address, i))
			return err_set(e, -EINVAL, "\"%.*s\" has address bits set beyond its first %u",
				       SPAN_ARG(text), bits);
	return 0;
}

static bool cidr_peer_address(const struct sockaddr *peer, socklen_t length, uint8_t ret[16])
{
	if (peer->sa_family == AF_INET && length >= (socklen_t)sizeof(struct sockaddr_in)) {
		struct sockaddr_in in;
		memcpy(&in, peer, sizeof(in));
		memcpy(ret, mapped_prefix, sizeof(mapped_prefix));
		memcpy(ret + 12, &in.sin_addr, 4);
		return true;
	}
	if (peer->sa_family == AF_INET6 && length >= (socklen_t)sizeof(struct sockaddr_in6)) {
		struct sockaddr_in6 in6;
		memcpy(&in6, peer, sizeof(in6));
		memcpy(ret, &in6.sin6_addr, 16);
		return true;
	}
	return false;
}

bool cidr_contains(const struct cidr *c, const struct sockaddr *peer, socklen_t peer_length)
{
	if (!peer || peer_length < (socklen_t)sizeof(sa_family_t))
		return false;
	if (c->family == AF_UNIX)
		return peer->sa_family == AF_UNIX;
	uint8_t address[16];
	if (!cidr_peer_address(peer, peer_length, address))
		return false;
	unsigned whole = c->bits / 8, rest = c->bits % 8;
	if (memcmp(address, c->address, whole) != 0)
		return false;
	return rest == 0 || (address[whole] ^ c->address[whole]) >> (8 - rest) == 0;
}
