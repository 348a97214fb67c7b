/*
 * A URL as a handler: one POST of JSON, never sent again (design, rule 3), on a connection of its own so that
 * none can turn out dead.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/text.h"
#include "tasks/worker/call_template.h"
#include "tasks/worker/handler.h"

#define SHOWN (16u << 10) /* bytes of an error's body that are kept for operators */

struct http_run {
	struct handler_run run;
	const struct task_definition *t;
	const struct http_handler *h;
	struct loop_work killed;
	struct http_call *call;
	struct loop *loop;
};

/* Callers are told the task and the kind of failure: the answer is not theirs. Operators see the host;
 * what follows it may be a key as a whole (webhooks), and the task's name says which it is. */
static void handler_http_fail(struct http_run *r, bool unknown, const char *kind, const char *detail,
			      struct span more)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(SHOWN + 8192), plain = BUF_INIT(16 * SHOWN);
	const char *host = strstr(r->h->url, "://") + 3; /* it was checked */
	buf_append(&text, r->h->url, (size_t)(host - r->h->url) + strcspn(host, "/?#"));
	buf_printf(&text, ": %s", detail);
	if (more.len) {
		/* Before it is cut: a half of a secret would not be found. */
		struct span front = {more.ptr, more.len < 2 * SHOWN ? more.len : 2 * SHOWN};
		secrets_put_hidden(&r->t->secrets, front, front.len < more.len, &plain);
		buf_puts(&text, ": ");
		text_put_cut(&text, buf_span(&plain), SHOWN);
	}
	handler_fail_as(&r->run, unknown, r->t, buf_span(&text), "%s", kind);
}

static void fail_for(struct http_run *r, const struct http_reply *reply)
{
	char detail[128];
	if (!reply->sent) {
		handler_http_fail(r, false, "not reached", "not reached", span_of(reply->detail));
	} else if (reply->failure == HTTP_TOO_LARGE) {
		snprintf(detail, sizeof(detail), "its answer exceeds %zu bytes", r->h->max_output);
		handler_http_fail(r, true, "its answer is too large", detail, SPAN_NONE);
	} else {
		handler_http_fail(r, true, "outcome unknown: no answer", "no answer", span_of(reply->detail));
	}
}

/* It has not done it, and says when it will. */
static bool asks_again(const struct http_reply *reply, unsigned *ret_ms)
{
	struct span after = http_reply_field(reply, "Retry-After");
	char text[12], *end;
	if ((reply->status != 429 && reply->status != 503) || !after.ptr || after.len >= sizeof(text))
		return false;
	span_copy(after, text, sizeof(text));
	unsigned long seconds = strtoul(text, &end, 10);
	*ret_ms = (unsigned)(seconds < 86400 ? seconds : 86400) * 1000;
	return *text >= '0' && *text <= '9' && !*end;
}

/* What of the answer is the result, appended to `room` where it is made of parts. */
static bool handler_http_result(const struct http_run *r, struct span answer, struct buf *room,
				struct span *ret)
{
	const struct handler_call call = {.args = SPAN_LIT("[]"), .kwargs = SPAN_LIT("{}"), .answer = answer};
	if (!r->h->result_template)
		return json_pointer(answer, r->h->result, ret);
	struct err why = {""};
	if (call_template_fill(span_of(r->h->result_template), &call, room, &why) < 0)
		return false;
	*ret = buf_span(room);
	return true;
}

static void handler_http_take_answer(struct http_run *r, const struct http_reply *reply)
{
	struct handler_outcome o = {0};
	struct err why = {""};
	char detail[64];
	CLEANUP(buf_releasep) struct buf room = BUF_INIT(HANDLER_MAX_RESULT);
	snprintf(detail, sizeof(detail), "HTTP %d", reply->status);
	r->run.retry = asks_again(reply, &r->run.retry_after_ms);
	if (reply->status < 200 || reply->status > 299)
		handler_http_fail(r, false, detail, detail, reply->body);
	else if (json_validate(reply->body, &why) < 0)
		handler_http_fail(r, false, "its answer is not valid JSON", "its answer is not valid JSON",
				  span_of(why.text));
	else if (!handler_http_result(r, reply->body, &room, &o.result))
		handler_http_fail(r, false, "its answer has no result", "its answer has nothing at",
				  r->h->result_template ? span_of(r->h->result_template) : r->h->result);
	else
		r->run.done(r->run.arg, &o);
}

static void handler_http_on_done(void *arg, const struct http_reply *reply)
{
	struct http_run *r = arg;
	if (reply->failure == HTTP_OK)
		handler_http_take_answer(r, reply);
	else
		fail_for(r, reply);
	free(r);
}

static void on_killed(struct loop_work *work)
{
	struct http_run *r = (struct http_run *)((char *)work - offsetof(struct http_run, killed));
	handler_http_fail(r, true, "outcome unknown: abandoned before an answer came",
			  "abandoned before an answer came", SPAN_NONE);
	free(r);
}

static void handler_http_kill_run(struct handler_run *run)
{
	struct http_run *r = (struct http_run *)run;
	if (!r->call)
		return;
	r->call = http_cancel(r->call);
	loop_defer(r->loop, &r->killed);
}

static int make_body(const struct http_handler *h, const struct handler_call *call, struct buf *out,
		     struct err *e)
{
	if (h->body)
		return call_template_fill(span_of(h->body), call, out, e);
	buf_puts(out, "{\"args\":");
	buf_append_span(out, call->args);
	buf_puts(out, ",\"kwargs\":");
	buf_append_span(out, call->kwargs);
	buf_putc(out, '}');
	return out->error ? err_set(e, out->error, "the request is too large") : 0;
}

/* One that the definition gives itself stands. */
static bool handler_http_has_field(const struct http_handler *h, const char *name)
{
	for (size_t i = 0; i < h->n_fields; i++)
		if (span_is_nocase(span_of(h->fields[i].name), name))
			return true;
	return false;
}

static int send_request(const struct handler_env *env, struct http_run *r, const struct handler_call *call,
			struct err *e)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(2 * HANDLER_MAX_RESULT);
	struct http_field fields[REGISTRY_MAX_FIELDS + 5] = {
		{SPAN_LIT("Content-Type"), SPAN_LIT("application/json")},
		{SPAN_LIT("X-Task-Id"), call->task_id}};
	size_t n = 2;
	if (call->shadow)
		fields[n++] = (struct http_field){SPAN_LIT("X-Migration-Shadow"), SPAN_LIT("1")};
	if (call->traceparent.len && !handler_http_has_field(r->h, "traceparent")) {
		fields[n++] = (struct http_field){SPAN_LIT("traceparent"), call->traceparent};
		if (call->tracestate.len)
			fields[n++] = (struct http_field){SPAN_LIT("tracestate"), call->tracestate};
	}
	for (size_t i = 0; i < r->h->n_fields; i++)
		fields[n++] =
			(struct http_field){span_of(r->h->fields[i].name), span_of(r->h->fields[i].value)};
	int code = make_body(r->h, call, &body, e);
	if (code < 0)
		return code;
	struct http_call_request q = {.method = "POST",
				      .url = r->h->url,
				      .fields = fields,
				      .n_fields = n,
				      .body = buf_span(&body),
				      .ca_file = r->h->ca_file,
				      .max_body = r->h->max_output,
				      .fresh_connection = true};
	struct http_events events = {.arg = r, .done = handler_http_on_done};
	return not_of_the_call(http_start(env->http, &q, &events, &r->call, e));
}

int handler_start_http(const struct handler_env *env, const struct task_definition *t,
		       const struct handler_call *call, handler_done_fn done, void *arg,
		       struct handler_run **ret, struct err *e)
{
	struct http_run *r = calloc(1, sizeof(*r));
	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	r->run = (struct handler_run){.kill = handler_http_kill_run, .done = done, .arg = arg};
	r->t = t;
	r->h = t->http;
	r->loop = env->loop;
	r->killed.fn = on_killed;
	int code = send_request(env, r, call, e);
	if (code < 0) {
		free(r);
		return code;
	}
	*ret = &r->run;
	return 0;
}
