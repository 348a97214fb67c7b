/*
 * Polls of one task queue, for one kind of tasks.
 *
 * Why:       a poll that is cut off may take a task with it, which then is lost until its time is up. So a
 *            poll is never cut off while the worker runs: when it stops, it waits for the answers.
 * Threads:   the loop's.
 */
#ifndef TASKS_TEMPORAL_WORKER_POLLS_H
#define TASKS_TEMPORAL_WORKER_POLLS_H

#include "tasks/temporal/worker/calls.h"

#define TEMPORAL_POLLS_MAX 16

struct temporal_polls;

struct temporal_polls_options {
	struct temporal_calls *calls;
	enum temporal_method method;
	const char *queue;
	/* How many may be open now. */
	unsigned (*limit)(void *arg);
	/* A task, or an answer without one (its token is empty). */
	void (*taken)(void *arg, struct span message);
	void (*state)(void *arg, bool works, const char *why);
	void (*idle)(void *arg); /* stopped, and the last has been answered */
	void *arg;
};

int temporal_polls_new(const struct temporal_polls_options *o, struct temporal_polls **ret);
/* Opens what may be open: after limit's answer has changed. */
void temporal_polls_look(struct temporal_polls *p);
void temporal_polls_stop(struct temporal_polls *p);
bool temporal_polls_open(const struct temporal_polls *p);
struct temporal_polls *temporal_polls_free(struct temporal_polls *p); /* NULL is allowed; returns NULL */

#endif
