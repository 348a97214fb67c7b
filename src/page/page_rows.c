#include "page/page_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "page/html.h"
#include "page/page_layout.h"

const char *const rows_sides[] = {"legacy", "task", NULL};
const char *const rows_results[] = {"success", "rejected",  "failure", "timeout",
				    "unknown", "cancelled", NULL};

/* --- filters -------------------------------------------------------------------------------------------- */

static const char *rows_text(const char *text)
{
	return text[0] ? text : NULL;
}

static bool rows_word(const char *name, const char *word, int value, int *ret, char wrong[160])
{
	*ret = SEARCH_ANY;
	if (!word[0])
		return true;
	*ret = value;
	if (value < 0)
		snprintf(wrong, 160, "%s: \"%s\" is none", name, word);
	return value >= 0;
}

static int rows_status_of(const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);
	return *end == '\0' && n >= 100 && n <= 999 ? (int)n : -1;
}

bool rows_filter(const struct page_view *v, struct search_filter *ret, char wrong[160])
{
	int status = 0;
	*ret = SEARCH_FILTER_ALL;
	ret->since_us = v->since_us;
	ret->until_us = v->until_us;
	ret->service = rows_text(v->service);
	ret->operation = rows_text(v->operation);
	ret->organization = rows_text(v->org);
	ret->user = rows_text(v->user);
	ret->backend = rows_text(v->backend);
	ret->error = rows_text(v->error);
	if (!rows_word("side", v->side, outcome_side_parse(span_of(v->side)), &ret->side, wrong) ||
	    !rows_word("result", v->result, outcome_result_parse(span_of(v->result)), &ret->result, wrong) ||
	    !rows_word("status", v->status, rows_status_of(v->status), &status, wrong))
		return false;
	ret->status = status > 0 ? status : 0;
	return true;
}

/* --- tables --------------------------------------------------------------------------------------------- */

void rows_begin(struct page *p, const char *caption, const char *const *names, size_t n)
{
	html(p->out, "<table class=\"rows\"><caption class=\"unseen\">%s</caption>\n<thead><tr>", caption);
	for (size_t i = 0; i < n; i++)
		html(p->out, "<th scope=\"col\">%s</th>", names[i]);
	html(p->out, "</tr></thead>\n<tbody>\n");
}

void rows_end(struct page *p)
{
	html(p->out, "</tbody></table>\n");
}

void rows_cell(struct page *p, const char *name)
{
	html(p->out, "<td data-name=\"%s\">", name);
}

void rows_number(struct page *p, const char *name)
{
	html(p->out, "<td class=\"number\" data-name=\"%s\">", name);
}

void rows_side(struct page *p, int side, const char *backend)
{
	const char *word = outcome_side_text((enum outcome_side)side);
	html(p->out, "<span class=\"side %s\">%s</span>", word, word);
	if (backend[0])
		html(p->out, " <span class=\"backend\">%s</span>", backend);
}

void rows_result(struct page *p, int result, int status)
{
	const char *word = outcome_result_text((enum outcome_result)result);
	html(p->out, "<span class=\"result %s\">%s</span>", word, word);
	if (status)
		html(p->out, " <span class=\"status\">%d</span>", status);
}

/* --- forms ---------------------------------------------------------------------------------------------- */

static void rows_choices(struct page *p, const struct rows_field *f)
{
	html(p->out, "<select name=\"%s\"><option value=\"\">any</option>", f->name);
	for (const char *const *c = f->choices; *c; c++)
		html(p->out,
		     strcmp(*c, f->value) == 0 ? "<option selected>%s</option>" : "<option>%s</option>", *c);
	html(p->out, "</select>");
}

void rows_form(struct page *p, const char *path, const struct rows_field *fields, size_t n)
{
	const char *but[16] = {NULL};
	for (size_t i = 0; i < n && i < 15; i++)
		but[i] = fields[i].name;
	html(p->out, "<form class=\"ask\" method=\"get\" action=\"%s\" role=\"search\">", path);
	page_hidden_fields(p->out, &p->view, but);
	for (size_t i = 0; i < n; i++) {
		html(p->out, "<label>%s ", fields[i].label);
		if (fields[i].choices)
			rows_choices(p, &fields[i]);
		else
			html(p->out,
			     "<input name=\"%s\" value=\"%s\" autocomplete=\"off\" spellcheck=\"false\">",
			     fields[i].name, fields[i].value);
		html(p->out, "</label> ");
	}
	html(p->out, "<button type=\"submit\">Show</button></form>\n");
}
