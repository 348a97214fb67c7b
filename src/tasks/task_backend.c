/*
 * What is the same for every backend: checks before a submission, ids, answers that need no backend, the JSON
 * of a result.
 */
#include "tasks/task_backend.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/json.h"
#include "base/text.h"
#include "tasks/task_options.h"

#define REQUEST_ID_MAX (1u << 18)

struct task_later {
	struct task_client *client;
	struct loop_timer *timer;
	LIST_ENTRY(task_later) place;
	task_submit_fn fn;
	void *arg;
	enum task_submit_status status;
	char id[TASK_ID_MAX];
	struct err err;
};

const char *task_status_text(enum task_status s)
{
	static const char *const text[] = {"pending", "running", "completed", "failed"};
	return text[s];
}

static int put_time(struct buf *out, const char *key, int64_t us)
{
	char text[CLOCK_TEXT_MAX];
	if (us == 0)
		return buf_printf(out, ",\"%s\":null", key);
	clock_format(us, text);
	return buf_printf(out, ",\"%s\":\"%s\"", key, text);
}

int task_result_for_callers(const struct task_result *r, struct buf *room, struct task_result *ret)
{
	*ret = *r;
	ret->error_detail = SPAN_NONE;
	if (!r->error.ptr)
		return 0;
	buf_clear(room);
	text_put_masked(room, r->error);
	ret->error = room->error ? SPAN_LIT("the task failed") : buf_span(room);
	return room->error;
}

int task_result_to_json(const struct task_result *r, struct buf *out)
{
	buf_puts(out, "{\"task_id\":");
	json_quote(out, r->task_id);
	buf_puts(out, ",\"task_name\":");
	if (r->task_name.len)
		json_quote(out, r->task_name);
	else
		buf_puts(out, "null");
	buf_printf(out, ",\"status\":\"%s\",\"result\":", task_status_text(r->status));
	buf_append_span(out, r->status == TASK_COMPLETED && r->result.len ? r->result : SPAN_LIT("null"));
	buf_puts(out, ",\"error\":");
	if (r->error.ptr)
		json_quote(out, r->error);
	else
		buf_puts(out, "null");
	put_time(out, "started_at", r->started_us);
	put_time(out, "completed_at", r->completed_us);
	if (r->steps.ptr) {
		buf_puts(out, ",\"steps\":");
		buf_append_span(out, r->steps);
	}
	buf_putc(out, '}');
	return out->error;
}

/* --- answers that come later without the backend -------------------------------------------------------- */

static void later_free(struct task_later *l)
{
	LIST_REMOVE(l, place);
	loop_timer_free(l->timer);
	free(l);
}

static void task_backend_tell(enum task_submit_status status, struct span id, const struct err *why,
			      task_submit_fn fn, void *arg)
{
	struct task_submission s = {.status = status, .task_id = id, .err = *why};
	fn(arg, &s);
}

static void on_later(void *arg)
{
	struct task_later *l = arg, copy = *l;
	later_free(l);
	task_backend_tell(copy.status, span_of(copy.id), &copy.err, copy.fn, copy.arg);
}

void task_submit_later(struct task_client *c, enum task_submit_status status, struct span task_id,
		       const struct err *why, task_submit_fn fn, void *arg)
{
	struct task_later *l = calloc(1, sizeof(*l));
	if (!l || loop_timer_new(c->loop, on_later, l, &l->timer) < 0) {
		free(l);
		task_backend_tell(status, task_id, why, fn, arg);
		return;
	}
	l->client = c;
	l->fn = fn;
	l->arg = arg;
	l->status = status;
	l->err = *why;
	span_copy(task_id, l->id, sizeof(l->id));
	LIST_INSERT_HEAD(&c->later, l, place);
	loop_timer_start(l->timer, 0);
}

/* --- checks of backends without a verb for them --------------------------------------------------------- */

struct task_derived {
	LIST_ENTRY(task_derived) place;
	task_check_fn fn;
	void *arg;
};

static void derived_free(struct task_derived *d)
{
	LIST_REMOVE(d, place);
	free(d);
}

static void on_derived(void *arg, const struct task_health *h)
{
	struct task_derived *d = arg, copy = *d;
	struct task_check c = {
		.reachable = h->reachable,
		.known = TASK_ANSWER_UNKNOWN,
		.worker = TASK_ANSWER_UNKNOWN,
	};
	const char *why = h->reachable ? "no worker is there" : "the backend cannot be reached";
	if (h->reachable)
		c.worker = h->worker ? TASK_ANSWER_YES : TASK_ANSWER_NO;
	if (!h->reachable || !h->worker)
		span_copy(span_of(h->detail[0] ? h->detail : why), c.missing, sizeof(c.missing));
	derived_free(d);
	copy.fn(copy.arg, &c);
}

static void check_by_health(struct task_client *c, task_check_fn fn, void *arg)
{
	struct task_derived *d = malloc(sizeof(*d));
	if (!d) {
		const struct task_check none = {.known = TASK_ANSWER_UNKNOWN,
						.worker = TASK_ANSWER_UNKNOWN,
						.missing = "out of memory"};
		fn(arg, &none);
		return;
	}
	*d = (struct task_derived){.fn = fn, .arg = arg};
	LIST_INSERT_HEAD(&c->derived, d, place);
	c->backend->health(c, on_derived, d);
}

void task_client_init(struct task_client *c, const struct task_backend *backend, struct loop *loop)
{
	*c = (struct task_client){.backend = backend, .loop = loop};
}

int task_client_new(const struct task_options *o, struct loop *loop, struct task_client **ret, struct err *e)
{
	return o->backend->client_new(loop, o, ret, e);
}

struct task_client *task_client_free(struct task_client *c)
{
	if (!c)
		return NULL;
	while (!LIST_EMPTY(&c->later))
		later_free(LIST_FIRST(&c->later));
	while (!LIST_EMPTY(&c->derived))
		derived_free(LIST_FIRST(&c->derived));
	c->backend->client_free(c);
	return NULL;
}

/* --- the verbs ------------------------------------------------------------------------------------------ */

static enum task_submit_status task_backend_admit(const struct task_client *c, const struct task_call *call,
						  struct err *why)
{
	if (call->task.len == 0 || call->task.len >= TASK_NAME_MAX) {
		err_set(why, 0, "the task's name must have 1 to %d characters", TASK_NAME_MAX - 1);
		return TASK_REFUSED;
	}
	if (call->task_id.ptr && (call->task_id.len == 0 || call->task_id.len >= TASK_ID_MAX)) {
		err_set(why, 0, "the task's id must have 1 to %d characters", TASK_ID_MAX - 1);
		return TASK_REFUSED;
	}
	size_t size = call->args.len + call->kwargs.len;
	if (c->backend->max_input && size > c->backend->max_input) {
		err_set(why, 0, "the input has %zu bytes, %s takes %zu", size, c->backend->name,
			c->backend->max_input);
		return TASK_INPUT_TOO_LARGE;
	}
	return TASK_SUBMITTED;
}

void task_submit(struct task_client *c, const struct task_call *call, task_submit_fn fn, void *arg)
{
	CLEANUP(buf_releasep) struct buf request_id = BUF_INIT(REQUEST_ID_MAX);
	struct task_call with_id = *call;
	struct err why = {""};
	char id[TASK_ID_MAX];
	enum task_submit_status status = task_backend_admit(c, call, &why);
	if (status != TASK_SUBMITTED) {
		task_submit_later(c, status, call->task_id, &why, fn, arg);
		return;
	}
	if (!call->task_id.ptr) {
		if (c->backend->make_id)
			c->backend->make_id(call, id);
		else
			crypto_random_id(id);
		with_id.task_id = span_of(id);
	}
	/* The caller's bytes: backends keep it as text, and people read it there. */
	if (!text_is_plain(call->request_id))
		with_id.request_id = text_put_plain(&request_id, call->request_id) == 0
					     ? buf_span(&request_id)
					     : SPAN_NONE;
	c->backend->submit(c, &with_id, fn, arg);
}

struct task_wait *task_wait(struct task_client *c, struct span task_id, task_result_fn fn, void *arg)
{
	return c->backend->wait(c, task_id, fn, arg);
}

void task_wait_cancel(struct task_wait *w, struct task_client *c)
{
	if (w)
		c->backend->wait_cancel(w);
}

void task_get(struct task_client *c, struct span task_id, task_result_fn fn, void *arg)
{
	c->backend->get(c, task_id, fn, arg);
}

void task_cancel(struct task_client *c, struct span task_id, task_done_fn fn, void *arg)
{
	c->backend->cancel(c, task_id, fn, arg);
}

void task_health(struct task_client *c, task_health_fn fn, void *arg)
{
	c->backend->health(c, fn, arg);
}

void task_check(struct task_client *c, const struct task_probe *probe, task_check_fn fn, void *arg)
{
	if (c->backend->check)
		c->backend->check(c, probe, fn, arg);
	else
		check_by_health(c, fn, arg);
}
