#include "tasks/temporal/worker/activity_tasks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <temporal_api.pb-c.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "tasks/temporal/worker/api.h"
#include "tasks/temporal/worker/decide.h"

#define BEAT_MS 5000
#define BEAT_LEAST_MS 100
#define GRACE_MS 5000	    /* of a handler that was asked to end */
#define TELL_LEAST_MS 60000 /* an end is told for so long at least */
#define RESULT_MAX ((2u << 20) - 1024)
#define ARGUMENTS_MAX (64u << 20)
#define TEXT_SHOWN 1024

enum activity_reason {
	ACTIVITY_ENDED, /* by itself */
	ACTIVITY_TIMED_OUT,
	ACTIVITY_CANCELLED, /* asked for by the workflow */
	ACTIVITY_ABANDONED, /* the server does not know it any more */
	ACTIVITY_STOPPED    /* the worker stops */
};

struct temporal_activity {
	struct temporal_activities *owner;
	LIST_ENTRY(temporal_activity) place;
	TemporalApi__ActivityTask *task;
	struct registry *registry;
	const struct task_definition *definition;
	struct handler_run *run;
	struct temporal_call *call, *heartbeat; /* call: tells the end */
	struct loop_timer *limit, *beat;
	enum activity_reason reason;
	unsigned beat_ms, limit_ms;
	int64_t begun_ms;
};

static const char *activity_name(const struct temporal_activity *t)
{
	return t->task->activity_type ? t->task->activity_type->name : "";
}

static const char *activity_workflow(const struct temporal_activity *t)
{
	return t->task->workflow_execution ? t->task->workflow_execution->workflow_id : "";
}

static void activity_free(struct temporal_activity *t)
{
	LIST_REMOVE(t, place);
	t->owner->n--;
	temporal_call_cancel(t->call);
	temporal_call_cancel(t->heartbeat);
	loop_timer_free(t->limit);
	loop_timer_free(t->beat);
	temporal_api__activity_task__free_unpacked(t->task, NULL);
	registry_free(t->registry);
	free(t);
}

/* --- telling the end ------------------------------------------------------------------------------------ */

static void activity_on_told(void *arg, const struct grpc_status *s, struct span message)
{
	struct temporal_activity *t = arg;
	struct temporal_activities *a = t->owner;
	(void)message;
	t->call = NULL;
	if (s->code != GRPC_OK)
		log_error("task_end_not_told", LOG_STR("workflow_id", activity_workflow(t)),
			  LOG_STR("task", activity_name(t)), LOG_STR("code", grpc_code_name(s->code)),
			  LOG_STR("error", s->message),
			  LOG_STR("effect", s->code == GRPC_NOT_FOUND
						    ? "none: the server had given it up"
						    : "for the server the attempt will have timed out"));
	activity_free(t);
	a->changed(a->arg);
}

static void activity_tell(struct temporal_activity *t, enum temporal_method method, const ProtobufCMessage *m)
{
	struct temporal_activities *a = t->owner;
	int64_t left = t->begun_ms + t->limit_ms - clock_mono_ms();
	int r = temporal_call(a->calls, method, m, left > TELL_LEAST_MS ? left : TELL_LEAST_MS,
			      activity_on_told, t, &t->call);
	if (r < 0) {
		log_error("task_end_not_told", LOG_STR("workflow_id", activity_workflow(t)),
			  LOG_STR("task", activity_name(t)),
			  LOG_STR("error", r == -EFBIG ? "too large" : "out of memory"));
		activity_free(t);
		a->changed(a->arg);
	}
}

struct activity_failure {
	struct span error, detail;
	const char *type;
	bool again; /* it may be tried again, where its policy says so */
	unsigned again_ms;
};

static void activity_tell_failed(struct temporal_activity *t, const struct activity_failure *f)
{
	struct arena memory = ARENA_INIT(16u << 20);
	TemporalApi__ActivityTaskFailed m = TEMPORAL_API__ACTIVITY_TASK_FAILED__INIT;
	m.task_token = t->task->task_token;
	m.identity = (char *)t->owner->calls->identity;
	m.namespace_ = (char *)t->owner->calls->namespace_name;
	m.failure = api_failure(&memory, f->error, f->type, f->detail);
	if (m.failure) {
		m.failure->application_failure_info->non_retryable = !f->again;
		if (f->again && f->again_ms)
			m.failure->application_failure_info->next_retry_delay =
				api_duration(&memory, f->again_ms);
	}
	t->owner->failed++;
	activity_tell(t, TEMPORAL_ACTIVITY_FAILED, &m.base);
	arena_release(&memory);
}

static void activity_tell_result(struct temporal_activity *t, struct span json)
{
	struct arena memory = ARENA_INIT(16u << 20);
	TemporalApi__ActivityTaskCompleted m = TEMPORAL_API__ACTIVITY_TASK_COMPLETED__INIT;
	m.task_token = t->task->task_token;
	m.identity = (char *)t->owner->calls->identity;
	m.namespace_ = (char *)t->owner->calls->namespace_name;
	m.result = api_payloads(&memory, &json, 1);
	t->owner->succeeded++;
	activity_tell(t, TEMPORAL_ACTIVITY_COMPLETED, &m.base);
	arena_release(&memory);
}

static void activity_tell_cancelled(struct temporal_activity *t)
{
	TemporalApi__ActivityTaskPlain m = TEMPORAL_API__ACTIVITY_TASK_PLAIN__INIT;
	m.task_token = t->task->task_token;
	m.identity = (char *)t->owner->calls->identity;
	m.namespace_ = (char *)t->owner->calls->namespace_name;
	t->owner->cancelled++;
	activity_tell(t, TEMPORAL_ACTIVITY_CANCELED, &m.base);
}

/* --- the end -------------------------------------------------------------------------------------------- */

static void activity_take_failure(struct temporal_activity *t, const struct handler_outcome *o)
{
	CLEANUP(buf_releasep) struct buf error = BUF_INIT(1u << 20), detail = BUF_INIT(1u << 20);
	struct activity_failure f = {.type = o->unknown ? "WorkerLostError" : "RuntimeError",
				     .again = o->retry || o->unknown,
				     .again_ms = o->retry_after_ms};
	handler_put_told(t->definition, o->error, &error);
	if (o->detail.ptr)
		handler_put_told(t->definition, o->detail, &detail);
	f.error = buf_span(&error);
	f.detail = buf_span(&detail);
	if (t->reason == ACTIVITY_TIMED_OUT) {
		f = (struct activity_failure){
			.error = SPAN_LIT("timed out"), .type = "TimeoutError", .again = true};
	} else if (t->reason == ACTIVITY_STOPPED) {
		f = (struct activity_failure){.error = SPAN_LIT("the worker was stopped while the task ran"),
					      .type = "WorkerLostError",
					      .again = true};
	}
	log_info("task_ended", LOG_STR("workflow_id", activity_workflow(t)),
		 LOG_STR("task", activity_name(t)), LOG_STR("status", "failed"),
		 LOG_INT("attempt", t->task->attempt), LOG_INT("ms", clock_mono_ms() - t->begun_ms),
		 LOG_SPAN("error", text_front(f.error, TEXT_SHOWN)),
		 LOG_SPAN("detail", text_front(f.detail, TEXT_SHOWN)));
	activity_tell_failed(t, &f);
}

static void activity_on_done(void *arg, const struct handler_outcome *o)
{
	struct temporal_activity *t = arg;
	struct temporal_activities *a = t->owner;
	t->run = NULL;
	a->n_running--;
	loop_timer_stop(t->limit);
	loop_timer_stop(t->beat);
	t->heartbeat = temporal_call_cancel(t->heartbeat);
	if (t->reason == ACTIVITY_ABANDONED) {
		log_info("task_ended", LOG_STR("workflow_id", activity_workflow(t)),
			 LOG_STR("task", activity_name(t)), LOG_STR("status", "abandoned"));
		a->cancelled++;
		activity_free(t);
		a->changed(a->arg);
	} else if (o->result.ptr && o->result.len <= RESULT_MAX) {
		log_info("task_ended", LOG_STR("workflow_id", activity_workflow(t)),
			 LOG_STR("task", activity_name(t)), LOG_STR("status", "completed"),
			 LOG_INT("attempt", t->task->attempt), LOG_INT("ms", clock_mono_ms() - t->begun_ms));
		activity_tell_result(t, o->result);
	} else if (o->result.ptr) {
		const struct activity_failure f = {
			.error = SPAN_LIT("the result is larger than Temporal takes (2 MB)"),
			.type = "ResultTooLarge"};
		activity_tell_failed(t, &f);
	} else if (t->reason == ACTIVITY_CANCELLED) {
		log_info("task_ended", LOG_STR("workflow_id", activity_workflow(t)),
			 LOG_STR("task", activity_name(t)), LOG_STR("status", "cancelled"));
		activity_tell_cancelled(t);
	} else {
		activity_take_failure(t, o);
	}
	a->changed(a->arg);
}

/* --- while it runs -------------------------------------------------------------------------------------- */

static void activity_end_early(struct temporal_activity *t, enum activity_reason reason)
{
	if (t->reason != ACTIVITY_ENDED)
		return;
	t->reason = reason;
	loop_timer_start(t->limit, GRACE_MS);
	handler_ask(t->run);
}

static void activity_on_limit(void *arg)
{
	struct temporal_activity *t = arg;
	if (t->reason == ACTIVITY_ENDED)
		t->reason = ACTIVITY_TIMED_OUT;
	handler_kill(t->run);
}

static void activity_on_beaten(void *arg, const struct grpc_status *s, struct span message)
{
	struct temporal_activity *t = arg;
	t->heartbeat = NULL;
	TemporalApi__HeartbeatResponse *r =
		message.ptr ? temporal_api__heartbeat_response__unpack(NULL, message.len,
								       (const uint8_t *)message.ptr)
			    : NULL;
	bool cancel = r && r->cancel_requested;
	if (r)
		temporal_api__heartbeat_response__free_unpacked(r, NULL);
	loop_timer_start(t->beat, t->beat_ms);
	if (s->code == GRPC_NOT_FOUND) /* it timed out, or its workflow is over */
		activity_end_early(t, ACTIVITY_ABANDONED);
	else if (cancel)
		activity_end_early(t, ACTIVITY_CANCELLED);
}

static void activity_on_beat(void *arg)
{
	struct temporal_activity *t = arg;
	TemporalApi__ActivityTaskPlain m = TEMPORAL_API__ACTIVITY_TASK_PLAIN__INIT;
	m.task_token = t->task->task_token;
	m.identity = (char *)t->owner->calls->identity;
	m.namespace_ = (char *)t->owner->calls->namespace_name;
	if (temporal_call(t->owner->calls, TEMPORAL_HEARTBEAT, &m.base, t->beat_ms, activity_on_beaten, t,
			  &t->heartbeat) < 0)
		loop_timer_start(t->beat, t->beat_ms);
}

static void activity_begin_timers(struct temporal_activity *t)
{
	uint64_t wanted = api_milliseconds(t->task->heartbeat_timeout) / 3;
	t->beat_ms = wanted && wanted < BEAT_MS ? (unsigned)wanted : BEAT_MS;
	t->beat_ms = t->beat_ms < BEAT_LEAST_MS ? BEAT_LEAST_MS : t->beat_ms;
	loop_timer_start(t->limit, t->limit_ms);
	loop_timer_start(t->beat, t->beat_ms);
}

/* --- beginning ------------------------------------------------------------------------------------------ */

static void activity_refuse(struct temporal_activity *t, struct span error, const char *type, bool again)
{
	const struct activity_failure f = {.error = error, .type = type, .again = again};
	log_error("task_refused", LOG_STR("workflow_id", activity_workflow(t)),
		  LOG_STR("task", activity_name(t)), LOG_SPAN("error", error));
	t->owner->refused++;
	activity_tell_failed(t, &f);
}

/* The JSON string in an object of trace context. */
static struct span activity_trace(const struct span *context, const char *pointer, struct buf *out)
{
	struct span value;
	if (context->ptr && json_pointer(*context, span_of(pointer), &value) &&
	    json_type_of(value) == JSON_STRING && json_unescape(value, out) == 0)
		return buf_span(out);
	return SPAN_LIT("");
}

static void activity_run(struct temporal_activity *t, struct span args, struct span kwargs)
{
	const TemporalApi__ActivityTask *task = t->task;
	TemporalApi__PayloadEntry **fields = task->header ? task->header->fields : NULL;
	size_t n = task->header ? task->header->n_fields : 0;
	struct span context = n ? api_entry(fields, n, "_tracer-data") : SPAN_NONE;
	CLEANUP(buf_releasep) struct buf parent = BUF_INIT(1024), state = BUF_INIT(1024);
	char id[TASK_ID_MAX];
	struct err e = {""};
	snprintf(id, sizeof(id), "%s", activity_workflow(t));
	const struct handler_call call = {
		.task_id = span_of(id),
		.name = t->definition->name,
		.args = args,
		.kwargs = kwargs,
		.shadow = n && span_is(api_entry(fields, n, TEMPORAL_HEADER_SHADOW), "true"),
		.traceparent = activity_trace(&context, "/traceparent", &parent),
		.tracestate = activity_trace(&context, "/tracestate", &state),
		.attempt = task->attempt > 0 ? (unsigned)task->attempt : 1,
		.timeout_ms = t->limit_ms};
	int r = handler_start(t->owner->env, t->definition, &call, activity_on_done, t, &t->run, &e);
	if (r < 0) {
		snprintf(id, sizeof(id), "%.200s: it could not be started", activity_name(t));
		log_error("task_not_started", LOG_STR("task", activity_name(t)), LOG_STR("error", e.text));
		activity_refuse(t, span_of(r == -EINVAL ? e.text : id),
				r == -EINVAL ? "InvalidInput" : "RuntimeError", r != -EINVAL);
		return;
	}
	t->owner->n_running++;
	activity_begin_timers(t);
}

static unsigned activity_limit(const struct temporal_activity *t)
{
	uint64_t server = api_milliseconds(t->task->start_to_close_timeout);
	return server && server < t->definition->timeout_ms ? (unsigned)server : t->definition->timeout_ms;
}

static void activity_begin(struct temporal_activity *t)
{
	CLEANUP(buf_releasep) struct buf room = BUF_INIT(ARGUMENTS_MAX), unknown = BUF_INIT(4096);
	struct err e = {""};
	struct span args, kwargs;
	t->begun_ms = clock_mono_ms();
	t->definition = registry_task(t->registry, span_of(activity_name(t)));
	if (!t->definition) {
		registry_describe_unknown(t->registry, span_of(activity_name(t)), false, &unknown);
		activity_refuse(t, buf_span(&unknown), "NotFoundError", true);
		return;
	}
	t->limit_ms = activity_limit(t);
	if (api_arguments(t->task->input, &room, &args, &kwargs, &e) < 0)
		activity_refuse(t, span_of(e.text), "InvalidInput", false);
	else
		activity_run(t, args, kwargs);
}

void temporal_activities_take(struct temporal_activities *a, struct span message)
{
	TemporalApi__ActivityTask *task =
		temporal_api__activity_task__unpack(NULL, message.len, (const uint8_t *)message.ptr);
	struct temporal_activity *t = task && task->task_token.len ? calloc(1, sizeof(*t)) : NULL;
	if (!task)
		log_error("task_unreadable", LOG_INT("bytes", message.len));
	if (!t) {
		if (task)
			temporal_api__activity_task__free_unpacked(task, NULL);
		return;
	}
	t->owner = a;
	t->task = task;
	t->registry = registry_ref(a->registry);
	LIST_INSERT_HEAD(&a->all, t, place);
	a->n++;
	a->received++;
	if (loop_timer_new(a->calls->loop, activity_on_limit, t, &t->limit) < 0 ||
	    loop_timer_new(a->calls->loop, activity_on_beat, t, &t->beat) < 0)
		activity_refuse(t, SPAN_LIT("out of memory"), "RuntimeError", true);
	else
		activity_begin(t);
}

void temporal_activities_kill(struct temporal_activities *a)
{
	struct temporal_activity *t;
	LIST_FOREACH (t, &a->all, place) {
		if (!t->run)
			continue;
		if (t->reason == ACTIVITY_ENDED)
			t->reason = ACTIVITY_STOPPED;
		handler_kill(t->run);
	}
}

void temporal_activities_release(struct temporal_activities *a)
{
	while (!LIST_EMPTY(&a->all))
		activity_free(LIST_FIRST(&a->all));
}
