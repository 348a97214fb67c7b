#include "tasks/celery/worker/canvas.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/json.h"
#include "tasks/celery/worker/incoming.h"

#define MESSAGE_MAX (512u << 20)
#define REPR_MAX 1024

struct canvas_signature {
	struct span task, args, kwargs, options;
	const char *kind; /* "", group, chain, chord; NULL: another */
	struct span text; /* all of it */
	bool immutable;
};

void canvas_init(struct canvas *v, const struct celery_options *c, const struct celery_sender *sender,
		 const char *default_queue)
{
	*v = (struct canvas){.c = c, .sender = sender, .default_queue = default_queue};
	buf_init(&v->children, MESSAGE_MAX);
}

void canvas_release(struct canvas *v)
{
	for (size_t i = 0; i < v->n_messages; i++) {
		buf_release(&v->messages[i].queue);
		buf_release(&v->messages[i].text);
	}
	for (size_t i = 0; i < v->n_sizes; i++)
		free(v->sizes[i].group);
	free(v->messages);
	free(v->sizes);
	buf_release(&v->children);
	v->messages = NULL;
	v->sizes = NULL;
	v->n_messages = v->n_sizes = 0;
}

/* --- reading -------------------------------------------------------------------------------------------- */

static bool canvas_is_some(struct span value)
{
	return value.ptr && json_type_of(value) != JSON_NULL;
}

static struct span canvas_member(struct span object, const char *pointer)
{
	struct span value = SPAN_NONE;
	if (!object.ptr || !json_pointer(object, span_of(pointer), &value) || !canvas_is_some(value))
		return SPAN_NONE;
	return value;
}

static const char *canvas_kind(struct span task, struct span type)
{
	static const char *const kinds[] = {"group", "chain", "chord"};
	char quoted[32];
	for (size_t i = 0; i < 3; i++) {
		snprintf(quoted, sizeof(quoted), "\"celery.%s\"", kinds[i]);
		if (span_is(task, quoted))
			return kinds[i];
	}
	/* They are tasks, which have their items in their arguments. */
	bool items = span_is(type, "\"xmap\"") || span_is(type, "\"xstarmap\"");
	return type.ptr && !items ? NULL : "";
}

static int canvas_read(struct span text, struct canvas_signature *s, struct err *e)
{
	static const struct span parts[] = {SPAN_INIT("/task"),		SPAN_INIT("/args"),
					    SPAN_INIT("/kwargs"),	SPAN_INIT("/options"),
					    SPAN_INIT("/subtask_type"), SPAN_INIT("/immutable")};
	struct span f[6];
	if (json_pointers(text, parts, 6, f, NULL) < 0 || !f[0].ptr || json_type_of(f[0]) != JSON_STRING)
		return err_set(e, CANVAS_E_NOT_TAKEN, "a signature that names no task");
	*s = (struct canvas_signature){.text = text,
				       .task = f[0],
				       .args = canvas_is_some(f[1]) ? f[1] : SPAN_LIT("[]"),
				       .kwargs = canvas_is_some(f[2]) ? f[2] : SPAN_LIT("{}"),
				       .options = canvas_is_some(f[3]) ? f[3] : SPAN_LIT("{}"),
				       .kind = canvas_kind(f[0], canvas_is_some(f[4]) ? f[4] : SPAN_NONE),
				       .immutable = f[5].ptr && json_type_of(f[5]) == JSON_TRUE};
	if (!s->kind)
		return err_set(e, CANVAS_E_NOT_TAKEN, "signatures of %.*s are not taken by this worker",
			       SPAN_ARG(f[0]));
	return 0;
}

static struct span canvas_either(struct span a, struct span b)
{
	return canvas_is_some(a) ? a : b;
}

static void canvas_put_text(struct span json_string, struct buf *out)
{
	if (json_type_of(json_string) == JSON_STRING)
		json_unescape(json_string, out);
}

/* The id of its options, or a new one; raw JSON in `out`. */
static struct span canvas_id(struct span options, char out[CRYPTO_UUID + 2])
{
	char id[CRYPTO_UUID];
	struct span own = canvas_member(options, "/task_id");
	if (own.ptr && json_type_of(own) == JSON_STRING)
		return own;
	crypto_uuid4(id);
	snprintf(out, CRYPTO_UUID + 2, "\"%s\"", id);
	return span_of(out);
}

/* --- writing -------------------------------------------------------------------------------------------- */

static struct canvas_message *canvas_add(struct canvas *v)
{
	if (v->n_messages == CANVAS_MAX_MESSAGES)
		return NULL;
	struct canvas_message *more = realloc(v->messages, (v->n_messages + 1) * sizeof(*more));
	if (!more)
		return NULL;
	v->messages = more;
	more += v->n_messages++;
	*more = (struct canvas_message){0};
	buf_init(&more->queue, 4096);
	buf_init(&more->text, MESSAGE_MAX);
	return more;
}

static int canvas_set_size(struct canvas *v, struct span group, size_t n)
{
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(CELERY_ID_MAX);
	struct canvas_size *more = realloc(v->sizes, (v->n_sizes + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	v->sizes = more;
	canvas_put_text(group, &name);
	more[v->n_sizes] = (struct canvas_size){.group = span_dup(buf_span(&name)), .n = n};
	if (!more[v->n_sizes].group)
		return -ENOMEM;
	v->n_sizes++;
	return 0;
}

/* Elements of both arrays, in one. */
static void canvas_put_joined(struct span a, struct span b, struct buf *out)
{
	const char *separator = "";
	buf_putc(out, '[');
	for (int i = 0; i < 2; i++) {
		struct json_iter it;
		struct span key, item;
		struct span list = i ? b : a;
		json_iter_init(&it, list.ptr ? list : SPAN_LIT("[]"));
		while (json_iter_next(&it, &key, &item)) {
			buf_puts(out, separator);
			buf_append_span(out, item);
			separator = ", ";
		}
	}
	buf_putc(out, ']');
}

static void canvas_put_member(struct buf *out, const char *name, struct span value)
{
	buf_printf(out, ", \"%s\": ", name);
	buf_append_span(out, canvas_is_some(value) ? value : SPAN_LIT("null"));
}

/* Callbacks may be given as one. */
static void canvas_put_list(struct buf *out, const char *name, struct span value)
{
	bool one = canvas_is_some(value) && json_type_of(value) == JSON_OBJECT;
	buf_printf(out, "%s\"%s\": %s", out->ptr[out->len - 1] == '{' ? "" : ", ", name, one ? "[" : "");
	buf_append_span(out, canvas_is_some(value) ? value : SPAN_LIT("null"));
	buf_puts(out, one ? "]" : "");
}

static void canvas_put_repr(struct buf *out, const char *name, struct span value)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 16);
	celery_repr(value, REPR_MAX, &text);
	buf_printf(out, ", \"%s\": ", name);
	json_quote(out, buf_span(&text));
}

/* Seconds from now, or an instant. */
static void canvas_put_when(struct buf *out, const char *name, struct span seconds, struct span instant)
{
	char text[32];
	buf_printf(out, ", \"%s\": ", name);
	if (canvas_is_some(seconds) && json_type_of(seconds) == JSON_NUMBER) {
		span_copy(seconds, text, sizeof(text));
		buf_putc(out, '"');
		celery_put_instant(out, clock_wall_us() + (int64_t)(strtod(text, NULL) * 1e6));
		buf_putc(out, '"');
	} else {
		buf_append_span(out, canvas_is_some(instant) ? instant : SPAN_LIT("null"));
	}
}

static void canvas_put_limits(struct buf *out, struct span options)
{
	struct span hard = canvas_member(options, "/time_limit"),
		    soft = canvas_member(options, "/soft_time_limit");
	buf_puts(out, ", \"timelimit\": [");
	buf_append_span(out, hard.ptr ? hard : SPAN_LIT("null"));
	buf_puts(out, ", ");
	buf_append_span(out, soft.ptr ? soft : SPAN_LIT("null"));
	buf_putc(out, ']');
}

static void canvas_put_headers(const struct canvas *v, const struct canvas_signature *s,
			       const struct canvas_call *call, struct span id, struct span args,
			       struct buf *out)
{
	const struct span o = s->options;
	struct span expires = canvas_member(o, "/expires"), ignore = canvas_member(o, "/ignore_result");
	bool in_seconds = expires.ptr && json_type_of(expires) == JSON_NUMBER;
	struct json_iter it;
	struct span key, value;
	buf_puts(out, "\"headers\": {\"lang\": \"py\"");
	canvas_put_member(out, "task", s->task);
	canvas_put_member(out, "id", id);
	canvas_put_member(out, "shadow", canvas_member(o, "/shadow"));
	canvas_put_when(out, "eta", canvas_member(o, "/countdown"), canvas_member(o, "/eta"));
	canvas_put_when(out, "expires", in_seconds ? expires : SPAN_NONE, expires);
	canvas_put_member(out, "group", canvas_either(canvas_member(o, "/group_id"), call->group_id));
	canvas_put_member(out, "group_index",
			  canvas_either(call->group_index, canvas_member(o, "/group_index")));
	struct span retries = canvas_member(o, "/retries");
	canvas_put_member(out, "retries", retries.ptr ? retries : SPAN_LIT("0"));
	canvas_put_limits(out, o);
	canvas_put_member(out, "root_id",
			  canvas_either(call->root_id, canvas_either(canvas_member(o, "/root_id"), id)));
	canvas_put_member(out, "parent_id", canvas_either(call->parent_id, canvas_member(o, "/parent_id")));
	canvas_put_repr(out, "argsrepr", args);
	canvas_put_repr(out, "kwargsrepr", s->kwargs);
	buf_puts(out, ", \"origin\": ");
	json_quote(out, span_of(v->sender->origin));
	canvas_put_member(out, "ignore_result", ignore.ptr ? ignore : SPAN_LIT("false"));
	buf_puts(out, ", \"replaced_task_nesting\": 0");
	canvas_put_member(out, "stamped_headers", canvas_member(o, "/stamped_headers"));
	struct span stamps = canvas_member(o, "/stamps");
	canvas_put_member(out, "stamps", stamps.ptr ? stamps : SPAN_LIT("{}"));
	/* The caller's own. */
	struct span more = canvas_member(o, "/headers");
	json_iter_init(&it, more.ptr ? more : SPAN_LIT("{}"));
	while (json_iter_next(&it, &key, &value)) {
		buf_puts(out, ", ");
		buf_append_span(out, key);
		buf_puts(out, ": ");
		buf_append_span(out, value);
	}
	buf_puts(out, "}, ");
}

static int canvas_priority(struct span options)
{
	char text[16];
	struct span p = canvas_member(options, "/priority");
	span_copy(p.ptr && json_type_of(p) == JSON_NUMBER ? p : SPAN_LIT("0"), text, sizeof(text));
	return atoi(text);
}

static void canvas_put_envelope(struct canvas_message *m, struct span body, struct span headers,
				struct span id, struct span reply_to)
{
	char tag[CRYPTO_UUID];
	struct buf *out = &m->text;
	crypto_uuid4(tag);
	buf_reserve(out, (body.len + 2) / 3 * 4 + headers.len + 1024);
	buf_puts(out, "{\"body\": \"");
	base64_encode(body, out);
	buf_puts(out, "\", \"content-encoding\": \"utf-8\", \"content-type\": \"application/json\", ");
	buf_append_span(out, headers);
	buf_puts(out, "\"properties\": {\"correlation_id\": ");
	buf_append_span(out, id);
	canvas_put_member(out, "reply_to", reply_to);
	buf_puts(out, ", \"delivery_mode\": 2, \"delivery_info\": {\"exchange\": \"\", \"routing_key\": ");
	json_quote(out, buf_span(&m->queue));
	buf_printf(out, "}, \"priority\": %d, \"body_encoding\": \"base64\", \"delivery_tag\": \"%s\"}}",
		   m->priority, tag);
}

static void canvas_put_queue(const struct canvas *v, struct span options, struct buf *out)
{
	struct span queue =
		canvas_either(canvas_member(options, "/queue"), canvas_member(options, "/routing_key"));
	struct span name = canvas_member(queue, "/name"); /* kombu's Queue as a mapping */
	canvas_put_text(name.ptr ? name : canvas_either(queue, SPAN_LIT("\"\"")), out);
	if (out->len == 0)
		buf_puts(out, v->default_queue);
}

static int canvas_put_task(struct canvas *v, const struct canvas_signature *s, const struct canvas_call *call,
			   struct span id)
{
	CLEANUP(buf_releasep)
	struct buf args = BUF_INIT(MESSAGE_MAX), body = BUF_INIT(MESSAGE_MAX),
		   headers = BUF_INIT(MESSAGE_MAX), embed = BUF_INIT(MESSAGE_MAX);
	struct canvas_message *m = canvas_add(v);
	if (!m)
		return -ENOMEM;
	canvas_put_joined(s->immutable ? SPAN_NONE : call->args, s->args, &args);
	buf_putc(&embed, '{');
	canvas_put_list(&embed, "callbacks", canvas_member(s->options, "/link"));
	canvas_put_list(&embed, "errbacks", canvas_member(s->options, "/link_error"));
	canvas_put_list(&embed, "chain", canvas_either(call->chain, canvas_member(s->options, "/chain")));
	canvas_put_member(&embed, "chord", canvas_either(call->chord, canvas_member(s->options, "/chord")));
	buf_printf(&body, "[%s, ", args.ptr);
	buf_append_span(&body, s->kwargs);
	buf_puts(&body, ", ");
	buf_append_span(&body, buf_span(&embed));
	buf_puts(&body, "}]");
	canvas_put_queue(v, s->options, &m->queue);
	m->priority = canvas_priority(s->options);
	canvas_put_headers(v, s, call, id, buf_span(&args), &headers);
	struct span reply_to = canvas_member(s->options, "/reply_to");
	canvas_put_envelope(m, buf_span(&body), buf_span(&headers), id, reply_to);
	int error = args.error | body.error | headers.error | embed.error | m->text.error | m->queue.error;
	return error ? -ENOMEM : 0;
}

/* --- applying ------------------------------------------------------------------------------------------- */

static int canvas_do(struct canvas *v, struct span signature, const struct canvas_call *call, unsigned level,
		     struct buf *children, struct err *e);

static void canvas_put_child(struct buf *children, struct span id)
{
	if (!children)
		return;
	buf_printf(children, "%s[[%.*s, null], null]", children->len ? ", " : "", SPAN_ARG(id));
}

static size_t canvas_count(struct span array)
{
	struct json_iter it;
	struct span key, item;
	size_t n = 0;
	json_iter_init(&it, array);
	while (json_iter_next(&it, &key, &item))
		n++;
	return n;
}

static struct span canvas_tasks(const struct canvas_signature *s)
{
	struct span tasks = canvas_member(s->kwargs, "/tasks");
	return tasks.ptr && json_type_of(tasks) == JSON_ARRAY ? tasks : SPAN_LIT("[]");
}

static struct span canvas_last(struct span array)
{
	struct json_iter it;
	struct span key, item, last = SPAN_NONE;
	json_iter_init(&it, array);
	while (json_iter_next(&it, &key, &item))
		last = item;
	return last;
}

/* How many results a signature gives to the chord that it is part of. */
static size_t canvas_parts(struct span signature, unsigned level)
{
	struct canvas_signature s;
	if (level > CANVAS_MAX_LEVELS || !signature.ptr || canvas_read(signature, &s, NULL) != 0 ||
	    !s.kind[0])
		return 1;
	if (strcmp(s.kind, "chord") == 0)
		return canvas_parts(canvas_member(s.kwargs, "/body"), level + 1);
	if (strcmp(s.kind, "chain") == 0)
		return canvas_parts(canvas_last(canvas_tasks(&s)), level + 1);
	struct json_iter it;
	struct span key, item;
	size_t n = 0;
	json_iter_init(&it, canvas_tasks(&s));
	while (json_iter_next(&it, &key, &item))
		n += canvas_parts(item, level + 1);
	return n;
}

/* Groups within a group that a chord waits for are its parts. In the order that Celery gives them, which
 * turns an inner group round. Source: celery/canvas.py, group._freeze_unroll. */
static int canvas_unroll(struct span tasks, struct span **ret, size_t *ret_n, struct err *e)
{
	size_t n = 0, top = 0;
	struct span *flat = calloc(CANVAS_MAX_MESSAGES, sizeof(*flat)),
		    *stack = calloc(CANVAS_MAX_MESSAGES, sizeof(*stack)), key, item;
	size_t first = canvas_count(tasks);
	int r = flat && stack ? 0 : -ENOMEM;
	struct json_iter it;
	if (r == 0 && first > CANVAS_MAX_MESSAGES)
		r = err_set(e, CANVAS_E_NOT_TAKEN, "a group of more than %d parts", CANVAS_MAX_MESSAGES);
	json_iter_init(&it, r == 0 ? tasks : SPAN_LIT("[]"));
	for (size_t i = first; json_iter_next(&it, &key, &item);)
		stack[--i] = item;
	for (top = first; r == 0 && top > 0;) {
		struct canvas_signature s;
		item = stack[--top];
		r = canvas_read(item, &s, e);
		bool group = r == 0 && strcmp(s.kind, "group") == 0;
		if (r == 0 && n + top + (group ? canvas_count(canvas_tasks(&s)) : 1) > CANVAS_MAX_MESSAGES)
			r = err_set(e, CANVAS_E_NOT_TAKEN, "a group of more than %d parts",
				    CANVAS_MAX_MESSAGES);
		if (r == 0 && !group)
			flat[n++] = item;
		json_iter_init(&it, r == 0 && group ? canvas_tasks(&s) : SPAN_LIT("[]"));
		while (json_iter_next(&it, &key, &item))
			stack[top++] = item;
	}
	free(stack);
	*ret = flat;
	*ret_n = n;
	return r;
}

/* Each of them, as parts of one group. */
static int canvas_do_parts(struct canvas *v, const struct span *tasks, size_t n,
			   const struct canvas_call *call, struct span group, struct span chord,
			   unsigned level, struct buf *children, struct err *e)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < n; i++) {
		char index[24];
		snprintf(index, sizeof(index), "%zu", i);
		struct canvas_call one = *call;
		one.group_id = group;
		one.group_index = span_of(index);
		one.chord = chord;
		one.chain = SPAN_NONE;
		r = canvas_do(v, tasks[i], &one, level + 1, children, e);
	}
	return r;
}

/* All results of the parts, in one chord: how many there will be. */
static size_t canvas_size_of(const struct span *tasks, size_t n, unsigned level)
{
	size_t parts = 0;
	for (size_t i = 0; i < n; i++)
		parts += canvas_parts(tasks[i], level);
	return parts;
}

/* A group, and what follows it in its chain. */
static int canvas_do_followed(struct canvas *v, const struct canvas_signature *s,
			      const struct canvas_call *call, unsigned level, struct buf *children,
			      struct err *e)
{
	CLEANUP(buf_releasep) struct buf chord = BUF_INIT(MESSAGE_MAX), rest = BUF_INIT(MESSAGE_MAX);
	struct span key, item, next = canvas_last(call->chain);
	struct json_iter it;
	buf_putc(&rest, '[');
	json_iter_init(&it, call->chain);
	while (json_iter_next(&it, &key, &item) && item.ptr != next.ptr) {
		buf_puts(&rest, rest.len > 1 ? ", " : "");
		buf_append_span(&rest, item);
	}
	buf_putc(&rest, ']');
	buf_puts(&chord,
		 "{\"task\": \"celery.chord\", \"args\": [], \"options\": {}, \"subtask_type\": \"chord\", "
		 "\"immutable\": false, \"kwargs\": {\"header\": ");
	buf_append_span(&chord, s->text);
	buf_puts(&chord, ", \"body\": ");
	buf_append_span(&chord, next);
	buf_puts(&chord, ", \"kwargs\": {}}}");
	if (chord.error || rest.error)
		return -ENOMEM;
	struct canvas_call one = *call;
	one.chain = rest.len > 2 ? buf_span(&rest) : SPAN_NONE;
	return canvas_do(v, buf_span(&chord), &one, level + 1, children, e);
}

static int canvas_do_group(struct canvas *v, const struct canvas_signature *s, const struct canvas_call *call,
			   unsigned level, struct buf *children, struct err *e)
{
	char room[CRYPTO_UUID + 2];
	CLEANUP(buf_releasep) struct buf own = BUF_INIT(MESSAGE_MAX);
	struct span id = canvas_id(s->options, room), tasks = canvas_tasks(s);
	struct span chord = canvas_either(call->chord, canvas_member(s->options, "/chord"));
	if (canvas_is_some(call->chain) && canvas_count(call->chain))
		return canvas_do_followed(v, s, call, level, children, e);
	struct span of_task = chord.ptr ? chord : canvas_member(canvas_last(tasks), "/options/chord");
	CLEANUP(freep) struct span *parts = NULL;
	size_t n = 0;
	int r = canvas_unroll(tasks, &parts, &n, e);
	/* What is part of a chord by its place counts there, and so do its parts. */
	struct span of_member = canvas_member(canvas_last(tasks), "/options/group_id");
	bool within = chord.ptr && canvas_is_some(call->group_id);
	bool counts = of_task.ptr && !within && (!of_member.ptr || span_eq(of_member, id));
	if (r == 0 && counts && canvas_set_size(v, id, canvas_size_of(parts, n, level)) < 0)
		r = -ENOMEM;
	if (r == 0)
		r = canvas_do_parts(v, parts, n, call, within ? call->group_id : id, chord, level, &own, e);
	if (children) /* ((id, parent), results) */
		buf_printf(children, "%s[[%.*s, null], [%s]]", children->len ? ", " : "", SPAN_ARG(id),
			   own.ptr ? own.ptr : "");
	return r;
}

/* `options` of a signature with members added, unless they are there. */
static void canvas_put_with_options(struct span signature, const char *const names[],
				    const struct span *values, size_t n, struct buf *out)
{
	struct span options = canvas_member(signature, "/options");
	CLEANUP(buf_releasep) struct buf now = BUF_INIT(MESSAGE_MAX), next = BUF_INIT(MESSAGE_MAX);
	buf_append_span(&now, options.ptr ? options : SPAN_LIT("{}"));
	for (size_t i = 0; i < n; i++) {
		char pointer[64];
		snprintf(pointer, sizeof(pointer), "/%s", names[i]);
		if (!canvas_is_some(values[i]) || canvas_member(buf_span(&now), pointer).ptr)
			continue;
		buf_clear(&next);
		celery_put_with_member(buf_span(&now), names[i], values[i], &next);
		buf_clear(&now);
		buf_append_span(&now, buf_span(&next));
	}
	celery_put_with_member(signature, "options", buf_span(&now), out);
}

static int canvas_do_chord(struct canvas *v, const struct canvas_signature *s, const struct canvas_call *call,
			   unsigned level, struct buf *children, struct err *e)
{
	static const char *const names[] = {"task_id", "group_id", "root_id",	 "parent_id",
					    "chain",   "chord",	   "group_index"};
	char room[CRYPTO_UUID + 2], body_room[CRYPTO_UUID + 2];
	CLEANUP(buf_releasep) struct buf frozen = BUF_INIT(MESSAGE_MAX);
	struct span header = canvas_member(s->kwargs, "/header"), body = canvas_member(s->kwargs, "/body");
	struct canvas_signature group;
	struct span tasks = header, id = canvas_id(s->options, room);
	if (!header.ptr || !body.ptr)
		return err_set(e, CANVAS_E_NOT_TAKEN, "a chord without header or body");
	if (json_type_of(header) == JSON_OBJECT) {
		int code = canvas_read(header, &group, e);
		if (code)
			return code;
		tasks = canvas_tasks(&group);
		id = canvas_either(canvas_member(group.options, "/task_id"), id);
	}
	struct span body_id = canvas_id(canvas_member(body, "/options"), body_room);
	/* A chord in a chord's header is part of that by its body. */
	const struct span values[] = {body_id,		call->chord.ptr ? call->group_id : id,
				      call->root_id,	call->parent_id,
				      call->chain,	call->chord,
				      call->group_index};
	canvas_put_with_options(body, names, values, 7, &frozen);
	CLEANUP(freep) struct span *list = NULL;
	size_t n = 0;
	int r = canvas_unroll(tasks, &list, &n, e);
	if (r)
		return r;
	canvas_put_child(children, body_id);
	struct canvas_call parts = *call;
	if (n == 0) { /* nothing to wait for */
		parts.args = SPAN_LIT("[[]]");
		return canvas_do(v, buf_span(&frozen), &parts, level + 1, NULL, e);
	}
	if (frozen.error || canvas_set_size(v, id, canvas_size_of(list, n, level)) < 0)
		return -ENOMEM;
	return canvas_do_parts(v, list, n, &parts, id, buf_span(&frozen), level, NULL, e);
}

/* The first is applied; the others follow it, the last one first, each with an id of its own. What the
 * chain is part of, its last one is. */
static int canvas_do_chain(struct canvas *v, const struct canvas_signature *s, const struct canvas_call *call,
			   unsigned level, struct buf *children, struct err *e)
{
	static const char *const names[] = {"task_id", "chord", "group_id", "group_index"};
	struct span tasks = canvas_tasks(s), first = SPAN_NONE, item, key;
	const size_t n = canvas_count(tasks);
	CLEANUP(freep) struct span *list = calloc(n + 1, sizeof(*list));
	CLEANUP(buf_releasep) struct buf rest = BUF_INIT(MESSAGE_MAX), joined = BUF_INIT(MESSAGE_MAX);
	struct json_iter it;
	size_t i = 0;
	if (!list)
		return -ENOMEM;
	json_iter_init(&it, tasks);
	while (json_iter_next(&it, &key, &item))
		list[i++] = item;
	if (n == 0)
		return 0;
	first = list[0];
	buf_putc(&rest, '[');
	for (i = n; i > 1; i--) {
		char room[CRYPTO_UUID + 2];
		struct span id = canvas_id(canvas_member(list[i - 1], "/options"), room);
		bool last = i == n;
		if (last) /* the chain's own id is that of its last task */
			id = canvas_either(canvas_member(list[i - 1], "/options/task_id"),
					   canvas_either(canvas_member(s->options, "/task_id"), id));
		const struct span values[] = {id, last ? call->chord : SPAN_NONE,
					      last ? call->group_id : SPAN_NONE,
					      last ? call->group_index : SPAN_NONE};
		buf_puts(&rest, last ? "" : ", ");
		canvas_put_with_options(list[i - 1], names, values, 4, &rest);
	}
	buf_putc(&rest, ']');
	canvas_put_joined(call->chain, buf_span(&rest), &joined);
	if (rest.error || joined.error)
		return -ENOMEM;
	struct canvas_call one = *call;
	one.chain = buf_span(&joined);
	if (n > 1)
		one.chord = one.group_id = one.group_index = SPAN_NONE;
	return canvas_do(v, first, &one, level + 1, children, e);
}

/* The body of a chord is applied by whoever counts its last part: what it is part of, and what follows it, it
 * carries itself. */
static struct canvas_call canvas_with_options(const struct canvas_call *call, struct span options)
{
	struct canvas_call c = *call;
	c.chain = canvas_either(c.chain, canvas_member(options, "/chain"));
	c.chord = canvas_either(c.chord, canvas_member(options, "/chord"));
	c.group_id = canvas_either(c.group_id, canvas_member(options, "/group_id"));
	c.group_index = canvas_either(c.group_index, canvas_member(options, "/group_index"));
	return c;
}

static int canvas_do(struct canvas *v, struct span signature, const struct canvas_call *call, unsigned level,
		     struct buf *children, struct err *e)
{
	struct canvas_signature s;
	char room[CRYPTO_UUID + 2];
	int r = level > CANVAS_MAX_LEVELS
			? err_set(e, CANVAS_E_NOT_TAKEN, "a canvas of more than %d levels", CANVAS_MAX_LEVELS)
			: canvas_read(signature, &s, e);
	if (r)
		return r;
	const struct canvas_call own = canvas_with_options(call, s.options);
	if (strcmp(s.kind, "group") == 0)
		return canvas_do_group(v, &s, &own, level, children, e);
	if (strcmp(s.kind, "chain") == 0)
		return canvas_do_chain(v, &s, &own, level, children, e);
	if (strcmp(s.kind, "chord") == 0)
		return canvas_do_chord(v, &s, &own, level, children, e);
	struct span id = canvas_id(s.options, room);
	canvas_put_child(children, id);
	return canvas_put_task(v, &s, call, id);
}

int canvas_apply(struct canvas *v, struct span signature, const struct canvas_call *call, struct err *e)
{
	int r = canvas_do(v, signature, call, 0, &v->children, e);
	return r < 0 ? err_set(e, r, "out of memory") : r;
}

/* --- again ---------------------------------------------------------------------------------------------- */

int canvas_again(struct canvas *v, const struct celery_incoming *m, struct span raw, struct span queue,
		 int64_t eta_us)
{
	CLEANUP(buf_releasep)
	struct buf eta = BUF_INIT(64), retried = BUF_INIT(MESSAGE_MAX), headers = BUF_INIT(MESSAGE_MAX);
	struct canvas_message *message = canvas_add(v);
	char retries[16], priority[16] = "0";
	if (!message)
		return -ENOMEM;
	buf_putc(&eta, '"');
	celery_put_instant(&eta, eta_us);
	buf_putc(&eta, '"');
	snprintf(retries, sizeof(retries), "%u", m->retries + 1);
	celery_put_with_member(m->headers, "retries", span_of(retries), &retried);
	celery_put_with_member(buf_span(&retried), "eta", buf_span(&eta), &headers);
	celery_put_with_member(raw, "headers", buf_span(&headers), &message->text);
	buf_append_span(&message->queue, queue);
	span_copy(m->priority.ptr ? m->priority : SPAN_LIT("0"), priority, sizeof(priority));
	message->priority = atoi(priority);
	return retried.error || headers.error || message->text.error ? -ENOMEM : 0;
}
