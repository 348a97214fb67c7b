/*
 * The client: each verb is an operation, one or a few HTTP requests after one another.
 *
 *   submit   POST workflows/{id}; again with the same request id after a lost reply or a 5xx
 *   wait     GET …/history that the server holds for 20 s; again until the close event, through losses with
 *            backoff
 *   get      GET workflows/{id}; when closed, GET …/history of that run for the result
 *   cancel   GET workflows/{id}; terminate while no worker has it (nobody would hear the request), else
 *            cancel
 *   health   GET task-queues/{queue}; check: the same of the queue that is asked about
 *
 * An operation lives until its callback, wait_cancel or the client's end; it is freed before the callback is
 * called.
 */
#include "tasks/temporal/temporal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <time.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/http_client.h"
#include "base/json.h"
#include "tasks/python_json.h"
#include "tasks/temporal/temporal_options.h"
#include "tasks/temporal/temporal_wire.h"

#define CONNECT_MS 2000
#define ASK_MS 5000
#define START_MS 20000 /* a crowd of starts is answered late, and what is resent makes it later */
#define POLL_MS 30000  /* the server holds a poll for 20 s */
/* A poll that came back empty before that was not held: the server is stopping, or is none. */
#define POLL_SHORT_MS 500
#define SENDS_MAX 3 /* of one submission */
#define TRIES_MAX 6 /* the same, with those that met no server: 3 s, as long as a server restarts */
#define BACKOFF_MS 100
#define BACKOFF_MAX_MS 5000
#define POLLER_ALIVE_US 75000000 /* a live worker polls again within 60 s */
#define ANSWER_MAX (32u << 20)

struct temporal_client {
	struct task_client base;
	const struct temporal_options *options;
	struct http_client *http;
	LIST_HEAD(, temporal_operation) operations;
};

struct temporal_operation {
	struct temporal_client *client;
	LIST_ENTRY(temporal_operation) place;
	struct http_call *call;
	struct loop_timer *timer; /* until the next try */
	void (*again)(struct temporal_operation *op);
	void (*answered)(struct temporal_operation *op, const struct http_reply *reply);
	union {
		task_submit_fn submit;
		task_result_fn result;
		task_done_fn done;
		task_health_fn health;
		task_check_fn check;
	} fn;
	void *arg;
	char id[TASK_ID_MAX];
	unsigned tries, failures;
	/* submit */
	unsigned sends; /* tries that may have been accepted */
	struct buf body, request_id;
	struct buf queue; /* health, check */
	/* wait, get */
	uint64_t asked_ms;
	char run_id[TEMPORAL_RUN_ID_MAX];
	struct buf page;
	struct temporal_described described;
};

/* --- operations ----------------------------------------------------------------------------------------- */

static struct temporal_operation *temporal_operation_new(struct task_client *base, struct span id)
{
	struct temporal_client *c = (struct temporal_client *)base;
	struct temporal_operation *op = calloc(1, sizeof(*op));
	if (!op)
		return NULL;
	op->client = c;
	span_copy(id, op->id, sizeof(op->id));
	buf_init(&op->body, TEMPORAL_MAX_INPUT * 2);
	buf_init(&op->request_id, 64u << 10);
	buf_init(&op->page, 64u << 10);
	buf_init(&op->queue, 64u << 10);
	LIST_INSERT_HEAD(&c->operations, op, place);
	return op;
}

static void operation_free(struct temporal_operation *op)
{
	LIST_REMOVE(op, place);
	http_cancel(op->call);
	loop_timer_free(op->timer);
	buf_release(&op->body);
	buf_release(&op->request_id);
	buf_release(&op->page);
	buf_release(&op->queue);
	free(op);
}

static void temporal_on_timer(void *arg)
{
	struct temporal_operation *op = arg;
	op->again(op);
}

/* 100 ms, doubled with each failure in a row, up to 5 s; a quarter of it by chance, so that not all come
 * back at once. */
static int try_later(struct temporal_operation *op, void (*again)(struct temporal_operation *op))
{
	unsigned shift = op->failures < 8 ? op->failures : 8;
	unsigned ms = BACKOFF_MS << shift;
	ms = ms > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : ms;
	op->failures++;
	op->again = again;
	if (!op->timer) {
		int r = loop_timer_new(op->client->base.loop, temporal_on_timer, op, &op->timer);
		if (r < 0)
			return r;
	}
	loop_timer_start(op->timer, ms - ms / 4 + crypto_random_below(ms / 4 + 1));
	return 0;
}

static void temporal_on_done(void *arg, const struct http_reply *reply)
{
	struct temporal_operation *op = arg;
	op->call = NULL;
	op->answered(op, reply);
}

struct ask {
	const char *method, *url;
	struct span body;
	unsigned timeout_ms;
};

/* Every request may be sent again by itself: reads change nothing, a start and a cancel have a request id. */
static int temporal_ask(struct temporal_operation *op, const struct ask *a,
			void (*answered)(struct temporal_operation *op, const struct http_reply *reply),
			struct err *e)
{
	const struct temporal_options *o = op->client->options;
	struct http_field fields[2];
	size_t n = 0;
	if (a->body.ptr)
		fields[n++] = (struct http_field){SPAN_LIT("Content-Type"), SPAN_LIT("application/json")};
	if (o->authorization)
		fields[n++] = (struct http_field){SPAN_LIT("Authorization"), span_of(o->authorization)};
	struct http_call_request r = {
		.method = a->method,
		.url = a->url,
		.fields = fields,
		.n_fields = n,
		.body = a->body,
		.connect_timeout_ms = CONNECT_MS,
		.timeout_ms = a->timeout_ms,
		.max_body = ANSWER_MAX,
		.may_resend = true,
	};
	const struct http_events events = {.arg = op, .done = temporal_on_done};
	op->answered = answered;
	op->asked_ms = loop_now_ms(op->client->base.loop);
	return http_start(op->client->http, &r, &events, &op->call, e);
}

/* <base>/workflows/<id><rest> */
static int put_url(const struct temporal_operation *op, const char *rest, struct buf *out)
{
	buf_printf(out, "%s/workflows/", op->client->options->base);
	buf_put_segment(out, span_of(op->id));
	return buf_puts(out, rest);
}

/* Who gives gRPC's address, as the Python clients ask for it, is told where and how this one asks. */
static bool answered_at_all(const struct temporal_operation *op, const struct http_reply *reply,
			    struct err *e)
{
	const struct temporal_options *o = op->client->options;
	if (reply->failure == HTTP_OK)
		return true;
	err_set(e, 0, "Temporal: %s%s%s%s", reply->detail,
		o->http_url_is_guessed ? " (asked over HTTP at " : "",
		o->http_url_is_guessed ? o->http_url : "",
		o->http_url_is_guessed
			? ", not gRPC's port; http_url or TEMPORAL_HTTP_URL names another address)"
			: "");
	return false;
}

/* --- submit --------------------------------------------------------------------------------------------- */

static void temporal_tell(struct temporal_operation *op, enum task_submit_status status,
			  const struct err *why, bool about_call)
{
	task_submit_fn fn = op->fn.submit;
	void *arg = op->arg;
	char id[TASK_ID_MAX];
	memcpy(id, op->id, sizeof(id));
	operation_free(op);
	struct task_submission s = {
		.status = status, .task_id = span_of(id), .err = *why, .about_call = about_call};
	fn(arg, &s);
}

static void tell_submission(struct temporal_operation *op, enum task_submit_status status,
			    const struct err *why)
{
	temporal_tell(op, status, why, false);
}

static void temporal_start(struct temporal_operation *op);

/* Without an answer that settles it: another try where one is left, else what can be said. */
static void start_unsettled(struct temporal_operation *op, bool sent, const struct err *why)
{
	op->sends += sent;
	if (op->sends == 0)
		tell_submission(op, TASK_REFUSED, why);
	else if (op->sends >= SENDS_MAX || op->tries >= TRIES_MAX || try_later(op, temporal_start) < 0)
		tell_submission(op, TASK_UNKNOWN, why);
}

static void on_start_answer(struct temporal_operation *op, const struct http_reply *reply)
{
	struct err why = {""};
	if (!answered_at_all(op, reply, &why)) {
		start_unsettled(op, reply->sent, &why);
		return;
	}
	switch (temporal_start_answer(reply->status, reply->body, buf_span(&op->request_id), &why)) {
	case TEMPORAL_STARTED:
		tell_submission(op, TASK_SUBMITTED, &why);
		break;
	case TEMPORAL_NEVER:
		temporal_tell(op, TASK_REFUSED, &why, true);
		break;
	case TEMPORAL_TOO_LARGE:
		tell_submission(op, TASK_INPUT_TOO_LARGE, &why);
		break;
	case TEMPORAL_NOT_NOW:
		start_unsettled(op, false, &why);
		break;
	case TEMPORAL_UNCLEAR:
		start_unsettled(op, true, &why);
		break;
	}
}

static void temporal_start(struct temporal_operation *op)
{
	struct err why = {""};
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(32768);
	op->tries++;
	int r = put_url(op, "", &url);
	struct ask a = {
		.method = "POST", .url = url.ptr, .body = buf_span(&op->body), .timeout_ms = START_MS};
	if (r == 0)
		r = temporal_ask(op, &a, on_start_answer, &why);
	if (r < 0)
		start_unsettled(op, false, &why);
}

static void temporal_client_submit(struct task_client *base, const struct task_call *call, task_submit_fn fn,
				   void *arg)
{
	const struct temporal_options *o = ((struct temporal_client *)base)->options;
	struct err why;
	struct span queue = call->queue.len ? call->queue : span_of(o->task_queue);
	if (!temporal_id_possible(call->task_id)) {
		err_set(&why, 0, "the task's id is not valid in Temporal's HTTP API: %.*s",
			SPAN_ARG(call->task_id));
		task_submit_later(base, TASK_REFUSED, call->task_id, &why, fn, arg);
		return;
	}
	/* What its Python workers fail to decode they fail again and again, until the time limit. */
	if (python_json_check(call->args, false, &why) < 0 ||
	    python_json_check(call->kwargs, false, &why) < 0) {
		task_submit_later(base, TASK_INPUT_NOT_REPRESENTABLE, call->task_id, &why, fn, arg);
		return;
	}
	struct temporal_operation *op = temporal_operation_new(base, call->task_id);
	if (op && temporal_request_id(call, &op->request_id) == 0 &&
	    temporal_start_body(call, queue, buf_span(&op->request_id),
				call->timeout_ms ? call->timeout_ms : o->execution_timeout_ms,
				&op->body) == 0) {
		op->fn.submit = fn;
		op->arg = arg;
		temporal_start(op);
		return;
	}
	if (op)
		operation_free(op);
	err_set(&why, 0, "out of memory");
	task_submit_later(base, TASK_REFUSED, call->task_id, &why, fn, arg);
}

/* --- wait ----------------------------------------------------------------------------------------------- */

static void tell_result(struct temporal_operation *op, int error, const struct task_result *r)
{
	task_result_fn fn = op->fn.result;
	void *arg = op->arg;
	struct task_result copy = {0};
	char id[TASK_ID_MAX];
	struct temporal_described described = op->described; /* holds the name */
	memcpy(id, op->id, sizeof(id));
	if (r) {
		copy = *r;
		copy.task_id = span_of(id);
		copy.task_name = described.name[0] ? span_of(described.name) : SPAN_NONE;
	}
	operation_free(op);
	fn(arg, error, r ? &copy : NULL);
}

static int put_history_url(const struct temporal_operation *op, bool waiting, struct buf *url)
{
	put_url(op,
		"/history?historyEventFilterType=HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT&noPayloadShorthand",
		url);
	if (waiting)
		buf_puts(url, "&waitNewEvent=true");
	if (op->run_id[0]) {
		buf_puts(url, "&execution.runId=");
		buf_put_segment(url, span_of(op->run_id));
	}
	if (op->page.len) {
		buf_puts(url, "&nextPageToken=");
		buf_put_segment(url, buf_span(&op->page));
	}
	return url->error;
}

static void poll_end(struct temporal_operation *op);

static void poll_later(struct temporal_operation *op)
{
	if (try_later(op, poll_end) < 0)
		tell_result(op, -ENOMEM, NULL);
}

/* A poll that was held and is not the end: the next one begins where it ended, or with the run that took
 * over. */
static void poll_on(struct temporal_operation *op, const struct temporal_close *c)
{
	bool held = loop_now_ms(op->client->base.loop) - op->asked_ms >= POLL_SHORT_MS;
	buf_clear(&op->page);
	if (c->run_id[0])
		memcpy(op->run_id, c->run_id, sizeof(op->run_id));
	else
		buf_append_span(&op->page, buf_span(&c->next_page));
	if (!held && !c->run_id[0]) {
		poll_later(op);
		return;
	}
	op->failures = 0;
	poll_end(op);
}

static void on_poll_answer(struct temporal_operation *op, const struct http_reply *reply)
{
	struct err e;
	if (reply->failure == HTTP_TOO_LARGE) {
		tell_result(op, TASK_E_UNREADABLE, NULL); /* only an end is that large */
	} else if (reply->failure == HTTP_OK && temporal_no_such_workflow(reply->status, reply->body)) {
		tell_result(op, TASK_E_NOT_FOUND, NULL);
	} else if (reply->failure != HTTP_OK || reply->status != 200) {
		/* No server, one that is still coming up (its namespace was there when it started), a key
		 * that was replaced, or what is in front of it: the task is not over for that. */
		poll_later(op);
	} else {
		struct temporal_close c;
		temporal_close_init(&c);
		int r = temporal_close_parse(reply->body, &c, &e);
		if (r == -EFBIG)
			tell_result(op, TASK_E_UNREADABLE, NULL);
		else if (r == -EBADMSG)
			/* a proxy's page, a newer server's event: the task continues, and may be told of the
			 * next time */
			poll_later(op);
		else if (r < 0)
			tell_result(op, r, NULL);
		else if (c.unreadable)
			tell_result(op, TASK_E_UNREADABLE, NULL);
		else if (c.closed)
			tell_result(op, 0, &c.r);
		else
			poll_on(op, &c);
		temporal_close_release(&c);
	}
}

static void poll_end(struct temporal_operation *op)
{
	struct err e;
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(256u << 10);
	int r = put_history_url(op, true, &url);
	struct ask a = {.method = "GET", .url = url.ptr, .timeout_ms = POLL_MS};
	if (r < 0 || temporal_ask(op, &a, on_poll_answer, &e) < 0)
		poll_later(op);
}

static void temporal_not_found(struct temporal_operation *op)
{
	tell_result(op, TASK_E_NOT_FOUND, NULL);
}

/* An id that cannot be asked for; 0 when it was seen to. */
static int tell_impossible(struct temporal_operation *op)
{
	return try_later(op, temporal_not_found);
}

static struct task_wait *temporal_client_wait(struct task_client *base, struct span task_id,
					      task_result_fn fn, void *arg)
{
	struct temporal_operation *op = temporal_operation_new(base, task_id);
	if (!op)
		return NULL;
	op->fn.result = fn;
	op->arg = arg;
	if (temporal_id_possible(task_id)) {
		poll_end(op);
	} else if (tell_impossible(op) < 0) {
		operation_free(op);
		return NULL;
	}
	return (struct task_wait *)op;
}

static void temporal_client_wait_cancel(struct task_wait *w)
{
	operation_free((struct temporal_operation *)w);
}

/* --- get ------------------------------------------------------------------------------------------------ */

/* What kept us from a description; 0 when nothing did. */
static int describe_error(struct temporal_operation *op, const struct http_reply *reply, struct err *e)
{
	if (!answered_at_all(op, reply, e))
		return TASK_E_UNREACHABLE;
	if (reply->status != 200) {
		temporal_error(reply->status, reply->body, e);
		return temporal_no_such_workflow(reply->status, reply->body) ? TASK_E_NOT_FOUND
									     : TASK_E_UNREACHABLE;
	}
	return temporal_described_parse(reply->body, &op->described, e);
}

static int temporal_describe(struct temporal_operation *op,
			     void (*answered)(struct temporal_operation *op, const struct http_reply *reply),
			     struct err *e)
{
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(32768);
	int r = put_url(op, "", &url);
	struct ask a = {.method = "GET", .url = url.ptr, .timeout_ms = ASK_MS};
	return r < 0 ? err_set(e, r, "out of memory") : temporal_ask(op, &a, answered, e);
}

static void temporal_on_end(struct temporal_operation *op, const struct http_reply *reply)
{
	struct err e;
	if (reply->failure == HTTP_TOO_LARGE) {
		/* it has ended, with a result that no look will make smaller */
		tell_result(op, TASK_E_UNREADABLE, NULL);
		return;
	}
	if (reply->failure != HTTP_OK || reply->status != 200) {
		tell_result(op, TASK_E_UNREACHABLE, NULL);
		return;
	}
	struct temporal_close c;
	temporal_close_init(&c);
	int r = temporal_close_parse(reply->body, &c, &e);
	if (r == 0 && c.unreadable) {
		tell_result(op, TASK_E_UNREADABLE, NULL);
	} else if (r == 0 && c.closed) {
		c.r.submitted_us = op->described.r.submitted_us;
		c.r.started_us = op->described.r.started_us;
		c.r.completed_us = op->described.r.completed_us;
		tell_result(op, 0, &c.r);
	} else if (r == 0) { /* went on in another run between the two questions */
		op->described.r.status = TASK_RUNNING;
		op->described.r.completed_us = 0;
		tell_result(op, 0, &op->described.r);
	} else { /* its description said that it has ended */
		tell_result(op, r == -ENOMEM ? r : TASK_E_UNREADABLE, NULL);
	}
	temporal_close_release(&c);
}

static void on_described(struct temporal_operation *op, const struct http_reply *reply)
{
	struct err e;
	int r = describe_error(op, reply, &e);
	if (r != 0) {
		tell_result(op, r, NULL);
	} else if (!op->described.closed) {
		struct task_result now = op->described.r;
		tell_result(op, 0, &now);
	} else {
		CLEANUP(buf_releasep) struct buf url = BUF_INIT(32768);
		memcpy(op->run_id, op->described.run_id, sizeof(op->run_id));
		r = put_history_url(op, false, &url);
		struct ask a = {.method = "GET", .url = url.ptr, .timeout_ms = ASK_MS};
		if (r < 0 || temporal_ask(op, &a, temporal_on_end, &e) < 0)
			tell_result(op, -ENOMEM, NULL);
	}
}

static void temporal_client_get(struct task_client *base, struct span task_id, task_result_fn fn, void *arg)
{
	struct err e;
	struct temporal_operation *op = temporal_operation_new(base, task_id);
	if (!op) {
		fn(arg, -ENOMEM, NULL);
		return;
	}
	op->fn.result = fn;
	op->arg = arg;
	int r = temporal_id_possible(task_id) ? temporal_describe(op, on_described, &e) : tell_impossible(op);
	if (r < 0)
		tell_result(op, r, NULL);
}

/* --- cancel --------------------------------------------------------------------------------------------- */

static void tell_done(struct temporal_operation *op, int error, struct err *e)
{
	task_done_fn fn = op->fn.done;
	void *arg = op->arg;
	operation_free(op);
	fn(arg, error, e);
}

/* It was there a moment ago: a 404 now says that it has ended. */
static void temporal_on_cancelled(struct temporal_operation *op, const struct http_reply *reply)
{
	struct err e = {""};
	if (!answered_at_all(op, reply, &e)) {
		tell_done(op, TASK_E_UNREACHABLE, &e);
	} else if (reply->status == 200 || temporal_no_such_workflow(reply->status, reply->body)) {
		tell_done(op, 0, &e);
	} else {
		temporal_error(reply->status, reply->body, &e);
		tell_done(op, TASK_E_UNREACHABLE, &e);
	}
}

static int ask_to_end(struct temporal_operation *op, struct err *e)
{
	char request_id[CRYPTO_UUID];
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(32768), body = BUF_INIT(4096);
	bool taken_up = op->described.r.status == TASK_RUNNING;
	put_url(op, taken_up ? "/cancel" : "/terminate", &url);
	if (taken_up) {
		crypto_uuid4(request_id);
		buf_printf(&body,
			   "{\"reason\":\"cancelled\",\"identity\":\"" TEMPORAL_IDENTITY
			   "\",\"requestId\":\"%s\"}",
			   request_id);
	} else {
		buf_puts(&body,
			 "{\"reason\":\"cancelled before a worker took it\",\"identity\":\"" TEMPORAL_IDENTITY
			 "\"}");
	}
	if (url.error || body.error)
		return err_set(e, -ENOMEM, "out of memory");
	struct ask a = {.method = "POST", .url = url.ptr, .body = buf_span(&body), .timeout_ms = ASK_MS};
	return temporal_ask(op, &a, temporal_on_cancelled, e);
}

static void on_described_for_cancel(struct temporal_operation *op, const struct http_reply *reply)
{
	struct err e = {""};
	int r = describe_error(op, reply, &e);
	if (r == 0 && !op->described.closed)
		r = ask_to_end(op, &e);
	else if (r == 0)
		tell_done(op, 0, &e);
	if (r != 0)
		tell_done(op, r, &e);
}

static void not_found_for_cancel(struct temporal_operation *op)
{
	struct err e;
	err_set(&e, 0, "the task's id is not valid in Temporal's HTTP API");
	tell_done(op, TASK_E_NOT_FOUND, &e);
}

static void temporal_client_cancel(struct task_client *base, struct span task_id, task_done_fn fn, void *arg)
{
	struct err e;
	struct temporal_operation *op = temporal_operation_new(base, task_id);
	if (!op) {
		fn(arg, err_set(&e, -ENOMEM, "out of memory"), &e);
		return;
	}
	op->fn.done = fn;
	op->arg = arg;
	int r = temporal_id_possible(task_id) ? temporal_describe(op, on_described_for_cancel, &e)
					      : try_later(op, not_found_for_cancel);
	if (r < 0)
		tell_done(op, err_set(&e, r, "out of memory"), &e);
}

/* --- health --------------------------------------------------------------------------------------------- */

static void temporal_tell_health(struct temporal_operation *op, const struct task_health *h)
{
	task_health_fn fn = op->fn.health;
	void *arg = op->arg;
	operation_free(op);
	fn(arg, h);
}

/* The server's clock, by which it says when a worker polled; ours where it tells none. */
static int64_t now_there_us(const struct http_reply *reply)
{
	char text[64];
	struct tm tm = {0};
	span_copy(http_reply_field(reply, "Date"), text, sizeof(text));
	const char *end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
	return end ? (int64_t)timegm(&tm) * 1000000 : clock_wall_us();
}

static void read_queue(const struct temporal_operation *op, const struct http_reply *reply,
		       struct task_health *h)
{
	struct err e = {""};
	int64_t polled_us = 0;
	*h = (struct task_health){.backlog = -1};
	if (answered_at_all(op, reply, &e)) {
		if (reply->status != 200)
			temporal_error(reply->status, reply->body, &e);
		else if (temporal_queue_parse(reply->body, &polled_us, &h->backlog, &e) == 0)
			h->reachable = true;
	}
	h->worker = polled_us && now_there_us(reply) - polled_us < POLLER_ALIVE_US;
	if (!h->reachable)
		span_copy(span_of(e.text), h->detail, sizeof(h->detail));
	else if (!h->worker)
		snprintf(h->detail, sizeof(h->detail), "no worker polls the task queue %.100s",
			 op->queue.ptr);
}

static int ask_queue(struct temporal_operation *op, struct span queue,
		     void (*answered)(struct temporal_operation *op, const struct http_reply *reply))
{
	struct err e;
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(32768);
	if (buf_append_span(&op->queue, queue) < 0)
		return -ENOMEM;
	buf_printf(&url, "%s/task-queues/", op->client->options->base);
	buf_put_segment(&url, queue);
	buf_puts(&url, "?taskQueueType=TASK_QUEUE_TYPE_WORKFLOW&reportStats=true");
	struct ask a = {.method = "GET", .url = url.ptr, .timeout_ms = ASK_MS};
	return url.error ? -ENOMEM : temporal_ask(op, &a, answered, &e);
}

static void temporal_on_health(struct temporal_operation *op, const struct http_reply *reply)
{
	struct task_health h;
	read_queue(op, reply, &h);
	temporal_tell_health(op, &h);
}

static void temporal_client_health(struct task_client *base, task_health_fn fn, void *arg)
{
	struct task_health h = {.backlog = -1, .detail = "out of memory"};
	struct temporal_operation *op = temporal_operation_new(base, SPAN_NONE);
	if (!op) {
		fn(arg, &h);
		return;
	}
	op->fn.health = fn;
	op->arg = arg;
	if (ask_queue(op, span_of(op->client->options->task_queue), temporal_on_health) < 0)
		temporal_tell_health(op, &h);
}

static void tell_check(struct temporal_operation *op, const struct task_check *c)
{
	task_check_fn fn = op->fn.check;
	void *arg = op->arg;
	operation_free(op);
	fn(arg, c);
}

/* Which types of workflow a worker knows, the server does not tell. */
static void temporal_on_check(struct temporal_operation *op, const struct http_reply *reply)
{
	struct task_health h;
	struct task_check c = {.known = TASK_ANSWER_UNKNOWN, .worker = TASK_ANSWER_UNKNOWN};
	read_queue(op, reply, &h);
	c.reachable = h.reachable;
	if (h.reachable)
		c.worker = h.worker ? TASK_ANSWER_YES : TASK_ANSWER_NO;
	span_copy(span_of(h.detail), c.missing, sizeof(c.missing));
	tell_check(op, &c);
}

static void temporal_client_check(struct task_client *base, const struct task_probe *probe, task_check_fn fn,
				  void *arg)
{
	struct task_check c = {
		.known = TASK_ANSWER_UNKNOWN, .worker = TASK_ANSWER_UNKNOWN, .missing = "out of memory"};
	struct temporal_operation *op = temporal_operation_new(base, SPAN_NONE);
	if (!op) {
		fn(arg, &c);
		return;
	}
	op->fn.check = fn;
	op->arg = arg;
	struct span queue = probe->queue.len ? probe->queue : span_of(op->client->options->task_queue);
	if (ask_queue(op, queue, temporal_on_check) < 0)
		tell_check(op, &c);
}

/* --- client --------------------------------------------------------------------------------------------- */

static int temporal_client_new(struct loop *loop, const struct task_options *options,
			       struct task_client **ret, struct err *e)
{
	const struct temporal_options *o = (const struct temporal_options *)options;
	struct temporal_client *c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	task_client_init(&c->base, &temporal_backend, loop);
	c->options = o;
	const struct http_client_options http = {
		.ca_file = o->ca_file, .client_cert = o->client_cert, .client_key = o->client_key};
	int r = http_client_new(loop, &http, &c->http, e);
	if (r < 0) {
		free(c);
		return r;
	}
	*ret = &c->base;
	return 0;
}

static void temporal_client_free(struct task_client *base)
{
	struct temporal_client *c = (struct temporal_client *)base;
	while (!LIST_EMPTY(&c->operations))
		operation_free(LIST_FIRST(&c->operations));
	http_client_free(c->http);
	free(c);
}

const struct task_backend temporal_backend = {
	.name = "temporal",
	.same_id_same_task = true,
	.max_input = TEMPORAL_MAX_INPUT,
	.settings = temporal_settings,
	.options_size = sizeof(struct temporal_options),
	.options_check = temporal_options_check,
	.options_release = temporal_options_release,
	.client_new = temporal_client_new,
	.client_free = temporal_client_free,
	.make_id = temporal_make_id,
	.submit = temporal_client_submit,
	.wait = temporal_client_wait,
	.wait_cancel = temporal_client_wait_cancel,
	.get = temporal_client_get,
	.cancel = temporal_client_cancel,
	.health = temporal_client_health,
	.check = temporal_client_check,
};
