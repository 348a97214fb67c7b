/* Section 7: requests: a list of attempts, and one request with its decision and every attempt. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "outcomes/search/requests.h"
#include "page/html.h"
#include "page/page_layout.h"
#include "page/page_rows.h"

#define REQUEST_STEPS_MAX (1u << 20)

static const char *const request_columns[] = {"Time", "Operation",    "Side", "Result",
					      "Took", "Organization", "User", "Request"};

/* --- the list ------------------------------------------------------------------------------------------- */

static void requests_form(struct page *p)
{
	const struct page_view *v = &p->view;
	const struct rows_field fields[] = {
		{"id", "Request", v->id, NULL},	       {"org", "Organization", v->org, NULL},
		{"user", "User", v->user, NULL},       {"operation", "Operation", v->operation, NULL},
		{"side", "Side", v->side, rows_sides}, {"result", "Result", v->result, rows_results},
		{"status", "Status", v->status, NULL}};
	rows_form(p, "/requests", fields, sizeof(fields) / sizeof(fields[0]));
}

static void requests_link(struct page *p, const struct attempt *a)
{
	if (!a->request_id[0]) {
		html(p->out, "–");
		return;
	}
	html(p->out, "<a href=\"");
	page_link(p->out, &p->view, "/requests", "id", a->request_id);
	html(p->out, "\">%s</a>", a->request_id);
}

static void requests_row(struct page *p, const struct attempt *a)
{
	html(p->out, "<tr>");
	rows_cell(p, "Time");
	html_time(p->out, a->time_us, p->source->now_us);
	html(p->out, "</td>");
	rows_cell(p, "Operation");
	html(p->out, "%s <span class=\"service\">%s</span></td>", a->operation, a->service);
	rows_cell(p, "Side");
	rows_side(p, a->side, a->backend);
	if (a->role != OUTCOME_PRIMARY)
		html(p->out, " %s", outcome_role_text((enum outcome_role)a->role));
	html(p->out, "</td>");
	rows_cell(p, "Result");
	rows_result(p, a->result, a->http_status);
	if (a->error[0])
		html(p->out, " <span class=\"error\">%s</span>", a->error);
	html(p->out, "</td>");
	rows_number(p, "Took");
	html_latency(p->out, a->latency_us);
	html(p->out, "</td>");
	rows_cell(p, "Organization");
	html(p->out, "%s</td>", a->organization[0] ? a->organization : "–");
	rows_cell(p, "User");
	html(p->out, "%s</td>", a->user[0] ? a->user : "–");
	rows_cell(p, "Request");
	requests_link(p, a);
	html(p->out, "</td></tr>\n");
}

static void requests_more(struct page *p, const struct requests *found)
{
	char next[24];
	if (found->cut) {
		html(p->out, "<p class=\"note\">Looked back to ");
		html_time(p->out, found->cut_us, p->source->now_us);
		html(p->out, "; older ones may match.</p>\n");
	}
	if (!found->next)
		return;
	snprintf(next, sizeof(next), "%lld", (long long)found->next);
	html(p->out, "<p class=\"pages\"><a rel=\"next\" href=\"");
	page_link(p->out, &p->view, "/requests", "page", next);
	html(p->out, "\">Older requests</a></p>\n");
}

static void requests_list(struct page *p, const struct requests *found)
{
	if (!found->n)
		page_note(p, "No request of this span matches.");
	if (found->n) {
		rows_begin(p, "Attempts, the newest first", request_columns,
			   sizeof(request_columns) / sizeof(request_columns[0]));
		for (size_t i = 0; i < found->n; i++)
			requests_row(p, &found->all[i]);
		rows_end(p);
	}
	requests_more(p, found);
}

static void requests_trouble(struct page *p, int r, const struct err *e)
{
	if (r == -ENOENT || r == -ENODATA)
		page_note(p, "Nothing was recorded yet.");
	else
		page_alert(p, e->text);
}

void page_requests(struct page *p)
{
	CLEANUP(requests_freep) struct requests *found = NULL;
	struct search_filter f;
	struct err e = {""};
	char wrong[160] = "", *end;
	long long before = strtoll(p->view.page, &end, 10);
	requests_form(p); /* beside the section, which is replaced while someone may be typing */
	page_section(p, "requests", "Requests");
	if (*end || before < 0) {
		page_alert(p, "page: not a number");
	} else if (!rows_filter(&p->view, &f, wrong)) {
		page_alert(p, wrong);
	} else {
		int r = requests_find(p->source->path, &f, before, ROWS_SHOWN, &found, &e);
		if (r == 0)
			requests_list(p, found);
		else
			requests_trouble(p, r, &e);
	}
	page_section_end(p);
}

/* --- one request ---------------------------------------------------------------------------------------- */

static void request_fact(struct page *p, const char *name, const char *value)
{
	if (value[0])
		html(p->out, "<dt>%s</dt><dd>%s</dd>", name, value);
}

static void request_step(struct page *p, const struct json_node *step)
{
	const char *name = json_string(json_get(step, "name")),
		   *status = json_string(json_get(step, "status"));
	const char *began = json_string(json_get(step, "submitted_at"));
	const char *ended = json_string(json_get(step, "completed_at"));
	const char *error = json_string(json_get(step, "error"));
	double item;
	html(p->out, "<li><b>%s</b>", name ? name : "");
	if (json_number(json_get(step, "item"), &item))
		html(p->out, " [%d]", (int)item);
	if (status)
		html(p->out, " <span class=\"result %s\">%s</span>",
		     strcmp(status, "completed") == 0 ? "success" : status, status);
	if (began)
		html(p->out, " %s", began);
	if (ended)
		html(p->out, " – %s", ended);
	if (error)
		html(p->out, " <span class=\"error\">%s</span>", error);
	html(p->out, "</li>");
}

/* Of an attempt that is a workflow. */
static void request_steps(struct page *p, const struct attempt *a)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(REQUEST_STEPS_MAX);
	const struct page_question q = {.service = a->service, .operation = a->operation};
	struct json_doc *doc = NULL;
	if (!p->source->steps || a->side != OUTCOME_TASK || !a->task_id[0])
		return;
	p->source->steps(p->source->arg, &q, a->backend, a->task_id, &text);
	if (!text.len || text.error || json_doc_parse(buf_span(&text), &doc, NULL) < 0)
		return;
	html(p->out, "<dt>Steps</dt><dd><ol class=\"steps\">");
	for (const struct json_node *s = json_first(json_root(doc)); s; s = json_next(s))
		request_step(p, s);
	html(p->out, "</ol></dd>");
	json_doc_free(doc);
}

static void request_attempt(struct page *p, const struct attempt *a, size_t number, int64_t began_us)
{
	html(p->out, "<article class=\"card attempt\"><h3>%zu. ", number);
	rows_side(p, a->side, a->backend);
	html(p->out, " %s ", outcome_role_text((enum outcome_role)a->role));
	rows_result(p, a->result, a->http_status);
	html(p->out, "</h3><dl>");
	html(p->out, "<dt>Began</dt><dd>");
	html_time(p->out, a->time_us, p->source->now_us);
	if (number > 1) {
		html(p->out, ", ");
		html_latency(p->out, a->time_us > began_us ? a->time_us - began_us : 0);
		html(p->out, " after the first");
	}
	html(p->out, "</dd><dt>Took</dt><dd>");
	html_latency(p->out, a->latency_us);
	html(p->out, "</dd>");
	request_fact(p, "Answer",
		     a->answered ? "this attempt gave the caller its answer" : "not from this attempt");
	request_fact(p, "Task", a->task_id);
	request_steps(p, a);
	if (a->error[0])
		html(p->out, "<dt>Error</dt><dd class=\"error\">%s</dd>", a->error);
	html(p->out, "</dl></article>\n");
}

static void request_lines(struct page *p, struct buf *text)
{
	char *rest = NULL;
	buf_terminate(text);
	for (char *line = strtok_r(text->ptr, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		html(p->out, "%s\n", line);
}

static void request_decision(struct page *p, const struct attempt *a)
{
	html(p->out, "<h3>Decision</h3>\n<dl>");
	html(p->out, "<dt>Reason</dt><dd><code>%s</code>: %s</dd>",
	     outcome_reason_text((enum outcome_reason)a->reason),
	     outcome_reason_meaning((enum outcome_reason)a->reason));
	request_fact(p, "Variant", a->variant);
	html(p->out, "</dl>\n");
	if (!p->source->explain)
		return;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(PAGE_MAX / 16);
	const struct page_question q = {.service = a->service,
					.operation = a->operation,
					.user = a->user,
					.organization = a->organization,
					.time_us = a->time_us};
	p->source->explain(p->source->arg, &q, &text);
	if (text.len && !text.error) {
		html(p->out, "<h3>What would be decided now</h3>\n<p class=\"note\">By the flags as they are "
			     "now; those of the time of the request are not kept.</p>\n");
		html(p->out, "<pre class=\"explain\" tabindex=\"0\">");
		request_lines(p, &text);
		html(p->out, "</pre>\n");
	}
}

static void request_whole(struct page *p, const struct requests *found)
{
	const struct attempt *a = &found->all[0];
	html(p->out, "<dl>");
	html(p->out, "<dt>Request</dt><dd>%s</dd><dt>Operation</dt><dd>%s of %s</dd>", a->request_id,
	     a->operation, a->service);
	request_fact(p, "Organization", a->organization);
	request_fact(p, "User", a->user);
	request_fact(p, "Client", a->client);
	html(p->out, "</dl>\n<div class=\"cards\">");
	for (size_t i = 0; i < found->n; i++)
		request_attempt(p, &found->all[i], i + 1, a->time_us);
	html(p->out, "</div>\n");
	request_decision(p, a);
}

void page_request(struct page *p)
{
	CLEANUP(requests_freep) struct requests *found = NULL;
	struct err e = {""};
	page_section(p, "request", "Request");
	html(p->out, "<p><a href=\"");
	page_link(p->out, &p->view, "/requests", "id", "");
	html(p->out, "\">All requests</a></p>\n");
	int r = requests_of(p->source->path, p->view.id, &found, &e);
	if (r < 0)
		requests_trouble(p, r, &e);
	else if (!found->n && found->cut)
		page_note(
			p,
			"Not found among the newest of what is recorded; not all of it could be looked at.");
	else if (!found->n)
		page_note(p, "No request of this id is recorded.");
	else
		request_whole(p, found);
	page_section_end(p);
}
