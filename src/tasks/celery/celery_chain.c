/*
 * A workflow as Celery's chain: the first step is a message, and in its body are the signatures of the
 * others, the last one first. Each worker sends the next step when its own has ended. To Celery the chain's
 * result is that of its last step, and under its id a failure in the middle is stored as well
 * (celery/backends/base.py, mark_as_failure).
 */
#include "base/json.h"
#include "tasks/celery/celery_message.h"

#define STEPS_MAX_BYTES (512u << 20)

/* Without its braces, and the blanks around them. */
static struct span members(struct span object)
{
	object = span_trim(object);
	return object.len >= 2 ? span_trim((struct span){object.ptr + 1, object.len - 2}) : SPAN_NONE;
}

/* Of two members of the same name the step's counts, which comes later, as in Python's json. */
static void put_kwargs(struct span workflows, struct span steps, struct buf *out)
{
	struct span a = members(workflows), b = members(steps);
	buf_putc(out, '{');
	buf_append_span(out, a);
	buf_puts(out, a.len && b.len ? ", " : "");
	buf_append_span(out, b);
	buf_putc(out, '}');
}

static void put_member(struct buf *out, const char *name, struct span text)
{
	buf_printf(out, "\"%s\": ", name);
	json_quote(out, text);
	buf_puts(out, ", ");
}

static unsigned limit_of(const struct workflow_step *step, const struct task_call *call)
{
	return step->timeout_ms ? step->timeout_ms : call->timeout_ms;
}

/* A worker that knows nothing of traces hands it on; one that does puts its own in its place. */
static void put_trace(const struct task_call *call, struct buf *out)
{
	if (!call->traceparent.len)
		return;
	buf_puts(out, "\"headers\": {\"traceparent\": ");
	json_quote(out, call->traceparent);
	if (call->tracestate.len) {
		buf_puts(out, ", \"tracestate\": ");
		json_quote(out, call->tracestate);
	}
	buf_puts(out, "}, ");
}

/* What a worker makes the next message of. Its arguments come after the previous result, unless it is
 * immutable. */
static void put_signature(const struct celery_sender *s, const struct task_call *call,
			  const struct workflow_step *step, struct span id, struct span queue,
			  struct buf *out)
{
	bool whole = step->input == STEP_INPUT_WORKFLOW;
	buf_putc(out, '{');
	put_member(out, "task", step->task);
	buf_puts(out, "\"args\": ");
	buf_append_span(out, whole && call->args.len ? call->args : SPAN_LIT("[]"));
	buf_puts(out, ", \"kwargs\": ");
	put_kwargs(whole ? call->kwargs : SPAN_NONE, span_of(step->kwargs), out);
	buf_puts(out, ", \"options\": {");
	/* A worker sends to its own default queue unless told another. */
	if (!span_is(queue, CELERY_DEFAULT_QUEUE))
		put_member(out, "queue", queue);
	if (limit_of(step, call)) {
		buf_puts(out, "\"time_limit\": ");
		celery_put_seconds(limit_of(step, call), out);
		buf_puts(out, ", ");
	}
	put_trace(call, out);
	put_member(out, "task_id", id);
	buf_printf(out, "\"reply_to\": \"%s\"}, \"subtask_type\": null, \"immutable\": %s}", s->reply_to,
		   step->input == STEP_INPUT_PREVIOUS ? "false" : "true");
}

static void put_chain(const struct celery_sender *s, const struct task_call *call,
		      const struct workflow_definition *w, struct span queue, struct buf *out)
{
	buf_putc(out, '[');
	for (size_t i = w->n_steps; i-- > 1;) {
		char id[CRYPTO_UUID];
		celery_step_id(call->task_id, w, i, id);
		put_signature(s, call, &w->steps[i], i + 1 == w->n_steps ? call->task_id : span_of(id), queue,
			      out);
		buf_puts(out, i > 1 ? ", " : "");
	}
	buf_putc(out, ']');
}

int celery_chain_message(const struct celery_sender *s, const struct task_call *call,
			 const struct workflow_definition *w, struct span queue, int64_t now_us,
			 struct buf *headers, struct buf *out)
{
	const struct workflow_step *step = &w->steps[0];
	bool given = step->input != STEP_INPUT_NONE;
	CLEANUP(buf_releasep) struct buf kwargs = BUF_INIT(STEPS_MAX_BYTES);
	CLEANUP(buf_releasep) struct buf chain = BUF_INIT(STEPS_MAX_BYTES);
	struct task_call first = *call;
	char id[CRYPTO_UUID];
	celery_step_id(call->task_id, w, 0, id);
	put_kwargs(given ? call->kwargs : SPAN_NONE, span_of(step->kwargs), &kwargs);
	put_chain(s, call, w, queue, &chain);
	if (kwargs.error || chain.error)
		return kwargs.error ? kwargs.error : chain.error;
	first.task = step->task;
	first.args = given ? call->args : SPAN_NONE;
	first.kwargs = buf_span(&kwargs);
	first.timeout_ms = limit_of(step, call);
	if (w->n_steps > 1)
		first.task_id = span_of(id);
	return celery_link_message(s, &first, buf_span(&chain), queue, now_us, headers, out);
}
