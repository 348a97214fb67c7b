#include "tasks/worker/call_template.h"

#include <errno.h>

#include "base/json.h"

bool call_value(const struct handler_call *call, struct span source, struct span *ret)
{
	if (span_starts(source, SPAN_LIT("args:")))
		return json_pointer(call->args, (struct span){source.ptr + 5, source.len - 5}, ret);
	if (span_starts(source, SPAN_LIT("kwargs:")))
		return json_pointer(call->kwargs, (struct span){source.ptr + 7, source.len - 7}, ret);
	return false;
}

static bool is_source(struct span s)
{
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

/* Without a call (NULL) it only checks. */
static int walk(struct span value, const struct handler_call *call, struct buf *out, struct err *e);

static int put_reference(struct span source, struct span fallback, const struct handler_call *call,
			 struct buf *out, struct err *e)
{
	struct span value;
	if (!is_source(source))
		return err_set(e, -EINVAL,
			       "unknown source \"%.*s\"; there are args:, kwargs:, task:id and task:name",
			       SPAN_ARG(source));
	if (!call)
		return 0;
	if (span_is(source, "task:id"))
		return json_quote(out, call->task_id);
	if (span_is(source, "task:name"))
		return json_quote(out, call->name);
	if (call_value(call, source, &value))
		return buf_append_span(out, value);
	if (fallback.ptr)
		return buf_append_span(out, fallback);
	return err_set(e, -ENOENT, "the call has nothing at %.*s", SPAN_ARG(source));
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

int call_template_check(struct span json, struct err *e)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(json.len + 16);
	int r = json_validate(json, e);
	return r < 0 ? r : walk(json, NULL, &out, e);
}

int call_template_fill(struct span json, const struct handler_call *call, struct buf *out, struct err *e)
{
	int r = walk(json, call, out, e);
	if (r == 0)
		r = out->error;
	return r == -EFBIG || r == -ENOMEM ? err_set(e, r, "the request is too large") : r;
}
