#include "tasks/celery/worker/requests.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "tasks/celery/worker/answer.h"
#include "tasks/celery/worker/ending.h"
#include "tasks/celery/worker/telling.h"

#define SHORTAGE_PAUSE_MS 1000 /* after a task could not be started */
#define SAID_MAX 65536

static void request_finish(struct celery_request *r);

/* --- what is there -------------------------------------------------------------------------------------- */

static void requests_schedule(struct celery_requests *q)
{
	if (!q->work_due) {
		q->work_due = true;
		loop_defer(q->o.loop, &q->work);
	}
}

static void request_free(struct celery_request *r)
{
	struct celery_requests *q = r->owner;
	TAILQ_REMOVE(&q->all, r, place);
	if (r->state == CELERY_REQUEST_READY)
		TAILQ_REMOVE(&q->ready, r, turn);
	q->n_waiting -= r->state == CELERY_REQUEST_WAITS;
	q->n_running -= r->state == CELERY_REQUEST_RUNS || r->state == CELERY_REQUEST_CLAIMED;
	q->n--;
	celery_ending_free(r->ending);
	celery_held_free(r->held);
	celery_incoming_release(&r->m);
	celery_each_release(&r->each);
	loop_timer_free(r->timer);
	loop_timer_free(r->soft);
	buf_release(&r->result);
	buf_release(&r->error);
	buf_release(&r->detail);
	registry_free(r->registry);
	free(r);
}

/* The counts follow the state. */
static void request_enter(struct celery_request *r, enum celery_request_state state)
{
	struct celery_requests *q = r->owner;
	bool slot_before = r->state == CELERY_REQUEST_RUNS || r->state == CELERY_REQUEST_CLAIMED,
	     slot_after = state == CELERY_REQUEST_RUNS || state == CELERY_REQUEST_CLAIMED;
	if (r->state == CELERY_REQUEST_READY)
		TAILQ_REMOVE(&q->ready, r, turn);
	if (state == CELERY_REQUEST_READY)
		TAILQ_INSERT_TAIL(&q->ready, r, turn);
	q->n_waiting += (state == CELERY_REQUEST_WAITS) - (size_t)(r->state == CELERY_REQUEST_WAITS);
	q->n_running += (size_t)slot_after - (size_t)slot_before;
	r->state = state;
}

static void request_gone(struct celery_request *r)
{
	struct celery_requests *q = r->owner;
	request_free(r);
	requests_schedule(q);
	q->o.changed(q->o.arg);
}

unsigned celery_requests_room(const struct celery_requests *q)
{
	size_t most = (size_t)q->o.concurrency * q->o.c->prefetch_multiplier, held = q->n - q->n_waiting;
	if (q->stopping || q->n_waiting >= CELERY_ETA_MAX || held >= most)
		return 0;
	return (unsigned)(most - held);
}

/* Once for each. */
static bool requests_first_time(struct celery_requests *q, const char *what)
{
	size_t length = strlen(what) + 1;
	if (q->said.len && memmem(q->said.ptr, q->said.len, what, length))
		return false;
	return buf_append(&q->said, what, length) == 0;
}

/* --- how it ended --------------------------------------------------------------------------------------- */

static void request_fail(struct celery_request *r, const char *type, const char *module, struct span error)
{
	r->status = "FAILURE";
	r->exc_type = type;
	buf_clear(&r->result);
	buf_clear(&r->error);
	buf_append_span(&r->error, error);
	celery_put_exception(type, module, error, &r->result);
}

static void request_revoke(struct celery_request *r, const char *why)
{
	request_fail(r, "TaskRevokedError", "celery.exceptions", span_of(why));
	r->status = "REVOKED";
}

/* --- the steps of the end ------------------------------------------------------------------------------- */

static void request_on_gone(void *arg, int64_t first, const struct err *why)
{
	struct celery_request *r = arg;
	if (why)
		log_error("task_not_acknowledged", LOG_STR("task_id", r->m.id), LOG_STR("task", r->m.task),
			  LOG_STR("error", why->text));
	else if (!r->requeue && !celery_held_was_ours(r->held, first))
		log_warn("task_was_redelivered", LOG_STR("task_id", r->m.id), LOG_STR("task", r->m.task),
			 LOG_STR("effect",
				 "it was held longer than the visibility timeout, and may run twice"));
	request_gone(r);
}

static void request_acknowledge(struct celery_request *r)
{
	int code = 0;
	if (r->acknowledged && !r->requeue) {
		request_gone(r);
		return;
	}
	if (r->acknowledged) /* it was claimed, and could not begin */
		code = celery_held_push_back(r->held, request_on_gone, r);
	else if (r->requeue)
		code = celery_held_give_back(r->held, request_on_gone, r);
	else
		code = celery_held_ack(r->held, request_on_gone, r);
	r->acknowledged = true;
	if (code < 0)
		request_on_gone(r, 0, &(struct err){"out of memory"});
}

static void request_finish(struct celery_request *r)
{
	struct celery_requests *q = r->owner;
	request_enter(r, CELERY_REQUEST_ENDS);
	if (r->timer)
		loop_timer_stop(r->timer);
	r->soft = loop_timer_free(r->soft);
	requests_schedule(q);
	if (r->requeue) {
		request_acknowledge(r);
		return;
	}
	r->ending = celery_end(r, request_acknowledge);
	if (!r->ending) {
		log_error("task_end_refused", LOG_STR("task_id", r->m.id), LOG_STR("error", "out of memory"));
		request_acknowledge(r);
	}
}

/* Without having run. */
static void request_refuse(struct celery_request *r)
{
	r->owner->refused++;
	request_finish(r);
}

/* --- running -------------------------------------------------------------------------------------------- */

static void request_put_told(struct celery_request *r, struct span error, struct span detail)
{
	buf_clear(&r->error);
	handler_put_told(r->definition, error, &r->error);
	if (detail.ptr)
		handler_put_told(r->definition, detail, &r->detail);
}

/* A handler has asked for it. False: there have been enough. */
static bool request_retry(struct celery_request *r, unsigned after_ms, struct span error)
{
	const struct celery_retries *retries = &r->owner->o.c->retries;
	if (r->m.retries >= retries->max)
		return false;
	request_fail(r, "RuntimeError", "builtins", error);
	r->status = "RETRY";
	r->again_us = clock_wall_us() + (int64_t)(after_ms ? after_ms : retries->delay_ms) * 1000;
	return true;
}

static void request_on_done(void *arg, const struct handler_outcome *o);

static void request_take_failure(struct celery_request *r, const struct handler_outcome *o)
{
	CLEANUP(buf_releasep) struct buf error = BUF_INIT(8 * TEXT_MASKED_MAX);
	request_put_told(r, o->error, o->detail);
	buf_append_span(&error, buf_span(&r->error));
	switch (r->reason) {
	case CELERY_REASON_HARD_LIMIT:
		request_fail(r, "TimeLimitExceeded", "billiard.exceptions", SPAN_NONE);
		buf_clear(&r->result);
		celery_put_time_limit(r->hard_ms, &r->result);
		break;
	case CELERY_REASON_SOFT_LIMIT:
		request_fail(r, "SoftTimeLimitExceeded", "billiard.exceptions", SPAN_NONE);
		break;
	case CELERY_REASON_REVOKED:
		request_revoke(r, "terminated");
		break;
	case CELERY_REASON_STOPPED:
		r->requeue = r->late;
		request_fail(r, "WorkerLostError", "billiard.exceptions",
			     SPAN_LIT("the worker was stopped while the task ran"));
		break;
	case CELERY_REASON_NONE:
		if (o->retry && request_retry(r, o->retry_after_ms, buf_span(&error)))
			break;
		request_fail(r, o->unknown ? "WorkerLostError" : "RuntimeError",
			     o->unknown ? "billiard.exceptions" : "builtins", buf_span(&error));
		break;
	}
}

static int request_start(struct celery_request *r, struct span args, struct err *e)
{
	struct handler_call call = {.task_id = span_of(r->m.id),
				    .name = span_of(r->each.task[0] ? r->each.task : r->m.task),
				    .args = args,
				    .kwargs = r->each.task[0] ? SPAN_LIT("{}") : r->m.kwargs,
				    .attempt = r->m.retries + 1,
				    .traceparent = span_of(r->m.traceparent),
				    .tracestate = span_of(r->m.tracestate),
				    .shadow = r->m.shadow};
	call.timeout_ms = (unsigned)(r->hard_ms < UINT32_MAX ? r->hard_ms : UINT32_MAX);
	return handler_start(r->owner->o.env, r->definition, &call, request_on_done, r, &r->run, e);
}

/* One call of a map has succeeded. True: the next one runs. Otherwise the map has ended: with r->status,
 * or with the results in r->result. */
static bool request_go_on(struct celery_request *r, const struct handler_outcome *o)
{
	struct err e = {"out of memory"};
	struct span args;
	int code = celery_each_add(&r->each, o->result);
	if (r->reason != CELERY_REASON_NONE) { /* its time was over, or it was revoked, between two calls */
		request_take_failure(r, &(struct handler_outcome){.error = SPAN_LIT("")});
		return false;
	}
	if (code == 0 && celery_each_next(&r->each, &args)) {
		code = request_start(r, args, &e);
		if (code == 0)
			return true;
	} else if (code == 0 && celery_each_put(&r->each, &r->result) == 0) {
		r->status = "SUCCESS";
		return false;
	}
	request_fail(r, "RuntimeError", "builtins", span_of(e.text));
	return false;
}

static void requests_count(struct celery_requests *q, const char *status)
{
	if (strcmp(status, "SUCCESS") == 0)
		q->succeeded++;
	else if (strcmp(status, "RETRY") == 0)
		q->retried++;
	else if (strcmp(status, "REVOKED") == 0)
		q->revoked++;
	else
		q->failed++;
}

static void request_on_done(void *arg, const struct handler_outcome *o)
{
	struct celery_request *r = arg;
	r->run = NULL;
	if (r->each.args.len && o->result.ptr && request_go_on(r, o))
		return;
	if (r->status)
		; /* what was to go on could not */
	else if (o->result.ptr && buf_append_span(&r->result, o->result) == 0)
		r->status = "SUCCESS";
	else if (o->result.ptr)
		request_fail(r, "RuntimeError", "builtins", SPAN_LIT("the result is too large"));
	else
		request_take_failure(r, o);
	requests_count(r->owner, r->status);
	if (strcmp(r->status, "REVOKED") == 0)
		celery_tell_revoked(r->owner->o.events, r, true, false);
	else
		celery_tell_ended(r->owner->o.events, r);
	log_info("task_ended", LOG_STR("task_id", r->m.id), LOG_STR("task", r->m.task),
		 LOG_STR("status", r->status), LOG_INT("attempt", r->m.retries + 1),
		 LOG_INT("ms", clock_mono_ms() - r->begun_ms),
		 LOG_SPAN("error", r->error.len ? buf_span(&r->error) : SPAN_NONE),
		 LOG_SPAN("detail", r->detail.len ? text_front(buf_span(&r->detail), 1024) : SPAN_NONE));
	request_finish(r);
}

static void request_end(struct celery_request *r, enum celery_request_reason reason)
{
	if (!r->run)
		return;
	if (r->reason == CELERY_REASON_NONE || r->reason == CELERY_REASON_SOFT_LIMIT)
		r->reason = reason;
	if (reason == CELERY_REASON_SOFT_LIMIT)
		handler_ask(r->run);
	else
		handler_kill(r->run);
}

static void request_on_hard_limit(void *arg)
{
	request_end(arg, CELERY_REASON_HARD_LIMIT);
}

static void request_on_soft_limit(void *arg)
{
	request_end(arg, CELERY_REASON_SOFT_LIMIT);
}

static int request_set_limits(struct celery_request *r)
{
	const struct celery_options *c = r->owner->o.c;
	const struct celery_limit *changed = celery_limits_find(&r->owner->limits, r->m.task);
	bool has = changed && changed->has_times;
	int64_t hard = r->m.hard_ms, soft = r->m.soft_ms;
	if (!hard)
		hard = has ? changed->hard_ms : c->task_time_limit_ms;
	if (!soft)
		soft = has ? changed->soft_ms : c->task_soft_time_limit_ms;
	r->hard_ms = hard ? hard : r->definition->timeout_ms;
	r->soft_ms = soft < r->hard_ms ? soft : 0;
	r->timer = loop_timer_free(r->timer);
	int code = loop_timer_new(r->owner->o.loop, request_on_hard_limit, r, &r->timer);
	if (code == 0 && r->soft_ms)
		code = loop_timer_new(r->owner->o.loop, request_on_soft_limit, r, &r->soft);
	return code;
}

/* What passes by itself. */
static bool request_is_shortage(int code)
{
	return code == -EMFILE || code == -ENFILE || code == -EAGAIN || code == -ENOMEM;
}

/* It is held and claimed, and there is a slot: it only lacks what comes back. */
static void request_wait_for_room(struct celery_request *r, const struct err *e)
{
	struct celery_requests *q = r->owner;
	log_warn("task_waits", LOG_STR("task_id", r->m.id), LOG_STR("task", r->m.task),
		 LOG_STR("reason", e->text));
	request_enter(r, CELERY_REQUEST_READY);
	q->pause_until_ms = clock_mono_ms() + SHORTAGE_PAUSE_MS;
	loop_timer_start(q->pause, SHORTAGE_PAUSE_MS);
}

static void requests_count_begun(struct celery_requests *q, const char *name)
{
	for (size_t i = 0; i < q->n_totals; i++)
		if (strcmp(q->totals[i].name, name) == 0) {
			q->totals[i].n++;
			return;
		}
	struct celery_total *more = realloc(q->totals, (q->n_totals + 1) * sizeof(*more));
	if (!more)
		return;
	q->totals = more;
	more[q->n_totals] = (struct celery_total){.name = strdup(name), .n = 1};
	q->n_totals += more[q->n_totals].name != NULL;
}

void celery_requests_put_totals(const struct celery_requests *q, struct buf *out)
{
	buf_putc(out, '{');
	for (size_t i = 0; i < q->n_totals; i++) {
		buf_puts(out, i ? ", " : "");
		json_quote(out, span_of(q->totals[i].name));
		buf_printf(out, ": %llu", (unsigned long long)q->totals[i].n);
	}
	buf_putc(out, '}');
}

static void request_store_started(struct celery_request *r)
{
	CLEANUP(buf_releasep) struct buf by = BUF_INIT(4096);
	buf_printf(&by, "{\"pid\": %ld, \"hostname\": ", (long)getpid());
	json_quote(&by, span_of(r->owner->o.hostname));
	buf_putc(&by, '}');
	celery_store_started(r, buf_span(&by));
}

static void request_run(struct celery_request *r)
{
	struct celery_requests *q = r->owner;
	struct err e = {""};
	struct span args = r->m.args;
	int code = request_set_limits(r);
	bool nothing = r->each.task[0] && !r->each.args.len && !celery_each_next(&r->each, &args);
	if (r->each.task[0] && !nothing)
		args = buf_span(&r->each.args); /* also when it could not begin before */
	if (code == 0 && !nothing)
		code = request_start(r, args, &e);
	if (request_is_shortage(code)) {
		request_wait_for_room(r, &e);
		return;
	}
	r->begun_ms = clock_mono_ms();
	r->begun_us = clock_wall_us();
	request_enter(r, CELERY_REQUEST_RUNS);
	requests_count_begun(q, r->m.task);
	celery_tell_started(q->o.events, r);
	if (q->o.c->track_started && !r->m.ignores_result)
		request_store_started(r);
	if (code == 0 && nothing) {
		request_on_done(r, &(struct handler_outcome){.result = SPAN_LIT("[]")});
		return;
	}
	if (code < 0) {
		char text[CELERY_ID_MAX + 64];
		snprintf(text, sizeof(text), "%s: it could not be started", r->m.task);
		struct handler_outcome o = {.error = span_of(code == -EINVAL ? e.text : text),
					    .detail = span_of(e.text)};
		request_on_done(r, &o);
		return;
	}
	loop_timer_start(r->timer, (uint64_t)r->hard_ms);
	if (r->soft)
		loop_timer_start(r->soft, (uint64_t)r->soft_ms);
}

/* --- beginning ------------------------------------------------------------------------------------------ */

static bool request_expired(const struct celery_request *r)
{
	return r->m.expires_us && clock_wall_us() > r->m.expires_us;
}

static void request_discard(struct celery_request *r, const char *why)
{
	log_info("task_discarded", LOG_STR("task_id", r->m.id), LOG_STR("task", r->m.task),
		 LOG_STR("reason", why));
	request_revoke(r, why);
	r->owner->revoked++;
	celery_tell_revoked(r->owner->o.events, r, false, strcmp(why, "expired") == 0);
	request_finish(r);
}

static bool request_is_revoked(const struct celery_request *r)
{
	return celery_revoked_has(&r->owner->revoked_ids, span_of(r->m.id));
}

void celery_requests_revoke(struct celery_requests *q, struct span id, bool terminate)
{
	struct celery_request *next;
	if (celery_revoked_add(&q->revoked_ids, id) < 0)
		log_error("task_not_revoked", LOG_SPAN("task_id", id), LOG_STR("error", "out of memory"));
	for (struct celery_request *r = TAILQ_FIRST(&q->all); r; r = next) {
		next = TAILQ_NEXT(r, place);
		if (!span_is(id, r->m.id))
			continue;
		bool waits = r->state == CELERY_REQUEST_WAITS || r->state == CELERY_REQUEST_READY;
		if (waits)
			request_discard(r, "revoked");
		else if (terminate)
			request_end(r, CELERY_REASON_REVOKED);
	}
}

static void request_on_claimed(void *arg, int64_t first, const struct err *why)
{
	struct celery_request *r = arg;
	if (why || !celery_held_was_ours(r->held, first)) {
		log_warn(
			"task_left_to_others", LOG_STR("task_id", r->m.id), LOG_STR("task", r->m.task),
			LOG_STR("reason", why ? why->text
					      : "it was put back into its queue before it could begin here"));
		request_gone(r);
		return;
	}
	r->acknowledged = true;
	if (r->owner->killing) {
		r->requeue = true;
		request_finish(r);
		return;
	}
	request_run(r);
}

static void request_begin(struct celery_request *r)
{
	if (request_expired(r) || request_is_revoked(r)) {
		request_discard(r, request_is_revoked(r) ? "revoked" : "expired");
		return;
	}
	if (r->late || r->acknowledged) {
		request_run(r);
		return;
	}
	request_enter(r, CELERY_REQUEST_CLAIMED);
	if (celery_held_ack(r->held, request_on_claimed, r) < 0)
		request_on_claimed(r, 0, &(struct err){"out of memory"});
}

/* A rate is about beginning; what will not begin, or has had its turn (it waits for room), needs none. */
static int64_t requests_turn(struct celery_requests *q, struct celery_request *r, int64_t now)
{
	if (r->had_turn || request_expired(r) || request_is_revoked(r))
		return 0;
	int64_t wait = celery_limits_turn(&q->limits, r->m.task, now);
	r->had_turn = wait == 0;
	return wait;
}

void celery_requests_set_concurrency(struct celery_requests *q, unsigned n)
{
	q->o.concurrency = n;
	requests_schedule(q);
	q->o.changed(q->o.arg);
}

void celery_requests_look_again(struct celery_requests *q)
{
	loop_timer_stop(q->pause);
	requests_schedule(q);
}

static void requests_on_work(struct loop_work *work)
{
	struct celery_requests *q =
		(struct celery_requests *)((char *)work - offsetof(struct celery_requests, work));
	q->work_due = false;
	int64_t now = clock_mono_ms(), soonest = INT64_MAX;
	for (struct celery_request *r = TAILQ_FIRST(&q->ready), *next; r; r = next) {
		if (q->stopping || q->n_running >= q->o.concurrency || clock_mono_ms() < q->pause_until_ms)
			return;
		next = TAILQ_NEXT(r, turn);
		int64_t wait = requests_turn(q, r, now);
		if (wait)
			soonest = wait < soonest ? wait : soonest;
		else
			request_begin(r);
	}
	if (soonest != INT64_MAX && !loop_timer_active(q->pause))
		loop_timer_start(q->pause, (uint64_t)soonest);
}

static void requests_on_pause(void *arg)
{
	requests_schedule(arg);
}

static void request_on_eta(void *arg)
{
	struct celery_request *r = arg;
	request_enter(r, CELERY_REQUEST_READY);
	requests_schedule(r->owner);
}

static void request_wait_for_eta(struct celery_request *r)
{
	int64_t ms = (r->m.eta_us - clock_wall_us()) / 1000 + 1;
	if (r->m.eta_us == 0 || ms <= 1) {
		request_enter(r, CELERY_REQUEST_READY);
		requests_schedule(r->owner);
		return;
	}
	request_enter(r, CELERY_REQUEST_WAITS);
	if (loop_timer_new(r->owner->o.loop, request_on_eta, r, &r->timer) < 0) {
		r->requeue = true;
		request_finish(r);
		return;
	}
	loop_timer_start(r->timer, (uint64_t)ms);
	r->owner->o.changed(r->owner->o.arg);
}

/* --- delivery ------------------------------------------------------------------------------------------- */

static bool request_is_late(const struct celery_request *r)
{
	if (r->owner->o.c->acks == CELERY_ACKS_IDEMPOTENT)
		return r->definition->idempotent;
	return r->owner->o.c->acks == CELERY_ACKS_LATE;
}

static void request_is_not_registered(struct celery_request *r)
{
	struct celery_requests *q = r->owner;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(8192);
	const char *task = r->each.task[0] ? r->each.task : r->m.task;
	if (requests_first_time(q, task)) {
		registry_describe_unknown(q->o.registry, span_of(task), false, &text);
		log_error("task_not_known", LOG_STR("task", task), LOG_STR("task_id", r->m.id),
			  LOG_SPAN("reason", buf_span(&text)),
			  LOG_STR("effect", "it fails as NotRegistered, as with Celery's workers"));
	}
	request_fail(r, "NotRegistered", "celery.exceptions", span_of(task));
	celery_tell_ended(q->o.events, r);
	request_refuse(r);
}

/* What is no task is dropped, as Celery drops it; who waits for a task that is refused is told. */
static void request_is_not_taken(struct celery_request *r, enum celery_incoming_verdict verdict,
				 const struct err *e)
{
	static const char *const types[] = {[CELERY_INCOMING_REFUSED] = "ContentDisallowed",
					    [CELERY_INCOMING_INVALID] = "InvalidTaskError"};
	static const char *const modules[] = {[CELERY_INCOMING_REFUSED] = "kombu.exceptions",
					      [CELERY_INCOMING_INVALID] = "celery.exceptions"};
	const char *what = verdict == CELERY_INCOMING_REFUSED ? r->m.content : e->text;
	if (requests_first_time(r->owner, what))
		log_error(
			"message_rejected", LOG_STR("task_id", r->m.id), LOG_STR("task", r->m.task),
			LOG_STR("queue", r->owner->o.queues[r->held->queue]), LOG_STR("reason", e->text),
			LOG_STR("effect", "such messages are removed; what waits for them fails. Said once"));
	bool task = verdict == CELERY_INCOMING_REFUSED || verdict == CELERY_INCOMING_INVALID;
	if (task && r->m.id[0]) {
		request_fail(r, types[verdict], modules[verdict], span_of(e->text));
		request_refuse(r);
		return;
	}
	r->owner->refused++; /* nobody waits for a result of it */
	request_acknowledge(r);
}

/* Of what is computed by reading it. */
static void request_answer(struct celery_request *r)
{
	struct celery_requests *q = r->owner;
	celery_tell_received(q->o.events, r);
	if (request_is_revoked(r) || request_expired(r)) {
		request_discard(r, request_is_revoked(r) ? "revoked" : "expired");
		return;
	}
	r->begun_ms = clock_mono_ms();
	r->begun_us = clock_wall_us();
	requests_count_begun(q, r->m.task);
	celery_tell_started(q->o.events, r);
	r->status = "SUCCESS";
	requests_count(q, r->status);
	celery_tell_ended(q->o.events, r);
	request_finish(r);
}

static struct celery_request *request_new(struct celery_requests *q, struct celery_held *h)
{
	struct celery_request *r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->owner = q;
	r->held = h;
	r->m = CELERY_INCOMING_INIT;
	r->state = CELERY_REQUEST_ENDS; /* counted nowhere yet */
	r->registry = registry_ref(q->o.registry);
	buf_init(&r->result, HANDLER_MAX_RESULT);
	buf_init(&r->error, 8 * TEXT_MASKED_MAX);
	buf_init(&r->detail, 1u << 20);
	TAILQ_INSERT_TAIL(&q->all, r, place);
	q->n++;
	q->received++;
	return r;
}

void celery_requests_take(struct celery_requests *q, struct celery_held *h)
{
	struct err e = {""};
	struct celery_request *r = request_new(q, h);
	if (!r) {
		log_error("message_given_back", LOG_STR("error", "out of memory"));
		celery_held_give_back(h, NULL, NULL);
		celery_held_free(h);
		return;
	}
	int verdict = celery_incoming_read(&r->m, h->raw, &e);
	if (verdict < 0 || q->stopping) {
		r->requeue = true;
		request_finish(r);
		return;
	}
	if (verdict != CELERY_INCOMING_GOOD) {
		request_is_not_taken(r, (enum celery_incoming_verdict)verdict, &e);
		return;
	}
	int own = celery_own_read(&r->m, &r->each, &r->result, &e);
	if (own < 0) {
		request_is_not_taken(r, CELERY_INCOMING_INVALID, &e);
		return;
	}
	if (own == CELERY_OWN_RESULT) {
		request_answer(r);
		return;
	}
	const char *task = own == CELERY_OWN_EACH ? r->each.task : r->m.task;
	r->definition = registry_task(q->o.registry, span_of(task));
	if (!r->definition) {
		request_is_not_registered(r);
		return;
	}
	r->late = request_is_late(r);
	celery_tell_received(q->o.events, r);
	if (request_is_revoked(r))
		request_discard(r, "revoked");
	else if (request_expired(r))
		request_discard(r, "expired");
	else
		request_wait_for_eta(r);
}

/* --- begin and end -------------------------------------------------------------------------------------- */

int celery_requests_init(struct celery_requests *q, const struct celery_requests_options *o)
{
	q->o = *o;
	TAILQ_INIT(&q->all);
	TAILQ_INIT(&q->ready);
	q->work.fn = requests_on_work;
	buf_init(&q->said, SAID_MAX);
	celery_sender_init(&q->sender);
	return loop_timer_new(o->loop, requests_on_pause, q, &q->pause);
}

void celery_requests_set_registry(struct celery_requests *q, struct registry *r)
{
	q->o.registry = r;
	buf_clear(&q->said);
}

void celery_requests_stop(struct celery_requests *q)
{
	struct celery_request *next;
	q->stopping = true;
	for (struct celery_request *r = TAILQ_FIRST(&q->all); r; r = next) {
		next = TAILQ_NEXT(r, place);
		if (r->state != CELERY_REQUEST_WAITS && r->state != CELERY_REQUEST_READY)
			continue;
		r->requeue = true;
		request_finish(r);
	}
}

void celery_requests_kill(struct celery_requests *q)
{
	struct celery_request *next;
	q->killing = true;
	for (struct celery_request *r = TAILQ_FIRST(&q->all); r; r = next) {
		next = TAILQ_NEXT(r, place);
		if (r->run)
			log_warn("task_cut", LOG_STR("task_id", r->m.id), LOG_STR("task", r->m.task));
		request_end(r, CELERY_REASON_STOPPED);
	}
}

void celery_requests_release(struct celery_requests *q)
{
	if (!q->o.loop)
		return;
	while (!TAILQ_EMPTY(&q->all))
		request_free(TAILQ_FIRST(&q->all));
	loop_defer_cancel(q->o.loop, &q->work);
	q->pause = loop_timer_free(q->pause);
	for (size_t i = 0; i < q->n_totals; i++)
		free(q->totals[i].name);
	free(q->totals);
	celery_revoked_release(&q->revoked_ids);
	celery_limits_release(&q->limits);
	buf_release(&q->said);
}
