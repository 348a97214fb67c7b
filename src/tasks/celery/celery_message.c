#include "tasks/celery/celery_message.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/json.h"

#define REPR_MAX 1024 /* Celery's argsrepr_maxsize */

const struct celery_lists celery_lists_default = {"\x06\x16", {0, 3, 6, 9}, 4};

void celery_sender_init(struct celery_sender *s)
{
	char host[128] = "localhost";
	gethostname(host, sizeof(host) - 1);
	host[sizeof(host) - 1] = '\0';
	snprintf(s->origin, sizeof(s->origin), "gen%ld@%s", (long)getpid(), host);
	crypto_uuid4(s->reply_to);
}

static int clamp(int priority)
{
	if (priority < 0)
		return 0;
	return priority > 9 ? 9 : priority;
}

int celery_priority_step(const struct celery_lists *l, int priority)
{
	size_t n = 0;
	while (n < l->n_steps && l->steps[n] <= clamp(priority))
		n++;
	return l->steps[n ? n - 1 : l->n_steps - 1]; /* as Python's steps[-1] */
}

int celery_queue_key(const struct celery_lists *l, struct span queue, int priority, struct buf *out)
{
	int step = celery_priority_step(l, priority);
	buf_append_span(out, queue);
	return step ? buf_printf(out, "%s%d", l->separator, step) : out->error;
}

/* As datetime.isoformat writes it. */
static void put_instant(struct buf *out, int64_t us)
{
	time_t s = (time_t)(us / 1000000);
	struct tm tm;
	char text[32];
	gmtime_r(&s, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	buf_printf(out, "\"%s", text);
	if (us % 1000000)
		buf_printf(out, ".%06d", (int)(us % 1000000));
	buf_puts(out, "+00:00\"");
}

static void put_quoted(struct buf *out, const char *name, struct span value)
{
	buf_printf(out, "\"%s\": ", name);
	json_quote(out, value);
	buf_puts(out, ", ");
}

static void put_repr(struct buf *out, const char *name, struct span value)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 16);
	celery_repr(value, REPR_MAX, &text);
	put_quoted(out, name, buf_span(&text));
}

void celery_put_seconds(unsigned ms, struct buf *out)
{
	unsigned rest = ms % 1000, digits = 3;
	buf_printf(out, "%u", ms / 1000);
	for (; rest && rest % 10 == 0; digits--)
		rest /= 10;
	if (rest)
		buf_printf(out, ".%0*u", (int)digits, rest);
}

/* [hard, soft] in seconds. */
static void put_limits(struct buf *out, unsigned timeout_ms)
{
	buf_puts(out, "\"timelimit\": [");
	if (timeout_ms)
		celery_put_seconds(timeout_ms, out);
	else
		buf_puts(out, "null");
	buf_puts(out, ", null], ");
}

/* Celery's own producer hands over what it was given: a list; a signature's arguments are a tuple, and so
 * are none. */
static void put_args_repr(struct buf *out, struct span args, bool tuple)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 16);
	struct json_iter it;
	struct span key, item;
	size_t n = 0;
	json_iter_init(&it, args);
	while (n < 2 && json_iter_next(&it, &key, &item))
		n++;
	if (n == 0) {
		put_quoted(out, "argsrepr", SPAN_LIT("()"));
		return;
	}
	celery_repr(args, REPR_MAX, &text);
	if (tuple && !text.error && text.len > 1) {
		text.ptr[0] = '(';
		text.len--;
		buf_puts(&text, n == 1 ? ",)" : ")");
	}
	put_quoted(out, "argsrepr", buf_span(&text));
}

static void put_headers(struct buf *out, const struct celery_sender *s, const struct task_call *call,
			struct span args, struct span kwargs, bool link, int64_t now_us)
{
	buf_puts(out, "{\"lang\": \"py\", ");
	put_quoted(out, "task", call->task);
	put_quoted(out, "id", call->task_id);
	if (call->shadow) /* `shadow` is a name of Celery's own: what to call the task in logs */
		buf_puts(out, "\"x_migration_shadow\": true, ");
	if (call->traceparent.len) /* where OpenTelemetry's instrumentation of Celery looks for it */
		put_quoted(out, "traceparent", call->traceparent);
	if (call->tracestate.len)
		put_quoted(out, "tracestate", call->tracestate);
	buf_puts(out, "\"shadow\": null, \"eta\": null, \"expires\": ");
	if (call->expires_ms)
		put_instant(out, now_us + (int64_t)call->expires_ms * 1000);
	else
		buf_puts(out, "null");
	buf_puts(out, ", \"group\": null, \"group_index\": null, \"retries\": 0, ");
	put_limits(out, call->timeout_ms);
	put_quoted(out, "root_id", call->task_id);
	buf_puts(out, "\"parent_id\": null, ");
	put_args_repr(out, args, link);
	put_repr(out, "kwargsrepr", kwargs);
	put_quoted(out, "origin", span_of(s->origin));
	buf_puts(out, "\"ignore_result\": false, \"replaced_task_nesting\": 0, \"stamped_headers\": null, "
		      "\"stamps\": {}}");
}

static void put_delivery(struct buf *out, struct span exchange, struct span routing_key, int priority)
{
	char tag[CRYPTO_UUID];
	crypto_uuid4(tag);
	buf_puts(out, "\"delivery_info\": {\"exchange\": ");
	json_quote(out, exchange);
	buf_puts(out, ", \"routing_key\": ");
	json_quote(out, routing_key);
	buf_printf(out, "}, \"priority\": %d, \"body_encoding\": \"base64\", \"delivery_tag\": \"%s\"}}",
		   priority, tag);
}

static int put_body(struct buf *out, struct span body)
{
	/* Room at once, so that a large body is not moved again and again. */
	buf_reserve(out, (body.len + 2) / 3 * 4 + 4096);
	buf_puts(out, "{\"body\": \"");
	base64_encode(body, out);
	return buf_puts(out, "\", \"content-encoding\": \"utf-8\", \"content-type\": \"application/json\", ");
}

int celery_task_message(const struct celery_sender *s, const struct task_call *call, struct span queue,
			int64_t now_us, struct buf *headers, struct buf *out)
{
	return celery_link_message(s, call, SPAN_NONE, queue, now_us, headers, out);
}

int celery_link_message(const struct celery_sender *s, const struct task_call *call, struct span chain,
			struct span queue, int64_t now_us, struct buf *headers, struct buf *out)
{
	struct span args = call->args.len ? call->args : SPAN_LIT("[]"),
		    kwargs = call->kwargs.len ? call->kwargs : SPAN_LIT("{}");
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(args.len + kwargs.len + chain.len + 128);
	buf_reserve(&body, body.max);
	buf_putc(&body, '[');
	buf_append_span(&body, args);
	buf_puts(&body, ", ");
	buf_append_span(&body, kwargs);
	buf_puts(&body, ", {\"callbacks\": null, \"errbacks\": null, \"chain\": ");
	buf_append_span(&body, chain.ptr ? chain : SPAN_LIT("null"));
	buf_puts(&body, ", \"chord\": null}]");
	if (body.error)
		return body.error;
	if (headers) {
		put_headers(headers, s, call, args, kwargs, chain.ptr != NULL, now_us);
		buf_release(out);
		*out = body;
		body = BUF_INIT(0);
		return headers->error;
	}
	put_body(out, buf_span(&body));
	buf_puts(out, "\"headers\": ");
	put_headers(out, s, call, args, kwargs, chain.ptr != NULL, now_us);
	buf_puts(out, ", \"properties\": {");
	put_quoted(out, "correlation_id", call->task_id);
	buf_printf(out, "\"reply_to\": \"%s\", \"delivery_mode\": 2, ", s->reply_to);
	if (call->expires_ms)
		buf_printf(out, "\"expiration\": \"%u\", ", call->expires_ms);
	put_delivery(out, SPAN_LIT(""), queue, clamp(call->priority));
	return out->error;
}

int celery_control_message(const char *exchange, const char *method, struct span arguments,
			   const char *ticket, struct span reply_list, struct buf *headers, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(1u << 16), name = BUF_INIT(1024);
	buf_printf(&body,
		   "{\"method\": \"%s\", \"arguments\": %.*s, \"destination\": null, \"pattern\": null, "
		   "\"matcher\": null",
		   method, SPAN_ARG(arguments));
	if (ticket)
		buf_printf(
			&body,
			", \"ticket\": \"%s\", \"reply_to\": {\"exchange\": \"\", \"routing_key\": \"%.*s\"}",
			ticket, SPAN_ARG(reply_list));
	buf_putc(&body, '}');
	if (body.error)
		return body.error;
	/* No expiry: the clocks of workers may be off by more than the second that Celery's own client
	 * allows. */
	const struct span own = SPAN_LIT("{\"clock\": 1, \"expires\": 0}");
	if (headers) {
		buf_append_span(headers, own);
		buf_append_span(out, buf_span(&body));
		return headers->error ? headers->error : out->error;
	}
	put_body(out, buf_span(&body));
	buf_printf(out, "\"headers\": %.*s, \"properties\": {\"delivery_mode\": 2, ", SPAN_ARG(own));
	buf_printf(&name, "%s.pidbox", exchange);
	put_delivery(out, buf_span(&name), SPAN_LIT(""), 0);
	return out->error;
}
