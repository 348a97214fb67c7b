/*
 * Putting back what other workers took and never acknowledged, as every kombu worker does for all others.
 *
 * Shape:     every tenth of the visibility timeout (at most 10 s) the mutex is taken (`unacked_mutex`, as
 *            redis-py's locks), the oldest of `unacked_index` beyond the timeout are put back into the
 *            queues that their exchange and routing key lead to, marked as redelivered, to be taken next;
 *            then the mutex is released. Each is moved by one script, so that it is put back once,
 *            whoever else is at it.
 * Not lost:  a message that leads to no queue (its binding is gone) stays where it is, and is logged
 * once; kombu
 *            would drop it.
 * Threads:   the loop's own.
 */
#ifndef TASKS_CELERY_WORKER_RESTORING_H
#define TASKS_CELERY_WORKER_RESTORING_H

#include "tasks/celery/celery_internal.h"

struct celery_restoring;

int celery_restoring_new(struct loop *loop, const struct celery_options *c, struct redis *broker,
			 struct celery_restoring **ret, struct err *e);
/* After the connection's commands are gone. NULL is allowed; returns NULL. */
struct celery_restoring *celery_restoring_free(struct celery_restoring *r);

#endif
