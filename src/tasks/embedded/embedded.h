/*
 * Backend `embedded`: a durable queue in one SQLite file, run by task-backend-worker processes.
 *
 * Why:       the default that needs no server. Submitting is durable before it is reported.
 * Shape:     one store thread per process owns the file; the clients of data-plane threads hand it operations
 *            through a bounded queue and get answers through their loops. Several processes (routers,
 *            workers) may share one file.
 * Threads:   the store thread runs from task_options_start to task_options_free, which finishes what was
 *            handed over.
 * Ownership: after task_client_free run what was posted to the loop (loop_run_posted) before loop_free.
 * Errors:    a submission is TASK_REFUSED when the file cannot be written (disk full, locked, read-only,
 *            missing), when the queue to the store thread is full, or when another task has the id;
 *            TASK_UNKNOWN only when the commit itself fails in a way that leaves it open. The same id, name
 *            and owner again is TASK_SUBMITTED: it is there.
 */
#ifndef TASKS_EMBEDDED_EMBEDDED_H
#define TASKS_EMBEDDED_EMBEDDED_H

#include "tasks/task_backend.h"

#define EMBEDDED_MAX_INPUT (64u << 20)

/* Settings: database (tasks.db in the data folder), tasks (files and folders, from which a task's own queue
 * is known; without any every call goes to the default queue), tasks_fail_fast, core_tasks. */
extern const struct task_backend embedded_backend;

#endif
