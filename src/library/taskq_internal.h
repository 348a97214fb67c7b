/*
 * Inside of libtaskq: the handle, and what is under way.
 *
 * Shape:   a thread with a loop and the backend's client. A call is an operation, posted to that loop; it
 *          ends there, and then either wakes the thread that waits for it or goes to the list that
 *          taskq_dispatch takes callbacks from.
 * Threads: `lock` guards what is said to be under it; an operation is the caller's until it is posted, then
 *          the loop's, then (done) the caller's or the dispatcher's.
 */
#ifndef LIBRARY_TASKQ_INTERNAL_H
#define LIBRARY_TASKQ_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "base/loop.h"
#include "library/taskq.h"
#include "tasks/task_options.h"
#include "tasks/worker/builtin.h"
#include "tasks/worker/registry.h"

struct registered_task {
	struct builtin builtin; /* its arg is this */
	char *name, *queue;
	taskq_task_fn fn;
	void *arg;
	struct registry_manner manner;
	SLIST_ENTRY(registered_task) link;
};

struct taskq_operation;

struct taskq {
	const struct task_backend *backend;
	struct task_options *options;
	char *database; /* of the embedded backend's worker */
	char *queue;	/* what the backend's settings say of calls that name none; NULL */
	struct registry_source files;
	SLIST_HEAD(, registered_task) tasks;

	pthread_mutex_t lock;
	bool started, start_failed; /* under lock */
	struct taskq_error start_error;
	pthread_t thread;
	struct loop *loop;
	struct task_client *client; /* the loop's thread */
	struct loop_work stop;
	TAILQ_HEAD(, taskq_operation) open; /* the loop's thread */
	TAILQ_HEAD(, taskq_operation) done; /* under lock: callbacks that are due */
	int done_fd, stop_fd;
	bool working; /* under lock */
};

/* Fills *error (NULL is allowed) and returns code. */
int taskq_wrong(struct taskq_error *error, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Options are checked, the thread runs. At most once; its error stays. */
int taskq_start(struct taskq *q, struct taskq_error *error);
/* Whether it has been used; registering is over then. */
bool taskq_is_started(struct taskq *q);
/* Ends the thread and what is under way on it. */
void taskq_halt(struct taskq *q);

#endif
