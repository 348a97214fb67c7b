#include "router/shadow/shadow.h"

#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "operation/auth.h"
#include "router/request/auth_ask.h"
#include "router/request/hold.h"
#include "router/request/request.h"
#include "router/shadow/shadow_legacy.h"
#include "router/shadow/shadow_request.h"

#define SHADOW_FIELDS_MAX 48
#define SHADOW_SHARE 0.5 /* of the budget for bodies: the rest is for calls that someone waits for */

struct shadow {
	struct plane *plane;
	LIST_ENTRY(shadow) place;	 /* in the plane's list */
	struct service_runtime *service; /* reference: the operation lives as long */
	const struct operation *op;
	struct task_client *client;
	struct plane_backend *backend;
	bool placed; /* in flight there, as one of its limit */
	struct breaker_pass pass;
	bool needs_body;	       /* and copies it as it passes */
	bool noise;		       /* legacy is asked once more */
	struct pairing *pairing;       /* reference, or NULL */
	struct shadow_request request; /* where the answer is compared */
	struct buf body;
	struct inspect_claim claim; /* of the planes' common budget for bodies */
	struct buf input;	    /* args, then kwargs, until submitted */
	size_t args_length;
	bool submitting; /* the backend's callback is still to come */
	bool ended;	 /* recorded; waits for that callback only */
	struct task_wait *wait;
	struct loop_timer *timer;
	int64_t began_mono_us;
	struct outcome outcome;
	struct attempt_span span;
};

bool shadow_sampled(double share, struct span operation, struct span entity, struct span request_id)
{
	uint32_t crc = checksum_crc32(CHECKSUM_CRC32_START, SPAN_LIT("shadow/"));
	crc = checksum_crc32(crc, operation);
	crc = checksum_crc32(crc, SPAN_LIT("/"));
	crc = checksum_crc32(crc, entity.ptr ? entity : request_id);
	return (double)crc / 4294967296.0 < share;
}

/* --- life ----------------------------------------------------------------------------------------------- */

static struct shadow *shadow_new(struct request *r)
{
	struct plane *p = r->plane;
	struct shadow *s = p->n_shadows < SHADOW_MAX ? calloc(1, sizeof(*s)) : NULL;
	if (!s)
		return NULL;
	s->plane = p;
	s->service = service_runtime_ref(r->service);
	s->op = r->op;
	LIST_INSERT_HEAD(&p->shadows, s, place);
	p->n_shadows++;
	return s;
}

static void shadow_free(struct shadow *s)
{
	LIST_REMOVE(s, place);
	s->plane->n_shadows--;
	if (s->placed)
		hold_give_place(s->backend);
	loop_timer_free(s->timer);
	buf_release(&s->body);
	buf_release(&s->input);
	inspect_claim_release(&s->claim);
	pairing_unref(s->pairing);
	shadow_request_release(&s->request);
	service_runtime_unref(s->service);
	free(s);
}

static void count_dropped(const struct request *r, const char *why)
{
	atomic_fetch_add_explicit(&r->service->shared->shadow_dropped, 1, memory_order_relaxed);
	log_debug("shadow_dropped", LOG_SPAN("service", r->op->service), LOG_SPAN("operation", r->op->name),
		  LOG_SPAN("request_id", r->request_id), LOG_STR("why", why));
}

/* Before it was submitted. */
static void shadow_drop(struct request *r, const char *why)
{
	count_dropped(r, why);
	pairing_call_off(r->pairing);
	r->pairing = pairing_unref(r->pairing);
	shadow_free(r->shadow);
	r->shadow = NULL;
}

static void shadow_record(struct shadow *s, enum outcome_result result, struct span why)
{
	struct outcome *o = recorder_reserve(s->plane->producer);
	if (!o)
		return; /* counted by the recorder */
	*o = s->outcome;
	o->latency_us = clock_mono_us() - s->began_mono_us;
	o->result = (uint8_t)result;
	outcome_error(why, o->error);
	spans_end_shadow(s->plane, &s->span, o);
	recorder_commit(s->plane->producer);
}

static void shadow_tell_breaker(struct shadow *s, enum breaker_end how, const char *why)
{
	breaker_end(s->backend->breaker, &s->pass, how, clock_mono_us(), why);
}

/* The attempt is over, with what went wrong or SPAN_NONE. Frees s, or leaves that to the backend's
 * callback. */
static void shadow_finish(struct shadow *s, enum outcome_result result, struct span why)
{
	shadow_record(s, result, why);
	s->ended = true;
	s->timer = loop_timer_free(s->timer);
	if (s->wait) {
		task_wait_cancel(s->wait, s->client);
		shadow_tell_breaker(s, BREAKER_UNJUDGED, NULL);
	}
	s->wait = NULL;
	if (!s->submitting)
		shadow_free(s);
}

/* --- the task ------------------------------------------------------------------------------------------- */

static void shadow_pair(const struct shadow *s, int status, const struct http_field *fields, size_t n,
			struct span body)
{
	pairing_head(s->pairing, PAIRS_TASK, status, fields, n);
	pairing_body(s->pairing, PAIRS_TASK, body);
	pairing_end(s->pairing, PAIRS_TASK);
}

static void shadow_pair_rendered(const struct shadow *s, const struct rendered_response *rendered,
				 struct span body)
{
	struct http_field fields[SHADOW_FIELDS_MAX];
	size_t n = 0;
	if (rendered->content_type.ptr)
		fields[n++] = (struct http_field){SPAN_LIT("Content-Type"), rendered->content_type};
	for (size_t i = 0; i < rendered->n_headers && n < SHADOW_FIELDS_MAX; i++)
		fields[n++] = (struct http_field){rendered->headers[i].name, rendered->headers[i].value};
	shadow_pair(s, rendered->status, fields, n, body);
}

/* Without a template: the result as it is, or a problem document. */
static void shadow_pair_plain(const struct shadow *s, const struct task_result *t)
{
	static const struct http_field json = {SPAN_INIT("Content-Type"), SPAN_INIT("application/json")};
	if (t->status == TASK_COMPLETED)
		shadow_pair(s, 200, &json, 1, t->result);
	else
		shadow_pair(s, 500, NULL, 0, SPAN_LIT(""));
}

/* As the task side would judge it by the answer it makes of the result. Where answers are not compared the
 * request is gone: choices that look at more than the task and its result see nothing there. */
static enum outcome_result shadow_judge(struct shadow *s, const struct task_result *told)
{
	CLEANUP(buf_releasep) struct buf room = BUF_INIT(2 * TEXT_MASKED_MAX);
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(s->service->config->max_inspect_body * 2);
	struct task_result public;
	task_result_for_callers(told, &room, &public);
	const struct task_result *t = &public;
	struct rendered_response rendered;
	int e = TEMPLATE_E_NO_CHOICE;
	if (s->op->task.response) {
		struct template_source source;
		shadow_request_source(&s->request, &source);
		source.body = s->body.len ? buf_span(&s->body) : SPAN_NONE;
		source.result = t->result;
		source.task_id = t->task_id;
		source.task_status = span_of(task_status_text(t->status));
		source.task_error = t->error;
		e = response_template_render(s->op->task.response, &source, &rendered, &body);
	}
	if (e == 0)
		shadow_pair_rendered(s, &rendered, buf_span(&body));
	else if (e == TEMPLATE_E_NO_CHOICE)
		shadow_pair_plain(s, t);
	if (e < 0)
		return OUTCOME_FAILURE;
	return request_result_of_task(t->status, e == 0 ? rendered.status : 0);
}

static struct span shadow_error_of(const struct task_result *t)
{
	if (t->status != TASK_FAILED)
		return SPAN_LIT("the task's answer is a failure");
	return t->error.len ? t->error : SPAN_LIT("The task failed.");
}

static void shadow_on_result(void *arg, int error, const struct task_result *t)
{
	struct shadow *s = arg;
	s->wait = NULL;
	shadow_tell_breaker(s, error == 0 || error == TASK_E_UNREADABLE ? BREAKER_RESULT : BREAKER_UNJUDGED,
			    NULL);
	if (error == TASK_E_UNREADABLE) {
		shadow_finish(s, OUTCOME_UNKNOWN, SPAN_LIT("Result unreadable"));
	} else if (error != 0) {
		shadow_finish(s, OUTCOME_UNKNOWN, SPAN_LIT("Result unknown"));
	} else {
		enum outcome_result result = shadow_judge(s, t);
		shadow_finish(s, result, result == OUTCOME_FAILURE ? shadow_error_of(t) : SPAN_NONE);
	}
}

static void shadow_on_time_limit(void *arg)
{
	struct shadow *s = arg;
	shadow_tell_breaker(s, s->submitting ? BREAKER_FAILED : BREAKER_NO_RESULT, "no answer in time");
	if (s->submitting)
		shadow_finish(s, OUTCOME_UNKNOWN, SPAN_LIT("Submission unanswered"));
	else
		shadow_finish(s, OUTCOME_TIMEOUT, SPAN_LIT("Task still running"));
}

static void shadow_judge_backend(struct shadow *s, const struct task_submission *submission)
{
	enum breaker_end how = BREAKER_UNJUDGED;
	if (submission->status == TASK_SUBMITTED)
		how = BREAKER_ACCEPTED;
	else if (submission->status == TASK_UNKNOWN ||
		 (submission->status == TASK_REFUSED && !submission->about_call))
		how = BREAKER_FAILED;
	s->pass.unawaited = s->ended;
	shadow_tell_breaker(s, how, submission->err.text);
}

static void shadow_on_submitted(void *arg, const struct task_submission *submission)
{
	struct shadow *s = arg;
	shadow_judge_backend(s, submission);
	s->submitting = false;
	buf_release(&s->input);
	if (!s->body.len) /* else the answer is made of it, too */
		inspect_claim_release(&s->claim);
	if (s->ended) {
		shadow_free(s);
		return;
	}
	text_copy(submission->task_id, s->outcome.task_id, sizeof(s->outcome.task_id));
	switch (submission->status) {
	case TASK_SUBMITTED:
		s->wait = task_wait(s->client, submission->task_id, shadow_on_result, s);
		if (!s->wait)
			shadow_finish(s, OUTCOME_UNKNOWN, SPAN_LIT("Result unknown"));
		break;
	case TASK_REFUSED:
		shadow_finish(s, OUTCOME_FAILURE, span_of(submission->err.text));
		break;
	case TASK_UNKNOWN:
		shadow_finish(s, OUTCOME_UNKNOWN, span_of(submission->err.text));
		break;
	case TASK_INPUT_NOT_REPRESENTABLE:
	case TASK_INPUT_TOO_LARGE: /* the task side would not have been tried either */
		atomic_fetch_add_explicit(&s->service->shared->shadow_dropped, 1, memory_order_relaxed);
		shadow_free(s);
		break;
	}
}

static void submit(struct shadow *s, struct span request_id)
{
	const struct task_mapping *m = &s->op->task;
	struct task_call call = {
		.task = m->task,
		.workflow = m->workflow,
		.queue = m->queue,
		.args = {s->input.ptr, s->args_length},
		.kwargs = {s->input.ptr + s->args_length, s->input.len - s->args_length},
		.single_input = m->single_input,
		.request_id = request_id,
		.idempotent = m->idempotent,
		.timeout_ms = m->task_timeout_ms,
		.priority = m->priority,
		/* Nobody looks at a shadow after the time limit: behind a backlog it must not take a worker
		 * from real tasks. */
		.expires_ms = m->expires_ms && m->expires_ms < m->timeout_ms ? m->expires_ms : m->timeout_ms,
		.awaited = true,
		.shadow = true,
	};
	s->submitting = true;
	spans_put_call(&s->span, &call);
	task_submit(s->client, &call, shadow_on_submitted, s);
}

/* --- the request ---------------------------------------------------------------------------------------- */

/* What speaks against a shadow of this request at its start; NULL when nothing does. */
static const char *obstacle(struct request *r, struct shadow *s)
{
	struct auth_fingerprint who;
	s->client = plane_client(r->plane, r->decision.backend);
	if (!s->client)
		return "the backend has no client";
	s->backend = &r->plane->env->backends[plane_backend(r->plane, r->decision.backend)];
	enum auth_result known = auth_check(&r->op->auth, r->http->fields, r->http->n_fields, &who);
	if (known == AUTH_ASK && auth_ask_soon(r, r->op) == AUTH_WORD_UNKNOWN)
		return "its credentials have not been checked yet";
	if (known == AUTH_ASK ? auth_ask_known(r, r->op) != AUTH_WORD_YES : known != AUTH_ACCEPTED)
		return "the task side would not accept its credentials";
	inspect_claim_init(&s->claim, &r->plane->env->inspect, r->service->config, r->http, false,
			   SHADOW_SHARE);
	s->needs_body = (r->op->task.needs_body || s->noise) && r->http->has_body && !r->body_complete;
	if (!s->needs_body)
		return NULL;
	uint64_t max = r->service->config->max_inspect_body;
	int64_t length = r->http->content_length;
	buf_init(&s->body, max);
	if (length > (int64_t)max)
		return "the body is above max_inspect_body";
	return NULL;
}

#define SHADOW_ODDS 1000000

static bool shadow_draws(double share)
{
	return share > 0 && crypto_random_below(SHADOW_ODDS) < share * SHADOW_ODDS;
}

/* Both sides run one request only where the operation says that they may, whatever a flag says. */
static bool shadow_is_safe(const struct request *r)
{
	if (r->op->safe_to_shadow)
		return true;
	count_dropped(r, "the operation is not declared safe_to_shadow");
	if (request_first_time(r->plane->env->unsafe_shadows,
			       sizeof(r->plane->env->unsafe_shadows) /
				       sizeof(r->plane->env->unsafe_shadows[0]),
			       r->op->name))
		log_warn("shadow_not_safe", LOG_SPAN("service", r->op->service),
			 LOG_SPAN("operation", r->op->name),
			 LOG_STR("effect", "a flag shadows it, but the operation is not declared "
					   "safe_to_shadow: no shadow runs"));
	return false;
}

void shadow_begin(struct request *r)
{
	const struct decision *d = &r->decision;
	if (d->side != OUTCOME_LEGACY || d->shadow <= 0 || !d->backend.ptr ||
	    !shadow_sampled(d->shadow, r->op->name, r->identity.entity, r->request_id) || !shadow_is_safe(r))
		return;
	r->shadow = shadow_new(r);
	if (!r->shadow) {
		count_dropped(r, "too many are in flight");
		return;
	}
	r->pairing = pairing_new(r);
	r->shadow->pairing = pairing_ref(r->pairing);
	r->shadow->noise = r->pairing && r->op->repeatable && shadow_draws(r->op->compare->noise_sample);
	const char *why = obstacle(r, r->shadow);
	if (why)
		shadow_drop(r, why);
}

void shadow_body(struct request *r, const char *bytes, size_t n)
{
	struct shadow *s = r->shadow;
	if (!s || !s->needs_body || n == 0)
		return;
	uint64_t needed = s->body.len + n;
	if (needed > r->service->config->max_inspect_body)
		shadow_drop(r, "the body is above max_inspect_body");
	else if (!inspect_claim_more(&s->claim, n))
		shadow_drop(r, "the budget for bodies is used up");
	else if (buf_append(&s->body, bytes, n) < 0)
		shadow_drop(r, "out of memory");
}

static bool shadow_render_input(struct request *r, struct shadow *s, struct span body)
{
	const struct task_mapping *m = &r->op->task;
	struct template_source source;
	request_template_source(r, &source);
	source.body = body.len ? body : SPAN_NONE;
	buf_init(&s->input, r->service->config->max_inspect_body * 2 + (64u << 10));
	int e = m->args ? template_render(m->args, &source, &s->input) : buf_puts(&s->input, "[]");
	s->args_length = s->input.len;
	if (e == 0)
		e = m->kwargs ? template_render(m->kwargs, &source, &s->input) : buf_puts(&s->input, "{}");
	return e == 0;
}

/* From the request, while it is there, to the task's input; NULL, or what went wrong. */
static const char *shadow_prepare(struct request *r, struct shadow *s, struct span body)
{
	if (r->op->task.needs_body && body.len && json_validate(body, NULL) != 0)
		return "the body is not valid JSON";
	if (!shadow_render_input(r, s, body))
		return "the task's input could not be rendered";
	if (s->input.len > s->claim.bytes && !inspect_claim_more(&s->claim, s->input.len - s->claim.bytes))
		return "the budget for bodies is used up";
	if (loop_timer_new(r->plane->loop, shadow_on_time_limit, s, &s->timer) < 0)
		return "out of memory";
	return NULL;
}

/* Whether the backend takes it now: NULL, or why not. */
static const char *shadow_ask(struct shadow *s)
{
	s->placed = hold_take_place(s->backend, true);
	if (!s->placed)
		return "the backend has reached its in-flight limit";
	if (breaker_begin_shadow(s->backend->breaker, clock_mono_us(), &s->pass) != BREAKER_GO)
		return "the backend's breaker is open";
	return NULL;
}

/* What the answer is made of besides the result, once the request has ended. Where there is no room for it
 * the answers are not compared. */
static void shadow_keep(struct request *r, struct shadow *s, struct span body)
{
	bool wanted = s->pairing && response_template_needs_body(s->op->task.response) && body.len;
	bool kept = true;
	if (wanted && !s->body.len) {
		buf_init(&s->body, body.len);
		kept = inspect_claim_more(&s->claim, body.len) && buf_append_span(&s->body, body) == 0;
	}
	if (s->pairing && s->op->task.response)
		kept = kept && shadow_request_keep(&s->request, r) == 0;
	if (!kept)
		pairing_miss(s->pairing, PAIRS_TASK, PAIRS_MEMORY);
	if (!wanted || !kept)
		buf_release(&s->body);
}

void shadow_submit(struct request *r)
{
	struct shadow *s = r->shadow;
	if (!s)
		return;
	struct span body = buf_span(s->needs_body ? &s->body : &r->body);
	const char *why = shadow_prepare(r, s, body);
	if (!why)
		why = shadow_ask(s);
	if (why) {
		shadow_drop(r, why);
		return;
	}
	r->shadow = NULL;
	if (s->noise) {
		pairing_expect_noise(s->pairing);
		shadow_legacy_start(r, body, s->pairing, PAIRS_AGAIN, false);
	}
	shadow_keep(r, s, body);
	request_describe(r, &s->outcome);
	spans_of_shadow(r, &s->span);
	span_copy(r->decision.backend, s->outcome.backend, sizeof(s->outcome.backend));
	s->outcome.time_us = clock_wall_us();
	s->outcome.side = OUTCOME_TASK;
	s->outcome.role = OUTCOME_SHADOW;
	s->began_mono_us = clock_mono_us();
	loop_timer_start(s->timer, s->op->task.timeout_ms);
	submit(s, r->request_id);
}

void shadow_abandon(struct request *r)
{
	if (r->shadow)
		shadow_drop(r, "the request ended before legacy had all of it");
}

/* The task has ended and its caller has the answer: nothing of it depends on legacy any more, nor can it fall
 * back. A follow-up call is about what legacy does not have. */
static bool shadow_may_follow(const struct request *r)
{
	return r->op->shadow_legacy > 0 && r->http && r->decision.reason != REASON_PINNED;
}

void shadow_beside_task(struct request *r, const struct http_field *fields, size_t n, struct span body)
{
	if (!shadow_may_follow(r) ||
	    !shadow_sampled(r->op->shadow_legacy, r->op->name, r->identity.entity, r->request_id) ||
	    !shadow_is_safe(r))
		return;
	if (r->http->has_body && !r->body_complete) {
		count_dropped(r, "the task did not need the body, so it is not available");
		return;
	}
	struct pairing *p = pairing_new(r);
	pairing_head(p, PAIRS_TASK, r->status, fields, n);
	pairing_body(p, PAIRS_TASK, body);
	pairing_end(p, PAIRS_TASK);
	const char *why = shadow_legacy_start(r, buf_span(&r->body), p, PAIRS_LEGACY, true);
	if (!why && p && r->op->repeatable && shadow_draws(r->op->compare->noise_sample)) {
		pairing_expect_noise(p);
		shadow_legacy_start(r, buf_span(&r->body), p, PAIRS_AGAIN, false);
	}
	if (why)
		count_dropped(r, why);
	pairing_unref(p);
}

void shadow_end_all(struct plane *p)
{
	for (struct shadow *s = LIST_FIRST(&p->shadows), *next; s; s = next) {
		next = LIST_NEXT(s, place);
		if (!s->ended)
			shadow_finish(s, OUTCOME_CANCELLED, SPAN_LIT("ended with the router"));
	}
}

void shadow_free_all(struct plane *p)
{
	while (!LIST_EMPTY(&p->shadows))
		shadow_free(LIST_FIRST(&p->shadows));
}
