/*
 * What a request's events say. Nothing is built unless events of tasks are wanted.
 */
#ifndef TASKS_CELERY_WORKER_TELLING_H
#define TASKS_CELERY_WORKER_TELLING_H

#include "tasks/celery/worker/events.h"
#include "tasks/celery/worker/requests.h"

void celery_tell_received(struct celery_events *v, const struct celery_request *r);
void celery_tell_started(struct celery_events *v, const struct celery_request *r);
/* By its status: succeeded, failed, retried. */
void celery_tell_ended(struct celery_events *v, const struct celery_request *r);
void celery_tell_revoked(struct celery_events *v, const struct celery_request *r, bool terminated,
			 bool expired);

#endif
