#include "operation/template.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "operation/template_program.h"
#include "base/http_message.h"

/* --- templates ------------------------------------------------------------------------------------------ */
struct template
{
	struct program program;
	struct program_node *root;
};

int template_compile(const struct yaml_node *node, unsigned allowed, struct template **ret, struct err *e)
{
	struct template *t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(e, -ENOMEM, "template: out of memory");
	program_init(&t->program, allowed);
	int r = program_compile(&t->program, node, &t->root, e);
	if (r < 0)
		template_free(t);
	else
		*ret = t;
	return r;
}

struct template *template_free(struct template *t)
{
	if (t) {
		program_node_free(t->root);
		program_release(&t->program);
		free(t);
	}
	return NULL;
}

bool template_needs_body(const struct template *t)
{
	return t && t->program.body.count > 0;
}

bool template_has_credential(const struct template *t)
{
	return t && t->program.credential;
}

int template_render(const struct template *t, const struct template_source *s, struct buf *out)
{
	struct program_run run;
	program_begin(&t->program, s, &run);
	int r = program_render(t->root, &run, out);
	program_end(&run);
	return r == PROGRAM_ABSENT ? buf_puts(out, "null") : r;
}

/* --- response templates --------------------------------------------------------------------------------- */
struct choice {
	struct program_node *when; /* NULL: always */
	struct span equals;	   /* owned JSON; SPAN_NONE: `exists` is asked for */
	bool exists;
	int status;			  /* 0: 200, or what the error says */
	struct program_node *status_from; /* NULL: `status` */
	struct span content_type;	  /* owned */
	struct template_header *headers;  /* all owned */
	size_t n_headers;
	struct program_node *body, *raw; /* at most one */
};

struct response_template {
	struct program program;
	size_t n_choices;
	struct choice *choices;
};

static int template_no_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "template: out of memory");
}

static int compile_equals(const struct yaml_node *y, struct choice *c, struct err *e)
{
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(1u << 16);
	int r = yaml_to_json(y, &b);
	if (r == -EFBIG)
		return program_error(e, y, "too long");
	c->equals.len = b.len;
	c->equals.ptr = r == 0 ? buf_steal(&b) : NULL;
	return c->equals.ptr ? 0 : template_no_memory(e);
}

static int compile_when(struct program *p, const struct yaml_node *y, struct choice *c, struct err *e)
{
	if (y->kind != YAML_MAPPING)
		return program_error(e, y, "is written {ref: …, equals: …} or {ref: …, exists: …}");
	for (const struct yaml_node *i = y->first; i; i = i->next)
		if (!span_is(i->key->text, "ref") && !span_is(i->key->text, "equals") &&
		    !span_is(i->key->text, "exists"))
			return program_error(e, i, "unknown key (known: ref equals exists)");
	const struct yaml_node *ref = yaml_get(y, "ref"), *equals = yaml_get(y, "equals"),
			       *exists = yaml_get(y, "exists");
	if (!ref || !equals == !exists)
		return program_error(e, y, "needs \"ref\" and one of \"equals\" and \"exists\"");
	int r = program_compile_reference(p, ref, &c->when, e);
	if (r < 0)
		return r;
	if (equals)
		return compile_equals(equals, c, e);
	return yaml_bool(exists, &c->exists) ? 0 : program_error(e, exists, "must be true or false");
}

static int compile_status(struct program *p, const struct yaml_node *y, struct choice *c, struct err *e)
{
	int64_t status;
	if (y->kind == YAML_MAPPING && yaml_get(y, "$ref"))
		return program_compile(p, y, &c->status_from, e);
	if (!yaml_int(y, &status) || status < 200 || status > 599)
		return program_error(e, y, "must be a status from 200 to 599, or a reference");
	c->status = (int)status;
	return 0;
}

/* Visible ASCII, blanks inside, and bytes above ASCII (RFC 9110 §5.5). */
static bool is_field_value(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if (((unsigned char)s.ptr[i] < 0x20 && s.ptr[i] != '\t') || s.ptr[i] == 0x7f)
			return false;
	return span_trim(s).len == s.len;
}

static int compile_content_type(const struct yaml_node *y, struct choice *c, struct err *e)
{
	struct span text;
	if (!yaml_string(y, &text) || !is_field_value(text) || !memchr(text.ptr, '/', text.len))
		return program_error(e, y, "must be a media type");
	char *copy = span_dup(text);
	c->content_type = (struct span){copy, text.len};
	return copy ? 0 : template_no_memory(e);
}

static int compile_header(const struct yaml_node *y, struct choice *c, struct err *e)
{
	struct span name = y->key->text, value;
	if (!http_is_token(name))
		return program_error(e, y, "is not a field name");
	if (http_is_hop_by_hop(name) || span_is_nocase(name, "Content-Length") ||
	    span_is_nocase(name, "Host"))
		return program_error(e, y, "is made by the router and cannot be set");
	if (span_is_nocase(name, "Content-Type"))
		return program_error(e, y, "is set by \"content_type\"");
	if (!yaml_string(y, &value) || !is_field_value(value))
		return program_error(e, y, "must have no control characters, and no blanks around it");
	struct template_header *h = &c->headers[c->n_headers++];
	char *name_copy = span_dup(name), *value_copy = span_dup(value);
	*h = (struct template_header){{name_copy, name.len}, {value_copy, value.len}};
	return name_copy && value_copy ? 0 : template_no_memory(e);
}

static int compile_headers(const struct yaml_node *y, struct choice *c, struct err *e)
{
	if (y->kind != YAML_MAPPING)
		return program_error(e, y, "must be a mapping of names to strings");
	if (y->count > TEMPLATE_MAX_HEADERS)
		return program_error(e, y, "more than %d headers", TEMPLATE_MAX_HEADERS);
	c->headers = calloc(y->count + 1, sizeof(*c->headers));
	if (!c->headers)
		return template_no_memory(e);
	int r = 0;
	for (const struct yaml_node *i = y->first; i && r == 0; i = i->next)
		r = compile_header(i, c, e);
	return r;
}

static int template_compile_key(struct program *p, const struct yaml_node *i, struct choice *c, struct err *e)
{
	struct span key = i->key->text;
	if (span_is(key, "when"))
		return compile_when(p, i, c, e);
	if (span_is(key, "status"))
		return compile_status(p, i, c, e);
	if (span_is(key, "content_type"))
		return compile_content_type(i, c, e);
	if (span_is(key, "headers"))
		return compile_headers(i, c, e);
	if (span_is(key, "body"))
		return program_compile(p, i, &c->body, e);
	if (span_is(key, "raw"))
		return program_compile(p, i, &c->raw, e);
	return program_error(e, i, "unknown key (known: when status content_type headers body raw)");
}

static bool template_is_bodyless(int status)
{
	return status == 204 || status == 304;
}

static int compile_choice(struct program *p, const struct yaml_node *y, struct choice *c, struct err *e)
{
	if (y->kind != YAML_MAPPING)
		return program_error(
			e, y, "a response is a mapping (when, status, content_type, headers, body or raw)");
	for (const struct yaml_node *i = y->first; i; i = i->next) {
		int r = template_compile_key(p, i, c, e);
		if (r < 0)
			return r;
	}
	if (c->body && c->raw)
		return program_error(e, y, "\"body\" and \"raw\" are mutually exclusive");
	if (template_is_bodyless(c->status) && (c->body || c->raw))
		return program_error(e, y, "an answer with status %d has no body", c->status);
	if (c->content_type.ptr)
		return 0;
	char *copy = span_dup(SPAN_LIT("application/json"));
	c->content_type = (struct span){copy, strlen("application/json")};
	return copy ? 0 : template_no_memory(e);
}

static int compile_choices(struct response_template *t, const struct yaml_node *y, struct err *e)
{
	if (!y || (y->kind == YAML_SEQUENCE && y->count == 0))
		return program_error(e, y, "a response template needs at least one choice");
	size_t count = y->kind == YAML_SEQUENCE ? y->count : 1;
	if (count > TEMPLATE_MAX_CHOICES)
		return program_error(e, y, "more than %d choices", TEMPLATE_MAX_CHOICES);
	t->choices = calloc(count, sizeof(*t->choices));
	if (!t->choices)
		return template_no_memory(e);
	const struct yaml_node *item = y->kind == YAML_SEQUENCE ? y->first : y;
	for (; item; item = y->kind == YAML_SEQUENCE ? item->next : NULL) {
		if (t->n_choices > 0 && !t->choices[t->n_choices - 1].when)
			return program_error(e, item,
					     "is never reached: the choice before it has no \"when\"");
		int r = compile_choice(&t->program, item, &t->choices[t->n_choices++], e);
		if (r < 0)
			return r;
	}
	return 0;
}

int response_template_compile(const struct yaml_node *node, unsigned allowed, struct response_template **ret,
			      struct err *e)
{
	struct response_template *t = calloc(1, sizeof(*t));
	if (!t)
		return template_no_memory(e);
	program_init(&t->program, allowed);
	int r = compile_choices(t, node, e);
	if (r < 0)
		response_template_free(t);
	else
		*ret = t;
	return r;
}

struct response_template *response_template_free(struct response_template *t)
{
	for (size_t i = 0; t && i < t->n_choices; i++) {
		struct choice *c = &t->choices[i];
		program_node_free(c->when);
		program_node_free(c->status_from);
		program_node_free(c->body);
		program_node_free(c->raw);
		free((char *)c->equals.ptr);
		free((char *)c->content_type.ptr);
		for (size_t j = 0; j < c->n_headers; j++) {
			free((char *)c->headers[j].name.ptr);
			free((char *)c->headers[j].value.ptr);
		}
		free(c->headers);
	}
	if (t) {
		program_release(&t->program);
		free(t->choices);
		free(t);
	}
	return NULL;
}

bool response_template_needs_body(const struct response_template *t)
{
	return t && t->program.body.count > 0;
}

/* 1 when the choice is the one, 0 when not, <0 on errors. */
static int choice_holds(const struct choice *c, struct program_run *run)
{
	if (!c->when)
		return 1;
	int r = program_equals(c->when, run, c->equals);
	return r < 0 || c->equals.ptr ? r : (r != 0) == c->exists;
}

static bool is_final_status(int status)
{
	return status >= 200 && status <= 599;
}

static int choice_status(const struct choice *c, struct program_run *run, int *ret)
{
	int error_status = run->source->error_status;
	*ret = c->status;
	if (!c->status)
		*ret = is_final_status(error_status) ? error_status : 200;
	if (!c->status_from)
		return 0;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(3);
	int r = program_render(c->status_from, run, &text);
	if (r == -ENOMEM)
		return r;
	int status = r == 0 && text.len == 3 && strspn(text.ptr, "0123456789") == 3 ? atoi(text.ptr) : 0;
	*ret = is_final_status(status) ? status : 500;
	return 0;
}

static int render_choice(const struct choice *c, struct program_run *run, struct rendered_response *ret,
			 struct buf *body)
{
	*ret = (struct rendered_response){
		.headers = c->headers, .n_headers = c->n_headers, .content_type = SPAN_NONE};
	int r = choice_status(c, run, &ret->status);
	if (r < 0 || template_is_bodyless(ret->status) || (!c->body && !c->raw))
		return r;
	ret->content_type = c->content_type;
	r = c->body ? program_render(c->body, run, body) : program_render_raw(c->raw, run, body);
	if (r == PROGRAM_ABSENT)
		r = c->body ? buf_puts(body, "null") : 0;
	return r;
}

int response_template_render(const struct response_template *t, const struct template_source *s,
			     struct rendered_response *ret, struct buf *body)
{
	struct program_run run;
	program_begin(&t->program, s, &run);
	int r = TEMPLATE_E_NO_CHOICE;
	for (size_t i = 0; i < t->n_choices && r == TEMPLATE_E_NO_CHOICE; i++) {
		int holds = choice_holds(&t->choices[i], &run);
		if (holds < 0)
			r = holds;
		else if (holds)
			r = render_choice(&t->choices[i], &run, ret, body);
	}
	program_end(&run);
	return r;
}
