#include "page/page.h"

#include <errno.h>
#include <string.h>

#include "operation/route.h"
#include "outcomes/report.h"
#include "page/html.h"
#include "page/page_layout.h"

/* --- the pages ------------------------------------------------------------------------------------------ */

static void page_overview(struct page *p)
{
	page_begin(p, "Migration");
	page_all_routers(p);
	page_sentence(p);
	page_health(p);
	page_operations(p);
	page_timeline(p);
	page_errors(p, true);
	page_end(p);
}

/* A page of one subject, whose section's heading says the same. */
static void page_begin_subject(struct page *p, const char *title)
{
	page_begin(p, title);
	html(p->out, "<h1 class=\"unseen\">%s</h1>\n", title);
}

static void page_all_errors(struct page *p)
{
	page_begin_subject(p, "What goes wrong");
	page_errors(p, false);
	page_end(p);
}

static void page_all_organizations(struct page *p)
{
	page_begin_subject(p, "Organizations");
	page_organizations(p);
	page_end(p);
}

static void page_all_requests(struct page *p)
{
	page_begin_subject(p, p->view.id[0] ? "Request" : "Requests");
	if (p->view.id[0])
		page_request(p);
	else
		page_requests(p);
	page_end(p);
}

static void page_all_differences(struct page *p)
{
	page_begin_subject(p, "Differences");
	page_differences(p);
	page_end(p);
}

static void page_of_move(struct page *p)
{
	page_begin(p, "Move");
	page_move(p);
	page_end(p);
}

static const struct {
	const char *path;
	void (*draw)(struct page *p);
	bool report; /* it shows the report */
} pages[] = {
	{"/", page_overview, true},
	{"/errors", page_all_errors, false},
	{"/organizations", page_all_organizations, false},
	{"/requests", page_all_requests, false},
	{"/differences", page_all_differences, false},
	{"/move", page_of_move, false},
};
#define PAGES (sizeof(pages) / sizeof(pages[0]))

bool page_is(struct span path)
{
	for (size_t i = 0; i < PAGES; i++)
		if (span_is(path, pages[i].path))
			return true;
	return false;
}

/* --- making one ----------------------------------------------------------------------------------------- */

static const char *text_or_null(const char *text)
{
	return text[0] ? text : NULL;
}

/* What is wrong is said in a page of the same look, with a way out of it. */
static int page_refuse(struct page *p, int status, const char *title, const char *why)
{
	p->view = (struct page_view){.path = "/"};
	page_begin(p, title);
	html(p->out, "<section class=\"part\"><h1>%s</h1>\n", title);
	page_alert(p, why);
	html(p->out, "<p><a href=\"/\">Start afresh</a></p></section>\n");
	page_end(p);
	return status;
}

/* -errno: what all routers have could not be told; this one's own trouble is said in the sections. */
static int page_read_report(struct page *p, struct report **report, struct page_routers *routers,
			    struct err *e)
{
	struct report_options o = {.no_points = true,
				   .path = p->source->path,
				   .since_us = p->view.since_us,
				   .until_us = p->view.until_us,
				   .service = text_or_null(p->view.service),
				   .operation = text_or_null(p->view.operation),
				   .organization = text_or_null(p->view.org)};
	if (p->view.routers[0]) {
		o.no_points = false; /* as others are asked: whole hours, nothing coarser */
		int asked = p->source->ask_routers(p->source->arg, &o, routers, e);
		p->trouble = asked < 0 ? e->text : "";
		p->routers = asked < 0 ? NULL : routers;
		p->report = asked < 0 ? NULL : routers->report;
		return asked;
	}
	int r = report_make(&o, report, e);
	p->report = *report;
	if (r < 0 && r != -ENOENT && r != -ENODATA)
		p->trouble = e->text;
	return 0;
}

int page_make(const struct page_source *source, struct span target, struct buf *out)
{
	struct page p = {.out = out, .source = source, .trouble = ""};
	struct err e = {""};
	if (page_view_parse(target, source->now_us, &p.view, &e) != 0)
		return page_refuse(&p, 400, "This cannot be shown", e.text);
	if (!page_is(span_of(p.view.path)))
		return page_refuse(&p, 404, "Not found", "There is no such page here.");
	if (p.view.routers[0] && !(source->several && source->ask_routers))
		return page_refuse(&p, 400, "This cannot be shown",
				   "routers: the configuration lists no others (routers:)");
	CLEANUP(report_freep) struct report *report = NULL;
	struct page_routers routers = {.n = 0};
	for (size_t i = 0; i < PAGES; i++) {
		if (strcmp(p.view.path, pages[i].path) != 0)
			continue;
		/* Not in a page: one that is open keeps what it has, and says how old that is. */
		if (pages[i].report && page_read_report(&p, &report, &routers, &e) == -EBUSY)
			return page_refuse(&p, 503, "Not now", e.text);
		pages[i].draw(&p);
	}
	return 200;
}
