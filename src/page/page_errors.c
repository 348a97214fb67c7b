/* Section 5: what goes wrong, in groups that lead to their requests. */
#include "outcomes/search/errors.h"

#include <errno.h>
#include <stdio.h>

#include "page/html.h"
#include "page/page_layout.h"
#include "page/page_rows.h"

static const char *const error_columns[] = {"Count", "What", "Operation", "Side", "Result", "First", "Last"};

/* Where the group's requests are. */
static void errors_link(struct page *p, const struct error_group *g)
{
	struct page_view v = p->view;
	snprintf(v.service, sizeof(v.service), "%s", g->service);
	snprintf(v.operation, sizeof(v.operation), "%s", g->operation);
	snprintf(v.backend, sizeof(v.backend), "%s", g->backend);
	snprintf(v.side, sizeof(v.side), "%s", outcome_side_text((enum outcome_side)g->side));
	snprintf(v.result, sizeof(v.result), "%s", outcome_result_text((enum outcome_result)g->result));
	snprintf(v.error, sizeof(v.error), "%s", g->error);
	v.status[0] = '\0';
	if (g->http_status)
		snprintf(v.status, sizeof(v.status), "%d", g->http_status);
	page_link(p->out, &v, "/requests", NULL, NULL);
}

static void errors_what(struct page *p, const struct error_group *g)
{
	rows_cell(p, "What");
	html(p->out, "<a class=\"error\" href=\"");
	errors_link(p, g);
	html(p->out, "\">%s</a>", g->error[0] ? g->error : "(no text was recorded)");
	if (g->request_id[0]) {
		html(p->out, " <a class=\"sample\" href=\"");
		page_link(p->out, &p->view, "/requests", "id", g->request_id);
		html(p->out, "\">a request</a>");
	}
	html(p->out, "</td>");
}

static void errors_row(struct page *p, const struct error_group *g)
{
	html(p->out, "<tr>");
	rows_number(p, "Count");
	html_count(p->out, g->count);
	html(p->out, "</td>");
	errors_what(p, g);
	rows_cell(p, "Operation");
	html(p->out, "%s <span class=\"service\">%s</span></td>", g->operation, g->service);
	rows_cell(p, "Side");
	rows_side(p, g->side, g->backend);
	if (g->role != OUTCOME_PRIMARY)
		html(p->out, " %s", outcome_role_text((enum outcome_role)g->role));
	html(p->out, "</td>");
	rows_cell(p, "Result");
	rows_result(p, g->result, g->http_status);
	html(p->out, "</td>");
	rows_cell(p, "First");
	html_time(p->out, g->first_us, p->source->now_us);
	html(p->out, "</td>");
	rows_cell(p, "Last");
	html_time(p->out, g->last_us, p->source->now_us);
	html(p->out, "</td></tr>\n");
}

static void errors_more(struct page *p, const struct errors *found, bool brief)
{
	if (brief && found->left_out) {
		html(p->out, "<p><a href=\"");
		page_link(p->out, &p->view, "/errors", NULL, NULL);
		html(p->out, "\">All that goes wrong</a>: ");
		html_count(p->out, found->left_out);
		html(p->out, " more attempts</p>\n");
	} else if (found->left_out) {
		html(p->out, "<p class=\"note\">");
		html_count(p->out, found->left_out);
		html(p->out, " attempts are of groups that are not listed.</p>\n");
	}
	if (!found->recorded)
		page_note(p, "Recorded by a version that kept no error texts; only results are known.");
	if (found->cut)
		page_note(p, "Not all of the span could be looked at: the counts are of its newest part.");
}

static void errors_list(struct page *p, const struct errors *found, bool brief)
{
	if (!found->n) {
		page_note(p, "Nothing went wrong in this span.");
		return;
	}
	html(p->out, "<p>");
	html_count(p->out, found->total);
	html(p->out, " attempts did not succeed.</p>\n");
	rows_begin(p, "What goes wrong, the most frequent first", error_columns,
		   sizeof(error_columns) / sizeof(error_columns[0]));
	for (size_t i = 0; i < found->n; i++)
		errors_row(p, &found->all[i]);
	rows_end(p);
	errors_more(p, found, brief);
}

void page_errors(struct page *p, bool brief)
{
	CLEANUP(errors_freep) struct errors *found = NULL;
	struct search_filter f;
	struct err e = {""};
	char wrong[160] = "";
	page_section(p, "errors", "What goes wrong");
	if (!rows_filter(&p->view, &f, wrong)) {
		page_alert(p, wrong);
	} else {
		int r = errors_find(p->source->path, &f, brief ? ROWS_BRIEF : ERRORS_MAX, &found, &e);
		if (r == 0)
			errors_list(p, found, brief);
		else if (r == -ENOENT || r == -ENODATA)
			page_note(p, "Nothing was recorded yet.");
		else
			page_alert(p, e.text);
	}
	page_section_end(p);
}
