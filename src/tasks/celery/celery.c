/*
 * The client half: submissions, lookups and cancellations. Waits and health have files of their own.
 */
#include "tasks/celery/celery.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/json.h"
#include "tasks/celery/celery_internal.h"
#include "tasks/celery/celery_meta.h"
#include "tasks/python_json.h"

struct celery_operation {
	struct celery_client *client;
	LIST_ENTRY(celery_operation) place;
	union {
		task_submit_fn submit;
		task_result_fn result;
		task_done_fn done;
	} fn;
	void *arg;
	/* Of a submission: */
	bool awaited;
	bool chain;		       /* a submission of a declared workflow */
	struct task_wait *ahead;       /* when its result is awaited */
	struct celery_operation *held; /* the next one that waits for celery_go_on */
	struct celery_letter letter;   /* until it is sent */
	struct buf end;		       /* of a lookup: the final meta of what may be a chain */
	struct loop_work unknown;      /* of a lookup: nothing can be said of the task */
	char id[TASK_ID_MAX];
};

/* --- operations ----------------------------------------------------------------------------------------- */

static void celery_letter_release(struct celery_letter *l)
{
	buf_release(&l->address);
	buf_release(&l->headers);
	buf_release(&l->body);
}

static struct celery_operation *operation_new(struct celery_client *c, struct span id, void *arg)
{
	struct celery_operation *op = calloc(1, sizeof(*op));
	if (!op)
		return NULL;
	op->client = c;
	op->arg = arg;
	span_copy(id, op->id, sizeof(op->id));
	LIST_INSERT_HEAD(&c->operations, op, place);
	return op;
}

/* Out of the client's list and freed; returns what is needed to tell it. */
static struct celery_operation operation_end(struct celery_operation *op)
{
	struct celery_operation copy = *op;
	LIST_REMOVE(op, place);
	if (op->unknown.fn)
		loop_defer_cancel(op->client->base.loop, &op->unknown);
	celery_letter_release(&op->letter);
	buf_release(&op->end);
	free(op);
	return copy;
}

static struct buf steal_buf(struct buf *b)
{
	struct buf taken = *b;
	*b = BUF_INIT(b->max);
	return taken;
}

static struct celery_letter steal_letter(struct celery_letter *l)
{
	struct celery_letter taken = *l;
	*l = (struct celery_letter){.priority = 0};
	return taken;
}

/* --- submit --------------------------------------------------------------------------------------------- */

static void on_sent(void *arg, enum celery_sent sent, int64_t receivers, const struct err *why)
{
	static const enum task_submit_status statuses[] = {[CELERY_SENT] = TASK_SUBMITTED,
							   [CELERY_NOT_SENT] = TASK_REFUSED,
							   [CELERY_MAYBE_SENT] = TASK_UNKNOWN};
	struct celery_operation op = operation_end(arg);
	struct task_submission s = {.status = statuses[sent], .task_id = span_of(op.id)};
	(void)receivers;
	if (sent == CELERY_SENT) {
		celery_wait_offer(op.ahead);
	} else {
		s.err = *why;
		celery_wait_cancel(op.ahead);
	}
	op.fn.submit(op.arg, &s);
}

/* A message that a worker cannot decode would be lost there: better refused here. */
static int check_input(const struct celery_client *c, const struct task_call *call, struct span queue,
		       enum task_submit_status *ret, struct err *why)
{
	const struct workflow_definition *w = celery_workflow(c, call->workflow, call->task);
	size_t size = call->args.len + call->kwargs.len;
	*ret = TASK_REFUSED;
	if (w && !(c->o->results_kind == CELERY_RESULTS_RPC ? celery_can_chain(w) : celery_can_chord(w)))
		return err_set(why, -EINVAL, CELERY_NO_CHAIN, SPAN_ARG(w->name));
	if (size > c->o->max_input) {
		*ret = TASK_INPUT_TOO_LARGE;
		return err_set(why, -EFBIG, "the input has %zu bytes, max_input of celery is %zu", size,
			       c->o->max_input);
	}
	if (queue.len > 200)
		return err_set(why, -EINVAL, "the queue's name has %zu characters, at most 200 are allowed",
			       queue.len);
	struct span args = span_trim(call->args), kwargs = span_trim(call->kwargs);
	if (args.len && (json_validate(args, why) < 0 || json_type_of(args) != JSON_ARRAY))
		return err_set(why, -EINVAL, "args must be a JSON array");
	if (kwargs.len && (json_validate(kwargs, why) < 0 || json_type_of(kwargs) != JSON_OBJECT))
		return err_set(why, -EINVAL, "kwargs must be a JSON object");
	if (python_json_check(args, true, why) == 0 && python_json_check(kwargs, true, why) == 0)
		return 0;
	*ret = TASK_INPUT_NOT_REPRESENTABLE;
	return -EINVAL;
}

static struct task_call trimmed(const struct task_call *call)
{
	struct task_call copy = *call;
	copy.args = span_trim(call->args);
	copy.kwargs = span_trim(call->kwargs);
	return copy;
}

static void send_letter(struct celery_operation *op)
{
	struct celery_client *c = op->client;
	CLEANUP(celery_letter_release) struct celery_letter letter = steal_letter(&op->letter);
	if (c->results->sent)
		c->results->sent(c, span_of(op->id));
	if (op->awaited)
		op->ahead = celery_wait_ahead(c, span_of(op->id), op->chain);
	c->broker->send(c, &letter, on_sent, op);
}

/* Nobody would ever learn of a result that cannot be heard: better not begun. Of a broker that is away
 * sending tells more. */
static void send_or_refuse(struct celery_operation *op)
{
	struct celery_client *c = op->client;
	struct err why;
	if (!c->hearing.why.text[0] || c->broker->away(c, &why)) {
		send_letter(op);
		return;
	}
	err_set(&why, 0, CELERY_DEAF, c->hearing.why.text);
	struct celery_operation copy = operation_end(op);
	task_submit_later(&c->base, TASK_REFUSED, span_of(copy.id), &why, copy.fn.submit, copy.arg);
}

/* Whether results are heard is known: what waited for that continues. */
static void celery_go_on(void *arg)
{
	struct celery_client *c = arg;
	while (c->held) {
		struct celery_operation *op = c->held;
		c->held = op->held;
		if (!c->held)
			c->held_end = &c->held;
		send_or_refuse(op);
	}
	celery_pidbox_go_on(c);
}

static void client_submit(struct task_client *base, const struct task_call *given, task_submit_fn fn,
			  void *arg)
{
	struct celery_client *c = (struct celery_client *)base;
	struct task_call call = trimmed(given);
	const struct workflow_definition *w = celery_workflow(c, call.workflow, call.task);
	struct span queue = call.queue.len ? call.queue : span_of(c->o->queue);
	CLEANUP(celery_letter_release)
	struct celery_letter letter = {.address = BUF_INIT(1024), .priority = call.priority};
	enum task_submit_status status;
	struct err why = {""};
	span_copy(call.task_id, letter.id, sizeof(letter.id));
	int r = check_input(c, &call, queue, &status, &why);
	if (r == 0)
		r = c->broker->write(c, &call, w, queue, &letter, &why);
	struct celery_operation *op = r == 0 ? operation_new(c, call.task_id, arg) : NULL;
	if (!op) {
		if (r == 0)
			err_set(&why, -ENOMEM, "out of memory");
		task_submit_later(base, status, call.task_id, &why, fn, arg);
		return;
	}
	op->fn.submit = fn;
	op->awaited = call.awaited;
	op->chain = w != NULL;
	op->letter = steal_letter(&letter);
	if (celery_hears(c)) {
		send_or_refuse(op);
		return;
	}
	*c->held_end = op;
	c->held_end = &op->held;
	celery_hear(c, false);
}

/* --- get ------------------------------------------------------------------------------------------------ */

static void on_got_steps(void *arg, enum celery_read_outcome outcome, const struct span *texts, size_t n)
{
	struct celery_operation *asked = arg;
	CLEANUP(buf_releasep) struct buf end = steal_buf(&asked->end), whole = BUF_INIT(512u << 20);
	struct celery_operation op = operation_end(asked);
	struct celery_meta m = CELERY_META_INIT;
	struct task_result r;
	(void)n;
	int error = TASK_E_UNREACHABLE;
	if (outcome == CELERY_READ_REFUSED)
		error = TASK_E_UNREADABLE; /* nobody gets another shape because the store says no */
	else if (outcome == CELERY_READ)
		error = celery_meta_read(&m, buf_span(&end), span_of(op.id), &r);
	if (error == 0 && celery_steps_compose(op.client, texts, r.result, &whole))
		r.result = buf_span(&whole);
	op.fn.result(op.arg, error, error ? NULL : &r);
	celery_meta_release(&m);
}

static bool get_steps(const struct celery_operation *got, struct span text)
{
	struct celery_operation *op = operation_new(got->client, span_of(got->id), got->arg);
	if (!op)
		return false;
	op->fn = got->fn;
	op->end = BUF_INIT(512u << 20);
	struct celery_reading *reading;
	if (buf_append_span(&op->end, text) == 0 &&
	    celery_steps_ask(got->client, span_of(got->id), on_got_steps, op, &reading))
		return true;
	operation_end(op);
	return false;
}

static void on_got(void *arg, enum celery_read_outcome outcome, const struct span *texts, size_t n)
{
	struct celery_operation op = operation_end(arg);
	struct celery_meta m = CELERY_META_INIT;
	struct task_result r = {.task_id = span_of(op.id), .status = TASK_PENDING};
	int error = 0;
	(void)n;
	if (outcome != CELERY_READ) {
		op.fn.result(op.arg, TASK_E_UNREACHABLE, NULL);
		return;
	}
	if (texts[0].ptr)
		error = celery_meta_read(&m, texts[0], span_of(op.id), &r);
	if (error || r.status != TASK_COMPLETED || !get_steps(&op, texts[0]))
		op.fn.result(op.arg, error, error ? NULL : &r);
	celery_meta_release(&m);
}

/* Of a store that hands a result out once, to one process: "cannot be read" is neither "queued" nor
 * "ended". */
static void on_unknown(struct loop_work *work)
{
	struct celery_operation *op =
		(struct celery_operation *)((char *)work - offsetof(struct celery_operation, unknown));
	op->unknown.fn = NULL;
	struct celery_operation copy = operation_end(op);
	copy.fn.result(copy.arg, TASK_E_UNREACHABLE, NULL);
}

static void tell_later(struct celery_operation *op)
{
	op->unknown.fn = on_unknown;
	loop_defer(op->client->base.loop, &op->unknown);
}

static void client_get(struct task_client *base, struct span id, task_result_fn fn, void *arg)
{
	struct celery_client *c = (struct celery_client *)base;
	struct celery_operation *op = operation_new(c, id, arg);
	if (!op) {
		fn(arg, -ENOMEM, NULL);
		return;
	}
	op->fn.result = fn;
	if (c->results->knows && !c->results->knows(c, id))
		tell_later(op);
	else
		c->results->read(c, &id, 1, on_got, op);
}

/* --- cancel --------------------------------------------------------------------------------------------- */

static void on_revoked(void *arg, enum celery_sent sent, int64_t receivers, const struct err *why)
{
	struct celery_operation op = operation_end(arg);
	struct err e = {""};
	int code = 0;
	if (sent != CELERY_SENT)
		code = err_set(&e, TASK_E_UNREACHABLE, "%s", why->text);
	else if (receivers == 0)
		code = err_set(&e, TASK_E_UNREACHABLE, "no worker is listening");
	op.fn.done(op.arg, code, &e);
}

static void client_cancel(struct task_client *base, struct span id, task_done_fn fn, void *arg)
{
	struct celery_client *c = (struct celery_client *)base;
	CLEANUP(buf_releasep) struct buf arguments = BUF_INIT(4096);
	struct err why;
	buf_puts(&arguments, "{\"task_id\": ");
	json_quote(&arguments, id);
	buf_printf(&arguments, ", \"terminate\": %s, \"signal\": \"SIGTERM\"}",
		   c->o->terminate ? "true" : "false");
	struct celery_operation *op = arguments.error ? NULL : operation_new(c, id, arg);
	if (!op) {
		fn(arg, err_set(&why, -ENOMEM, "out of memory"), &why);
		return;
	}
	op->fn.done = fn;
	c->broker->command(c, "revoke", buf_span(&arguments), on_revoked, op);
}

/* --- life ----------------------------------------------------------------------------------------------- */

/* What is NULL was left out of the build, which celery_options_check has said. */
static const struct celery_broker *const brokers[CELERY_BROKERS] = {
	[CELERY_BROKER_REDIS] = &celery_broker_redis,
#ifdef CELERY_HAS_RABBITMQ
	[CELERY_BROKER_AMQP] = &celery_broker_amqp,
#endif
};
static const struct celery_results *const result_stores[CELERY_RESULT_STORES] = {
	[CELERY_RESULTS_REDIS] = &celery_results_redis,
#ifdef CELERY_HAS_RABBITMQ
	[CELERY_RESULTS_RPC] = &celery_results_rpc,
#endif
#ifdef CELERY_HAS_POSTGRESQL
	[CELERY_RESULTS_POSTGRES] = &celery_results_postgres,
#endif
};

static int options_check(struct task_options *base, const struct task_backend_setup *setup, struct err *e)
{
	const struct celery_options *o = (const struct celery_options *)base;
	if (!brokers[o->broker_kind])
		return err_set(
			e, -EINVAL,
			"broker_url is amqp://, and this build has no RabbitMQ (librabbitmq, the meson "
			"option rabbitmq)");
	if (!result_stores[o->results_kind])
		return err_set(e, -EINVAL, "result_backend is %s, and this build has none of it (%s)",
			       o->results_kind == CELERY_RESULTS_RPC ? "rpc://" : "db+postgresql://",
			       o->results_kind == CELERY_RESULTS_RPC
				       ? "librabbitmq, the meson option rabbitmq"
				       : "libpq, the meson option postgresql");
	return celery_options_check(base, setup, e);
}

static int options_start(struct task_options *base, struct err *e)
{
	struct celery_options *o = (struct celery_options *)base;
	const struct celery_broker *broker = brokers[o->broker_kind];
	const struct celery_results *results = result_stores[o->results_kind];
	int r = broker->start ? broker->start(o, e) : 0;
	return r < 0 || !results->start ? r : results->start(o, e);
}

static void options_release(struct task_options *base)
{
	struct celery_options *o = (struct celery_options *)base;
	const struct celery_broker *broker = brokers[o->broker_kind];
	const struct celery_results *results = result_stores[o->results_kind];
	if (results && results->stop)
		results->stop(o);
	if (broker && broker->stop)
		broker->stop(o);
	celery_options_release(base);
}

static void client_free(struct task_client *base)
{
	struct celery_client *c = (struct celery_client *)base;
	celery_waits_drop(c);
	celery_health_drop(c);
	celery_check_drop(c);
	celery_hearing_drop(c);
	c->results->close(c);
	c->broker->close(c);
	while (!LIST_EMPTY(&c->operations))
		operation_end(LIST_FIRST(&c->operations));
	free(c);
}

static int client_new(struct loop *loop, const struct task_options *options, struct task_client **ret,
		      struct err *e)
{
	struct celery_client *c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	task_client_init(&c->base, &celery_backend, loop);
	c->o = (const struct celery_options *)options;
	c->broker = brokers[c->o->broker_kind];
	c->results = result_stores[c->o->results_kind];
	celery_sender_init(&c->sender);
	c->held_end = &c->held;
	int r = celery_waits_init(c);
	if (r == 0)
		r = celery_hearing_init(c, celery_go_on, c);
	r = r < 0 ? err_set(e, r, "out of memory") : c->broker->open(c, e);
	if (r == 0)
		r = c->results->open(c, e);
	if (r < 0) {
		client_free(&c->base);
		return r;
	}
	*ret = &c->base;
	return 0;
}

const struct task_backend celery_backend = {
	.name = "celery",
	.max_input = CELERY_MAX_INPUT,
	.settings = celery_settings,
	.options_size = sizeof(struct celery_options),
	.options_check = options_check,
	.options_start = options_start,
	.options_release = options_release,
	.client_new = client_new,
	.client_free = client_free,
	.submit = client_submit,
	.wait = celery_wait,
	.wait_cancel = celery_wait_cancel,
	.get = client_get,
	.cancel = client_cancel,
	.health = celery_health,
	.check = celery_check,
};
