/*
 * The thread of a handle: options checked and started, the backend's client, the loop.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "library/taskq_operation.h"

#define PROBLEMS_MAX (64u << 10)

static const char *taskq_thread_getenv(const char *name)
{
	return getenv(name);
}

static void taskq_on_stop(struct loop_work *work)
{
	struct taskq *q = (struct taskq *)((char *)work - offsetof(struct taskq, stop));
	loop_stop(q->loop);
}

static void *taskq_thread(void *arg)
{
	struct taskq *q = arg;
	loop_run(q->loop);
	taskq_drop_open(q);
	q->client = task_client_free(q->client);
	loop_run_posted(q->loop);
	return NULL;
}

static int taskq_begin_thread(struct taskq *q)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int code = pthread_create(&q->thread, NULL, taskq_thread, q);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return code;
}

static int taskq_check(struct taskq *q, struct taskq_error *error)
{
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(PROBLEMS_MAX);
	struct err e = {""};
	const struct task_backend_setup setup = {
		.data_dir = ".", .getenv_fn = taskq_thread_getenv, .problems = &problems};
	if (task_options_check(q->options, &setup, &e) == 0)
		return 0;
	return taskq_wrong(error, TASKQ_E_SETTINGS, "%s: %s", q->backend->name,
			   !e.text[0] && problems.len ? problems.ptr : e.text);
}

static int taskq_start_now(struct taskq *q, struct taskq_error *error)
{
	struct err e = {""};
	int r = taskq_check(q, error);
	if (r < 0)
		return r;
	r = task_options_start(q->options, &e);
	if (r < 0)
		return taskq_wrong(error, TASKQ_E_SETTINGS, "%s: %s", q->backend->name, e.text);
	r = loop_new(&q->loop);
	if (r == 0)
		r = task_client_new(q->options, q->loop, &q->client, &e);
	if (r < 0)
		return taskq_wrong(error, TASKQ_E_SYSTEM, "%s: %s", q->backend->name,
				   e.text[0] ? e.text : strerror(-r));
	q->stop.fn = taskq_on_stop;
	r = taskq_begin_thread(q);
	return r ? taskq_wrong(error, TASKQ_E_SYSTEM, "a thread cannot be started: %s", strerror(r)) : 0;
}

int taskq_start(struct taskq *q, struct taskq_error *error)
{
	if (!q)
		return taskq_wrong(error, TASKQ_E_ARGUMENT, "the handle is NULL");
	pthread_mutex_lock(&q->lock);
	if (!q->started) {
		q->started = true;
		q->start_failed = taskq_start_now(q, &q->start_error) < 0;
	}
	int r = q->start_failed ? q->start_error.code : 0;
	if (r < 0)
		taskq_wrong(error, r, "%s", q->start_error.text);
	pthread_mutex_unlock(&q->lock);
	return r;
}

bool taskq_is_started(struct taskq *q)
{
	pthread_mutex_lock(&q->lock);
	bool is = q->started;
	pthread_mutex_unlock(&q->lock);
	return is;
}

void taskq_halt(struct taskq *q)
{
	if (q->started && !q->start_failed) {
		loop_post(q->loop, &q->stop);
		pthread_join(q->thread, NULL);
	} else if (q->loop) {
		q->client = task_client_free(q->client);
		loop_run_posted(q->loop);
	}
	taskq_drop_done(q);
	/* The loop goes last: what the backend's own threads do for it ends with the options. */
	q->options = task_options_free(q->options);
	loop_free(q->loop);
}
