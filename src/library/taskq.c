/*
 * The handle: its backend and settings, its end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crypto.h"
#include "base/log.h"
#include "library/taskq_internal.h"
#include "tasks/backends.h"

#define LOG_NOTHING ((enum log_level)(LOG_ERROR + 1))

/* --- the process ---------------------------------------------------------------------------------------- */

static pthread_once_t taskq_once = PTHREAD_ONCE_INIT;
static int taskq_randomness;

static void taskq_set_up_process(void)
{
	enum log_level level = LOG_NOTHING;
	const char *wanted = getenv("TASKQ_LOG");
	if (!wanted || log_level_parse(wanted, &level) < 0)
		level = LOG_NOTHING;
	log_setup(level, LOG_LOGFMT);
	taskq_randomness = crypto_setup();
}

static const char *taskq_variable(const char *name)
{
	const char *value = getenv(name);
	return value && *value ? value : NULL;
}

/* --- settings ------------------------------------------------------------------------------------------- */

static int taskq_keep(char **to, struct span value)
{
	free(*to);
	*to = span_dup(value);
	return *to ? 0 : -ENOMEM;
}

static int taskq_set(struct taskq *q, const char *where, struct span key, struct span value,
		     struct taskq_error *error)
{
	struct err e = {""};
	int r = task_options_set(q->options, key, value, &e);
	if (r == 0 && span_is(key, "database"))
		r = taskq_keep(&q->database, value);
	if (r == 0 && span_is(key, "queue"))
		r = taskq_keep(&q->queue, value);
	if (r == -ENOMEM)
		return taskq_wrong(error, TASKQ_E_SYSTEM, "out of memory");
	return r < 0 ? taskq_wrong(error, TASKQ_E_SETTINGS, "%s: %s", where, e.text) : 0;
}

static int taskq_set_by_environment(struct taskq *q, struct taskq_error *error)
{
	int r = 0;
	for (const struct task_setting *t = q->backend->settings; t->key && r == 0; t++) {
		const char *value = NULL, *name = NULL;
		for (size_t i = 0; !value && i < TASK_SETTING_VARIABLES && t->variables[i]; i++)
			value = taskq_variable(name = t->variables[i]);
		if (value)
			r = taskq_set(q, name, span_of(t->key), span_of(value), error);
	}
	return r;
}

static int taskq_set_given(struct taskq *q, const struct taskq_setting *settings, size_t n,
			   struct taskq_error *error)
{
	for (size_t i = 0; i < n; i++) {
		const struct taskq_setting *s = &settings[i];
		if (!s->key || !s->value)
			return taskq_wrong(error, TASKQ_E_ARGUMENT, "setting %zu: a key or a value is NULL",
					   i);
		if (!task_setting_find(q->backend, span_of(s->key)))
			return taskq_wrong(error, TASKQ_E_SETTINGS, "%s: the backend %s has no such setting",
					   s->key, q->backend->name);
		int r = taskq_set(q, s->key, span_of(s->key), span_of(s->value), error);
		if (r < 0)
			return r;
	}
	return 0;
}

static const char *taskq_backend_by_environment(struct taskq_error *error)
{
	const char *queue = taskq_variable("TASK_QUEUE_BACKEND"), *type = taskq_variable("TASK_BACKEND_TYPE");
	if (queue && type && strcmp(queue, type) != 0) {
		taskq_wrong(error, TASKQ_E_SETTINGS,
			    "TASK_QUEUE_BACKEND is \"%s\", but TASK_BACKEND_TYPE is \"%s\"; set one of them",
			    queue, type);
		return NULL;
	}
	queue = queue ? queue : type;
	return queue ? queue : "embedded";
}

/* --- open and close ------------------------------------------------------------------------------------- */

static int taskq_make(struct taskq *q, const char *backend, struct taskq_error *error)
{
	struct err e = {""};
	q->backend = task_backend_find(span_of(backend));
	if (!q->backend) {
		task_backend_not_found(span_of(backend), &e);
		return taskq_wrong(error, TASKQ_E_SETTINGS, "%s", e.text);
	}
	if (q->backend->over_others) /* which a handle has not */
		return taskq_wrong(
			error, TASKQ_E_SETTINGS,
			"the backend %s runs workflows on other backends, within migration-router only",
			q->backend->name);
	q->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->done_fd < 0 || q->stop_fd < 0)
		return taskq_wrong(error, TASKQ_E_SYSTEM, "eventfd: %s", strerror(errno));
	if (task_options_new(q->backend, &q->options, &e) < 0)
		return taskq_wrong(error, TASKQ_E_SYSTEM, "%s", e.text);
	return 0;
}

int taskq_open(const char *backend, const struct taskq_setting *settings, size_t n, struct taskq **ret,
	       struct taskq_error *error)
{
	pthread_once(&taskq_once, taskq_set_up_process);
	if (taskq_randomness < 0)
		return taskq_wrong(error, TASKQ_E_SYSTEM, "no source of randomness");
	*ret = NULL;
	if (n && !settings)
		return taskq_wrong(error, TASKQ_E_ARGUMENT, "the settings are NULL");
	backend = backend ? backend : taskq_backend_by_environment(error);
	if (!backend)
		return TASKQ_E_SETTINGS;
	struct taskq *q = calloc(1, sizeof(*q));
	if (!q)
		return taskq_wrong(error, TASKQ_E_SYSTEM, "out of memory");
	q->done_fd = q->stop_fd = -1;
	pthread_mutex_init(&q->lock, NULL);
	SLIST_INIT(&q->tasks);
	TAILQ_INIT(&q->open);
	TAILQ_INIT(&q->done);
	int r = taskq_make(q, backend, error);
	if (r == 0)
		r = taskq_set_by_environment(q, error);
	if (r == 0)
		r = taskq_set_given(q, settings, n, error);
	if (r < 0)
		taskq_close(q);
	else
		*ret = q;
	return r;
}

const char *taskq_backend(const struct taskq *q)
{
	return q->backend->name;
}

static void taskq_free_tasks(struct taskq *q)
{
	struct registered_task *t;
	while ((t = SLIST_FIRST(&q->tasks))) {
		SLIST_REMOVE_HEAD(&q->tasks, link);
		free(t->name);
		free(t->queue);
		free(t);
	}
}

void taskq_close(struct taskq *q)
{
	if (!q)
		return;
	taskq_halt(q);
	taskq_free_tasks(q);
	free(q->files.paths);
	free(q->database);
	free(q->queue);
	if (q->done_fd >= 0)
		close(q->done_fd);
	if (q->stop_fd >= 0)
		close(q->stop_fd);
	pthread_mutex_destroy(&q->lock);
	free(q);
}
