/*
 * One task of a run, as its backend sees it: submitted once it is written down, waited for, asked to stop.
 * What happens becomes an event.
 *
 * A submission without an answer is repeated only where that runs nothing twice: the backend knows the id
 * (same_id_same_task), or the task is idempotent. Otherwise its result is waited for, which decides it if
 * there is one; without one it is unknown in the end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/backoff.h"
#include "base/clock.h"
#include "base/log.h"
#include "tasks/driver/driver_run.h"

#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 5000

/* --- backends ------------------------------------------------------------------------------------------- */

struct driver_peer *driver_peer_of(struct driver *d, struct span name)
{
	struct driver_peer *p;
	struct err e;
	LIST_FOREACH (p, &d->peers, place)
		if (span_is(name, p->name))
			return p;
	const struct task_options *o = d->o->other ? d->o->other(d->o->other_arg, name) : NULL;
	if (!o || o->backend->over_others || !(p = calloc(1, sizeof(*p) + name.len + 1)))
		return NULL;
	memcpy(p->name, name.ptr, name.len);
	if (task_client_new(o, d->loop, &p->client, &e) < 0) {
		log_error("workflow_backend_failed", LOG_SPAN("backend", name), LOG_STR("error", e.text));
		free(p);
		return NULL;
	}
	LIST_INSERT_HEAD(&d->peers, p, place);
	return p;
}

void driver_peers_free(struct driver *d)
{
	struct driver_peer *p;
	while ((p = LIST_FIRST(&d->peers))) {
		LIST_REMOVE(p, place);
		task_client_free(p->client);
		free(p);
	}
}

/* --- events --------------------------------------------------------------------------------------------- */

struct run_event *run_event_new(enum run_event_kind kind, struct run *run, struct run_task *task,
				size_t extra)
{
	struct run_event *ev = calloc(1, sizeof(*ev) + extra);
	if (!ev)
		return NULL;
	ev->kind = kind;
	ev->run = run;
	ev->task = task;
	return ev;
}

static struct span event_put(char **at, struct span from)
{
	if (!from.ptr)
		return SPAN_NONE;
	struct span copy = {*at, from.len};
	memcpy(*at, from.ptr, from.len);
	*at += from.len;
	return copy;
}

static void task_retry(struct run_task *t);

static void task_ended(struct run_task *t, enum run_step_state state, const struct task_result *r)
{
	struct run_event *ev =
		run_event_new(RUN_TASK_ENDED, t->run, t, r->result.len + r->error.len + r->error_detail.len);
	if (!ev) { /* it is asked for again */
		task_retry(t);
		return;
	}
	char *at = (char *)(ev + 1);
	ev->state = state;
	ev->result = event_put(&at, r->result);
	ev->error = event_put(&at, r->error);
	ev->detail = event_put(&at, r->error_detail);
	ev->started_us = r->started_us;
	ev->completed_us = r->completed_us ? r->completed_us : clock_wall_us();
	t->ended = true;
	t->timer = loop_timer_free(t->timer);
	driver_add_event(t->driver, ev);
}

void run_task_fail(struct run_task *t, enum run_step_state state, const char *error)
{
	const struct task_result r = {.error = span_of(error)};
	if (state == RUN_STEP_UNKNOWN)
		log_warn("workflow_step_unknown", LOG_SPAN("workflow", t->run->record.name),
			 LOG_SPAN("id", t->run->record.id), LOG_SPAN("step", t->name),
			 LOG_STR("backend", t->backend), LOG_STR("task_id", t->task_id),
			 LOG_STR("why", error));
	task_ended(t, state, &r);
}

/* --- waiting -------------------------------------------------------------------------------------------- */

static void task_attach(struct run_task *t);

static void task_on_timer(void *arg)
{
	struct run_task *t = arg;
	t->timer = loop_timer_free(t->timer);
	if (t->input) {
		t->begin = true;
		run_task_go(t);
	} else if (!t->wait) {
		task_attach(t);
	} else {
		task_wait_cancel(steal(t->wait), t->peer->client);
		run_task_fail(
			t, RUN_STEP_UNKNOWN,
			"it is unknown whether it ran: its submission was not confirmed, and no result came");
	}
}

static void task_set_timer(struct run_task *t, unsigned after_ms)
{
	if (!t->timer && loop_timer_new(t->driver->loop, task_on_timer, t, &t->timer) < 0) {
		log_error("workflow_step_stalled", LOG_SPAN("id", t->run->record.id),
			  LOG_SPAN("step", t->name), LOG_STR("why", "out of memory"));
		return;
	}
	loop_timer_start(t->timer, after_ms);
}

static void task_retry(struct run_task *t)
{
	t->ended = false;
	task_set_timer(t, backoff_ms(RETRY_MIN_MS, RETRY_MAX_MS, ++t->failures));
}

static void driver_on_result(void *arg, int error, const struct task_result *r)
{
	struct run_task *t = arg;
	t->wait = NULL;
	if (error == TASK_E_UNREADABLE)
		run_task_fail(t, RUN_STEP_FAILED, "it has ended, but its result cannot be read");
	else if (error == TASK_E_NOT_FOUND)
		run_task_fail(t, RUN_STEP_UNKNOWN,
			      "it is unknown whether it ran: its backend does not know it");
	else if (error != 0) /* "cannot be asked" is not "has ended" */
		task_retry(t);
	else if (r->status == TASK_COMPLETED && r->result.len > WORKFLOW_MAX_RESULT)
		run_task_fail(t, RUN_STEP_FAILED, "its result is larger than the limit");
	else if (r->status == TASK_COMPLETED)
		task_ended(t, RUN_STEP_COMPLETED, r);
	else
		task_ended(t, r->cancelled ? RUN_STEP_CANCELLED : RUN_STEP_FAILED, r);
}

static void task_attach(struct run_task *t)
{
	t->attach = false;
	if (!t->peer) /* until the run's time is up: it may well go on, there */
		return;
	t->wait = task_wait(t->peer->client, span_of(t->task_id), driver_on_result, t);
	if (!t->wait)
		task_retry(t);
	else if (t->unsure)
		task_set_timer(t, t->driver->o->unknown_after_ms);
}

/* --- submitting ----------------------------------------------------------------------------------------- */

static void task_release_input(struct run_task *t)
{
	t->driver->input_bytes -= t->input_length;
	free(steal(t->input));
	t->input_length = 0;
}

static void task_accepted(struct run_task *t, struct span id)
{
	struct run_event *ev = run_event_new(RUN_ACCEPTED, t->run, t, 0);
	task_release_input(t);
	span_copy(id, t->task_id, sizeof(t->task_id));
	if (ev) { /* without it the file calls it "submitting" until it ends */
		span_copy(id, ev->task_id, sizeof(ev->task_id));
		driver_add_event(t->driver, ev);
	}
	task_attach(t);
}

static void task_refused(struct run_task *t, const struct task_submission *s)
{
	char text[ERR_TEXT_MAX + 64];
	int64_t now = clock_mono_ms();
	if (!t->refused_since_ms)
		t->refused_since_ms = now;
	if (s->status == TASK_REFUSED && !s->about_call && (t->again || !t->unsure) &&
	    now - t->refused_since_ms < t->driver->o->refused_after_ms) {
		task_retry(t);
		return;
	}
	snprintf(text, sizeof(text), "%s did not accept it: %s", t->backend, s->err.text);
	task_release_input(t);
	run_task_fail(t, t->unsure ? RUN_STEP_UNKNOWN : RUN_STEP_FAILED, text);
}

static void task_unanswered(struct run_task *t, const struct err *why)
{
	log_warn("workflow_submission_unknown", LOG_SPAN("workflow", t->run->record.name),
		 LOG_SPAN("id", t->run->record.id), LOG_SPAN("step", t->name), LOG_STR("backend", t->backend),
		 LOG_STR("why", why->text));
	t->unsure = true;
	if (t->again) {
		task_retry(t);
		return;
	}
	task_release_input(t);
	task_attach(t);
}

static void task_free(struct run_task *t)
{
	loop_timer_free(t->timer);
	t->driver->input_bytes -= t->input_length;
	free(t->input);
	free(t);
}

static void driver_on_stopped(void *arg, int error, struct err *e)
{
	(void)arg, (void)error, (void)e; /* a request, not a fact */
}

static void driver_on_submitted(void *arg, const struct task_submission *s)
{
	struct run_task *t = arg;
	t->submitting = false;
	t->driver->n_submitting--;
	if (!t->run) { /* given up meanwhile */
		if (s->status == TASK_SUBMITTED || s->status == TASK_UNKNOWN)
			task_cancel(t->peer->client, s->task_id, driver_on_stopped, NULL);
		task_free(t);
		return;
	}
	if (s->status == TASK_SUBMITTED) {
		t->unsure = false;
		t->failures = 0;
		task_accepted(t, s->task_id);
	} else if (s->status == TASK_UNKNOWN) {
		task_unanswered(t, &s->err);
	} else {
		task_refused(t, s);
	}
}

static void task_send(struct run_task *t)
{
	const struct run_record *r = &t->run->record;
	const struct task_call call = {
		.task = t->task,
		.queue = t->queue,
		.args = {t->input, t->args_length},
		.kwargs = {t->input + t->args_length, t->input_length - t->args_length},
		.task_id = span_of(t->task_id),
		.id_is_key = t->peer->client->backend->same_id_same_task,
		.request_id = r->request_id,
		.owner = r->owner,
		.idempotent = t->idempotent,
		.timeout_ms = t->timeout_ms,
		.priority = r->priority,
		.expires_ms = t->root ? r->expires_ms : 0,
		.awaited = true,
		.shadow = r->shadow,
		.traceparent = r->traceparent,
		.tracestate = r->tracestate};
	t->submitting = true;
	t->driver->n_submitting++;
	task_submit(t->peer->client, &call, driver_on_submitted, t);
}

void run_task_go(struct run_task *t)
{
	t->fresh = false;
	if (t->begin && !t->submitting && !t->driver->stopping) {
		t->begin = false;
		if (t->peer)
			task_send(t);
		else
			run_task_fail(t, RUN_STEP_FAILED, "its backend is not configured");
	} else if (t->attach) {
		task_attach(t);
	}
}

void run_task_give_up(struct run_task *t, bool ask_to_stop)
{
	LIST_REMOVE(t, place);
	t->run = NULL;
	t->timer = loop_timer_free(t->timer);
	if (t->wait)
		task_wait_cancel(steal(t->wait), t->peer->client);
	if (t->submitting)
		return;
	if (ask_to_stop && t->peer && !t->ended && !t->begin)
		task_cancel(t->peer->client, span_of(t->task_id), driver_on_stopped, NULL);
	task_free(t);
}
