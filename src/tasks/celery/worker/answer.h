/*
 * What a Celery worker stores under celery-task-meta-<id>: JSON, as Celery's own. Pure.
 *
 * Source: celery/backends/base.py (_get_result_meta, prepare_exception).
 */
#ifndef TASKS_CELERY_WORKER_ANSWER_H
#define TASKS_CELERY_WORKER_ANSWER_H

#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

struct celery_answer {
	const char *status;	      /* SUCCESS, FAILURE, REVOKED, RETRY, STARTED */
	struct span result;	      /* raw JSON */
	struct span traceback;	      /* text, SPAN_NONE: null */
	struct span children;	      /* raw JSON array, SPAN_NONE: [] */
	int64_t done_us;	      /* wall clock; 0: null */
	struct span id;		      /* text */
	struct span group, parent_id; /* raw JSON, or SPAN_NONE */
};
int celery_put_answer(const struct celery_answer *a, struct buf *out);

/* The result of what failed. `message`: the text of its only argument; SPAN_NONE: it has none. */
int celery_put_exception(const char *type, const char *module, struct span message, struct buf *out);
/* The same whose only argument is a number of seconds. */
int celery_put_time_limit(int64_t ms, struct buf *out);
/* repr(exception), as events have it. */
int celery_put_exception_repr(const char *type, struct span message, struct buf *out);

#endif
