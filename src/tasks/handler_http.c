/*
 * A URL as a handler: one POST of JSON, never sent again (design, rule 3), on a connection of its own so that none can turn out dead.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "tasks/call_template.h"
#include "tasks/handler.h"

#define SHOWN 200 /* bytes of an error's body that go into the sentence */

struct http_run {
	struct handler_run run;
	const struct http_handler *h;
	struct loop_work killed;
	struct http_call *call;
	struct loop *loop;
};

static void fail_for(struct http_run *r, const struct http_reply *reply)
{
	const char *url = r->h->url;
	if (!reply->sent)
		handler_fail(&r->run, false, SPAN_NONE, "%s: not reached: %s", url, reply->detail);
	else if (reply->failure == HTTP_TOO_LARGE)
		handler_fail(&r->run, true, SPAN_NONE, "%s: its answer is above %zu bytes", url, r->h->max_output);
	else
		handler_fail(&r->run, true, SPAN_NONE, "outcome unknown: %s: no answer: %s", url, reply->detail);
}

static void take_answer(struct http_run *r, const struct http_reply *reply)
{
	struct handler_outcome o = {0};
	struct err why = {""};
	if (reply->status < 200 || reply->status > 299) {
		struct span shown = {reply->body.ptr, reply->body.len < SHOWN ? reply->body.len : SHOWN};
		handler_fail(&r->run, false, reply->body.len ? reply->body : SPAN_NONE, "%s: HTTP %d: %.*s", r->h->url,
			     reply->status, SPAN_ARG(shown));
	} else if (json_validate(reply->body, &why) < 0) {
		handler_fail(&r->run, false, SPAN_NONE, "%s: its answer is no valid JSON: %s", r->h->url, why.text);
	} else if (!json_pointer(reply->body, r->h->result, &o.result)) {
		handler_fail(&r->run, false, SPAN_NONE, "%s: its answer has nothing at %.*s", r->h->url,
			     SPAN_ARG(r->h->result));
	} else {
		r->run.done(r->run.arg, &o);
	}
}

static void on_done(void *arg, const struct http_reply *reply)
{
	struct http_run *r = arg;
	if (reply->failure == HTTP_OK)
		take_answer(r, reply);
	else
		fail_for(r, reply);
	free(r);
}

static void on_killed(struct loop_work *work)
{
	struct http_run *r = (struct http_run *)((char *)work - offsetof(struct http_run, killed));
	handler_fail(&r->run, true, SPAN_NONE, "outcome unknown: %s: given up before an answer came", r->h->url);
	free(r);
}

static void kill_run(struct handler_run *run)
{
	struct http_run *r = (struct http_run *)run;
	if (!r->call)
		return;
	r->call = http_cancel(r->call);
	loop_defer(r->loop, &r->killed);
}

static int make_body(const struct http_handler *h, const struct handler_call *call, struct buf *out, struct err *e)
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

static int send_request(const struct handler_env *env, struct http_run *r, const struct handler_call *call, struct err *e)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(2 * HANDLER_MAX_RESULT);
	struct http_field fields[REGISTRY_MAX_FIELDS + 2] = {{SPAN_LIT("Content-Type"), SPAN_LIT("application/json")},
							     {SPAN_LIT("X-Task-Id"), call->task_id}};
	size_t n = 2;
	for (size_t i = 0; i < r->h->n_fields; i++)
		fields[n++] = (struct http_field){span_of(r->h->fields[i].name), span_of(r->h->fields[i].value)};
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
	struct http_events events = {.arg = r, .done = on_done};
	return http_start(env->http, &q, &events, &r->call, e);
}

int handler_start_http(const struct handler_env *env, const struct task_definition *t, const struct handler_call *call,
		       handler_done_fn done, void *arg, struct handler_run **ret, struct err *e)
{
	struct http_run *r = calloc(1, sizeof(*r));
	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	r->run = (struct handler_run){.kill = kill_run, .done = done, .arg = arg};
	r->h = t->http;
	r->loop = env->loop;
	r->killed.fn = on_killed;
	int code = send_request(env, r, call, e);
	if (code < 0) {
		free(r);
		return code;
	}
	return (*ret = &r->run, 0);
}
