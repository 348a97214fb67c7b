/*
 * Catalog: what a worker declares to the engine and can run: for each task of its queues a workflow of
 *          that one task (`<task>_workflow`), by the convention of hatchet.h.
 *
 * Why:       the engine knows actions, "<workflow>:<task>" in small letters; this says which task each
 *            one is.
 * Left out:  what the engine would not take, each with a log line that says why: names with other
 *            characters than A-Z a-z 0-9 . - _, and names that differ from another's in capitals only.
 * Ownership: it holds the registry that it was made of. One reference for who made it, one for each
 *            hatchet_catalog_ref.
 * Threads:   one.
 */
#ifndef TASKS_HATCHET_WORKER_CATALOG_H
#define TASKS_HATCHET_WORKER_CATALOG_H

#include "base/err.h"
#include "tasks/hatchet/worker/wire.h"
#include "tasks/worker/registry.h"

/* The engine's own limit is for what its worker does not end itself: it comes later than ours. */
#define HATCHET_LIMIT_MARGIN_MS 15000

struct hatchet_entry {
	char *action, *name; /* name: of the task within its workflow */
	const struct task_definition *task;
	size_t workflow; /* in the catalog's */
};

struct hatchet_workflow {
	char *name;
	struct hatchet_declared_task *tasks;
	size_t n_tasks;
	bool refused; /* by the engine: its actions are not registered */
};

struct hatchet_catalog {
	unsigned references;
	struct registry *registry;
	struct hatchet_workflow *workflows;
	size_t n_workflows;
	struct hatchet_entry *entries; /* by action */
	size_t n_entries;
};

/* -EINVAL: nothing is left to declare. -ENOMEM. */
int hatchet_catalog_new(struct registry *r, const char *const *queues, size_t n_queues,
			struct hatchet_catalog **ret, struct err *e);
struct hatchet_catalog *hatchet_catalog_ref(struct hatchet_catalog *c);
struct hatchet_catalog *hatchet_catalog_free(struct hatchet_catalog *c); /* NULL is allowed; returns NULL */
const struct hatchet_entry *hatchet_catalog_find(const struct hatchet_catalog *c, const char *action);

/* Appends the worker's name as the engine takes it: other characters become '-'. */
int hatchet_put_worker_name(struct span name, struct buf *out);

#endif
