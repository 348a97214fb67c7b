/*
 * Tasks in C run on a thread of their own each, as many as the worker's concurrency, since they may sleep or
 * compute.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/cleanup.h"
#include "tasks/worker/handler.h"

struct builtin_run {
	struct handler_run run;
	const struct task_definition *t;
	const struct builtin *builtin;
	struct loop *loop;
	struct loop_work ended;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stopping; /* under lock */
	char *args, *kwargs, *task_id;
	size_t args_len, kwargs_len;
	int code;
	struct buf out;
	struct err err;
};

static bool sleep_unless_stopped(void *arg, unsigned ms)
{
	struct builtin_run *r = arg;
	struct timespec until = clock_deadline(CLOCK_MONOTONIC, ms);
	pthread_mutex_lock(&r->lock);
	int code = 0;
	while (!r->stopping && code == 0)
		code = pthread_cond_timedwait(&r->wake, &r->lock, &until);
	bool stopped = r->stopping;
	pthread_mutex_unlock(&r->lock);
	return !stopped;
}

static void *run_thread(void *arg)
{
	struct builtin_run *r = arg;
	struct builtin_call call = {.sleep = sleep_unless_stopped, .sleep_arg = r};
	call.args = (struct span){r->args, r->args_len};
	call.kwargs = (struct span){r->kwargs, r->kwargs_len};
	call.task_id = span_of(r->task_id);
	if (r->builtin->run_raw)
		r->code = r->builtin->run_raw(r->builtin->arg, &call, &r->out, &r->err);
	else
		r->code = builtin_bind(r->builtin, call.args, call.kwargs, &call, &r->err);
	if (r->code == 0 && !r->builtin->run_raw)
		r->code = r->builtin->run(&call, &r->out, &r->err);
	loop_post(r->loop, &r->ended);
	return NULL;
}

static void handler_builtin_run_free(struct builtin_run *r)
{
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->wake);
	buf_release(&r->out);
	free(r->args);
	free(r->kwargs);
	free(r->task_id);
	free(r);
}

static void on_ended(struct loop_work *work)
{
	struct builtin_run *r = (struct builtin_run *)((char *)work - offsetof(struct builtin_run, ended));
	pthread_join(r->thread, NULL);
	if (r->code == 0) {
		struct handler_outcome o = {.result = buf_span(&r->out)};
		r->run.done(r->run.arg, &o);
	} else if (r->err.text[0]) { /* the task's own error */
		handler_fail(&r->run, false, span_of(r->err.text), SPAN_NONE);
	} else {
		handler_fail_as(&r->run, false, r->t, SPAN_NONE, "%s", strerror(-r->code));
	}
	handler_builtin_run_free(r);
}

static void handler_builtin_kill_run(struct handler_run *run)
{
	struct builtin_run *r = (struct builtin_run *)run;
	pthread_mutex_lock(&r->lock);
	r->stopping = true;
	pthread_cond_broadcast(&r->wake);
	pthread_mutex_unlock(&r->lock);
}

static int start_thread(struct builtin_run *r)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int code = pthread_create(&r->thread, NULL, run_thread, r);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -code;
}

int handler_start_builtin(const struct handler_env *env, const struct task_definition *t,
			  const struct handler_call *call, handler_done_fn done, void *arg,
			  struct handler_run **ret, struct err *e)
{
	struct builtin_run *r = calloc(1, sizeof(*r));
	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	r->run = (struct handler_run){.kill = handler_builtin_kill_run, .done = done, .arg = arg};
	r->t = t;
	r->builtin = t->builtin;
	r->loop = env->loop;
	r->ended.fn = on_ended;
	buf_init(&r->out, HANDLER_MAX_RESULT);
	r->args = span_dup(call->args);
	r->kwargs = span_dup(call->kwargs);
	r->task_id = span_dup(call->task_id);
	r->args_len = call->args.len;
	r->kwargs_len = call->kwargs.len;
	int code = r->args && r->kwargs && r->task_id ? start_thread(r) : -ENOMEM;
	if (code < 0) {
		handler_builtin_run_free(r);
		return err_set(e, code, "a thread cannot be started: %s", strerror(-code));
	}
	*ret = &r->run;
	return 0;
}
