#include "tasks/temporal/worker/workflow_tasks.h"

#include <errno.h>
#include <stdlib.h>
#include <temporal_api.pb-c.h>

#include "base/log.h"
#include "tasks/temporal/worker/api.h"
#include "tasks/temporal/worker/decide.h"

#define ANSWER_MS 10000	 /* a workflow task's own time, after which it is given out again */
#define EVENTS_MAX 51200 /* servers end longer histories */
#define PAGES_MAX 1024

enum { CAUSE_UNHANDLED = 14, CAUSE_NOT_DETERMINISTIC = 24, CAUSE_TOO_LARGE = 36, QUERY_FAILED = 2 };

struct temporal_workflow_task {
	struct temporal_workflow_tasks *owner;
	LIST_ENTRY(temporal_workflow_task) place;
	struct temporal_call *call;
	TemporalApi__WorkflowTask *task;
	TemporalApi__HistoryResponse **pages;
	size_t n_pages;
	TemporalApi__HistoryEvent **events;
	size_t n_events;
	ProtobufCBinaryData next_page;
};

static void workflow_task_free(struct temporal_workflow_task *t)
{
	LIST_REMOVE(t, place);
	t->owner->n--;
	temporal_call_cancel(t->call);
	for (size_t i = 0; i < t->n_pages; i++)
		temporal_api__history_response__free_unpacked(t->pages[i], NULL);
	free(t->pages);
	free(t->events);
	temporal_api__workflow_task__free_unpacked(t->task, NULL);
	free(t);
}

static void workflow_task_end(struct temporal_workflow_task *t)
{
	struct temporal_workflow_tasks *w = t->owner;
	workflow_task_free(t);
	w->changed(w->arg);
}

static const char *id_of(const struct temporal_workflow_task *t)
{
	return t->task->workflow_execution ? t->task->workflow_execution->workflow_id : "";
}

static const char *type_of(const struct temporal_workflow_task *t)
{
	return t->task->workflow_type ? t->task->workflow_type->name : "";
}

/* --- answers -------------------------------------------------------------------------------------------- */

static void workflow_task_answered(void *arg, const struct grpc_status *s, struct span message)
{
	struct temporal_workflow_task *t = arg;
	(void)message;
	t->call = NULL;
	if (s->code == GRPC_OK)
		t->owner->answered++;
	else /* the server gives it out again when its time is up, unless it is over */
		log_warn("workflow_task_not_answered", LOG_STR("workflow_id", id_of(t)),
			 LOG_STR("workflow", type_of(t)), LOG_STR("code", grpc_code_name(s->code)),
			 LOG_STR("error", s->message));
	workflow_task_end(t);
}

static void workflow_task_send(struct temporal_workflow_task *t, enum temporal_method method,
			       const ProtobufCMessage *m)
{
	int r = temporal_call(t->owner->calls, method, m, ANSWER_MS, workflow_task_answered, t, &t->call);
	if (r < 0) {
		log_error("workflow_task_not_answered", LOG_STR("workflow_id", id_of(t)),
			  LOG_STR("error", r == -EFBIG ? "the answer is too large" : "out of memory"));
		workflow_task_end(t);
	}
}

static void workflow_task_fail(struct temporal_workflow_task *t, int cause, const char *why)
{
	struct arena memory = ARENA_INIT(1u << 20);
	TemporalApi__WorkflowTaskFailed m = TEMPORAL_API__WORKFLOW_TASK_FAILED__INIT;
	m.task_token = t->task->task_token;
	m.cause = cause;
	m.failure = api_failure(
		&memory, span_of(why),
		cause == CAUSE_NOT_DETERMINISTIC ? "NondeterminismError" : "WorkflowTaskError", SPAN_NONE);
	m.identity = (char *)t->owner->calls->identity;
	m.namespace_ = (char *)t->owner->calls->namespace_name;
	t->owner->failed++;
	log_error("workflow_task_failed", LOG_STR("workflow_id", id_of(t)), LOG_STR("workflow", type_of(t)),
		  LOG_STR("error", why), LOG_INT("attempt", t->task->attempt),
		  LOG_STR("effect", "the workflow waits; the server gives the task out again"));
	workflow_task_send(t, TEMPORAL_WORKFLOW_FAILED, &m.base);
	arena_release(&memory);
}

static void workflow_task_complete(struct temporal_workflow_task *t, const struct temporal_decision *d)
{
	TemporalApi__WorkflowTaskCompleted m = TEMPORAL_API__WORKFLOW_TASK_COMPLETED__INIT;
	m.task_token = t->task->task_token;
	m.commands = d->commands;
	m.n_commands = d->n;
	m.identity = (char *)t->owner->calls->identity;
	m.namespace_ = (char *)t->owner->calls->namespace_name;
	int r = temporal_call(t->owner->calls, TEMPORAL_WORKFLOW_COMPLETED, &m.base, ANSWER_MS,
			      workflow_task_answered, t, &t->call);
	if (r < 0)
		workflow_task_fail(t, CAUSE_TOO_LARGE,
				   r == -EFBIG ? "what the workflow does next is larger than a server takes"
					       : "out of memory");
}

static void workflow_task_refuse_query(struct temporal_workflow_task *t)
{
	TemporalApi__QueryCompleted m = TEMPORAL_API__QUERY_COMPLETED__INIT;
	m.task_token = t->task->task_token;
	m.completed_type = QUERY_FAILED;
	m.error_message = (char *)"this worker answers no queries";
	m.namespace_ = (char *)t->owner->calls->namespace_name;
	workflow_task_send(t, TEMPORAL_QUERY_COMPLETED, &m.base);
}

static void workflow_task_decide(struct temporal_workflow_task *t)
{
	struct temporal_workflow_tasks *w = t->owner;
	struct temporal_decision d;
	const struct temporal_history h = {.events = t->events,
					   .n = t->n_events,
					   .registry = w->registry,
					   .identity = w->calls->identity,
					   .heartbeat_ms = w->heartbeat_ms};
	switch (temporal_decide(&h, &d)) {
	case TEMPORAL_DECIDED:
		workflow_task_complete(t, &d);
		break;
	case TEMPORAL_NOT_DETERMINISTIC:
		workflow_task_fail(t, CAUSE_NOT_DETERMINISTIC, d.why.text);
		break;
	case TEMPORAL_UNDECIDED:
		workflow_task_fail(t, CAUSE_UNHANDLED, d.why.text);
		break;
	}
	temporal_decision_release(&d);
}

/* --- the history ---------------------------------------------------------------------------------------- */

static int workflow_task_add(struct temporal_workflow_task *t, const TemporalApi__History *h)
{
	if (!h || !h->n_events)
		return 0;
	if (t->n_events + h->n_events > EVENTS_MAX)
		return -EFBIG;
	TemporalApi__HistoryEvent **more =
		realloc(t->events, (t->n_events + h->n_events) * sizeof(TemporalApi__HistoryEvent *));
	if (!more)
		return -ENOMEM;
	memcpy(more + t->n_events, h->events, h->n_events * sizeof(TemporalApi__HistoryEvent *));
	t->events = more;
	t->n_events += h->n_events;
	return 0;
}

static void workflow_task_on_page(void *arg, const struct grpc_status *s, struct span message);

/* The rest of the history, then the decision. */
static void workflow_task_go_on(struct temporal_workflow_task *t)
{
	TemporalApi__HistoryRequest r = TEMPORAL_API__HISTORY_REQUEST__INIT;
	if (t->task->query) {
		workflow_task_refuse_query(t);
		return;
	}
	if (!t->next_page.len) {
		workflow_task_decide(t);
		return;
	}
	r.namespace_ = (char *)t->owner->calls->namespace_name;
	r.execution = t->task->workflow_execution;
	r.next_page_token = t->next_page;
	if (t->n_pages == PAGES_MAX || temporal_call(t->owner->calls, TEMPORAL_HISTORY, &r.base, ANSWER_MS,
						     workflow_task_on_page, t, &t->call) < 0)
		workflow_task_fail(t, CAUSE_UNHANDLED,
				   "the history cannot be read: it is too long, or out of memory");
}

static void workflow_task_on_page(void *arg, const struct grpc_status *s, struct span message)
{
	struct temporal_workflow_task *t = arg;
	t->call = NULL;
	TemporalApi__HistoryResponse *page = NULL,
				     **more = realloc(t->pages, (t->n_pages + 1) * sizeof(*t->pages));
	if (more)
		t->pages = more;
	if (more && s->code == GRPC_OK && message.ptr)
		page = temporal_api__history_response__unpack(NULL, message.len,
							      (const uint8_t *)message.ptr);
	if (!page) {
		workflow_task_fail(t, CAUSE_UNHANDLED,
				   s->code == GRPC_OK ? "a page of the history cannot be read" : s->message);
		return;
	}
	t->pages[t->n_pages++] = page;
	t->next_page = page->next_page_token;
	if (workflow_task_add(t, page->history) < 0)
		workflow_task_fail(t, CAUSE_UNHANDLED, "the history is too long, or out of memory");
	else
		workflow_task_go_on(t);
}

/* --- taking --------------------------------------------------------------------------------------------- */

void temporal_workflow_tasks_take(struct temporal_workflow_tasks *w, struct span message)
{
	TemporalApi__WorkflowTask *task =
		temporal_api__workflow_task__unpack(NULL, message.len, (const uint8_t *)message.ptr);
	struct temporal_workflow_task *t = task && task->task_token.len ? calloc(1, sizeof(*t)) : NULL;
	if (!task)
		log_error("workflow_task_unreadable", LOG_INT("bytes", message.len));
	if (!t) {
		if (task)
			temporal_api__workflow_task__free_unpacked(task, NULL);
		return;
	}
	t->owner = w;
	t->task = task;
	t->next_page = task->next_page_token;
	LIST_INSERT_HEAD(&w->all, t, place);
	w->n++;
	if (workflow_task_add(t, task->history) < 0)
		workflow_task_fail(t, CAUSE_UNHANDLED, "the history is too long, or out of memory");
	else
		workflow_task_go_on(t);
}

void temporal_workflow_tasks_release(struct temporal_workflow_tasks *w)
{
	while (!LIST_EMPTY(&w->all))
		workflow_task_free(LIST_FIRST(&w->all));
}
