/* Section 3: a card per operation that can move. */
#include "outcomes/report.h"
#include "page/html.h"
#include "page/page.h"
#include "page/page_layout.h"

static void operation_row(struct page *p, const char *name, const struct report_side *side)
{
	html(p->out, "<tr><th scope=\"row\">%s</th><td>", name);
	html_count(p->out, side->executions);
	html(p->out, "</td><td>");
	if (side->attempts.known)
		html_percent(p->out, side->attempts.rate);
	else
		html(p->out, "–");
	html(p->out, "</td><td>");
	html_latency(p->out, side->attempts.p50_us);
	html(p->out, "</td><td>");
	html_latency(p->out, side->attempts.p95_us);
	html(p->out, "</td></tr>");
}

static void operation_card(struct page *p, const struct report_operation *o)
{
	html(p->out,
	     "<article class=\"card\"><h3>%s</h3>\n<table><caption class=\"unseen\">%s, both sides</caption>",
	     o->operation, o->operation);
	html(p->out, "<thead><tr><td></td><th scope=\"col\">answers</th><th scope=\"col\">success</th><th "
		     "scope=\"col\">p50</th><th scope=\"col\">p95</th></tr></thead><tbody>");
	operation_row(p, "legacy", &o->sides[OUTCOME_LEGACY]);
	operation_row(p, "tasks", &o->sides[OUTCOME_TASK]);
	html(p->out, "</tbody></table></article>\n");
}

void page_operations(struct page *p)
{
	page_section(p, "operations", "Operations");
	if (!p->report && p->trouble[0])
		page_alert(p, p->trouble);
	else if (!p->report || !p->report->operation_count)
		page_note(p, "Nothing recorded in this span.");
	html(p->out, "<div class=\"cards\">");
	for (size_t i = 0; p->report && i < p->report->operation_count; i++)
		operation_card(p, &p->report->operations[i]);
	html(p->out, "</div>");
	page_section_end(p);
}
