/* Section 8: answers of both sides that differ: which places, how often, and samples side by side. */
#include "pairs/differences.h"

#include <errno.h>
#include <string.h>

#include "base/json.h"
#include "compare/compare_path.h"
#include "page/html.h"
#include "page/page_layout.h"
#include "page/page_rows.h"

#define MARKED_MAX 128	/* places of one sample */
#define MARKED_DEPTH 40 /* deeper values are shown as they are */

static const char *const path_columns[] = {"Place", "Differs in", "Noise in", "Kind", "Beyond noise"};
static const char *const place_columns[] = {"Place", "Legacy", "Task"};

/* --- a body, with the places that differ marked --------------------------------------------------------- */

struct marking {
	struct page *page;
	struct buf paths; /* of the places, each ended by NUL */
	struct compare_path at;
	unsigned depth;
};

static bool marking_differs(const struct marking *m)
{
	for (size_t i = 0; i < m->paths.len; i += strlen(m->paths.ptr + i) + 1)
		if (strcmp(m->paths.ptr + i, m->at.text) == 0)
			return true;
	return false;
}

static void marking_indent(struct marking *m)
{
	html(m->page->out, "\n%*s", (int)m->depth * 2, "");
}

static void marking_value(struct marking *m, struct span value);

static void marking_members(struct marking *m, struct span value, bool object)
{
	struct json_iter it;
	struct span key, item;
	bool any = false;
	json_iter_init(&it, value);
	m->depth++;
	while (json_iter_next(&it, &key, &item)) {
		CLEANUP(buf_releasep) struct buf name = BUF_INIT(4096);
		if (any)
			html(m->page->out, ",");
		any = true;
		marking_indent(m);
		if (object) {
			html_text(m->page->out, key);
			html(m->page->out, ": ");
			json_unescape_front(key, &name);
		}
		struct compare_path_mark mark =
			compare_path_enter(&m->at, object ? buf_span(&name) : SPAN_LIT("*"));
		marking_value(m, item);
		compare_path_leave(&m->at, mark);
	}
	m->depth--;
	if (any)
		marking_indent(m);
}

static void marking_value(struct marking *m, struct span value)
{
	enum json_type type = json_type_of(value);
	bool differs = marking_differs(m);
	if (differs)
		html(m->page->out, "<mark>");
	if ((type != JSON_OBJECT && type != JSON_ARRAY) || m->depth >= MARKED_DEPTH) {
		html_text(m->page->out, value);
	} else {
		html(m->page->out, "%c", type == JSON_OBJECT ? '{' : '[');
		marking_members(m, value, type == JSON_OBJECT);
		html(m->page->out, "%c", type == JSON_OBJECT ? '}' : ']');
	}
	if (differs)
		html(m->page->out, "</mark>");
}

static void marking_body(struct marking *m, const char *body)
{
	struct span text = span_strip(span_of(body));
	compare_path_init(&m->at, "body:");
	m->depth = 0;
	if (!text.len)
		html(m->page->out, "(empty, or not JSON and so not kept)");
	else if (json_validate(text, NULL) == 0)
		marking_value(m, text);
	else /* it was cut */
		html_text(m->page->out, text);
}

/* --- a sample ------------------------------------------------------------------------------------------- */

static void differences_member(struct page *p, struct span item, const char *pointer, struct buf *into)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
	struct span value;
	if (!json_pointer(item, span_of(pointer), &value) || json_unescape_front(value, &text) < 0)
		return;
	html_text(p->out, buf_span(&text));
	if (into && text.len) {
		buf_append_span(into, buf_span(&text));
		buf_putc(into, '\0');
	}
}

static void differences_places(struct page *p, const struct differences_sample *s, struct marking *m)
{
	struct json_iter it;
	struct span key, item;
	size_t n = 0;
	rows_begin(p, "Places that differ", place_columns, 3);
	json_iter_init(&it, span_of(s->differences));
	while (n++ < MARKED_MAX && json_iter_next(&it, &key, &item)) {
		html(p->out, "<tr>");
		rows_cell(p, "Place");
		html(p->out, "<code>");
		differences_member(p, item, "/path", &m->paths);
		html(p->out, "</code></td>");
		rows_cell(p, "Legacy");
		differences_member(p, item, "/legacy", NULL);
		html(p->out, "</td>");
		rows_cell(p, "Task");
		differences_member(p, item, "/task", NULL);
		html(p->out, "</td></tr>\n");
	}
	rows_end(p);
}

static void differences_sample(struct page *p, const struct differences_sample *s)
{
	static const char *const sides[] = {"Legacy", "Task"};
	struct marking m = {.page = p, .paths = BUF_INIT(MARKED_MAX * COMPARE_PATH_SIZE)};
	html(p->out, "<article class=\"sample\"><h4>");
	html_time(p->out, s->time_us, p->source->now_us);
	html(p->out, ", request <a href=\"");
	page_link(p->out, &p->view, "/requests", "id", s->request_id);
	html(p->out, "\">%s</a></h4>\n", s->request_id);
	differences_places(p, s, &m);
	html(p->out, "<details><summary>Both answers</summary><div class=\"pair\">");
	for (int side = 0; side < 2; side++) {
		html(p->out, "<div><h5>%s, %d</h5><pre tabindex=\"0\">", sides[side], s->status[side]);
		marking_body(&m, s->body[side]);
		html(p->out, "</pre></div>");
	}
	html(p->out, "</div></details></article>\n");
	buf_release(&m.paths);
}

/* --- an operation --------------------------------------------------------------------------------------- */

static void differences_share(struct page *p, const char *name, uint64_t n, uint64_t of)
{
	rows_number(p, name);
	html_count(p->out, n);
	if (of) {
		html(p->out, " (");
		html_percent(p->out, (double)n / (double)of);
		html(p->out, ")");
	}
	html(p->out, "</td>");
}

static void differences_path(struct page *p, const struct differences_operation *op,
			     const struct differences_path *d)
{
	const char *beyond = op->noise_known ? "no" : "not known";
	html(p->out, "<tr>");
	rows_cell(p, "Place");
	html(p->out, "<code>%s</code></td>", d->path);
	differences_share(p, "Differs in", d->differing, op->counts.compared[PAIRS_SIDES]);
	differences_share(p, "Noise in", d->noisy, op->counts.compared[PAIRS_NOISE]);
	rows_cell(p, "Kind");
	html(p->out, "%s</td>", d->kind);
	rows_cell(p, "Beyond noise");
	if (d->beyond)
		html(p->out, "<strong class=\"result failure\">yes</strong>");
	else
		html(p->out, "%s", beyond);
	html(p->out, "</td></tr>\n");
}

static void differences_operation(struct page *p, const struct differences_operation *op)
{
	uint64_t compared = op->counts.compared[PAIRS_SIDES], differing = op->counts.differing[PAIRS_SIDES];
	html(p->out, "<h3>%s <span class=\"service\">%s</span></h3>\n<p>", op->operation, op->service);
	html_count(p->out, differing);
	html(p->out, " of ");
	html_count(p->out, compared);
	html(p->out, " compared pairs differ");
	if (op->beyond)
		html(p->out, ", <strong class=\"result failure\">beyond noise</strong>");
	html(p->out, ".</p>\n");
	if (op->n_paths) {
		rows_begin(p, "Places that differ, the most frequent first", path_columns, 5);
		for (size_t i = 0; i < op->n_paths && i < ROWS_SHOWN; i++)
			differences_path(p, op, &op->paths[i]);
		rows_end(p);
	}
	for (size_t i = 0; i < op->n_samples; i++)
		differences_sample(p, &op->samples[i]);
}

void page_differences(struct page *p)
{
	CLEANUP(differences_freep) struct differences *found = NULL;
	const struct page_view *v = &p->view;
	const struct differences_options o = {.paths = {p->source->path},
					      .n_paths = 1,
					      .since_us = v->since_us,
					      .until_us = v->until_us,
					      .service = v->service[0] ? v->service : NULL,
					      .operation = v->operation[0] ? v->operation : NULL,
					      .samples = true};
	struct err e = {""};
	page_section(p, "differences", "Differences");
	int r = differences_make(&o, &found, &e);
	if (r == -ENOENT || r == -ENODATA)
		page_note(p, "Nothing was recorded yet.");
	else if (r < 0)
		page_alert(p, e.text);
	else if (!found->n_operations)
		page_note(p, "No answers of both sides were compared in this span.");
	for (size_t i = 0; r == 0 && i < found->n_operations; i++)
		differences_operation(p, &found->operations[i]);
	page_section_end(p);
}
