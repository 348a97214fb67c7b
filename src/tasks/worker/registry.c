/*
 * The registry as a collection: building, looking up, suggesting names. Reading YAML is registry_load.c.
 */
#include "tasks/worker/registry.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/nearest.h"
#include "tasks/task_backend.h"
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

struct workflow_definition *registry_add_workflow(struct registry *r)
{
	void *array = registry_grow(r->workflows, r->n_workflows, REGISTRY_MAX_WORKFLOWS);
	if (!array)
		return NULL;
	r->workflows = array;
	struct workflow_definition *w = calloc(1, sizeof(*w));
	if (w)
		r->workflows[r->n_workflows++] = w;
	return w;
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
	yaml_free(r->doc);
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

int registry_core(struct registry **ret)
{
	struct registry *r = registry_new();
	if (!r)
		return -ENOMEM;
	for (size_t i = 0; i < n_core_tasks; i++) {
		int code = registry_register(r, &core_tasks[i], SPAN_NONE);
		if (code < 0) {
			registry_free(r);
			return code;
		}
	}
	*ret = r;
	return 0;
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

size_t registry_count(const struct registry *r)
{
	return r->n_tasks;
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
