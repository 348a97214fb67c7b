/* Templates and response templates, wherever they are. */
#include "config/config_reader.h"

#include <errno.h>
#include <stdio.h>

/* The compiler's sentences begin with "line N: "; the place says it better. */
static void template_mistake(const struct place *p, const char *text)
{
	unsigned line;
	int used = 0;
	struct place at = *p;
	struct yaml_node there;
	if (sscanf(text, "line %u: %n", &line, &used) == 1 && used > 0 && p->node) {
		there = *p->node;
		there.key = NULL;
		there.line = line;
		at.node = &there;
		text += used;
	}
	place_mistake(&at, "%s", text);
}

struct template *read_template(const struct place *p, unsigned allowed)
{
	struct template *t = NULL;
	struct err e = {""};
	if (!p->node)
		return NULL;
	int code = template_compile(p->node, allowed, &t, &e);
	if (code == -ENOMEM)
		p->reader->out_of_memory = true;
	else if (code < 0)
		template_mistake(p, e.text);
	return t;
}

struct response_template *read_response(const struct place *p, unsigned allowed)
{
	struct response_template *t = NULL;
	struct err e = {""};
	if (!p->node)
		return NULL;
	int code = response_template_compile(p->node, allowed, &t, &e);
	if (code == -ENOMEM)
		p->reader->out_of_memory = true;
	else if (code < 0)
		template_mistake(p, e.text);
	return t;
}
