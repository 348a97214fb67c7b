/*
 * Inside of the registry, for the two files that fill it.
 */
#ifndef TASKS_WORKER_REGISTRY_INTERNAL_H
#define TASKS_WORKER_REGISTRY_INTERNAL_H

#include <stdatomic.h>

#include "base/arena.h"
#include "base/yaml.h"
#include "tasks/worker/registry.h"

struct registry {
	atomic_uint more;     /* references beyond the first */
	struct yaml_doc *doc; /* names are borrowed from it */
	struct arena memory;  /* of handlers and their texts */
	struct task_definition **tasks;
	size_t n_tasks;
	struct workflow_definition **workflows;
	size_t n_workflows;
};

/* Empty; NULL if out of memory. */
struct registry *registry_new(void);
/* Appends an empty definition. NULL when there are too many or memory is out. */
struct task_definition *registry_add_task(struct registry *r);
struct workflow_definition *registry_add_workflow(struct registry *r);

#endif
