/* In the view of all routers: whose figures these are, and, before anything else, who is missing. */
#include "outcomes/report.h"
#include "page/html.h"
#include "page/page.h"
#include "page/page_layout.h"

static void routers_missing(struct page *p, size_t there, size_t all)
{
	const struct page_routers *r = p->routers;
	bool any = false;
	html(p->out, "<p class=\"alert\" role=\"alert\">");
	page_icon(p->out, PAGE_STOP);
	html(p->out, "<span>%zu of %zu routers; the figures lack ", there, all);
	for (size_t i = 0; i < r->n; i++) {
		const struct page_router *one = &r->list[i];
		if (!one->missing)
			continue;
		html(p->out, any ? "; %s: %s" : "%s: %s", one->name, one->why[0] ? one->why : one->state);
		any = true;
	}
	html(p->out, ".</span></p>\n");
}

static void routers_total(struct page *p)
{
	const struct report_operation *total = &p->report->total;
	html(p->out, "<p class=\"note\">Together ");
	page_span_text(p);
	html(p->out, ": <b data-executions=\"%llu\">", (unsigned long long)total->executions);
	html_count(p->out, total->executions);
	html(p->out, "</b> executions of operations that can move");
	if (total->executions) {
		html(p->out, ", <b>");
		html_percent(p->out, total->sides[OUTCOME_TASK].share);
		html(p->out, "</b> as tasks");
	}
	html(p->out, "; <b data-left-out=\"%llu\">", (unsigned long long)total->left_out);
	html_count(p->out, total->left_out);
	html(p->out, "</b> of others. The operations' figures below are of all these routers.</p>\n");
}

void page_all_routers(struct page *p)
{
	size_t there = 0, all = 0;
	if (!p->view.routers[0])
		return;
	for (size_t i = 0; p->routers && i < p->routers->n; i++) {
		all += !p->routers->list[i].twice;
		there += !p->routers->list[i].twice && !p->routers->list[i].missing;
	}
	page_section_of_all(p, "routers", "All routers");
	if (!p->routers)
		page_alert(p, p->trouble[0] ? p->trouble : "The routers could not be asked.");
	else if (there < all)
		routers_missing(p, there, all);
	else
		html(p->out, "<p class=\"note\">All %zu routers are in the figures.</p>\n", all);
	if (p->report)
		routers_total(p);
	page_section_end(p);
}
