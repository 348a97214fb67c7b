/*
 * A definition as JSON, and back:
 *   {"format":1, "name", "queue", "execution"?, "timeout_ms"?, "result"?, "steps":
 *     [{"name", "task", "parents"?: [number, …], "input"?: "workflow"|"none", "args"?: […], "kwargs"?: {…},
 *       "queue"?, "backend"?, "idempotent"?: true, "timeout_ms"?,
 *       "for_each"?: {"over": …, "max": n, "key"?: …}}, …]}
 * What stands in a database is checked as what stands in a file is.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/json.h"
#include "tasks/task_backend.h"
#include "tasks/workflow/workflow.h"
#include "tasks/workflow/workflow_check.h"
#include "tasks/workflow/workflow_template.h"

#define FROZEN_FORMAT "1"

/* --- writing -------------------------------------------------------------------------------------------- */

static void frozen_put_text(struct buf *out, const char *key, struct span text)
{
	if (!text.ptr)
		return;
	buf_printf(out, ",\"%s\":", key);
	json_quote(out, text);
}

static void frozen_put_raw(struct buf *out, const char *key, const char *json)
{
	if (json)
		buf_printf(out, ",\"%s\":%s", key, json);
}

static void frozen_put_number(struct buf *out, const char *key, unsigned n)
{
	if (n)
		buf_printf(out, ",\"%s\":%u", key, n);
}

static void frozen_put_parents(uint64_t parents, struct buf *out)
{
	const char *separator = ",\"parents\":[";
	for (unsigned i = 0; i < WORKFLOW_MAX_STEPS; i++) {
		if (!(parents >> i & 1))
			continue;
		buf_printf(out, "%s%u", separator, i);
		separator = ",";
	}
	if (parents)
		buf_putc(out, ']');
}

static void frozen_put_step(const struct workflow_step *s, struct buf *out)
{
	buf_puts(out, "{\"name\":");
	json_quote(out, s->name);
	frozen_put_text(out, "task", s->task);
	frozen_put_parents(s->parents, out);
	if (s->input == STEP_INPUT_WORKFLOW || s->input == STEP_INPUT_NONE)
		frozen_put_raw(out, "input", s->input == STEP_INPUT_NONE ? "\"none\"" : "\"workflow\"");
	frozen_put_raw(out, "args", s->args);
	frozen_put_raw(out, "kwargs", s->kwargs);
	frozen_put_text(out, "queue", s->queue);
	frozen_put_text(out, "backend", s->backend);
	frozen_put_raw(out, "idempotent", s->idempotent ? "true" : NULL);
	frozen_put_number(out, "timeout_ms", s->timeout_ms);
	if (s->over) {
		buf_printf(out, ",\"for_each\":{\"over\":%s,\"max\":%u", s->over, s->max_items);
		frozen_put_raw(out, "key", s->key);
		buf_putc(out, '}');
	}
	buf_putc(out, '}');
}

int workflow_to_json(const struct workflow_definition *w, struct buf *out)
{
	buf_puts(out, "{\"format\":" FROZEN_FORMAT);
	frozen_put_text(out, "name", w->name);
	frozen_put_text(out, "queue", w->queue);
	if (w->execution != WORKFLOW_UNSAID)
		frozen_put_raw(out, "execution",
			       w->execution == WORKFLOW_ROUTER ? "\"router\"" : "\"native\"");
	frozen_put_number(out, "timeout_ms", w->timeout_ms);
	frozen_put_raw(out, "result", w->result);
	buf_puts(out, ",\"steps\":[");
	for (size_t i = 0; i < w->n_steps; i++) {
		buf_puts(out, i ? "," : "");
		frozen_put_step(&w->steps[i], out);
	}
	return buf_puts(out, "]}");
}

/* --- reading -------------------------------------------------------------------------------------------- */

struct frozen_reader {
	struct arena *memory;
	struct err *e;
	int error; /* the first */
};

static void frozen_wrong(struct frozen_reader *r, const char *what)
{
	if (!r->error)
		r->error = err_set(r->e, -EBADMSG, "a frozen workflow: %s", what);
}

static const char *frozen_copy(struct frozen_reader *r, struct span text, struct span *ret)
{
	if (arena_copy(r->memory, text, ret) == 0)
		return ret->ptr;
	if (!r->error)
		r->error = err_set(r->e, -ENOMEM, "out of memory");
	return NULL;
}

/* Absent: SPAN_NONE. */
static void frozen_text(struct frozen_reader *r, struct span object, const char *pointer, struct span *ret)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(WORKFLOW_MAX_FROZEN);
	struct span value;
	if (!json_pointer(object, span_of(pointer), &value))
		return;
	if (json_unescape(value, &text) < 0 || text.len >= TASK_NAME_MAX ||
	    (text.len && memchr(text.ptr, '\0', text.len)))
		frozen_wrong(r, "a name is no text");
	else
		frozen_copy(r, buf_span(&text), ret);
}

static const char *frozen_raw(struct frozen_reader *r, struct span object, const char *pointer,
			      enum json_type type)
{
	struct span value, copy;
	if (!json_pointer(object, span_of(pointer), &value))
		return NULL;
	if (type != JSON_NULL && json_type_of(value) != type) {
		frozen_wrong(r, "a template has another type");
		return NULL;
	}
	return frozen_copy(r, value, &copy);
}

static unsigned frozen_number(struct frozen_reader *r, struct span value, unsigned max)
{
	uint64_t n = 0;
	for (size_t i = 0; i < value.len; i++) {
		if (value.ptr[i] < '0' || value.ptr[i] > '9' || n > max) {
			frozen_wrong(r, "a number is none");
			return 0;
		}
		n = n * 10 + (unsigned)(value.ptr[i] - '0');
	}
	if (n > max)
		frozen_wrong(r, "a number is too large");
	return n > max ? 0 : (unsigned)n;
}

static unsigned frozen_number_at(struct frozen_reader *r, struct span object, const char *pointer,
				 unsigned max)
{
	struct span value;
	return json_pointer(object, span_of(pointer), &value) ? frozen_number(r, value, max) : 0;
}

static bool frozen_is(struct span object, const char *pointer, const char *json)
{
	struct span value;
	return json_pointer(object, span_of(pointer), &value) && span_is(value, json);
}

static void frozen_parents(struct frozen_reader *r, struct span object, struct workflow_step *s)
{
	struct span list, key, value;
	struct json_iter it;
	if (!json_pointer(object, SPAN_LIT("/parents"), &list))
		return;
	json_iter_init(&it, list);
	while (json_iter_next(&it, &key, &value))
		s->parents |= UINT64_C(1) << frozen_number(r, value, WORKFLOW_MAX_STEPS - 1);
}

static void frozen_step(struct frozen_reader *r, struct span object, struct workflow_step *s)
{
	frozen_text(r, object, "/name", &s->name);
	frozen_text(r, object, "/task", &s->task);
	frozen_parents(r, object, s);
	if (frozen_is(object, "/input", "\"workflow\""))
		s->input = STEP_INPUT_WORKFLOW;
	else if (frozen_is(object, "/input", "\"none\""))
		s->input = STEP_INPUT_NONE;
	s->args = frozen_raw(r, object, "/args", JSON_ARRAY);
	if (s->args)
		s->input = STEP_INPUT_TEMPLATE;
	s->kwargs = frozen_raw(r, object, "/kwargs", JSON_OBJECT);
	frozen_text(r, object, "/queue", &s->queue);
	frozen_text(r, object, "/backend", &s->backend);
	s->idempotent = frozen_is(object, "/idempotent", "true");
	s->timeout_ms = frozen_number_at(r, object, "/timeout_ms", WORKFLOW_MAX_TIMEOUT_MS);
	s->over = frozen_raw(r, object, "/for_each/over", JSON_NULL);
	s->key = frozen_raw(r, object, "/for_each/key", JSON_NULL);
	s->max_items = frozen_number_at(r, object, "/for_each/max", WORKFLOW_MAX_ITEMS);
	if (!s->name.len || !s->task.len)
		frozen_wrong(r, "a step has no name or no task");
	if (s->over && !s->max_items)
		frozen_wrong(r, "a for_each has no bound");
}

static void frozen_steps(struct frozen_reader *r, struct span object, struct workflow_definition *w)
{
	struct span list = SPAN_NONE, key, value;
	struct json_iter it;
	json_pointer(object, SPAN_LIT("/steps"), &list);
	json_iter_init(&it, list);
	while (json_iter_next(&it, &key, &value) && !r->error) {
		if (w->n_steps == WORKFLOW_MAX_STEPS)
			frozen_wrong(r, "there are too many steps");
		else
			frozen_step(r, value, &w->steps[w->n_steps++]);
	}
	if (w->n_steps == 0)
		frozen_wrong(r, "there are no steps");
}

/* --- checking ------------------------------------------------------------------------------------------- */

struct frozen_by {
	const struct workflow_definition *w;
	uint64_t above;
	bool only_item;
};

static int frozen_check_reference(void *arg, struct span text, const struct workflow_reference *ref)
{
	const struct frozen_by *by = arg;
	(void)text;
	if (by->only_item)
		return ref->kind != REFERENCE_ITEM;
	if (ref->kind != REFERENCE_STEP)
		return 0;
	size_t i = 0;
	while (i < by->w->n_steps && !workflow_reference_is(ref, by->w->steps[i].name))
		i++;
	return i == by->w->n_steps || !(by->above >> i & 1);
}

static bool frozen_refers_well(const char *json, struct frozen_by *by)
{
	return !json || workflow_template_each(span_of(json), frozen_check_reference, by) == 0;
}

static void frozen_check(struct frozen_reader *r, const struct workflow_definition *w)
{
	uint64_t all = w->n_steps == 64 ? UINT64_MAX : (UINT64_C(1) << w->n_steps) - 1;
	struct frozen_by result = {w, all, false};
	for (size_t i = 0; i < w->n_steps; i++) {
		const struct workflow_step *s = &w->steps[i];
		struct frozen_by by = {w, 0, false}, key = {w, 0, true};
		if (s->parents & ~all) {
			frozen_wrong(r, "a step follows one that is not there");
			return;
		}
		by.above = workflow_ancestors(w, i);
		if (by.above >> i & 1)
			frozen_wrong(r, "the steps go in a circle");
		if (workflow_find_step(w, s->name) != i)
			frozen_wrong(r, "two steps have one name");
		if (!frozen_refers_well(s->args, &by) || !frozen_refers_well(s->kwargs, &by) ||
		    !frozen_refers_well(s->over, &by) || !frozen_refers_well(s->key, &key))
			frozen_wrong(r, "a step refers to what it does not follow");
	}
	if (!frozen_refers_well(w->result, &result))
		frozen_wrong(r, "the result refers to a step that is not there");
	if (workflow_max_tasks(w) > WORKFLOW_MAX_TASKS)
		frozen_wrong(r, "it can become too many tasks");
}

int workflow_from_json(struct span json, struct arena *memory, struct workflow_definition **ret,
		       struct err *e)
{
	struct frozen_reader r = {.memory = memory, .e = e};
	struct workflow_definition *w = arena_new(memory, struct workflow_definition, 1);
	if (!w)
		return err_set(e, -ENOMEM, "out of memory");
	if (json.len > WORKFLOW_MAX_FROZEN)
		return err_set(e, -EBADMSG, "a frozen workflow is too large");
	int code = json_validate(json, e);
	if (code < 0)
		return code;
	if (!frozen_is(json, "/format", FROZEN_FORMAT))
		frozen_wrong(&r, "its format is another program's");
	frozen_text(&r, json, "/name", &w->name);
	frozen_text(&r, json, "/queue", &w->queue);
	if (frozen_is(json, "/execution", "\"router\""))
		w->execution = WORKFLOW_ROUTER;
	else if (frozen_is(json, "/execution", "\"native\""))
		w->execution = WORKFLOW_NATIVE;
	w->timeout_ms = frozen_number_at(&r, json, "/timeout_ms", WORKFLOW_MAX_TIMEOUT_MS);
	w->result = frozen_raw(&r, json, "/result", JSON_NULL);
	frozen_steps(&r, json, w);
	if (!r.error)
		frozen_check(&r, w);
	if (!r.error)
		*ret = w;
	return r.error;
}
