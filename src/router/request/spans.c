#include "router/request/spans.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "router/request/request.h"

/* --- which trace ---------------------------------------------------------------------------------------- */

/* A stranger's word costs us nothing, and a trace id of his choice does not make his requests the ones that
 * are kept. */
static bool spans_sampled(const struct request *r, const struct traces *t, bool has_caller)
{
	char drawn[TRACE_ID_HEX];
	if (has_caller && config_trusts_peer(r->service->config, r->http->peer, r->http->peer_length))
		return r->spans.own.flags & TRACE_SAMPLED;
	if (!has_caller)
		return trace_is_among(r->spans.own.trace, traces_sample(t));
	trace_new_id(drawn);
	return trace_is_among(drawn, traces_sample(t));
}

static void spans_look(struct request *r)
{
	struct request_spans *s = &r->spans;
	const struct traces *t = r->plane->env->traces;
	if (s->looked || !r->http)
		return;
	s->looked = true;
	s->known = trace_context_find(r->http->fields, r->http->n_fields, &s->own);
	if (!t)
		return;
	bool has_caller = s->known;
	if (has_caller)
		memcpy(s->parent, s->own.span, sizeof(s->parent));
	else
		trace_new_id(s->own.trace);
	s->known = true;
	s->sampled = spans_sampled(r, t, has_caller);
	s->own.flags = s->sampled ? TRACE_SAMPLED : 0;
	if (s->sampled || !has_caller)
		trace_new_span(s->own.span);
}

void spans_begin_attempt(struct request *r)
{
	if (!r->plane->env->traces)
		return;
	spans_look(r);
	if (r->spans.sampled)
		trace_new_span(r->spans.attempt);
}

/* --- for tasks ------------------------------------------------------------------------------------------ */

static void spans_fill(struct request *r, const char *span, struct attempt_span *ret)
{
	const struct request_spans *s = &r->spans;
	struct trace_context c = s->own;
	ret->sampled = s->sampled;
	if (!s->known)
		return;
	memcpy(ret->trace, s->own.trace, sizeof(ret->trace));
	if (s->sampled) {
		memcpy(c.span, span, sizeof(c.span));
		memcpy(ret->span, span, sizeof(ret->span));
		memcpy(ret->parent, s->own.span, sizeof(ret->parent));
	}
	trace_parent_write(&c, ret->traceparent);
	trace_state_find(r->http->fields, r->http->n_fields, ret->tracestate);
}

void spans_of_attempt(struct request *r, struct attempt_span *ret)
{
	*ret = (struct attempt_span){.sampled = false};
	spans_look(r);
	if (r->http)
		spans_fill(r, r->spans.attempt, ret);
}

void spans_of_shadow(struct request *r, struct attempt_span *ret)
{
	char own[TRACE_SPAN_HEX];
	*ret = (struct attempt_span){.sampled = false};
	spans_look(r);
	if (r->spans.sampled)
		trace_new_span(own);
	if (r->http)
		spans_fill(r, own, ret);
}

void spans_put_call(const struct attempt_span *s, struct task_call *call)
{
	if (!s->traceparent[0])
		return;
	call->traceparent = span_of(s->traceparent);
	if (s->tracestate[0])
		call->tracestate = span_of(s->tracestate);
}

/* --- exported ------------------------------------------------------------------------------------------- */

static void spans_put_attempt(struct trace_span *t, const struct outcome *o)
{
	bool task = o->side == OUTCOME_TASK;
	const char *side = outcome_side_text((enum outcome_side)o->side);
	const char *role = outcome_role_text((enum outcome_role)o->role);
	const char *result = outcome_result_text((enum outcome_result)o->result);
	t->kind = task ? TRACE_PRODUCER : TRACE_CLIENT;
	t->start_us = o->time_us;
	t->end_us = o->time_us + o->latency_us;
	t->error =
		o->result == OUTCOME_FAILURE || o->result == OUTCOME_TIMEOUT || o->result == OUTCOME_UNKNOWN;
	snprintf(t->message, sizeof(t->message), "%s", o->error[0] ? o->error : result);
	snprintf(t->name, sizeof(t->name), "%s %s", task ? o->backend : "legacy", o->operation);
	trace_span_text(t, "migration.service", span_of(o->service));
	trace_span_text(t, "migration.operation", span_of(o->operation));
	trace_span_text(t, "migration.side", span_of(side));
	trace_span_text(t, "migration.backend", span_of(o->backend));
	trace_span_text(t, "migration.role", span_of(role));
	trace_span_text(t, "migration.reason", span_of(outcome_reason_text((enum outcome_reason)o->reason)));
	trace_span_text(t, "migration.result", span_of(result));
	trace_span_text(t, "migration.variant", span_of(o->variant));
	trace_span_text(t, "migration.task_id", span_of(o->task_id));
	trace_span_text(t, "migration.request_id", span_of(o->request_id));
	if (o->http_status)
		trace_span_number(t, "http.response.status_code", o->http_status);
}

static void spans_export(struct plane *p, const char *trace, const char *span, const char *parent,
			 const struct outcome *o)
{
	struct trace_span *t = traces_reserve(p->spans);
	if (!t)
		return; /* counted */
	memcpy(t->trace, trace, sizeof(t->trace));
	memcpy(t->span, span, sizeof(t->span));
	memcpy(t->parent, parent, sizeof(t->parent));
	spans_put_attempt(t, o);
	traces_commit(p->spans);
}

void spans_end_attempt(const struct request *r, const struct outcome *o)
{
	bool reached_none = o->reason == REASON_REFUSED || o->reason == REASON_PIN_UNKNOWN;
	if (r->spans.sampled && !reached_none)
		spans_export(r->plane, r->spans.own.trace, r->spans.attempt, r->spans.own.span, o);
}

void spans_end_shadow(struct plane *p, const struct attempt_span *s, const struct outcome *o)
{
	if (s->sampled)
		spans_export(p, s->trace, s->span, s->parent, o);
}

void spans_end_request(const struct request *r, int status)
{
	const struct request_spans *s = &r->spans;
	struct trace_span *t = s->sampled ? traces_reserve(r->plane->spans) : NULL;
	if (!t)
		return;
	struct span operation = r->op ? r->op->name : SPAN_LIT("(unmapped)");
	int64_t took_us = clock_mono_us() - r->head_mono_us;
	memcpy(t->trace, s->own.trace, sizeof(t->trace));
	memcpy(t->span, s->own.span, sizeof(t->span));
	memcpy(t->parent, s->parent, sizeof(t->parent));
	t->kind = TRACE_SERVER;
	t->end_us = clock_wall_us();
	t->start_us = t->end_us - took_us;
	t->error = status >= 500;
	if (r->op)
		snprintf(t->name, sizeof(t->name), "%.*s %.*s", SPAN_ARG(r->op->method),
			 SPAN_ARG(r->op->path));
	else
		snprintf(t->name, sizeof(t->name), "%.*s", SPAN_ARG(operation));
	trace_span_text(t, "migration.service", r->service->service->name);
	trace_span_text(t, "migration.operation", operation);
	trace_span_text(t, "migration.side", span_of(outcome_side_text(r->side)));
	trace_span_text(t, "migration.reason", span_of(outcome_reason_text(r->decision.reason)));
	trace_span_text(t, "migration.request_id", r->request_id);
	if (r->op) {
		trace_span_text(t, "http.request.method", r->op->method);
		trace_span_text(t, "http.route", r->op->path);
	}
	if (status)
		trace_span_number(t, "http.response.status_code", status);
	traces_commit(r->plane->spans);
}
