#include "programs/status/differences_command.h"

#include <stdio.h>
#include <stdlib.h>

/* A pointer alone is one into the body. */
static const char *differences_parse_path(const char *path, struct compare_pattern *ret)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
	if (buf_puts(&text, path[0] == '/' ? "body:" : "") < 0 || buf_puts(&text, path) < 0)
		return "is too long";
	return compare_pattern_parse(buf_span(&text), ret);
}

const char *differences_path_check(const char *path)
{
	struct compare_pattern pattern;
	const char *why = differences_parse_path(path, &pattern);
	if (!why)
		compare_pattern_release(&pattern);
	return why;
}

int differences_command(const struct differences_arguments *a, struct buf *out)
{
	CLEANUP(differences_freep) struct differences *d = NULL;
	struct differences_options o = a->options;
	struct compare_pattern only;
	struct err e = {""};
	if (a->path && !differences_parse_path(a->path, &only))
		o.only = &only;
	o.samples = a->path || o.operation || a->json;
	int r = differences_make(&o, &d, &e);
	if (o.only)
		compare_pattern_release(&only);
	if (r < 0) {
		fprintf(stderr, "migration-status: %s\n", e.text);
		return EXIT_FAILURE;
	}
	if (a->json)
		differences_to_json(d, out);
	else
		differences_to_text(d, a->path != NULL, out);
	return EXIT_SUCCESS;
}

static void differences_add_member(const struct differences *d, struct buf *out)
{
	while (out->len && out->ptr[out->len - 1] != '}') /* opens the report's object again */
		out->len--;
	if (!out->len)
		return;
	out->len--;
	buf_puts(out, ",\"differences\":");
	differences_to_json(d, out);
	buf_puts(out, "}\n");
}

void differences_add_to_report(const struct differences_options *o, bool json, struct buf *out)
{
	CLEANUP(differences_freep) struct differences *d = NULL;
	struct err e = {""};
	if (differences_make(o, &d, &e) < 0) {
		fprintf(stderr, "migration-status: differences: %s\n", e.text);
		return;
	}
	if (!d->n_operations)
		return;
	if (json) {
		differences_add_member(d, out);
		return;
	}
	buf_puts(out, "\nAnswers compared:\n");
	differences_summary(d, out);
}
