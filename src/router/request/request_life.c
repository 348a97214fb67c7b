/* A request's memory, references and record: what everything else of it stands on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "router/forward.h"
#include "router/problem.h"
#include "router/request/request.h"

#define FREE_REQUESTS_MAX 1024

/* --- references ----------------------------------------------------------------------------------------- */

struct request *request_new(struct plane_listener *pl, struct exchange *x, const struct http_request *h)
{
	struct plane *p = pl->plane;
	struct request *r = LIST_FIRST(&p->free_requests);
	if (r) {
		LIST_REMOVE(r, in_plane);
		p->n_free_requests--;
	} else {
		r = malloc(sizeof(*r));
		if (!r)
			return NULL;
	}
	memset(r, 0, sizeof(*r));
	r->plane = p;
	r->service = service_runtime_ref(pl->current);
	r->flags = p->flags ? flag_snapshot_ref(p->flags) : NULL;
	r->x = x;
	r->http = h;
	r->refs = 1;
	buf_init(&r->body, r->service->config->max_inspect_body);
	buf_init(&r->answer, r->service->config->max_inspect_body);
	LIST_INSERT_HEAD(&p->live_requests, r, in_plane);
	atomic_fetch_add_explicit(&p->exchanges, 1, memory_order_relaxed);
	return r;
}

struct request *request_ref(struct request *r)
{
	r->refs++;
	return r;
}

static void request_release(struct request *r)
{
	LIST_REMOVE(r, in_plane);
	request_drop_body(r);
	request_forget_answers(r);
	buf_release(&r->answer);
	buf_release(&r->input);
	buf_release(&r->pin_key);
	buf_release(&r->kept_result);
	free(r->context);
	free(r->key);
	free(r->auth_denied);
	loop_timer_free(r->timer);
	flag_snapshot_unref(r->flags);
	service_runtime_unref(r->service);
}

struct request *request_unref(struct request *r)
{
	if (--r->refs > 0)
		return NULL;
	struct plane *p = r->plane;
	request_leave_turn(r);
	request_release(r);
	if (p->n_free_requests < FREE_REQUESTS_MAX) {
		LIST_INSERT_HEAD(&p->free_requests, r, in_plane);
		p->n_free_requests++;
	} else {
		free(r);
	}
	return NULL;
}

void request_free_all(struct plane *p)
{
	while (!LIST_EMPTY(&p->live_requests)) {
		struct request *r = LIST_FIRST(&p->live_requests);
		request_release(r);
		free(r);
	}
	while (!LIST_EMPTY(&p->free_requests)) {
		struct request *r = LIST_FIRST(&p->free_requests);
		LIST_REMOVE(r, in_plane);
		free(r);
	}
}

/* --- the body, held ------------------------------------------------------------------------------------- */

void request_drop_body(struct request *r)
{
	buf_release(&r->body);
	inspect_claim_release(&r->claim);
}

/* --- outcomes ------------------------------------------------------------------------------------------- */

void request_begin(struct request *r, enum outcome_side side, enum outcome_role role, struct span backend)
{
	r->side = side;
	r->role = role;
	r->backend = backend;
	r->error[0] = '\0';
	r->attempting = true;
	r->result = OUTCOME_FAILURE;
	r->began_us = clock_wall_us();
	r->began_mono_us = clock_mono_us();
	if (!r->head_mono_us)
		r->head_mono_us = r->began_mono_us;
	spans_begin_attempt(r);
}

void request_describe(const struct request *r, struct outcome *o)
{
	text_copy(r->service->service->name, o->service, sizeof(o->service));
	text_copy(r->op ? r->op->name : SPAN_LIT(OUTCOME_UNMAPPED), o->operation, sizeof(o->operation));
	outcome_id(r->identity.organization, o->organization, sizeof(o->organization));
	outcome_id(r->identity.user, o->user, sizeof(o->user));
	text_copy(r->decision.variant, o->variant, sizeof(o->variant));
	text_copy(r->request_id, o->request_id, sizeof(o->request_id));
	request_client(r, o->client);
	if (o->client[0] == '-')
		o->client[0] = '\0';
	o->reason = (uint8_t)r->decision.reason;
	if (r->decision.share > 0) {
		o->assigned = (uint8_t)r->decision.assigned;
		o->share = r->decision.share;
		o->split = r->decision.split;
		o->entity = crypto_hash64(r->identity.entity);
	}
	if (!r->op && r->http) { /* what else legacy is asked for (design, "Drain") */
		path_pattern_method(r->http->method, o->method);
		path_pattern(r->http->target, o->pattern);
	}
}

void request_explain(struct request *r, const char *kind, struct span why)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(TEXT_MASKED_MAX);
	if (r->error[0])
		return;
	if (kind)
		buf_printf(&text, "%s: ", kind);
	buf_append_span(&text, text_front(why, TEXT_MASKED_MAX / 2));
	outcome_error(buf_span(&text), r->error);
}

/* Where nothing has been told: an answer of the side's own. What it answers as the caller's fault is none of
 * its errors. */
static void explain_by_result(struct request *r, enum outcome_result result, int status)
{
	char text[160];
	if (result == OUTCOME_SUCCESS || result == OUTCOME_REJECTED || r->error[0])
		return;
	if (result == OUTCOME_CANCELLED)
		snprintf(text, sizeof(text), "%s",
			 status ? "the client left before it had the whole answer"
				: "the client left before there was an answer");
	else if (status)
		snprintf(text, sizeof(text), "%s answered %d %s",
			 r->side == OUTCOME_TASK ? "the task" : "the legacy service", status,
			 problem_title(status));
	else
		snprintf(text, sizeof(text), "ended without an answer");
	request_explain(r, NULL, span_of(text));
}

void request_record(struct request *r, enum outcome_result result, int status, bool answered)
{
	if (!r->attempting)
		return;
	r->attempting = false;
	int64_t latency_us = clock_mono_us() - r->began_mono_us;
	explain_by_result(r, result, status);
	request_log(r, result, status, latency_us, answered);
	struct outcome *o = recorder_reserve(r->plane->producer);
	if (!o)
		return; /* counted by the recorder */
	request_describe(r, o);
	o->time_us = r->began_us;
	o->latency_us = latency_us;
	text_copy(r->backend, o->backend, sizeof(o->backend));
	text_copy(span_of(r->side == OUTCOME_TASK ? r->task_id : ""), o->task_id, sizeof(o->task_id));
	o->http_status = (uint16_t)status;
	o->side = (uint8_t)r->side;
	o->role = (uint8_t)r->role;
	o->result = (uint8_t)result;
	o->answered = answered;
	memcpy(o->error, r->error, sizeof(o->error));
	spans_end_attempt(r, o);
	recorder_commit(r->plane->producer);
}

/* --- what goes on to legacy ----------------------------------------------------------------------------- */

int request_forward_fields(struct request *r, const char *peer, bool whole, struct buf *scratch,
			   struct http_field *fields, size_t size, size_t *ret_n)
{
	const struct http_request *h = r->http;
	bool http10 = span_is(h->version, "HTTP/1.0"),
	     trusted = config_trusts_peer(r->service->config, h->peer, h->peer_length);
	const struct service *s = r->service->service;
	struct forward_context c = {
		.request_id = r->request_id,
		.host = r->service->host,
		.peer = span_of(peer),
		.peer_trusted = trusted,
		.scratch = scratch,
		.forwarded = s->forwarded,
		.via_off = s->via_off,
		.own_id = span_of(r->service->shared->id),
		.via = span_of(r->service->shared->via[http10]),
		.drop_expect = whole,
		.protected_names = r->service->identity_fields,
		.n_protected = r->service->n_identity_fields,
	};
	if (s->forwarded == FORWARD_AUTO)
		c.forwarded = trusted ? FORWARD_KEEP : FORWARD_REPLACE;
	if (s->legacy_host)
		c.host_instead = *s->legacy_host ? span_of(s->legacy_host) : r->service->host;
	return forward_request(h->fields, h->n_fields, &c, fields, size, ret_n);
}
