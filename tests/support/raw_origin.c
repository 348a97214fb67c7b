#include "raw_origin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct raw_connection {
	struct raw_connection *next;
	struct raw_origin *origin;
	pthread_t thread;
	int fd, index;
	pthread_mutex_t lock; /* over fd: closed by its thread, shut by stop */
};

static void check(bool ok, const char *what)
{
	if (!ok) {
		perror(what);
		abort();
	}
}

static void *serve(void *arg)
{
	struct raw_connection *c = arg;
	c->origin->script(c->origin, c->fd, c->index);
	pthread_mutex_lock(&c->lock);
	close(c->fd);
	c->fd = -1;
	pthread_mutex_unlock(&c->lock);
	atomic_fetch_sub(&c->origin->open, 1);
	return NULL;
}

static void *accept_all(void *arg)
{
	struct raw_origin *o = arg;
	int fd;
	while ((fd = accept4(o->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		struct raw_connection *c = calloc(1, sizeof(*c));
		check(c, "calloc");
		int one = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		c->origin = o;
		c->fd = fd;
		c->index = atomic_fetch_add(&o->connections, 1);
		pthread_mutex_init(&c->lock, NULL);
		c->next = atomic_load(&o->list);
		atomic_store(&o->list, c);
		atomic_fetch_add(&o->open, 1);
		check(pthread_create(&c->thread, NULL, serve, c) == 0, "pthread_create");
	}
	return NULL;
}

struct raw_origin *raw_origin_start(raw_script script, void *arg)
{
	struct raw_origin *o = calloc(1, sizeof(*o));
	check(o, "calloc");
	o->script = script;
	o->arg = arg;
	o->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	check(bind(o->listener, (struct sockaddr *)&a, n) == 0 && listen(o->listener, 128) == 0, "listen");
	check(getsockname(o->listener, (struct sockaddr *)&a, &n) == 0, "getsockname");
	o->port = ntohs(a.sin_port);
	pthread_t *thread = malloc(sizeof(*thread));
	check(thread && pthread_create(thread, NULL, accept_all, o) == 0, "pthread_create");
	o->thread = thread;
	return o;
}

void raw_origin_stop(struct raw_origin *o)
{
	shutdown(o->listener, SHUT_RDWR);
	pthread_join(*(pthread_t *)o->thread, NULL);
	close(o->listener);
	struct raw_connection *c = atomic_load(&o->list);
	while (c) {
		pthread_mutex_lock(&c->lock);
		if (c->fd >= 0)
			shutdown(c->fd, SHUT_RDWR);
		pthread_mutex_unlock(&c->lock);
		pthread_join(c->thread, NULL);
		pthread_mutex_destroy(&c->lock);
		struct raw_connection *next = c->next;
		free(c);
		c = next;
	}
	free(o->thread);
	free(o);
}

bool raw_read(int fd, char *out, size_t n)
{
	while (n) {
		ssize_t got = TEMP_FAILURE_RETRY(recv(fd, out, n, 0));
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		out += got;
		n -= (size_t)got;
	}
	return true;
}

bool raw_read_head(struct raw_origin *o, int fd, char *out, size_t size)
{
	size_t n = 0;
	while (n + 1 < size && raw_read(fd, out + n, 1)) {
		out[++n] = '\0';
		if (n >= 4 && memcmp(out + n - 4, "\r\n\r\n", 4) == 0) {
			atomic_fetch_add(&o->requests, 1);
			return true;
		}
	}
	return false;
}

bool raw_send(int fd, const char *bytes, size_t n)
{
	while (n) {
		ssize_t sent = TEMP_FAILURE_RETRY(send(fd, bytes, n, MSG_NOSIGNAL));
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		bytes += sent;
		n -= (size_t)sent;
	}
	return true;
}

bool raw_puts(int fd, const char *text)
{
	return raw_send(fd, text, strlen(text));
}

void raw_wait_closed(int fd)
{
	char byte;
	while (TEMP_FAILURE_RETRY(recv(fd, &byte, 1, 0)) > 0)
		;
}

void raw_reset_on_close(int fd)
{
	struct linger l = {.l_onoff = 1, .l_linger = 0};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}
