#include "page/page_layout.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "outcomes/demo_history.h"
#include "page/html.h"
#include "page/page_assets.h"
#include "standing/standing.h"

static const struct {
	const char *class, *sign, *path;
} levels[] = {
	[PAGE_EMPTY] = {"empty", "○", "M12 3a9 9 0 1 0 .01 0M8 12h8"},
	[PAGE_OK] = {"ok", "✓", "M12 3a9 9 0 1 0 .01 0M7.5 12.5l3 3 6-6.5"},
	[PAGE_WATCH] = {"watch", "!", "M12 3.5L21.5 20.5h-19zM12 10v5M12 17.6v.2"},
	[PAGE_STOP] = {"stop", "✕",
		       "M8 2.8h8l5.2 5.2v8L16 21.2H8L2.8 16V8zM8.8 8.8l6.4 6.4M15.2 8.8l-6.4 6.4"},
};

const char *page_level_class(enum page_level level)
{
	return levels[level].class;
}

enum page_level page_level_from(int standing_level)
{
	static const enum page_level of[] = {[STANDING_EMPTY] = PAGE_EMPTY,
					     [STANDING_OK] = PAGE_OK,
					     [STANDING_WATCH] = PAGE_WATCH,
					     [STANDING_STOP] = PAGE_STOP};
	return standing_level >= 0 && standing_level < STANDING_LEVELS ? of[standing_level] : PAGE_STOP;
}

enum page_level page_level_of(const struct page *p)
{
	return p->source->standing ? page_level_from((int)p->source->standing->level) : PAGE_STOP;
}

enum page_level page_level_of_frame(const struct page *p)
{
	bool missing = p->view.routers[0] && !p->routers && p->trouble[0];
	for (size_t i = 0; p->routers && i < p->routers->n; i++)
		missing = missing || p->routers->list[i].missing;
	return missing && page_level_of(p) < PAGE_WATCH ? PAGE_WATCH : page_level_of(p);
}

void page_icon(struct buf *out, enum page_level level)
{
	html(out, "<svg class=\"icon %s\" viewBox=\"0 0 24 24\" aria-hidden=\"true\"><path d=\"%s\"/></svg>",
	     levels[level].class, levels[level].path);
}

/* --- head ----------------------------------------------------------------------------------------------- */

static void layout_head(struct page *p, const char *title)
{
	char icon[16];
	enum page_level level = page_level_of_frame(p);
	struct buf *o = p->out;
	snprintf(icon, sizeof(icon), "%s.svg", levels[level].class);
	html(o,
	     "<!doctype html>\n<html lang=\"en\" data-level=\"%s\" data-pace=\"%d\">\n<head>\n<meta "
	     "charset=\"utf-8\">\n",
	     levels[level].class, p->view.routers[0] ? 5000 : 0);

	html(o, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
		"<meta name=\"color-scheme\" content=\"light dark\">\n");
	html(o, "<title>%s %s</title>\n<link rel=\"icon\" id=\"icon\" href=\"", levels[level].sign, title);
	page_asset_url(o, icon);
	html(o, "\">\n<link rel=\"stylesheet\" href=\"");
	page_asset_url(o, "page.css");
	html(o, "\">\n<script src=\"");
	page_asset_url(o, "chart.min.js");
	html(o, "\" defer></script>\n<script src=\"");
	page_asset_url(o, "page.js");
	html(o, "\" defer></script>\n</head>\n");
}

static const struct {
	const char *path, *name;
} nav_entries[] = {
	{"/", "Overview"},	   {"/errors", "Errors"},	    {"/organizations", "Organizations"},
	{"/requests", "Requests"}, {"/differences", "Differences"}, {"/move", "Move"},
};

static void layout_nav(struct page *p)
{
	html(p->out, "<nav aria-label=\"Pages\"><ul>");
	for (size_t i = 0; i < sizeof(nav_entries) / sizeof(nav_entries[0]); i++) {
		bool here = strcmp(p->view.path, nav_entries[i].path) == 0;
		html(p->out, "<li><a href=\"");
		page_link(p->out, &p->view, nav_entries[i].path, NULL, NULL);
		html(p->out, here ? "\" aria-current=\"page\">%s</a></li>" : "\">%s</a></li>",
		     nav_entries[i].name);
	}
	html(p->out, "</ul></nav>\n");
}

static const struct {
	const char *since, *shown, *spoken;
} layout_span[] = {{"15m", "15 min", "15 minutes"}, {"1h", "1 h", "hour"},	{"24h", "24 h", "24 hours"},
		   {"7d", "7 d", "7 days"},	    {"30d", "30 d", "30 days"}, {"365d", "1 y", "year"}};
#define LAYOUT_SPANS (sizeof(layout_span) / sizeof(layout_span[0]))

void page_span_text(struct page *p)
{
	const struct page_view *v = &p->view;
	const char *since = v->since[0] ? v->since : PAGE_SINCE;
	for (size_t i = 0; i < LAYOUT_SPANS; i++)
		if (strcmp(since, layout_span[i].since) == 0 && !v->until[0]) {
			html(p->out, "in the last %s", layout_span[i].spoken);
			return;
		}
	if (v->since_us) {
		html(p->out, "since ");
		html_time(p->out, v->since_us, p->source->now_us);
	} else {
		html(p->out, "since the first record");
	}
	if (v->until_us) {
		html(p->out, " until ");
		html_time(p->out, v->until_us, p->source->now_us);
	}
}

/* --- filters: links and a form, which need no script ---------------------------------------------------- */

static void layout_spans(struct page *p)
{
	const char *now = p->view.since[0] ? p->view.since : PAGE_SINCE;
	html(p->out, "<ul class=\"spans\" aria-label=\"Span of time\">");
	for (size_t i = 0; i < LAYOUT_SPANS; i++) {
		bool here = strcmp(now, layout_span[i].since) == 0 && !p->view.until[0];
		html(p->out, "<li><a href=\"");
		page_link2(p->out, &p->view, p->view.path, "since", layout_span[i].since, "until", "");
		html(p->out, "\" title=\"the last %s\"", layout_span[i].spoken);
		html(p->out, here ? " aria-current=\"true\">%s</a></li>" : ">%s</a></li>",
		     layout_span[i].shown);
	}
	html(p->out, "</ul>");
}

static void layout_routers(struct page *p)
{
	static const struct {
		const char *value, *shown;
	} ways[] = {{"", "This router"}, {"all", "All routers"}};
	if (!p->source->several)
		return;
	html(p->out, "<ul class=\"spans\" aria-label=\"Routers\">");
	for (size_t i = 0; i < 2; i++) {
		bool here = strcmp(p->view.routers, ways[i].value) == 0;
		html(p->out, "<li><a href=\"");
		page_link(p->out, &p->view, p->view.path, "routers", ways[i].value);
		html(p->out, here ? "\" aria-current=\"true\">%s</a></li>" : "\">%s</a></li>", ways[i].shown);
	}
	html(p->out, "</ul>");
}

static void layout_chosen(struct page *p, const char *name, const char *value)
{
	if (!value[0])
		return;
	html(p->out, "<li><a class=\"chosen\" href=\"");
	page_link(p->out, &p->view, p->view.path, name, "");
	html(p->out,
	     "\"><span>%s</span> %s <span aria-hidden=\"true\">×</span><span class=\"unseen\">, remove this "
	     "filter</span></a></li>",
	     name, value);
}

static void layout_filters(struct page *p)
{
	const struct page_view *v = &p->view;
	html(p->out, "<div class=\"filters\">");
	layout_routers(p);
	layout_spans(p);
	html(p->out, "<ul class=\"chips\" aria-label=\"Filters\">");
	layout_chosen(p, "service", v->service);
	layout_chosen(p, "operation", v->operation);
	layout_chosen(p, "org", v->org);
	layout_chosen(p, "user", v->user);
	layout_chosen(p, "id", v->id);
	layout_chosen(p, "side", v->side);
	layout_chosen(p, "backend", v->backend);
	layout_chosen(p, "result", v->result);
	layout_chosen(p, "status", v->status);
	layout_chosen(p, "error", v->error);
	layout_chosen(p, "search", v->search);
	layout_chosen(p, "until", v->until);
	html(p->out, "</ul></div>\n");
}

/* On every page whose span has a part of it; a file that cannot be read is told of by the sections. */
static void layout_made_up(struct page *p)
{
	struct demo_history made_up;
	struct err ignored;
	char text[DEMO_HISTORY_TEXT];
	if (demo_history_read(p->source->path, &made_up, &ignored) < 0 ||
	    !demo_history_is_in(&made_up, p->view.since_us, p->view.until_us))
		return;
	demo_history_text(&made_up, text);
	html(p->out, "<p class=\"made-up\" role=\"note\"><strong>Not real.</strong> %s</p>\n", text);
}

void page_begin(struct page *p, const char *title)
{
	layout_head(p, title);
	html(p->out,
	     "<body>\n<a class=\"skip\" href=\"#main\">Skip to the content</a>\n<header class=\"top\">"
	     "<p class=\"brand\">");
	page_icon(p->out, page_level_of_frame(p));
	html(p->out, "<a href=\"/\">Migration</a></p>\n");
	layout_nav(p);
	layout_filters(p);
	html(p->out, "</header>\n");
	layout_made_up(p);
	html(p->out,
	     "<p id=\"stale\" role=\"alert\" hidden></p>\n"
	     "<p id=\"said\" class=\"unseen\" role=\"status\"></p>\n<main id=\"main\" tabindex=\"-1\">\n");
}

/* The report has a word of its own for all routers. */
static void layout_report_link(struct page *p)
{
	size_t begin = p->out->len;
	page_link(p->out, &p->view, "/_admin/report.json", "routers", "");
	if (!p->view.routers[0] || p->out->error)
		return;
	bool query = memchr(p->out->ptr + begin, '?', p->out->len - begin) != NULL;
	html(p->out, "%sall=1", query ? "&" : "?");
}

void page_end(struct page *p)
{
	char made[CLOCK_TEXT_MAX];
	clock_format(p->source->now_us, made);
	html(p->out, "</main>\n<footer data-made=\"%s\" data-version=\"%016llx\"><p>As of ", made,
	     (unsigned long long)p->source->version);
	html_time(p->out, p->source->now_us, p->source->now_us);
	html(p->out, " <span id=\"live\"></span></p><p>migration-router " PROJECT_VERSION
		     " · the same as text: <code>migration-status</code> · "
		     "<a href=\"/metrics\">metrics</a> · <a href=\"/readyz\">readiness</a> · <a href=\"");
	layout_report_link(p);
	html(p->out, "\">report as JSON</a></p></footer>\n</body>\n</html>\n");
}

/* --- sections ------------------------------------------------------------------------------------------- */

void page_section(struct page *p, const char *id, const char *heading)
{
	page_section_of_all(p, id, heading);
	page_own(p);
}

void page_own(struct page *p)
{
	if (p->view.routers[0])
		page_note(p, "Of this router only.");
}

void page_section_of_all(struct page *p, const char *id, const char *heading)
{
	html(p->out,
	     "<section id=\"%s\" class=\"part\" data-live aria-labelledby=\"%s-h\">\n<h2 "
	     "id=\"%s-h\">%s</h2>\n",
	     id, id, id, heading);
}

void page_section_end(struct page *p)
{
	html(p->out, "</section>\n");
}

void page_note(struct page *p, const char *text)
{
	html(p->out, "<p class=\"note\">%s</p>\n", text);
}

void page_alert(struct page *p, const char *text)
{
	html(p->out, "<p class=\"alert\">");
	page_icon(p->out, PAGE_STOP);
	html(p->out, "%s</p>\n", text);
}

void page_unreadable(struct page *p, int code, const char *why)
{
	if (code == -ENOENT || code == -ENODATA)
		page_note(p, "Nothing was recorded yet.");
	else
		page_alert(p, why);
}
