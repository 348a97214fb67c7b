/*
 * Backend `parrot`: runs tasks in the router itself, at once, and remembers them as long as the router runs.
 *
 * Why:       shows all that a backend must have. This file is one, and its row stands in tests/meson.build.
 * Tasks:     give_back (its argument), give_size (its length), fail (with its argument), and the core tasks.
 *            Those that `silent` names never end.
 * Shape:     one memory of tasks for the clients of every loop. How a task ends is known when it is
 *            submitted; that it ended shows when its time has come.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "tasks/task_options.h"
#include "tasks/worker/builtin.h"

#define MAX_INPUT (4u << 20)
#define LOOK_AGAIN_MS 10 /* a cancellation may come from another loop */
#define NEVER INT64_MAX

struct parrot_task {
	struct parrot_task *next;
	char id[TASK_ID_MAX], name[TASK_NAME_MAX];
	char *owner;
	struct buf text; /* the result, or the error's sentence */
	bool failed, cancelled;
	int64_t submitted_us, ends_us; /* wall clock */
};

/* What the clients of all loops share. */
struct parrot_memory {
	pthread_mutex_t lock;
	struct parrot_task *tasks;
};

struct parrot_options {
	struct task_options base;
	char *silent; /* names with commas between them, or NULL */
	unsigned delay_ms;
	struct parrot_memory *memory; /* by start */
};

extern const struct task_backend parrot_backend; /* the table's, see src/tasks/backends.c */

/* --- settings ------------------------------------------------------------------------------------------- */

static int set_delay(void *field, struct span value, struct err *e)
{
	char text[32];
	int64_t ms;
	span_copy(value, text, sizeof(text));
	if (value.len >= sizeof(text) || clock_parse_duration(text, &ms) < 0 || ms > 60000)
		return err_set(e, -EINVAL, "expected a duration up to 1m");
	*(unsigned *)field = (unsigned)ms;
	return 0;
}

static const struct task_setting settings[] = {
	{.key = "delay",
	 .set = set_delay,
	 .offset = offsetof(struct parrot_options, delay_ms),
	 .variables = {"PARROT_DELAY"}},
	{.key = "silent", .set = task_setting_text, .offset = offsetof(struct parrot_options, silent)},
	{.key = NULL},
};

static int options_start(struct task_options *base, struct err *e)
{
	struct parrot_options *o = (struct parrot_options *)base;
	o->memory = calloc(1, sizeof(*o->memory));
	if (!o->memory)
		return err_set(e, -ENOMEM, "out of memory");
	pthread_mutex_init(&o->memory->lock, NULL);
	return 0;
}

static void memory_free(struct parrot_memory *m)
{
	for (struct parrot_task *t = m->tasks, *next; t; t = next) {
		next = t->next;
		buf_release(&t->text);
		free(t->owner);
		free(t);
	}
	pthread_mutex_destroy(&m->lock);
	free(m);
}

static void options_release(struct task_options *base)
{
	struct parrot_options *o = (struct parrot_options *)base;
	if (o->memory)
		memory_free(o->memory);
	free(o->silent);
}

/* --- tasks ---------------------------------------------------------------------------------------------- */

static int run_give_back(const struct builtin_call *call, struct buf *out, struct err *e)
{
	(void)e;
	return buf_append_span(out, call->values[0]);
}

static int run_give_size(const struct builtin_call *call, struct buf *out, struct err *e)
{
	(void)e;
	return buf_printf(out, "%zu", call->values[0].len - 2);
}

static int run_fail(const struct builtin_call *call, struct buf *out, struct err *e)
{
	CLEANUP(buf_releasep) struct buf message = BUF_INIT(256);
	(void)out;
	json_unescape(call->values[0], &message);
	return err_set(e, -EINVAL, "%s", message.ptr ? message.ptr : "");
}

static const struct builtin *find(struct span name)
{
	static const struct builtin own[] = {
		{"give_back", {{"value", BUILTIN_ANY, NULL}}, 1, run_give_back, NULL, NULL},
		{"give_size", {{"text", BUILTIN_STRING, NULL}}, 1, run_give_size, NULL, NULL},
		{"fail", {{"message", BUILTIN_STRING, NULL}}, 1, run_fail, NULL, NULL}};
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (span_is(name, own[i].name))
			return &own[i];
	return core_task_find(name);
}

static bool is_silent(const struct parrot_options *o, struct span name)
{
	for (const char *at = o->silent; at && *at; at += strcspn(at, ","), at += *at == ',')
		if (span_eq((struct span){at, strcspn(at, ",")}, name))
			return true;
	return false;
}

/* A task that sleeps ends later. */
static bool sleep_later(void *arg, unsigned ms)
{
	struct parrot_task *t = arg;
	t->ends_us += (int64_t)ms * 1000;
	return true;
}

static void run(struct parrot_task *t, const struct task_call *call)
{
	const struct builtin *b = find(call->task);
	struct builtin_call bound = {.sleep = sleep_later, .sleep_arg = t};
	struct err e = {""};
	int r = b ? builtin_bind(b, call->args.ptr ? call->args : SPAN_LIT("[]"), call->kwargs, &bound, &e)
		  : err_set(&e, -ENOENT, "there is no task \"%.*s\"", SPAN_ARG(call->task));
	if (r == 0)
		r = b->run(&bound, &t->text, &e);
	if (r == 0)
		return;
	t->failed = true;
	buf_clear(&t->text);
	buf_puts(&t->text, e.text);
}

static struct parrot_task *find_task(const struct parrot_memory *m, struct span id)
{
	struct parrot_task *t = m->tasks;
	while (t && !span_is(id, t->id))
		t = t->next;
	return t;
}

/* 0 or TASK_E_NOT_FOUND. What the result borrows stays as long as the options. */
static int look(struct parrot_memory *m, struct span id, struct task_result *ret)
{
	pthread_mutex_lock(&m->lock);
	const struct parrot_task *t = find_task(m, id);
	if (t) {
		bool ended = t->ends_us <= clock_wall_us();
		*ret = (struct task_result){.task_id = span_of(t->id),
					    .task_name = span_of(t->name),
					    .status = !ended			  ? TASK_RUNNING
						      : t->failed || t->cancelled ? TASK_FAILED
										  : TASK_COMPLETED,
					    .cancelled = t->cancelled,
					    .submitted_us = t->submitted_us,
					    .started_us = t->submitted_us,
					    .completed_us = ended ? t->ends_us : 0,
					    .attempts = 1,
					    .owner = span_of(t->owner)};
		if (ret->status == TASK_COMPLETED)
			ret->result = buf_span(&t->text);
		else if (ret->status == TASK_FAILED)
			ret->error = t->cancelled ? SPAN_LIT("cancelled") : buf_span(&t->text);
	}
	pthread_mutex_unlock(&m->lock);
	return t ? 0 : TASK_E_NOT_FOUND;
}

/* --- client --------------------------------------------------------------------------------------------- */

struct parrot_client {
	struct task_client base;
	const struct parrot_options *options;
	struct asked *asked;
};

/* A question on its way to its answer, which comes in a later round of the loop. */
struct asked {
	struct asked *next, **link;
	struct parrot_client *client;
	struct loop_timer *timer;
	void (*answer)(struct asked *a);
	char id[TASK_ID_MAX];
	struct task_check check;
	union {
		task_result_fn result;
		task_done_fn done;
		task_health_fn health;
		task_check_fn check;
	} fn;
	void *arg;
};

static void asked_free(struct asked *a)
{
	*a->link = a->next;
	if (a->next)
		a->next->link = a->link;
	loop_timer_free(a->timer);
	free(a);
}

static void on_timer(void *arg)
{
	struct asked *a = arg;
	a->answer(a);
}

/* NULL when memory is out. */
static struct asked *ask(struct task_client *base, struct span id, void (*answer)(struct asked *a), void *arg)
{
	struct parrot_client *c = (struct parrot_client *)base;
	struct asked *a = calloc(1, sizeof(*a));
	if (!a || loop_timer_new(base->loop, on_timer, a, &a->timer) < 0) {
		free(a);
		return NULL;
	}
	a->client = c;
	a->answer = answer;
	a->arg = arg;
	span_copy(id, a->id, sizeof(a->id));
	a->next = c->asked;
	a->link = &c->asked;
	if (a->next)
		a->next->link = &a->next;
	c->asked = a;
	loop_timer_start(a->timer, 0);
	return a;
}

static int client_new(struct loop *loop, const struct task_options *options, struct task_client **ret,
		      struct err *e)
{
	struct parrot_client *c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	task_client_init(&c->base, &parrot_backend, loop);
	c->options = (const struct parrot_options *)options;
	return (*ret = &c->base, 0);
}

static void client_free(struct task_client *base)
{
	struct parrot_client *c = (struct parrot_client *)base;
	while (c->asked)
		asked_free(c->asked);
	free(c);
}

static struct parrot_task *task_new(const struct parrot_options *o, const struct task_call *call)
{
	struct parrot_task *t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	buf_init(&t->text, 2 * MAX_INPUT);
	span_copy(call->task_id, t->id, sizeof(t->id));
	span_copy(call->task, t->name, sizeof(t->name));
	t->owner = span_dup(call->owner.ptr ? call->owner : SPAN_LIT(""));
	t->submitted_us = clock_wall_us();
	t->ends_us = t->submitted_us + (int64_t)o->delay_ms * 1000;
	if (is_silent(o, call->task))
		t->ends_us = NEVER;
	else
		run(t, call);
	return t;
}

static void client_submit(struct task_client *base, const struct task_call *call, task_submit_fn fn,
			  void *arg)
{
	const struct parrot_options *o = ((struct parrot_client *)base)->options;
	struct parrot_memory *m = o->memory;
	struct err why = {"out of memory"};
	struct parrot_task *t = task_new(o, call);
	if (t) {
		pthread_mutex_lock(&m->lock);
		t->next = m->tasks;
		m->tasks = t;
		pthread_mutex_unlock(&m->lock);
	}
	task_submit_later(base, t ? TASK_SUBMITTED : TASK_REFUSED, call->task_id, &why, fn, arg);
}

static void answer_get(struct asked *a)
{
	struct asked copy = *a;
	struct task_result r;
	int error = look(a->client->options->memory, span_of(a->id), &r);
	asked_free(a);
	copy.fn.result(copy.arg, error, error ? NULL : &r);
}

static void answer_wait(struct asked *a)
{
	struct task_result r;
	if (look(a->client->options->memory, span_of(a->id), &r) == 0 && r.status == TASK_RUNNING)
		loop_timer_start(a->timer, LOOK_AGAIN_MS);
	else
		answer_get(a);
}

static void client_get(struct task_client *base, struct span id, task_result_fn fn, void *arg)
{
	struct asked *a = ask(base, id, answer_get, arg);
	if (a)
		a->fn.result = fn;
	else
		fn(arg, -ENOMEM, NULL);
}

static struct task_wait *client_wait(struct task_client *base, struct span id, task_result_fn fn, void *arg)
{
	struct asked *a = ask(base, id, answer_wait, arg);
	if (a)
		a->fn.result = fn;
	return (struct task_wait *)a;
}

static void client_wait_cancel(struct task_wait *w)
{
	asked_free((struct asked *)w);
}

static void answer_cancel(struct asked *a)
{
	struct parrot_memory *m = a->client->options->memory;
	struct asked copy = *a;
	struct err e = {""};
	asked_free(a);
	pthread_mutex_lock(&m->lock);
	struct parrot_task *t = find_task(m, span_of(copy.id));
	if (t && t->ends_us > clock_wall_us()) {
		t->cancelled = true;
		t->ends_us = clock_wall_us();
	}
	pthread_mutex_unlock(&m->lock);
	copy.fn.done(copy.arg, t ? 0 : err_set(&e, TASK_E_NOT_FOUND, "there is no such task"), &e);
}

static void client_cancel(struct task_client *base, struct span id, task_done_fn fn, void *arg)
{
	struct err e = {"out of memory"};
	struct asked *a = ask(base, id, answer_cancel, arg);
	if (a)
		a->fn.done = fn;
	else
		fn(arg, -ENOMEM, &e);
}

static void answer_health(struct asked *a)
{
	const struct task_health h = {.reachable = true, .worker = true, .backlog = 0};
	struct asked copy = *a;
	asked_free(a);
	copy.fn.health(copy.arg, &h);
}

static void client_health(struct task_client *base, task_health_fn fn, void *arg)
{
	const struct task_health none = {.backlog = -1, .detail = "out of memory"};
	struct asked *a = ask(base, SPAN_LIT(""), answer_health, arg);
	if (a)
		a->fn.health = fn;
	else
		fn(arg, &none);
}

static void answer_check(struct asked *a)
{
	struct asked copy = *a;
	asked_free(a);
	copy.fn.check(copy.arg, &copy.check);
}

static void client_check(struct task_client *base, const struct task_probe *probe, task_check_fn fn,
			 void *arg)
{
	struct task_check c = {.reachable = true, .known = TASK_ANSWER_YES, .worker = TASK_ANSWER_YES};
	struct parrot_client *client = (struct parrot_client *)base;
	struct asked *a = ask(base, SPAN_LIT(""), answer_check, arg);
	if (!find(probe->task) && !is_silent(client->options, probe->task)) {
		c.known = TASK_ANSWER_NO;
		span_copy(SPAN_LIT("the parrot has never heard of it"), c.missing, sizeof(c.missing));
	}
	if (!a) {
		fn(arg, &c);
		return;
	}
	a->check = c;
	a->fn.check = fn;
}

const struct task_backend parrot_backend = {
	.name = "parrot",
	.max_input = MAX_INPUT,
	.settings = settings,
	.options_size = sizeof(struct parrot_options),
	.options_start = options_start,
	.options_release = options_release,
	.client_new = client_new,
	.client_free = client_free,
	.submit = client_submit,
	.wait = client_wait,
	.wait_cancel = client_wait_cancel,
	.get = client_get,
	.cancel = client_cancel,
	.health = client_health,
	.check = client_check,
};
