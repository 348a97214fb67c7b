#include "base/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"

struct mailbox {
	int fd;
	struct loop_watch *watch;
	void (*fn)(void *arg, struct mail *m);
	void *arg;
	pthread_mutex_t lock;
	struct mail *put, **put_end; /* under the lock */
	struct mail *taken;
	bool handing, freed; /* mails are being handed over, and their owner went meanwhile */
};

static void mailbox_ring(void *arg, unsigned events)
{
	struct mailbox *b = arg;
	uint64_t n;
	(void)events;
	if (b->handing || read(b->fd, &n, sizeof(n)) < 0)
		return;
	pthread_mutex_lock(&b->lock);
	b->taken = steal(b->put);
	b->put_end = &b->put;
	pthread_mutex_unlock(&b->lock);
	b->handing = true;
	while (!b->freed && b->taken) {
		struct mail *m = b->taken;
		b->taken = m->next;
		b->fn(b->arg, m);
	}
	b->handing = false;
	if (b->freed)
		free(b);
}

int mailbox_new(struct loop *loop, void (*fn)(void *arg, struct mail *m), void *arg, struct mailbox **ret)
{
	struct mailbox *b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->fn = fn;
	b->arg = arg;
	b->put_end = &b->put;
	pthread_mutex_init(&b->lock, NULL);
	b->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = b->fd < 0 ? -errno : loop_watch_new(loop, b->fd, LOOP_READ, mailbox_ring, b, &b->watch);
	if (r < 0) {
		mailbox_free(b);
		return r;
	}
	*ret = b;
	return 0;
}

void mailbox_put(struct mailbox *b, struct mail *m)
{
	const uint64_t one = 1;
	m->next = NULL;
	pthread_mutex_lock(&b->lock);
	bool first = !b->put;
	*b->put_end = m;
	b->put_end = &m->next;
	pthread_mutex_unlock(&b->lock);
	/* Cannot fail: the counter is raised once for each time that it is read. */
	if (first && write(b->fd, &one, sizeof(one)) < 0)
		return;
}

struct mail *mailbox_free(struct mailbox *b)
{
	if (!b)
		return NULL;
	struct mail *left = b->taken, **end = &left;
	while (*end)
		end = &(*end)->next;
	*end = b->put;
	loop_watch_free(b->watch);
	if (b->fd >= 0)
		close(b->fd);
	pthread_mutex_destroy(&b->lock);
	b->freed = true;
	if (!b->handing)
		free(b);
	return left;
}
