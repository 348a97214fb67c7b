/*
 * Hang-ups over an edge-triggered epoll set, itself one descriptor of the loop.
 */
#include "router/http/hangup.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define BATCH 64

struct hangup {
	int epoll_fd;
	struct loop_watch *watch;
	hangup_fn fn;
	void *arg;
};

static void hangup_on_ready(void *arg, unsigned events)
{
	(void)events;
	struct hangup *h = arg;
	struct epoll_event ready[BATCH];
	/* One batch a round: the loop comes back while there are more, and everybody else gets a turn in
	 * between. */
	int n = epoll_wait(h->epoll_fd, ready, BATCH, 0);
	for (int i = 0; i < n; i++)
		h->fn(h->arg, ready[i].data.ptr, (ready[i].events & (EPOLLHUP | EPOLLERR)) != 0);
}

int hangup_new(struct loop *loop, hangup_fn fn, void *arg, struct hangup **ret)
{
	struct hangup *h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	h->fn = fn;
	h->arg = arg;
	h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	int r = h->epoll_fd < 0 ? -errno
				: loop_watch_new(loop, h->epoll_fd, LOOP_READ, hangup_on_ready, h, &h->watch);
	if (r < 0) {
		hangup_free(h);
		return r;
	}
	*ret = h;
	return 0;
}

struct hangup *hangup_free(struct hangup *h)
{
	if (h) {
		loop_watch_free(h->watch);
		if (h->epoll_fd >= 0)
			close(h->epoll_fd);
		free(h);
	}
	return NULL;
}

int hangup_add(struct hangup *h, int fd, void *client)
{
	struct epoll_event want = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = client};
	return epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, fd, &want) < 0 ? -errno : 0;
}

void hangup_remove(struct hangup *h, int fd)
{
	(void)epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}
