/*
 * Activity tasks: each runs one attempt of a task by its handler, and its end is told to the server.
 *
 * Told:      again and again while the server is away, until the activity's own time is up; an end that
 *            could not be told is, for the server, an attempt that timed out.
 * Heartbeat: while it runs, at a third of what the server asks for, and every 5 s in any case: the answer
 *            says that the activity is to be cancelled, or that nobody waits for it any more. The handler is
 *            asked to end then, and killed some seconds later.
 * Threads:   the loop's.
 */
#ifndef TASKS_TEMPORAL_WORKER_ACTIVITY_TASKS_H
#define TASKS_TEMPORAL_WORKER_ACTIVITY_TASKS_H

#include <sys/queue.h>

#include "tasks/temporal/worker/calls.h"
#include "tasks/worker/handler.h"

struct temporal_activity;

struct temporal_activities {
	struct temporal_calls *calls;
	struct registry *registry; /* borrowed; running ones hold their own */
	const struct handler_env *env;
	LIST_HEAD(, temporal_activity) all;
	size_t n, n_running;
	/* refused: not a task of this worker */
	uint64_t received, succeeded, failed, cancelled, refused;
	void (*changed)(void *arg); /* there is more room, or nothing left */
	void *arg;
};

/* A poll's answer. */
void temporal_activities_take(struct temporal_activities *a, struct span message);
/* What runs is killed, and told as failed: the worker stops. */
void temporal_activities_kill(struct temporal_activities *a);
void temporal_activities_release(struct temporal_activities *a);

#endif
