/*
 * The registry as a collection: building, looking up, suggesting names. Reading YAML is registry_load.c.
 */
#include "tasks/worker/registry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/nearest.h"
#include "tasks/task_backend.h"
#include "tasks/task_options.h"
#include "tasks/worker/registry_internal.h"

#define SUGGESTIONS 10
#define REGISTRY_MAX_MEMORY (256u << 20) /* the environment's values are not of the file's size */

struct registry *registry_new(void)
{
	struct registry *r = calloc(1, sizeof(*r));
	if (r)
		r->memory = ARENA_INIT(REGISTRY_MAX_MEMORY);
	return r;
}

static void *registry_grow(void *array, size_t n, size_t max)
{
	if (n >= max)
		return NULL;
	/* Doubles at each power of two. */
	if (n & (n - 1))
		return array;
	return realloc(array, (n ? 2 * n : 1) * sizeof(void *));
}

struct task_definition *registry_add_task(struct registry *r)
{
	void *array = registry_grow(r->tasks, r->n_tasks, REGISTRY_MAX_TASKS);
	if (!array)
		return NULL;
	r->tasks = array;
	struct task_definition *t = calloc(1, sizeof(*t));
	if (t)
		r->tasks[r->n_tasks++] = t;
	return t;
}

/* What the registry holds of a workflow: its definition first. */
struct registry_workflow {
	struct workflow_definition definition;
	struct registry_place place;
};

struct workflow_definition *registry_add_workflow(struct registry *r, struct registry_place where)
{
	void *array = registry_grow(r->workflows, r->n_workflows, REGISTRY_MAX_WORKFLOWS);
	if (!array)
		return NULL;
	r->workflows = array;
	struct registry_workflow *w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->place = where;
	r->workflows[r->n_workflows++] = &w->definition;
	return &w->definition;
}

struct task_definition *registry_of_program(const struct registry *r, struct span name)
{
	for (size_t i = 0; i < r->n_tasks; i++)
		if (!r->tasks[i]->place.file && span_eq(r->tasks[i]->name, name))
			return r->tasks[i];
	return NULL;
}

void registry_drop_core(struct registry *r, struct span name)
{
	struct task_definition *t = registry_of_program(r, name);
	size_t i = 0;
	while (i < r->n_tasks && r->tasks[i] != t)
		i++;
	if (i == r->n_tasks)
		return;
	free(t);
	memmove(&r->tasks[i], &r->tasks[i + 1], (r->n_tasks - i - 1) * sizeof(r->tasks[0]));
	r->n_tasks--;
}

void registry_drop_workflow(struct registry *r)
{
	free(r->workflows[--r->n_workflows]);
}

struct registry *registry_ref(struct registry *r)
{
	atomic_fetch_add(&r->more, 1);
	return r;
}

struct registry *registry_free(struct registry *r)
{
	if (!r || atomic_fetch_sub(&r->more, 1) > 0)
		return NULL;
	for (size_t i = 0; i < r->n_tasks; i++) {
		secrets_release(&r->tasks[i]->secrets);
		free(r->tasks[i]);
	}
	for (size_t i = 0; i < r->n_workflows; i++)
		free(r->workflows[i]);
	free(r->tasks);
	free(r->workflows);
	arena_release(&r->memory);
	for (size_t i = 0; r->files && i < r->files->n; i++)
		yaml_free(r->files->all[i].doc);
	free(r->files);
	free(r->skipped_lines);
	free(r);
	return NULL;
}

int registry_register(struct registry *r, const struct builtin *b, struct span queue)
{
	if (registry_task(r, span_of(b->name)))
		return -EEXIST;
	struct task_definition *t = registry_add_task(r);
	if (!t)
		return r->n_tasks >= REGISTRY_MAX_TASKS ? -ENOSPC : -ENOMEM;
	t->name = span_of(b->name);
	t->queue = queue.ptr ? queue : SPAN_LIT(REGISTRY_DEFAULT_QUEUE);
	t->kind = HANDLER_BUILTIN;
	t->builtin = b;
	t->max_attempts = 1;
	t->timeout_ms = REGISTRY_DEFAULT_TIMEOUT_MS;
	return 0;
}

int registry_register_as(struct registry *r, const struct builtin *b, const struct registry_manner *manner)
{
	struct task_definition *core = registry_of_program(r, span_of(b->name));
	if (core && core_task_find(core->name) == core->builtin)
		registry_drop_core(r, core->name);
	int code = registry_register(r, b, manner->queue);
	if (code < 0)
		return code;
	struct task_definition *t = r->tasks[r->n_tasks - 1];
	t->idempotent = manner->idempotent;
	t->max_attempts = manner->idempotent ? REGISTRY_DEFAULT_ATTEMPTS : 1;
	if (manner->idempotent && manner->max_attempts)
		t->max_attempts = manner->max_attempts;
	t->timeout_ms = manner->timeout_ms ? manner->timeout_ms : REGISTRY_DEFAULT_TIMEOUT_MS;
	return 0;
}

int registry_set_fail_fast(void *source, struct span value, struct err *e)
{
	struct registry_source *s = source;
	bool fail_fast = true;
	int r = task_setting_bool(&fail_fast, value, e);
	s->skip_broken = !fail_fast;
	return r;
}

int registry_set_core_tasks(void *source, struct span value, struct err *e)
{
	struct registry_source *s = source;
	bool core = true;
	int r = task_setting_bool(&core, value, e);
	s->without_core = !core;
	return r;
}

int registry_add_core(struct registry *r)
{
	int code = 0;
	for (size_t i = 0; i < n_core_tasks && code == 0; i++)
		code = registry_register(r, &core_tasks[i], SPAN_NONE);
	return code;
}

int registry_core(struct registry **ret)
{
	struct registry *r = registry_new();
	if (!r)
		return -ENOMEM;
	int code = registry_add_core(r);
	if (code == 0)
		*ret = r;
	else
		registry_free(r);
	return code;
}

const struct task_definition *registry_task(const struct registry *r, struct span name)
{
	for (size_t i = 0; i < r->n_tasks; i++)
		if (span_eq(r->tasks[i]->name, name))
			return r->tasks[i];
	return NULL;
}

const struct workflow_definition *registry_workflow(const struct registry *r, struct span name)
{
	for (size_t i = 0; i < r->n_workflows; i++)
		if (span_eq(r->workflows[i]->name, name))
			return r->workflows[i];
	return NULL;
}

const struct registry_place *registry_place_of(const struct registry *r, struct span name, bool workflow)
{
	const struct task_definition *t = workflow ? NULL : registry_task(r, name);
	const struct workflow_definition *w = workflow ? registry_workflow(r, name) : NULL;
	if (t)
		return t->place.file ? &t->place : NULL;
	return w ? &((const struct registry_workflow *)w)->place : NULL;
}

unsigned registry_skipped(const struct registry *r, const char **ret_lines)
{
	*ret_lines = r->skipped_lines ? r->skipped_lines : "";
	return r->skipped;
}

size_t registry_count(const struct registry *r)
{
	return r->n_tasks;
}

size_t registry_count_core(const struct registry *r)
{
	size_t n = 0;
	for (size_t i = 0; i < r->n_tasks; i++)
		n += !r->tasks[i]->place.file;
	return n;
}

const struct task_definition *registry_task_at(const struct registry *r, size_t i)
{
	return r->tasks[i];
}

size_t registry_workflow_count(const struct registry *r)
{
	return r->n_workflows;
}

const struct workflow_definition *registry_workflow_at(const struct registry *r, size_t i)
{
	return r->workflows[i];
}

/* --- suggestions ---------------------------------------------------------------------------------------- */

struct registry_candidate {
	struct span name;
	size_t distance;
};

static int nearer(const void *a, const void *b)
{
	const struct registry_candidate *x = a, *y = b;
	return x->distance < y->distance ? -1 : x->distance > y->distance;
}

int registry_describe_unknown(const struct registry *r, struct span name, bool workflow, struct buf *out)
{
	size_t n = workflow ? r->n_workflows : r->n_tasks;
	buf_printf(out, "unknown %s \"%.*s\"", workflow ? "workflow" : "task", SPAN_ARG(name));
	if (!n)
		return buf_printf(out, "; this worker knows none");
	CLEANUP(freep) struct registry_candidate *all = calloc(n, sizeof(*all));
	if (!all)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		all[i].name = workflow ? r->workflows[i]->name : r->tasks[i]->name;
		all[i].distance = nearest_edits(name, all[i].name);
	}
	qsort(all, n, sizeof(*all), nearer);
	if (all[0].distance <= 1 + name.len / 3)
		buf_printf(out, "; did you mean \"%.*s\"?", SPAN_ARG(all[0].name));
	buf_puts(out, "; known: ");
	for (size_t i = 0; i < n && i < SUGGESTIONS; i++)
		buf_printf(out, "%s%.*s", i ? ", " : "", SPAN_ARG(all[i].name));
	if (n > SUGGESTIONS)
		buf_printf(out, " and %zu more", n - SUGGESTIONS);
	return out->error;
}

bool registry_is_for_router(const struct workflow_definition *w)
{
	bool router = w->execution == WORKFLOW_ROUTER;
	for (size_t i = 0; i < w->n_steps; i++)
		router |= w->steps[i].backend.ptr != NULL;
	return router;
}

int registry_check_calls(const struct registry *r, const struct task_backend_setup *setup,
			 bool (*fits)(const struct workflow_definition *w), const char *what, struct err *e)
{
	for (size_t i = 0; r && i < setup->n_calls; i++) {
		const struct task_probe *p = &setup->calls[i];
		const struct workflow_definition *w = p->workflow ? registry_workflow(r, p->task) : NULL;
		if (w && registry_is_for_router(w))
			return err_set(
				e, -EINVAL,
				"the workflow \"%.*s\" is declared for the router to drive: its operation "
				"needs \"backend: router\"",
				SPAN_ARG(p->task));
		if (w && fits && !fits(w))
			return err_set(e, -EINVAL,
				       "the workflow \"%.*s\" is more than %s; declare it with \"execution: "
				       "router\" and give its operation \"backend: router\"",
				       SPAN_ARG(p->task), what);
	}
	return 0;
}
