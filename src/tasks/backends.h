/*
 * The backends that exist: one row each.
 */
#ifndef TASKS_BACKENDS_H
#define TASKS_BACKENDS_H

#include "base/err.h"
#include "base/span.h"
#include "tasks/task_backend.h"

/* NULL for an unknown name, with a sentence that lists those that exist. */
const struct task_backend *task_backend_find(struct span name, struct err *e);

#endif
