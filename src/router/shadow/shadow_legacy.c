#include "router/shadow/shadow_legacy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "router/forward.h"
#include "router/problem.h"
#include "router/request/legacy_state.h"
#include "router/request/request.h"

#define SHADOW_CALL_SHARE 0.5 /* of the budget for bodies, as shadows' tasks */
#define SHADOW_READ_SIZE 16384
#define SHADOW_FIELDS_MAX (HTTP_FIELDS_MAX + FORWARD_EXTRA + 1)

struct shadow_call {
	struct plane *plane;
	struct shadow_call *next, *previous;
	struct service_runtime *service; /* reference: its upstream lives as long */
	struct legacy_call *call;
	struct buf body;
	size_t sent;
	bool ended; /* all of the body is handed over */
	struct inspect_claim claim;
	struct pairing *pairing; /* reference, or NULL */
	enum pairs_slot slot;
	bool recorded;
	int status;
	int64_t began_mono_us;
	struct outcome outcome;
	struct attempt_span span;
};

/* --- life ----------------------------------------------------------------------------------------------- */

static void shadow_call_free(struct shadow_call *c)
{
	if (c->next)
		c->next->previous = c->previous;
	if (c->previous)
		c->previous->next = c->next;
	else
		c->plane->shadow_calls = c->next;
	c->plane->n_shadow_calls--;
	legacy_call_free(c->call);
	buf_release(&c->body);
	inspect_claim_release(&c->claim);
	pairing_unref(c->pairing);
	service_runtime_unref(c->service);
	free(c);
}

static void shadow_call_finish(struct shadow_call *c, enum outcome_result result, const char *why)
{
	struct outcome *o = c->recorded ? recorder_reserve(c->plane->producer) : NULL;
	if (o) {
		*o = c->outcome;
		o->latency_us = clock_mono_us() - c->began_mono_us;
		o->result = (uint8_t)result;
		outcome_error(span_of(why), o->error);
		spans_end_shadow(c->plane, &c->span, o);
		recorder_commit(c->plane->producer);
	}
	shadow_call_free(c);
}

/* --- the call ------------------------------------------------------------------------------------------- */

static void shadow_call_push(struct shadow_call *c)
{
	while (c->sent < c->body.len) {
		size_t n = legacy_call_write(c->call, c->body.ptr + c->sent, c->body.len - c->sent);
		if (n == 0)
			return; /* `writable` comes */
		c->sent += n;
	}
	if (!c->ended)
		legacy_call_end(c->call);
	c->ended = true;
}

static void shadow_call_read(struct shadow_call *c)
{
	char piece[SHADOW_READ_SIZE];
	long n;
	while ((n = legacy_call_read(c->call, piece, sizeof(piece))) > 0)
		pairing_body(c->pairing, c->slot, (struct span){piece, (size_t)n});
	if (n != LEGACY_READ_END)
		return; /* `readable` or `failed` comes */
	pairing_end(c->pairing, c->slot);
	enum outcome_result result = request_result_of_status(c->status);
	char why[80] = "";
	if (result == OUTCOME_FAILURE)
		snprintf(why, sizeof(why), "the legacy service answered %d %s", c->status,
			 problem_title(c->status));
	shadow_call_finish(c, result, why);
}

static void shadow_call_on_head(void *arg, const struct legacy_answer *a)
{
	struct shadow_call *c = arg;
	c->status = a->status;
	pairing_head(c->pairing, c->slot, a->status, a->fields, a->n_fields);
	shadow_call_read(c);
}

static void shadow_call_on_readable(void *arg)
{
	shadow_call_read(arg);
}

static void shadow_call_on_writable(void *arg)
{
	shadow_call_push(arg);
}

static void shadow_call_on_continue(void *arg)
{
	(void)arg;
}

static void shadow_call_on_failed(void *arg, enum legacy_failure f, bool written, const char *detail)
{
	struct shadow_call *c = arg;
	(void)written;
	char why[512];
	snprintf(why, sizeof(why), "%s: %s", legacy_state_kind(f), detail);
	bool late = f == LEGACY_TIMEOUT || f == LEGACY_CONNECT_TIMEOUT;
	pairing_miss(c->pairing, c->slot, f == LEGACY_OVERLOADED ? PAIRS_BUSY : PAIRS_NO_ANSWER);
	shadow_call_finish(c, late ? OUTCOME_TIMEOUT : OUTCOME_FAILURE, why);
}

/* --- starting ------------------------------------------------------------------------------------------- */

/* Callers keep three quarters of the connections, and all while any of them waits. */
static bool shadow_call_has_room(const struct request *r)
{
	const struct plane *p = r->plane;
	unsigned mine = 0, most = r->service->service->legacy_max_connections / 4;
	for (const struct shadow_call *c = p->shadow_calls; c; c = c->next)
		mine += c->service->service == r->service->service;
	return p->n_shadow_calls < SHADOW_CALLS_MAX && mine < (most ? most : 1) &&
	       legacy_upstream_waiting(r->service->upstream) == 0;
}

static bool shadow_call_copy_body(struct shadow_call *c, const struct request *r, struct span body)
{
	inspect_claim_init(&c->claim, &r->plane->env->inspect, r->service->config, r->http, false,
			   SHADOW_CALL_SHARE);
	buf_init(&c->body, body.len);
	return body.len == 0 ||
	       (inspect_claim_more(&c->claim, body.len) && buf_append_span(&c->body, body) == 0);
}

static int shadow_call_start(struct shadow_call *c, struct request *r)
{
	static const struct legacy_events events = {
		.on_continue = shadow_call_on_continue,
		.head = shadow_call_on_head,
		.readable = shadow_call_on_readable,
		.writable = shadow_call_on_writable,
		.failed = shadow_call_on_failed,
	};
	struct http_field fields[SHADOW_FIELDS_MAX];
	size_t n;
	char peer[REQUEST_ADDRESS];
	CLEANUP(buf_releasep) struct buf scratch = BUF_INIT(1u << 20); /* until the call has its copy */
	request_peer(r, peer);
	int e = request_forward_fields(r, peer, true, &scratch, fields, SHADOW_FIELDS_MAX - 1, &n);
	if (e != 0)
		return e;
	fields[n++] = (struct http_field){SPAN_LIT(FORWARD_SHADOW_FIELD), SPAN_LIT("1")};
	const struct http_request *h = r->http;
	struct legacy_request q = {
		.method = r->op->legacy_method.ptr ? r->op->legacy_method : h->method,
		.target = r->op->legacy_path.ptr ? r->op->legacy_path : h->target,
		.fields = fields,
		.n_fields = n,
		.has_body = h->has_body,
		.has_length = h->content_length >= 0,
		.content_length = h->content_length,
		.response_timeout_ms = r->op->legacy_timeout_ms,
	};
	if (legacy_upstream_is_left(r->service->upstream, q.target))
		return -EINVAL;
	struct legacy_events mine = events;
	mine.arg = c;
	return legacy_call_start(r->service->upstream, &q, &mine, &c->call);
}

static struct shadow_call *shadow_call_new(struct request *r, struct pairing *p, enum pairs_slot slot,
					   bool recorded)
{
	struct plane *plane = r->plane;
	struct shadow_call *c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->plane = plane;
	c->service = service_runtime_ref(r->service);
	c->pairing = pairing_ref(p);
	c->slot = slot;
	c->recorded = recorded;
	c->began_mono_us = clock_mono_us();
	request_describe(r, &c->outcome);
	spans_of_shadow(r, &c->span);
	c->outcome.time_us = clock_wall_us();
	c->outcome.side = OUTCOME_LEGACY;
	c->outcome.role = OUTCOME_SHADOW;
	c->next = plane->shadow_calls;
	if (c->next)
		c->next->previous = c;
	plane->shadow_calls = c;
	plane->n_shadow_calls++;
	return c;
}

const char *shadow_legacy_start(struct request *r, struct span body, struct pairing *p, enum pairs_slot slot,
				bool recorded)
{
	bool room = shadow_call_has_room(r);
	struct shadow_call *c = room ? shadow_call_new(r, p, slot, recorded) : NULL;
	if (!c) {
		pairing_miss(p, slot, room ? PAIRS_MEMORY : PAIRS_BUSY);
		return room ? "out of memory" : "legacy has no connection to spare";
	}
	bool copied = shadow_call_copy_body(c, r, body);
	if (copied && shadow_call_start(c, r) == 0) {
		shadow_call_push(c);
		return NULL;
	}
	pairing_miss(p, slot, copied ? PAIRS_NO_ANSWER : PAIRS_MEMORY);
	shadow_call_free(c);
	return copied ? "the call could not be started" : "the budget for bodies is used up";
}

void shadow_legacy_make_room(struct plane *p, const struct service_runtime *s)
{
	for (struct shadow_call *c = p->shadow_calls, *next; c; c = next) {
		next = c->next;
		if (c->service->upstream != s->upstream)
			continue;
		pairing_miss(c->pairing, c->slot, PAIRS_BUSY);
		shadow_call_finish(c, OUTCOME_CANCELLED, "made room for callers");
	}
}

void shadow_legacy_end_all(struct plane *p)
{
	while (p->shadow_calls)
		shadow_call_finish(p->shadow_calls, OUTCOME_CANCELLED, "ended with the router");
}
