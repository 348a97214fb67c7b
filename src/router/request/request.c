#include "router/request/request.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/checksum.h"
#include "base/log.h"
#include "flags/asked.h"
#include "router/forward.h"
#include "router/http/guesses.h"
#include "router/request/auth_ask.h"
#include "router/shadow/shadow.h"

/* --- identity ------------------------------------------------------------------------------------------- */

static void find_identity(struct request *r)
{
	struct identity_input in = {
		.request = r->http,
		.match = &r->match,
		.peer_trusted = config_trusts_peer(r->service->config, r->http->peer, r->http->peer_length),
		.body_read = r->body_complete,
		.body = r->body.len ? buf_span(&r->body) : SPAN_NONE,
	};
	identity_find(&r->op->identity, &in, &r->identity);
	if (!r->op->context_sources || !r->op->has_task)
		return;
	if (!r->context)
		r->context = calloc(1, sizeof(*r->context));
	if (!r->context)
		return; /* without it segments do not match */
	identity_find_context(r->op, &in, r->context);
	r->identity.wants_body |= r->context->wants_body;
}

/* --- decision ------------------------------------------------------------------------------------------- */

static enum decide_wish override_wish(const struct request *r)
{
	const struct config *c = r->service->config;
	if (!c->override.enabled)
		return WISH_NONE;
	struct span side = http_request_field(r->http, "X-Migration-Override");
	struct span secret = http_request_field(r->http, "X-Migration-Override-Secret");
	if (!side.ptr || !secret.ptr)
		return WISH_NONE;
	char hash[CRYPTO_SHA256_HEX];
	crypto_sha256_hex(secret, hash);
	if (!guesses_allow(r->plane->env->guesses, r->http->peer, hash))
		return WISH_NONE;
	if (!crypto_equal(span_of(hash), span_of(c->override.secret_sha256))) {
		guesses_wrong(r->plane->env->guesses, r->http->peer, "override_secret_wrong");
		return WISH_NONE;
	}
	guesses_right(r->plane->env->guesses, hash);
	if (span_is_nocase(side, "task"))
		return WISH_TASK;
	return span_is_nocase(side, "legacy") ? WISH_LEGACY : WISH_NONE;
}

static void inspect(struct request *r);

/* Legacy serves. Where its call is mapped, the body must be here first. */
static void start_legacy(struct request *r)
{
	if (r->op && r->op->legacy_needs_body && !r->body_complete) {
		r->body_for = BODY_FOR_LEGACY;
		inspect(r);
		return;
	}
	request_start_legacy(r, OUTCOME_PRIMARY);
}

/* Why a body is not looked into. */
enum unread { UNREAD_TOO_LARGE, UNREAD_NO_MEMORY };

/* Whether the call is, or may be, the task side's by the ledger; or starts what may have an entry there. */
static bool is_pinned_elsewhere(struct request *r)
{
	struct ledger_entry entry;
	if (r->key && r->key->on_task)
		return true;
	if (request_has_pin(r->op) && r->op->pin_start && request_pin_in_body(r->op))
		return request_may_have(r, r->op->pin_group);
	if (!request_follows(r->op))
		return false;
	/* Before the decision the ledger has not been asked yet; without the body it may be impossible to. */
	return r->body_for == BODY_FOR_IDENTITY ? request_pin_of(r, &entry) != WISH_LEGACY
						: r->decision.side == OUTCOME_TASK;
}

static void request_refuse_unread(struct request *r, enum unread why, const char *whose)
{
	char detail[160];
	snprintf(detail, sizeof(detail), "%s %s; nothing was executed.",
		 why == UNREAD_TOO_LARGE ? "The body exceeds the limit for"
					 : "There is no memory right now for the body, which is needed for",
		 whose);
	if (why == UNREAD_TOO_LARGE)
		request_refuse_for_now(r, OUTCOME_REJECTED, 413, "Body too large", detail);
	else
		request_refuse_for_now(r, OUTCOME_FAILURE, 503, "No memory for the body", detail);
}

/* The body is not looked into: legacy, unless legacy would be wrong. Whose an idempotency key is may depend
 * on the body; one that is too large is so each time. */
static void leave_unread(struct request *r)
{
	enum unread why = r->body_too_large ? UNREAD_TOO_LARGE : UNREAD_NO_MEMORY;
	bool elsewhere = is_pinned_elsewhere(r);
	if (request_waits(r, leave_unread))
		return;
	if (elsewhere || (r->key && why == UNREAD_NO_MEMORY)) {
		bool decided = r->body_for != BODY_FOR_IDENTITY;
		r->side = r->decision.side = OUTCOME_TASK;
		r->decision.reason = decided ? REASON_PINNED : REASON_PIN_UNKNOWN;
		request_refuse_unread(r, why,
				      decided ? "what the task side takes"
					      : "telling which side this call belongs to");
		return;
	}
	r->decision.side = OUTCOME_LEGACY;
	r->decision.reason = REASON_BODY_TOO_LARGE;
	r->decision.backend = SPAN_NONE;
	if (r->op && r->op->legacy_needs_body) { /* the mapped call cannot be made from a part of the body */
		request_refuse_unread(r, why, "what is mapped");
	} else {
		request_start_legacy(r, OUTCOME_PRIMARY);
	}
}

static void go_unread(struct request *r, enum unread why)
{
	r->body_too_large = why == UNREAD_TOO_LARGE;
	leave_unread(r);
}

static void log_unknown_backend(struct request *r)
{
	struct plane_env *env = r->plane->env;
	struct err e;
	if (!request_first_time(env->unknown_backends,
				sizeof(env->unknown_backends) / sizeof(env->unknown_backends[0]),
				r->decision.unknown))
		return;
	config_backend_not_found(r->service->config, r->decision.unknown, &e);
	log_error("backend_unknown", LOG_SPAN("service", r->op->service), LOG_SPAN("operation", r->op->name),
		  LOG_SPAN("variant", r->decision.variant), LOG_STR("error", e.text));
}

/* Two readers may find two keys in it: whichever side served would be the wrong one for someone. */
static void refuse_ambiguous(struct request *r)
{
	char detail[256];
	snprintf(detail, sizeof(detail),
		 "%.*s is given more than once, or can be read in two ways; nothing was executed.",
		 SPAN_ARG(r->op->pin_key));
	r->decision.reason = REASON_PIN_UNKNOWN;
	request_fail(r, OUTCOME_REJECTED, 400, "Ambiguous name", detail);
}

/* It is the task side's, or may be, and cannot be served there. */
static void refuse_decided(struct request *r)
{
	if (request_pin_key_of(r) == PIN_KEY_MALFORMED)
		request_refuse_pinned(r, OUTCOME_REJECTED, 400, "Malformed body", SIDE_IN_BODY);
	else if (r->decision.reason == REASON_BACKEND_UNKNOWN)
		request_refuse_pinned(r, OUTCOME_FAILURE, 503, "Task side unavailable",
				      "This call belongs to a task backend that is not configured here; "
				      "nothing was executed.");
	else
		request_refuse_pinned(r, OUTCOME_FAILURE, 503, "Side unknown", SIDE_UNKNOWN);
}

static void trace_decision(const struct request *r)
{
	request_trace(r, "request_decided", LOG_STR("side", outcome_side_text(r->decision.side)),
		      LOG_SPAN("backend", r->decision.backend),
		      LOG_STR("reason", outcome_reason_text(r->decision.reason)),
		      LOG_SPAN("variant", r->decision.variant), LOG_SPAN("user", r->identity.user),
		      LOG_SPAN("organization", r->identity.organization),
		      LOG_STR("flags", r->flags ? flag_snapshot_digest(r->flags) : ""));
}

/* Its idempotency key is the task side's, although the decision said legacy. */
static void serve_by_task(struct request *r)
{
	if (r->reading && !r->body_complete) { /* what was too large to be looked into */
		request_refuse_unread(r, UNREAD_TOO_LARGE, "what the task side takes");
		return;
	}
	r->body_for = BODY_FOR_TASK;
	if (task_side_needs_body(r) && !r->body_complete)
		inspect(r);
	else
		task_side_start(r);
}

/* One organization's burst does not take the places of the others. Who has none is not limited: those are no
 * one's. */
static bool admit_organization(struct request *r)
{
	unsigned max = r->service->service->max_in_flight_per_organization;
	if (max == 0 || r->organization || !r->identity.organization.len)
		return true;
	if (organization_take(r->plane->env->organizations, r->service->service->name,
			      r->identity.organization, max, &r->organization) == 0)
		return true;
	atomic_fetch_add_explicit(&r->service->shared->shed_organization, 1, memory_order_relaxed);
	r->decision.reason = REASON_REFUSED;
	request_refuse_for_now(
		r, OUTCOME_REJECTED, 503, "Too many requests of this organization",
		"It has reached its limit of requests in flight at this service; nothing was executed.");
	return false;
}

/* Everything that the decision needs is known. */
static void decide_now(struct request *r)
{
	if (!admit_organization(r))
		return;
	struct decide_input in = {
		.config = r->service->config,
		.operation = r->op,
		.flags = r->flags,
		.user = r->identity.user,
		.organization = r->identity.organization,
		.entity = r->identity.entity,
		.readiness = r->plane->readiness,
		.holds = r->plane->holds,
		.extra = r->context ? r->context->entries : NULL,
		.n_extra = r->context ? r->context->n : 0,
	};
	struct ledger_entry entry;
	struct breaker_view breakers;
	if (request_pin_key_of(r) == PIN_KEY_AMBIGUOUS) {
		refuse_ambiguous(r);
		return;
	}
	if (request_follows(r->op))
		in.pinned = request_pin_of(r, &entry);
	if (request_waits(r, decide_now))
		return;
	if (r->op && r->op->has_task) {
		in.override = override_wish(r);
		plane_look_at_breakers(r->plane, &breakers);
		in.breakers = &breakers;
	}
	if (in.pinned == WISH_TASK)
		in.pinned_backend = span_of(entry.backend);
	decide(&in, &r->decision, NULL);
	trace_decision(r);
	if (r->decision.unknown.ptr)
		log_unknown_backend(r);
	r->decision.unknown = SPAN_NONE; /* a pinned one lives no longer than the lookup */
	if (r->decision.refused) {
		refuse_decided(r);
		return;
	}
	if (r->decision.side == OUTCOME_LEGACY) {
		start_legacy(r);
		return;
	}
	if (task_side_needs_body(r) && !r->body_complete) {
		r->body_for = BODY_FOR_TASK;
		inspect(r);
		return;
	}
	task_side_start(r);
}

/* The body is known, as far as it is going to be. */
static void inspected(struct request *r)
{
	r->body_complete = true;
	switch (r->body_for) {
	case BODY_FOR_TASK:
		task_side_start(r);
		break;
	case BODY_FOR_LEGACY:
		request_start_legacy(r, OUTCOME_PRIMARY);
		break;
	case BODY_FOR_IDENTITY:
		find_identity(r);
		decide_now(r);
		break;
	}
}

static void note_asked(void *arg, const struct flag_asked *asked)
{
	(void)asked;
	*(bool *)arg = true;
}

/* Whether the flags say task whoever asks: no percentage and no segment takes part. */
static bool task_for_everybody(const struct request *r)
{
	struct breaker_view breakers;
	struct decide_input in = {.config = r->service->config,
				  .operation = r->op,
				  .flags = r->flags,
				  .readiness = r->plane->readiness,
				  .holds = r->plane->holds,
				  .breakers = &breakers};
	struct decision d;
	bool depends = request_follows(r->op) ||
		       (r->service->config->override.enabled && override_wish(r) != WISH_NONE);
	for (size_t i = 0; r->flags && i < r->op->n_flags; i++) {
		const struct flag *f = flag_find(r->flags, r->op->flags[i]);
		if (f)
			flag_each_asked(f, note_asked, &depends);
	}
	if (depends)
		return false;
	plane_look_at_breakers(r->plane, &breakers);
	decide(&in, &d, NULL);
	return d.side == OUTCOME_TASK;
}

/* Whether it is certain that the task side would serve. */
static bool asks_credentials_first(const struct request *r)
{
	return r->body_for == BODY_FOR_TASK || (r->body_for == BODY_FOR_IDENTITY && task_for_everybody(r));
}

/* Credentials are asked for before a body is held, where it is certain that the task side would serve:
 * false when that was answered. */
static bool admit_body(struct request *r, bool *ret_stranger)
{
	struct auth_fingerprint who;
	*ret_stranger = r->op->has_task &&
			auth_check(&r->op->auth, r->http->fields, r->http->n_fields, &who) != AUTH_ACCEPTED;
	if (*ret_stranger && r->op->auth.kind == AUTH_CHECK)
		*ret_stranger = auth_ask_known(r, r->op) != AUTH_WORD_YES;
	if (!*ret_stranger || !asks_credentials_first(r))
		return true;
	r->side = OUTCOME_TASK;
	return !task_side_refuse_stranger(r, &who);
}

static const char *inspect_purpose(const struct request *r)
{
	static const char *const texts[] = {
		[BODY_FOR_IDENTITY] = "identity",
		[BODY_FOR_TASK] = "task",
		[BODY_FOR_LEGACY] = "legacy",
	};
	return texts[r->body_for];
}

static void inspect(struct request *r)
{
	const struct config *c = r->service->config;
	bool stranger;
	if (!r->http->has_body || r->body_complete) {
		inspected(r);
		return;
	}
	if (r->op && r->op->auth.kind == AUTH_CHECK && r->auth_word == AUTH_WORD_UNKNOWN &&
	    asks_credentials_first(r) && auth_ask_waits(r, r->op, inspect))
		return;
	if (!admit_body(r, &stranger))
		return;
	if (r->http->content_length > (int64_t)c->max_inspect_body) {
		go_unread(r, UNREAD_TOO_LARGE);
		return;
	}
	request_trace(r, "request_body_held", LOG_STR("for", inspect_purpose(r)));
	inspect_claim_init(&r->claim, &r->plane->env->inspect, c, r->http, stranger, 1);
	r->state = REQUEST_INSPECT;
	r->reading = true;
	exchange_read_body(r->x);
}

static size_t inspect_body(struct request *r, const char *bytes, size_t n)
{
	bool fits = r->body.len + n <= r->service->config->max_inspect_body;
	if (fits && inspect_claim_more(&r->claim, n) && buf_append(&r->body, bytes, n) == 0)
		return n;
	/* What has been held goes first, then the rest streams after it. */
	r->body_paused = true;
	go_unread(r, fits ? UNREAD_NO_MEMORY : UNREAD_TOO_LARGE);
	return r->state == REQUEST_ANSWERED ? n : 0;
}

/* Whoever continues takes it up again. */
static size_t body_later(struct request *r)
{
	r->body_paused = true;
	return 0;
}

/* --- the listener's calls ------------------------------------------------------------------------------- */

static void refuse_busy(struct request *r)
{
	static const struct http_field retry = {SPAN_INIT("Retry-After"), SPAN_INIT("1")};
	atomic_fetch_add_explicit(&r->service->shared->overloaded, 1, memory_order_relaxed);
	request_fail_with(
		r, OUTCOME_FAILURE, 503, "Too many requests in flight",
		"The limit of concurrent requests of this service is reached; nothing was executed.", &retry,
		1);
}

static void begin_upload(struct request *r)
{
	if (!r->http->has_body)
		return;
	r->upload = &r->service->shared
			     ->uploads[inspect_peer(&r->plane->env->inspect, r->service->config, r->http)];
	atomic_fetch_add_explicit(r->upload, 1, memory_order_relaxed);
}

static void end_upload(struct request *r)
{
	if (r->upload)
		atomic_fetch_sub_explicit(r->upload, 1, memory_order_relaxed);
	r->upload = NULL;
}

/* Whoever announces bodies and does not send them gets no more than half of the places. */
static bool hogs(const struct request *r, unsigned max_in_flight)
{
	return r->upload && atomic_load_explicit(r->upload, memory_order_relaxed) > (max_in_flight + 1) / 2;
}

/* Answers what must not go further; false when it did. */
static bool request_admit(struct request *r, unsigned in_flight)
{
	const struct service *s = r->service->service;
	if (s->max_in_flight && (in_flight > s->max_in_flight || hogs(r, s->max_in_flight))) {
		refuse_busy(r);
		return false;
	}
	if (s->max_body && r->http->content_length > 0 && (uint64_t)r->http->content_length > s->max_body) {
		request_fail(r, OUTCOME_REJECTED, 413, "Body too large",
			     "The body exceeds the service's limit.");
		return false;
	}
	return true;
}

/* Its head is known, and it may go further. */
static void go_in(struct request *r)
{
	bool may_follow = !r->op && request_may_follow(r);
	if (request_waits(r, go_in))
		return;
	if (may_follow) {
		r->decision.reason = REASON_PIN_UNKNOWN;
		request_fail(
			r, OUTCOME_REJECTED, 400, "Ambiguous path",
			"Some servers read this path as a follow-up call's, and its side depends on that; "
			"nothing was executed.");
		return;
	}
	if (r->op && request_key_find(r, serve_by_task) < 0) {
		request_refuse_for_now(r, OUTCOME_FAILURE, 503, "Out of memory", "Nothing was executed.");
		return;
	}
	if (r->op)
		find_identity(r);
	if (r->op && r->op->has_task && (r->identity.wants_body || request_pin_in_body(r->op)))
		inspect(r);
	else
		decide_now(r);
}

static void *request_on_head(void *arg, struct exchange *x, const struct http_request *h)
{
	struct plane_listener *pl = arg;
	struct request *r = request_new(pl, x, h);
	if (!r) {
		exchange_abort(x);
		return NULL;
	}
	struct service_runtime *s = r->service;
	atomic_fetch_add_explicit(&s->shared->requests, 1, memory_order_relaxed);
	unsigned in_flight = atomic_fetch_add_explicit(&s->shared->in_flight, 1, memory_order_relaxed) + 1;
	r->request_id = forward_request_id(h->fields, h->n_fields, r->made_id);
	if (span_starts(route_path(h->target), SPAN_LIT(ROUTE_RESERVED))) {
		task_poll_start(r);
		return r;
	}
	begin_upload(r);
	request_begin(r, OUTCOME_LEGACY, OUTCOME_PRIMARY, SPAN_NONE);
	if (route_match(s->routes, h->method, h->target, &r->match))
		r->op = r->match.operation;
	r->decision.reason = r->op ? REASON_REFUSED : REASON_UNMAPPED; /* until it is decided */
	request_trace(r, "request_head", LOG_SPAN("service", s->service->name),
		      LOG_SPAN("operation", r->op ? r->op->name : SPAN_LIT(OUTCOME_UNMAPPED)),
		      LOG_SPAN("method", h->method), LOG_BOOL("body", h->has_body),
		      LOG_INT("content_length", h->content_length));
	if (request_admit(r, in_flight))
		go_in(r);
	return r;
}

static size_t request_on_body(void *user, struct exchange *x, const char *bytes, size_t n)
{
	struct request *r = user;
	(void)x;
	switch (r->state) {
	case REQUEST_INSPECT:
		return inspect_body(r, bytes, n);
	case REQUEST_LEGACY:
		return legacy_side_body(r, bytes, n);
	case REQUEST_ASK:
	case REQUEST_CLAIM:
		return body_later(r);
	default:
		return n; /* answered meanwhile: the rest is of no use */
	}
}

static void request_on_body_end(void *user, struct exchange *x)
{
	struct request *r = user;
	(void)x;
	end_upload(r);
	if (r->state == REQUEST_INSPECT)
		inspected(r);
	else if (r->state == REQUEST_LEGACY)
		legacy_side_body_end(r);
}

static void on_client_gone(void *user, struct exchange *x)
{
	struct request *r = user;
	(void)x;
	/* Ends the upstream request at once; a submitted task continues. `finished` follows. */
	legacy_side_cancel(r);
}

static void request_on_finished(void *user, struct exchange *x, bool gone)
{
	struct request *r = user;
	(void)x;
	if (!r)
		return;
	bool answered = r->state == REQUEST_ANSWERED;
	end_upload(r);
	legacy_side_cancel(r);
	task_side_gone(r);
	shadow_abandon(r);
	pairing_miss(r->pairing, PAIRS_LEGACY, gone ? PAIRS_CANCELLED : PAIRS_NO_ANSWER);
	r->pairing = pairing_unref(r->pairing);
	if (gone && (!answered || r->result == OUTCOME_SUCCESS || r->result == OUTCOME_REJECTED))
		request_record(r, OUTCOME_CANCELLED, answered ? r->status : 0, false);
	else
		request_record(r, r->result, r->status, answered);
	spans_end_request(r, answered ? r->status : 0);
	r->x = NULL;
	r->http = NULL;
	r->state = REQUEST_GONE;
	organization_give(r->plane->env->organizations, r->organization);
	r->organization = NULL;
	atomic_fetch_sub_explicit(&r->service->shared->in_flight, 1, memory_order_relaxed);
	atomic_fetch_sub_explicit(&r->plane->exchanges, 1, memory_order_relaxed);
	request_unref(r);
}

static void request_on_refused(void *arg, int status, const char *why)
{
	struct plane_listener *pl = arg;
	atomic_fetch_add_explicit(&pl->current->shared->refused, 1, memory_order_relaxed);
	log_debug("request_refused", LOG_SPAN("service", pl->current->service->name),
		  LOG_INT("status", status), LOG_STR("why", why));
}

const struct listener_handler request_handler = {
	.head = request_on_head,
	.body = request_on_body,
	.body_end = request_on_body_end,
	.client_gone = on_client_gone,
	.finished = request_on_finished,
	.refused = request_on_refused,
};
