/*
 * Listen address: parsing and binding.
 */
#include "router/listen_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

#define HOST_MAX 64

static int parse_port(const char *text, unsigned *ret)
{
	unsigned n = 0;
	if (!*text || strlen(text) > 5)
		return -EINVAL;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		n = n * 10 + (unsigned)(*text - '0');
	}
	return n > 65535 ? -EINVAL : (*ret = n, 0);
}

static socklen_t length_of(const union listen_address *a)
{
	return a->any.sa_family == AF_INET6 ? sizeof(a->v6) : sizeof(a->v4);
}

static int fill(const char *host, bool bracketed, unsigned port, union listen_address *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (bracketed || strcmp(host, "*") == 0) {
		ret->v6.sin6_family = AF_INET6;
		ret->v6.sin6_port = htons((uint16_t)port);
		return inet_pton(AF_INET6, bracketed ? host : "::", &ret->v6.sin6_addr) == 1 ? 0 : -EINVAL;
	}
	ret->v4.sin_family = AF_INET;
	ret->v4.sin_port = htons((uint16_t)port);
	return inet_pton(AF_INET, host, &ret->v4.sin_addr) == 1 ? 0 : -EINVAL;
}

int listen_address_parse(const char *text, union listen_address *ret, struct err *e)
{
	static const char expected[] = "expected \"127.0.0.1:5002\", \"[::1]:5002\" or \"*:5002\"";
	const char *colon = strrchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : 0;
	if (n == 0 || n >= HOST_MAX)
		return err_set(e, -EINVAL, "listen address \"%s\": %s", text, expected);
	char host[HOST_MAX];
	bool bracketed = text[0] == '[' && text[n - 1] == ']';
	snprintf(host, sizeof(host), "%.*s", (int)(bracketed ? n - 2 : n), bracketed ? text + 1 : text);
	unsigned port;
	if (parse_port(colon + 1, &port) < 0)
		return err_set(e, -EINVAL, "listen address \"%s\": the port is not a number up to 65535", text);
	if (fill(host, bracketed, port, ret) < 0)
		return err_set(e, -EINVAL, "listen address \"%s\": %s", text, expected);
	return 0;
}

static const char *hint(int error)
{
	switch (error) {
	case EADDRINUSE:
		return " (another program, or another service of this configuration, listens there)";
	case EACCES:
		return " (ports below 1024 need CAP_NET_BIND_SERVICE)";
	case EADDRNOTAVAIL:
		return " (this machine has no such address)";
	default:
		return "";
	}
}

static int fail(struct err *e, const char *text, const char *what)
{
	int error = errno;
	return err_set(e, -error, "cannot %s on %s: %s%s", what, text, strerror(error), hint(error));
}

/* Accepted connections inherit it. It finds clients that vanished, and tells a closed client from a half-closed one, some
 * time later: a minute after close() its kernel has forgotten the connection and answers a probe with a reset. */
static void probe_silent_clients(int fd)
{
	int on = 1, idle_s = 30, between_s = 15, probes = 4;
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between_s, sizeof(between_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

static int bind_one(const char *text, const union listen_address *a, bool reuse_port, int *ret_fd, struct err *e)
{
	CLEANUP(closep) int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail(e, text, "make a socket");
	int on = 1, both = 0;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (reuse_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0)
		return fail(e, text, "share the port");
	probe_silent_clients(fd);
	if (a->any.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, text[0] == '*' ? &both : &on, sizeof(on));
	if (bind(fd, &a->any, length_of(a)) < 0 || listen(fd, SOMAXCONN) < 0)
		return fail(e, text, "listen");
	*ret_fd = steal_fd(&fd);
	return 0;
}

int listen_address_open(const char *text, bool reuse_port, int *ret_fd, unsigned *ret_port, struct err *e)
{
	union listen_address a;
	int r = listen_address_parse(text, &a, e);
	if (r < 0)
		return r;
	r = bind_one(text, &a, reuse_port, ret_fd, e);
	if (r == -EAFNOSUPPORT && text[0] == '*') { /* a kernel without IPv6 */
		uint16_t port = a.v6.sin6_port;
		memset(&a, 0, sizeof(a));
		a.v4.sin_family = AF_INET;
		a.v4.sin_port = port;
		r = bind_one(text, &a, reuse_port, ret_fd, e);
	}
	if (r < 0)
		return r;
	socklen_t n = sizeof(a);
	getsockname(*ret_fd, &a.any, &n);
	*ret_port = ntohs(a.any.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
	return 0;
}
