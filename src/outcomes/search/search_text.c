/* What was found, for people: within the columns of a terminal. */
#include <inttypes.h>
#include <stdio.h>

#include "outcomes/report.h"
#include "outcomes/search/errors.h"
#include "outcomes/search/forms.h"
#include "outcomes/search/organizations.h"
#include "outcomes/search/requests.h"

#define SEARCH_COLUMNS 80

static unsigned text_width(unsigned columns)
{
	if (!columns)
		return SEARCH_COLUMNS;
	return columns < 40 ? 40 : columns;
}

static void text_put_status(struct buf *out, int status)
{
	if (status)
		buf_printf(out, "%3d", status);
	else
		buf_puts(out, "  -");
}

/* --- requests ------------------------------------------------------------------------------------------- */

static void text_put_side(struct buf *out, uint8_t side, const char *backend, unsigned width)
{
	char text[40];
	snprintf(text, sizeof(text), "%s%s%s", outcome_side_text(side), *backend ? "/" : "", backend);
	form_cell(out, text, width);
}

static void text_put_who(struct buf *out, const struct attempt *a, unsigned width)
{
	CLEANUP(buf_releasep) struct buf line = BUF_INIT(4096);
	buf_printf(&line, "request %s", *a->request_id ? a->request_id : "-");
	if (*a->organization)
		buf_printf(&line, "  org %s", a->organization);
	if (*a->user)
		buf_printf(&line, "  user %s", a->user);
	if (a->role != OUTCOME_PRIMARY)
		buf_printf(&line, "  %s", outcome_role_text(a->role));
	buf_terminate(&line);
	form_paragraph(out, line.error ? "" : line.ptr, 4, width);
}

static void text_put_attempt(struct buf *out, const struct attempt *a, unsigned width)
{
	char time[FORM_TIME_MAX], latency[FORM_LATENCY_MAX];
	buf_printf(out, "%s  ", form_time(a->time_us, time));
	text_put_side(out, a->side, a->backend, 13);
	buf_printf(out, "  %-9s  ", outcome_result_text(a->result));
	text_put_status(out, a->http_status);
	buf_printf(out, "  %8s  ", form_latency(a->latency_us, latency));
	form_cut(out, a->operation, width > 80 ? 16 + width - 80 : 16);
	buf_putc(out, '\n');
	text_put_who(out, a, width);
	if (*a->error)
		form_paragraph(out, a->error, 4, width);
}

int requests_to_text(const struct requests *r, unsigned columns, struct buf *out)
{
	char time[FORM_TIME_MAX];
	unsigned width = text_width(columns);
	if (!r->n)
		buf_puts(out, "No request matches.\n");
	for (size_t i = 0; i < r->n; i++)
		text_put_attempt(out, &r->all[i], width);
	if (r->cut)
		buf_printf(
			out,
			"\nLooked at %d attempts, back to %s; older ones may match: narrow it with --since, "
			"--until, or go on with --before %" PRId64 ".\n",
			ROWS_LOOKED_MAX, form_time(r->cut_us, time), r->next);
	else if (r->more_us)
		buf_printf(out, "\nThere are more, before %s.\n", form_time(r->more_us, time));
	else if (r->next)
		buf_printf(out, "\nThere are more: --before %" PRId64 "\n", r->next);
	return out->error;
}

static void text_put_field(struct buf *out, const char *name, const char *value)
{
	if (*value)
		buf_printf(out, "  %-12s  %s\n", name, value);
}

static void text_put_whole(struct buf *out, const struct attempt *a, size_t number, unsigned width)
{
	char time[FORM_TIME_MAX], end[FORM_TIME_MAX], latency[FORM_LATENCY_MAX], status[16] = "";
	buf_printf(out, "\nAttempt %zu: %s%s%s, %s, %s%s\n", number, outcome_side_text(a->side),
		   *a->backend ? "/" : "", a->backend, outcome_role_text(a->role),
		   outcome_result_text(a->result), a->answered ? ", answered the caller" : "");
	buf_printf(out, "  %-12s  %s to %s (%s)\n", "time", form_time(a->time_us, time),
		   form_time(a->time_us + a->latency_us, end) + 11, form_latency(a->latency_us, latency));
	if (a->http_status)
		snprintf(status, sizeof(status), "%d", a->http_status);
	text_put_field(out, "status", status);
	buf_printf(out, "  %-12s  %s: %s\n", "reason", outcome_reason_text(a->reason),
		   outcome_reason_meaning(a->reason));
	text_put_field(out, "variant", a->variant);
	text_put_field(out, "task", a->task_id);
	if (*a->error) {
		buf_printf(out, "  %s\n", "error");
		form_paragraph(out, a->error, 4, width);
	}
}

int request_to_text(const struct requests *r, unsigned columns, struct buf *out)
{
	unsigned width = text_width(columns);
	if (!r->n) {
		buf_puts(out, "No such request is recorded.\n");
		return out->error;
	}
	const struct attempt *a = &r->all[0];
	buf_printf(out, "Request %s\n", a->request_id);
	buf_printf(out, "  %-12s  %s of %s\n", "operation", a->operation, a->service);
	text_put_field(out, "organization", a->organization);
	text_put_field(out, "user", a->user);
	text_put_field(out, "client", a->client);
	for (size_t i = 0; i < r->n; i++)
		text_put_whole(out, &r->all[i], i + 1, width);
	return out->error;
}

/* --- errors --------------------------------------------------------------------------------------------- */

static void text_put_group(struct buf *out, const struct error_group *g, unsigned width)
{
	char first[FORM_TIME_MAX], last[FORM_TIME_MAX];
	buf_printf(out, "%8" PRIu64 "  ", g->count);
	text_put_side(out, g->side, g->backend, 15);
	buf_printf(out, "  %-9s  ", outcome_result_text(g->result));
	text_put_status(out, g->http_status);
	buf_puts(out, "  ");
	form_cut(out, g->operation, width > 63 ? width - 43 : 20);
	buf_putc(out, '\n');
	form_paragraph(out, *g->error ? g->error : "(no text was recorded)", 10, width);
	buf_printf(out, "%10s%s to %s%s%s\n", "", form_time(g->first_us, first), form_time(g->last_us, last),
		   g->role == OUTCOME_PRIMARY ? "" : ", ",
		   g->role == OUTCOME_PRIMARY ? "" : outcome_role_text(g->role));
	if (*g->request_id)
		buf_printf(out, "%10s--request %s\n", "", g->request_id);
}

int errors_to_text(const struct errors *r, unsigned columns, struct buf *out)
{
	unsigned width = text_width(columns);
	if (!r->recorded)
		buf_puts(out, "Made by a version that recorded no error texts; only results are known.\n");
	if (!r->n) {
		buf_puts(out, "Nothing went wrong.\n");
		return out->error;
	}
	buf_puts(out, "   Count  Side             Result     Status  Operation\n");
	for (size_t i = 0; i < r->n; i++)
		text_put_group(out, &r->all[i], width);
	if (r->left_out)
		buf_printf(out, "\n%" PRIu64 " of %" PRIu64 " attempts are of groups that are not listed.\n",
			   r->left_out, r->total);
	if (r->cut)
		buf_printf(out, "\nOnly the newest %d attempts were looked at.\n", ROWS_LOOKED_MAX);
	return out->error;
}

/* --- organizations -------------------------------------------------------------------------------------- */

static unsigned text_name_width(unsigned width)
{
	return width > 77 ? width - 57 : 20;
}

static void text_put_organization(struct buf *out, const struct organization *o, unsigned width)
{
	char since[FORM_TIME_MAX], share[16];
	uint64_t of_task = o->sides[OUTCOME_TASK].requests;
	snprintf(share, sizeof(share), "%.1f%%",
		 o->requests ? report_percent((double)of_task / (double)o->requests) : 0);
	form_cell(out, o->name, text_name_width(width));
	buf_printf(out, "  %-6s  %s%-19s  %8" PRIu64 "  %6" PRIu64 "  %6s\n", organization_on_text(o->on),
		   o->before_span ? "<" : " ", form_time(o->since_us, since), o->requests, o->errors, share);
}

int organization_list_to_text(const struct organization_list *r, unsigned columns, struct buf *out)
{
	unsigned width = text_width(columns);
	bool before = false;
	if (!r->n) {
		buf_puts(out, "No organization made requests.\n");
		return out->error;
	}
	form_cell(out, "Organization", text_name_width(width));
	buf_puts(out, "  Side    Since                 Requests  Errors    Task\n");
	for (size_t i = 0; i < r->n; i++) {
		text_put_organization(out, &r->all[i], width);
		before |= r->all[i].before_span;
	}
	if (before)
		buf_puts(out,
			 "\n<  not on the other side since then, nor as far as this span reaches back\n");
	if (r->n < r->found)
		buf_printf(out, "\n%zu of %zu organizations.\n", r->n, r->found);
	if (r->left_out)
		buf_printf(out, "\nBeyond the first %d organizations: %" PRIu64 " attempts.\n",
			   ORGANIZATIONS_MAX, r->left_out);
	if (r->cut)
		buf_printf(out, "\nOnly the newest %d attempts were looked at.\n", ROWS_LOOKED_MAX);
	return out->error;
}
