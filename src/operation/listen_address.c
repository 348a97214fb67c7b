/*
 * Listen address: parsing and binding.
 */
#include "operation/listen_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/digits.h"
#include "base/log.h"

#define HOST_MAX 64

static int parse_port(const char *text, unsigned *ret)
{
	uint64_t n;
	if (strlen(text) > 5 || !digits_read(span_of(text), 65535, &n))
		return -EINVAL;
	*ret = (unsigned)n;
	return 0;
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
		return err_set(e, -EINVAL, "listen address \"%s\": the port is not a number up to 65535",
			       text);
	if (fill(host, bracketed, port, ret) < 0)
		return err_set(e, -EINVAL, "listen address \"%s\": %s", text, expected);
	return 0;
}

static const char *hint(int error)
{
	switch (error) {
	case EADDRINUSE:
		return " (another program, or another service of this configuration, is listening there)";
	case EACCES:
		return " (ports below 1024 need CAP_NET_BIND_SERVICE)";
	case EADDRNOTAVAIL:
		return " (this machine has no such address)";
	default:
		return "";
	}
}

static int listen_address_fail(struct err *e, const char *text, const char *what)
{
	int error = errno;
	return err_set(e, -error, "cannot %s on %s: %s%s", what, text, strerror(error), hint(error));
}

/* Accepted connections inherit it. It finds clients that vanished, and tells a closed client from a
 * half-closed one, some time later: a minute after close() its kernel has forgotten the connection and
 * answers a probe with a reset. */
static void probe_silent_clients(int fd)
{
	int on = 1, idle_s = 30, between_s = 15, probes = 4;
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between_s, sizeof(between_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

static int bind_one(const char *text, const union listen_address *a, bool reuse_port, int *ret_fd,
		    struct err *e)
{
	CLEANUP(closep) int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return listen_address_fail(e, text, "make a socket");
	int on = 1, both = 0;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (reuse_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0)
		return listen_address_fail(e, text, "share the port");
	probe_silent_clients(fd);
	if (a->any.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, text[0] == '*' ? &both : &on, sizeof(on));
	if (bind(fd, &a->any, length_of(a)) < 0 || listen(fd, SOMAXCONN) < 0)
		return listen_address_fail(e, text, "listen");
	*ret_fd = steal_fd(&fd);
	return 0;
}

/* --- sockets of this process that listen ---------------------------------------------------------------- */

#define OPENED_MAX 2048

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* over this part and the next one */
static struct {
	int fd;	      /* its acceptor's */
	ino_t socket; /* several descriptors may be of the same: threads that share one */
	uint64_t id;
	bool outlives;
} opened[OPENED_MAX];
static size_t n_opened;
static uint64_t last_id;

void listen_address_register(int fd, bool outlives)
{
	struct stat st;
	pthread_mutex_lock(&lock);
	if (n_opened < OPENED_MAX && fstat(fd, &st) == 0) { /* beyond, it cannot be handed over */
		opened[n_opened].fd = fd;
		opened[n_opened].socket = st.st_ino;
		opened[n_opened].id = ++last_id;
		opened[n_opened++].outlives = outlives;
	}
	pthread_mutex_unlock(&lock);
}

bool listen_address_unregister(int fd)
{
	bool outlives = false;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < n_opened; i++)
		if (opened[i].fd == fd) {
			outlives = opened[i].outlives;
			opened[i] = opened[--n_opened];
			break;
		}
	pthread_mutex_unlock(&lock);
	return outlives;
}

int listen_address_collect(struct listen_handed *out, size_t max, size_t *ret_n)
{
	int r = 0;
	*ret_n = 0;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < n_opened && *ret_n < max && r == 0; i++) {
		bool again = false;
		for (size_t k = 0; k < i; k++)
			again |= opened[k].socket == opened[i].socket;
		if (again)
			continue;
		int fd = fcntl(opened[i].fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			r = -errno;
		else
			out[(*ret_n)++] = (struct listen_handed){
				.fd = fd, .id = opened[i].id, .outlives = opened[i].outlives};
	}
	pthread_mutex_unlock(&lock);
	return r;
}

/* Under lock. All who accept on it: what one of them did to it, it would do to the other process's, too. */
static void leave_socket(ino_t socket)
{
	for (size_t i = 0; i < n_opened; i++)
		opened[i].outlives |= opened[i].socket == socket;
}

void listen_address_leave(const uint64_t *ids, size_t n)
{
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < n_opened; i++)
		for (size_t k = 0; k < n; k++)
			if (opened[i].id == ids[k])
				leave_socket(opened[i].socket);
	pthread_mutex_unlock(&lock);
}

/* --- inherited sockets: of socket activation, or of the router that is taken over ----------------------- */

#define INHERITED_FIRST 3 /* SD_LISTEN_FDS_START */

static struct inherited {
	int fd;
	uint64_t id;   /* with the router that is taken over; 0: of socket activation */
	bool outlives; /* this process, too: a socket of socket activation, at first hand or later */
	unsigned uses;
} inherited[OPENED_MAX];
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

static bool take_in(int fd, uint64_t id, bool outlives)
{
	pthread_mutex_lock(&lock);
	bool room = n_inherited < OPENED_MAX;
	if (room)
		inherited[n_inherited++] = (struct inherited){.fd = fd, .id = id, .outlives = outlives};
	pthread_mutex_unlock(&lock);
	return room;
}

size_t listen_address_inherit(void)
{
	long n = number_of("LISTEN_PID") == (long)getpid() ? number_of("LISTEN_FDS") : 0;
	for (long i = 0; i < n && n_inherited < OPENED_MAX; i++) {
		int fd = INHERITED_FIRST + (int)i, flags = fcntl(fd, F_GETFL);
		if (flags < 0 || !is_listening(fd)) {
			log_warn("inherited_socket_unused", LOG_INT("descriptor", fd),
				 LOG_STR("error", "not a listening socket"));
			continue;
		}
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
		take_in(fd, 0, true);
	}
	unsetenv("LISTEN_PID"); /* not for what this process starts */
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return n_inherited;
}

void listen_address_adopt(const struct listen_handed *handed)
{
	if (!is_listening(handed->fd) || !take_in(handed->fd, handed->id, handed->outlives))
		close(handed->fd);
}

static bool bound_alike(int a, int b)
{
	union listen_address x, y;
	socklen_t n = sizeof(x), m = sizeof(y);
	memset(&x, 0, sizeof(x));
	memset(&y, 0, sizeof(y));
	return getsockname(a, &x.any, &n) == 0 && getsockname(b, &y.any, &m) == 0 && n == m &&
	       memcmp(&x, &y, n) == 0;
}

/* Under lock. Until now all that was adopted was the other process's. */
static void own_what_was_borrowed(void)
{
	for (size_t i = 0; i < n_opened; i++) {
		bool outlives = false;
		for (size_t k = 0; k < n_inherited && opened[i].outlives && !outlives; k++)
			outlives = bound_alike(opened[i].fd, inherited[k].fd);
		opened[i].outlives = outlives;
	}
}

size_t listen_address_adopted(uint64_t *ids, size_t max)
{
	size_t n = 0, kept = 0;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < n_inherited; i++) {
		struct inherited *h = &inherited[i];
		if (h->id && h->uses && n < max)
			ids[n++] = h->id;
		if (h->id && !h->outlives) {
			/* its listeners have their own descriptors; this one would keep it open beyond
		    	 * them */
			close(h->fd);
			continue;
		}
		h->uses += h->id != 0; /* nobody gave it to this process by name */
		h->id = 0;
		inherited[kept++] = *h;
	}
	n_inherited = kept;
	own_what_was_borrowed();
	pthread_mutex_unlock(&lock);
	return n;
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
	return own.v6.sin6_port == a->v6.sin6_port &&
	       memcmp(&own.v6.sin6_addr, &a->v6.sin6_addr, sizeof(own.v6.sin6_addr)) == 0;
}

/* Under lock. The least used of those that are bound there, so that each thread gets one of its own where
 * there are as many. */
static struct inherited *find_inherited(const char *text)
{
	union listen_address a;
	struct inherited *least = NULL;
	if (n_inherited == 0 || listen_address_parse(text, &a, NULL) < 0)
		return NULL;
	for (size_t i = 0; i < n_inherited; i++)
		if (is_bound_to(inherited[i].fd, &a, text[0] == '*') &&
		    (!least || inherited[i].uses < least->uses))
			least = &inherited[i];
	return least;
}

bool listen_address_is_inherited(const char *text, bool *ret_outlives)
{
	pthread_mutex_lock(&lock);
	const struct inherited *h = find_inherited(text);
	if (ret_outlives)
		*ret_outlives = h && (h->outlives || h->id);
	pthread_mutex_unlock(&lock);
	return h != NULL;
}

void listen_address_warn_of_unused(void)
{
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < n_inherited; i++)
		if (!inherited[i].uses)
			log_warn("inherited_socket_unused", LOG_INT("descriptor", inherited[i].fd),
				 LOG_STR("error", "no configured listener has its address"));
	pthread_mutex_unlock(&lock);
}

/* 1: there was one; 0: none. */
static int open_inherited(const char *text, int *ret_fd, unsigned *ret_port, struct err *e)
{
	union listen_address own;
	socklen_t n = sizeof(own);
	pthread_mutex_lock(&lock);
	struct inherited *h = find_inherited(text);
	int fd = h ? fcntl(h->fd, F_DUPFD_CLOEXEC, 0) : -1;
	int r = h && fd < 0 ? listen_address_fail(e, text, "duplicate the inherited socket") : h != NULL;
	if (fd >= 0)
		h->uses++;
	pthread_mutex_unlock(&lock);
	if (fd < 0)
		return r;
	probe_silent_clients(fd);
	getsockname(fd, &own.any, &n);
	*ret_port = ntohs(own.any.sa_family == AF_INET6 ? own.v6.sin6_port : own.v4.sin_port);
	*ret_fd = fd;
	return 1;
}

int listen_address_open(const char *text, bool reuse_port, int *ret_fd, unsigned *ret_port, struct err *e)
{
	union listen_address a;
	int r = listen_address_parse(text, &a, e);
	if (r < 0)
		return r;
	r = open_inherited(text, ret_fd, ret_port, e);
	if (r != 0)
		return r < 0 ? r : 0;
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
