/* Answers of the router's own, and what templates may ask of a request. */
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "router/problem.h"
#include "router/request/request.h"

#define KEPT_FIELDS_MAX 65536

static struct span source_header(void *arg, struct span name)
{
	const struct request *r = arg;
	for (size_t i = 0; r->http && i < r->http->n_fields; i++) {
		const struct http_field *f = &r->http->fields[i];
		if (f->name.len == name.len && strncasecmp(f->name.ptr, name.ptr, name.len) == 0)
			return f->value;
	}
	return SPAN_NONE;
}

static bool source_query(void *arg, struct span name, struct buf *decoded)
{
	const struct request *r = arg;
	return r->http && route_query(r->http->target, name, decoded);
}

static bool source_path(void *arg, struct span name, struct buf *decoded)
{
	const struct request *r = arg;
	return route_parameter(&r->match, name, decoded);
}

void request_template_source(struct request *r, struct template_source *ret)
{
	if (!r->uuid[0])
		crypto_uuid4(r->uuid);
	*ret = (struct template_source){
		.arg = r,
		.body = r->body_complete && r->body.len ? buf_span(&r->body) : SPAN_NONE,
		.header = source_header,
		.query = source_query,
		.path = source_path,
		.user = r->identity.user,
		.organization = r->identity.organization,
		.uuid = span_of(r->uuid),
		.request_id = r->request_id,
		.task_id = r->task_id[0] ? span_of(r->task_id) : SPAN_NONE,
	};
	if (r->op && r->op->auth.forward.name.ptr && r->http)
		auth_credential_find(&r->op->auth.forward, r->http->fields, r->http->n_fields,
				     &ret->credential);
}

enum outcome_result request_result_of_status(int status)
{
	if (status == 408 || status == 429 || status >= 500)
		return OUTCOME_FAILURE;
	return status >= 400 ? OUTCOME_REJECTED : OUTCOME_SUCCESS;
}

void request_head_too_large(struct request *r)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(4096);
	const struct problem p = {
		.status = 502,
		.title = "Answer head too large",
		.detail =
			SPAN_LIT("The request was executed, but the fields of its answer exceed the limit."),
		.instance = r->request_id,
	};
	problem_render(&p, &body);
	const struct http_field type = {SPAN_LIT("Content-Type"), SPAN_LIT(PROBLEM_CONTENT_TYPE)};
	const struct http_response response = {.status = p.status, .fields = &type, .n_fields = 1};
	log_warn("answer_head_too_large", LOG_SPAN("service", r->service->service->name),
		 LOG_SPAN("operation", r->op ? r->op->name : SPAN_LIT(OUTCOME_UNMAPPED)),
		 LOG_INT("status", r->status), LOG_INT("max_head", r->service->config->max_head));
	request_explain(r, NULL, span_of(p.title));
	r->result = OUTCOME_FAILURE;
	r->status = p.status;
	r->state = REQUEST_ANSWERED;
	exchange_respond(r->x, &response, buf_span(&body));
}

/* Each as its name and its value, ended by NULs: what has one in it is not sent either. X-Request-ID is each
 * request's own. */
static void put_fields(const struct http_field *fields, size_t n, struct buf *out)
{
	for (size_t i = 0; i < n; i++) {
		const struct http_field *f = &fields[i];
		if (span_is_nocase(f->name, "X-Request-ID") ||
		    (f->value.len && memchr(f->value.ptr, '\0', f->value.len)))
			continue;
		buf_append_span(out, f->name);
		buf_putc(out, '\0');
		buf_append_span(out, f->value);
		buf_putc(out, '\0');
	}
}

/* For those who come again with the same idempotency key. */
static void keep_answer(struct request *r, int status, const struct http_field *fields, size_t n,
			struct span body)
{
	CLEANUP(buf_releasep) struct buf kept = BUF_INIT(KEPT_FIELDS_MAX);
	put_fields(fields, n, &kept);
	bool keeps = kept.error == 0 && body.len <= r->op->idempotency.max_answer;
	r->key->keeps = false;
	claims_answer(r->plane->env->claims, &r->key->claim, keeps, status, buf_span(&kept), body);
}

void request_answer(struct request *r, enum outcome_result result, int status,
		    const struct http_field *fields, size_t n, struct span body)
{
	if (r->key && r->key->keeps)
		keep_answer(r, status, fields, n, body);
	r->result = result;
	r->status = status;
	r->state = REQUEST_ANSWERED;
	request_trace(r, "request_answered", LOG_INT("status", status),
		      LOG_STR("result", outcome_result_text(result)), LOG_INT("bytes", body.len));
	if (!r->x)
		return;
	struct http_response response = {.status = status, .fields = fields, .n_fields = n};
	bool bodyless = span_is(r->http->method, "HEAD") || status == 204 || status == 304;
	int e = 0;
	if (bodyless)
		e = exchange_respond_bodyless(r->x, &response,
					      status == 204 || status == 304 ? -1 : (int64_t)body.len);
	else
		e = exchange_respond(r->x, &response, body);
	if (e == EXCHANGE_E_HEAD_TOO_LARGE)
		request_head_too_large(r);
	else if (r->on_answer)
		r->on_answer(r, fields, n, body);
}

#define ANSWER_FIELDS_MAX 48 /* what a response template may have, and some */

void request_answer_rendered(struct request *r, enum outcome_result result,
			     const struct rendered_response *rendered, const struct http_field *extra,
			     size_t n_extra, struct span body)
{
	struct http_field fields[ANSWER_FIELDS_MAX];
	size_t n = 0;
	if (rendered->content_type.ptr)
		fields[n++] = (struct http_field){SPAN_LIT("Content-Type"), rendered->content_type};
	fields[n++] = (struct http_field){SPAN_LIT("X-Request-ID"), r->request_id};
	for (size_t i = 0; i < rendered->n_headers && n < ANSWER_FIELDS_MAX; i++)
		fields[n++] = (struct http_field){rendered->headers[i].name, rendered->headers[i].value};
	for (size_t i = 0; i < n_extra && n < ANSWER_FIELDS_MAX; i++)
		fields[n++] = extra[i];
	request_answer(r, result, rendered->status, fields, n, body);
}

/* In the operation's own shape; false when it has none, or it cannot be rendered. */
static bool fail_in_template(struct request *r, enum outcome_result result, int status, const char *title,
			     struct span detail, const struct http_field *extra, size_t n_extra)
{
	if (!r->op || !r->op->error)
		return false;
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(1u << 20);
	struct template_source source;
	request_template_source(r, &source);
	/* What the error says does not depend on a body that may not even be JSON. */
	if (response_template_needs_body(r->op->error) && json_validate(source.body, NULL) != 0)
		source.body = SPAN_NONE;
	source.error_status = status;
	source.error_title = span_of(title);
	source.error_detail = detail;
	struct rendered_response rendered;
	if (response_template_render(r->op->error, &source, &rendered, &body) != 0)
		return false;
	request_answer_rendered(r, result, &rendered, extra, n_extra, buf_span(&body));
	return true;
}

static void request_answer_fail(struct request *r, enum outcome_result result, int status, const char *title,
				struct span detail, const struct http_field *extra, size_t n_extra)
{
	request_explain(r, NULL, span_of(title));
	if (fail_in_template(r, result, status, title, detail, extra, n_extra))
		return;
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(PROBLEM_MAX);
	const struct problem_member task = {.name = "task_id", .value = span_of(r->task_id)};
	const struct problem p = {.status = status,
				  .title = title,
				  .detail = detail,
				  .instance = r->request_id,
				  .members = &task,
				  .n_members = r->side == OUTCOME_TASK && r->task_id[0] ? 1 : 0};
	problem_render(&p, &body);
	struct http_field fields[ANSWER_FIELDS_MAX] = {
		{SPAN_LIT("Content-Type"), SPAN_LIT(PROBLEM_CONTENT_TYPE)},
		{SPAN_LIT("X-Request-ID"), r->request_id},
	};
	size_t n = 2;
	for (size_t i = 0; i < n_extra && n < ANSWER_FIELDS_MAX; i++)
		fields[n++] = extra[i];
	request_answer(r, result, status, fields, n, buf_span(&body));
}

void request_fail_with(struct request *r, enum outcome_result result, int status, const char *title,
		       const char *detail, const struct http_field *extra, size_t n_extra)
{
	request_answer_fail(r, result, status, title, span_of(detail), extra, n_extra);
}

void request_refuse_for_now(struct request *r, enum outcome_result result, int status, const char *title,
			    const char *detail)
{
	static const struct http_field retry = {SPAN_INIT("Retry-After"), SPAN_INIT("1")};
	request_fail_with(r, result, status, title, detail, &retry, 1);
}

void request_refuse_pinned(struct request *r, enum outcome_result result, int status, const char *title,
			   const char *detail)
{
	r->side = OUTCOME_TASK;
	request_refuse_for_now(r, result, status, title, detail);
}

void request_fail(struct request *r, enum outcome_result result, int status, const char *title,
		  const char *detail)
{
	request_answer_fail(r, result, status, title, span_of(detail), NULL, 0);
}

void request_fail_span(struct request *r, enum outcome_result result, int status, const char *title,
		       struct span detail)
{
	request_answer_fail(r, result, status, title, detail, NULL, 0);
}

enum outcome_result request_result_of_task(enum task_status task, int status)
{
	if (task == TASK_FAILED || status >= 500)
		return OUTCOME_FAILURE;
	return status >= 400 ? OUTCOME_REJECTED : OUTCOME_SUCCESS;
}
