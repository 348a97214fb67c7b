/*
 * A run: what an event means for it, within the transaction that is open. Its plan says which tasks begin;
 * they are written as "submitting", under the ids that they will have, and submitted when that has been
 * committed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/log.h"
#include "tasks/driver/driver_run.h"

#define RUN_MEMORY (8u << 20)

/* --- a run in memory ------------------------------------------------------------------------------------ */

static void run_on_deadline(void *arg)
{
	struct run *run = arg;
	struct run_event *ev = run->stopping ? NULL : run_event_new(RUN_STOP, run, NULL, 0);
	if (!ev)
		return;
	run->stopping = true;
	ev->stop = WORKFLOW_END_TIMED_OUT;
	driver_add_event(run->driver, ev);
}

static int run_set_deadline(struct run *run)
{
	int64_t left_us = run->record.deadline_us - clock_wall_us();
	if (!run->record.deadline_us)
		return 0;
	int r = loop_timer_new(run->driver->loop, run_on_deadline, run, &run->deadline);
	if (r == 0)
		loop_timer_start(run->deadline, left_us > 0 ? (uint64_t)left_us / 1000 : 0);
	return r;
}

static int run_copy(struct arena *a, struct span *text)
{
	return text->ptr ? arena_copy(a, *text, text) : 0;
}

/* Copies the record, and what the workflow is. */
static int run_new(struct driver *d, const struct run_record *record, struct run **ret, struct err *e)
{
	struct run *run = calloc(1, sizeof(*run));
	if (!run)
		return err_set(e, -ENOMEM, "out of memory");
	run->driver = d;
	run->memory = ARENA_INIT(RUN_MEMORY);
	run->record = *record;
	run->record.args = run->record.kwargs = SPAN_NONE;
	struct run_record *r = &run->record;
	struct span *texts[] = {&r->id,	   &r->name,	    &r->owner,	   &r->request_id,
				&r->queue, &r->traceparent, &r->tracestate};
	int code = 0;
	for (size_t i = 0; code == 0 && i < sizeof(texts) / sizeof(texts[0]); i++)
		code = run_copy(&run->memory, texts[i]);
	r->definition = SPAN_NONE;
	if (code == 0)
		code = run_set_deadline(run);
	if (code < 0)
		err_set(e, code, "out of memory");
	else
		code = workflow_from_json(record->definition, &run->memory, &run->definition, e);
	if (code < 0) {
		loop_timer_free(run->deadline);
		arena_release(&run->memory);
		free(run);
		return code;
	}
	LIST_INSERT_HEAD(&d->buckets[crypto_hash64(r->id) % DRIVER_BUCKETS], run, bucket);
	d->n_runs++;
	*ret = run;
	return 0;
}

static void run_free(struct run *run, bool ask_to_stop)
{
	while (!LIST_EMPTY(&run->tasks))
		run_task_give_up(LIST_FIRST(&run->tasks), ask_to_stop);
	driver_drop_events(run->driver, run);
	if (run->touched)
		TAILQ_REMOVE(&run->driver->touched, run, touched_place);
	LIST_REMOVE(run, bucket);
	run->driver->n_runs--;
	loop_timer_free(run->deadline);
	workflow_plan_free(run->plan);
	arena_release(&run->memory);
	free(run);
}

void run_forget(struct run *run)
{
	run_free(run, false);
}

static void run_touch(struct run *run)
{
	if (run->touched)
		return;
	run->touched = true;
	TAILQ_INSERT_TAIL(&run->driver->touched, run, touched_place);
}

static struct run_task *run_find_task(struct run *run, unsigned step, unsigned item)
{
	struct run_task *t;
	LIST_FOREACH (t, &run->tasks, place)
		if (t->step == step && t->item == item)
			return t;
	return NULL;
}

static struct run_task *run_task_new(struct run *run, unsigned step, unsigned item)
{
	struct run_task *t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	const struct workflow_step *s = &run->definition->steps[step];
	t->driver = run->driver;
	t->run = run;
	t->step = step;
	t->item = item;
	t->one_of_many = s->over != NULL;
	t->name = s->name;
	t->task = s->task;
	t->queue = s->queue;
	t->timeout_ms = s->timeout_ms;
	t->idempotent = s->idempotent;
	t->root = s->parents == 0;
	LIST_INSERT_HEAD(&run->tasks, t, place);
	return t;
}

static void run_task_set_peer(struct run_task *t, struct span backend)
{
	span_copy(backend, t->backend, sizeof(t->backend));
	t->peer = driver_peer_of(t->driver, backend);
	t->again = t->idempotent || (t->peer && t->peer->client->backend->same_id_same_task);
}

/* --- writing -------------------------------------------------------------------------------------------- */

static int run_put(struct run_task *t, const struct run_step *how, struct err *e)
{
	struct run_step s = *how;
	s.step = t->step;
	s.item = t->item;
	s.one_of_many = t->one_of_many;
	s.name = t->name;
	s.task = t->task;
	s.backend = span_of(t->backend);
	s.task_id = span_of(t->task_id);
	s.submitted_us = t->submitted_us;
	return runs_put_step(t->driver->store, t->run->record.seq, t->driver->lock.number, &s, e);
}

/* --- the plan ------------------------------------------------------------------------------------------- */

struct advance {
	struct run *run;
	struct buf args, kwargs, result;
	struct err *e; /* why a step could not be written down */
	bool full;
};

static int run_on_source(void *arg, unsigned step, unsigned item, struct span *ret, struct err *e)
{
	struct advance *a = arg;
	buf_clear(&a->result);
	int r = runs_step_result(a->run->driver->store, a->run->record.seq, step, item, &a->result, e);
	*ret = buf_span(&a->result);
	return r;
}

/* What waits to be accepted is bounded: the rest begins when some of it has been. */
static bool run_has_room(const struct driver *d, size_t size)
{
	return d->input_bytes == 0 || d->input_bytes + size <= d->o->max_bytes;
}

static int run_keep_input(struct run_task *t, const struct workflow_begin *b, struct err *e)
{
	t->input_length = b->args.len + b->kwargs.len;
	t->args_length = b->args.len;
	t->input = malloc(t->input_length + 1);
	if (!t->input) {
		t->input_length = 0;
		return err_set(e, -ENOMEM, "out of memory");
	}
	memcpy(t->input, b->args.ptr, b->args.len);
	memcpy(t->input + b->args.len, b->kwargs.ptr, b->kwargs.len);
	t->driver->input_bytes += t->input_length;
	return 0;
}

static void run_make_id(struct run_task *t)
{
	const struct task_backend *b = t->peer ? t->peer->client->backend : NULL;
	const struct task_call call = {.task = t->task, .queue = t->queue};
	if (b && b->make_id)
		b->make_id(&call, t->task_id);
	else
		crypto_random_id(t->task_id);
}

/* Also of what another process has begun, and may begin again under the same id. */
static int run_on_begin(void *arg, const struct workflow_begin *b)
{
	struct advance *a = arg;
	struct run *run = a->run;
	if (!run_has_room(run->driver, b->args.len + b->kwargs.len)) {
		a->full = true;
		return -EAGAIN;
	}
	struct run_task *t = run_find_task(run, b->step, b->item);
	bool again = t != NULL;
	if (!t && !(t = run_task_new(run, b->step, b->item)))
		return err_set(a->e, -ENOMEM, "out of memory");
	if (!again) {
		t->fresh = true;
		run_task_set_peer(t, b->definition->backend.ptr ? b->definition->backend
								: span_of(run->driver->o->backend));
		run_make_id(t);
		t->submitted_us = clock_wall_us();
	}
	t->begin = true;
	t->owed = false;
	int r = run_keep_input(t, b, a->e);
	const struct run_step now = {.state = RUN_STEP_SUBMITTING};
	return r == 0 && !again ? run_put(t, &now, a->e) : r;
}

static int run_write_end(struct run *run, const struct run_end *end, struct err *e)
{
	struct run_task *t;
	const struct run_step stopped = {.state = RUN_STEP_CANCELLED,
					 .completed_us = clock_wall_us(),
					 .error = SPAN_LIT("asked to stop: the workflow has ended")};
	int r = 0;
	LIST_FOREACH (t, &run->tasks, place)
		if (r == 0 && !t->closed)
			r = run_put(t, &stopped, e);
	if (r == 0)
		r = runs_end(run->driver->store, run->record.seq, run->driver->lock.number, end, e);
	run->over = r == 0;
	return r;
}

static int run_complete(struct run *run, const struct workflow_source *source, struct err *e)
{
	CLEANUP(buf_releasep) struct buf result = BUF_INIT(WORKFLOW_MAX_RESULT);
	int r = workflow_plan_result(run->plan, source, &result, e);
	struct run_end end = {.result = buf_span(&result)};
	if (r == -ENOENT || r == -EFBIG)
		end = (struct run_end){.error = span_of(e->text)};
	else if (r < 0)
		return r;
	return run_write_end(run, &end, e);
}

static int run_fail(struct run *run, struct err *e)
{
	struct workflow_failure f = workflow_plan_error(run->plan);
	const struct run_end end = {.error = f.error, .detail = f.detail, .cancelled = f.cancelled};
	return run_write_end(run, &end, e);
}

static int run_advance(struct run *run, struct err *e)
{
	struct advance a = {.run = run,
			    .args = BUF_INIT(DRIVER_MAX_INPUT),
			    .kwargs = BUF_INIT(DRIVER_MAX_INPUT),
			    .result = BUF_INIT(WORKFLOW_MAX_RESULT),
			    .e = e};
	run_touch(run);
	run->hungry = false;
	int r = runs_input(run->driver->store, run->record.seq, &a.args, &a.kwargs, e);
	const struct workflow_source source = {
		.args = buf_span(&a.args), .kwargs = buf_span(&a.kwargs), .arg = &a, .result = run_on_source};
	if (r == 0)
		r = workflow_plan_next(run->plan, &source, run_on_begin, &a, e);
	if (r < 0 && a.full) {
		run->hungry = true;
		r = 0;
	}
	enum workflow_state state = r == 0 ? workflow_plan_state(run->plan) : WORKFLOW_GOES_ON;
	if (state == WORKFLOW_COMPLETED)
		r = run_complete(run, &source, e);
	else if (state == WORKFLOW_FAILED)
		r = run_fail(run, e);
	buf_release(&a.args);
	buf_release(&a.kwargs);
	buf_release(&a.result);
	return r;
}

/* --- from the file -------------------------------------------------------------------------------------- */

struct load {
	struct driver *driver;
	struct run *run; /* NULL: to be made */
	struct err *e;
	int error;
};

static void run_on_record(void *arg, const struct run_record *r)
{
	struct load *l = arg;
	if (!l->run)
		l->error = run_new(l->driver, r, &l->run, l->e);
	if (l->error == 0 && !(l->run->plan = workflow_plan_new(l->run->definition)))
		l->error = err_set(l->e, -ENOMEM, "out of memory");
}

/* What another process has begun. */
static int run_adopt(struct run *run, const struct run_step *s)
{
	struct run_task *t = run_task_new(run, s->step, s->item);
	if (!t)
		return -ENOMEM;
	t->state = s->state;
	t->submitted_us = s->submitted_us;
	span_copy(s->task_id, t->task_id, sizeof(t->task_id));
	run_task_set_peer(t, s->backend);
	if (s->state == RUN_STEP_SUBMITTING) {
		t->unsure = true;
		t->owed = t->again;
		if (t->owed) /* the plan gives it once more, with its input */
			return 0;
	}
	t->attach = true;
	return workflow_plan_begun(run->plan, s->step, s->item);
}

static int run_replay(struct run *run, const struct run_step *s)
{
	static const enum workflow_end_kind kinds[] = {[RUN_STEP_COMPLETED] = WORKFLOW_END_COMPLETED,
						       [RUN_STEP_FAILED] = WORKFLOW_END_FAILED,
						       [RUN_STEP_UNKNOWN] = WORKFLOW_END_FAILED,
						       [RUN_STEP_CANCELLED] = WORKFLOW_END_CANCELLED};
	if (s->step >= run->definition->n_steps)
		return -EUCLEAN;
	if (s->state > RUN_STEP_RUNNING) {
		const struct workflow_end end = {.step = s->step,
						 .item = s->item,
						 .kind = kinds[s->state],
						 .error = s->error,
						 .detail = s->detail};
		return workflow_plan_ended(run->plan, &end);
	}
	const struct run_task *t = run_find_task(run, s->step, s->item);
	if (!t)
		return run_adopt(run, s);
	return t->owed ? 0 : workflow_plan_begun(run->plan, s->step, s->item);
}

static void run_on_step(void *arg, const struct run_step *s)
{
	struct load *l = arg;
	if (l->error)
		return;
	l->error = run_replay(l->run, s);
	if (l->error < 0)
		err_set(l->e, l->error, "a step of workflow %.*s cannot be read",
			SPAN_ARG(l->run->record.id));
}

/* The plan, as the file has it. */
static int run_load(struct driver *d, int64_t seq, struct run **run, struct err *e)
{
	struct load l = {.driver = d, .run = *run, .e = e};
	int r = runs_load(d->store, seq, run_on_record, run_on_step, &l, e);
	*run = l.run;
	return l.error ? l.error : r;
}

/* --- what has happened ---------------------------------------------------------------------------------- */

static int64_t run_deadline(const struct driver *d, const struct workflow_definition *w, unsigned call_ms)
{
	uint64_t ms = d->o->timeout_ms;
	if (w->timeout_ms && w->timeout_ms < ms)
		ms = w->timeout_ms;
	if (call_ms && call_ms < ms)
		ms = call_ms;
	return clock_wall_us() + (int64_t)ms * 1000;
}

/* The first tasks fit their backends, so that legacy could still serve if not. */
static int run_check_sizes(const struct run *run, struct err *e)
{
	const struct run_task *t;
	LIST_FOREACH (t, &run->tasks, place) {
		size_t max = t->peer ? t->peer->client->backend->max_input : 0;
		if (max && t->input_length > max)
			return err_set(e, -EFBIG, "the input of step \"%.*s\" has %zu bytes, %s takes %zu",
				       SPAN_ARG(t->name), t->input_length, t->backend, max);
	}
	return 0;
}

int run_begin(struct driver *d, const struct driver_operation *op, struct err *e)
{
	CLEANUP(buf_releasep) struct buf frozen = BUF_INIT(WORKFLOW_MAX_FROZEN);
	const struct workflow_definition *w = registry_workflow(d->o->workflows, op->call.name);
	struct run_record record = op->call;
	struct run *run = NULL;
	if (!w)
		return err_set(e, -ENOENT, "no workflow \"%.*s\" is declared for the router",
			       SPAN_ARG(op->call.name));
	int r = workflow_to_json(w, &frozen);
	if (r < 0)
		return err_set(e, r, "the workflow's definition is too large");
	record.definition = buf_span(&frozen);
	record.submitted_us = clock_wall_us();
	record.deadline_us = run_deadline(d, w, op->timeout_ms);
	r = runs_insert(d->store, &record, d->lock.number, &record.seq, e);
	if (r == 0)
		r = run_new(d, &record, &run, e);
	if (r)
		return r;
	run->fresh = true;
	run_touch(run);
	run->plan = workflow_plan_new(run->definition);
	r = run->plan ? run_advance(run, e) : err_set(e, -ENOMEM, "out of memory");
	if (r == 0)
		r = run_check_sizes(run, e);
	if (r)
		run_revert(run);
	return r;
}

static int run_apply_accepted(struct run_event *ev, struct err *e)
{
	const struct run_step now = {.state = RUN_STEP_RUNNING};
	return run_put(ev->task, &now, e);
}

static int run_apply_ended(struct run_event *ev, struct err *e)
{
	static const enum workflow_end_kind kinds[] = {[RUN_STEP_COMPLETED] = WORKFLOW_END_COMPLETED,
						       [RUN_STEP_FAILED] = WORKFLOW_END_FAILED,
						       [RUN_STEP_UNKNOWN] = WORKFLOW_END_FAILED,
						       [RUN_STEP_CANCELLED] = WORKFLOW_END_CANCELLED};
	const struct run_step now = {.state = ev->state,
				     .started_us = ev->started_us,
				     .completed_us = ev->completed_us,
				     .result = ev->state == RUN_STEP_COMPLETED ? ev->result : SPAN_NONE,
				     .error = ev->error,
				     .detail = ev->detail};
	const struct workflow_end end = {.step = ev->task->step,
					 .item = ev->task->item,
					 .kind = kinds[ev->state],
					 .error = ev->error,
					 .detail = ev->detail};
	int r = run_put(ev->task, &now, e);
	if (r)
		return r;
	ev->task->closed = true;
	r = workflow_plan_ended(ev->run->plan, &end);
	return r < 0 ? err_set(e, r, "the plan has no such step") : run_advance(ev->run, e);
}

static int run_apply_stop(struct run_event *ev, struct err *e)
{
	workflow_plan_stop(ev->run->plan, ev->stop, SPAN_NONE);
	return run_advance(ev->run, e);
}

static int run_apply_take(struct driver *d, struct run_event *ev, struct err *e)
{
	struct run *run = NULL;
	int r = runs_take(d->store, ev->seq, ev->from, d->lock.number, e);
	if (r == RUNS_E_STALE)
		return 0; /* somebody was faster */
	if (r == 0)
		r = run_load(d, ev->seq, &run, e);
	if (run) {
		run->fresh = true;
		run_touch(run);
	}
	if (r)
		return r;
	log_info("workflow_taken_over", LOG_SPAN("workflow", run->record.name),
		 LOG_SPAN("id", run->record.id));
	return run_advance(run, e);
}

int run_apply(struct driver *d, struct run_event *ev, struct err *e)
{
	int r = 0;
	if (ev->kind == RUN_TAKE)
		return run_apply_take(d, ev, e);
	run_touch(ev->run);
	if (ev->run->over) /* within this very transaction */
		return 0;
	if (!ev->run->plan)
		r = run_load(d, ev->run->record.seq, &ev->run, e);
	if (r)
		return r;
	switch (ev->kind) {
	case RUN_ACCEPTED:
		return run_apply_accepted(ev, e);
	case RUN_TASK_ENDED:
		return run_apply_ended(ev, e);
	case RUN_STOP:
		return run_apply_stop(ev, e);
	case RUN_GO_ON:
	case RUN_TAKE:
		break;
	}
	return run_advance(ev->run, e);
}

/* --- after the transaction ------------------------------------------------------------------------------ */

static void run_untouch(struct run *run)
{
	TAILQ_REMOVE(&run->driver->touched, run, touched_place);
	run->touched = run->fresh = false;
}

void run_go(struct run *run)
{
	run_untouch(run);
	if (run->over) {
		run_free(run, true);
		return;
	}
	for (struct run_task *t = LIST_FIRST(&run->tasks), *next; t; t = next) {
		next = LIST_NEXT(t, place);
		if (t->closed)
			run_task_give_up(t, false);
		else
			run_task_go(t);
	}
}

void run_revert(struct run *run)
{
	bool fresh = run->fresh;
	run_untouch(run);
	if (fresh) {
		run_forget(run);
		return;
	}
	run->over = run->hungry = false;
	run->plan = workflow_plan_free(run->plan);
	for (struct run_task *t = LIST_FIRST(&run->tasks), *next; t; t = next) {
		next = LIST_NEXT(t, place);
		t->closed = false;
		if (t->fresh)
			run_task_give_up(t, false);
	}
}
