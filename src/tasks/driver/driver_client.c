/*
 * The client half of the backend `router`: makes operations, and tells their answers on the loop of who
 * asked.
 */
#include <errno.h>
#include <stdlib.h>

#include "tasks/driver/driver_internal.h"

struct driver_client {
	struct task_client base;
	struct driver *driver;
	struct driver_channel *channel;
};

/* --- the way back --------------------------------------------------------------------------------------- */

static struct driver_operation *driver_take_mail(struct driver_channel *c)
{
	pthread_mutex_lock(&c->lock);
	struct driver_operation *mail = c->mail;
	c->mail = NULL;
	c->mail_end = &c->mail;
	pthread_mutex_unlock(&c->lock);
	return mail;
}

static void driver_tell(struct driver_operation *op)
{
	switch (op->kind) {
	case DRIVER_SUBMIT: {
		struct task_submission s = {.status = op->status,
					    .task_id = span_of(op->id),
					    .err = op->err,
					    .about_call = op->about_call};
		op->fn.submit(op->arg, &s);
		break;
	}
	case DRIVER_GET:
	case DRIVER_WAIT:
		op->fn.result(op->arg, op->error, op->error ? NULL : &op->result);
		break;
	case DRIVER_CANCEL:
		op->fn.done(op->arg, op->error, &op->err);
		break;
	case DRIVER_HEALTH:
		op->fn.health(op->arg, &op->health);
		break;
	case DRIVER_CHECK:
		op->fn.check(op->arg, &op->check);
		break;
	case DRIVER_UNWAIT:
		break;
	}
}

static void driver_on_mail(struct loop_work *work)
{
	struct driver_channel *c =
		(struct driver_channel *)((char *)work - offsetof(struct driver_channel, work));
	pthread_mutex_lock(&c->lock);
	c->posted = false;
	pthread_mutex_unlock(&c->lock);
	struct driver_operation *op = driver_take_mail(c);
	while (op) {
		struct driver_operation *next = op->next;
		if (!c->closed && !op->dropped) /* a callback may free the client */
			driver_tell(op);
		driver_operation_free(op);
		op = next;
	}
	driver_channel_unref(c);
}

/* --- client --------------------------------------------------------------------------------------------- */

static void driver_on_detach(struct loop_work *work)
{
	struct driver_channel *c =
		(struct driver_channel *)((char *)work - offsetof(struct driver_channel, detach));
	driver_detach(c->driver, c);
	driver_channel_unref(c);
}

extern const struct task_backend router_backend;

static int driver_client_new(struct loop *loop, const struct task_options *options, struct task_client **ret,
			     struct err *e)
{
	struct driver_client *c = calloc(1, sizeof(*c));
	struct driver_channel *channel = calloc(1, sizeof(*channel));
	if (!c || !channel) {
		free(c);
		free(channel);
		return err_set(e, -ENOMEM, "out of memory");
	}
	task_client_init(&c->base, &router_backend, loop);
	c->driver = ((const struct driver_options *)options)->driver;
	c->channel = channel;
	atomic_init(&channel->references, 1);
	pthread_mutex_init(&channel->lock, NULL);
	channel->loop = loop;
	channel->driver = c->driver;
	channel->work.fn = driver_on_mail;
	channel->detach.fn = driver_on_detach;
	channel->mail_end = &channel->mail;
	*ret = &c->base;
	return 0;
}

static void driver_client_free(struct task_client *base)
{
	struct driver_client *c = (struct driver_client *)base;
	struct driver_channel *channel = c->channel;
	pthread_mutex_lock(&channel->lock);
	channel->closed = true;
	pthread_mutex_unlock(&channel->lock);
	struct driver_operation *op = driver_take_mail(channel);
	while (op) {
		struct driver_operation *next = op->next;
		driver_operation_free(op);
		op = next;
	}
	driver_post_work(c->driver, &channel->detach); /* keeps the client's reference */
	free(c);
}

/* --- operations ----------------------------------------------------------------------------------------- */

static struct driver_operation *driver_operation_new(struct task_client *base,
						     enum driver_operation_kind kind, size_t extra)
{
	struct driver_operation *op = calloc(1, sizeof(*op) + extra);
	if (!op)
		return NULL;
	op->kind = kind;
	op->channel = driver_channel_ref(((struct driver_client *)base)->channel);
	return op;
}

static struct driver_operation *driver_ask(struct task_client *base, enum driver_operation_kind kind,
					   struct span id)
{
	struct driver_operation *op = driver_operation_new(base, kind, 0);
	if (op)
		span_copy(id, op->id, sizeof(op->id));
	return op;
}

static void driver_send(struct task_client *base, struct driver_operation *op)
{
	driver_post_operation(((struct driver_client *)base)->driver, op);
}

static struct span driver_put(char **at, struct span from)
{
	if (!from.ptr)
		return SPAN_NONE;
	struct span copy = {*at, from.len};
	memcpy(*at, from.ptr, from.len);
	*at += from.len;
	return copy;
}

static void driver_fill_call(struct driver_operation *op, const struct task_call *call)
{
	char *at = (char *)(op + 1);
	op->call = (struct run_record){
		.name = driver_put(&at, call->task),
		.owner = driver_put(&at, call->owner),
		.request_id = driver_put(&at, call->request_id),
		.queue = driver_put(&at, call->queue),
		.args = call->args.ptr ? driver_put(&at, call->args) : SPAN_LIT("[]"),
		.kwargs = call->kwargs.ptr ? driver_put(&at, call->kwargs) : SPAN_LIT("{}"),
		.traceparent = driver_put(&at, call->traceparent),
		.tracestate = driver_put(&at, call->tracestate),
		.priority = call->priority,
		.expires_ms = call->expires_ms,
		.shadow = call->shadow,
	};
	op->timeout_ms = call->timeout_ms;
	op->is_workflow = call->workflow;
	span_copy(call->task_id, op->id, sizeof(op->id));
	op->call.id = span_of(op->id);
}

static void driver_client_submit(struct task_client *base, const struct task_call *call, task_submit_fn fn,
				 void *arg)
{
	struct err why;
	size_t size = call->task.len + call->owner.len + call->request_id.len + call->queue.len +
		      call->args.len + call->kwargs.len + call->traceparent.len + call->tracestate.len;
	struct driver_operation *op = driver_operation_new(base, DRIVER_SUBMIT, size);
	if (op) {
		driver_fill_call(op, call);
		op->fn.submit = fn;
		op->arg = arg;
		if (driver_post(((struct driver_client *)base)->driver, op))
			return;
		driver_operation_free(op);
	}
	err_set(&why, 0, op ? "too many workflows are waiting to be begun" : "out of memory");
	task_submit_later(base, TASK_REFUSED, call->task_id, &why, fn, arg);
}

static struct task_wait *driver_client_wait(struct task_client *base, struct span task_id, task_result_fn fn,
					    void *arg)
{
	struct driver_operation *op = driver_ask(base, DRIVER_WAIT, task_id);
	if (!op)
		return NULL;
	op->fn.result = fn;
	op->arg = arg;
	op->number = driver_next_number(((struct driver_client *)base)->driver);
	driver_send(base, op);
	return (struct task_wait *)op;
}

static void driver_client_wait_cancel(struct task_wait *w)
{
	struct driver_operation *op = (struct driver_operation *)w;
	struct driver *driver = op->channel->driver;
	op->dropped = true;
	struct driver_operation *unwait = calloc(1, sizeof(*unwait));
	if (!unwait)
		return; /* it stays with the driver until the run ends */
	unwait->kind = DRIVER_UNWAIT;
	unwait->channel = driver_channel_ref(op->channel);
	unwait->number = op->number;
	memcpy(unwait->id, op->id, sizeof(unwait->id));
	driver_post_operation(driver, unwait);
}

static void driver_client_get(struct task_client *base, struct span task_id, task_result_fn fn, void *arg)
{
	struct driver_operation *op = driver_ask(base, DRIVER_GET, task_id);
	if (!op) {
		fn(arg, -ENOMEM, NULL);
		return;
	}
	op->fn.result = fn;
	op->arg = arg;
	driver_send(base, op);
}

static void driver_client_cancel(struct task_client *base, struct span task_id, task_done_fn fn, void *arg)
{
	struct driver_operation *op = driver_ask(base, DRIVER_CANCEL, task_id);
	if (!op) {
		struct err why;
		fn(arg, err_set(&why, -ENOMEM, "out of memory"), &why);
		return;
	}
	op->fn.done = fn;
	op->arg = arg;
	driver_send(base, op);
}

static void driver_client_health(struct task_client *base, task_health_fn fn, void *arg)
{
	struct driver_operation *op = driver_ask(base, DRIVER_HEALTH, SPAN_NONE);
	if (!op) {
		struct task_health h = {.backlog = -1, .detail = "out of memory"};
		fn(arg, &h);
		return;
	}
	op->fn.health = fn;
	op->arg = arg;
	driver_send(base, op);
}

static void driver_client_check(struct task_client *base, const struct task_probe *probe, task_check_fn fn,
				void *arg)
{
	struct task_check answer = {.known = TASK_ANSWER_UNKNOWN, .worker = TASK_ANSWER_UNKNOWN};
	struct driver_operation *op =
		driver_operation_new(base, DRIVER_CHECK, probe->task.len + probe->queue.len);
	if (!op) {
		span_copy(SPAN_LIT("out of memory"), answer.missing, sizeof(answer.missing));
		fn(arg, &answer);
		return;
	}
	char *at = (char *)(op + 1);
	op->call.name = driver_put(&at, probe->task);
	op->call.queue = driver_put(&at, probe->queue);
	op->call.priority = probe->priority;
	op->is_workflow = probe->workflow;
	op->check = answer;
	op->fn.check = fn;
	op->arg = arg;
	driver_send(base, op);
}

const struct task_backend router_backend = {
	.name = "router",
	.same_id_same_task = true,
	.over_others = true,
	.max_input = DRIVER_MAX_INPUT,
	.settings = driver_settings,
	.options_size = sizeof(struct driver_options),
	.options_check = driver_options_check,
	.options_start = driver_options_start,
	.options_release = driver_options_release,
	.client_new = driver_client_new,
	.client_free = driver_client_free,
	.submit = driver_client_submit,
	.wait = driver_client_wait,
	.wait_cancel = driver_client_wait_cancel,
	.get = driver_client_get,
	.cancel = driver_client_cancel,
	.health = driver_client_health,
	.check = driver_client_check,
};
