/* Section 4: the whole span, ending now: share and what was set, success, latency, traffic, what was done. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "outcomes/events.h"
#include "outcomes/report.h"
#include "outcomes/timeline.h"
#include "page/html.h"
#include "page/page.h"
#include "page/page_layout.h"
#include "standing/standing.h"

#define EVENTS_SHOWN 200

struct timeline_section {
	struct page *page;
	const struct standing *standing;
	const struct event_list *events; /* of the span; NULL: they cannot be read */
	struct timeline *timeline;
};

/* --- what was set when: from the events ----------------------------------------------------------------- */

static long timeline_key(void *arg, const char *service, const char *operation)
{
	const struct timeline_section *t = arg;
	for (size_t i = 0; t->standing && i < t->standing->n_operations; i++)
		if (strcmp(t->standing->operations[i].operation, operation) == 0 &&
		    strcmp(t->standing->operations[i].service, service) == 0)
			return (long)i;
	return -1;
}

static bool is_about(const struct event *e, const struct standing_operation *o)
{
	return e->kind == EVENT_PERCENT && strcmp(e->operation, o->operation) == 0 &&
	       strcmp(e->service, o->service) == 0;
}

/* The last change before tells what it was set to, the first one after what it was set from. */
static double timeline_set(void *arg, long key, int64_t time_us)
{
	const struct timeline_section *t = arg;
	const struct standing_operation *o = &t->standing->operations[key];
	double set = o->facts.set;
	for (size_t i = t->events ? t->events->n : 0; i-- > 0;) {
		const struct event *e = &t->events->events[i];
		if (!is_about(e, o))
			continue;
		if (e->time_us <= time_us)
			return e->after / 100;
		set = e->before;
	}
	return set < 0 ? -1 : set / 100;
}

/* --- the table: what the charts are drawn from ---------------------------------------------------------- */

/* Wilson's interval for 95 %, as of the report. */
static void timeline_band(uint64_t success, uint64_t counted, double ret[3])
{
	const double z = 1.959964, n = (double)counted, rate = (double)success / n, scale = 1 + z * z / n;
	double middle = rate + z * z / (2 * n), reach = z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n));
	ret[0] = rate;
	ret[1] = fmax(0, (middle - reach) / scale);
	ret[2] = fmin(1, (middle + reach) / scale);
}

static void timeline_data(struct buf *out, const struct timeline_point *p)
{
	html(out, "%lld,%llu,%llu,", (long long)(p->time_us / 1000),
	     (unsigned long long)p->executions[OUTCOME_LEGACY],
	     (unsigned long long)p->executions[OUTCOME_TASK]);
	if (p->set >= 0)
		html(out, "%.2f", p->set * 100);
	for (int side = 0; side < OUTCOME_SIDE_COUNT; side++) {
		double band[3];
		html(out, ",");
		if (!p->counted[side]) {
			html(out, ",,,");
			continue;
		}
		timeline_band(p->success[side], p->counted[side], band);
		html(out, "%.3f,%.3f,%.3f,%lld", band[0] * 100, band[1] * 100, band[2] * 100,
		     (long long)p->p95_us[side]);
	}
}

static void timeline_rate(struct buf *out, const struct timeline_point *p, int side)
{
	html(out, "<td>");
	if (p->counted[side])
		html_percent(out, (double)p->success[side] / (double)p->counted[side]);
	else
		html(out, "–");
	html(out, "</td>");
}

static void timeline_share(struct buf *out, uint64_t of, uint64_t all)
{
	html(out, "<td>");
	if (all)
		html_percent(out, (double)of / (double)all);
	else
		html(out, "–");
	html(out, "</td><td>");
}

static void timeline_row(struct page *page, const struct timeline_point *p)
{
	struct buf *out = page->out;
	uint64_t all = p->executions[OUTCOME_LEGACY] + p->executions[OUTCOME_TASK];
	html(out, "<tr data-p=\"");
	timeline_data(out, p);
	html(out, "\"><th scope=\"row\">");
	html_time(out, p->time_us, page->source->now_us);
	html(out, "</th><td>");
	html_count(out, all);
	html(out, "</td>");
	timeline_share(out, p->executions[OUTCOME_TASK], all);
	if (p->set >= 0)
		html(out, "%.4g&nbsp;%%", p->set * 100);
	else
		html(out, "–");
	html(out, "</td>");
	timeline_rate(out, p, OUTCOME_LEGACY);
	timeline_rate(out, p, OUTCOME_TASK);
	for (int side = 0; side < OUTCOME_SIDE_COUNT; side++) {
		html(out, "<td>");
		html_latency(out, p->p95_us[side]);
		html(out, "</td>");
	}
	html(out, "</tr>\n");
}

static void timeline_table(struct page *p, const struct timeline *t)
{
	html(p->out,
	     "<details class=\"table\" id=\"timeline-table\"><summary>The same as a table</summary>\n"
	     "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Timeline as a table\">"
	     "<table id=\"points\" data-until=\"%lld\" data-width=\"%lld\"><caption>Both sides ",
	     (long long)(t->until_us / 1000), (long long)(t->point_us / 1000));
	page_span_text(p);
	html(p->out, ", in steps of ");
	html_duration(p->out, t->point_us);
	html(p->out,
	     "</caption><thead><tr><th scope=\"col\">from</th><th scope=\"col\">executions</th>"
	     "<th scope=\"col\">on tasks</th><th scope=\"col\">set</th><th scope=\"col\">legacy success</th>"
	     "<th scope=\"col\">task success</th><th scope=\"col\">legacy p95</th><th scope=\"col\">task "
	     "p95</th>"
	     "</tr></thead><tbody>\n");
	for (size_t i = 0; i < t->n; i++)
		timeline_row(p, &t->points[i]);
	html(p->out, "</tbody></table></div></details>\n");
}

static void timeline_chart(struct page *p, const char *id, const char *title, const char *says, bool low)
{
	html(p->out,
	     "<figure class=\"chart%s\"><figcaption><b>%s</b> <span>%s</span></figcaption><div><canvas "
	     "id=\"%s\" "
	     "role=\"img\" aria-label=\"%s: %s. The table below has the "
	     "figures.\"></canvas></div></figure>\n",
	     low ? " low" : "", title, says, id, title, says);
}

/* --- what was done -------------------------------------------------------------------------------------- */

static enum page_level event_level(enum event_kind k)
{
	switch (k) {
	case EVENT_FLAGS_FAILING:
	case EVENT_BACKEND_GONE:
	case EVENT_BREAKER_OPEN:
	case EVENT_LEGACY_GONE:
	case EVENT_GUARD_BREACH:
	case EVENT_GUARD_HELD:
	case EVENT_STORE_FAILING:
		return PAGE_STOP;
	case EVENT_GUARD_MISMATCH:
		return PAGE_WATCH;
	case EVENT_FLAGS_BACK:
	case EVENT_BACKEND_BACK:
	case EVENT_BREAKER_CLOSED:
	case EVENT_LEGACY_BACK:
	case EVENT_GUARD_SAFE:
	case EVENT_STORE_BACK:
		return PAGE_OK;
	default:
		return PAGE_EMPTY;
	}
}

static void timeline_event(struct page *p, const struct event *e)
{
	bool move = e->kind == EVENT_PERCENT || e->kind == EVENT_MOVE;
	const char *class = move ? "move" : page_level_class(event_level(e->kind));
	html(p->out, "<li class=\"%s\" data-t=\"%lld\" data-kind=\"%s\">", class,
	     (long long)(e->time_us / 1000), event_kind_text(e->kind));
	html_time(p->out, e->time_us, p->source->now_us);
	html(p->out, " <span><b>%s</b>", e->what);
	if (e->who[0])
		html(p->out, " by %s", e->who);
	if (e->why[0])
		html(p->out, " <span class=\"why\">%s</span>", e->why);
	html(p->out, "</span></li>\n");
}

static void timeline_events(struct page *p, const struct event_list *l)
{
	if (!l || !l->n)
		return;
	html(p->out,
	     "<details class=\"table\" id=\"timeline-events\" open><summary>What was done, and what happened "
	     "<span class=\"n\">%zu%s</span></summary>\n<div class=\"scroll short\" tabindex=\"0\" "
	     "role=\"region\" aria-label=\"Events\"><ol class=\"events\">\n",
	     l->n, l->more ? "+" : "");
	for (size_t i = l->n; i-- > 0;)
		timeline_event(p, &l->events[i]);
	html(p->out, "</ol></div></details>\n");
}

/* --- the section ---------------------------------------------------------------------------------------- */

static const char *timeline_filter(const char *text)
{
	return text[0] ? text : NULL;
}

static bool timeline_any(const struct timeline *t)
{
	for (size_t i = 0; i < t->n; i++)
		for (int side = 0; side < OUTCOME_SIDE_COUNT; side++)
			if (t->points[i].executions[side] || t->points[i].counted[side])
				return true;
	return false;
}

static void timeline_draw(struct timeline_section *t)
{
	struct page *p = t->page;
	if (!t->timeline->n) {
		page_note(p, "Nothing was ever recorded.");
		return;
	}
	if (!timeline_any(t->timeline)) {
		page_note(p, "No executions in this span.");
		timeline_events(p, t->events);
		return;
	}
	html(p->out, "<div class=\"charts\" id=\"charts\" hidden>\n");
	timeline_chart(p, "chart-share", "Share of the task side", "measured, and set (steps)", false);
	timeline_chart(p, "chart-success", "Success", "legacy and tasks, with 95 % bands", false);
	timeline_chart(p, "chart-p95", "95th percentile", "legacy and tasks", false);
	timeline_chart(p, "chart-traffic", "Executions", "legacy and tasks", true);
	html(p->out, "</div>\n");
	timeline_events(p, t->events);
	timeline_table(p, t->timeline);
}

void page_timeline(struct page *p)
{
	CLEANUP(event_list_freep) struct event_list *events = NULL;
	CLEANUP(timeline_freep) struct timeline *timeline = NULL;
	struct err e = {""};
	int64_t until = p->view.until_us ? p->view.until_us : p->source->now_us;
	const char *service = timeline_filter(p->view.service),
		   *operation = timeline_filter(p->view.operation);
	const struct event_filter filter = {.since_us = p->view.since_us,
					    .until_us = until,
					    .service = service,
					    .operation = operation,
					    .max = EVENTS_SHOWN};
	struct timeline_section t = {.page = p, .standing = p->source->standing};
	const struct timeline_options o = {.path = p->source->path,
					   .since_us = p->view.since_us,
					   .until_us = until,
					   .service = service,
					   .operation = operation,
					   .organization = timeline_filter(p->view.org),
					   .key = timeline_key,
					   .set = timeline_set,
					   .arg = &t};
	page_section(p, "timeline", "Timeline");
	int r = events_read(p->source->path, &filter, &events, &e);
	t.events = events;
	if (r == 0)
		r = timeline_read(&o, &timeline, &e);
	t.timeline = timeline;
	if (r < 0)
		page_unreadable(p, r, e.text);
	else
		timeline_draw(&t);
	page_section_end(p);
}
