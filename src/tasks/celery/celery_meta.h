/*
 * What Celery's result backend stores under celery-task-meta-<id>: JSON (result_serializer json) →
 * task_result.
 *
 * Why:       the result stays the raw text that the worker wrote: 9007199254740993 and 1.0 arrive as
 *            returned.
 * States:    PENDING → pending; RECEIVED, STARTED, RETRY and any other (PROGRESS) → running; SUCCESS →
 *            completed; FAILURE, REVOKED → failed. What cannot be read as JSON (NaN in it, pickle, YAML,
 *            msgpack) still shows its state, and only a final one is an end: SUCCESS then is
 *            TASK_E_UNREADABLE, FAILURE and REVOKED a failure without its message. What shows none at all
 *            (compressed, …) is not an end.
 * Types:     kombu's wrappers in a result become what Celery 5.2 wrote (python_json.h).
 */
#ifndef TASKS_CELERY_CELERY_META_H
#define TASKS_CELERY_CELERY_META_H

#include "base/buf.h"
#include "base/span.h"
#include "tasks/task_backend.h"

/* Room for the sentences of one result; its spans live as long as this and the text. */
struct celery_meta {
	struct buf name, error, detail, result;
};
#define CELERY_META_INIT \
	((struct celery_meta){BUF_INIT(4096), BUF_INIT(1u << 20), BUF_INIT(4u << 20), BUF_INIT(512u << 20)})
void celery_meta_release(struct celery_meta *m);

/* 0, TASK_E_UNREADABLE or -errno. */
int celery_meta_read(struct celery_meta *m, struct span text, struct span id, struct task_result *ret);

static inline bool celery_meta_is_end(const struct task_result *r)
{
	return r->status == TASK_COMPLETED || r->status == TASK_FAILED;
}

#endif
