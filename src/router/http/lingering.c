/*
 * Lingering close.
 */
#include "router/http/lingering.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "router/http/sweep.h"

#define DROP_AT_ONCE 65536

struct lingering {
	struct loop *loop;
	struct sweep *sweep;
	unsigned count;
	LIST_HEAD(, lingerer) lingerers;
};

struct lingerer {
	struct lingering *all;
	LIST_ENTRY(lingerer) place;
	struct sweep_entry limit;
	struct loop_watch *watch;
	int fd;
};

static void lingering_end(struct lingerer *c)
{
	struct lingering *l = c->all;
	sweep_stop(&c->limit);
	loop_watch_free(c->watch);
	close(c->fd);
	LIST_REMOVE(c, place);
	l->count--;
	free(c);
}

static void on_time(void *arg, struct sweep_entry *e)
{
	(void)arg;
	lingering_end((struct lingerer *)((char *)e - offsetof(struct lingerer, limit)));
}

static void on_bytes(void *arg, unsigned events)
{
	struct lingerer *c = arg;
	char dropped[DROP_AT_ONCE];
	ssize_t n = recv(c->fd, dropped, sizeof(dropped), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR) && !(events & LOOP_ERROR))
		return;
	if (n <= 0)
		lingering_end(c);
}

int lingering_new(struct loop *loop, unsigned max_ms, struct lingering **ret)
{
	struct lingering *l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->loop = loop;
	int r = sweep_new(loop, &max_ms, 1, on_time, NULL, &l->sweep);
	if (r < 0) {
		free(l);
		return r;
	}
	*ret = l;
	return 0;
}

struct lingering *lingering_free(struct lingering *l)
{
	if (l) {
		while (!LIST_EMPTY(&l->lingerers))
			lingering_end(LIST_FIRST(&l->lingerers));
		sweep_free(l->sweep);
		free(l);
	}
	return NULL;
}

void lingering_take(struct lingering *l, int fd)
{
	struct lingerer *c = l->count < LINGERING_MAX ? calloc(1, sizeof(*c)) : NULL;
	if (!c || shutdown(fd, SHUT_WR) < 0 ||
	    loop_watch_new(l->loop, fd, LOOP_READ, on_bytes, c, &c->watch) < 0) {
		free(c);
		close(fd);
		return;
	}
	c->all = l;
	c->fd = fd;
	LIST_INSERT_HEAD(&l->lingerers, c, place);
	l->count++;
	sweep_start(l->sweep, &c->limit, 0);
}
