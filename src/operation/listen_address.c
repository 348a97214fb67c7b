/*
 * Listen address: parsing and binding.
 */
#include "operation/listen_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

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

/* --- inherited sockets ----------------------------------------------------------------------------------------------- */

#define INHERITED_MAX 32
#define INHERITED_FIRST 3 /* SD_LISTEN_FDS_START */

/* Set before there are threads. */
static int inherited[INHERITED_MAX];
static atomic_bool inherited_used[INHERITED_MAX];
static size_t n_inherited;

static long number_of(const char *variable)
{
	const char *text = getenv(variable);
	char *end = NULL;
	long n = text && *text ? strtol(text, &end, 10) : -1;
	return end && *end == '\0' ? n : -1;
}

static bool is_listening(int fd)
{
	int listening = 0;
	socklen_t n = sizeof(listening);
	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) == 0 && listening;
}

size_t listen_address_inherit(void)
{
	long n = number_of("LISTEN_PID") == (long)getpid() ? number_of("LISTEN_FDS") : 0;
	for (long i = 0; i < n && n_inherited < INHERITED_MAX; i++) {
		int fd = INHERITED_FIRST + (int)i, flags = fcntl(fd, F_GETFL);
		if (flags < 0 || !is_listening(fd)) {
			log_warn("inherited_socket_unused", LOG_INT("descriptor", fd), LOG_STR("error", "not a listening socket"));
			continue;
		}
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
		inherited[n_inherited++] = fd;
	}
	unsetenv("LISTEN_PID"); /* not for what this process starts */
	unsetenv("LISTEN_FDS");
	return n_inherited;
}

static bool is_bound_to(int fd, const union listen_address *a, bool everywhere)
{
	union listen_address own;
	socklen_t n = sizeof(own);
	if (getsockname(fd, &own.any, &n) < 0)
		return false;
	if (own.any.sa_family == AF_INET && everywhere)
		return own.v4.sin_port == a->v6.sin6_port && own.v4.sin_addr.s_addr == htonl(INADDR_ANY);
	if (own.any.sa_family != a->any.sa_family)
		return false;
	if (own.any.sa_family == AF_INET)
		return own.v4.sin_port == a->v4.sin_port && own.v4.sin_addr.s_addr == a->v4.sin_addr.s_addr;
	return own.v6.sin6_port == a->v6.sin6_port && memcmp(&own.v6.sin6_addr, &a->v6.sin6_addr, sizeof(own.v6.sin6_addr)) == 0;
}

/* Its index, or INHERITED_MAX. */
static size_t find_inherited(const char *text)
{
	union listen_address a;
	if (n_inherited == 0 || listen_address_parse(text, &a, NULL) < 0)
		return INHERITED_MAX;
	for (size_t i = 0; i < n_inherited; i++)
		if (is_bound_to(inherited[i], &a, text[0] == '*'))
			return i;
	return INHERITED_MAX;
}

bool listen_address_is_inherited(const char *text)
{
	return find_inherited(text) < INHERITED_MAX;
}

void listen_address_warn_of_unused(void)
{
	for (size_t i = 0; i < n_inherited; i++)
		if (!atomic_load(&inherited_used[i]))
			log_warn("inherited_socket_unused", LOG_INT("descriptor", inherited[i]),
				 LOG_STR("error", "no listener of the configuration has its address"));
}

static int open_inherited(size_t i, const char *text, int *ret_fd, unsigned *ret_port, struct err *e)
{
	union listen_address own;
	socklen_t n = sizeof(own);
	int fd = fcntl(inherited[i], F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return fail(e, text, "duplicate the inherited socket");
	atomic_store(&inherited_used[i], true);
	probe_silent_clients(fd);
	getsockname(fd, &own.any, &n);
	*ret_port = ntohs(own.any.sa_family == AF_INET6 ? own.v6.sin6_port : own.v4.sin_port);
	*ret_fd = fd;
	return 0;
}

int listen_address_open(const char *text, bool reuse_port, int *ret_fd, unsigned *ret_port, struct err *e)
{
	union listen_address a;
	int r = listen_address_parse(text, &a, e);
	if (r < 0)
		return r;
	size_t inherited_at = find_inherited(text);
	if (inherited_at < INHERITED_MAX)
		return open_inherited(inherited_at, text, ret_fd, ret_port, e);
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
