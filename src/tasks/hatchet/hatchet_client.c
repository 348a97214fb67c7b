/*
 * What the verbs stand on: operations, each with its request or its timer, and their turns.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "tasks/hatchet/hatchet_internal.h"
#include "tasks/hatchet/hatchet_message.h"

/* --- lanes ---------------------------------------------------------------------------------------------- */

static void begin_turn(struct hatchet_operation *op)
{
	op->queued = false;
	op->lane->under_way++;
	op->wake(op);
}

static void leave_lane(struct hatchet_operation *op)
{
	struct hatchet_lane *lane = op->lane;
	if (!lane)
		return;
	op->lane = NULL;
	if (op->queued) {
		op->queued = false;
		TAILQ_REMOVE(&lane->queue, op, turn);
		return;
	}
	lane->under_way--;
	struct hatchet_operation *next = TAILQ_FIRST(&lane->queue);
	if (!next || op->client->closing)
		return;
	TAILQ_REMOVE(&lane->queue, next, turn);
	loop_timer_stop(next->timer);
	begin_turn(next);
}

void hatchet_in_turn(struct hatchet_operation *op, enum hatchet_lane_kind kind,
		     void (*ask)(struct hatchet_operation *op), void (*late)(struct hatchet_operation *op))
{
	op->lane = &op->client->lanes[kind];
	op->wake = ask;
	op->late = late;
	if (op->lane->under_way < HATCHET_LANE_WIDTH) {
		begin_turn(op);
		return;
	}
	op->queued = true;
	TAILQ_INSERT_TAIL(&op->lane->queue, op, turn);
	if (late)
		loop_timer_start(op->timer, op->client->settings->request_ms);
}

/* --- operations ----------------------------------------------------------------------------------------- */

static void hatchet_client_on_timer(void *arg)
{
	struct hatchet_operation *op = arg;
	if (op->queued) {
		leave_lane(op);
		op->late(op);
	} else if (op->not_started) {
		const struct http_reply r = {.failure = HTTP_NOT_CONNECTED,
					     .detail = "the request could not be made"};
		op->not_started = false;
		leave_lane(op);
		op->reply(op, &r);
	} else {
		op->wake(op);
	}
}

void *hatchet_operation_new(struct hatchet_client *c, size_t size)
{
	struct hatchet_operation *op = calloc(1, size);
	if (!op || loop_timer_new(c->base.loop, hatchet_client_on_timer, op, &op->timer) < 0) {
		free(op);
		return NULL;
	}
	op->client = c;
	LIST_INSERT_HEAD(&c->operations, op, place);
	return op;
}

void hatchet_operation_end(struct hatchet_operation *op)
{
	if (op->ended)
		return;
	LIST_REMOVE(op, place);
	op->ended = true;
	op->call = http_cancel(op->call);
	op->timer = loop_timer_free(op->timer);
	leave_lane(op);
}

void hatchet_operation_free(struct hatchet_operation *op)
{
	hatchet_operation_end(op);
	if (op->release)
		op->release(op);
	else
		free(op);
}

void hatchet_put_tenant(const struct hatchet_client *c, struct buf *path, bool stable)
{
	buf_printf(path, "/api/v1/%stenants/%s", stable ? "stable/" : "", c->settings->tenant);
}

static void hatchet_client_on_done(void *arg, const struct http_reply *r)
{
	struct hatchet_operation *op = arg;
	op->call = NULL;
	leave_lane(op);
	op->reply(op, r);
}

void hatchet_ask(struct hatchet_operation *op, const char *method, const struct buf *path, struct span body,
		 bool once, hatchet_reply_fn fn)
{
	const struct hatchet_settings *s = op->client->settings;
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(8192);
	const struct http_field fields[] = {{SPAN_LIT("Authorization"), span_of(s->authorization)},
					    {SPAN_LIT("Accept"), SPAN_LIT("application/json")},
					    {SPAN_LIT("Content-Type"), SPAN_LIT("application/json")}};
	buf_puts(&url, s->url);
	buf_append_span(&url, buf_span(path));
	struct http_call_request r = {
		.method = method,
		.url = buf_span(&url).ptr,
		.fields = fields,
		.n_fields = body.ptr ? 3 : 2,
		.body = body,
		.connect_timeout_ms = s->request_ms < 5000 ? s->request_ms : 5000,
		.timeout_ms = s->request_ms,
		.max_body = HATCHET_MAX_ANSWER,
		.may_resend = !once,
		/* A kept-alive connection may be dead without our knowing, and then nobody knows whether it
		 * was executed. */
		.fresh_connection = once,
	};
	struct http_events events = {.arg = op, .done = hatchet_client_on_done};
	op->reply = fn;
	if (!path->error && !url.error && http_start(op->client->http, &r, &events, &op->call, NULL) == 0)
		return;
	op->call = NULL;
	op->not_started = true;
	loop_timer_start(op->timer, 0);
}

void hatchet_sleep(struct hatchet_operation *op, unsigned ms, void (*wake)(struct hatchet_operation *op))
{
	op->wake = wake;
	loop_timer_start(op->timer, ms);
}

int hatchet_problem(const struct hatchet_client *c, const struct http_reply *r, int code, struct err *e)
{
	char said[256];
	if (r->failure != HTTP_OK)
		return err_set(e, code, "%s: %s", c->settings->url, r->detail ? r->detail : "no answer");
	hatchet_read_problem(r->body, said, sizeof(said));
	if (r->status == 403) {
		bool expired = c->settings->expires_s && c->settings->expires_s * 1000000 <= clock_wall_us();
		return err_set(e, code, "%s: token not accepted%s", c->settings->url,
			       expired ? ": it has expired" : "");
	}
	return err_set(e, code, "%s: status %d%s%s", c->settings->url, r->status, *said ? ": " : "", said);
}
