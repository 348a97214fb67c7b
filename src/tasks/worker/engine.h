/*
 * Engines: what takes the tasks of a backend from its queues and runs them. A row for each backend that
 * task-backend-worker can serve in this build.
 *
 * Why:       one program, one registry, one command line; where tasks come from is the row's business.
 * Shape:     as of tasks/backends.h: the build makes the table of the rows in the meson.build files, next
 *            to the backends' own.
 * Threads:   everything on the loop of the thread that made it and that must outlive its tasks.
 */
#ifndef TASKS_WORKER_ENGINE_H
#define TASKS_WORKER_ENGINE_H

#include "tasks/worker/worker.h"

struct worker_counts {
	uint64_t received, succeeded, failed, retried, revoked, refused; /* since the start */
	unsigned running, waiting;					 /* waiting: taken, and not begun */
	bool connected;							 /* to where its tasks come from */
};

struct worker_engine {
	const char *name;
	const char *default_queue;
	/* The queue that the backend's settings name; NULL: there is no such setting. Optional. */
	const char *(*queue)(const struct task_options *options);
	bool of_options; /* it is made of the backend's settings (worker_options.backend) */
	/* Whether what the settings name can be served: what `make` would refuse without having asked
	 * anybody. Optional. -EINVAL with a sentence. */
	int (*check)(const struct task_options *options, struct err *e);
	int (*make)(struct loop *loop, const struct worker_options *o, void **ret, struct err *e);
	void (*set_registry)(void *w, struct registry *r);
	void (*stop)(void *w);
	void (*release)(void *w);
	void (*counts)(const void *w, struct worker_counts *ret);
};

/* NULL when this build serves none of that name. */
const struct worker_engine *worker_engine_find(struct span name);
/* Appends their names, separated by ", ". */
int worker_engine_names(struct buf *out);

#endif
