/*
 * A workflow as Celery's chain: the first step is a message, and in its body are the signatures of the
 * others, the last one first. Each worker sends the next step when its own has ended. To Celery the chain's
 * result is that of its last step, and under its id a failure in the middle is stored as well
 * (celery/backends/base.py, mark_as_failure).
 *
 * Steps beside each other can be the header of a chord, whose body is the step behind them. Only at the end
 * of a chain: when a part fails, Celery stores that for the body alone, and whoever waited for a step behind
 * it would wait forever.
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

/* How many steps from `first` on follow just the steps of `parents`. */
static size_t stage_length(const struct workflow_definition *w, size_t first, uint64_t parents)
{
	size_t n = 0;
	while (first + n < w->n_steps && w->steps[first + n].parents == parents)
		n++;
	return n;
}

static bool is_plain_step(const struct workflow_step *s)
{
	return !s->over && s->input != STEP_INPUT_TEMPLATE &&
	       !(s->kwargs && workflow_template_refers(s->kwargs));
}

/* Where the steps beside each other begin; n_steps: there are none. */
static size_t header_of(const struct workflow_definition *w)
{
	for (size_t i = 1; i + 1 < w->n_steps; i++)
		if (w->steps[i].parents && w->steps[i].parents == w->steps[i + 1].parents)
			return i;
	return w->n_steps;
}

bool celery_can_chord(const struct workflow_definition *w)
{
	uint64_t before = 0;
	size_t at = 0;
	if (w->result || registry_is_for_router(w) || w->steps[0].queue.ptr)
		return false;
	for (size_t i = 0; i < w->n_steps; i++)
		if (!is_plain_step(&w->steps[i]))
			return false;
	while (at < w->n_steps) {
		size_t n = stage_length(w, at, before);
		bool body_is_last = at + n + 1 == w->n_steps;
		if (n == 0 || (n > 1 && (at == 0 || !body_is_last)))
			return false;
		before = 0;
		for (size_t i = at; i < at + n; i++)
			before |= UINT64_C(1) << i;
		at += n;
	}
	return true;
}

bool celery_can_chain(const struct workflow_definition *w)
{
	return celery_can_chord(w) && header_of(w) == w->n_steps;
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
	if (step->queue.ptr)
		queue = step->queue;
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

static void put_step_signature(const struct celery_sender *s, const struct task_call *call,
			       const struct workflow_definition *w, size_t i, struct span queue,
			       struct buf *out)
{
	char id[CRYPTO_UUID];
	celery_step_id(call->task_id, w, i, id);
	put_signature(s, call, &w->steps[i], i + 1 == w->n_steps ? call->task_id : span_of(id), queue, out);
}

/* From `first` to the one before the last, and that one as the body. A failure before it is stored under the
 * id of the whole signature, which is the body's. */
static void put_chord(const struct celery_sender *s, const struct task_call *call,
		      const struct workflow_definition *w, size_t first, struct span queue, struct buf *out)
{
	buf_puts(out, "{\"task\": \"celery.chord\", \"args\": [], \"kwargs\": {\"kwargs\": {}, \"header\": "
		      "{\"task\": \"celery.group\", \"args\": [], \"kwargs\": {\"tasks\": [");
	for (size_t i = first; i + 1 < w->n_steps; i++) {
		buf_puts(out, i > first ? ", " : "");
		put_step_signature(s, call, w, i, queue, out);
	}
	buf_puts(out, "]}, \"options\": {}, \"subtask_type\": \"group\", \"immutable\": false}, \"body\": ");
	put_step_signature(s, call, w, w->n_steps - 1, queue, out);
	buf_puts(out, "}, \"options\": {");
	buf_puts(out, "\"task_id\": ");
	json_quote(out, call->task_id);
	buf_puts(out, "}, \"subtask_type\": \"chord\", \"immutable\": false}");
}

static void put_chain(const struct celery_sender *s, const struct task_call *call,
		      const struct workflow_definition *w, struct span queue, struct buf *out)
{
	size_t end = header_of(w);
	const char *separator = "";
	buf_putc(out, '[');
	if (end < w->n_steps) {
		put_chord(s, call, w, end, queue, out);
		separator = ", ";
	}
	for (size_t i = end; i-- > 1; separator = ", ") {
		buf_puts(out, separator);
		put_step_signature(s, call, w, i, queue, out);
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
