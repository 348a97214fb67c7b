#include "tasks/hatchet/hatchet_message.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tasks/python_json.h"

int hatchet_put_workflow(struct buf *out, struct span task, bool workflow)
{
	buf_append_span(out, task);
	return workflow ? out->error : buf_puts(out, "_workflow");
}

/* 0..9 to the engine's 1..3; 0 leaves it to the workflow. */
static int priority_of(int priority)
{
	if (priority <= 0)
		return 0;
	if (priority <= 3)
		return 1;
	return priority <= 6 ? 2 : 3;
}

/* The end of the number, or of the string, that begins at `i`; in valid JSON. */
static size_t hatchet_message_token_end(struct span json, size_t i)
{
	if (json.ptr[i] != '"') {
		while (i < json.len && (isalnum((unsigned char)json.ptr[i]) || strchr("+-.", json.ptr[i])))
			i++;
		return i;
	}
	for (i++; i < json.len && json.ptr[i] != '"'; i++)
		i += json.ptr[i] == '\\';
	return i + 1;
}

/* Whether an integer comes through a double unchanged. What has a fraction or an exponent is one in the
 * worker anyway, but one out of a double's range is an error of the engine's. Behind the number there is
 * more of the text. */
static bool is_exact(struct span number)
{
	char text[24];
	if (memchr(number.ptr, 'e', number.len) || memchr(number.ptr, 'E', number.len) ||
	    memchr(number.ptr, '.', number.len))
		return !isinf(strtod(number.ptr, NULL));
	if (number.len <= 15)
		return true;
	span_copy(number, text, sizeof(text));
	errno = 0;
	long long n = strtoll(text, NULL, 10);
	return errno == 0 && number.len < sizeof(text) && n > -(1LL << 62) && n < 1LL << 62 &&
	       (long long)(double)n == n;
}

/* The engine's interface reads every number of an input into a double. An id that the worker would see
 * changed is worse than a request that legacy serves. */
int hatchet_check_numbers(struct span json, struct err *e)
{
	for (size_t i = 0, end; i < json.len; i = end) {
		bool number = json.ptr[i] == '-' || isdigit((unsigned char)json.ptr[i]);
		end = number || json.ptr[i] == '"' ? hatchet_message_token_end(json, i) : i + 1;
		struct span token = {json.ptr + i, end - i};
		if (number && !is_exact(token))
			return err_set(e, -ERANGE, "Hatchet would round the number %.*s; send it as a string",
				       (int)(token.len < 40 ? token.len : 40), token.ptr);
	}
	return 0;
}

static int hatchet_message_put_input(struct buf *out, const struct task_call *call, struct err *e)
{
	size_t start = out->len;
	if (call->single_input) {
		struct span first;
		if (!json_pointer(call->args, SPAN_LIT("/0"), &first) || json_type_of(first) != JSON_OBJECT)
			return err_set(e, -EINVAL, "the input of a Hatchet workflow must be an object");
		buf_append_span(out, first);
	} else {
		buf_puts(out, "{\"args\":");
		buf_append_span(out, call->args.ptr ? call->args : SPAN_LIT("[]"));
		buf_puts(out, ",\"kwargs\":");
		buf_append_span(out, call->kwargs.ptr ? call->kwargs : SPAN_LIT("{}"));
		buf_putc(out, '}');
	}
	struct span input = {buf_span(out).ptr + start, out->len - start};
	if (out->error)
		return out->error;
	return python_json_check(input, false, e) < 0 ? -ERANGE : hatchet_check_numbers(input, e);
}

int hatchet_put_trigger(struct buf *out, const struct task_call *call, struct span workflow, struct err *e)
{
	buf_puts(out, "{\"workflowName\":");
	json_quote(out, workflow);
	buf_puts(out, ",\"input\":");
	int r = hatchet_message_put_input(out, call, e);
	if (r < 0 && !out->error)
		return r;
	buf_puts(out, ",\"additionalMetadata\":{\"" HATCHET_TASK_ID_KEY "\":");
	json_quote(out, call->task_id);
	if (call->request_id.ptr) {
		buf_puts(out, ",\"request_id\":");
		json_quote(out, call->request_id);
	}
	if (call->shadow)
		buf_puts(out, ",\"x_migration_shadow\":\"1\"");
	if (call->traceparent.len) { /* where Hatchet's own instrumentation looks for it */
		buf_puts(out, ",\"traceparent\":");
		json_quote(out, call->traceparent);
	}
	if (call->tracestate.len) {
		buf_puts(out, ",\"tracestate\":");
		json_quote(out, call->tracestate);
	}
	buf_putc(out, '}');
	if (priority_of(call->priority))
		buf_printf(out, ",\"priority\":%d", priority_of(call->priority));
	/* Without this the answer takes one to ten seconds. */
	buf_puts(out, ",\"return_only_id\":true}");
	return out->error ? err_set(e, out->error, "the input is larger than %zu bytes", out->max) : 0;
}

/* A string without escapes, as ids are. */
static bool take_id(const char *id, char ret_id[TASK_ID_MAX])
{
	if (!id || !*id || strlen(id) >= TASK_ID_MAX)
		return false;
	strcpy(ret_id, id);
	return true;
}

bool hatchet_read_trigger(struct span body, char ret_id[TASK_ID_MAX])
{
	struct json_doc *doc = NULL;
	if (json_doc_parse(body, &doc, NULL) < 0)
		return false;
	bool found = take_id(
		json_string(json_get(json_get(json_get(json_root(doc), "run"), "metadata"), "id")), ret_id);
	json_doc_free(doc);
	return found;
}

static bool text_is(const struct json_node *node, struct span expected)
{
	return json_string(node) && span_is(expected, json_string(node));
}

bool hatchet_read_names(struct span body, struct span name, unsigned page, bool *ret_more)
{
	struct json_doc *doc = NULL;
	double pages = 0;
	bool found = false;
	*ret_more = false;
	if (json_doc_parse(body, &doc, NULL) < 0)
		return false;
	for (const struct json_node *row = json_first(json_get(json_root(doc), "rows")); row && !found;
	     row = json_next(row))
		found = text_is(json_get(row, "name"), name);
	if (json_number(json_get(json_get(json_root(doc), "pagination"), "num_pages"), &pages))
		*ret_more = !found && pages > page + 1.0;
	json_doc_free(doc);
	return found;
}

bool hatchet_read_runs(struct span body, struct span task_id, char ret_id[TASK_ID_MAX])
{
	struct json_doc *doc = NULL;
	bool found = false;
	if (json_doc_parse(body, &doc, NULL) < 0)
		return false;
	for (const struct json_node *row = json_first(json_get(json_root(doc), "rows")); row && !found;
	     row = json_next(row))
		/* Looked at here too: a filter that the engine ignored would hand out someone else's run. */
		found = text_is(json_get(json_get(row, "additionalMetadata"), HATCHET_TASK_ID_KEY),
				task_id) &&
			take_id(json_string(json_get(row, "workflowRunExternalId")), ret_id);
	json_doc_free(doc);
	return found;
}

void hatchet_read_problem(struct span body, char *ret, size_t size)
{
	struct json_doc *doc = NULL;
	ret[0] = '\0';
	if (json_doc_parse(body, &doc, NULL) < 0)
		return;
	const char *text = json_string(json_get(json_root(doc), "message"));
	if (!text)
		text = json_string(json_get(json_at(json_get(json_root(doc), "errors"), 0), "description"));
	span_copy(span_of(text ? text : ""), ret, size);
	json_doc_free(doc);
}

/* Actions are `<workflow>:<task>`. */
static bool serves(const struct json_node *worker, struct span workflow)
{
	if (!text_is(json_get(worker, "status"), SPAN_LIT("ACTIVE")))
		return false;
	for (const struct json_node *a = json_first(json_get(worker, "actions")); a; a = json_next(a)) {
		struct span action = span_of(json_string(a));
		if (!workflow.len || (action.len > workflow.len && span_starts(action, workflow) &&
				      action.ptr[workflow.len] == ':'))
			return true;
	}
	return false;
}

static bool anyone_serves(const struct json_node *workers, struct span workflow)
{
	for (const struct json_node *w = json_first(workers); w; w = json_next(w))
		if (serves(w, workflow))
			return true;
	return false;
}

bool hatchet_read_workers(struct span body, struct span workflows, struct span *ret_missing)
{
	struct json_doc *doc = NULL;
	*ret_missing = SPAN_LIT("");
	if (json_doc_parse(body, &doc, NULL) < 0)
		return false;
	const struct json_node *workers = json_get(json_root(doc), "rows");
	bool all = true;
	do {
		const char *comma = workflows.len ? memchr(workflows.ptr, ',', workflows.len) : NULL;
		size_t n = comma ? (size_t)(comma - workflows.ptr) : workflows.len;
		struct span one = {workflows.ptr, n};
		all = anyone_serves(workers, one);
		if (!all)
			*ret_missing = one;
		n += comma ? 1 : 0;
		workflows.ptr += n;
		workflows.len -= n;
	} while (all && workflows.len);
	json_doc_free(doc);
	return all;
}

int64_t hatchet_read_backlog(struct span body)
{
	struct json_doc *doc = NULL;
	if (json_doc_parse(body, &doc, NULL) < 0)
		return -1;
	const struct json_node *queues = json_get(json_root(doc), "queues");
	int64_t sum = json_node_type(queues) == JSON_OBJECT ? 0 : -1;
	double n;
	for (const struct json_node *q = json_first(queues); q; q = json_next(q))
		if (json_number(q, &n) && n > 0 && n < 1e15)
			sum += (int64_t)n;
	json_doc_free(doc);
	return sum;
}
