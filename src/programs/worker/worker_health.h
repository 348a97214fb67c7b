/*
 * The worker's own listener: whether it lives and takes tasks, and its numbers. It tells nothing of what
 * tasks hold, and changes nothing.
 *
 *   GET /health   200 while it is connected and not draining, else 503; JSON. A set of tasks that was refused
 *                 or is not whole is told in it, and changes no status: what is in force is served
 *   GET /metrics  Prometheus text or OpenMetrics
 */
#ifndef PROGRAMS_WORKER_WORKER_HEALTH_H
#define PROGRAMS_WORKER_WORKER_HEALTH_H

#include "base/err.h"
#include "base/loop.h"
#include "programs/worker/worker_registry.h"
#include "tasks/worker/engine.h"

struct worker_health;

struct worker_health_options {
	const char *address; /* as of listeners; a bare port is one of 127.0.0.1 */
	const char *name, *backend;
	unsigned concurrency;
	void (*counts)(void *arg, struct worker_counts *ret);
	const struct worker_registry *registry;
	void *arg;
};

/* The texts are borrowed. */
int worker_health_start(struct loop *loop, const struct worker_health_options *o, struct worker_health **ret,
			struct err *e);
unsigned worker_health_port(const struct worker_health *h);
void worker_health_drains(struct worker_health *h);		   /* NULL is allowed */
struct worker_health *worker_health_stop(struct worker_health *h); /* NULL is allowed; returns NULL */

#endif
