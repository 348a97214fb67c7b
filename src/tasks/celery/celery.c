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
	struct buf key, message;       /* until it is pushed */
	char id[TASK_ID_MAX];
};

/* --- operations ----------------------------------------------------------------------------------------- */

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
	buf_release(&op->key);
	buf_release(&op->message);
	free(op);
	return copy;
}

static struct buf steal_buf(struct buf *b)
{
	struct buf taken = *b;
	*b = BUF_INIT(b->max);
	return taken;
}

/* --- submit --------------------------------------------------------------------------------------------- */

static void on_pushed(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		      const struct err *why)
{
	struct celery_operation op = operation_end(arg);
	struct task_submission s = {.status = TASK_SUBMITTED, .task_id = span_of(op.id)};
	if (outcome == REDIS_NO_REPLY)
		s.status = TASK_UNKNOWN;
	else if (outcome == REDIS_NOT_SENT || redis_reply_type(reply) == REDIS_ERROR)
		s.status = TASK_REFUSED;
	if (outcome != REDIS_ANSWERED)
		s.err = *why;
	else if (s.status == TASK_REFUSED)
		err_set(&s.err, 0, "Redis at %s refused the message: %.*s", redis_where(op.client->broker),
			SPAN_ARG(redis_reply_text(reply)));
	if (s.status == TASK_SUBMITTED)
		celery_wait_offer(op.ahead);
	else
		celery_wait_cancel(op.ahead);
	op.fn.submit(op.arg, &s);
}

/* A message that a worker cannot decode would be lost there: better refused here. */
static int check_input(const struct celery_client *c, const struct task_call *call, struct span queue,
		       enum task_submit_status *ret, struct err *why)
{
	size_t size = call->args.len + call->kwargs.len;
	*ret = TASK_REFUSED;
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

/* LPUSH and nothing else: a list needs no binding, and the tables of bindings are the application's (with
 * another `sep`, or an exchange of another type of that name, an entry of ours would break every producer
 * of it). */
static void push(struct celery_operation *op)
{
	struct celery_client *c = op->client;
	CLEANUP(buf_releasep) struct buf key = steal_buf(&op->key), message = steal_buf(&op->message);
	if (op->awaited)
		op->ahead = celery_wait_ahead(c, span_of(op->id), op->chain);
	const struct span words[] = {SPAN_LIT("LPUSH"), buf_span(&key), buf_span(&message)};
	redis_command(c->broker, words, 3, 0, on_pushed, op);
}

/* Nobody would ever learn of a result that cannot be heard: better not begun. Of a broker that is away
 * LPUSH tells more. */
static void push_or_refuse(struct celery_operation *op)
{
	struct celery_client *c = op->client;
	struct err why;
	if (!c->hearing.why.text[0] || redis_away(c->broker, &why)) {
		push(op);
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
		push_or_refuse(op);
	}
	celery_pidbox_go_on(c);
}

static int write_message(const struct celery_client *c, const struct task_call *call, struct span queue,
			 struct buf *key, struct buf *message, struct err *why)
{
	const struct workflow_definition *w = celery_workflow(c, call->workflow, call->task);
	buf_puts(key, c->o->broker_prefix);
	int r = celery_queue_key(&c->o->lists, queue, call->priority, key);
	if (r == 0)
		r = w ? celery_chain_message(&c->sender, call, w, queue, clock_wall_us(), message)
		      : celery_task_message(&c->sender, call, queue, clock_wall_us(), message);
	if (r == -EFBIG)
		return err_set(why, r, "the message would be too large for Redis");
	return r < 0 ? err_set(why, r, "out of memory") : 0;
}

static void client_submit(struct task_client *base, const struct task_call *given, task_submit_fn fn,
			  void *arg)
{
	struct celery_client *c = (struct celery_client *)base;
	struct task_call call = trimmed(given);
	struct span queue = call.queue.len ? call.queue : span_of(c->o->queue);
	CLEANUP(buf_releasep) struct buf key = BUF_INIT(1024), message = BUF_INIT((512u << 20) - 1);
	enum task_submit_status status;
	struct err why = {""};
	int r = check_input(c, &call, queue, &status, &why);
	if (r == 0)
		r = write_message(c, &call, queue, &key, &message, &why);
	struct celery_operation *op = r == 0 ? operation_new(c, call.task_id, arg) : NULL;
	if (!op) {
		if (r == 0)
			err_set(&why, -ENOMEM, "out of memory");
		task_submit_later(base, status, call.task_id, &why, fn, arg);
		return;
	}
	op->fn.submit = fn;
	op->awaited = call.awaited;
	op->chain = celery_workflow(c, call.workflow, call.task) != NULL;
	op->key = steal_buf(&key);
	op->message = steal_buf(&message);
	if (celery_hears(c)) {
		push_or_refuse(op);
		return;
	}
	*c->held_end = op;
	c->held_end = &op->held;
	celery_hear(c, false);
}

/* --- get ------------------------------------------------------------------------------------------------ */

/* `message` is the final meta of what may be a chain. */
static void on_got_steps(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			 const struct err *why)
{
	struct celery_operation *asked = arg;
	CLEANUP(buf_releasep) struct buf end = steal_buf(&asked->message), whole = BUF_INIT(512u << 20);
	struct celery_operation op = operation_end(asked);
	struct celery_meta m = CELERY_META_INIT;
	struct task_result r;
	(void)why;
	int error = TASK_E_UNREACHABLE;
	if (outcome == REDIS_ANSWERED && redis_reply_type(reply) == REDIS_ERROR)
		error = TASK_E_UNREADABLE; /* nobody gets another shape because Redis says no */
	else if (outcome == REDIS_ANSWERED)
		error = celery_meta_read(&m, buf_span(&end), span_of(op.id), &r);
	if (error == 0 && celery_steps_compose(op.client, reply, r.result, &whole))
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
	op->message = BUF_INIT(512u << 20);
	struct redis_call *call;
	if (buf_append_span(&op->message, text) == 0 &&
	    celery_steps_ask(got->client, span_of(got->id), on_got_steps, op, &call))
		return true;
	operation_end(op);
	return false;
}

static void on_got(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		   const struct err *why)
{
	struct celery_operation op = operation_end(arg);
	struct celery_meta m = CELERY_META_INIT;
	struct task_result r = {.task_id = span_of(op.id), .status = TASK_PENDING};
	int error = 0;
	(void)why;
	if (outcome != REDIS_ANSWERED || redis_reply_type(reply) == REDIS_ERROR) {
		op.fn.result(op.arg, TASK_E_UNREACHABLE, NULL);
		return;
	}
	if (redis_reply_type(reply) == REDIS_TEXT)
		error = celery_meta_read(&m, redis_reply_text(reply), span_of(op.id), &r);
	if (error || r.status != TASK_COMPLETED || !get_steps(&op, redis_reply_text(reply)))
		op.fn.result(op.arg, error, error ? NULL : &r);
	celery_meta_release(&m);
}

static void client_get(struct task_client *base, struct span id, task_result_fn fn, void *arg)
{
	struct celery_client *c = (struct celery_client *)base;
	char key[CELERY_KEY_MAX];
	struct celery_operation *op = operation_new(c, id, arg);
	if (!op) {
		fn(arg, -ENOMEM, NULL);
		return;
	}
	op->fn.result = fn;
	const struct span words[] = {SPAN_LIT("GET"), celery_result_key(c, id, key)};
	redis_command(c->results, words, 2, 0, on_got, op);
}

/* --- cancel --------------------------------------------------------------------------------------------- */

static void on_revoked(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		       const struct err *why)
{
	struct celery_operation op = operation_end(arg);
	struct err e = {""};
	int code = 0;
	if (outcome != REDIS_ANSWERED)
		code = err_set(&e, TASK_E_UNREACHABLE, "%s", why->text);
	else if (redis_reply_type(reply) == REDIS_ERROR)
		code = err_set(&e, TASK_E_UNREACHABLE, "Redis at %s: %.*s", redis_where(op.client->broker),
			       SPAN_ARG(redis_reply_text(reply)));
	else if (redis_reply_integer(reply) == 0)
		code = err_set(&e, TASK_E_UNREACHABLE, "no worker is listening");
	op.fn.done(op.arg, code, &e);
}

static void client_cancel(struct task_client *base, struct span id, task_done_fn fn, void *arg)
{
	struct celery_client *c = (struct celery_client *)base;
	CLEANUP(buf_releasep) struct buf channel = BUF_INIT(1024);
	CLEANUP(buf_releasep) struct buf arguments = BUF_INIT(4096);
	CLEANUP(buf_releasep) struct buf message = BUF_INIT(1u << 16);
	struct err why;
	celery_pidbox_channel(c, &channel);
	buf_puts(&arguments, "{\"task_id\": ");
	json_quote(&arguments, id);
	buf_printf(&arguments, ", \"terminate\": %s, \"signal\": \"SIGTERM\"}",
		   c->o->terminate ? "true" : "false");
	int r = celery_control_message(c->o->control_exchange, "revoke", buf_span(&arguments), NULL,
				       SPAN_NONE, &message);
	struct celery_operation *op =
		r < 0 || channel.error || arguments.error ? NULL : operation_new(c, id, arg);
	if (!op) {
		fn(arg, err_set(&why, -ENOMEM, "out of memory"), &why);
		return;
	}
	op->fn.done = fn;
	const struct span words[] = {SPAN_LIT("PUBLISH"), buf_span(&channel), buf_span(&message)};
	redis_command(c->broker, words, 3, 0, on_revoked, op);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void on_broker(void *arg, enum redis_state state, const char *why)
{
	struct celery_client *c = arg;
	(void)why;
	if (state == REDIS_READY && c->results == c->broker)
		celery_waits_read_again(c);
}

static void on_results(void *arg, enum redis_state state, const char *why)
{
	(void)why;
	if (state == REDIS_READY)
		celery_waits_read_again(arg);
}

static void client_free(struct task_client *base)
{
	struct celery_client *c = (struct celery_client *)base;
	celery_waits_drop(c);
	celery_health_drop(c);
	celery_check_drop(c);
	celery_hearing_drop(c);
	redis_free(c->listener);
	redis_free(c->replies);
	if (c->results != c->broker)
		redis_free(c->results);
	redis_free(c->broker);
	while (!LIST_EMPTY(&c->operations))
		operation_end(LIST_FIRST(&c->operations));
	free(c);
}

static int connect_all(struct celery_client *c, struct err *e)
{
	const struct redis_url *results = c->o->has_results ? &c->o->results : &c->o->broker;
	int r = celery_connect(c, &c->o->broker, on_broker, &c->broker, e);
	if (r == 0 && redis_url_same(results, &c->o->broker, false))
		c->results = c->broker;
	else if (r == 0)
		r = celery_connect(c, results, on_results, &c->results, e);
	return r < 0 ? r : celery_connect(c, results, celery_hearing_state, &c->listener, e);
}

static int client_new(struct loop *loop, const struct task_options *options, struct task_client **ret,
		      struct err *e)
{
	struct celery_client *c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	task_client_init(&c->base, &celery_backend, loop);
	c->o = (const struct celery_options *)options;
	celery_sender_init(&c->sender);
	c->held_end = &c->held;
	int r = celery_waits_init(c);
	if (r == 0)
		r = celery_hearing_init(c, celery_go_on, c);
	r = r < 0 ? err_set(e, r, "out of memory") : connect_all(c, e);
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
	.options_check = celery_options_check,
	.options_release = celery_options_release,
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
