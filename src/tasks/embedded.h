/*
 * Backend `embedded`: a durable queue in one SQLite file, run by task-backend-worker processes.
 *
 * Why:       the default that needs no server. Submitting is durable before it is told.
 * Shape:     one store thread per process owns the file; the clients of data-plane threads hand it operations through a bounded queue and
 *            get answers through their loops. Several processes (routers, workers) may share one file.
 * Threads:   embedded_store_start and _stop from the owner; a client from its loop's thread.
 * Ownership: the store outlives its clients. After task_client_free run what was posted to the loop (loop_run_posted) before loop_free.
 * Errors:    a submission is TASK_REFUSED when the file cannot be written (disk full, locked, read-only, missing), when the queue to the store
 *            thread is full, or when another task has the id; TASK_UNKNOWN only when the commit itself fails in a way that leaves it open.
 *            The same id, name and owner again is TASK_SUBMITTED: it is there.
 */
#ifndef TASKS_EMBEDDED_H
#define TASKS_EMBEDDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "tasks/registry.h"
#include "tasks/task_backend.h"

#define EMBEDDED_MAX_INPUT (64u << 20)

struct embedded_options {
	const char *database;
	const char *queue;		/* for calls that name none and whose task is not in `tasks`; NULL: "default" */
	const struct registry *tasks;	/* optional, borrowed: where a task's own queue is known from */
	int64_t pending_timeout_ms;	/* longest wait for a worker when a call sets no expires_ms; 0: 24 h */
	int64_t retention_ms;		/* of finished tasks; 0: 7 days */
	size_t max_queued;		/* operations on their way to the store thread; 0: 20,000 */
	size_t max_queued_bytes;	/* of their inputs; 0: 256 MiB */
	size_t max_result;		/* 0: 64 MiB */
	int busy_timeout_ms;		/* how long another writer may hold the file; 0: 2 s */
	bool must_exist;		/* the file is never made: for programs that only look */
};

struct embedded_store;

/* Starts the store thread. A file that cannot be opened is no error here: submissions are refused and health says why, until
 * it can. */
int embedded_store_start(const struct embedded_options *o, struct embedded_store **ret, struct err *e);
/* Finishes what was handed over. Every client must be freed before. NULL is fine; returns NULL. */
struct embedded_store *embedded_store_stop(struct embedded_store *s);

/* client_new's options are a `struct embedded_store *`. */
extern const struct task_backend embedded_backend;

#endif
