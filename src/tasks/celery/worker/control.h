/*
 * Remote control: what `celery inspect`, `celery control`, Flower and revocations say to this worker
 * (kombu's pidbox), and its answers.
 *
 * Taken:   ping, stats, active, reserved, scheduled, revoked, registered, active_queues, query_task,
 *          conf, report, clock, hello; revoke, terminate, enable_events, disable_events, heartbeat,
 *          shutdown. Everything else is answered with an error, as a Celery worker does that does not
 *          know it.
 * Shared:  whoever reaches the broker may say all this, as with Celery.
 * Threads: the loop's own.
 * Source:  celery/worker/control.py, kombu/pidbox.py.
 */
#ifndef TASKS_CELERY_WORKER_CONTROL_H
#define TASKS_CELERY_WORKER_CONTROL_H

#include "tasks/celery/worker/events.h"
#include "tasks/celery/worker/requests.h"

struct celery_control;

struct celery_control_options {
	struct loop *loop;
	const struct celery_options *c;
	struct redis *broker, *listener; /* borrowed */
	struct celery_requests *requests;
	struct celery_events *events;
	const char *hostname;
	const char *const *queues;
	size_t n_queues;
	void (*heartbeat)(void *arg);
	void (*shutdown)(void *arg);
	void *arg;
};

int celery_control_new(const struct celery_control_options *o, struct celery_control **ret, struct err *e);
struct celery_control *celery_control_free(struct celery_control *k); /* NULL is allowed; returns NULL */

#endif
