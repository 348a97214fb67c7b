/*
 * Tasks of the program itself, and those of files.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "library/taskq_internal.h"

#define PROBLEMS_MAX (64u << 10)

struct taskq_task {
	const struct builtin_call *call;
	struct buf *out;
	struct err *e;
	char id[TASKQ_ID_MAX];
	bool failed, returned;
};

/* --- one execution -------------------------------------------------------------------------------------- */

void taskq_return(struct taskq_task *task, const char *json)
{
	buf_clear(task->out);
	task->returned = true;
	task->failed = !json || json_validate(span_of(json), NULL) != 0;
	if (task->failed)
		snprintf(task->e->text, sizeof(task->e->text), "the task returned no valid JSON");
	else
		buf_puts(task->out, json);
}

void taskq_fail(struct taskq_task *task, const char *message)
{
	task->failed = true;
	snprintf(task->e->text, sizeof(task->e->text), "%s",
		 message && *message ? message : "the task failed");
}

const char *taskq_task_id(const struct taskq_task *task)
{
	return task->id;
}

int taskq_stopping(struct taskq_task *task, unsigned ms)
{
	return !task->call->sleep(task->call->sleep_arg, ms);
}

static int taskq_run_task(void *arg, const struct builtin_call *call, struct buf *out, struct err *e)
{
	const struct registered_task *t = arg;
	struct taskq_task task = {.call = call, .out = out, .e = e};
	CLEANUP(freep) char *args = span_dup(call->args.len ? call->args : SPAN_LIT("[]"));
	CLEANUP(freep) char *kwargs = span_dup(call->kwargs.len ? call->kwargs : SPAN_LIT("{}"));
	if (!args || !kwargs)
		return err_set(e, -ENOMEM, "out of memory");
	span_copy(call->task_id, task.id, sizeof(task.id));
	t->fn(&task, args, kwargs, t->arg);
	if (task.failed)
		return -EREMOTEIO;
	return task.returned ? out->error : buf_puts(out, "null");
}

/* --- registering ---------------------------------------------------------------------------------------- */

static bool taskq_has_task(const struct taskq *q, const char *name)
{
	const struct registered_task *t;
	SLIST_FOREACH(t, &q->tasks, link)
	if (strcmp(t->name, name) == 0)
		return true;
	return false;
}

static const char *taskq_task_mistake(struct taskq *q, const char *name, taskq_task_fn fn,
				      const struct taskq_task_options *o)
{
	if (taskq_is_started(q))
		return "tasks are registered before the handle is used";
	if (!name || !*name || strlen(name) >= TASK_NAME_MAX || !fn)
		return "a task needs a name of at most 127 bytes and a function";
	if (o && o->max_attempts > 1 && !o->idempotent)
		return "max_attempts may exceed 1 only if the task is idempotent";
	if (o && o->queue && (!*o->queue || strlen(o->queue) >= TASK_NAME_MAX))
		return "the queue's name is empty or too long";
	return taskq_has_task(q, name) ? "a task of this name is registered" : NULL;
}

static void taskq_fill_task(struct registered_task *t, taskq_task_fn fn, void *arg,
			    const struct taskq_task_options *o)
{
	t->fn = fn;
	t->arg = arg;
	t->builtin = (struct builtin){.name = t->name, .run_raw = taskq_run_task, .arg = t};
	if (!o)
		return;
	t->manner = (struct registry_manner){.idempotent = o->idempotent != 0,
					     .max_attempts = o->max_attempts,
					     .timeout_ms = o->timeout_ms};
	if (t->queue)
		t->manner.queue = span_of(t->queue);
}

int taskq_register_task(struct taskq *q, const char *name, taskq_task_fn fn, void *arg,
			const struct taskq_task_options *options, struct taskq_error *error)
{
	const char *wrong = taskq_task_mistake(q, name, fn, options);
	if (wrong)
		return taskq_wrong(error, TASKQ_E_ARGUMENT, "%s: %s", name ? name : "NULL", wrong);
	struct registered_task *t = calloc(1, sizeof(*t));
	bool named = t && (t->name = strdup(name));
	if (named && options && options->queue)
		named = (t->queue = strdup(options->queue)) != NULL;
	if (!named) {
		free(t ? t->name : NULL);
		free(t);
		return taskq_wrong(error, TASKQ_E_SYSTEM, "out of memory");
	}
	taskq_fill_task(t, fn, arg, options);
	SLIST_INSERT_HEAD(&q->tasks, t, link);
	return 0;
}

/* --- files ---------------------------------------------------------------------------------------------- */

static const char *taskq_tasks_getenv(const char *name)
{
	return getenv(name);
}

/* What the backend's client is to know of them: queues of tasks, workflows that it puts together itself. */
static int taskq_tell_backend(struct taskq *q, const char *key, const char *paths, struct taskq_error *error)
{
	struct err e = {""};
	if (!task_setting_find(q->backend, span_of(key)))
		return 0;
	int r = task_options_set(q->options, span_of(key), span_of(paths), &e);
	return r < 0 ? taskq_wrong(error, TASKQ_E_SETTINGS, "%s: %s", key, e.text) : 0;
}

static int taskq_read_files(const char *paths, struct registry **ret, struct taskq_error *error)
{
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(PROBLEMS_MAX);
	const struct registry_source source = {.paths = (char *)paths};
	if (registry_load(&source, taskq_tasks_getenv, &problems, ret) == 0)
		return 0;
	struct span told = buf_span(&problems);
	told.len -= told.len && told.ptr[told.len - 1] == '\n';
	return taskq_wrong(error, TASKQ_E_SETTINGS, "%.*s",
			   SPAN_ARG(told.len ? told : SPAN_LIT("out of memory")));
}

int taskq_register_file(struct taskq *q, const char *path, struct taskq_error *error)
{
	struct registry *registry = NULL;
	char *longer = NULL;
	if (taskq_is_started(q))
		return taskq_wrong(error, TASKQ_E_ARGUMENT, "files are registered before the handle is used");
	if (!path || !*path || strchr(path, '\n'))
		return taskq_wrong(error, TASKQ_E_ARGUMENT, "a path is missing, or has a line feed in it");
	const char *before = q->files.paths ? q->files.paths : "";
	if (asprintf(&longer, "%s%s%s", before, *before ? "\n" : "", path) < 0)
		return taskq_wrong(error, TASKQ_E_SYSTEM, "out of memory");
	int r = taskq_read_files(longer, &registry, error);
	bool workflows = r == 0 && registry_workflow_count(registry) > 0;
	registry_free(registry);
	if (r == 0)
		r = taskq_tell_backend(q, "tasks", longer, error);
	if (r == 0 && workflows)
		r = taskq_tell_backend(q, "workflows", longer, error);
	if (r < 0) {
		free(longer);
		return r;
	}
	free(q->files.paths);
	q->files.paths = longer;
	return 0;
}
