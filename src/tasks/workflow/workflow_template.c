#include "tasks/workflow/workflow_template.h"

#include <errno.h>

#include "base/json.h"

/* --- references ----------------------------------------------------------------------------------------- */

const char *workflow_reference_read(struct span text, struct workflow_reference *ret)
{
	static const struct {
		struct span prefix;
		enum workflow_reference_kind kind;
	} kinds[] = {{SPAN_INIT("input:"), REFERENCE_INPUT},
		     {SPAN_INIT("args:"), REFERENCE_ARGS},
		     {SPAN_INIT("kwargs:"), REFERENCE_KWARGS},
		     {SPAN_INIT("step:"), REFERENCE_STEP},
		     {SPAN_INIT("item:"), REFERENCE_ITEM}};
	*ret = (struct workflow_reference){.kind = REFERENCE_CONSTANT};
	if (memchr(text.ptr, '#', text.len) || memmem(text.ptr, text.len, "://", 3))
		return NULL;
	if (text.len > WORKFLOW_MAX_REFERENCE)
		return "is too long";
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (!span_starts(text, kinds[i].prefix))
			continue;
		ret->kind = kinds[i].kind;
		ret->pointer = (struct span){text.ptr + kinds[i].prefix.len, text.len - kinds[i].prefix.len};
	}
	if (ret->kind == REFERENCE_CONSTANT)
		return "is no reference that is known here: input:, args:, kwargs:, step:<name>, item:";
	if (ret->kind == REFERENCE_STEP) {
		const char *slash = memchr(ret->pointer.ptr, '/', ret->pointer.len);
		size_t name = slash ? (size_t)(slash - ret->pointer.ptr) : ret->pointer.len;
		ret->step = (struct span){ret->pointer.ptr, name};
		ret->pointer = (struct span){ret->pointer.ptr + name, ret->pointer.len - name};
		if (name == 0)
			return "names no step";
	}
	return json_pointer_valid(ret->pointer) ? NULL
						: "has no JSON pointer behind the colon (\"\" or \"/…\")";
}

bool workflow_reference_is(const struct workflow_reference *r, struct span step)
{
	size_t at = 0;
	for (size_t i = 0; i < r->step.len; i++, at++) {
		char c = r->step.ptr[i];
		if (c == '~' && i + 1 < r->step.len &&
		    (r->step.ptr[i + 1] == '0' || r->step.ptr[i + 1] == '1'))
			c = r->step.ptr[++i] == '1' ? '/' : '~';
		if (at >= step.len || step.ptr[at] != c)
			return false;
	}
	return at == step.len;
}

/* --- templates ------------------------------------------------------------------------------------------ */

struct template_reference {
	struct workflow_reference of;
	struct span fallback; /* "default", or SPAN_NONE */
	bool optional;
	struct buf text;
};

/* Whether the object is a reference, to be released then. */
static bool template_is_reference(struct span object, struct template_reference *ret)
{
	struct span ref;
	if (json_type_of(object) != JSON_OBJECT || !json_pointer(object, SPAN_LIT("/$ref"), &ref) ||
	    json_type_of(ref) != JSON_STRING)
		return false;
	*ret = (struct template_reference){.fallback = SPAN_NONE,
					   .text = BUF_INIT(4 * WORKFLOW_MAX_REFERENCE)};
	if (json_unescape(ref, &ret->text) < 0 ||
	    workflow_reference_read(buf_span(&ret->text), &ret->of) != NULL ||
	    ret->of.kind == REFERENCE_CONSTANT) {
		buf_release(&ret->text);
		return false;
	}
	struct span optional;
	json_pointer(object, SPAN_LIT("/default"), &ret->fallback);
	ret->optional = json_pointer(object, SPAN_LIT("/optional"), &optional) && span_is(optional, "true");
	return true;
}

/* The workflow's input: its first positional argument, or its keyword arguments. */
static struct span template_input(const struct workflow_values *v)
{
	struct span first;
	if (v->args.ptr && json_pointer(v->args, SPAN_LIT("/0"), &first))
		return first;
	return v->kwargs.ptr ? v->kwargs : SPAN_LIT("{}");
}

static int template_root(const struct workflow_reference *r, const struct workflow_values *v,
			 struct span *ret, struct err *e)
{
	switch (r->kind) {
	case REFERENCE_INPUT:
		*ret = template_input(v);
		return 0;
	case REFERENCE_ARGS:
		*ret = v->args.ptr ? v->args : SPAN_LIT("[]");
		return 0;
	case REFERENCE_KWARGS:
		*ret = v->kwargs.ptr ? v->kwargs : SPAN_LIT("{}");
		return 0;
	case REFERENCE_STEP:
		return v->step(v->arg, r, ret, e);
	case REFERENCE_ITEM:
	case REFERENCE_CONSTANT:
		break;
	}
	*ret = v->item;
	return 0;
}

#define TEMPLATE_ABSENT 1 /* an optional value that is not there: nothing was appended */

static int template_walk(struct span value, const struct workflow_values *v, struct buf *out, struct err *e);

static int template_put(const struct template_reference *t, const struct workflow_values *v, struct buf *out,
			struct err *e)
{
	struct span root = SPAN_NONE, value;
	int r = template_root(&t->of, v, &root, e);
	if (r < 0)
		return r;
	if (root.ptr && json_pointer(root, t->of.pointer, &value))
		return buf_append_span(out, value);
	if (t->fallback.ptr)
		return template_walk(t->fallback, v, out, e);
	if (t->optional)
		return TEMPLATE_ABSENT;
	return err_set(e, -ENOENT, "there is nothing at %.*s", SPAN_ARG(buf_span(&t->text)));
}

static int template_walk_container(struct span value, bool object, const struct workflow_values *v,
				   struct buf *out, struct err *e)
{
	struct json_iter it;
	struct span key, item;
	const char *separator = "";
	int r = buf_putc(out, object ? '{' : '[');
	json_iter_init(&it, value);
	while (r == 0 && json_iter_next(&it, &key, &item)) {
		size_t before = out->len;
		buf_puts(out, separator);
		if (object) {
			buf_append_span(out, key);
			buf_putc(out, ':');
		}
		r = template_walk(item, v, out, e);
		if (r == TEMPLATE_ABSENT && object) {
			out->len = before;
			r = 0;
			continue;
		}
		if (r == TEMPLATE_ABSENT)
			r = buf_puts(out, "null");
		separator = ",";
	}
	buf_putc(out, object ? '}' : ']');
	return r < 0 ? r : out->error;
}

static int template_walk(struct span value, const struct workflow_values *v, struct buf *out, struct err *e)
{
	struct template_reference reference;
	enum json_type type = json_type_of(value);
	if (type == JSON_OBJECT && template_is_reference(value, &reference)) {
		int r = template_put(&reference, v, out, e);
		buf_release(&reference.text);
		return r;
	}
	if (type == JSON_OBJECT || type == JSON_ARRAY)
		return template_walk_container(value, type == JSON_OBJECT, v, out, e);
	return buf_append_span(out, value);
}

int workflow_template_fill(struct span json, const struct workflow_values *v, struct buf *out, struct err *e)
{
	int r = template_walk(json, v, out, e);
	if (r == TEMPLATE_ABSENT)
		r = buf_puts(out, "null");
	return r == 0 ? out->error : r;
}

int workflow_template_each(struct span json,
			   int (*fn)(void *arg, struct span text, const struct workflow_reference *r),
			   void *arg)
{
	struct template_reference reference;
	struct json_iter it;
	struct span key, item;
	int r = 0;
	enum json_type type = json_type_of(json);
	if (type == JSON_OBJECT && template_is_reference(json, &reference)) {
		r = fn(arg, buf_span(&reference.text), &reference.of);
		buf_release(&reference.text);
		return r || !reference.fallback.ptr ? r : workflow_template_each(reference.fallback, fn, arg);
	}
	if (type != JSON_OBJECT && type != JSON_ARRAY)
		return 0;
	json_iter_init(&it, json);
	while (r == 0 && json_iter_next(&it, &key, &item))
		r = workflow_template_each(item, fn, arg);
	return r;
}
