/*
 * Events, as Celery's workers publish them for Flower, `celery events` and Celery's own mingle:
 * worker-online, worker-heartbeat, worker-offline always, those of tasks when the setting `task_events`
 * or a remote `enable_events` says so.
 *
 * Not kept: events are told, not stored; while Redis is away they are dropped.
 * Threads:  the loop's own.
 * Source:   celery/events/dispatcher.py, docs.celeryq.dev "Monitoring: event reference".
 */
#ifndef TASKS_CELERY_WORKER_EVENTS_H
#define TASKS_CELERY_WORKER_EVENTS_H

#include "tasks/celery/celery_internal.h"

#define CELERY_HEARTBEAT_MS 2000

struct celery_events {
	struct loop *loop;
	const struct celery_options *c;
	struct redis *redis;
	const char *hostname;
	bool tasks;	    /* those of tasks are wanted */
	uint64_t clock;	    /* Lamport's, as all Celery nodes count */
	struct buf pending; /* events of tasks of this round, joined by commas */
	struct loop_work flush;
	bool flush_due;
};

void celery_events_init(struct celery_events *v, struct loop *loop, const struct celery_options *c,
			struct redis *broker, const char *hostname);
void celery_events_release(struct celery_events *v);
void celery_events_worker(struct celery_events *v, const char *type, unsigned active, uint64_t processed);
/* `fields`: members beside uuid, each with a comma before it; SPAN_NONE: none. */
void celery_events_task(struct celery_events *v, const char *type, const char *id, struct span fields);
/* What is pending is sent now. */
void celery_events_flush(struct celery_events *v);
/* {"sw_ident": …} as members without braces */
void celery_events_put_software(struct buf *out);

#endif
