/* Section 3: a card per operation that can move, worst first. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "guard/guard_verdict.h"
#include "outcomes/report.h"
#include "outcomes/timeline.h"
#include "page/html.h"
#include "page/page.h"
#include "page/page_layout.h"
#include "pairs/differences.h"
#include "standing/standing.h"

#define CARDS_MAX 24 /* with more operations those that are well get a line each, but for the first */
#define FEW_CARDS 9
#define LOUD_CARDS_MAX 60 /* of those that are not well */

/* What a card is made of, beside the standing of its operation. */
struct card_data {
	const struct report_operation *span; /* over the chosen span; NULL: nothing in it */
	const struct spark *spark;	     /* of the last hour; NULL: nothing in it */
	const struct differences_operation *differences;
};

void page_operation_name(struct buf *out, const char *service, const char *operation)
{
	size_t n = strlen(service);
	bool named = strncmp(operation, service, n) == 0 && (!operation[n] || operation[n] == '.');
	if (!named)
		html(out, "%s.", service);
	html(out, "%s", operation);
}

/* What the guards of all routers make of it; NULL: in the view of one, or none has begun. */
static const struct guard_operation_verdict *operation_of_all(const struct page *p,
							      const struct standing_operation *o)
{
	const struct guard_verdicts *g = p->routers ? p->routers->guard : NULL;
	for (size_t i = 0; g && i < g->n; i++)
		if (strcmp(g->operations[i].service, o->service) == 0 &&
		    strcmp(g->operations[i].operation, o->operation) == 0)
			return &g->operations[i];
	return NULL;
}

/* As of this router, or worse where another one has found worse. */
static enum standing_level operation_standing(const struct page *p, const struct standing_operation *o,
					      const char **ret_says)
{
	const struct guard_operation_verdict *g = operation_of_all(p, o);
	enum standing_level found = STANDING_OK;
	const char *says = "";
	if (g && g->mode != GUARD_OFF && (g->held || g->verdict == GUARD_BREACH)) {
		found = STANDING_STOP;
		says = g->held ? "held at a router" : "breach at a router";
	} else if (g && g->mode != GUARD_OFF && g->verdict == GUARD_SHARE_MISMATCH) {
		found = STANDING_WATCH;
		says = "share mismatch at a router";
	}
	*ret_says = found > o->level ? says : o->verdict;
	return found > o->level ? found : o->level;
}

static bool operation_is_loud(const struct page *p, const struct standing_operation *o)
{
	const char *ignored;
	return operation_standing(p, o, &ignored) >= STANDING_WATCH;
}

static enum page_level operation_level(const struct page *p, const struct standing_operation *o)
{
	const char *ignored;
	enum standing_level level = operation_standing(p, o, &ignored);
	/* Nothing wrong is not yet well: green is for what has been shown. */
	bool shown = level != STANDING_OK || strcmp(o->verdict, "safe") == 0;
	return shown ? page_level_from((int)level) : PAGE_EMPTY;
}

/* --- the share: a bar with a tick at what is set -------------------------------------------------------- */

static void operation_bar(struct page *p, double measured, double set)
{
	html(p->out, "<svg class=\"bar\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" "
		     "aria-hidden=\"true\"><rect class=\"track\" width=\"1000\" height=\"10\"/>");
	if (measured > 0)
		html(p->out, "<rect class=\"task\" width=\"%.1f\" height=\"10\"/>", measured * 10);
	if (set >= 0)
		html(p->out, "<path class=\"tick\" d=\"M%.1f 0V10\"/>", fmin(fmax(set * 10, 1.5), 998.5));
	html(p->out, "</svg>");
}

/* Percent: now, at this router; of all routers in the chosen span, as there is no other report of them. */
static double operation_measured(const struct page *p, const struct standing_operation *o,
				 const struct report_operation *span)
{
	if (!p->view.routers[0])
		return o->measured;
	return span && span->executions ? span->sides[OUTCOME_TASK].share * 100 : -1;
}

static void operation_share(struct page *p, const struct standing_operation *o,
			    const struct report_operation *span)
{
	double measured = operation_measured(p, o, span);
	html(p->out, "<figure class=\"share\">");
	operation_bar(p, measured, o->facts.set);
	html(p->out, "<figcaption>");
	if (measured >= 0) {
		html(p->out, "<span><b class=\"task big\" data-measured>");
		html_percent(p->out, measured / 100);
		html(p->out, "</b> measured");
		if (p->view.routers[0]) {
			html(p->out, " ");
			page_span_text(p);
		}
		html(p->out, "</span> ");
	} else {
		html(p->out, "<span><b class=\"big\">–</b> nothing measured</span> ");
	}
	if (o->facts.set >= 0)
		html(p->out, "<span><b class=\"big\" data-set>%.4g&nbsp;%%</b> set</span>", o->facts.set);
	else
		html(p->out, "<span>what is set is not known</span>");
	html(p->out, "</figcaption></figure>\n");
}

static void operation_segments(struct page *p, const struct standing_operation_facts *f)
{
	if (!f->n_segments)
		return;
	html(p->out, "<ul class=\"segments\" aria-label=\"Segments with a percentage of their own\">");
	for (size_t i = 0; i < f->n_segments; i++) {
		html(p->out, "<li><span>%s</span>", f->segments[i].name);
		operation_bar(p, -1, f->segments[i].percent);
		html(p->out, "<b>%.4g&nbsp;%%</b></li>", f->segments[i].percent);
	}
	html(p->out, "</ul>\n");
}

/* --- success: points with intervals on one scale -------------------------------------------------------- */

/* The scale begins at a round rate below all that is shown. */
static double interval_floor(const struct report_operation *o)
{
	static const double floors[] = {0.999, 0.995, 0.99, 0.95, 0.9, 0.75, 0.5};
	double low = 1;
	for (int side = 0; side < OUTCOME_SIDE_COUNT; side++)
		if (o->sides[side].attempts.known)
			low = fmin(low, o->sides[side].attempts.low);
	for (size_t i = 0; i < sizeof(floors) / sizeof(floors[0]); i++)
		if (low >= floors[i])
			return floors[i];
	return 0;
}

static void operation_interval(struct page *p, const struct report_rate *r, double floor, const char *side,
			       int y)
{
	double scale = 980 / (1 - floor);
	if (!r->known)
		return;
	html(p->out,
	     "<path class=\"reach %s\" d=\"M%.1f %dH%.1f\"/><path class=\"point %s\" d=\"M%.1f %dh.01\"/>",
	     side, 10 + (r->low - floor) * scale, y, 10 + (r->high - floor) * scale, side,
	     10 + (r->rate - floor) * scale, y);
}

static void operation_intervals(struct page *p, const struct report_operation *o)
{
	double floor = interval_floor(o);
	if (!o->sides[OUTCOME_LEGACY].attempts.known && !o->sides[OUTCOME_TASK].attempts.known)
		return;
	html(p->out, "<figure class=\"intervals\" aria-hidden=\"true\"><svg viewBox=\"0 0 1000 34\" "
		     "preserveAspectRatio=\"none\"><path class=\"axis\" d=\"M10 0V34M990 0V34\"/>");
	operation_interval(p, &o->sides[OUTCOME_LEGACY].attempts, floor, "legacy", 9);
	operation_interval(p, &o->sides[OUTCOME_TASK].attempts, floor, "task", 25);
	html(p->out,
	     "</svg><figcaption><span>%.4g&nbsp;%%</span><span>success, 95&nbsp;%% "
	     "sure</span><span>100&nbsp;%%</span>"
	     "</figcaption></figure>\n",
	     floor * 100);
}

/* --- both sides in figures ------------------------------------------------------------------------------ */

static void operation_success(struct page *p, const struct report_rate *r)
{
	if (!r->known) {
		html(p->out, "<td class=\"none\">–</td>");
		return;
	}
	html(p->out, "<td%s>", r->few ? " class=\"few\"" : "");
	html_percent(p->out, r->rate);
	html(p->out, "<small>%.1f–%.1f%s</small></td>", report_percent(r->low),
	     r->high > 1 - 1e-9 ? 100 : report_percent(r->high), r->few ? ", few" : "");
}

static void operation_latency(struct page *p, int64_t us)
{
	html(p->out, us < 0 ? "<td class=\"none\">" : "<td>");
	html_latency(p->out, us);
	html(p->out, "</td>");
}

static void operation_number(struct page *p, uint64_t n, bool bad)
{
	if (!n)
		html(p->out, "<td class=\"none\">");
	else
		html(p->out, bad ? "<td class=\"bad\">" : "<td>");
	html_count(p->out, n);
	html(p->out, "</td>");
}

static void operation_row(struct page *p, const char *name)
{
	html(p->out, "<tr><th scope=\"row\">%s</th>", name);
}

static void operation_results(struct page *p, const struct report_operation *o, const char *name,
			      enum outcome_result result, bool bad)
{
	operation_row(p, name);
	for (int side = 0; side < OUTCOME_SIDE_COUNT; side++)
		operation_number(p, o->sides[side].attempts.results[result], bad);
	html(p->out, "</tr>");
}

static uint64_t operation_shadows(const struct report_side *side)
{
	uint64_t n = 0;
	for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
		n += side->shadows.results[i];
	return n;
}

static bool operation_had(const struct report_operation *o, enum outcome_result result)
{
	return o->sides[OUTCOME_LEGACY].attempts.results[result] +
		       o->sides[OUTCOME_TASK].attempts.results[result] >
	       0;
}

static void operation_pair(struct page *p, const char *name, uint64_t legacy, uint64_t task)
{
	operation_row(p, name);
	operation_number(p, legacy, false);
	operation_number(p, task, false);
	html(p->out, "</tr>");
}

/* What has not happened on either side is named together, in one line. */
static void operation_rare_rows(struct page *p, const struct report_operation *o, bool loud)
{
	static const struct {
		enum outcome_result result;
		const char *name;
		bool bad;
	} rows[] = {{OUTCOME_REJECTED, "rejected", false},
		    {OUTCOME_FAILURE, "failed", true},
		    {OUTCOME_TIMEOUT, "timed out", true},
		    {OUTCOME_UNKNOWN, "unknown", true}};
	const struct report_side *legacy = &o->sides[OUTCOME_LEGACY], *task = &o->sides[OUTCOME_TASK];
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (operation_had(o, rows[i].result))
			operation_results(p, o, rows[i].name, rows[i].result, loud && rows[i].bad);
	if (legacy->fallbacks + task->fallbacks)
		operation_pair(p, "fallbacks", legacy->fallbacks, task->fallbacks);
	if (operation_shadows(legacy) + operation_shadows(task))
		operation_pair(p, "shadows", operation_shadows(legacy), operation_shadows(task));
	bool any = false;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (!operation_had(o, rows[i].result)) {
			html(p->out, any ? ", %s" : "<tr class=\"none\"><td colspan=\"3\">none %s",
			     rows[i].name);
			any = true;
		}
	if (legacy->fallbacks + task->fallbacks == 0) {
		html(p->out, any ? ", fell back" : "<tr class=\"none\"><td colspan=\"3\">none fell back");
		any = true;
	}
	html(p->out, any ? "</td></tr>" : "");
}

static void operation_figures(struct page *p, const struct report_operation *o, bool loud)
{
	const struct report_side *legacy = &o->sides[OUTCOME_LEGACY], *task = &o->sides[OUTCOME_TASK];
	html(p->out, "<table class=\"sides\"><caption>");
	page_span_text(p);
	html(p->out,
	     "</caption><thead><tr><td></td><th scope=\"col\" class=\"legacy\">legacy</th><th scope=\"col\" "
	     "class=\"task\">tasks</th></tr></thead><tbody>");
	operation_row(p, "answered");
	operation_number(p, legacy->executions, false);
	operation_number(p, task->executions, false);
	html(p->out, "</tr>");
	operation_row(p, "success");
	operation_success(p, &legacy->attempts);
	operation_success(p, &task->attempts);
	html(p->out, "</tr>");
	operation_row(p, "p50");
	operation_latency(p, legacy->attempts.p50_us);
	operation_latency(p, task->attempts.p50_us);
	html(p->out, "</tr>");
	operation_row(p, "p95");
	operation_latency(p, legacy->attempts.p95_us);
	operation_latency(p, task->attempts.p95_us);
	html(p->out, "</tr>");
	operation_rare_rows(p, o, loud);
	html(p->out, "</tbody></table>\n");
}

/* --- the last hour -------------------------------------------------------------------------------------- */

static void spark_area(struct page *p, const struct spark *s, const char *class, bool both, double scale)
{
	html(p->out, "<path class=\"%s\" d=\"M0 24", class);
	for (int i = 0; i < SPARK_MINUTES; i++) {
		double n = s->executions[i][OUTCOME_TASK] +
			   (both ? (double)s->executions[i][OUTCOME_LEGACY] : 0);
		html(p->out, "V%.1fH%d", 24 - n * scale, i + 1);
	}
	html(p->out, "V24z\"/>");
}

static void operation_spark(struct page *p, const struct spark *s)
{
	uint64_t most = 1, total = 0;
	for (int i = 0; s && i < SPARK_MINUTES; i++) {
		uint64_t n = (uint64_t)s->executions[i][OUTCOME_LEGACY] + s->executions[i][OUTCOME_TASK];
		total += n;
		most = n > most ? n : most;
	}
	if (!total)
		return;
	html(p->out, "<figure class=\"spark\"><svg viewBox=\"0 0 60 24\" preserveAspectRatio=\"none\" "
		     "aria-hidden=\"true\">");
	spark_area(p, s, "legacy", true, 23.0 / (double)most);
	spark_area(p, s, "task", false, 23.0 / (double)most);
	html(p->out, "<path class=\"axis\" d=\"M0 24H60\"/></svg><figcaption>");
	html_count(p->out, total);
	html(p->out, " in the last hour%s</figcaption></figure>\n",
	     p->view.routers[0] ? ", at this router" : "");
}

/* --- a card --------------------------------------------------------------------------------------------- */

static const char *differences_word(const struct differences_operation *d)
{
	if (!d->noise_known)
		return "; noise was not measured";
	return d->beyond ? ", beyond noise" : ", not beyond noise";
}

static void operation_differences(struct page *p, const struct differences_operation *d)
{
	if (!d || !d->counts.compared[PAIRS_SIDES])
		return;
	uint64_t differing = d->counts.differing[PAIRS_SIDES];
	html(p->out, "<p class=\"differences%s\">Shadows compared%s: ", d->beyond ? " bad" : "",
	     p->view.routers[0] ? " (this router)" : "");
	html_count(p->out, differing);
	html(p->out, " of ");
	html_count(p->out, d->counts.compared[PAIRS_SIDES]);
	html(p->out, " differ");
	if (differing)
		html(p->out, "%s", differences_word(d));
	html(p->out, ".</p>\n");
}

static void operation_stage(struct page *p, const struct standing_operation *o)
{
	const struct standing_operation_facts *f = &o->facts;
	static const char *const guards[] = {"no guard", "guard watches", "guard holds", "guard rolls back"};
	html(p->out, "<ul class=\"tags\">");
	if (f->stage[0])
		html(p->out, "<li>%s</li>", f->stage);
	if (f->phase[0])
		html(p->out, "<li>%s</li>", f->phase);
	if (f->shadow > 0)
		html(p->out, "<li>%.4g&nbsp;%% shadowed</li>", f->shadow);
	if (f->held)
		html(p->out, "<li class=\"bad\">held at legacy</li>");
	if (f->backend[0])
		html(p->out, "<li>on %s</li>", f->backend);
	html(p->out, "<li>%s</li>", guards[f->guard_mode < GUARD_MODE_COUNT ? f->guard_mode : 0]);
	html(p->out, "</ul>\n");
}

/* As an id: letters and digits of the name. */
static void operation_id(struct page *p, const char *name)
{
	html(p->out, "op-");
	for (const char *c = name; *c; c++)
		buf_putc(p->out, isalnum((unsigned char)*c) ? *c : '-');
}

static void operation_link(struct page *p, const struct standing_operation *o)
{
	html(p->out, "<a href=\"");
	page_link2(p->out, &p->view, "/", "service", o->service, "operation", o->operation);
	html(p->out, "\">%s</a>", o->name);
}

static void operation_verdict(struct page *p, const struct standing_operation *o)
{
	const char *says;
	enum page_level level = operation_level(p, o);
	operation_standing(p, o, &says);
	html(p->out, "<p class=\"verdict %s\">", page_level_class(level));
	page_icon(p->out, level);
	html(p->out, "<span>%s</span></p>", says);
}

static void operation_card(struct page *p, const struct standing_operation *o, const struct card_data *d)
{
	html(p->out, "<article class=\"card %s\" id=\"", page_level_class(operation_level(p, o)));
	operation_id(p, o->name);
	html(p->out, "\" data-service=\"%s\" data-operation=\"%s\">\n<header><h3>", o->service, o->operation);
	operation_link(p, o);
	html(p->out, "</h3>");
	operation_verdict(p, o);
	html(p->out, "</header>\n");
	if (o->why[0])
		html(p->out, "<p class=\"why\">%s%s</p>\n", p->view.routers[0] ? "At this router: " : "",
		     o->why);
	operation_share(p, o, d->span);
	operation_segments(p, &o->facts);
	if (d->span) {
		operation_intervals(p, d->span);
		operation_figures(p, d->span, operation_is_loud(p, o));
	} else {
		html(p->out, "<p class=\"note\">No executions ");
		page_span_text(p);
		html(p->out, ".</p>\n");
	}
	operation_differences(p, d->differences);
	operation_spark(p, d->spark);
	operation_stage(p, o);
	html(p->out, "</article>\n");
}

static const struct report_operation *span_of_operation(const struct report *r,
							const struct standing_operation *o)
{
	for (size_t i = 0; r && i < r->operation_count; i++)
		if (strcmp(r->operations[i].service, o->service) == 0 &&
		    strcmp(r->operations[i].operation, o->operation) == 0)
			return &r->operations[i];
	return NULL;
}

/* One line of the many that are well. */
static void operation_line(struct page *p, const struct standing_operation *o)
{
	double measured = operation_measured(p, o, span_of_operation(p->report, o));
	html(p->out, "<li class=\"%s\">", page_level_class(operation_level(p, o)));
	operation_link(p, o);
	operation_bar(p, measured, o->facts.set);
	html(p->out, "<span>");
	if (measured >= 0)
		html_percent(p->out, measured / 100);
	else
		html(p->out, "–");
	if (o->facts.set >= 0)
		html(p->out, " of %.4g&nbsp;%%", o->facts.set);
	html(p->out, "</span>");
	operation_verdict(p, o);
	html(p->out, "</li>\n");
}

/* --- the section ---------------------------------------------------------------------------------------- */

static const struct differences_operation *differences_of(const struct differences *d,
							  const struct standing_operation *o)
{
	for (size_t i = 0; d && i < d->n_operations; i++)
		if (strcmp(d->operations[i].service, o->service) == 0 &&
		    strcmp(d->operations[i].operation, o->operation) == 0)
			return &d->operations[i];
	return NULL;
}

static bool operation_is_wanted(const struct page *p, const struct standing_operation *o)
{
	const struct page_view *v = &p->view;
	return (!v->service[0] || strcmp(v->service, o->service) == 0) &&
	       (!v->operation[0] || strcmp(v->operation, o->operation) == 0);
}

/* How many of the wanted ones get a card: all that are not well, and the first of those that are. */
static size_t operation_cards(const struct page *p, const struct standing *s)
{
	size_t wanted = 0, loud = 0;
	for (size_t i = 0; i < s->n_operations; i++)
		if (operation_is_wanted(p, &s->operations[i])) {
			wanted++;
			loud += operation_is_loud(p, &s->operations[i]);
		}
	if (wanted <= CARDS_MAX)
		return wanted;
	size_t most = loud > LOUD_CARDS_MAX ? LOUD_CARDS_MAX : loud;
	return most > FEW_CARDS ? most : FEW_CARDS;
}

/* Those without a card, folded away unless something is wrong with any of them. */
static void operations_rest(struct page *p, const struct standing *s, size_t first)
{
	size_t n = 0, loud = 0;
	for (size_t i = first; i < s->n_operations; i++)
		if (operation_is_wanted(p, &s->operations[i])) {
			n++;
			loud += operation_is_loud(p, &s->operations[i]);
		}
	if (!n)
		return;
	html(p->out,
	     "<details class=\"table\" id=\"operations-rest\"%.*s><summary>%zu more, one line each <span "
	     "class=\"n\">",
	     loud ? 5 : 0, " open", n);
	if (loud)
		html(p->out, "%zu to look at", loud);
	else
		html(p->out, "nothing wrong with any");
	html(p->out, "</span></summary>\n<ul class=\"lines\">\n");
	for (size_t i = first; i < s->n_operations; i++)
		if (operation_is_wanted(p, &s->operations[i]))
			operation_line(p, &s->operations[i]);
	html(p->out, "</ul></details>\n");
}

static void operations_draw(struct page *p, const struct standing *s, const struct sparks *sparks,
			    const struct differences *differences)
{
	size_t i = 0, left = operation_cards(p, s);
	html(p->out, "<div class=\"cards\">\n");
	for (; i < s->n_operations && left; i++) {
		const struct standing_operation *o = &s->operations[i];
		if (!operation_is_wanted(p, o))
			continue;
		const struct card_data d = {span_of_operation(p->report, o),
					    sparks_of(sparks, o->service, o->operation),
					    differences_of(differences, o)};
		operation_card(p, o, &d);
		left--;
	}
	html(p->out, "</div>\n");
	operations_rest(p, s, i);
}

/* What the others have recorded and this one does not know of: its configuration differs. */
static void operations_elsewhere(struct page *p, const struct standing *s)
{
	for (size_t i = 0; p->report && i < p->report->operation_count; i++) {
		const struct report_operation *o = &p->report->operations[i];
		bool known = !o->can_move;
		for (size_t j = 0; s && !known && j < s->n_operations; j++)
			known = strcmp(s->operations[j].service, o->service) == 0 &&
				strcmp(s->operations[j].operation, o->operation) == 0;
		if (known)
			continue;
		html(p->out, "<p class=\"note\">Not in this router's configuration: ");
		page_operation_name(p->out, o->service, o->operation);
		html(p->out, ", ");
		html_count(p->out, o->executions);
		html(p->out, " executions, ");
		html_percent(p->out, o->sides[OUTCOME_TASK].share);
		html(p->out, " as tasks.</p>\n");
	}
}

void page_operations(struct page *p)
{
	const struct standing *s = p->source->standing;
	struct err e = {""};
	CLEANUP(sparks_freep) struct sparks *sparks = NULL;
	CLEANUP(differences_freep) struct differences *differences = NULL;
	const struct differences_options o = {.paths = {p->source->path},
					      .n_paths = 1,
					      .since_us = p->view.since_us,
					      .until_us = p->view.until_us};
	page_section_of_all(p, "operations", "Operations that can move");
	if (p->trouble[0])
		page_alert(p, p->trouble);
	/* What has none to show leaves its place in the cards empty; why is said above, once. */
	sparks_read(p->source->path, p->source->now_us, &sparks, &e);
	differences_make(&o, &differences, &e);
	if (p->view.routers[0] && !p->report)
		page_note(p, "Their figures are not known.");
	else if (s && s->n_operations)
		operations_draw(p, s, sparks, differences);
	else
		page_note(p, "There are none yet: an operation can move when it has a task (services: … "
			     "operations: … task:).");
	if (p->routers)
		operations_elsewhere(p, s);
	if (s && s->others[0])
		html(p->out, "<p class=\"others\">%s</p>\n", s->others);
	page_section_end(p);
}
