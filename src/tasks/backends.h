/*
 * The backends that this build has: the rows of src/tasks/meson.build that -Dbackends did not leave out.
 */
#ifndef TASKS_BACKENDS_H
#define TASKS_BACKENDS_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"
#include "tasks/task_backend.h"

/* NULL when this build has none of that name. */
const struct task_backend *task_backend_find(struct span name);
/* Whether it is the name of a backend, be it in this build or left out. */
bool task_backend_is_name(struct span name);
/* -EINVAL with a sentence about a name that is not found: unknown, or left out; and which backends there
 * are. */
int task_backend_not_found(struct span name, struct err *e);
/* Appends their names, separated by ", ". */
int task_backend_names(struct buf *out);

#endif
