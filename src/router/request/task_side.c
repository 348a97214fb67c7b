/*
 * The task side of a request: renders the call, submits it once, waits for the result, answers in the legacy
 * shape.
 *
 * Falls back to legacy only when the submission was provably not accepted, or the operation is declared
 * idempotent (rule 3). "Written, no reply" is answered with 504 and recorded as unknown; it is never run
 * again quietly.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "operation/auth.h"
#include "router/problem.h"
#include "router/request/auth_ask.h"
#include "router/request/hold.h"
#include "router/request/request.h"
#include "router/shadow/shadow.h"
#include "router/request/task_owner.h"

bool task_side_needs_body(const struct request *r)
{
	return r->op->task.needs_body || r->key; /* a key goes with a fingerprint of the body */
}

/* --- answers -------------------------------------------------------------------------------------------- */

/* For operators, with what was said last: of a traceback, or of a program's standard error. */
static void explain_failure(struct request *r, struct span error, struct span detail)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(TEXT_MASKED_MAX);
	struct span all = span_strip(detail);
	const char *line = all.len ? memrchr(all.ptr, '\n', all.len) : NULL;
	struct span last = all;
	if (line)
		last = (struct span){line + 1, all.len - (size_t)(line + 1 - all.ptr)};
	buf_append_span(&text,
			error.len ? text_front(error, TEXT_MASKED_MAX / 4) : SPAN_LIT("The task failed."));
	bool said = error.len && last.len >= error.len &&
		    memmem(last.ptr, last.len, error.ptr, error.len) != NULL;
	if (last.len && !said) {
		buf_puts(&text, ": ");
		buf_append_span(&text, text_front(last, TEXT_MASKED_MAX / 4));
	}
	request_explain(r, NULL, buf_span(&text));
}

/* A task that ended well may still say that it failed: {"success": false, "error": "…"}. */
static void explain_by_answer(struct request *r, const struct task_result *t)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(TEXT_MASKED_MAX);
	struct span said;
	if (json_pointer(t->result, SPAN_LIT("/error"), &said) && json_type_of(said) == JSON_STRING &&
	    json_unescape_front(said, &text) == 0)
		request_explain(r, NULL, buf_span(&text));
}

/* By the operation's response template; false when none of its choices holds. */
static bool answer_by_template(struct request *r, const struct task_result *t)
{
	const struct response_template *template = r->op->task.response;
	if (!template)
		return false;
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(r->body.max * 2);
	struct template_source source;
	request_template_source(r, &source);
	source.result = t->result;
	source.task_status = span_of(task_status_text(t->status));
	source.task_error = t->error;
	struct rendered_response rendered;
	int e = response_template_render(template, &source, &rendered, &body);
	if (e == TEMPLATE_E_NO_CHOICE)
		return false;
	if (e < 0) {
		request_fail(r, OUTCOME_FAILURE, 500, "Answer too large",
			     "The task's result could not be mapped.");
		return true;
	}
	enum outcome_result result = request_result_of_task(t->status, rendered.status);
	if (result == OUTCOME_FAILURE)
		explain_by_answer(r, t);
	request_answer_rendered(r, result, &rendered, NULL, 0, buf_span(&body));
	return true;
}

static void answer_result(struct request *r, const struct task_result *told)
{
	CLEANUP(buf_releasep) struct buf room = BUF_INIT(2 * TEXT_MASKED_MAX);
	struct task_result public;
	task_result_for_callers(told, &room, &public);
	const struct task_result *t = &public;
	r->on_answer = shadow_beside_task;
	if (t->status == TASK_FAILED)
		explain_failure(r, told->error, told->error_detail);
	if (answer_by_template(r, t))
		return;
	if (t->status == TASK_FAILED) {
		request_fail_span(r, OUTCOME_FAILURE, 500, "Task failed",
				  t->error.len ? t->error : SPAN_LIT("The task failed."));
		return;
	}
	const struct http_field fields[] = {{SPAN_LIT("Content-Type"), SPAN_LIT("application/json")},
					    {SPAN_LIT("X-Request-ID"), r->request_id}};
	request_answer(r, OUTCOME_SUCCESS, 200, fields, 2, t->result);
}

static void drop_pin(struct request *r)
{
	struct ledger_entry entry = {.created_us = r->pin_version};
	if (ledger_entry_set(&entry, r->op->pin_group, buf_span(&r->pin_key)) == 0)
		ledger_remove(r->plane->env->ledger, r->plane->loop, &entry, NULL, NULL);
	r->pinned_now = false;
}

static void on_unpinned(void *arg, int error)
{
	struct request *r = arg;
	(void)error; /* it is out of the caller's hands */
	if (r->x && r->state == REQUEST_ASK)
		r->step(r);
	request_unref(r);
}

/* What it named has ended. `then` goes on once every replica knows it, or it cannot be told them now. */
static void end_pin(struct request *r, void (*then)(struct request *r))
{
	struct ledger_entry entry = {.created_us = r->pin_version};
	buf_release(&r->pin_key);
	buf_init(&r->pin_key, LEDGER_KEY_MAX);
	r->timer = loop_timer_free(r->timer);
	if (request_pin_key(r, &r->pin_key) != PIN_KEY_FOUND ||
	    ledger_entry_set(&entry, r->op->pin_group, buf_span(&r->pin_key)) != 0) {
		then(r);
		return;
	}
	r->state = REQUEST_ASK;
	r->step = then;
	request_ref(r);
	ledger_remove(r->plane->env->ledger, r->plane->loop, &entry, on_unpinned, r);
}

static void answer_ended(struct request *r)
{
	answer_result(r, &(struct task_result){.task_id = span_of(r->task_id),
					       .status = TASK_COMPLETED,
					       .result = buf_span(&r->kept_result)});
}

static void end_and_answer(struct request *r, const struct task_result *t)
{
	buf_init(&r->kept_result, t->result.len + 1);
	if (buf_append_span(&r->kept_result, t->result) == 0)
		end_pin(r, answer_ended);
	else
		answer_result(r, t); /* the entry stays, and the task side tells what is gone */
}

/* The end of a task; for those who come again with its idempotency key, too. */
static void answer_end(struct request *r, const struct task_result *t)
{
	if (r->key)
		r->key->keeps = true;
	if (t->status == TASK_COMPLETED && r->op->pin_end)
		end_and_answer(r, t);
	else
		answer_result(r, t);
}

/* Legacy knows nothing of what a pinned call is about: its answer would be wrong (rule 4). */
static bool may_fall_back(const struct request *r)
{
	return r->decision.reason != REASON_PINNED;
}

/* The task side did not serve: its attempt is recorded, and legacy takes over, unless the call is pinned. */
static void fall_back(struct request *r, enum outcome_result result, struct span why, struct span detail)
{
	log_warn(may_fall_back(r) ? "task_fell_back" : "task_unavailable",
		 LOG_SPAN("service", r->op->service), LOG_SPAN("operation", r->op->name),
		 LOG_SPAN("backend", r->backend), LOG_SPAN("request_id", r->request_id), LOG_SPAN("why", why),
		 LOG_SPAN("detail", detail));
	if (r->pinned_now)
		drop_pin(r);
	r->timer = loop_timer_free(r->timer);
	explain_failure(r, why, detail);
	if (!may_fall_back(r)) {
		request_key_release(r);
		request_refuse_pinned(
			r, result, 503, "Task side unavailable",
			"This call belongs to the task side, which did not accept it; nothing was executed.");
		return;
	}
	request_record(r, result, 0, false);
	r->task_id[0] = '\0';
	request_start_legacy(r, OUTCOME_FALLBACK);
}

/* --- waiting -------------------------------------------------------------------------------------------- */

static void task_side_on_result(void *arg, int error, const struct task_result *t)
{
	struct request *r = arg;
	r->wait = NULL;
	r->timer = loop_timer_free(r->timer);
	request_trace(r, "task_ended", LOG_BOOL("known", error == 0),
		      LOG_BOOL("completed", error == 0 && t->status == TASK_COMPLETED));
	hold_end(r, error == 0 || error == TASK_E_UNREADABLE ? BREAKER_RESULT : BREAKER_UNJUDGED, NULL);
	if (error == TASK_E_UNREADABLE) {
		request_fail(r, OUTCOME_UNKNOWN, 502, "Result unreadable", TASK_UNREADABLE_SENTENCE);
		return;
	}
	if (error != 0) {
		request_fail(r, OUTCOME_UNKNOWN, 504, "Result unknown",
			     "The task was accepted, but the backend no longer reports its state.");
		return;
	}
	if (t->status == TASK_FAILED && r->op->task.idempotent && !t->cancelled && may_fall_back(r)) {
		fall_back(r, OUTCOME_FAILURE, t->error, t->error_detail);
		return;
	}
	answer_end(r, t);
}

static void task_side_on_time_limit(void *arg)
{
	struct request *r = arg;
	r->timer = loop_timer_free(r->timer);
	if (r->wait)
		task_wait_cancel(steal(r->wait), r->client);
	if (r->state == REQUEST_WAIT) {
		hold_end(r, BREAKER_NO_RESULT, NULL);
		/* The id stands in the sentence, since an operation's own error shape may have no other
		 * place for it. */
		char detail[160 + TASK_ID_MAX];
		snprintf(detail, sizeof(detail),
			 "The task %s was accepted and is still running; it did not finish within this "
			 "call's time limit.",
			 r->task_id);
		request_fail(r, OUTCOME_TIMEOUT, 504, "Task still running", detail);
	} else if (r->state == REQUEST_PIN || r->state == REQUEST_CLAIM) {
		hold_end(r, BREAKER_UNJUDGED, NULL);
		request_fail(r, OUTCOME_TIMEOUT, 504, "Ledger too slow", "Nothing was submitted.");
	} else {
		hold_end(r, BREAKER_FAILED, "no answer within the call's time limit");
		request_fail(r, OUTCOME_UNKNOWN, 504, "Submission unanswered",
			     "The task was handed to its backend, which has not confirmed it; it may run.");
	}
}

static void answer_async(struct request *r)
{
	char location[sizeof("/_migration/tasks/") + TASK_ID_MAX];
	snprintf(location, sizeof(location), "/_migration/tasks/%s", r->task_id);
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(4096);
	struct task_result pending = {
		.task_id = span_of(r->task_id), .task_name = r->op->task.task, .status = TASK_PENDING};
	task_result_to_json(&pending, &body);
	if (r->key)
		r->key->keeps = true;
	const struct http_field fields[] = {{SPAN_LIT("Content-Type"), SPAN_LIT("application/json")},
					    {SPAN_LIT("Location"), span_of(location)},
					    {SPAN_LIT("Preference-Applied"), SPAN_LIT("respond-async")},
					    {SPAN_LIT("X-Request-ID"), r->request_id}};
	request_answer(r, OUTCOME_SUCCESS, 202, fields, 4, buf_span(&body));
}

/* The ledger holds who may ask for the result: without that entry nobody could, so the caller waits
 * instead. */
static void on_owner_kept(void *arg, int error)
{
	struct request *r = arg;
	if (r->x && r->state == REQUEST_WAIT) {
		if (error == 0) {
			r->timer = loop_timer_free(r->timer);
			answer_async(r);
		} else {
			r->wait = task_wait(r->client, span_of(r->task_id), task_side_on_result, r);
		}
	}
	request_unref(r);
}

static void keep_owner(struct request *r)
{
	struct ledger_entry entry;
	task_owner_entry(span_of(r->task_id), r->op->task.task, r->owner, r->backend, &entry);
	request_ref(r);
	ledger_put(r->plane->env->ledger, r->plane->loop, &entry, NULL, on_owner_kept, r);
}

static void answer_forgotten(struct request *r)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(4096);
	r->timer = loop_timer_free(r->timer);
	buf_puts(&body, "{\"task_id\": ");
	json_quote(&body, span_of(r->task_id));
	buf_puts(&body, ", \"status\": \"accepted\", \"note\": \"The task was accepted and will run; its "
			"result is not kept.\"}");
	if (r->key)
		r->key->keeps = true;
	const struct http_field fields[] = {{SPAN_LIT("Content-Type"), SPAN_LIT("application/json")},
					    {SPAN_LIT("X-Request-ID"), r->request_id}};
	request_answer(r, OUTCOME_SUCCESS, 202, fields, 2, buf_span(&body));
}

static void accepted(struct request *r)
{
	r->state = REQUEST_WAIT;
	if (r->op->task.fire_and_forget) {
		if (r->op->pin_end)
			end_pin(r, answer_forgotten);
		else
			answer_forgotten(r);
		return;
	}
	if (r->async) {
		keep_owner(r);
		return;
	}
	r->wait = task_wait(r->client, span_of(r->task_id), task_side_on_result, r);
	if (!r->wait) {
		hold_end(r, BREAKER_UNJUDGED, NULL);
		request_fail(r, OUTCOME_TIMEOUT, 504, "Out of memory",
			     "The task was accepted and is still running.");
	}
}

/* --- submitting ----------------------------------------------------------------------------------------- */

/* An input that is not for the backend: nothing was attempted there. */
static void leave_to_legacy(struct request *r, enum task_submit_status status, const char *why)
{
	bool large = status == TASK_INPUT_TOO_LARGE;
	log_info("input_not_taken", LOG_SPAN("service", r->op->service), LOG_SPAN("operation", r->op->name),
		 LOG_SPAN("backend", r->backend), LOG_SPAN("request_id", r->request_id), LOG_STR("why", why));
	r->timer = loop_timer_free(r->timer);
	if (!may_fall_back(r)) {
		request_key_release(r);
		request_refuse_pinned(
			r, OUTCOME_REJECTED, large ? 413 : 422,
			large ? "Input too large" : "Input not representable",
			large ? "The input exceeds the limit of the task's backend; nothing was executed."
			      : "The task's workers cannot read this input as it was given; nothing was "
				"executed.");
		return;
	}
	r->attempting = false;
	if (r->pinned_now)
		drop_pin(r);
	r->decision.side = OUTCOME_LEGACY;
	r->decision.reason = large ? REASON_INPUT_TOO_LARGE : REASON_INPUT_NOT_REPRESENTABLE;
	request_start_legacy(r, OUTCOME_PRIMARY);
}

static const char *submission_text(enum task_submit_status s)
{
	static const char *const texts[] = {
		[TASK_SUBMITTED] = "accepted",
		[TASK_REFUSED] = "refused",
		[TASK_UNKNOWN] = "unknown",
		[TASK_INPUT_TOO_LARGE] = "input_too_large",
		[TASK_INPUT_NOT_REPRESENTABLE] = "input_not_representable",
	};
	return texts[s];
}

/* The next of the operation's backends, where this one has provably not accepted the task; false when legacy
 * is the next, or nobody may be. */
static bool next_backend(struct request *r)
{
	const struct task_mapping *m = &r->op->task;
	struct breaker_view breakers;
	const struct decide_input in = {.config = r->service->config,
					.operation = r->op,
					.readiness = r->plane->readiness,
					.breakers = &breakers};
	r->tried |= (uint8_t)(1u << plane_backend(r->plane, r->backend));
	if (!may_fall_back(r) || m->n_backends == 0)
		return false;
	plane_look_at_breakers(r->plane, &breakers);
	for (size_t i = 0; i < m->n_backends; i++) {
		size_t at = plane_backend(r->plane, m->backends[i]);
		if (at == r->plane->env->n_backends || (r->tried >> at & 1) ||
		    !decide_may_use(&in, m->backends[i]))
			continue;
		r->decision.backend = m->backends[i];
		return true;
	}
	return false;
}

static void task_side_on_word(struct request *r, enum hold_word word);

static void ask_backend(struct request *r)
{
	r->client = plane_client(r->plane, r->backend);
	r->state = REQUEST_HELD;
	hold_ask(r, task_side_on_word);
}

static void begin_next(struct request *r, enum outcome_role role)
{
	request_trace(r, "next_backend", LOG_SPAN("backend", r->decision.backend));
	request_begin(r, OUTCOME_TASK, role, r->decision.backend);
	ask_backend(r);
}

/* Its breaker or its limit did not let it: nothing was attempted. */
static void turned_away(struct request *r, enum hold_word word)
{
	if (!may_fall_back(r)) { /* only a limit says no to a pinned call */
		request_key_release(r);
		atomic_fetch_add_explicit(&r->service->shared->shed_backend, 1, memory_order_relaxed);
		request_refuse_pinned(r, OUTCOME_FAILURE, 503, "Task side busy",
				      "This call belongs to the task side, which has reached its in-flight "
				      "limit; nothing was executed.");
		return;
	}
	r->attempting = false;
	if (next_backend(r)) {
		begin_next(r, OUTCOME_PRIMARY);
		return;
	}
	r->decision.side = OUTCOME_LEGACY;
	r->decision.reason = word == HOLD_FULL ? REASON_BACKEND_BUSY : REASON_BREAKER_OPEN;
	r->decision.backend = SPAN_NONE;
	request_start_legacy(r, OUTCOME_PRIMARY);
}

static void refused(struct request *r, const struct err *why)
{
	if (!next_backend(r)) {
		fall_back(r, OUTCOME_FAILURE, span_of(why->text), SPAN_NONE);
		return;
	}
	log_warn("task_to_next_backend", LOG_SPAN("service", r->op->service),
		 LOG_SPAN("operation", r->op->name), LOG_SPAN("backend", r->backend),
		 LOG_SPAN("next", r->decision.backend), LOG_SPAN("request_id", r->request_id),
		 LOG_STR("why", why->text));
	if (r->pinned_now)
		drop_pin(r);
	r->timer = loop_timer_free(r->timer);
	request_explain(r, NULL, span_of(why->text));
	request_record(r, OUTCOME_FAILURE, 0, false);
	r->task_id[0] = '\0';
	begin_next(r, OUTCOME_FALLBACK);
}

/* What the answer says of the backend, whether or not the caller is still there. An input that is not for it
 * says nothing. */
static void judge_backend(struct request *r, const struct task_submission *s)
{
	static const enum breaker_end ends[] = {[TASK_SUBMITTED] = BREAKER_ACCEPTED,
						[TASK_REFUSED] = BREAKER_FAILED,
						[TASK_UNKNOWN] = BREAKER_FAILED,
						[TASK_INPUT_TOO_LARGE] = BREAKER_UNJUDGED,
						[TASK_INPUT_NOT_REPRESENTABLE] = BREAKER_UNJUDGED};
	hold_end(r, s->about_call ? BREAKER_UNJUDGED : ends[s->status], s->err.text);
}

static void task_side_on_submitted(void *arg, const struct task_submission *s)
{
	struct request *r = arg;
	judge_backend(r, s);
	span_copy(s->task_id, r->task_id, sizeof(r->task_id));
	request_trace(r, "task_submitted", LOG_STR("submission", submission_text(s->status)),
		      LOG_SPAN("task_id", s->task_id));
	request_key_submitted(r, s->status);
	if (!r->x || r->state != REQUEST_SUBMIT) {
		if (r->pinned_now && s->status != TASK_SUBMITTED && s->status != TASK_UNKNOWN)
			drop_pin(r);
		request_unref(r); /* the caller has left, or was told 504: the task continues */
		return;
	}
	switch (s->status) {
	case TASK_SUBMITTED:
		buf_release(&r->input);
		accepted(r);
		break;
	case TASK_REFUSED:
		refused(r, &s->err);
		break;
	case TASK_INPUT_TOO_LARGE:
	case TASK_INPUT_NOT_REPRESENTABLE:
		leave_to_legacy(r, s->status, s->err.text);
		break;
	case TASK_UNKNOWN:
		log_warn("task_submission_unknown", LOG_SPAN("operation", r->op->name),
			 LOG_SPAN("backend", r->backend), LOG_SPAN("request_id", r->request_id),
			 LOG_STR("why", s->err.text));
		r->timer = loop_timer_free(r->timer);
		request_explain(r, "submission unanswered", span_of(s->err.text));
		request_fail(r, OUTCOME_UNKNOWN, 504, "Submission unanswered",
			     "The task was handed to its backend, which has not confirmed it; it may run.");
		break;
	}
	request_unref(r);
}

static void task_side_submit(struct request *r)
{
	const struct task_mapping *m = &r->op->task;
	struct task_call call = {
		.task = m->task,
		.workflow = m->workflow,
		.queue = m->queue,
		.args = {r->input.ptr, r->args_length},
		.kwargs = {r->input.ptr + r->args_length, r->input.len - r->args_length},
		.single_input = m->single_input,
		.task_id = r->key ? span_of(r->key->claim.task_id) : SPAN_NONE,
		.id_is_key = r->key && r->client->backend->same_id_same_task,
		.request_id = r->request_id,
		.owner = span_of(r->owner),
		.idempotent = m->idempotent,
		.timeout_ms = m->task_timeout_ms,
		.priority = m->priority,
		.expires_ms = m->expires_ms,
		.awaited = !r->async && !m->fire_and_forget,
	};
	struct attempt_span span;
	spans_of_attempt(r, &span);
	spans_put_call(&span, &call);
	request_trace(r, "task_submitting", LOG_SPAN("task", m->task), LOG_SPAN("backend", r->backend),
		      LOG_INT("input_bytes", r->input.len));
	r->state = REQUEST_SUBMIT;
	request_ref(r);
	task_submit(r->client, &call, task_side_on_submitted, r);
}

/* Without the entry a follow-up call would go to the wrong side (rule 4): nothing is begun. */
static void leave_unpinned(struct request *r)
{
	log_warn("pin_not_written", LOG_SPAN("service", r->op->service), LOG_SPAN("operation", r->op->name),
		 LOG_SPAN("request_id", r->request_id));
	r->timer = loop_timer_free(r->timer);
	r->attempting = false;
	r->decision.side = OUTCOME_LEGACY;
	r->decision.reason = REASON_STATE_UNAVAILABLE;
	r->decision.backend = SPAN_NONE;
	request_start_legacy(r, OUTCOME_PRIMARY);
}

static void on_pinned(void *arg, int error)
{
	struct request *r = arg;
	if (!r->x || r->state != REQUEST_PIN) {
		hold_end(r, BREAKER_UNJUDGED, NULL);
		drop_pin(r); /* the caller has left, or was told 504: nothing was submitted */
		request_key_release(r);
	} else if (error == -EBUSY) {
		hold_end(r, BREAKER_UNJUDGED, NULL);
		r->timer = loop_timer_free(r->timer);
		request_refuse_turn(r);
	} else if (error != 0) {
		hold_end(r, BREAKER_UNJUDGED, NULL);
		drop_pin(r);
		leave_unpinned(r);
	} else {
		r->pinned_now = true;
		request_trace(r, "pin_written", LOG_SPAN("key", buf_span(&r->pin_key)));
		task_side_submit(r);
	}
	request_unref(r);
}

static void pin(struct request *r)
{
	struct ledger_entry entry = {0};
	buf_release(&r->pin_key); /* of the backend before */
	buf_init(&r->pin_key, LEDGER_KEY_MAX);
	if (request_pin_key(r, &r->pin_key) != PIN_KEY_FOUND ||
	    ledger_entry_set(&entry, r->op->pin_group, buf_span(&r->pin_key)) != 0) {
		/* Follow-ups could not be distinguished: legacy, which needs no entry. */
		hold_end(r, BREAKER_UNJUDGED, NULL);
		r->attempting = false;
		r->decision.side = OUTCOME_LEGACY;
		r->decision.reason = REASON_NO_IDENTITY;
		request_start_legacy(r, OUTCOME_PRIMARY);
		return;
	}
	span_copy(r->backend, entry.backend, sizeof(entry.backend));
	entry.created_us = r->pin_version = clock_wall_us();
	r->state = REQUEST_PIN;
	request_ref(r);
	ledger_put(r->plane->env->ledger, r->plane->loop, &entry, request_turn(r), on_pinned, r);
}

static void task_side_go_on(struct request *r)
{
	if (r->op->pin_start)
		pin(r);
	else
		task_side_submit(r);
}

/* The key that it brings is legacy's. */
static void key_to_legacy(struct request *r)
{
	r->attempting = false;
	r->decision.side = OUTCOME_LEGACY;
	r->decision.reason = REASON_PINNED;
	r->decision.backend = SPAN_NONE;
	request_start_legacy(r, OUTCOME_PRIMARY);
}

static void task_side_on_word(struct request *r, enum hold_word word)
{
	static const struct request_key_task keyed = {task_side_go_on, key_to_legacy, answer_end};
	if (word != HOLD_GO) {
		turned_away(r, word);
		return;
	}
	if (loop_timer_new(r->plane->loop, task_side_on_time_limit, r, &r->timer) == 0)
		loop_timer_start(r->timer, r->op->task.timeout_ms);
	if (r->key)
		request_key_claim_task(r, &keyed);
	else
		task_side_go_on(r);
}

static bool task_side_render_input(struct request *r)
{
	const struct task_mapping *m = &r->op->task;
	struct template_source source;
	request_template_source(r, &source);
	buf_init(&r->input, r->body.max * 2 + (64u << 10));
	int e = m->args ? template_render(m->args, &source, &r->input) : buf_puts(&r->input, "[]");
	r->args_length = r->input.len;
	if (e == 0)
		e = m->kwargs ? template_render(m->kwargs, &source, &r->input) : buf_puts(&r->input, "{}");
	return e == 0;
}

static bool wants_async(const struct request *r)
{
	/* RFC 7240: a list of preferences, tokens compared without case. */
	for (size_t i = 0; i < r->http->n_fields; i++) {
		if (!span_is_nocase(r->http->fields[i].name, "Prefer"))
			continue;
		struct span rest = r->http->fields[i].value;
		while (rest.len) {
			const char *comma = memchr(rest.ptr, ',', rest.len);
			size_t n = comma ? (size_t)(comma - rest.ptr) : rest.len;
			struct span one = span_trim((struct span){rest.ptr, n});
			const char *end = memchr(one.ptr, ';', one.len);
			if (end)
				one = span_trim((struct span){one.ptr, (size_t)(end - one.ptr)});
			if (span_is_nocase(one, "respond-async"))
				return true;
			n += comma ? 1 : 0;
			rest.ptr += n;
			rest.len -= n;
		}
	}
	return false;
}

bool task_side_refuse_stranger(struct request *r, struct auth_fingerprint *ret)
{
	enum auth_result a = auth_check(&r->op->auth, r->http->fields, r->http->n_fields, ret);
	if (a == AUTH_ACCEPTED)
		return false;
	if (a == AUTH_ASK)
		return auth_ask_refuse(r);
	static const char *const details[] = {[AUTH_MISSING] = "This operation needs a bearer token.",
					      [AUTH_MALFORMED] =
						      "The Authorization field is not a single bearer token.",
					      [AUTH_WRONG] = "The bearer token is not known."};
	const struct http_field challenge = {SPAN_LIT("WWW-Authenticate"), auth_challenge(a)};
	request_fail_with(r, OUTCOME_REJECTED, auth_status(a), problem_title(auth_status(a)), details[a],
			  &challenge, 1);
	return true;
}

/* 400 where a key is missing that must be there, or is none. */
static bool refuse_key(struct request *r)
{
	bool missing = r->key_word == IDEMPOTENCY_KEY_NONE && r->op->idempotency.use == IDEMPOTENCY_REQUIRE;
	if (!missing && r->key_word != IDEMPOTENCY_KEY_MALFORMED)
		return false;
	request_fail(r, OUTCOME_REJECTED, 400,
		     missing ? "Idempotency key missing" : "Idempotency key malformed",
		     missing ? "This operation needs an Idempotency-Key."
			     : "Idempotency-Key must be one quoted string of 1 to 255 printable ASCII "
			       "characters.");
	return true;
}

/* Its credentials have been looked at, where that takes asking. */
static void task_side_begin(struct request *r)
{
	struct auth_fingerprint who;
	if (task_side_refuse_stranger(r, &who) || refuse_key(r))
		return;
	/* The templates copy raw text, which must be JSON. A request without a body has no values, like
	 * one of null. */
	if (r->op->task.needs_body && r->body.len && !r->identity.body_checked)
		r->identity.body_malformed = json_validate(buf_span(&r->body), NULL) != 0;
	/* The legacy services' Python takes more than JSON has. */
	if (r->op->task.needs_body && r->identity.body_malformed && json_python_takes(buf_span(&r->body))) {
		leave_to_legacy(r, TASK_INPUT_NOT_REPRESENTABLE,
				"the body is JSON only by Python's rules (NaN, a byte order mark)");
		return;
	}
	if (r->op->task.needs_body && r->identity.body_malformed) {
		request_fail(r, OUTCOME_REJECTED, 400, "Malformed body",
			     "The request's body is not valid JSON.");
		return;
	}
	r->client = plane_client(r->plane, r->backend);
	if (!r->client || !task_side_render_input(r)) {
		fall_back(r, OUTCOME_FAILURE,
			  r->client ? SPAN_LIT("the task's input could not be rendered")
				    : SPAN_LIT("the backend has no client"),
			  SPAN_NONE);
		return;
	}
	r->async = r->op->task.respond_async && wants_async(r);
	auth_owner(&who, r->identity.organization, r->owner);
	ask_backend(r);
}

void task_side_start(struct request *r)
{
	request_begin(r, OUTCOME_TASK, OUTCOME_PRIMARY, r->decision.backend);
	if (!auth_ask_waits(r, r->op, task_side_begin))
		task_side_begin(r);
}

void task_side_gone(struct request *r)
{
	r->timer = loop_timer_free(r->timer);
	hold_leave(r);
	if (!r->wait)
		return;
	task_wait_cancel(steal(r->wait), r->client);
	hold_end(r, BREAKER_UNJUDGED, NULL);
}
