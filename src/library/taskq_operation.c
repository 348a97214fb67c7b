#include "library/taskq_operation.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- results -------------------------------------------------------------------------------------------- */

struct held_result {
	struct taskq_result result; /* first: it is what callers hold */
	char texts[];
};

const char *taskq_take_text(char **at, struct span s)
{
	const char *copy = *at;
	if (s.len)
		memcpy(*at, s.ptr, s.len);
	(*at)[s.len] = '\0';
	*at += s.len + 1;
	return copy;
}

struct taskq_result *taskq_make_result(const struct task_result *r)
{
	struct held_result *h = malloc(sizeof(*h) + r->task_id.len + r->task_name.len + r->result.len +
				       r->error.len + r->error_detail.len + 5);
	if (!h)
		return NULL;
	char *at = h->texts;
	h->result = (struct taskq_result){.status = (enum taskq_status)r->status,
					  .cancelled = r->cancelled,
					  .attempts = r->attempts,
					  .submitted_us = r->submitted_us,
					  .started_us = r->started_us,
					  .completed_us = r->completed_us};
	h->result.id = taskq_take_text(&at, r->task_id);
	h->result.task = taskq_take_text(&at, r->task_name);
	if (r->status == TASK_COMPLETED)
		h->result.result = taskq_take_text(&at, r->result);
	if (r->status == TASK_FAILED)
		h->result.error = taskq_take_text(&at, r->error);
	if (r->status == TASK_FAILED && r->error_detail.ptr)
		h->result.detail = taskq_take_text(&at, r->error_detail);
	return &h->result;
}

void taskq_result_free(struct taskq_result *r)
{
	free(r);
}

/* --- operations ----------------------------------------------------------------------------------------- */

struct taskq_operation *taskq_operation_new(struct taskq *q, enum operation_kind kind)
{
	struct taskq_operation *o = calloc(1, sizeof(*o));
	if (!o)
		return NULL;
	o->q = q;
	o->kind = kind;
	pthread_cond_init(&o->wake, NULL);
	return o;
}

void taskq_operation_free(struct taskq_operation *o)
{
	taskq_result_free(o->result);
	pthread_cond_destroy(&o->wake);
	free(o->texts);
	free(o);
}

/* On the loop's thread, once. */
void taskq_operation_end(struct taskq_operation *o, int code, const char *text)
{
	struct taskq *q = o->q;
	const uint64_t one = 1;
	o->limit = loop_timer_free(o->limit);
	TAILQ_REMOVE(&q->open, o, link);
	o->code = code;
	if (code < 0)
		taskq_wrong(&o->error, code, "%s", text && *text ? text : "no reason was given");
	pthread_mutex_lock(&q->lock);
	o->ended = true;
	if (o->blocking) {
		pthread_cond_signal(&o->wake);
	} else {
		TAILQ_INSERT_TAIL(&q->done, o, link);
		ssize_t ignored = write(q->done_fd, &one, sizeof(one));
		(void)ignored;
	}
	pthread_mutex_unlock(&q->lock);
}

void taskq_drop_open(struct taskq *q)
{
	struct taskq_operation *o;
	while ((o = TAILQ_FIRST(&q->open))) {
		if (o->wait)
			task_wait_cancel(o->wait, q->client);
		o->wait = NULL;
		taskq_operation_end(o, TASKQ_E_ARGUMENT, "the handle was closed");
	}
}

void taskq_drop_done(struct taskq *q)
{
	struct taskq_operation *o;
	while ((o = TAILQ_FIRST(&q->done))) {
		TAILQ_REMOVE(&q->done, o, link);
		taskq_operation_free(o);
	}
}
