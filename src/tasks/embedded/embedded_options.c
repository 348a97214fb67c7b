/*
 * Settings of the embedded backend: where the queue lies, and where a task's own queue is known from.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tasks/embedded/embedded_internal.h"

#define FIELD(name) .offset = offsetof(struct embedded_options, name)
const struct task_setting embedded_settings[] = {
	{.key = "database", .path = true, .set = task_setting_text, FIELD(database)},
	REGISTRY_SOURCE_SETTINGS(struct embedded_options, source),
	{.key = NULL},
};

static int load_tasks(struct embedded_options *o, const struct task_backend_setup *setup, struct err *e)
{
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1u << 20);
	int r = registry_load(&o->source, setup->getenv_fn, &problems, &o->tasks);
	if (r < 0)
		return task_setup_mistakes(setup, r, "tasks", buf_span(&problems), e);
	if (setup->problems)
		buf_append_span(setup->problems, buf_span(&problems));
	return registry_check_calls(o->tasks, setup, NULL, "", e);
}

static void embedded_options_set_defaults(struct embedded_options *o)
{
	if (!o->pending_timeout_ms)
		o->pending_timeout_ms = 24 * 3600 * 1000LL;
	if (!o->retention_ms)
		o->retention_ms = 7 * 24 * 3600 * 1000LL;
	if (!o->max_queued)
		o->max_queued = 20000;
	if (!o->max_queued_bytes)
		o->max_queued_bytes = 256u << 20;
}

int embedded_options_check(struct task_options *base, const struct task_backend_setup *setup, struct err *e)
{
	struct embedded_options *o = (struct embedded_options *)base;
	o->must_exist = setup->only_looking;
	embedded_options_set_defaults(o);
	if (!o->database && asprintf(&o->database, "%s/tasks.db", setup->data_dir) < 0) {
		o->database = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	return o->source.paths ? load_tasks(o, setup, e) : 0;
}

int embedded_options_start(struct task_options *base, struct err *e)
{
	struct embedded_options *o = (struct embedded_options *)base;
	return embedded_store_start(o, &o->store, e);
}

void embedded_options_release(struct task_options *base)
{
	struct embedded_options *o = (struct embedded_options *)base;
	embedded_store_stop(o->store);
	registry_free(o->tasks);
	free(o->database);
	free(o->source.paths);
}
