/*
 * One task, start to end, for programs that want to wait.
 */
#ifndef TASKS_BLOCKING_H
#define TASKS_BLOCKING_H

#include "base/buf.h"
#include "base/err.h"
#include "tasks/task_backend.h"

/* Submits and waits up to timeout_ms. 0: *ret is the end it came to (completed or failed), its spans in
 * `text`. -ETIMEDOUT: it is still running, `text` is its id. TASK_E_*; -ECONNREFUSED: refused; -EREMOTEIO:
 * written, and whether it runs is unknown. */
int task_run_blocking(const struct task_options *o, const struct task_call *call, unsigned timeout_ms,
		      struct buf *text, struct task_result *ret, struct err *e);
/* Its state now, running ones included: 0, its spans in `text`. -ETIMEDOUT: the backend did not say. TASK_E_*
 * */
int task_look_blocking(const struct task_options *o, struct span id, unsigned timeout_ms, struct buf *text,
		       struct task_result *ret, struct err *e);

#endif
