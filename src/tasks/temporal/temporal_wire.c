#include "tasks/temporal/temporal_wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/base64.h"
#include "base/crypto.h"
#include "base/json.h"

#define JSON_PLAIN "anNvbi9wbGFpbg==" /* metadata values are bytes: "json/plain" in base64 */
#define REQUEST_ID_MAX \
	200 /* bytes as they are; a longer one by its hash (the server takes 1,000 characters) */
#define TEXT_MAX (1u << 20)
#define RESULT_MAX (16u << 20)

/* --- reading, a little ---------------------------------------------------------------------------------- */

static struct span temporal_wire_at(struct span json, const char *pointer)
{
	struct span value;
	return json_pointer(json, span_of(pointer), &value) ? value : SPAN_NONE;
}

/* The characters of a string value, "" when it is none. */
static struct span text_at(struct span json, const char *pointer, struct buf *out)
{
	struct span value = temporal_wire_at(json, pointer);
	if (value.ptr && json_type_of(value) == JSON_STRING)
		json_unescape(value, out);
	return buf_span(out);
}

/* The same of a text for people: as much of it as there is room for. */
static struct span sentence_at(struct span json, const char *pointer, struct buf *out)
{
	struct span value = temporal_wire_at(json, pointer);
	if (value.ptr && json_type_of(value) == JSON_STRING)
		json_unescape_front(value, out);
	return buf_span(out);
}

static bool copy_at(struct span json, const char *pointer, char *out, size_t size)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
	struct span s = text_at(json, pointer, &text);
	out[0] = '\0';
	if (text.error || s.len >= size)
		return false;
	span_copy(s, out, size);
	return s.len > 0;
}

/* protobuf's int64: a string; -1 when it is not there */
static int64_t number_at(struct span json, const char *pointer)
{
	char text[24], *end;
	if (!copy_at(json, pointer, text, sizeof(text)))
		return -1;
	long long n = strtoll(text, &end, 10);
	return *end ? -1 : n;
}

/* protobuf's Timestamp: RFC 3339 in UTC with 0 to 9 digits after the second; 0 when it is not there or
 * before 1970. */
static int64_t time_at(struct span json, const char *pointer)
{
	char text[40];
	struct tm tm = {0};
	if (!copy_at(json, pointer, text, sizeof(text)))
		return 0;
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (!rest)
		return 0;
	int64_t us = 0;
	if (*rest == '.') {
		int64_t unit = 100000;
		for (rest++; *rest >= '0' && *rest <= '9'; rest++, unit /= 10)
			us += (*rest - '0') * unit;
	}
	int64_t seconds = timegm(&tm);
	return strcmp(rest, "Z") == 0 && seconds > 0 ? seconds * 1000000 + us : 0;
}

/* --- start ---------------------------------------------------------------------------------------------- */

void temporal_make_id(const struct task_call *call, char out[TASK_ID_MAX])
{
	char uuid[CRYPTO_UUID], name[TASK_ID_MAX - CRYPTO_UUID];
	crypto_uuid4(uuid);
	span_copy(call->task, name, sizeof(name));
	for (char *c = name; *c; c++)
		if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
		      strchr("_.-", *c)))
			*c = '_';
	snprintf(out, TASK_ID_MAX, "%s-%s", name, uuid);
}

bool temporal_id_possible(struct span id)
{
	return id.len > 0 && !memchr(id.ptr, '/', id.len) && !memchr(id.ptr, '\0', id.len) &&
	       !span_is(id, ".") && !span_is(id, "..");
}

static void put_type(const struct task_call *call, struct buf *out)
{
	buf_append_span(out, call->task);
	if (!call->workflow)
		buf_puts(out, TEMPORAL_TYPE_SUFFIX);
}

int temporal_request_id(const struct task_call *call, struct buf *out)
{
	char hash[CRYPTO_SHA256_HEX];
	put_type(call, out);
	buf_putc(out, '/');
	buf_append_span(out, call->request_id.len && !call->id_is_key ? call->request_id : call->task_id);
	if (out->len > REQUEST_ID_MAX) {
		crypto_sha256_hex(buf_span(out), hash);
		buf_clear(out);
		buf_puts(out, hash);
	}
	return out->error;
}

static void put_payload(struct span json, struct buf *out)
{
	buf_puts(out, "{\"metadata\":{\"encoding\":\"" JSON_PLAIN "\"},\"data\":\"");
	base64_encode(json, out);
	buf_puts(out, "\"}");
}

static void temporal_wire_put_input(const struct task_call *call, struct buf *out)
{
	struct span args = call->args.ptr ? call->args : SPAN_LIT("[]"), key, first;
	buf_puts(out, ",\"input\":{\"payloads\":[");
	if (call->single_input) {
		struct json_iter it;
		json_iter_init(&it, args);
		if (json_iter_next(&it, &key, &first))
			put_payload(first, out);
	} else {
		put_payload(args, out);
		buf_putc(out, ',');
		put_payload(call->kwargs.ptr ? call->kwargs : SPAN_LIT("{}"), out);
	}
	buf_puts(out, "]}");
}

/* As the tracing interceptors of Temporal's SDKs read it. */
static void temporal_wire_put_trace(const struct task_call *call, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf carrier = BUF_INIT(TASK_TRACE_STATE_MAX * 2 + 256);
	buf_puts(&carrier, "{\"traceparent\":");
	json_quote(&carrier, call->traceparent);
	if (call->tracestate.len) {
		buf_puts(&carrier, ",\"tracestate\":");
		json_quote(&carrier, call->tracestate);
	}
	buf_putc(&carrier, '}');
	buf_puts(out, ",\"header\":{\"fields\":{\"_tracer-data\":");
	put_payload(buf_span(&carrier), out);
	buf_puts(out, "}}");
}

int temporal_start_body(const struct task_call *call, struct span queue, struct span request_id,
			unsigned timeout_ms, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf type = BUF_INIT(TASK_NAME_MAX * 2);
	put_type(call, &type);
	buf_puts(out, "{\"workflowType\":{\"name\":");
	json_quote(out, buf_span(&type));
	buf_puts(out, "},\"taskQueue\":{\"name\":");
	json_quote(out, queue);
	buf_puts(out, "},\"requestId\":");
	json_quote(out, request_id);
	buf_printf(out,
		   ",\"identity\":\"" TEMPORAL_IDENTITY
		   "\",\"workflowIdReusePolicy\":\"WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE\","
		   "\"workflowExecutionTimeout\":\"%u.%03us\"",
		   timeout_ms / 1000, timeout_ms % 1000);
	if (call->priority >
	    0) /* 1 is the highest of theirs, 3 what a call without a word has, 9 the highest of ours */
		buf_printf(out, ",\"priority\":{\"priorityKey\":%d}", call->priority > 4 ? 1 : 2);
	if (call->shadow) {
		buf_puts(out, ",\"memo\":{\"fields\":{\"x_migration_shadow\":");
		put_payload(SPAN_LIT("true"), out);
		buf_puts(out, "}}");
	}
	if (call->traceparent.len)
		temporal_wire_put_trace(call, out);
	temporal_wire_put_input(call, out);
	buf_putc(out, '}');
	return type.error ? type.error : out->error;
}

void temporal_error(int status, struct span body, struct err *e)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
	struct span message = sentence_at(body, "/message", &text);
	if (message.len)
		err_set(e, 0, "Temporal: %.*s (%d)", SPAN_ARG(message), status);
	else
		err_set(e, 0, "Temporal's address answers %d without a reason", status);
}

/* 409: the id is taken. By an earlier try of ours, when the request id is. */
static enum temporal_start_answer temporal_wire_taken(struct span body, struct span request_id,
						      struct err *why)
{
	CLEANUP(buf_releasep) struct buf first = BUF_INIT(4096);
	struct span by = text_at(body, "/details/0/startRequestId", &first);
	if (by.len && span_eq(by, request_id))
		return TEMPORAL_STARTED;
	temporal_error(409, body, why);
	return by.len ? TEMPORAL_NEVER : TEMPORAL_UNCLEAR;
}

static bool temporal_wire_is_of_size(struct span body)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
	struct span message = text_at(body, "/message", &text);
	return span_is(message, "Blob data size exceeds limit.") ||
	       span_is(message, "http: request body too large");
}

enum temporal_start_answer temporal_start_answer(int status, struct span body, struct span request_id,
						 struct err *why)
{
	char run[TEMPORAL_RUN_ID_MAX];
	if (status == 200 && copy_at(body, "/runId", run, sizeof(run)))
		return TEMPORAL_STARTED;
	if (status == 409)
		return temporal_wire_taken(body, request_id, why);
	temporal_error(status, body, why);
	if (status == 413 || (status == 400 && temporal_wire_is_of_size(body)))
		return TEMPORAL_TOO_LARGE;
	if (status == 400)
		return TEMPORAL_NEVER;
	if ((status >= 300 && status < 500) || status == 501)
		return TEMPORAL_NOT_NOW;
	return TEMPORAL_UNCLEAR;
}

bool temporal_no_such_workflow(int status, struct span body)
{
	char type[128];
	if (status != 404 || !temporal_wire_at(body, "/code").ptr)
		return false;
	copy_at(body, "/details/0/@type", type, sizeof(type));
	return !strstr(type, "NamespaceNotFoundFailure");
}

/* --- ends ----------------------------------------------------------------------------------------------- */

void temporal_close_init(struct temporal_close *c)
{
	*c = (struct temporal_close){.next_page = BUF_INIT(65536)};
	buf_init(&c->result, RESULT_MAX);
	buf_init(&c->error, TEXT_MAX);
	buf_init(&c->detail, TEXT_MAX);
}

void temporal_close_release(struct temporal_close *c)
{
	buf_release(&c->next_page);
	buf_release(&c->result);
	buf_release(&c->error);
	buf_release(&c->detail);
}

static int temporal_wire_unreadable(struct temporal_close *c, struct span encoding)
{
	buf_clear(&c->error);
	buf_printf(&c->error, "the workflow completed, but its result is not JSON (encoding %.*s)",
		   SPAN_ARG(encoding));
	c->r.status = TASK_FAILED;
	c->unreadable = true;
	return c->error.error;
}

/* A payload is JSON text, or Python's None as binary/null, or something that only its own converter can
 * read. */
static int take_result(struct span payloads, struct temporal_close *c)
{
	CLEANUP(buf_releasep) struct buf coded = BUF_INIT(RESULT_MAX * 2), encoding = BUF_INIT(4096);
	struct span payload = temporal_wire_at(payloads, "/payloads/0");
	c->r.status = TASK_COMPLETED;
	if (!payload.ptr)
		return buf_puts(&c->result, "null");
	base64_decode(text_at(payload, "/metadata/encoding", &coded), &encoding);
	struct span kind = buf_span(&encoding);
	if (span_is(kind, "binary/null"))
		return buf_puts(&c->result, "null");
	if (!span_is(kind, "json/plain") && !span_is(kind, "json/protobuf"))
		return temporal_wire_unreadable(c, kind);
	buf_clear(&coded);
	int r = base64_decode(text_at(payload, "/data", &coded), &c->result);
	if (r == -EINVAL || (r == 0 && json_validate(buf_span(&c->result), NULL) < 0))
		return temporal_wire_unreadable(c, kind);
	return r;
}

/* Those that only say that something else failed; what they are about is their cause. */
static bool is_wrapper(struct span failure)
{
	return temporal_wire_at(failure, "/activityFailureInfo").ptr ||
	       temporal_wire_at(failure, "/childWorkflowExecutionFailureInfo").ptr ||
	       temporal_wire_at(failure, "/nexusOperationExecutionFailureInfo").ptr ||
	       temporal_wire_at(failure, "/timeoutFailureInfo").ptr;
}

/* The error of the innermost activity or workflow. Not the last cause of all: what Python raised `from` what
 * is its own affair, and the message is that of the exception that was raised. */
static struct span real_failure(struct span failure)
{
	struct span real = failure;
	for (struct span f = failure, cause; (cause = temporal_wire_at(f, "/cause")).ptr; f = cause)
		if (is_wrapper(f))
			real = cause;
	return real;
}

static void temporal_wire_put_detail(struct span failure, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf type = BUF_INIT(4096), text = BUF_INIT(TEXT_MAX);
	sentence_at(failure, "/applicationFailureInfo/type", &type);
	sentence_at(failure, "/message", &text);
	buf_printf(out, "%s%s", type.len ? type.ptr : "", type.len && text.len ? ": " : "");
	buf_append_span(out, buf_span(&text));
	buf_putc(out, '\n');
	buf_clear(&text);
	buf_append_span(out, sentence_at(failure, "/stackTrace", &text));
}

static void temporal_wire_take_failure(struct span failure, struct temporal_close *c)
{
	failure = real_failure(failure);
	sentence_at(failure, "/message", &c->error);
	if (!c->error.len)
		sentence_at(failure, "/applicationFailureInfo/type", &c->error);
	if (!c->error.len)
		buf_puts(&c->error, "the workflow failed without a message");
	c->r.cancelled = temporal_wire_at(failure, "/canceledFailureInfo").ptr != NULL;
	temporal_wire_put_detail(failure, &c->detail);
	for (failure = temporal_wire_at(failure, "/cause"); failure.ptr;
	     failure = temporal_wire_at(failure, "/cause")) {
		buf_puts(&c->detail, "\ncaused by ");
		temporal_wire_put_detail(failure, &c->detail);
	}
}

/* Events 1 and 2 are the start and its being queued: when the third is the end, no worker ever took it. */
static void take_time_out(struct span event, struct temporal_close *c)
{
	buf_puts(&c->error,
		 number_at(event, "/eventId") == 3 ? "timed out waiting for a worker" : "timed out");
}

static void take_termination(struct span event, struct temporal_close *c)
{
	CLEANUP(buf_releasep) struct buf reason = BUF_INIT(TEXT_MAX);
	sentence_at(event, "/workflowExecutionTerminatedEventAttributes/reason", &reason);
	buf_puts(&c->error, "terminated");
	if (reason.len)
		buf_printf(&c->error, ": %s", reason.ptr);
	c->r.cancelled = true;
}

/* A retry, a cron schedule of a workflow or continue-as-new continues in a run of its own. */
static bool take_successor(struct span event, const char *attributes, struct temporal_close *c)
{
	char pointer[128];
	snprintf(pointer, sizeof(pointer), "/%s/newExecutionRunId", attributes);
	return copy_at(event, pointer, c->run_id, sizeof(c->run_id));
}

static int take_event(struct span event, struct temporal_close *c, struct err *e)
{
	char type[80];
	int r = 0;
	copy_at(event, "/eventType", type, sizeof(type));
	c->r.status = TASK_FAILED;
	if (strcmp(type, "EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED") == 0) {
		r = take_result(temporal_wire_at(event, "/workflowExecutionCompletedEventAttributes/result"),
				c);
	} else if (strcmp(type, "EVENT_TYPE_WORKFLOW_EXECUTION_FAILED") == 0) {
		if (take_successor(event, "workflowExecutionFailedEventAttributes", c))
			return 0;
		temporal_wire_take_failure(
			temporal_wire_at(event, "/workflowExecutionFailedEventAttributes/failure"), c);
	} else if (strcmp(type, "EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT") == 0) {
		if (take_successor(event, "workflowExecutionTimedOutEventAttributes", c))
			return 0;
		take_time_out(event, c);
	} else if (strcmp(type, "EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED") == 0) {
		take_termination(event, c);
	} else if (strcmp(type, "EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED") == 0) {
		buf_puts(&c->error, "cancelled");
		c->r.cancelled = true;
	} else if (strcmp(type, "EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW") == 0) {
		if (take_successor(event, "workflowExecutionContinuedAsNewEventAttributes", c))
			return 0;
		return err_set(e, -EBADMSG, "Temporal: a run that was continued without a new one");
	} else {
		return err_set(e, -EBADMSG, "Temporal: not an event that ends a workflow: %s", type);
	}
	c->closed = true;
	return r < 0 ? err_set(e, r, "the result is too large, or out of memory") : 0;
}

int temporal_close_parse(struct span body, struct temporal_close *ret, struct err *e)
{
	struct span history = temporal_wire_at(body, "/history"),
		    event = temporal_wire_at(history, "/events/0");
	if (json_validate(body, NULL) < 0 || !history.ptr || json_type_of(history) != JSON_OBJECT)
		/* a part of one is none */
		return err_set(e, -EBADMSG, "Temporal: the answer has no history");
	if (!event.ptr) {
		text_at(body, "/nextPageToken", &ret->next_page);
		return 0;
	}
	int r = take_event(event, ret, e);
	if (r < 0)
		return r;
	ret->r.completed_us = time_at(event, "/eventTime");
	ret->r.result = ret->r.status == TASK_COMPLETED ? buf_span(&ret->result) : SPAN_NONE;
	ret->r.error = ret->r.status == TASK_FAILED ? buf_span(&ret->error) : SPAN_NONE;
	ret->r.error_detail = ret->detail.len ? buf_span(&ret->detail) : SPAN_NONE;
	return 0;
}

/* --- descriptions --------------------------------------------------------------------------------------- */

static unsigned attempts_of(struct span body)
{
	struct json_iter it;
	struct span key, activity;
	double most = 0, n;
	json_iter_init(&it, temporal_wire_at(body, "/pendingActivities"));
	while (json_iter_next(&it, &key, &activity)) {
		struct span attempt = temporal_wire_at(activity, "/attempt");
		n = attempt.ptr ? strtod(attempt.ptr, NULL)
				: 0; /* a number ends at what follows it in the text */
		most = n > most ? n : most;
	}
	return most < 1e9 ? (unsigned)most : 0;
}

/* Whatever a newer server has beside these is not an end. */
static bool is_end(const char *status)
{
	static const char *const ends[] = {
		"WORKFLOW_EXECUTION_STATUS_COMPLETED",	      "WORKFLOW_EXECUTION_STATUS_FAILED",
		"WORKFLOW_EXECUTION_STATUS_CANCELED",	      "WORKFLOW_EXECUTION_STATUS_TERMINATED",
		"WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW", "WORKFLOW_EXECUTION_STATUS_TIMED_OUT"};
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (strcmp(status, ends[i]) == 0)
			return true;
	return false;
}

int temporal_described_parse(struct span body, struct temporal_described *ret, struct err *e)
{
	char status[64];
	struct span info = temporal_wire_at(body, "/workflowExecutionInfo");
	*ret = (struct temporal_described){0};
	if (!info.ptr || !copy_at(info, "/status", status, sizeof(status)))
		return err_set(e, -EBADMSG, "Temporal: the answer describes no workflow");
	copy_at(info, "/execution/runId", ret->run_id, sizeof(ret->run_id));
	copy_at(info, "/type/name", ret->name, sizeof(ret->name));
	struct span name = span_of(ret->name);
	size_t suffix = sizeof(TEMPORAL_TYPE_SUFFIX) - 1;
	if (name.len > suffix && memcmp(name.ptr + name.len - suffix, TEMPORAL_TYPE_SUFFIX, suffix) == 0)
		ret->name[name.len - suffix] = '\0';
	ret->r.task_name = span_of(ret->name);
	ret->closed = is_end(status);
	bool taken_up = number_at(info, "/historyLength") > 2; /* as take_time_out() */
	ret->r.status = taken_up ? TASK_RUNNING : TASK_PENDING;
	ret->r.submitted_us = time_at(info, "/startTime");
	ret->r.started_us = taken_up ? time_at(info, "/executionTime") : 0;
	ret->r.completed_us = time_at(info, "/closeTime");
	ret->r.attempts = attempts_of(body);
	return 0;
}

int temporal_queue_parse(struct span body, int64_t *ret_polled_us, int64_t *ret_backlog, struct err *e)
{
	struct json_iter it;
	struct span key, poller;
	*ret_polled_us = 0;
	*ret_backlog = -1;
	if (json_validate(body, NULL) < 0 || json_type_of(body) != JSON_OBJECT)
		return err_set(e, -EBADMSG, "Temporal: the answer describes no task queue");
	json_iter_init(&it, temporal_wire_at(body, "/pollers"));
	while (json_iter_next(&it, &key, &poller)) {
		int64_t polled = time_at(poller, "/lastAccessTime");
		*ret_polled_us = polled > *ret_polled_us ? polled : *ret_polled_us;
	}
	if (temporal_wire_at(body, "/stats").ptr) {
		int64_t n = number_at(body, "/stats/approximateBacklogCount");
		*ret_backlog = n < 0 ? 0 : n;
	}
	return 0;
}
