/*
 * Workflow tasks: each holds a history and is answered with what its workflow does next (decide.h).
 *
 * Sticky queues are not used: a workflow task comes with its whole history, whoever answered the last one,
 * and nothing is kept between two.
 */
#ifndef TASKS_TEMPORAL_WORKER_WORKFLOW_TASKS_H
#define TASKS_TEMPORAL_WORKER_WORKFLOW_TASKS_H

#include <sys/queue.h>

#include "tasks/temporal/worker/calls.h"
#include "tasks/worker/registry.h"

struct temporal_workflow_task;

struct temporal_workflow_tasks {
	struct temporal_calls *calls;
	struct registry *registry; /* borrowed */
	unsigned heartbeat_ms;
	LIST_HEAD(, temporal_workflow_task) all;
	size_t n;
	uint64_t answered, failed;
	void (*changed)(void *arg); /* one has gone */
	void *arg;
};

/* A poll's answer. */
void temporal_workflow_tasks_take(struct temporal_workflow_tasks *w, struct span message);
void temporal_workflow_tasks_release(struct temporal_workflow_tasks *w);

#endif
