/*
 * The legacy side of a request: hands it to the service's upstream and the answer to the listener, both ways
 * as they come, with back-pressure. What was held for the decision goes first.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "router/forward.h"
#include "router/request/request.h"
#include "router/shadow/shadow.h"
#include "router/shadow/shadow_legacy.h"

#define FIELDS_MAX (HTTP_FIELDS_MAX + FORWARD_EXTRA)
#define WHOLE_MAX 16384 /* answers up to this size that are there at once go out in one piece */
/* … and before the request's body is complete, the ones that come whole within EARLY_WAIT_MS */
#define EARLY_MAX 65536
#define EARLY_WAIT_MS 1000
/* RFC 9110 §10.1.1: an upstream that ignores the expectation must not stall the request */
#define CONTINUE_WAIT_MS 1000

/* --- the request, upwards ------------------------------------------------------------------------------- */

/* Hands over what is held; true when nothing is left of it. */
static bool flush_held(struct request *r)
{
	const struct buf *held = r->mapped ? &r->input : &r->body;
	while (r->body_sent < held->len) {
		size_t n = legacy_call_write(r->call, held->ptr + r->body_sent, held->len - r->body_sent);
		if (n == 0)
			return false;
		r->body_sent += n;
		r->call_written = true;
	}
	return true;
}

static void end_call(struct request *r)
{
	if (r->call_ended)
		return;
	r->call_ended = true;
	legacy_call_end(r->call);
	shadow_submit(r);
	if (r->mapped)
		buf_release(&r->input);
	if (!r->op || !r->op->legacy_response) /* whose template may look into the body once more */
		request_drop_body(r);
}

/* The next step of the request's body: held bytes, then the end or the rest from the client. */
static void legacy_side_push(struct request *r)
{
	if (!r->call || r->call_ended || !flush_held(r))
		return;
	if (r->body_complete) {
		end_call(r);
		return;
	}
	if (!r->reading) {
		r->reading = true;
		exchange_read_body(r->x);
	} else if (r->body_paused) {
		r->body_paused = false;
		exchange_resume_body(r->x);
	}
}

size_t legacy_side_body(struct request *r, const char *bytes, size_t n)
{
	if (!r->call)
		return n; /* failed or cancelled: `finished` is near */
	uint64_t max = r->service->service->max_body;
	r->body_seen += n;
	if (max && r->body_seen > max) {
		r->call = legacy_call_free(r->call);
		request_fail(r, OUTCOME_REJECTED, 413, "Body too large",
			     "The body exceeds the service's limit.");
		return n;
	}
	size_t taken = flush_held(r) ? legacy_call_write(r->call, bytes, n) : 0;
	r->body_seen -= n - taken;
	r->call_written |= taken > 0;
	shadow_body(r, bytes, taken);
	r->body_paused = taken < n;
	return taken;
}

static void pass_early(struct request *r);

void legacy_side_body_end(struct request *r)
{
	r->body_complete = true;
	legacy_side_push(r);
	pass_early(r);
}

/* --- the answer, downwards ------------------------------------------------------------------------------ */

static long pull_answer(void *user, struct exchange *x, char *out, size_t size)
{
	struct request *r = user;
	(void)x;
	if (!r->call)
		return r->answer_ended ? EXCHANGE_END : EXCHANGE_CUT;
	long n = legacy_call_read(r->call, out, size);
	if (n >= 0) {
		pairing_body(r->pairing, PAIRS_LEGACY, (struct span){out, (size_t)n});
		return n;
	}
	r->answer_ended = n == LEGACY_READ_END;
	if (!r->answer_ended)
		r->result = OUTCOME_FAILURE;
	else
		pairing_end(r->pairing, PAIRS_LEGACY);
	r->call = legacy_call_free(r->call);
	return r->answer_ended ? EXCHANGE_END : EXCHANGE_CUT;
}

/* In the midst of a request's body. */
static bool is_early(const struct request *r)
{
	return r->reading && !r->body_complete;
}

/* A short answer that is completely here goes out in one piece; true when it did. An early one gets a
 * length, if it had none. */
static bool answer_whole(struct request *r, const struct http_response *response, int64_t length)
{
	bool complete, early = is_early(r);
	struct span body = legacy_call_peek(r->call, &complete);
	if (!complete || body.len > (early ? EARLY_MAX : WHOLE_MAX) ||
	    (length < 0 ? !early : body.len != (size_t)length))
		return false;
	if (exchange_respond(r->x, response, body) == EXCHANGE_E_HEAD_TOO_LARGE)
		request_head_too_large(r);
	pairing_body(r->pairing, PAIRS_LEGACY, body);
	pairing_end(r->pairing, PAIRS_LEGACY);
	r->call = legacy_call_free(r->call);
	return true;
}

static void pass_answer(struct request *r, const struct legacy_answer *a)
{
	struct http_field fields[FIELDS_MAX];
	size_t n;
	if (forward_answer(a->fields, a->n_fields, !r->service->service->via_off, fields, FIELDS_MAX, &n) !=
	    0) {
		r->call = legacy_call_free(r->call);
		request_fail(r, OUTCOME_FAILURE, 502, "Unusable answer",
			     "The legacy service's Connection field is beyond the limits.");
		return;
	}
	struct http_response response = {.status = a->status, .fields = fields, .n_fields = n};
	r->state = REQUEST_ANSWERED;
	r->status = a->status;
	r->result = request_result_of_status(a->status);
	bool bodyless = span_is(r->http->method, "HEAD") || a->status == 204 || a->status == 304;
	int e = 0;
	if (bodyless)
		e = exchange_respond_bodyless(r->x, &response, a->content_length);
	else if (!answer_whole(r, &response, a->length))
		e = exchange_respond_stream(r->x, &response, a->length, pull_answer);
	if (bodyless)
		pairing_end(r->pairing, PAIRS_LEGACY);
	if (bodyless || e)
		r->call = legacy_call_free(r->call);
	if (e)
		request_head_too_large(r);
}

/*
 * The listener can send a whole answer in the middle of the request's body; a streamed one waits until the
 * body was sent and dropped. So what legacy answers early is kept in the call for a moment, until all of it
 * is there, if it is short.
 */
static bool waits_for_rest(const struct request *r, const struct legacy_answer *a)
{
	bool complete;
	size_t here = legacy_call_peek(r->call, &complete).len;
	return is_early(r) && !complete && here < EARLY_MAX && a->length <= EARLY_MAX &&
	       !span_is(r->http->method, "HEAD");
}

static void pass_early(struct request *r)
{
	const struct legacy_answer *a = r->early;
	r->early = NULL;
	if (!a || !r->call)
		return;
	r->timer = loop_timer_free(r->timer);
	pass_answer(r, a);
}

static void on_early_late(void *arg)
{
	pass_early(arg);
}

static void on_early(struct request *r, const struct legacy_answer *a)
{
	r->early = a;
	if (!waits_for_rest(r, a) || loop_timer_new(r->plane->loop, on_early_late, r, &r->timer) < 0)
		pass_early(r);
	else
		loop_timer_start(r->timer, EARLY_WAIT_MS);
}

/* The operation maps legacy answers (the unified endpoint): the whole of it is needed. */
static void map_answer(struct request *r)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(r->service->config->max_inspect_body * 2);
	struct template_source source;
	request_template_source(r, &source);
	if (json_validate(buf_span(&r->answer), NULL) == 0)
		source.result = buf_span(&r->answer);
	source.error_status = r->status;
	struct rendered_response rendered;
	int e = response_template_render(r->op->legacy_response, &source, &rendered, &body);
	if (e != 0) {
		request_fail(r, OUTCOME_FAILURE, 502, "Unusable answer",
			     e < 0 ? "The legacy service's answer could not be mapped."
				   : "No mapping is declared for the legacy service's answer.");
		return;
	}
	request_answer_rendered(r, request_result_of_status(r->status), &rendered, NULL, 0, buf_span(&body));
}

static void legacy_side_collect(struct request *r)
{
	for (;;) {
		if (buf_reserve(&r->answer, WHOLE_MAX) < 0) {
			r->call = legacy_call_free(r->call);
			request_fail(r, OUTCOME_FAILURE, 502, "Unusable answer",
				     "The legacy service's answer is too large to be mapped.");
			return;
		}
		long n = legacy_call_read(r->call, r->answer.ptr + r->answer.len, WHOLE_MAX);
		if (n > 0) {
			r->answer.len += (size_t)n;
			buf_terminate(&r->answer);
			continue;
		}
		if (n == 0 || n == LEGACY_READ_FAILED)
			return; /* `readable` or `failed` comes */
		r->call = legacy_call_free(r->call);
		map_answer(r);
		return;
	}
}

static void on_answer_head(void *arg, const struct legacy_answer *a)
{
	struct request *r = arg;
	r->timer = loop_timer_free(r->timer);
	legacy_state_answered(&r->service->shared->legacy);
	pairing_head(r->pairing, PAIRS_LEGACY, a->status, a->fields, a->n_fields);
	request_trace(r, "legacy_answered", LOG_INT("status", a->status), LOG_INT("length", a->length));
	if (r->op && r->op->legacy_response) {
		r->state = REQUEST_COLLECT;
		r->status = a->status;
		legacy_side_collect(r);
	} else {
		on_early(r, a);
	}
}

static void on_readable(void *arg)
{
	struct request *r = arg;
	if (r->state == REQUEST_COLLECT)
		legacy_side_collect(r);
	else if (r->early && waits_for_rest(r, r->early))
		return;
	else if (r->early)
		pass_early(r);
	else
		exchange_resume_response(r->x);
}

static void legacy_side_on_writable(void *arg)
{
	legacy_side_push(arg);
}

static void on_continue(void *arg)
{
	struct request *r = arg;
	r->timer = loop_timer_free(r->timer);
	legacy_side_push(r);
}

static void on_continue_late(void *arg)
{
	on_continue(arg);
}

static void on_failed(void *arg, enum legacy_failure f, bool written, const char *detail)
{
	static const struct {
		int status;
		enum outcome_result result;
		const char *title;
	} table[] = {
		[LEGACY_CONNECT] = {502, OUTCOME_FAILURE, "Legacy service unreachable"},
		[LEGACY_CONNECT_TIMEOUT] = {504, OUTCOME_TIMEOUT,
					    "Legacy service did not accept a connection in time"},
		[LEGACY_OVERLOADED] = {503, OUTCOME_FAILURE, "Too many connections to the legacy service"},
		[LEGACY_RESET] = {502, OUTCOME_FAILURE, "Legacy service closed the connection"},
		[LEGACY_TIMEOUT] = {504, OUTCOME_TIMEOUT, "Legacy service did not answer in time"},
		[LEGACY_MALFORMED] = {502, OUTCOME_FAILURE, "Legacy service's answer is not valid HTTP"},
		[LEGACY_TRUNCATED] = {502, OUTCOME_FAILURE, "Legacy service's answer ended early"},
		[LEGACY_NAME] = {502, OUTCOME_FAILURE, "Legacy service unreachable"},
		[LEGACY_TLS] = {502, OUTCOME_FAILURE, "Legacy service unreachable"}};
	struct request *r = arg;
	r->early = NULL; /* of the answer nothing was sent: it can be told */
	/* The detail names addresses: it is for the logs, not for callers. */
	request_explain(r, legacy_state_kind(f), span_of(detail));
	legacy_state_failed(&r->service->shared->legacy, r->service->shared->name, f, detail);
	request_trace(r, "legacy_failed", LOG_STR("error", r->error), LOG_BOOL("sent", written));
	r->call = legacy_call_free(r->call);
	if (r->state == REQUEST_ANSWERED) {
		/* The head is out already: the client must see a broken answer, never a short one that
		 * looks whole. */
		r->result = table[f].result;
		exchange_resume_response(r->x); /* pull_answer cuts */
		return;
	}
	static const struct http_field retry = {SPAN_INIT("Retry-After"), SPAN_INIT("1")};
	request_fail_with(r, table[f].result, table[f].status, table[f].title,
			  written ? "The request had been sent; it may have been executed."
				  : "The request had not been sent; nothing was executed.",
			  &retry, f == LEGACY_OVERLOADED ? 1 : 0);
}

/* --- start ---------------------------------------------------------------------------------------------- */

/* The body that the operation's mapping makes for legacy, beside the held one. */
static int render_legacy_body(struct request *r)
{
	struct template_source source;
	request_template_source(r, &source);
	buf_release(&r->input); /* of a submission that was refused */
	buf_init(&r->input, r->body.max);
	return template_render(r->op->legacy_body, &source, &r->input);
}

/* What was rendered is JSON, whatever the caller's body was. */
static void say_json(struct http_field fields[FIELDS_MAX + 1], size_t *n)
{
	size_t kept = 0;
	for (size_t i = 0; i < *n; i++)
		if (!span_is_nocase(fields[i].name, "Content-Type") &&
		    !span_is_nocase(fields[i].name, "Content-Encoding"))
			fields[kept++] = fields[i];
	fields[kept++] = (struct http_field){SPAN_LIT("Content-Type"), SPAN_LIT("application/json")};
	*n = kept;
}

/* Answers the request itself, and returns false, when it must not continue. */
static bool legacy_side_request_fields(struct request *r, const char *peer, struct buf *scratch,
				       struct http_field fields[FIELDS_MAX + 1], size_t *ret_n)
{
	int e = request_forward_fields(r, peer, r->reading || r->body_complete, scratch, fields, FIELDS_MAX,
				       ret_n);
	if (e == FORWARD_E_LOOP)
		request_fail(r, OUTCOME_FAILURE, 508, "Loop detected",
			     "This request has already passed through this service's router, or through too "
			     "many routers.");
	else if (e != 0)
		request_fail(r, OUTCOME_REJECTED, 400, "Unusable Connection field",
			     "It names too many fields.");
	return e == 0;
}

void legacy_side_start(struct request *r, enum outcome_role role)
{
	static const struct legacy_events events = {
		.on_continue = on_continue,
		.head = on_answer_head,
		.readable = on_readable,
		.writable = legacy_side_on_writable,
		.failed = on_failed,
	};
	const struct http_request *h = r->http;
	request_begin(r, OUTCOME_LEGACY, role, SPAN_NONE);
	r->state = REQUEST_LEGACY;
	r->mapped = r->op && r->op->legacy_body && r->body_complete;
	if (r->mapped &&
	    ((r->body.len && json_validate(buf_span(&r->body), NULL) != 0) || render_legacy_body(r) < 0)) {
		request_fail(r, OUTCOME_REJECTED, 400, "Unusable body",
			     "The body could not be mapped to the legacy call.");
		return;
	}
	struct http_field fields[FIELDS_MAX + 1];
	size_t n_fields;
	CLEANUP(buf_releasep) struct buf scratch = BUF_INIT(1u << 20); /* until the call has its copy */
	char peer[REQUEST_ADDRESS];
	request_peer(r, peer);
	if (!legacy_side_request_fields(r, peer, &scratch, fields, &n_fields))
		return;
	if (r->mapped)
		say_json(fields, &n_fields);
	struct legacy_request q = {
		.method = r->op && r->op->legacy_method.ptr ? r->op->legacy_method : h->method,
		.target = r->op && r->op->legacy_path.ptr ? r->op->legacy_path : h->target,
		.fields = fields,
		.n_fields = n_fields,
		.has_body = r->mapped || h->has_body,
		.has_length = r->mapped || h->content_length >= 0,
		.content_length = r->mapped ? (int64_t)r->input.len : h->content_length,
		.response_timeout_ms = r->op ? r->op->legacy_timeout_ms : 0,
		.retry_if_kept_died =
			!h->has_body && (span_is(h->method, "GET") || span_is(h->method, "HEAD")),
	};
	if (legacy_upstream_is_left(r->service->upstream, q.target)) {
		request_fail(r, OUTCOME_REJECTED, 400, "Unusable path",
			     "Its dot segments leave the legacy service's base path.");
		return;
	}
	request_trace(r, "legacy_started", LOG_STR("role", outcome_role_text(role)));
	struct legacy_events mine = events;
	mine.arg = r;
	if (legacy_call_start(r->service->upstream, &q, &mine, &r->call) < 0) {
		request_fail(r, OUTCOME_FAILURE, 503, "Out of memory", "Nothing was executed.");
		return;
	}
	if (!h->has_body)
		r->body_complete = true;
	if (legacy_upstream_waiting(r->service->upstream) > 0)
		shadow_legacy_make_room(r->plane, r->service);
	shadow_begin(r);
	/* The upstream's word on the expectation decides whether the body is asked for; unless it is here
	 * already. */
	if (h->expects_continue && !r->reading && !r->body_complete &&
	    loop_timer_new(r->plane->loop, on_continue_late, r, &r->timer) == 0) {
		loop_timer_start(r->timer, CONTINUE_WAIT_MS);
		return;
	}
	legacy_side_push(r);
}

void legacy_side_cancel(struct request *r)
{
	r->call = legacy_call_free(r->call);
}
