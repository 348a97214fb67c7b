/*
 * Worker of the embedded backend: leases tasks of its queues, runs them, writes down how they ended, and
 * sweeps.
 *
 * Why:       a task begins only after its lease is durable, and its end is written under the lease's fence;
 *            so kill -9 at any moment leaves it pending, or running until the lease runs out.
 * Threads:   everything on one loop, that of the thread that made it and that must outlive its tasks; C tasks
 *            run on threads of their own.
 * Ownership: the options' texts are borrowed until worker_free.
 * Life:      new → (runs) → worker_stop → drains → `stopped` is called → free. A second worker_stop, or the
 *            end of drain_ms, kills what runs.
 */
#ifndef TASKS_WORKER_WORKER_H
#define TASKS_WORKER_WORKER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "tasks/worker/registry.h"

#define WORKER_MAX_QUEUES 64
#define WORKER_MAX_CONCURRENCY 1024

struct task_options;

struct worker_options {
	const char *database;		    /* of the embedded backend */
	const struct task_options *backend; /* of the others: checked and started; borrowed */
	struct registry *registry;	    /* the worker takes a reference of its own */
	const char *name;		    /* for people */
	const char *const *queues;
	size_t n_queues;
	unsigned concurrency;
	unsigned lease_ms;    /* 0: 15 s */
	unsigned drain_ms;    /* 0: at once */
	int64_t retention_ms; /* 0: 7 days */
	void (*stopped)(void *arg);
	void *arg;
};

struct worker;

int worker_new(struct loop *loop, const struct worker_options *o, struct worker **ret, struct err *e);
/* From now on tasks of this registry are run (a reference is taken). Running tasks continue with the one it
 * began with. */
void worker_set_registry(struct worker *w, struct registry *r);
void worker_stop(struct worker *w);
struct worker *worker_free(struct worker *w); /* after `stopped`; NULL is allowed; returns NULL */

#endif
