#include "tasks/blocking.h"

#include <errno.h>

struct blocking_wait {
	struct loop *loop;
	struct loop_timer *limit;
	struct task_client *client;
	struct task_wait *wait;
	struct buf *text;
	struct task_result *ret;
	struct err *e;
	int code;
};

static void blocking_end(struct blocking_wait *w, int code)
{
	w->code = code;
	loop_stop(w->loop);
}

static void blocking_keep(struct buf *text, struct span *s, size_t *at)
{
	if (!s->ptr)
		return;
	buf_append_span(text, *s);
	s->ptr = text->ptr + *at;
	*at += s->len;
}

static int keep_result(struct blocking_wait *w, const struct task_result *r)
{
	size_t total = r->task_id.len + r->task_name.len + r->result.len + r->error.len +
		       r->error_detail.len + r->owner.len + r->steps.len,
	       at = 0;
	buf_clear(w->text);
	if (buf_reserve(w->text, total) < 0)
		return err_set(w->e, w->text->error, "the result does not fit into its buffer");
	*w->ret = *r;
	struct span *all[] = {&w->ret->task_id,	     &w->ret->task_name, &w->ret->result, &w->ret->error,
			      &w->ret->error_detail, &w->ret->owner,	 &w->ret->steps};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		blocking_keep(w->text, all[i], &at);
	return 0;
}

static void blocking_on_result(void *arg, int error, const struct task_result *r)
{
	struct blocking_wait *w = arg;
	w->wait = NULL;
	blocking_end(w, error ? err_set(w->e, error, "the task's outcome could not be read")
			      : keep_result(w, r));
}

static void blocking_on_submitted(void *arg, const struct task_submission *s)
{
	struct blocking_wait *w = arg;
	if (s->status == TASK_SUBMITTED) {
		buf_clear(w->text);
		buf_append_span(w->text, s->task_id);
		w->wait = task_wait(w->client, s->task_id, blocking_on_result, w);
		if (!w->wait)
			blocking_end(w, err_set(w->e, -ENOMEM, "out of memory"));
		return;
	}
	blocking_end(
		w, err_set(w->e, s->status == TASK_UNKNOWN ? -EREMOTEIO : -ECONNREFUSED, "%s", s->err.text));
}

static void blocking_on_limit(void *arg)
{
	struct blocking_wait *w = arg;
	task_wait_cancel(w->wait, w->client);
	blocking_end(w, err_set(w->e, -ETIMEDOUT,
				"not finished within the time limit; the task is still running"));
}

/* What there is to do begins with `begin`. */
static int blocking_run(struct blocking_wait *w, const struct task_options *o, unsigned timeout_ms,
			void (*begin)(struct blocking_wait *w, const void *what), const void *what)
{
	int r = loop_new(&w->loop);
	if (r < 0)
		return err_set(w->e, r, "no event loop");
	r = loop_timer_new(w->loop, blocking_on_limit, w, &w->limit);
	if (r == 0)
		r = task_client_new(o, w->loop, &w->client, w->e);
	if (r == 0) {
		loop_timer_start(w->limit, timeout_ms);
		begin(w, what);
		r = loop_run(w->loop);
		r = r < 0 ? r : w->code;
		task_client_free(w->client);
		loop_run_posted(w->loop);
	}
	loop_timer_free(w->limit);
	loop_free(w->loop);
	return r;
}

static void blocking_submit(struct blocking_wait *w, const void *call)
{
	task_submit(w->client, call, blocking_on_submitted, w);
}

int task_run_blocking(const struct task_options *o, const struct task_call *call, unsigned timeout_ms,
		      struct buf *text, struct task_result *ret, struct err *e)
{
	struct blocking_wait w = {.text = text, .ret = ret, .e = e};
	struct task_call awaited = *call;
	awaited.awaited = true;
	return blocking_run(&w, o, timeout_ms, blocking_submit, &awaited);
}

static void blocking_get(struct blocking_wait *w, const void *id)
{
	task_get(w->client, *(const struct span *)id, blocking_on_result, w);
}

int task_look_blocking(const struct task_options *o, struct span id, unsigned timeout_ms, struct buf *text,
		       struct task_result *ret, struct err *e)
{
	struct blocking_wait w = {.text = text, .ret = ret, .e = e};
	return blocking_run(&w, o, timeout_ms, blocking_get, &id);
}
