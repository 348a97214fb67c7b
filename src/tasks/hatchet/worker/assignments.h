/*
 * Assignments: the attempts of tasks that the engine has given to this worker, from their arrival to the
 * engine's word that it has heard how they ended.
 *
 * Life:      given → (may an earlier attempt have begun elsewhere? its history is asked for) → ready →
 *            runs, and STARTED is told → ended → the outcome is told, again and again until the engine
 *            has taken it → gone.
 * Twice:     the engine gives a task to another worker 30 s after its worker's last heartbeat, whatever
 *            is declared. One that is not idempotent and may have begun is not begun again: it fails,
 *            finally, with a sentence. The same attempt given twice is one. A later attempt of what
 *            still runs here takes it over: the outcome counts for it.
 * Limits:    `concurrency` run. How many are given is the engine's: as many as the worker has slots.
 * Threads:   the loop's own.
 */
#ifndef TASKS_HATCHET_WORKER_ASSIGNMENTS_H
#define TASKS_HATCHET_WORKER_ASSIGNMENTS_H

#include <sys/queue.h>

#include "base/grpc.h"
#include "tasks/hatchet/hatchet_internal.h"
#include "tasks/hatchet/worker/catalog.h"
#include "tasks/hatchet/worker/wire.h"
#include "tasks/worker/handler.h"

/* As long as the engine answers that it does not take an outcome, and no longer, it is told. */
#define HATCHET_REFUSED_MS 3600000

struct hatchet_assignment;

struct hatchet_assignments_options {
	struct loop *loop;
	const struct hatchet_settings *settings;
	struct grpc_channel *engine;
	const struct handler_env *env; /* its HTTP client is for the tasks */
	struct http_client *rest;      /* for the engine's REST interface */
	unsigned concurrency;
	/* one less is held: of this worker id */
	void (*gone)(void *arg, const char *worker_id);
	void *arg;
};

struct hatchet_assignments {
	struct hatchet_assignments_options o;
	TAILQ_HEAD(hatchet_all, hatchet_assignment) all;
	TAILQ_HEAD(hatchet_ready, hatchet_assignment) ready;
	size_t n, n_running;
	struct loop_work work;
	bool work_due, killing;
	int64_t pause_until_ms; /* nothing begins before */
	struct loop_timer *pause;
	/* Since the start. */
	uint64_t received, succeeded, failed, retried, cancelled, refused;
	bool said_away; /* that outcomes wait */
};

int hatchet_assignments_init(struct hatchet_assignments *q, const struct hatchet_assignments_options *o);
void hatchet_assignments_release(struct hatchet_assignments *q);
/* Takes what the action holds. `worker_id` is the one it was given to. */
void hatchet_assignments_take(struct hatchet_assignments *q, struct hatchet_catalog *c, const char *worker_id,
			      struct hatchet_action *a);
/* How many are held of this worker id. */
size_t hatchet_assignments_held(const struct hatchet_assignments *q, const char *worker_id);
/* The engine can be reached again: what waits to be told is told now. */
void hatchet_assignments_go_on(struct hatchet_assignments *q);
/* What runs is ended, and what waits fails. */
void hatchet_assignments_kill(struct hatchet_assignments *q);

#endif
