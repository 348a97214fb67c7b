#include "tasks/hatchet/worker/attempt.h"

#include <errno.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "tasks/hatchet/hatchet_message.h"

/* --- its call ------------------------------------------------------------------------------------------- */

static void attempt_metadata(const struct json_node *o, const char *key, char *ret, size_t size)
{
	const char *text = json_string(json_get(o, key));
	if (text && strlen(text) < size)
		strcpy(ret, text);
}

static void attempt_read_metadata(struct span metadata, struct hatchet_call *ret)
{
	struct json_doc *doc = NULL;
	if (!metadata.ptr || json_doc_parse(metadata, &doc, NULL) < 0)
		return;
	const struct json_node *o = json_root(doc);
	const char *shadow = json_string(json_get(o, "x_migration_shadow"));
	ret->shadow = shadow && strcmp(shadow, "1") == 0;
	attempt_metadata(o, "traceparent", ret->traceparent, sizeof(ret->traceparent));
	attempt_metadata(o, "tracestate", ret->tracestate, sizeof(ret->tracestate));
	attempt_metadata(o, HATCHET_TASK_ID_KEY, ret->task_id, sizeof(ret->task_id));
	json_doc_free(doc);
}

int hatchet_call_read(struct span payload, struct span metadata, struct hatchet_call *ret, struct err *e)
{
	static const struct span pointers[] = {SPAN_INIT("/input/args"), SPAN_INIT("/input/kwargs")};
	struct span value[2];
	*ret = (struct hatchet_call){.args = SPAN_LIT("[]"), .kwargs = SPAN_LIT("{}")};
	attempt_read_metadata(metadata, ret);
	if (json_validate(payload, NULL) < 0 || json_pointers(payload, pointers, 2, value, NULL) < 0)
		return err_set(e, -EINVAL, "the input cannot be read");
	if (json_type_of(value[0]) != JSON_NULL)
		ret->args = value[0];
	if (json_type_of(value[1]) != JSON_NULL)
		ret->kwargs = value[1];
	if (json_type_of(ret->args) != JSON_ARRAY || json_type_of(ret->kwargs) != JSON_OBJECT)
		return err_set(e, -EINVAL, "the input must be {\"args\": […], \"kwargs\": {…}}");
	return 0;
}

/* --- its result ----------------------------------------------------------------------------------------- */

static bool attempt_is_utf8(struct span s)
{
	for (const char *p = s.ptr, *end = s.ptr + s.len; p < end;) {
		size_t n = utf8_sequence(p, end);
		if (!n)
			return false;
		p += n;
	}
	return true;
}

/* An object of one member that has the task's name: who reads it takes that for a wrapped value. */
static bool attempt_looks_wrapped(struct span task, struct span object)
{
	struct json_iter it;
	struct span key, value;
	json_iter_init(&it, object);
	if (!json_iter_next(&it, &key, &value) || key.len != task.len + 2 ||
	    memcmp(key.ptr + 1, task.ptr, task.len) != 0)
		return false;
	return !json_iter_next(&it, &key, &value);
}

int hatchet_put_output(struct span task, struct span result, struct buf *out, struct err *e)
{
	bool plain = json_type_of(result) == JSON_OBJECT && !attempt_looks_wrapped(task, result);
	if (result.len + task.len + 16 > HATCHET_MAX_OUTPUT)
		return err_set(e, -EFBIG, "the result has %zu bytes, more than Hatchet takes (%d)",
			       result.len, HATCHET_MAX_OUTPUT);
	if (!attempt_is_utf8(result))
		return err_set(e, -ERANGE, "the result is not UTF-8");
	int r = hatchet_check_numbers(result, e);
	if (r < 0)
		return r;
	if (!plain) {
		buf_putc(out, '{');
		json_quote(out, task);
		buf_putc(out, ':');
	}
	buf_append_span(out, result);
	if (!plain)
		buf_putc(out, '}');
	return out->error ? err_set(e, out->error, "out of memory") : 0;
}

/* --- what was before it --------------------------------------------------------------------------------- */

static bool attempt_is_one_of(const char *type, const char *const *list)
{
	for (; *list; list++)
		if (strcmp(type, *list) == 0)
			return true;
	return false;
}

/* Of each earlier attempt, from the newest on: its end stands before its beginning. A FAILED without
 * SENT_TO_WORKER is the engine's own: the worker was not to be reached. TIMED_OUT and REASSIGNED tell what
 * the engine did, not whether the worker was done. A replay by hand is somebody's word for all before it. */
int hatchet_read_history(struct span body, int retry_count, bool *ret_may_have_begun)
{
	static const char *const begun[] = {"SENT_TO_WORKER", "STARTED", NULL};
	static const char *const known[] = {"FINISHED", "FAILED", NULL};
	struct json_doc *doc = NULL;
	bool seen = false;
	double ended = -1;
	*ret_may_have_begun = false;
	if (json_doc_parse(body, &doc, NULL) < 0)
		return -EBADMSG;
	const struct json_node *rows = json_get(json_root(doc), "rows");
	int r = json_node_type(rows) == JSON_ARRAY ? 0 : -EBADMSG;
	for (const struct json_node *row = json_first(rows); row; row = json_next(row)) {
		const char *type = json_string(json_get(row, "eventType"));
		double attempt;
		if (!type || !json_number(json_get(row, "retryCount"), &attempt) || attempt >= retry_count)
			continue;
		seen = true;
		if (strcmp(type, "RETRIED_BY_USER") == 0)
			break;
		if (attempt_is_one_of(type, known))
			ended = attempt;
		bool known_end = attempt > ended - 0.5 && attempt < ended + 0.5;
		*ret_may_have_begun = !known_end && attempt_is_one_of(type, begun);
		if (*ret_may_have_begun)
			break;
	}
	json_doc_free(doc);
	return r == 0 && !seen ? -EAGAIN : r;
}
