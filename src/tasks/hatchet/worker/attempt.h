/*
 * What is in an action, and what its end says: pure. The convention is hatchet.h's.
 */
#ifndef TASKS_HATCHET_WORKER_ATTEMPT_H
#define TASKS_HATCHET_WORKER_ATTEMPT_H

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"
#include "tasks/task_backend.h"

#define HATCHET_MAX_OUTPUT 4000000 /* the engine takes messages of 4 MiB */

struct hatchet_call {
	struct span args, kwargs; /* raw JSON array and object, of the action's payload */
	bool shadow;
	char traceparent[TASK_TRACE_PARENT], tracestate[TASK_TRACE_STATE_MAX + 1]; /* "": none */
	char task_id[TASK_ID_MAX]; /* of the router that submitted it; "": none */
};

/* -EINVAL, with a sentence for callers: its input is not {"args": […], "kwargs": {…}}. */
int hatchet_call_read(struct span payload, struct span metadata, struct hatchet_call *ret, struct err *e);

/* Appends a result as the engine keeps it: objects as they are; all else, and what would be taken for it, as
 * {"<task>": result}. -EFBIG, -ERANGE with a sentence: it cannot be kept as it is. */
int hatchet_put_output(struct span task, struct span result, struct buf *out, struct err *e);

/* Of the events of a task's earlier attempts (GET …/task-events, the newest first): whether one of them may
 * have begun, and how it ended is known to nobody. -EBADMSG: it is no such list. -EAGAIN: it
 * does not show them yet. */
int hatchet_read_history(struct span body, int retry_count, bool *ret_may_have_begun);

#endif
