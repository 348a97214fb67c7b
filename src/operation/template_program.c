#include "operation/template_program.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/http_message.h"

#define LITERAL_MAX (1u << 20) /* bytes of one constant part */
#define SCRATCH_MAX (1u << 20) /* a decoded parameter; the request's head is limited more tightly */

enum reference {
	REF_BODY,
	REF_HEADER,
	REF_QUERY,
	REF_PATH,
	REF_USER,
	REF_ORGANIZATION,
	REF_UUID,
	REF_REQUEST_ID,
	REF_CREDENTIAL,
	REF_RESULT,
	REF_TASK_ID,
	REF_TASK_STATUS,
	REF_TASK_ERROR,
	REF_ERROR_STATUS,
	REF_ERROR_TITLE,
	REF_ERROR_DETAIL,
};

enum argument { ARGUMENT_NONE, ARGUMENT_POINTER, ARGUMENT_NAME, ARGUMENT_TOKEN };

static const struct form {
	const char *text;  /* all of it, or the text before the argument */
	const char *shown; /* in messages */
	unsigned where;	   /* TEMPLATE_* */
	enum argument argument;
	enum reference reference;
} forms[] = {
	{"body:", "body:/pointer", TEMPLATE_REQUEST, ARGUMENT_POINTER, REF_BODY},
	{"header:", "header:Name", TEMPLATE_REQUEST, ARGUMENT_TOKEN, REF_HEADER},
	{"query:", "query:name", TEMPLATE_REQUEST, ARGUMENT_NAME, REF_QUERY},
	{"path:", "path:name", TEMPLATE_REQUEST, ARGUMENT_NAME, REF_PATH},
	{"identity:user", "identity:user", TEMPLATE_REQUEST, ARGUMENT_NONE, REF_USER},
	{"identity:organization", "identity:organization", TEMPLATE_REQUEST, ARGUMENT_NONE, REF_ORGANIZATION},
	{"uuid", "uuid", TEMPLATE_REQUEST, ARGUMENT_NONE, REF_UUID},
	{"request:id", "request:id", TEMPLATE_REQUEST, ARGUMENT_NONE, REF_REQUEST_ID},
	{"credential", "credential", TEMPLATE_CREDENTIAL, ARGUMENT_NONE, REF_CREDENTIAL},
	{"result:", "result:/pointer", TEMPLATE_RESULT, ARGUMENT_POINTER, REF_RESULT},
	{"task:id", "task:id", TEMPLATE_RESULT, ARGUMENT_NONE, REF_TASK_ID},
	{"task:status", "task:status", TEMPLATE_RESULT, ARGUMENT_NONE, REF_TASK_STATUS},
	{"task:error", "task:error", TEMPLATE_RESULT, ARGUMENT_NONE, REF_TASK_ERROR},
	{"error:status", "error:status", TEMPLATE_ERROR, ARGUMENT_NONE, REF_ERROR_STATUS},
	{"error:title", "error:title", TEMPLATE_ERROR, ARGUMENT_NONE, REF_ERROR_TITLE},
	{"error:detail", "error:detail", TEMPLATE_ERROR, ARGUMENT_NONE, REF_ERROR_DETAIL},
};
#define N_FORMS (sizeof(forms) / sizeof(forms[0]))

struct program_node {
	enum { NODE_LITERAL, NODE_REFERENCE, NODE_ARRAY, NODE_OBJECT } kind;
	struct span key;  /* owned: `"name":`, in an object */
	struct span text; /* owned: a literal's JSON, or a reference's name */
	enum reference reference;
	size_t slot;			/* of a reference's pointer */
	struct program_node *otherwise; /* a reference's default */
	struct program_node *first, *next;
};

/* --- compilation ---------------------------------------------------------------------------------------- */
int program_error(struct err *e, const struct yaml_node *at, const char *format, ...)
{
	char text[ERR_TEXT_MAX];
	va_list ap;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (!at)
		return err_set(e, -EBADMSG, "template: %s", text);
	if (!at->key)
		return err_set(e, -EBADMSG, "line %u: %s", at->line, text);
	return err_set(e, -EBADMSG, "line %u: %.*s: %s", at->line, SPAN_ARG(at->key->text), text);
}

static int template_program_no_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "template: out of memory");
}

void program_init(struct program *p, unsigned allowed)
{
	*p = (struct program){.allowed = allowed, .body.whole_only = true, .result.whole_only = true};
}

static void pointer_list_release(struct pointer_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		free((char *)l->items[i].ptr);
	free(l->items);
}

void program_release(struct program *p)
{
	pointer_list_release(&p->body);
	pointer_list_release(&p->result);
	program_init(p, p->allowed);
}

struct program_node *program_node_free(struct program_node *node)
{
	while (node) {
		struct program_node *next = node->next;
		program_node_free(node->first);
		program_node_free(node->otherwise);
		free((char *)node->key.ptr);
		free((char *)node->text.ptr);
		free(node);
		node = next;
	}
	return NULL;
}

static int pointer_list_add(struct pointer_list *l, struct span pointer, size_t *ret_slot)
{
	for (size_t i = 0; i < l->count; i++) {
		if (span_eq(l->items[i], pointer)) {
			*ret_slot = i;
			return 0;
		}
	}
	if (l->count == PROGRAM_MAX_POINTERS)
		return -EFBIG;
	struct span *items = realloc(l->items, (l->count + 1) * sizeof(*items));
	if (!items)
		return -ENOMEM;
	l->items = items;
	char *copy = span_dup(pointer);
	if (!copy)
		return -ENOMEM;
	*ret_slot = l->count;
	items[l->count++] = (struct span){copy, pointer.len};
	l->whole_only = l->whole_only && pointer.len == 0;
	return 0;
}

/* What may be written in this place, for messages. */
static int bad_reference(const struct program *p, const struct yaml_node *y, const char *problem,
			 struct err *e)
{
	CLEANUP(buf_releasep) struct buf known = BUF_INIT(ERR_TEXT_MAX);
	for (size_t i = 0; i < N_FORMS; i++)
		if (forms[i].where & p->allowed)
			buf_printf(&known, " %s", forms[i].shown);
	return program_error(e, y, "%s '%.*s'; allowed here:%.*s", problem,
			     (int)(y->text.len > 80 ? 80 : y->text.len), y->text.ptr,
			     SPAN_ARG(buf_span(&known)));
}

static int compile_argument(struct program *p, const struct yaml_node *y, const struct form *form,
			    struct span argument, struct program_node *node, struct err *e)
{
	if (form->argument == ARGUMENT_TOKEN && !http_is_token(argument))
		return program_error(e, y, "'%.*s' is not a field name", SPAN_ARG(argument));
	if (form->argument == ARGUMENT_NAME && argument.len == 0)
		return program_error(e, y, "'%s' needs a name after it", form->text);
	if (form->argument != ARGUMENT_POINTER) {
		char *copy = span_dup(argument);
		node->text = (struct span){copy, argument.len};
		return copy ? 0 : template_program_no_memory(e);
	}
	if (!json_pointer_valid(argument))
		return program_error(
			e, y, "'%.*s' is not a JSON pointer (it begins with /, or is empty for the whole)",
			SPAN_ARG(argument));
	int r = pointer_list_add(form->reference == REF_BODY ? &p->body : &p->result, argument, &node->slot);
	if (r == -EFBIG)
		return program_error(e, y, "more than %d pointers in one template", PROGRAM_MAX_POINTERS);
	return r < 0 ? template_program_no_memory(e) : 0;
}

static const struct form *find_form(struct span text)
{
	for (size_t i = 0; i < N_FORMS; i++) {
		struct span form = span_of(forms[i].text);
		if (forms[i].argument == ARGUMENT_NONE ? span_eq(text, form) : span_starts(text, form))
			return &forms[i];
	}
	return NULL;
}

int program_compile_reference(struct program *p, const struct yaml_node *y, struct program_node **ret,
			      struct err *e)
{
	struct span text;
	if (!yaml_string(y, &text))
		return program_error(e, y, "a reference is a string such as \"body:/a/b\"");
	const struct form *form = find_form(text);
	if (!form)
		return bad_reference(p, y, "unknown reference", e);
	if (!(form->where & p->allowed))
		return bad_reference(p, y, "there is no such value here:", e);
	CLEANUP(program_node_freep) struct program_node *node = calloc(1, sizeof(*node));
	if (!node)
		return template_program_no_memory(e);
	node->kind = NODE_REFERENCE;
	node->reference = form->reference;
	p->credential |= form->reference == REF_CREDENTIAL;
	size_t prefix = strlen(form->text);
	int r = compile_argument(p, y, form, (struct span){text.ptr + prefix, text.len - prefix}, node, e);
	if (r < 0)
		return r;
	*ret = steal(node);
	return 0;
}

static int compile_reference_object(struct program *p, const struct yaml_node *y, struct program_node **ret,
				    struct err *e)
{
	for (const struct yaml_node *i = y->first; i; i = i->next)
		if (!span_is(i->key->text, "$ref") && !span_is(i->key->text, "default"))
			return program_error(e, i, "only \"default\" is allowed next to \"$ref\"");
	CLEANUP(program_node_freep) struct program_node *node = NULL;
	int r = program_compile_reference(p, yaml_get(y, "$ref"), &node, e);
	const struct yaml_node *otherwise = yaml_get(y, "default");
	if (r == 0 && otherwise)
		r = program_compile(p, otherwise, &node->otherwise, e);
	if (r == 0)
		*ret = steal(node);
	return r;
}

static bool is_constant(const struct yaml_node *y)
{
	if (y->kind == YAML_MAPPING && yaml_get(y, "$ref"))
		return false;
	for (const struct yaml_node *i = y->first; i; i = i->next)
		if (!is_constant(i))
			return false;
	return true;
}

static int steal_text(struct buf *b, struct span *ret)
{
	size_t length = b->len;
	int error = b->error;
	char *text = error ? NULL : buf_steal(b);
	*ret = (struct span){text, length};
	if (text)
		return 0;
	return error ? error : -ENOMEM;
}

static int compile_literal(const struct yaml_node *y, struct program_node *node, struct err *e)
{
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(LITERAL_MAX);
	if (y)
		yaml_to_json(y, &b);
	else
		buf_puts(&b, "null");
	int r = steal_text(&b, &node->text);
	if (r == -EFBIG)
		return program_error(e, y, "more than %u bytes of constant text", LITERAL_MAX);
	return r ? template_program_no_memory(e) : 0;
}

static int template_program_compile_key(const struct yaml_node *item, struct program_node *node,
					struct err *e)
{
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(LITERAL_MAX);
	json_quote(&b, item->key->text);
	buf_putc(&b, ':');
	int r = steal_text(&b, &node->key);
	if (r == -EFBIG)
		return program_error(e, item, "the name is too long");
	return r ? template_program_no_memory(e) : 0;
}

static int compile_children(struct program *p, const struct yaml_node *y, struct program_node *node,
			    struct err *e)
{
	struct program_node **tail = &node->first;
	for (const struct yaml_node *i = y->first; i; i = i->next) {
		int r = program_compile(p, i, tail, e);
		if (r == 0 && node->kind == NODE_OBJECT)
			r = template_program_compile_key(i, *tail, e);
		if (r < 0)
			return r;
		tail = &(*tail)->next;
	}
	return 0;
}

int program_compile(struct program *p, const struct yaml_node *y, struct program_node **ret, struct err *e)
{
	if (y && y->kind == YAML_MAPPING && yaml_get(y, "$ref"))
		return compile_reference_object(p, y, ret, e);
	CLEANUP(program_node_freep) struct program_node *node = calloc(1, sizeof(*node));
	if (!node)
		return template_program_no_memory(e);
	int r;
	if (!y || is_constant(y)) {
		node->kind = NODE_LITERAL;
		r = compile_literal(y, node, e);
	} else {
		node->kind = y->kind == YAML_MAPPING ? NODE_OBJECT : NODE_ARRAY;
		r = compile_children(p, y, node, e);
	}
	if (r == 0)
		*ret = steal(node);
	return r;
}

/* --- rendering ------------------------------------------------------------------------------------------ */

static void find_all(const struct pointer_list *l, struct span text, struct span *ret_values)
{
	if (l->count == 0)
		return;
	if (!text.ptr || l->whole_only) {
		/* The caller says that it is valid: the whole needs no second look. */
		text = span_strip(text);
		for (size_t i = 0; i < l->count; i++)
			ret_values[i] = text.len ? text : SPAN_NONE;
		return;
	}
	/* On a text that is not valid after all, every value is absent. */
	json_pointers(text, l->items, l->count, ret_values, NULL);
}

void program_begin(const struct program *p, const struct template_source *s, struct program_run *run)
{
	run->source = s;
	run->scratch = BUF_INIT(SCRATCH_MAX);
	find_all(&p->body, s->body, run->body);
	find_all(&p->result, s->result, run->result);
}

void program_end(struct program_run *run)
{
	buf_release(&run->scratch);
}

/* A value as raw JSON, or as text that is still to be quoted. */
struct value {
	struct span span; /* SPAN_NONE: absent */
	bool json;
};

static int template_program_decode(struct program_run *run, bool (*get)(void *, struct span, struct buf *),
				   struct span name, struct value *ret)
{
	buf_clear(&run->scratch);
	if (get && get(run->source->arg, name, &run->scratch))
		ret->span = buf_span(&run->scratch);
	return run->scratch.error;
}

static int print_status(struct program_run *run, struct value *ret)
{
	buf_clear(&run->scratch);
	if (run->source->error_status == 0)
		return 0;
	buf_printf(&run->scratch, "%d", run->source->error_status);
	*ret = (struct value){buf_span(&run->scratch), .json = true};
	return run->scratch.error;
}

static int get_value(const struct program_node *node, struct program_run *run, struct value *ret)
{
	const struct template_source *s = run->source;
	*ret = (struct value){SPAN_NONE, .json = false};
	switch (node->reference) {
	case REF_BODY:
		*ret = (struct value){run->body[node->slot], .json = true};
		break;
	case REF_RESULT:
		*ret = (struct value){run->result[node->slot], .json = true};
		break;
	case REF_HEADER:
		ret->span = s->header ? s->header(s->arg, node->text) : SPAN_NONE;
		break;
	case REF_QUERY:
		return template_program_decode(run, s->query, node->text, ret);
	case REF_PATH:
		return template_program_decode(run, s->path, node->text, ret);
	case REF_USER:
		ret->span = s->user;
		break;
	case REF_ORGANIZATION:
		ret->span = s->organization;
		break;
	case REF_UUID:
		ret->span = s->uuid;
		break;
	case REF_REQUEST_ID:
		ret->span = s->request_id;
		break;
	case REF_CREDENTIAL:
		ret->span = s->credential;
		break;
	case REF_TASK_ID:
		ret->span = s->task_id;
		break;
	case REF_TASK_STATUS:
		ret->span = s->task_status;
		break;
	case REF_TASK_ERROR:
		ret->span = s->task_error;
		break;
	case REF_ERROR_STATUS:
		return print_status(run, ret);
	case REF_ERROR_TITLE:
		ret->span = s->error_title;
		break;
	case REF_ERROR_DETAIL:
		ret->span = s->error_detail;
		break;
	}
	return 0;
}

static int render_container(const struct program_node *node, struct program_run *run, struct buf *out)
{
	bool object = node->kind == NODE_OBJECT, any = false;
	int r = buf_putc(out, object ? '{' : '[');
	for (const struct program_node *i = node->first; i && r == 0; i = i->next) {
		size_t before = out->len;
		if (any)
			r = buf_putc(out, ',');
		if (r == 0)
			r = buf_append_span(out, i->key);
		if (r == 0)
			r = program_render(i, run, out);
		if (r == PROGRAM_ABSENT && object) {
			out->len = before; /* the comma and the name go too */
			buf_terminate(out);
			r = 0;
			continue;
		}
		if (r == PROGRAM_ABSENT)
			r = buf_puts(out, "null");
		any = true;
	}
	if (r < 0)
		return r;
	return buf_putc(out, object ? '}' : ']');
}

int program_render(const struct program_node *node, struct program_run *run, struct buf *out)
{
	if (node->kind == NODE_LITERAL)
		return buf_append_span(out, node->text);
	if (node->kind != NODE_REFERENCE)
		return render_container(node, run, out);
	struct value value;
	int r = get_value(node, run, &value);
	if (r < 0)
		return r;
	if (!value.span.ptr)
		return node->otherwise ? program_render(node->otherwise, run, out) : PROGRAM_ABSENT;
	return value.json ? buf_append_span(out, value.span) : json_quote(out, value.span);
}

static int append_raw(struct buf *out, struct span json)
{
	return json_type_of(json) == JSON_STRING ? json_unescape(json, out) : buf_append_span(out, json);
}

int program_render_raw(const struct program_node *node, struct program_run *run, struct buf *out)
{
	if (node->kind == NODE_LITERAL)
		return append_raw(out, node->text);
	if (node->kind != NODE_REFERENCE)
		return program_render(node, run, out);
	struct value value;
	int r = get_value(node, run, &value);
	if (r < 0)
		return r;
	if (!value.span.ptr)
		return node->otherwise ? program_render_raw(node->otherwise, run, out) : PROGRAM_ABSENT;
	return value.json ? append_raw(out, value.span) : buf_append_span(out, value.span);
}

int program_equals(const struct program_node *node, struct program_run *run, struct span literal)
{
	struct value value;
	int r = get_value(node, run, &value);
	if (r < 0)
		return r;
	if (!value.span.ptr || !literal.ptr)
		return value.span.ptr != NULL;
	if (value.json)
		return json_equal(value.span, literal);
	CLEANUP(buf_releasep) struct buf quoted = BUF_INIT(6 * value.span.len + 2);
	r = json_quote(&quoted, value.span);
	return r < 0 ? r : json_equal(buf_span(&quoted), literal);
}
