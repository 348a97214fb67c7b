#include "tasks/temporal/worker/calls.h"

#include <errno.h>
#include <stdlib.h>
#include <temporal_api.pb-c.h>

#include "base/backoff.h"
#include "base/clock.h"

#define CALL_MS 10000
#define FIRST_PAUSE_MS 100
#define MOST_PAUSE_MS 5000
#define REQUEST_MAX ((4u << 20) - 65536) /* servers take 4 MiB */
#define ANSWER_MAX (64u << 20)		 /* a history's page, and what stands in it */
#define SERVICE "/temporal.api.workflowservice.v1.WorkflowService/"

struct temporal_call {
	struct temporal_calls *owner;
	enum temporal_method method;
	struct grpc_call *grpc;
	struct loop_timer *pause;
	struct buf request, answer;
	bool has_answer;
	int64_t until_ms;
	unsigned failures;
	temporal_called_fn done;
	void *arg;
};

static const char *const paths[] = {
	[TEMPORAL_POLL_WORKFLOW] = SERVICE "PollWorkflowTaskQueue",
	[TEMPORAL_POLL_ACTIVITY] = SERVICE "PollActivityTaskQueue",
	[TEMPORAL_WORKFLOW_COMPLETED] = SERVICE "RespondWorkflowTaskCompleted",
	[TEMPORAL_WORKFLOW_FAILED] = SERVICE "RespondWorkflowTaskFailed",
	[TEMPORAL_QUERY_COMPLETED] = SERVICE "RespondQueryTaskCompleted",
	[TEMPORAL_HISTORY] = SERVICE "GetWorkflowExecutionHistory",
	[TEMPORAL_ACTIVITY_COMPLETED] = SERVICE "RespondActivityTaskCompleted",
	[TEMPORAL_ACTIVITY_FAILED] = SERVICE "RespondActivityTaskFailed",
	[TEMPORAL_ACTIVITY_CANCELED] = SERVICE "RespondActivityTaskCanceled",
	[TEMPORAL_HEARTBEAT] = SERVICE "RecordActivityTaskHeartbeat",
};

static bool may_pass(enum grpc_code code)
{
	switch (code) {
	case GRPC_UNAVAILABLE:
	case GRPC_DEADLINE_EXCEEDED:
	case GRPC_RESOURCE_EXHAUSTED:
	case GRPC_UNKNOWN:
	case GRPC_INTERNAL:
	case GRPC_ABORTED:
	case GRPC_CANCELLED:
		return true;
	default:
		return false;
	}
}

static void temporal_call_free(struct temporal_call *c)
{
	grpc_cancel(c->grpc);
	loop_timer_free(c->pause);
	buf_release(&c->request);
	buf_release(&c->answer);
	free(c);
}

struct temporal_call *temporal_call_cancel(struct temporal_call *call)
{
	if (call)
		temporal_call_free(call);
	return NULL;
}

static void call_on_message(void *arg, struct span message)
{
	struct temporal_call *c = arg;
	buf_clear(&c->answer);
	c->has_answer = buf_append_span(&c->answer, message) == 0;
}

static void call_end(struct temporal_call *c, const struct grpc_status *s)
{
	struct buf answer = c->answer;
	struct span message = c->has_answer ? buf_span(&answer) : SPAN_NONE;
	temporal_called_fn done = c->done;
	void *arg = c->arg;
	c->answer = BUF_INIT(0);
	temporal_call_free(c);
	done(arg, s, message);
	buf_release(&answer);
}

static void call_on_done(void *arg, const struct grpc_status *s)
{
	struct temporal_call *c = arg;
	c->grpc = NULL;
	if (s->code == GRPC_OK || c->has_answer || !may_pass(s->code) || clock_mono_ms() >= c->until_ms) {
		call_end(c, s);
		return;
	}
	loop_timer_start(c->pause, backoff_ms(FIRST_PAUSE_MS, MOST_PAUSE_MS, ++c->failures));
}

static int call_send(struct temporal_call *c, struct err *e)
{
	bool polls = c->method == TEMPORAL_POLL_WORKFLOW || c->method == TEMPORAL_POLL_ACTIVITY;
	const struct grpc_request r = {.path = paths[c->method],
				       .message = buf_span(&c->request),
				       .deadline_ms = polls ? c->owner->poll_ms : CALL_MS,
				       .grace_ms = polls ? TEMPORAL_POLL_GRACE_MS : 0,
				       .max_message = ANSWER_MAX};
	const struct grpc_events events = {.arg = c, .message = call_on_message, .done = call_on_done};
	return grpc_start(c->owner->channel, &r, &events, &c->grpc, e);
}

static void call_on_pause(void *arg)
{
	struct temporal_call *c = arg;
	struct err e = {""};
	if (call_send(c, &e) < 0) {
		struct grpc_status s = {.code = GRPC_INTERNAL, .message = e.text};
		call_end(c, &s);
	}
}

static int call_pack(struct temporal_call *c, const struct ProtobufCMessage *request)
{
	size_t n = protobuf_c_message_get_packed_size(request);
	if (n > REQUEST_MAX)
		return -EFBIG;
	buf_init(&c->request, n);
	int r = buf_reserve(&c->request, n);
	if (r == 0)
		c->request.len = protobuf_c_message_pack(request, (uint8_t *)c->request.ptr);
	return r;
}

int temporal_call(struct temporal_calls *o, enum temporal_method method,
		  const struct ProtobufCMessage *request, int64_t repeat_ms, temporal_called_fn done,
		  void *arg, struct temporal_call **ret)
{
	struct err e = {""};
	struct temporal_call *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->owner = o;
	c->method = method;
	c->until_ms = repeat_ms ? clock_mono_ms() + repeat_ms : 0;
	c->done = done;
	c->arg = arg;
	buf_init(&c->answer, ANSWER_MAX);
	int r = call_pack(c, request);
	if (r == 0)
		r = loop_timer_new(o->loop, call_on_pause, c, &c->pause);
	if (r == 0)
		r = call_send(c, &e);
	if (r < 0)
		temporal_call_free(c);
	else
		*ret = c;
	return r;
}
