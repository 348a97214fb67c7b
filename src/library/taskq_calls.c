/*
 * Calls: submissions, waits, cancellations, questions of health; from the caller's thread to the loop's and
 * back.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/utf8.h"
#include "library/taskq_operation.h"

/* --- on the loop's thread ------------------------------------------------------------------------------- */

static void taskq_on_submitted(void *arg, const struct task_submission *s)
{
	static const int codes[] = {[TASK_SUBMITTED] = 0,
				    [TASK_REFUSED] = TASKQ_E_REFUSED,
				    [TASK_UNKNOWN] = TASKQ_E_UNKNOWN,
				    [TASK_INPUT_TOO_LARGE] = TASKQ_E_TOO_LARGE,
				    [TASK_INPUT_NOT_REPRESENTABLE] = TASKQ_E_UNREPRESENTABLE};
	struct taskq_operation *o = arg;
	snprintf(o->id, sizeof(o->id), "%.*s", SPAN_ARG(s->task_id));
	taskq_operation_end(o, codes[s->status], s->err.text);
}

static void taskq_on_result(void *arg, int error, const struct task_result *r)
{
	struct taskq_operation *o = arg;
	o->wait = NULL;
	if (error == 0 && !(o->result = taskq_make_result(r)))
		error = -ENOMEM;
	if (error == 0)
		taskq_operation_end(o, 0, NULL);
	else if (error == TASK_E_NOT_FOUND)
		taskq_operation_end(o, TASKQ_E_NOT_FOUND, "the backend knows no such task");
	else if (error == TASK_E_UNREADABLE)
		taskq_operation_end(o, TASKQ_E_UNREADABLE, "the task has ended; its result cannot be read");
	else if (error == -ENOMEM)
		taskq_operation_end(o, TASKQ_E_SYSTEM, "out of memory");
	else
		taskq_operation_end(o, TASKQ_E_UNREACHABLE, "the backend could not be asked");
}

static void taskq_on_limit(void *arg)
{
	struct taskq_operation *o = arg;
	task_wait_cancel(o->wait, o->q->client);
	o->wait = NULL;
	taskq_operation_end(o, TASKQ_E_TIMEOUT, "not ended within the time limit; the task goes on");
}

static void taskq_on_cancelled(void *arg, int error, struct err *e)
{
	struct taskq_operation *o = arg;
	int code = 0;
	if (error)
		code = error == TASK_E_NOT_FOUND ? TASKQ_E_NOT_FOUND : TASKQ_E_UNREACHABLE;
	taskq_operation_end(o, code, e ? e->text : NULL);
}

static void taskq_on_health(void *arg, const struct task_health *h)
{
	struct taskq_operation *o = arg;
	o->health = *h;
	taskq_operation_end(o, 0, NULL);
}

static void taskq_begin_wait(struct taskq_operation *o)
{
	if (o->timeout_ms > 0 && loop_timer_new(o->q->loop, taskq_on_limit, o, &o->limit) < 0) {
		taskq_operation_end(o, TASKQ_E_SYSTEM, "out of memory");
		return;
	}
	o->wait = task_wait(o->q->client, o->call.task_id, taskq_on_result, o);
	if (!o->wait)
		taskq_operation_end(o, TASKQ_E_SYSTEM, "out of memory");
	else if (o->limit)
		loop_timer_start(o->limit, (uint64_t)o->timeout_ms);
}

static void taskq_begin(struct loop_work *work)
{
	struct taskq_operation *o = (struct taskq_operation *)work; /* its first member */
	struct task_client *c = o->q->client;
	TAILQ_INSERT_TAIL(&o->q->open, o, link);
	switch (o->kind) {
	case OPERATION_SUBMIT:
		task_submit(c, &o->call, taskq_on_submitted, o);
		break;
	case OPERATION_WAIT:
		taskq_begin_wait(o);
		break;
	case OPERATION_LOOK:
		task_get(c, o->call.task_id, taskq_on_result, o);
		break;
	case OPERATION_CANCEL:
		task_cancel(c, o->call.task_id, taskq_on_cancelled, o);
		break;
	case OPERATION_HEALTH:
		task_health(c, taskq_on_health, o);
		break;
	}
}

static void taskq_post(struct taskq_operation *o)
{
	o->work.fn = taskq_begin;
	loop_post(o->q->loop, &o->work);
}

/* Until it has ended; it stays the caller's. */
static int taskq_await(struct taskq_operation *o, struct taskq_error *error)
{
	struct taskq *q = o->q;
	o->blocking = true;
	taskq_post(o);
	pthread_mutex_lock(&q->lock);
	while (!o->ended)
		pthread_cond_wait(&o->wake, &q->lock);
	pthread_mutex_unlock(&q->lock);
	return o->code < 0 ? taskq_wrong(error, o->code, "%s", o->error.text) : 0;
}

/* --- submit --------------------------------------------------------------------------------------------- */

/* Backends put these into JSON, URLs and keys: what is no text would be another there, or unreadable. */
static bool taskq_is_text(const char *text)
{
	const char *end = text + strlen(text);
	for (size_t n; text < end; text += n) {
		n = utf8_sequence(text, end);
		if (n == 0 || (unsigned char)*text < ' ' || *text == 0x7F)
			return false;
	}
	return true;
}

static const char *taskq_call_mistake(const struct taskq_call *call)
{
	if (!call || !call->task || !*call->task)
		return "a call names no task";
	if (strlen(call->task) >= TASK_NAME_MAX)
		return "the task's name is too long";
	if (call->id && (!*call->id || strlen(call->id) >= TASKQ_ID_MAX))
		return "the id is empty or too long";
	if (call->priority < 0 || call->priority > 9)
		return "the priority is not from 0 to 9";
	if (!taskq_is_text(call->task) || (call->queue && !taskq_is_text(call->queue)) ||
	    (call->id && !taskq_is_text(call->id)))
		return "task, queue or id is not UTF-8, or has control characters";
	return NULL;
}

static const char *taskq_json_mistake(const char *text, enum json_type type, const char *what)
{
	if (text && (json_validate(span_of(text), NULL) != 0 || json_type_of(span_of(text)) != type))
		return what;
	return NULL;
}

static int taskq_check_call(const struct taskq_call *call, struct taskq_error *error)
{
	const char *wrong = taskq_call_mistake(call);
	if (!wrong)
		wrong = taskq_json_mistake(call->args, JSON_ARRAY, "args are not a JSON array");
	if (!wrong)
		wrong = taskq_json_mistake(call->kwargs, JSON_OBJECT, "kwargs are not a JSON object");
	return wrong ? taskq_wrong(error, TASKQ_E_ARGUMENT, "%s", wrong) : 0;
}

/* The texts of a call, in one piece of memory. */
static int taskq_copy_call(struct taskq_operation *o, const struct taskq_call *call)
{
	const char *from[] = {call->task, call->args, call->kwargs, call->queue, call->id};
	struct span *to[] = {&o->call.task, &o->call.args, &o->call.kwargs, &o->call.queue, &o->call.task_id};
	size_t total = 0;
	for (size_t i = 0; i < 5; i++)
		total += from[i] ? strlen(from[i]) + 1 : 0;
	char *at = o->texts = malloc(total);
	for (size_t i = 0; at && i < 5; i++)
		if (from[i]) {
			struct span s = span_of(from[i]);
			*to[i] = (struct span){taskq_take_text(&at, s), s.len};
		}
	return o->texts ? 0 : -ENOMEM;
}

static struct taskq_operation *taskq_submission(struct taskq *q, const struct taskq_call *call,
						struct taskq_error *error)
{
	if (taskq_check_call(call, error) < 0 || taskq_start(q, error) < 0)
		return NULL;
	struct taskq_operation *o = taskq_operation_new(q, OPERATION_SUBMIT);
	if (!o || taskq_copy_call(o, call) < 0) {
		if (o)
			taskq_operation_free(o);
		taskq_wrong(error, TASKQ_E_SYSTEM, "out of memory");
		return NULL;
	}
	o->call.workflow = call->workflow != 0;
	o->call.idempotent = call->idempotent != 0;
	o->call.timeout_ms = call->timeout_ms;
	o->call.priority = call->priority;
	o->call.expires_ms = call->expires_ms;
	o->call.id_is_key = call->id != NULL;
	return o;
}

int taskq_submit(struct taskq *q, const struct taskq_call *call, char id[TASKQ_ID_MAX],
		 struct taskq_error *error)
{
	struct taskq_error own = {0};
	struct taskq_operation *o = taskq_submission(q, call, &own);
	if (id)
		id[0] = '\0';
	if (!o)
		return taskq_wrong(error, own.code, "%s", own.text);
	int r = taskq_await(o, error);
	if (id)
		memcpy(id, o->id, sizeof(o->id));
	taskq_operation_free(o);
	return r;
}

int taskq_submit_async(struct taskq *q, const struct taskq_call *call, taskq_submitted_fn fn, void *arg,
		       struct taskq_error *error)
{
	struct taskq_error own = {0};
	struct taskq_operation *o = taskq_submission(q, call, &own);
	if (!o)
		return taskq_wrong(error, own.code, "%s", own.text);
	o->on_submitted = fn;
	o->arg = arg;
	taskq_post(o);
	return 0;
}

/* --- results, cancel, health ---------------------------------------------------------------------------- */

static struct taskq_operation *taskq_about(struct taskq *q, enum operation_kind kind, const char *id,
					   struct taskq_error *error)
{
	if (!id || !*id || strlen(id) >= TASKQ_ID_MAX) {
		taskq_wrong(error, TASKQ_E_ARGUMENT, "the id is missing or too long");
		return NULL;
	}
	if (taskq_start(q, error) < 0)
		return NULL;
	struct taskq_operation *o = taskq_operation_new(q, kind);
	if (!o || !(o->texts = strdup(id))) {
		if (o)
			taskq_operation_free(o);
		taskq_wrong(error, TASKQ_E_SYSTEM, "out of memory");
		return NULL;
	}
	o->call.task_id = span_of(o->texts);
	return o;
}

static struct taskq_operation *taskq_waiting(struct taskq *q, const char *id, int64_t timeout_ms,
					     struct taskq_error *error)
{
	struct taskq_operation *o = taskq_about(q, timeout_ms ? OPERATION_WAIT : OPERATION_LOOK, id, error);
	if (o)
		o->timeout_ms = timeout_ms;
	return o;
}

int taskq_get_result(struct taskq *q, const char *id, int64_t timeout_ms, struct taskq_result **ret,
		     struct taskq_error *error)
{
	struct taskq_error own = {0};
	if (!ret)
		return taskq_wrong(error, TASKQ_E_ARGUMENT, "there is no place for the result");
	struct taskq_operation *o = taskq_waiting(q, id, timeout_ms, &own);
	*ret = NULL;
	if (!o)
		return taskq_wrong(error, own.code, "%s", own.text);
	int r = taskq_await(o, error);
	*ret = o->result;
	o->result = NULL;
	taskq_operation_free(o);
	return r;
}

int taskq_get_result_async(struct taskq *q, const char *id, int64_t timeout_ms, taskq_result_fn fn, void *arg,
			   struct taskq_error *error)
{
	struct taskq_error own = {0};
	struct taskq_operation *o = taskq_waiting(q, id, timeout_ms, &own);
	if (!o)
		return taskq_wrong(error, own.code, "%s", own.text);
	o->on_result = fn;
	o->arg = arg;
	taskq_post(o);
	return 0;
}

int taskq_cancel(struct taskq *q, const char *id, struct taskq_error *error)
{
	struct taskq_error own = {0};
	struct taskq_operation *o = taskq_about(q, OPERATION_CANCEL, id, &own);
	if (!o)
		return taskq_wrong(error, own.code, "%s", own.text);
	int r = taskq_await(o, error);
	taskq_operation_free(o);
	return r;
}

int taskq_health(struct taskq *q, struct taskq_health *ret, struct taskq_error *error)
{
	int r = taskq_start(q, error);
	if (r < 0)
		return r;
	struct taskq_operation *o = taskq_operation_new(q, OPERATION_HEALTH);
	if (!o)
		return taskq_wrong(error, TASKQ_E_SYSTEM, "out of memory");
	r = taskq_await(o, error);
	*ret = (struct taskq_health){
		.reachable = o->health.reachable, .worker = o->health.worker, .backlog = o->health.backlog};
	snprintf(ret->detail, sizeof(ret->detail), "%s", o->health.detail);
	taskq_operation_free(o);
	return r;
}

/* --- dispatch ------------------------------------------------------------------------------------------- */

int taskq_fd(const struct taskq *q)
{
	return q->done_fd;
}

static void taskq_call_back(struct taskq_operation *o)
{
	const char *text = o->code < 0 ? o->error.text : NULL;
	if (o->on_submitted)
		o->on_submitted(o->arg, o->code, o->id, text);
	else if (o->on_result)
		o->on_result(o->arg, o->code, o->result, text);
	taskq_operation_free(o);
}

int taskq_dispatch(struct taskq *q)
{
	TAILQ_HEAD(, taskq_operation) due = TAILQ_HEAD_INITIALIZER(due);
	struct taskq_operation *o;
	uint64_t count;
	int n = 0;
	pthread_mutex_lock(&q->lock);
	ssize_t ignored = read(q->done_fd, &count, sizeof(count));
	(void)ignored;
	while ((o = TAILQ_FIRST(&q->done))) {
		TAILQ_REMOVE(&q->done, o, link);
		TAILQ_INSERT_TAIL(&due, o, link);
	}
	pthread_mutex_unlock(&q->lock);
	for (; (o = TAILQ_FIRST(&due)); n++) {
		TAILQ_REMOVE(&due, o, link);
		taskq_call_back(o);
	}
	return n;
}
