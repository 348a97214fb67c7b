/* Section 6: organizations: which side, since when, how much, what fails; the worst first. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "outcomes/search/organizations.h"
#include "page/html.h"
#include "page/page_layout.h"
#include "page/page_rows.h"

static const char *const organization_columns[] = {"Organization", "Side",   "Since",
						   "Requests",	   "Errors", "On tasks"};
static const char *const organization_orders[] = {"errors", "requests", "name", NULL};

static void organizations_link(struct page *p, const char *path, const char *name, const char *shown)
{
	html(p->out, "<a href=\"");
	page_link2(p->out, &p->view, path, "org", name, "search", "");
	html(p->out, "\">%s</a>", shown);
}

static void organizations_since(struct page *p, const struct organization *o)
{
	if (!o->since_us) {
		html(p->out, "–");
		return;
	}
	if (o->before_span)
		html(p->out, "before ");
	html_time(p->out, o->since_us, p->source->now_us);
}

static void organizations_row(struct page *p, const struct organization *o)
{
	html(p->out, "<tr>");
	rows_cell(p, "Organization");
	organizations_link(p, "/requests", o->name, o->name);
	html(p->out, "</td>");
	rows_cell(p, "Side");
	html(p->out, "<span class=\"side %s\">%s</span></td>", organization_on_text(o->on),
	     organization_on_text(o->on));
	rows_cell(p, "Since");
	organizations_since(p, o);
	html(p->out, "</td>");
	rows_number(p, "Requests");
	html_count(p->out, o->requests);
	html(p->out, "</td>");
	rows_number(p, "Errors");
	if (o->errors) {
		char shown[24];
		snprintf(shown, sizeof(shown), "%llu", (unsigned long long)o->errors);
		organizations_link(p, "/errors", o->name, shown);
	} else {
		html(p->out, "0");
	}
	html(p->out, "</td>");
	rows_number(p, "On tasks");
	if (o->requests)
		html_percent(p->out, (double)o->sides[OUTCOME_TASK].requests / (double)o->requests);
	else
		html(p->out, "–");
	html(p->out, "</td></tr>\n");
}

static void organizations_pages(struct page *p, const struct organization_list *found, size_t offset)
{
	char page[24];
	if (offset + found->n >= found->found && !offset)
		return;
	html(p->out, "<p class=\"pages\">%zu to %zu of %zu", offset + 1, offset + found->n, found->found);
	if (offset) {
		snprintf(page, sizeof(page), "%zu", offset > ROWS_SHOWN ? offset - ROWS_SHOWN : 0);
		html(p->out, " <a href=\"");
		page_link(p->out, &p->view, "/organizations", "page", page);
		html(p->out, "\">previous</a>");
	}
	if (offset + found->n < found->found) {
		snprintf(page, sizeof(page), "%zu", offset + found->n);
		html(p->out, " <a href=\"");
		page_link(p->out, &p->view, "/organizations", "page", page);
		html(p->out, "\">next</a>");
	}
	html(p->out, "</p>\n");
}

static void organizations_list(struct page *p, const struct organization_list *found, size_t offset)
{
	if (!found->n) {
		page_note(p, p->view.search[0] ? "No organization of that name made requests in this span."
					       : "No organization made requests in this span.");
		return;
	}
	rows_begin(p, "Organizations, the worst first", organization_columns,
		   sizeof(organization_columns) / sizeof(organization_columns[0]));
	for (size_t i = 0; i < found->n; i++)
		organizations_row(p, &found->all[i]);
	rows_end(p);
	organizations_pages(p, found, offset);
	if (found->cut || found->left_out)
		page_note(p, "Not all of the span, or not all organizations, could be counted.");
}

static bool organizations_take_view(const struct page_view *v, struct organizations_options *o,
				    char wrong[160])
{
	char *end;
	if (!rows_filter(v, &o->filter, wrong))
		return false;
	o->search = v->search;
	while (organization_orders[o->order] && v->sort[0] &&
	       strcmp(organization_orders[o->order], v->sort) != 0)
		o->order++;
	o->offset = (size_t)strtoul(v->page, &end, 10);
	if (organization_orders[o->order] && *end == '\0')
		return true;
	snprintf(wrong, 160,
		 organization_orders[o->order] ? "page: not a number" : "sort: errors, requests or name");
	return false;
}

static void organizations_form(struct page *p)
{
	const struct rows_field fields[] = {{"search", "Name contains", p->view.search, NULL},
					    {"sort", "Order", p->view.sort, organization_orders}};
	rows_form(p, "/organizations", fields, sizeof(fields) / sizeof(fields[0]));
}

void page_organizations(struct page *p)
{
	CLEANUP(organization_list_freep) struct organization_list *found = NULL;
	struct organizations_options o = {.order = ORGANIZATIONS_BY_ERRORS};
	struct err e = {""};
	char wrong[160] = "";
	organizations_form(p); /* beside the section, which is replaced while someone may be typing */
	page_section(p, "organizations", "Organizations");
	if (!organizations_take_view(&p->view, &o, wrong)) {
		page_alert(p, wrong);
	} else {
		o.limit = ROWS_SHOWN;
		int r = organization_list_find(p->source->path, &o, &found, &e);
		if (r == 0)
			organizations_list(p, found, o.offset);
		else if (r == -ENOENT || r == -ENODATA)
			page_note(p, "Nothing was recorded yet.");
		else
			page_alert(p, e.text);
	}
	page_section_end(p);
}
