/*
 * Inside of the registry, for the two files that fill it.
 */
#ifndef TASKS_WORKER_REGISTRY_INTERNAL_H
#define TASKS_WORKER_REGISTRY_INTERNAL_H

#include <stdatomic.h>

#include "base/arena.h"
#include "base/yaml.h"
#include "tasks/worker/registry.h"
#include "tasks/worker/registry_files.h"

struct registry {
	atomic_uint more;	      /* references beyond the first */
	struct registry_files *files; /* NULL: none; names are borrowed from their documents */
	struct arena memory;	      /* of handlers and their texts */
	struct task_definition **tasks;
	size_t n_tasks;
	struct workflow_definition **workflows;
	size_t n_workflows;
	unsigned skipped;
	char *skipped_lines; /* NULL: none */
};

/* Empty; NULL if out of memory. */
struct registry *registry_new(void);
int registry_add_core(struct registry *r);
/* Appends an empty definition. NULL when there are too many or memory is out. */
struct task_definition *registry_add_task(struct registry *r);
struct workflow_definition *registry_add_workflow(struct registry *r, struct registry_place where);
/* One of the program's own, which a file may declare, too; NULL: there is none. */
struct task_definition *registry_of_program(const struct registry *r, struct span name);
/* It is not run as the program would where a file means another one, even one that cannot be read. */
void registry_drop_core(struct registry *r, struct span name);
/* Takes the last one away again. */
void registry_drop_workflow(struct registry *r);

#endif
