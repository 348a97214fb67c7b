/*
 * Settings of the backend `router`: where its state lies, which workflows it drives, and how patient it is.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tasks/driver/driver_internal.h"

#define MINUTE_MS 60000u
#define DAY_MS (24u * 60 * MINUTE_MS)

static int set_unknown_after(void *field, struct span value, struct err *e)
{
	return task_setting_duration(field, value, 1000, 7 * DAY_MS, e);
}

static int set_refused_after(void *field, struct span value, struct err *e)
{
	return task_setting_duration(field, value, 1, DAY_MS, e);
}

static int set_timeout(void *field, struct span value, struct err *e)
{
	return task_setting_duration(field, value, 1000, 7 * DAY_MS, e);
}

static int set_max_running(void *field, struct span value, struct err *e)
{
	char text[16], *end;
	span_copy(value, text, sizeof(text));
	unsigned long n = strtoul(text, &end, 10);
	if (value.len == 0 || value.len >= sizeof(text) || *end || text[0] == '-' || n < 1 || n > 100000)
		return err_set(e, -EINVAL, "expected a number from 1 to 100000");
	*(unsigned *)field = (unsigned)n;
	return 0;
}

#define FIELD(name) .offset = offsetof(struct driver_options, name)
const struct task_setting driver_settings[] = {
	{.key = "workflows",
	 .path = true,
	 .several = true,
	 .set = task_setting_text,
	 FIELD(workflows_source.paths)},
	{.key = "backend", .set = task_setting_text, FIELD(backend)},
	{.key = "database", .path = true, .set = task_setting_text, FIELD(database)},
	{.key = "timeout", .set = set_timeout, FIELD(timeout_ms)},
	{.key = "unknown_after", .set = set_unknown_after, FIELD(unknown_after_ms)},
	{.key = "refused_after", .set = set_refused_after, FIELD(refused_after_ms)},
	{.key = "max_running", .set = set_max_running, FIELD(max_running)},
	{.key = NULL},
};

static void driver_set_defaults(struct driver_options *o)
{
	if (!o->timeout_ms)
		o->timeout_ms = DAY_MS;
	if (!o->unknown_after_ms)
		o->unknown_after_ms = 60 * MINUTE_MS;
	if (!o->refused_after_ms)
		o->refused_after_ms = 5 * MINUTE_MS;
	if (!o->max_running)
		o->max_running = 1000;
	if (!o->max_queued)
		o->max_queued = 20000;
	if (!o->max_bytes)
		o->max_bytes = 256u << 20;
	if (!o->retention_ms)
		o->retention_ms = 7LL * DAY_MS;
}

static int driver_load_workflows(struct driver_options *o, const struct task_backend_setup *setup,
				 struct err *e)
{
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1u << 20);
	int r = registry_load_workflows(&o->workflows_source, &problems, &o->workflows);
	return r < 0 ? task_setup_mistakes(setup, r, "workflows", buf_span(&problems), e) : 0;
}

/* One of those that are configured beside this one. */
static int driver_check_backend(const struct driver_options *o, struct span backend, struct span workflow,
				struct err *e)
{
	if (!o->other) /* nobody knows yet */
		return 0;
	if (span_is(backend, "router"))
		return err_set(e, -EINVAL, "workflow %.*s: its steps cannot run on the router itself",
			       SPAN_ARG(workflow));
	if (!o->other(o->other_arg, backend))
		return err_set(e, -EINVAL,
			       "workflow %.*s: no backend \"%.*s\" is declared under backends for its steps",
			       SPAN_ARG(workflow), SPAN_ARG(backend));
	return 0;
}

static int driver_check_workflows(const struct driver_options *o, struct err *e)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < registry_workflow_count(o->workflows); i++) {
		const struct workflow_definition *w = registry_workflow_at(o->workflows, i);
		if (w->execution != WORKFLOW_ROUTER)
			continue;
		for (size_t j = 0; r == 0 && j < w->n_steps; j++) {
			struct span backend = w->steps[j].backend;
			r = driver_check_backend(o, backend.ptr ? backend : span_of(o->backend), w->name, e);
		}
	}
	return r;
}

/* What operations ask for is there. */
static int driver_check_calls(const struct driver_options *o, const struct task_backend_setup *setup,
			      struct err *e)
{
	for (size_t i = 0; i < setup->n_calls; i++) {
		const struct task_probe *p = &setup->calls[i];
		if (!p->workflow)
			return err_set(
				e, -EINVAL,
				"the task \"%.*s\" is to run on it, but the router drives workflows only",
				SPAN_ARG(p->task));
		const struct workflow_definition *w = registry_workflow(o->workflows, p->task);
		if (!w || w->execution != WORKFLOW_ROUTER)
			return err_set(e, -EINVAL, "the workflow \"%.*s\" is not declared %sin workflows",
				       SPAN_ARG(p->task), w ? "with \"execution: router\" " : "");
	}
	return 0;
}

int driver_options_check(struct task_options *base, const struct task_backend_setup *setup, struct err *e)
{
	struct driver_options *o = (struct driver_options *)base;
	o->only_looking = setup->only_looking;
	o->other = setup->other;
	o->other_arg = setup->other_arg;
	driver_set_defaults(o);
	if (setup->state_shared)
		return err_set(
			e, -EINVAL,
			"what it drives is in a file of this router, but state: is shared by replicas, "
			"which would not find it");
	if (!o->workflows_source.paths)
		return err_set(e, -EINVAL, "workflows is missing: the file that declares what it drives");
	if (!o->database && asprintf(&o->database, "%s/workflows.db", setup->data_dir) < 0) {
		o->database = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	if (!o->backend) {
		struct span chosen = setup->default_backend;
		o->backend =
			span_dup(chosen.len && !span_is(chosen, "router") ? chosen : SPAN_LIT("embedded"));
		if (!o->backend)
			return err_set(e, -ENOMEM, "out of memory");
	}
	int r = driver_load_workflows(o, setup, e);
	if (r == 0)
		r = driver_check_workflows(o, e);
	return r == 0 ? driver_check_calls(o, setup, e) : r;
}

int driver_options_start(struct task_options *base, struct err *e)
{
	struct driver_options *o = (struct driver_options *)base;
	return driver_start(o, &o->driver, e);
}

void driver_options_release(struct task_options *base)
{
	struct driver_options *o = (struct driver_options *)base;
	driver_stop(o->driver);
	registry_free(o->workflows);
	free(o->database);
	free(o->workflows_source.paths);
	free(o->backend);
}
