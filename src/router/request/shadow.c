#include "router/request/shadow.h"
#include "router/request/auth_ask.h"

#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "operation/auth.h"
#include "router/request/hold.h"
#include "router/request/request.h"

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
	bool needs_body; /* and copies it as it passes */
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
	shadow_free(r->shadow);
	r->shadow = NULL;
}

static void shadow_record(struct shadow *s, enum outcome_result result)
{
	struct outcome *o = recorder_reserve(s->plane->producer);
	if (!o)
		return; /* counted by the recorder */
	*o = s->outcome;
	o->latency_us = clock_mono_us() - s->began_mono_us;
	o->result = (uint8_t)result;
	recorder_commit(s->plane->producer);
}

static void shadow_tell_breaker(struct shadow *s, enum breaker_end how, const char *why)
{
	breaker_end(s->backend->breaker, &s->pass, how, clock_mono_us(), why);
}

/* The attempt is over. Frees s, or leaves that to the backend's callback. */
static void shadow_finish(struct shadow *s, enum outcome_result result)
{
	shadow_record(s, result);
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

static struct span no_header(void *arg, struct span name)
{
	(void)arg;
	(void)name;
	return SPAN_NONE;
}

static bool no_parameter(void *arg, struct span name, struct buf *decoded)
{
	(void)arg;
	(void)name;
	(void)decoded;
	return false;
}

/* As the task side would judge it by the answer it makes of the result. The request is gone: choices that
 * look at more than the task and its result see nothing there. */
static enum outcome_result shadow_judge(const struct shadow *s, const struct task_result *t)
{
	int status = 0;
	if (s->op->task.response) {
		CLEANUP(buf_releasep) struct buf body = BUF_INIT(s->service->config->max_inspect_body * 2);
		struct template_source source = {
			.header = no_header,
			.query = no_parameter,
			.path = no_parameter,
			.result = t->result,
			.task_id = t->task_id,
			.task_status = span_of(task_status_text(t->status)),
			.task_error = t->error,
		};
		struct rendered_response rendered;
		int e = response_template_render(s->op->task.response, &source, &rendered, &body);
		if (e < 0)
			return OUTCOME_FAILURE;
		status = e == 0 ? rendered.status : 0;
	}
	return request_result_of_task(t->status, status);
}

static void shadow_on_result(void *arg, int error, const struct task_result *t)
{
	struct shadow *s = arg;
	s->wait = NULL;
	shadow_tell_breaker(s, error == 0 || error == TASK_E_UNREADABLE ? BREAKER_RESULT : BREAKER_UNJUDGED,
			    NULL);
	shadow_finish(s, error != 0 ? OUTCOME_UNKNOWN : shadow_judge(s, t));
}

static void shadow_on_time_limit(void *arg)
{
	struct shadow *s = arg;
	shadow_tell_breaker(s, s->submitting ? BREAKER_FAILED : BREAKER_NO_RESULT, "no answer in time");
	shadow_finish(s, s->submitting ? OUTCOME_UNKNOWN : OUTCOME_TIMEOUT);
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
			shadow_finish(s, OUTCOME_UNKNOWN);
		break;
	case TASK_REFUSED:
		shadow_finish(s, OUTCOME_FAILURE);
		break;
	case TASK_UNKNOWN:
		shadow_finish(s, OUTCOME_UNKNOWN);
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
	};
	s->submitting = true;
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
	s->needs_body = r->op->task.needs_body && r->http->has_body && !r->body_complete;
	if (!s->needs_body)
		return NULL;
	uint64_t max = r->service->config->max_inspect_body;
	int64_t length = r->http->content_length;
	buf_init(&s->body, max);
	if (length > (int64_t)max)
		return "the body is above max_inspect_body";
	return NULL;
}

void shadow_begin(struct request *r)
{
	const struct decision *d = &r->decision;
	if (d->side != OUTCOME_LEGACY || d->shadow <= 0 || !d->backend.ptr ||
	    !shadow_sampled(d->shadow, r->op->name, r->identity.entity, r->request_id))
		return;
	r->shadow = shadow_new(r);
	if (!r->shadow) {
		count_dropped(r, "too many are in flight");
		return;
	}
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
static const char *shadow_prepare(struct request *r, struct shadow *s)
{
	struct span body = buf_span(s->needs_body ? &s->body : &r->body);
	if (r->op->task.needs_body && body.len && json_validate(body, NULL) != 0)
		return "the body is not valid JSON";
	if (!shadow_render_input(r, s, body))
		return "the task's input could not be rendered";
	buf_release(&s->body);
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

void shadow_submit(struct request *r)
{
	struct shadow *s = r->shadow;
	if (!s)
		return;
	const char *why = shadow_prepare(r, s);
	if (!why)
		why = shadow_ask(s);
	if (why) {
		shadow_drop(r, why);
		return;
	}
	r->shadow = NULL;
	request_describe(r, &s->outcome);
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

void shadow_end_all(struct plane *p)
{
	for (struct shadow *s = LIST_FIRST(&p->shadows), *next; s; s = next) {
		next = LIST_NEXT(s, place);
		if (!s->ended)
			shadow_finish(s, OUTCOME_CANCELLED);
	}
}

void shadow_free_all(struct plane *p)
{
	while (!LIST_EMPTY(&p->shadows))
		shadow_free(LIST_FIRST(&p->shadows));
}
