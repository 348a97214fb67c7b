/*
 * `rpc://`: workers send results as messages to the reply queue of who has submitted, which is this process's
 * connection to RabbitMQ.
 *
 * A result comes once, and to the process that has submitted its task: that of another process, or of this
 * one before it was restarted, cannot be read, which is neither "pending" nor "ended". What has come is kept
 * for questions that come later, within celery_heard.h's limits.
 */
#include <errno.h>

#include "base/rabbit.h"
#include "tasks/celery/celery_heard.h"
#include "tasks/celery/celery_internal.h"

static int rpc_open(struct celery_client *c, struct err *e)
{
	rabbit_begin(c->o->rabbit);
	int r = celery_ear_new(c->o->heard, c->base.loop, c, &c->ear);
	return r < 0 ? err_set(e, r, "out of memory or descriptors") : 0;
}

static void rpc_close(struct celery_client *c)
{
	celery_ear_free(c->ear);
}

static const char *rpc_where(const struct celery_client *c)
{
	return c->broker->where(c);
}

static bool rpc_ready(const struct celery_client *c)
{
	return celery_ear_ready(c->ear);
}

static bool rpc_knows(const struct celery_client *c, struct span id)
{
	return celery_ear_knows(c->ear, id);
}

static void rpc_sent(struct celery_client *c, struct span id)
{
	celery_ear_sent(c->ear, id);
}

static struct celery_watch *rpc_watch(struct celery_client *c, struct span id,
				      const struct celery_watcher *watcher, void *arg)
{
	return celery_ear_watch(c->ear, id, watcher, arg);
}

static struct celery_reading *rpc_read(struct celery_client *c, const struct span *ids, size_t n,
				       celery_read_fn fn, void *arg)
{
	return celery_ear_read(c->ear, ids, n, fn, arg);
}

const struct celery_results celery_results_rpc = {
	.name = "RabbitMQ",
	.open = rpc_open,
	.close = rpc_close,
	.where = rpc_where,
	.ready = rpc_ready,
	.watch_tells_stored = true,
	.knows = rpc_knows,
	.sent = rpc_sent,
	.watch = rpc_watch,
	.unwatch = celery_ear_unwatch,
	.read = rpc_read,
	.read_drop = celery_ear_read_drop,
};
