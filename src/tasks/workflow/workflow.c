#include "tasks/workflow/workflow.h"

#include "tasks/workflow/workflow_template.h"

static int is_a_reference(void *arg, struct span text, const struct workflow_reference *r)
{
	(void)arg, (void)text, (void)r;
	return 1;
}

bool workflow_template_refers(const char *json)
{
	return workflow_template_each(span_of(json), is_a_reference, NULL) != 0;
}

bool workflow_is_sequence(const struct workflow_definition *w)
{
	for (size_t i = 0; i < w->n_steps; i++) {
		const struct workflow_step *s = &w->steps[i];
		uint64_t before = i ? UINT64_C(1) << (i - 1) : 0;
		if (s->parents != before || s->over || s->input == STEP_INPUT_TEMPLATE)
			return false;
		if (s->kwargs && workflow_template_refers(s->kwargs))
			return false;
	}
	return w->result == NULL;
}

uint64_t workflow_ancestors(const struct workflow_definition *w, size_t step)
{
	uint64_t all = 0, fresh = w->steps[step].parents;
	while (fresh) {
		all |= fresh;
		uint64_t next = 0;
		for (size_t i = 0; i < w->n_steps; i++)
			if (fresh >> i & 1)
				next |= w->steps[i].parents;
		fresh = next & ~all;
	}
	return all;
}

size_t workflow_max_tasks(const struct workflow_definition *w)
{
	size_t n = 0;
	for (size_t i = 0; i < w->n_steps; i++)
		n += w->steps[i].over ? w->steps[i].max_items : 1;
	return n;
}

size_t workflow_find_step(const struct workflow_definition *w, struct span name)
{
	size_t i = 0;
	while (i < w->n_steps && !span_eq(w->steps[i].name, name))
		i++;
	return i;
}

/* --- Mermaid -------------------------------------------------------------------------------------------- */

/* What Mermaid or a page could read as more than text is written as #<number>; (its form of an entity). */
static void put_mermaid_text(struct span text, struct buf *out)
{
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.ptr[i];
		bool plain = c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
			     (c >= 'a' && c <= 'z') || c == ' ' || c == '_' || c == '-' || c == '.' ||
			     c == '/' || c == ':' || c == ',';
		if (plain)
			buf_putc(out, (char)c);
		else
			buf_printf(out, "#%u;", c);
	}
}

static int put_source(void *arg, struct span text, const struct workflow_reference *r)
{
	(void)r;
	put_mermaid_text(text, arg);
	return 1;
}

static void put_mermaid_step(const struct workflow_definition *w, size_t i, struct buf *out)
{
	const struct workflow_step *s = &w->steps[i];
	buf_printf(out, "    s%zu[%s\"", i, s->over ? "[" : "");
	put_mermaid_text(s->name, out);
	if (!span_eq(s->name, s->task)) {
		buf_puts(out, "<br/>task ");
		put_mermaid_text(s->task, out);
	}
	if (s->over) {
		buf_puts(out, "<br/>for each of ");
		if (!workflow_template_each(span_of(s->over), put_source, out))
			buf_puts(out, "a list");
		buf_printf(out, ", at most %u", s->max_items);
	}
	buf_printf(out, "\"%s]\n", s->over ? "]" : "");
}

int workflow_put_mermaid(const struct workflow_definition *w, struct buf *out)
{
	buf_puts(out, "flowchart TD\n");
	for (size_t i = 0; i < w->n_steps; i++)
		put_mermaid_step(w, i, out);
	for (size_t i = 0; i < w->n_steps; i++)
		for (size_t j = 0; j < w->n_steps; j++)
			if (w->steps[i].parents >> j & 1)
				buf_printf(out, "    s%zu --> s%zu\n", j, i);
	return out->error;
}
