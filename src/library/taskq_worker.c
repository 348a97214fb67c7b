/*
 * A worker in the caller's program: the backend's engine on a loop of the calling thread.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "library/taskq_internal.h"
#include "tasks/worker/engine.h"

#define DEFAULT_CONCURRENCY 4
#define DEFAULT_DRAIN_MS 30000
#define DEFAULT_DATABASE "tasks.db"
#define PROBLEMS_MAX (64u << 10)

struct taskq_work {
	struct taskq *q;
	const struct worker_engine *engine;
	struct registry *registry;
	char *list, *name; /* list: of the queues, cut up in place */
	const char *queues[WORKER_MAX_QUEUES];
	size_t n_queues;
	unsigned concurrency, drain_ms;
	struct loop *loop;
	struct loop_watch *watch;
	void *worker;
};

static const char *taskq_worker_getenv(const char *name)
{
	const char *value = getenv(name);
	return value && *value ? value : NULL;
}

/* --- options -------------------------------------------------------------------------------------------- */

/* As task-backend-worker: which queues production serves is said where the worker is started. */
static int taskq_choose_queues(struct taskq_work *w, const char *given, struct taskq_error *error)
{
	const char *stage = taskq_worker_getenv("ENVIRONMENT"), *listed = taskq_worker_getenv("TASK_QUEUES");
	bool production = stage && (strcasecmp(stage, "prod") == 0 || strcasecmp(stage, "production") == 0);
	if (!given && production)
		return taskq_wrong(error, TASKQ_E_SETTINGS,
				   "queues are required in production (ENVIRONMENT)");
	if (!given && listed && !stage)
		return taskq_wrong(error, TASKQ_E_SETTINGS,
				   "TASK_QUEUES is only used if ENVIRONMENT is set to something other than "
				   "production");
	if (!given && listed)
		given = listed;
	if (!given)
		given = w->q->queue ? w->q->queue : w->engine->default_queue;
	w->list = strdup(given);
	return w->list ? 0 : taskq_wrong(error, TASKQ_E_SYSTEM, "out of memory");
}

static int taskq_read_queues(struct taskq_work *w, struct taskq_error *error)
{
	char *rest = w->list;
	for (char *one = strsep(&rest, ","); one; one = strsep(&rest, ",")) {
		one += strspn(one, " ");
		for (size_t n = strlen(one); n && one[n - 1] == ' '; n--)
			one[n - 1] = '\0';
		if (!*one || strlen(one) >= TASK_NAME_MAX || strpbrk(one, " \t\r\n"))
			return taskq_wrong(error, TASKQ_E_SETTINGS,
					   "a queue's name is empty, too long or has a blank");
		for (size_t i = 0; i < w->n_queues; i++)
			if (strcmp(w->queues[i], one) == 0)
				return taskq_wrong(error, TASKQ_E_SETTINGS, "the queue %s is listed twice",
						   one);
		if (w->n_queues == WORKER_MAX_QUEUES)
			return taskq_wrong(error, TASKQ_E_SETTINGS, "more than %d queues", WORKER_MAX_QUEUES);
		w->queues[w->n_queues++] = one;
	}
	return 0;
}

static int taskq_choose_name(struct taskq_work *w, const char *given, struct taskq_error *error)
{
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(WORKER_MAX_QUEUES * TASK_NAME_MAX + 512);
	char host[256] = "localhost";
	given = given ? given : taskq_worker_getenv("TASK_WORKER_NAME");
	gethostname(host, sizeof(host) - 1);
	if (given)
		buf_puts(&name, given);
	else
		buf_printf(&name, "worker-%s", host);
	for (size_t i = 0; !given && i < w->n_queues; i++)
		buf_printf(&name, "-%s", w->queues[i]);
	w->name = buf_steal(&name);
	return w->name ? 0 : taskq_wrong(error, TASKQ_E_SYSTEM, "out of memory");
}

static int taskq_choose_concurrency(struct taskq_work *w, unsigned given, struct taskq_error *error)
{
	const char *text = taskq_worker_getenv("TASK_WORKER_CONCURRENCY");
	char *end = NULL;
	unsigned long n = given;
	if (!given)
		n = text ? strtoul(text, &end, 10) : DEFAULT_CONCURRENCY;
	if (n < 1 || n > WORKER_MAX_CONCURRENCY || (end && *end))
		return taskq_wrong(error, TASKQ_E_SETTINGS, "the concurrency is not from 1 to %d",
				   WORKER_MAX_CONCURRENCY);
	w->concurrency = (unsigned)n;
	return 0;
}

static int taskq_make_registry(struct taskq_work *w, struct taskq_error *error)
{
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(PROBLEMS_MAX);
	const struct registered_task *t;
	if (registry_load(&w->q->files, taskq_worker_getenv, &problems, &w->registry) < 0)
		return taskq_wrong(error, TASKQ_E_SETTINGS, "%s",
				   problems.len ? problems.ptr : "out of memory");
	SLIST_FOREACH(t, &w->q->tasks, link)
	{
		int r = registry_register_as(w->registry, &t->builtin, &t->manner);
		if (r == -EEXIST)
			return taskq_wrong(error, TASKQ_E_SETTINGS, "%s: a file declares a task of this name",
					   t->name);
		if (r < 0)
			return taskq_wrong(error, TASKQ_E_SYSTEM, "%s: %s", t->name, strerror(-r));
	}
	return 0;
}

static int taskq_complete(struct taskq_work *w, const struct taskq_worker_options *given,
			  struct taskq_error *error)
{
	const struct taskq_worker_options none = {0};
	const struct taskq_worker_options *o = given ? given : &none;
	w->engine = worker_engine_find(span_of(w->q->backend->name));
	if (!w->engine)
		return taskq_wrong(error, TASKQ_E_SETTINGS, "no worker for the backend %s is in this library",
				   w->q->backend->name);
	w->drain_ms = o->drain_ms ? o->drain_ms : DEFAULT_DRAIN_MS;
	int r = taskq_choose_queues(w, o->queues, error);
	if (r == 0)
		r = taskq_read_queues(w, error);
	if (r == 0)
		r = taskq_choose_name(w, o->name, error);
	if (r == 0)
		r = taskq_choose_concurrency(w, o->concurrency, error);
	return r == 0 ? taskq_make_registry(w, error) : r;
}

/* --- running -------------------------------------------------------------------------------------------- */

static void taskq_on_worker_stopped(void *arg)
{
	struct taskq_work *w = arg;
	loop_stop(w->loop);
}

static void taskq_on_stop_asked(void *arg, unsigned events)
{
	struct taskq_work *w = arg;
	uint64_t count;
	(void)events;
	if (read(w->q->stop_fd, &count, sizeof(count)) == sizeof(count))
		while (count--)
			w->engine->stop(w->worker);
}

static int taskq_work(struct taskq_work *w, struct taskq_error *error)
{
	struct err e = {""};
	const struct worker_options o = {.database = w->q->database ? w->q->database : DEFAULT_DATABASE,
					 .backend = w->q->options,
					 .registry = w->registry,
					 .name = w->name,
					 .queues = w->queues,
					 .n_queues = w->n_queues,
					 .concurrency = w->concurrency,
					 .drain_ms = w->drain_ms,
					 .stopped = taskq_on_worker_stopped,
					 .arg = w};
	int r = loop_new(&w->loop);
	if (r == 0)
		r = w->engine->make(w->loop, &o, &w->worker, &e);
	if (r == 0)
		r = loop_watch_new(w->loop, w->q->stop_fd, LOOP_READ, taskq_on_stop_asked, w, &w->watch);
	if (r == 0)
		loop_run(w->loop);
	loop_watch_free(w->watch);
	uint64_t count; /* said once too often: not to the next one */
	ssize_t ignored = read(w->q->stop_fd, &count, sizeof(count));
	(void)ignored;
	w->engine->release(w->worker);
	loop_free(w->loop);
	if (r < 0)
		return taskq_wrong(error, TASKQ_E_SYSTEM, "%s", e.text[0] ? e.text : strerror(-r));
	return 0;
}

static bool taskq_begin_work(struct taskq *q, bool working)
{
	pthread_mutex_lock(&q->lock);
	bool was = q->working;
	q->working = working;
	pthread_mutex_unlock(&q->lock);
	return !was;
}

int taskq_run_worker(struct taskq *q, const struct taskq_worker_options *options, struct taskq_error *error)
{
	struct taskq_work w = {.q = q};
	sigset_t pipe, old;
	int r = taskq_start(q, error);
	if (r < 0)
		return r;
	if (!taskq_begin_work(q, true))
		return taskq_wrong(error, TASKQ_E_ARGUMENT, "a worker runs on this handle");
	/* A connection that ends is no signal for the program. */
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, &old);
	r = taskq_complete(&w, options, error);
	if (r == 0)
		r = taskq_work(&w, error);
	registry_free(w.registry);
	free(w.list);
	free(w.name);
	const struct timespec now = {0};
	while (!sigismember(&old, SIGPIPE) && sigtimedwait(&pipe, NULL, &now) == SIGPIPE)
		;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	taskq_begin_work(q, false);
	return r;
}

void taskq_stop_worker(struct taskq *q)
{
	const uint64_t one = 1;
	int saved = errno;
	ssize_t ignored = write(q->stop_fd, &one, sizeof(one));
	(void)ignored;
	errno = saved;
}
