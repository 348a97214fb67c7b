/*
 * The client half: makes operations, and tells their answers on the loop of who asked.
 */
#include "tasks/embedded/embedded.h"

#include <errno.h>
#include <stdlib.h>

#include "tasks/embedded/embedded_internal.h"

struct embedded_client {
	struct task_client base;
	struct embedded_store *store;
	struct channel *channel;
};

/* --- the way back --------------------------------------------------------------------------------------- */

static struct embedded_operation *take_mail(struct channel *c)
{
	pthread_mutex_lock(&c->lock);
	struct embedded_operation *mail = c->mail;
	c->mail = NULL;
	c->mail_end = &c->mail;
	pthread_mutex_unlock(&c->lock);
	return mail;
}

static void embedded_tell(struct embedded_operation *op)
{
	switch (op->kind) {
	case OPERATION_SUBMIT: {
		struct task_submission s = {.status = op->status, .task_id = span_of(op->id), .err = op->err};
		op->fn.submit(op->arg, &s);
		break;
	}
	case OPERATION_GET:
	case OPERATION_WAIT:
		op->fn.result(op->arg, op->error, op->error ? NULL : &op->result);
		break;
	case OPERATION_CANCEL:
		op->fn.done(op->arg, op->error, &op->err);
		break;
	case OPERATION_HEALTH:
		op->fn.health(op->arg, &op->health);
		break;
	case OPERATION_CHECK:
		op->fn.check(op->arg, &op->check);
		break;
	case OPERATION_UNWAIT:
		break;
	}
}

static void on_mail(struct loop_work *work)
{
	struct channel *c = (struct channel *)((char *)work - offsetof(struct channel, work));
	pthread_mutex_lock(&c->lock);
	c->posted = false;
	pthread_mutex_unlock(&c->lock);
	struct embedded_operation *op = take_mail(c);
	while (op) {
		struct embedded_operation *next = op->next;
		if (!c->closed && !op->dropped) /* a callback may free the client */
			embedded_tell(op);
		operation_free(op);
		op = next;
	}
	channel_unref(c);
}

/* --- client --------------------------------------------------------------------------------------------- */

static void on_detach(struct loop_work *work)
{
	struct channel *c = (struct channel *)((char *)work - offsetof(struct channel, detach));
	embedded_detach(c->store, c);
	channel_unref(c);
}

static int embedded_client_new(struct loop *loop, const struct task_options *options,
			       struct task_client **ret, struct err *e)
{
	struct embedded_client *c = calloc(1, sizeof(*c));
	struct channel *channel = calloc(1, sizeof(*channel));
	if (!c || !channel) {
		free(c);
		free(channel);
		return err_set(e, -ENOMEM, "out of memory");
	}
	task_client_init(&c->base, &embedded_backend, loop);
	c->store = ((const struct embedded_options *)options)->store;
	c->channel = channel;
	atomic_init(&channel->references, 1);
	pthread_mutex_init(&channel->lock, NULL);
	channel->loop = loop;
	channel->store = c->store;
	channel->work.fn = on_mail;
	channel->detach.fn = on_detach;
	channel->mail_end = &channel->mail;
	*ret = &c->base;
	return 0;
}

static void embedded_client_free(struct task_client *base)
{
	struct embedded_client *c = (struct embedded_client *)base;
	struct channel *channel = c->channel;
	pthread_mutex_lock(&channel->lock);
	channel->closed = true;
	pthread_mutex_unlock(&channel->lock);
	struct embedded_operation *op = take_mail(channel);
	while (op) {
		struct embedded_operation *next = op->next;
		operation_free(op);
		op = next;
	}
	embedded_post_work(c->store, &channel->detach); /* keeps the client's reference */
	free(c);
}

/* --- operations ----------------------------------------------------------------------------------------- */

static struct embedded_operation *embedded_operation_new(struct embedded_client *c, enum operation_kind kind,
							 size_t extra)
{
	struct embedded_operation *op = calloc(1, sizeof(*op) + extra);
	if (!op)
		return NULL;
	op->kind = kind;
	op->bytes = extra;
	op->channel = channel_ref(c->channel);
	return op;
}

static struct span embedded_put(char **at, struct span from)
{
	if (!from.ptr)
		return SPAN_NONE;
	struct span copy = {*at, from.len};
	memcpy(*at, from.ptr, from.len);
	*at += from.len;
	return copy;
}

static struct span queue_of(const struct embedded_client *c, const struct task_call *call)
{
	const struct embedded_options *o = embedded_store_options(c->store);
	if (call->queue.ptr)
		return call->queue;
	if (o->tasks && call->workflow) {
		const struct workflow_definition *w = registry_workflow(o->tasks, call->task);
		if (w)
			return w->queue;
	} else if (o->tasks) {
		const struct task_definition *t = registry_task(o->tasks, call->task);
		if (t)
			return t->queue;
	}
	return SPAN_LIT(REGISTRY_DEFAULT_QUEUE);
}

static void fill_task(struct embedded_operation *op, struct embedded_client *c, const struct task_call *call,
		      struct span queue)
{
	char *at = (char *)(op + 1);
	op->task = (struct store_task){
		.name = embedded_put(&at, call->task),
		.queue = embedded_put(&at, queue),
		.args = call->args.ptr ? embedded_put(&at, call->args) : SPAN_LIT("[]"),
		.kwargs = call->kwargs.ptr ? embedded_put(&at, call->kwargs) : SPAN_LIT("{}"),
		.request_id = embedded_put(&at, call->request_id),
		.traceparent = embedded_put(&at, call->traceparent),
		.tracestate = embedded_put(&at, call->tracestate),
		.owner = call->shadow ? SPAN_LIT(STORE_SHADOW_OWNER) : embedded_put(&at, call->owner),
		.workflow = call->workflow,
		.idempotent = call->idempotent,
		.priority = call->priority,
		.timeout_ms = call->timeout_ms,
		.expires_ms = call->expires_ms,
		.pending_ms = (unsigned)embedded_store_options(c->store)->pending_timeout_ms,
	};
	span_copy(call->task_id, op->id, sizeof(op->id));
	op->task.id = span_of(op->id);
}

static void embedded_client_submit(struct task_client *base, const struct task_call *call, task_submit_fn fn,
				   void *arg)
{
	struct embedded_client *c = (struct embedded_client *)base;
	struct span queue = queue_of(c, call);
	struct err why;
	size_t size = call->task.len + queue.len + call->args.len + call->kwargs.len + call->request_id.len +
		      call->owner.len + call->traceparent.len + call->tracestate.len;
	struct embedded_operation *op = embedded_operation_new(c, OPERATION_SUBMIT, size);
	if (op) {
		fill_task(op, c, call, queue);
		op->fn.submit = fn;
		op->arg = arg;
		if (embedded_post(c->store, op))
			return;
		operation_free(op);
	}
	err_set(&why, 0, op ? "the queue to the task store is full" : "out of memory");
	task_submit_later(base, TASK_REFUSED, call->task_id, &why, fn, arg);
}

/* The queue's bound does not apply: these are as many as requests in flight. */
static struct embedded_operation *embedded_ask(struct task_client *base, enum operation_kind kind,
					       struct span id)
{
	struct embedded_operation *op = embedded_operation_new((struct embedded_client *)base, kind, 0);
	if (op)
		span_copy(id, op->id, sizeof(op->id));
	return op;
}

static struct task_wait *embedded_client_wait(struct task_client *base, struct span task_id,
					      task_result_fn fn, void *arg)
{
	struct embedded_client *c = (struct embedded_client *)base;
	struct embedded_operation *op = embedded_ask(base, OPERATION_WAIT, task_id);
	if (!op)
		return NULL;
	op->fn.result = fn;
	op->arg = arg;
	op->number = embedded_next_number(c->store);
	embedded_post_operation(c->store, op);
	return (struct task_wait *)op;
}

static void embedded_client_wait_cancel(struct task_wait *w)
{
	struct embedded_operation *op = (struct embedded_operation *)w;
	struct embedded_store *store = op->channel->store;
	op->dropped = true;
	struct embedded_operation *unwait = calloc(1, sizeof(*unwait));
	if (!unwait)
		return; /* it stays in the store until the task ends */
	unwait->kind = OPERATION_UNWAIT;
	unwait->channel = channel_ref(op->channel);
	unwait->number = op->number;
	memcpy(unwait->id, op->id, sizeof(unwait->id));
	embedded_post_operation(store, unwait);
}

static void embedded_client_get(struct task_client *base, struct span task_id, task_result_fn fn, void *arg)
{
	struct embedded_operation *op = embedded_ask(base, OPERATION_GET, task_id);
	if (!op) {
		fn(arg, -ENOMEM, NULL);
		return;
	}
	op->fn.result = fn;
	op->arg = arg;
	embedded_post_operation(((struct embedded_client *)base)->store, op);
}

static void embedded_client_cancel(struct task_client *base, struct span task_id, task_done_fn fn, void *arg)
{
	struct embedded_operation *op = embedded_ask(base, OPERATION_CANCEL, task_id);
	if (!op) {
		struct err why;
		fn(arg, err_set(&why, -ENOMEM, "out of memory"), &why);
		return;
	}
	op->fn.done = fn;
	op->arg = arg;
	embedded_post_operation(((struct embedded_client *)base)->store, op);
}

static void embedded_client_health(struct task_client *base, task_health_fn fn, void *arg)
{
	struct embedded_operation *op = embedded_ask(base, OPERATION_HEALTH, SPAN_NONE);
	if (!op) {
		struct task_health h = {.backlog = -1, .detail = "out of memory"};
		fn(arg, &h);
		return;
	}
	op->fn.health = fn;
	op->arg = arg;
	embedded_post_operation(((struct embedded_client *)base)->store, op);
}

/* --- check ---------------------------------------------------------------------------------------------- */

static bool listed(struct span list, struct span one)
{
	while (list.len) {
		const char *comma = memchr(list.ptr, ',', list.len);
		size_t n = comma ? (size_t)(comma - list.ptr) : list.len;
		if (span_eq((struct span){list.ptr, n}, one))
			return true;
		list.ptr += n + (comma != NULL);
		list.len -= n + (comma != NULL);
	}
	return false;
}

static void add_queue(struct buf *list, struct span queue)
{
	if (listed(buf_span(list), queue))
		return;
	if (list->len)
		buf_putc(list, ',');
	buf_append_span(list, queue);
}

/* Every queue that must be served: a workflow's steps have their own. */
static void needed_queues(const struct embedded_client *c, const struct task_probe *probe, struct buf *list)
{
	const struct registry *tasks = embedded_store_options(c->store)->tasks;
	const struct task_call call = {
		.task = probe->task, .workflow = probe->workflow, .queue = probe->queue};
	add_queue(list, queue_of(c, &call));
	const struct workflow_definition *w =
		tasks && probe->workflow ? registry_workflow(tasks, probe->task) : NULL;
	for (size_t i = 0; w && i < w->n_steps; i++) {
		const struct task_definition *step = registry_task(tasks, w->steps[i].task);
		struct span queue = w->steps[i].queue;
		if (step)
			add_queue(list, queue.ptr ? queue : step->queue);
	}
}

/* By the tasks file, as long as the workers do not say themselves what they know; without one they have the
 * core tasks unless they were given a file of their own. */
static enum task_answer embedded_is_known(const struct embedded_client *c, const struct task_probe *probe,
					  struct buf *why)
{
	const struct registry *tasks = embedded_store_options(c->store)->tasks;
	if (!tasks)
		return !probe->workflow && core_task_find(probe->task) ? TASK_ANSWER_YES
								       : TASK_ANSWER_UNKNOWN;
	const struct workflow_definition *w = probe->workflow ? registry_workflow(tasks, probe->task) : NULL;
	if (w && registry_is_for_router(w)) {
		buf_puts(why, "the workflow is declared for the router to drive");
		return TASK_ANSWER_NO;
	}
	if (probe->workflow ? w != NULL : registry_task(tasks, probe->task) != NULL)
		return TASK_ANSWER_YES;
	registry_describe_unknown(tasks, probe->task, probe->workflow, why);
	return TASK_ANSWER_NO;
}

static void embedded_client_check(struct task_client *base, const struct task_probe *probe, task_check_fn fn,
				  void *arg)
{
	struct embedded_client *c = (struct embedded_client *)base;
	CLEANUP(buf_releasep) struct buf queues = BUF_INIT(1u << 20), why = BUF_INIT(1u << 20);
	needed_queues(c, probe, &queues);
	struct task_check answer = {.worker = TASK_ANSWER_UNKNOWN,
				    .known = embedded_is_known(c, probe, &why)};
	size_t size = queues.len + probe->task.len;
	struct embedded_operation *op =
		queues.error ? NULL : embedded_operation_new(c, OPERATION_CHECK, size);
	if (!op) {
		span_copy(SPAN_LIT("out of memory"), answer.missing, sizeof(answer.missing));
		fn(arg, &answer);
		return;
	}
	char *at = (char *)(op + 1);
	op->task.queue = embedded_put(&at, buf_span(&queues));
	op->task.name = embedded_put(&at, probe->task);
	op->task.workflow = probe->workflow;
	span_copy(buf_span(&why), answer.missing, sizeof(answer.missing));
	op->check = answer;
	op->fn.check = fn;
	op->arg = arg;
	embedded_post_operation(c->store, op);
}

const struct task_backend embedded_backend = {
	.name = "embedded",
	.same_id_same_task = true,
	.max_input = EMBEDDED_MAX_INPUT,
	.settings = embedded_settings,
	.options_size = sizeof(struct embedded_options),
	.options_check = embedded_options_check,
	.options_start = embedded_options_start,
	.options_release = embedded_options_release,
	.client_new = embedded_client_new,
	.client_free = embedded_client_free,
	.submit = embedded_client_submit,
	.wait = embedded_client_wait,
	.wait_cancel = embedded_client_wait_cancel,
	.get = embedded_client_get,
	.cancel = embedded_client_cancel,
	.health = embedded_client_health,
	.check = embedded_client_check,
};
