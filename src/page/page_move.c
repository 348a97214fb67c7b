#include "page/page_move.h"

#include <stdio.h>
#include <string.h>

#include "page/html.h"
#include "page/page.h"
#include "page/page_layout.h"
#include "page/page_sign_in.h"

/* --- forms ---------------------------------------------------------------------------------------------- */

static void move_form(struct buf *out, const char *action, const struct page_move_reader *r)
{
	html(out, "<form method=\"post\" action=\"%s\" class=\"move\">", action);
	html(out, "<input type=\"hidden\" name=\"form\" value=\"%s\">", r->form);
}

static void move_hidden(struct buf *out, const char *name, const char *value)
{
	if (value[0])
		html(out, "<input type=\"hidden\" name=\"%s\" value=\"%s\">", name, value);
}

/* A form of one button that asks for a plan. */
static void move_button(struct buf *out, const struct page_move_reader *r, const char *command,
			const char *flag, const char *label)
{
	move_form(out, "/_admin/move/plan", r);
	move_hidden(out, "command", command);
	move_hidden(out, "flag", flag);
	html(out, "<button type=\"submit\">%s<span class=\"unseen\"> %s</span></button></form>\n", label,
	     flag);
}

static void move_set(struct buf *out, const struct page_move_reader *r, size_t i,
		     const struct page_move_flag *f)
{
	move_form(out, "/_admin/move/plan", r);
	move_hidden(out, "command", "set");
	move_hidden(out, "flag", f->key);
	html(out,
	     "<label for=\"percent-%zu\">Percent<span class=\"unseen\"> of everybody for %s</span></label> "
	     "<input id=\"percent-%zu\" name=\"percent\" inputmode=\"decimal\" required pattern=\"[0-9.]+\" "
	     "size=\"5\" autocomplete=\"off\"> ",
	     i, f->key, i);
	html(out,
	     "<label for=\"segment-%zu\">Segment<span class=\"unseen\"> of %s, empty for "
	     "everybody</span></label> "
	     "<input id=\"segment-%zu\" name=\"segment\" size=\"12\" maxlength=\"127\" "
	     "placeholder=\"everybody\" "
	     "autocomplete=\"off\"> ",
	     i, f->key, i);
	html(out, "<button type=\"submit\">Plan<span class=\"unseen\"> for %s</span></button></form>\n",
	     f->key);
}

/* --- the section ---------------------------------------------------------------------------------------- */

static void move_flag(struct page *p, const struct page_move *m, size_t i)
{
	const struct page_move_flag *f = &m->flags[i];
	html(p->out, "<article class=\"card\"><h2>%s</h2>\n<p>", f->key);
	if (f->percent < 0)
		html(p->out, "not known");
	else
		html(p->out, "<strong>%.4g %%</strong> of everybody", f->percent);
	if (f->disabled)
		html(p->out, ", disabled");
	html(p->out, "; asked by %s</p>\n", f->operations);
	if (f->steps[0])
		html(p->out, "<p class=\"note\">Steps: %s</p>\n", f->steps);
	if (m->reader.may_write && m->reader.session) {
		move_set(p->out, &m->reader, i, f);
		if (f->steps[0])
			move_button(p->out, &m->reader, "advance", f->key, "Advance one step");
		if (f->disabled)
			move_button(p->out, &m->reader, "enable", f->key, "Enable");
		move_button(p->out, &m->reader, "rollback", f->key, "Roll back");
	}
	html(p->out, "</article>\n");
}

static void move_hold(struct page *p, const struct page_move *m, size_t i)
{
	const struct page_move_hold *h = &m->holds[i];
	html(p->out, "<article class=\"card\"><h2>%s.%s is held at legacy</h2>\n<p>%s</p>\n", h->service,
	     h->operation, h->why);
	if (m->reader.may_write && m->reader.session) {
		move_form(p->out, "/_admin/guard/release", &m->reader);
		move_hidden(p->out, "service", h->service);
		move_hidden(p->out, "operation", h->operation);
		html(p->out,
		     "<label for=\"why-%zu\">Why</label> <input id=\"why-%zu\" name=\"message\" required "
		     "maxlength=\"1000\"> <button type=\"submit\">Release the hold on "
		     "%s.%s</button></form>\n",
		     i, i, h->service, h->operation);
	}
	html(p->out, "</article>\n");
}

static void move_who(struct page *p, const struct page_move_reader *r)
{
	if (r->session) {
		html(p->out,
		     "<form method=\"post\" action=\"/sign-out\" class=\"move\"><input type=\"hidden\" "
		     "name=\"form\" value=\"%s\"><p>Signed in%s%s. ",
		     r->form, r->who[0] ? " as " : ", to read", r->who);
		html(p->out, "<button type=\"submit\">Sign out</button></p></form>\n");
	}
	if (r->may_write && r->session)
		return;
	if (r->may_sign_in)
		html(p->out, "<p class=\"note\">To change something, <a href=\"/sign-in?next=%%2Fmove\">sign "
			     "in</a> with a "
			     "token that has the scope <code>write</code>.</p>\n");
	else
		page_note(p, "Nobody may change percentages here: admin.writers in the router's "
			     "configuration names "
			     "who may. migration-rollout does the same on the command line.");
}

void page_move(struct page *p)
{
	const struct page_move *m = p->source->move;
	/* Not live: what someone is typing must stay. */
	html(p->out, "<section id=\"move\" class=\"part\" aria-labelledby=\"move-h\">\n<h1 "
		     "id=\"move-h\">Move</h1>\n");
	if (!m) {
		page_alert(p, "What can be moved is not known.");
		html(p->out, "</section>\n");
		return;
	}
	move_who(p, &m->reader);
	html(p->out, "<p class=\"note\">In %s.</p>\n<div class=\"cards\">", m->place);
	for (size_t i = 0; i < m->n_holds; i++)
		move_hold(p, m, i);
	for (size_t i = 0; i < m->n_flags; i++)
		move_flag(p, m, i);
	html(p->out, "</div>\n");
	if (!m->n_flags)
		page_note(p, "No operation with a task asks a flag.");
	if (m->n_left_out)
		html(p->out,
		     "<p class=\"note\">%zu more flags are not shown; migration-rollout changes them.</p>\n",
		     m->n_left_out);
	html(p->out, "</section>\n");
}

/* --- the plan ------------------------------------------------------------------------------------------- */

static void move_lines(struct buf *out, const char *heading, struct span lines)
{
	if (!lines.len)
		return;
	html(out, "<h2>%s</h2>\n<ul>", heading);
	while (lines.len) {
		const char *end = memchr(lines.ptr, '\n', lines.len);
		size_t n = end ? (size_t)(end - lines.ptr) : lines.len;
		if (n)
			html(out, "<li>%.*s</li>", (int)n, lines.ptr);
		n += end ? 1 : 0;
		lines = (struct span){lines.ptr + n, lines.len - n};
	}
	html(out, "</ul>\n");
}

/* "Set flag to 25 %": what the button says, and nothing else happens. */
static void move_title(struct buf *out, const struct page_move_plan *plan)
{
	const char *whose = plan->segment[0] ? plan->segment : "everybody";
	if (strcmp(plan->command, "set") == 0)
		html(out, "Set %s to %.6g %% for %s", plan->flag, plan->percent, whose);
	else if (strcmp(plan->command, "advance") == 0 && plan->known && plan->from != plan->to)
		html(out, "Advance %s by one step, from %.4g %% to %.4g %%", plan->flag, plan->from,
		     plan->to);
	else if (strcmp(plan->command, "advance") == 0)
		html(out, "Advance %s by one step", plan->flag);
	else if (strcmp(plan->command, "rollback") == 0)
		html(out, "Roll %s back: everybody to legacy", plan->flag);
	else if (strcmp(plan->command, "enable") == 0)
		html(out, "Enable %s", plan->flag);
	else
		html(out, "Disable %s", plan->flag);
}

static void move_share(struct buf *out, const char *name, double from, double to)
{
	html(out, "<tr><th scope=\"row\">%s</th><td>%.4g %%</td><td>%.4g %%</td></tr>", name, from, to);
}

static void move_shares(struct buf *out, const struct page_move_plan *plan)
{
	html(out, "<h2>To tasks</h2>\n<table><caption class=\"unseen\">Percent to tasks, now and "
		  "then</caption><thead>"
		  "<tr><td></td><th scope=\"col\">now</th><th scope=\"col\">then</th></tr></thead><tbody>");
	move_share(out, plan->segment[0] ? plan->segment : "everybody, by this flag", plan->from, plan->to);
	for (size_t i = 0; i < plan->n_operations; i++)
		move_share(out, plan->operations[i].name, plan->operations[i].from, plan->operations[i].to);
	html(out, "</tbody></table>\n");
}

static void move_kind(struct buf *out, const struct page_move_who *w, const char *kind)
{
	if (!w->known)
		return;
	html(out,
	     "<li>%zu %s on record: <strong>%zu</strong> would move to tasks, <strong>%zu</strong> back to "
	     "legacy",
	     w->known, kind, w->to_task, w->to_legacy);
	if (w->unknown)
		html(out, ", unknown for %zu", w->unknown);
	for (size_t i = 0; i < w->n_largest; i++)
		html(out, "%s%s", i ? ", " : "; the largest: ", w->largest[i]);
	html(out, "</li>");
}

static void move_census(struct buf *out, const struct page_move_plan *plan)
{
	html(out, "<h2>Who moves</h2>\n");
	if (!plan->counted) {
		html(out, "<p class=\"note\">Nobody could be counted%s%s</p>\n",
		     plan->trouble[0] ? ": " : ".", plan->trouble);
		return;
	}
	html(out, "<ul>");
	move_kind(out, &plan->who[0], "users");
	move_kind(out, &plan->who[1], "organizations");
	if (!plan->who[0].known && !plan->who[1].known)
		html(out, "<li>Nobody is on record yet.</li>");
	html(out, "</ul>\n");
}

static void move_confirm(const struct page_move_reader *r, const struct page_move_plan *plan, struct buf *out)
{
	char percent[32] = "";
	if (plan->percent >= 0)
		snprintf(percent, sizeof(percent), "%.6g", plan->percent);
	move_form(out, "/_admin/move/apply", r);
	move_hidden(out, "command", plan->command);
	move_hidden(out, "flag", plan->flag);
	move_hidden(out, "segment", plan->segment);
	move_hidden(out, "percent", percent);
	move_hidden(out, "digest", plan->digest);
	html(out,
	     "<p><label for=\"message\">Why (for the history)</label> <input id=\"message\" name=\"message\" "
	     "required maxlength=\"1000\"></p>\n<p><button type=\"submit\" id=\"confirm\">");
	move_title(out, plan);
	html(out, "</button> <a href=\"/move\">Cancel</a></p></form>\n");
}

static void move_said(struct buf *out, struct span said)
{
	if (said.len)
		html(out, "<details><summary>In the words of migration-rollout</summary><pre>");
	while (said.len) { /* html_text takes no line ends */
		const char *end = memchr(said.ptr, '\n', said.len);
		size_t n = end ? (size_t)(end - said.ptr) : said.len;
		html_text(out, (struct span){said.ptr, n});
		n += end ? 1 : 0;
		buf_puts(out, end ? "\n" : "");
		said = (struct span){said.ptr + n, said.len - n};
		if (!said.len)
			html(out, "</pre></details>\n");
	}
}

void page_move_plan(const struct page_move_reader *r, const struct page_move_plan *plan, struct buf *out)
{
	page_bare_begin(out, "Plan");
	html(out, "<section class=\"part\" id=\"plan\"><h1>");
	move_title(out, plan);
	html(out, "</h1>\n<p class=\"note\">In %s. Nothing has been changed yet.</p>\n", plan->place);
	if (plan->question[0]) {
		html(out, "<p class=\"alert\" role=\"alert\">");
		page_icon(out, PAGE_WATCH);
		html(out, "%s</p>\n", plan->question);
	}
	if (plan->known)
		move_shares(out, plan);
	else
		html(out, "<p class=\"note\">What it would do cannot be evaluated right now.</p>\n");
	move_census(out, plan);
	move_lines(out, "What is written", plan->changes);
	move_lines(out, "Notes", plan->notes);
	move_said(out, plan->said);
	if (plan->nothing || !plan->digest[0])
		html(out, "<p><strong>There is nothing to change.</strong> <a href=\"/move\">Back</a></p>\n");
	else
		move_confirm(r, plan, out);
	html(out, "</section>\n");
	page_bare_end(out);
}

void page_move_result(const struct page_move_reader *r, const struct page_move_result *result,
		      struct buf *out)
{
	const char *title = result->done ? "Done" : "Nothing was changed";
	(void)r;
	if (!result->done && result->changed)
		title = "Changed, but not as asked for";
	page_bare_begin(out, title);
	html(out, "<section class=\"part\" id=\"result\"><h1>%s: %s</h1>\n", title,
	     result->flag ? result->flag : "");
	if (!result->done) {
		html(out, "<p class=\"alert\" role=\"alert\">");
		page_icon(out, PAGE_STOP);
		html(out, "%s</p>\n", result->error[0] ? result->error : result->result);
	}
	move_said(out, result->said);
	html(out, "<p><a href=\"/move\">Back to Move</a> · <a href=\"/\">Overview</a></p></section>\n");
	page_bare_end(out);
}
