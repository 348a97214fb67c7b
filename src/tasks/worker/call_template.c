#include "tasks/worker/call_template.h"

#include <errno.h>

#include "base/json.h"

bool call_value(const struct handler_call *call, struct span source, struct span *ret)
{
	if (span_starts(source, SPAN_LIT("args:")))
		return json_pointer(call->args, (struct span){source.ptr + 5, source.len - 5}, ret);
	if (span_starts(source, SPAN_LIT("kwargs:")))
		return json_pointer(call->kwargs, (struct span){source.ptr + 7, source.len - 7}, ret);
	if (span_starts(source, SPAN_LIT("answer:")) && call->answer.ptr)
		return json_pointer(call->answer, (struct span){source.ptr + 7, source.len - 7}, ret);
	return false;
}

static bool is_source(struct span s, bool of_answer)
{
	if (of_answer)
		return span_starts(s, SPAN_LIT("answer:"));
	return span_starts(s, SPAN_LIT("args:")) || span_starts(s, SPAN_LIT("kwargs:")) ||
	       span_is(s, "task:id") || span_is(s, "task:name");
}

/* Whether the object is {"$ref": …}; its source, unescaped, and its default. */
static bool reference(struct span object, struct buf *source, struct span *fallback)
{
	struct span ref;
	*fallback = SPAN_NONE;
	if (json_type_of(object) != JSON_OBJECT || !json_pointer(object, SPAN_LIT("/$ref"), &ref))
		return false;
	json_pointer(object, SPAN_LIT("/default"), fallback);
	return json_unescape(ref, source) == 0;
}

static int walk(struct span value, const struct handler_call *call, struct buf *out, struct err *e);

/* In the place of a call: it only checks. */
static const struct handler_call check_call, check_answer;

static bool only_checks(const struct handler_call *call)
{
	return call == &check_call || call == &check_answer;
}

static int put_reference(struct span source, struct span fallback, const struct handler_call *call,
			 struct buf *out, struct err *e)
{
	struct span value;
	bool of_answer = call == &check_answer || call->answer.ptr;
	if (!is_source(source, of_answer))
		return err_set(e, -EINVAL, "unknown source \"%.*s\"; there %s", SPAN_ARG(source),
			       of_answer ? "is answer:" : "are args:, kwargs:, task:id and task:name");
	if (only_checks(call))
		return 0;
	if (span_is(source, "task:id"))
		return json_quote(out, call->task_id);
	if (span_is(source, "task:name"))
		return json_quote(out, call->name);
	if (call_value(call, source, &value))
		return buf_append_span(out, value);
	if (fallback.ptr)
		return buf_append_span(out, fallback);
	return err_set(e, -ENOENT, "the %s has nothing at %.*s", of_answer ? "answer" : "call",
		       SPAN_ARG(source));
}

static int walk_container(struct span value, bool object, const struct handler_call *call, struct buf *out,
			  struct err *e)
{
	struct json_iter it;
	struct span key, item;
	const char *separator = "";
	int r = buf_putc(out, object ? '{' : '[');
	json_iter_init(&it, value);
	while (r == 0 && json_iter_next(&it, &key, &item)) {
		buf_puts(out, separator);
		separator = ",";
		if (object) {
			buf_append_span(out, key);
			buf_putc(out, ':');
		}
		r = walk(item, call, out, e);
	}
	if (r < 0)
		return r;
	return buf_putc(out, object ? '}' : ']');
}

static int walk(struct span value, const struct handler_call *call, struct buf *out, struct err *e)
{
	CLEANUP(buf_releasep) struct buf source = BUF_INIT(1024);
	struct span fallback;
	if (reference(value, &source, &fallback))
		return put_reference(buf_span(&source), fallback, call, out, e);
	enum json_type type = json_type_of(value);
	if (type == JSON_OBJECT || type == JSON_ARRAY)
		return walk_container(value, type == JSON_OBJECT, call, out, e);
	return buf_append_span(out, value);
}

int call_template_check(struct span json, bool of_answer, struct err *e)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(json.len + 16);
	const struct handler_call *call = of_answer ? &check_answer : &check_call;
	int r = json_validate(json, e);
	return r < 0 ? r : walk(json, call, &out, e);
}

int call_template_fill(struct span json, const struct handler_call *call, struct buf *out, struct err *e)
{
	int r = walk(json, call, out, e);
	if (r == 0)
		r = out->error;
	return r == -EFBIG || r == -ENOMEM ? err_set(e, r, "the request is too large") : r;
}
