/*
 * Templates: JSON with references, compiled once, rendered per request from spans of raw text.
 *
 * Why:       values move between a caller's body, a task and the answer without being rewritten:
 *            9007199254740993 and 1.0 arrive as sent (design, "Mapping an HTTP operation to a task and
 *            back").
 * Ownership: immutable after compilation; rendering borrows from the source and appends to a buffer with a
 *            limit.
 * Threads:   any thread may render.
 *
 * A reference is an object with the member "$ref" (and at most "default" next to it):
 *   body:/a/b        JSON value by RFC 6901 pointer in the request's body (body: alone is the whole)
 *   header:Name      first field of that name, as a string
 *   query:name       decoded parameter, as a string
 *   path:name        decoded path segment, as a string              identity:user | identity:organization
 *   uuid             a new UUID, the same for all mentions in one request
 *   request:id       the X-Request-ID of the request
 *   credential       the credential that the operation forwards (auth.forward), as a string
 *   result:/a        value in the task's result (legacy: in the legacy answer's body)
 *   task:id  task:status  task:error                                error:status  error:title  error:detail
 * A missing value takes the default (itself any template, so that references can be tried in turn), else the
 * member is left out of its object (null in an array); as the whole template it is null. null in a body is a
 * value, not a missing one.
 * Limits: 128 different pointers into the body and as many into the result; TEMPLATE_MAX_CHOICES,
 * TEMPLATE_MAX_HEADERS.
 */
#ifndef OPERATION_TEMPLATE_H
#define OPERATION_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"
#include "base/yaml.h"

struct template;
struct response_template;

/* Which references a template may hold; others are an error when it is compiled. */
#define TEMPLATE_REQUEST 1u /* body header query path identity uuid request */
#define TEMPLATE_RESULT 2u  /* result task */
#define TEMPLATE_ERROR 4u   /* error */
#define TEMPLATE_CREDENTIAL 8u

/* What a rendering takes its values from. Callbacks give raw text; SPAN_NONE = absent. */
struct template_source {
	void *arg;
	struct span body; /* valid JSON, or SPAN_NONE */
	struct span (*header)(void *arg, struct span name);
	bool (*query)(void *arg, struct span name, struct buf *decoded); /* false: absent */
	bool (*path)(void *arg, struct span name, struct buf *decoded);
	struct span user, organization; /* identity */
	struct span uuid, request_id, credential;
	struct span result; /* valid JSON, or SPAN_NONE */
	struct span task_id, task_status, task_error;
	int error_status; /* 0: there is no error */
	struct span error_title, error_detail;
};

/* Compiles the YAML (hence JSON) node, which may be freed after. -EBADMSG with "line N: key: …", -ENOMEM. */
int template_compile(const struct yaml_node *node, unsigned allowed, struct template **ret, struct err *e);
struct template *template_free(struct template *t);
bool template_needs_body(const struct template *t); /* NULL needs none */
bool template_has_credential(const struct template *t);
/* Appends compact JSON. Errors: buf's (limit included); then what was appended is not whole. */
int template_render(const struct template *t, const struct template_source *s, struct buf *out);

#define TEMPLATE_MAX_CHOICES 32 /* of a response template */
#define TEMPLATE_MAX_HEADERS 32 /* of a choice */

/* Response templates: the first choice whose `when` holds.
 *   - when: {ref: "result:/success", equals: false}      (no `when`: always; only the last choice may be
 *                                                        without)
 *     status: 500                                        (default error:status, else 200; or {$ref: …})
 *     content_type: application/json                     (default)
 *     headers: {Name: "text"}
 *     body: {…template…}   or   raw: {$ref: "result:/text"}  (a string's content, sent as it is)
 * A single choice may be written without the list.
 * `equals` compares JSON values by meaning (base/json.h, json_equal); a missing value equals nothing.
 * `exists: true` or `exists: false` can be used instead. A status that a reference gives and that is not an
 * integer from 200 to 599 becomes
 * 500. Without body and raw, and for 204 and 304, the body is empty and content_type SPAN_NONE. Headers that
 * frame or belong to the connection are refused. */
int response_template_compile(const struct yaml_node *node, unsigned allowed, struct response_template **ret,
			      struct err *e);
struct response_template *response_template_free(struct response_template *t);
bool response_template_needs_body(const struct response_template *t);

struct rendered_response {
	int status;
	struct span content_type; /* borrowed from the template; SPAN_NONE without a body */
	const struct template_header {
		struct span name, value;
	} * headers; /* borrowed from the template */
	size_t n_headers;
};
/* Appends the body to `body`. 0, buf's errors, or TEMPLATE_E_NO_CHOICE when no `when` holds. */
#define TEMPLATE_E_NO_CHOICE 1
int response_template_render(const struct response_template *t, const struct template_source *s,
			     struct rendered_response *ret, struct buf *body);

#endif
