#include "programs/status/search_command.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "outcomes/search/errors.h"
#include "outcomes/search/forms.h"
#include "outcomes/search/organizations.h"
#include "outcomes/search/requests.h"

static size_t search_limit(const struct search_arguments *a)
{
	return a->limit ? a->limit : SEARCH_LIMIT;
}

/* What span is told, since errors and organizations have one without being asked for it. */
static void search_put_span(const struct search_arguments *a, struct buf *out)
{
	char time[FORM_TIME_MAX];
	if (a->format != SEARCH_TEXT || (!a->filter.since_us && !a->filter.until_us))
		return;
	const char *between = "";
	if (a->filter.since_us) {
		buf_printf(out, "Since %s", form_time(a->filter.since_us, time));
		between = ", until ";
	} else {
		between = "Until ";
	}
	if (a->filter.until_us)
		buf_printf(out, "%s%s", between, form_time(a->filter.until_us, time));
	buf_puts(out, " (UTC)\n\n");
}

/* --- of a router ---------------------------------------------------------------------------------------- */

static void search_put_number(struct buf *url, const char *name, int64_t number)
{
	if (number)
		buf_printf(url, "&%s=%" PRId64, name, number);
}

/* What a router answers to the same question. */
static int search_ask(const struct search_arguments *a, const char *router, const char *what, size_t limit,
		      struct buf *body, struct err *e)
{
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(16384);
	const struct search_filter *f = &a->filter;
	buf_printf(&url, "/_admin/%s.json?limit=%zu", what, limit);
	status_put_time(&url, "since", f->since_us);
	status_put_time(&url, "until", f->until_us);
	status_put_parameter(&url, "service", f->service);
	status_put_parameter(&url, "operation", f->operation);
	status_put_parameter(&url, "org", f->organization);
	status_put_parameter(&url, "user", f->user);
	status_put_parameter(&url, "request", f->request_id);
	status_put_parameter(&url, "task", f->task_id);
	status_put_parameter(&url, "backend", f->backend);
	status_put_parameter(&url, "error", f->error);
	status_put_parameter(&url, "part", a->search);
	if (f->side >= 0)
		status_put_parameter(&url, "side", outcome_side_text((enum outcome_side)f->side));
	if (f->result >= 0)
		status_put_parameter(&url, "result", outcome_result_text((enum outcome_result)f->result));
	search_put_number(&url, "status", f->status);
	search_put_number(&url, "before", a->before);
	buf_terminate(&url);
	if (url.error)
		return err_set(e, url.error, "%s: too long", router);
	return status_sources_get(a->sources, router, url.ptr, body, e);
}

/* --- requests ------------------------------------------------------------------------------------------- */

static int search_requests_of(const struct search_arguments *a, const struct status_source *s,
			      struct requests **ret, struct err *e)
{
	CLEANUP(buf_releasep) struct buf body = {0};
	if (!s->router)
		return a->what == SEARCH_REQUEST
			       ? requests_of(s->name, a->filter.request_id, ret, e)
			       : requests_find(s->name, &a->filter, a->before, search_limit(a), ret, e);
	int r = search_ask(a, s->name, "requests", search_limit(a), &body, e);
	return r < 0 ? r : requests_parse(s->name, buf_span(&body), ret, e);
}

static int search_find_requests(const struct search_arguments *a, struct requests **ret, struct err *e)
{
	struct requests *all[STATUS_SOURCES_MAX] = {NULL};
	const size_t n = a->sources->n;
	int r = 0;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = search_requests_of(a, &a->sources->all[i], &all[i], e);
	if (r == 0)
		r = requests_merge(all, n, a->what == SEARCH_REQUEST, search_limit(a), ret, e);
	for (size_t i = 0; i < n; i++)
		requests_free(all[i]);
	return r;
}

static int search_requests(const struct search_arguments *a, struct buf *out, struct err *e)
{
	CLEANUP(requests_freep) struct requests *found = NULL;
	int r = search_find_requests(a, &found, e);
	if (r < 0)
		return r;
	if (a->format == SEARCH_JSON) {
		requests_to_json(found, out);
	} else if (a->format == SEARCH_CSV) {
		requests_to_csv(found, out);
	} else if (a->what == SEARCH_REQUEST) {
		request_to_text(found, a->columns, out);
	} else {
		search_put_span(a, out);
		requests_to_text(found, a->columns, out);
	}
	return a->what == SEARCH_REQUEST && !found->n ? SEARCH_NOT_FOUND : 0;
}

/* --- errors --------------------------------------------------------------------------------------------- */

static int search_errors_of(const struct search_arguments *a, const struct status_source *s,
			    struct errors **ret, struct err *e)
{
	CLEANUP(buf_releasep) struct buf body = {0};
	if (!s->router)
		return errors_find(s->name, &a->filter, ERRORS_MAX, ret, e);
	int r = search_ask(a, s->name, "errors", ERRORS_MAX, &body, e);
	return r < 0 ? r : errors_parse(s->name, buf_span(&body), ret, e);
}

static int search_errors(const struct search_arguments *a, struct buf *out, struct err *e)
{
	struct errors *all[STATUS_SOURCES_MAX] = {NULL};
	CLEANUP(errors_freep) struct errors *found = NULL;
	const size_t n = a->sources->n;
	int r = 0;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = search_errors_of(a, &a->sources->all[i], &all[i], e);
	if (r == 0)
		r = errors_merge(all, n, search_limit(a), &found, e);
	for (size_t i = 0; i < n; i++)
		errors_free(all[i]);
	if (r < 0)
		return r;
	search_put_span(a, out);
	if (a->format == SEARCH_JSON)
		errors_to_json(found, out);
	else if (a->format == SEARCH_CSV)
		errors_to_csv(found, out);
	else
		errors_to_text(found, a->columns, out);
	return 0;
}

/* --- organizations -------------------------------------------------------------------------------------- */

/* Files are read as one; what a router tells must be all that it has, or the sums would not be whole. */
static int search_find_organizations(const struct search_arguments *a, struct organization_list **ret,
				     struct err *e)
{
	const struct organizations_options o = {
		.filter = a->filter, .search = a->search, .limit = search_limit(a)};
	const char *paths[STATUS_SOURCES_MAX];
	struct organization_list *others[STATUS_SOURCES_MAX] = {NULL};
	size_t n_paths = 0, n_others = 0;
	int r = 0;
	for (size_t i = 0; r == 0 && i < a->sources->n; i++) {
		CLEANUP(buf_releasep) struct buf body = {0};
		const struct status_source *s = &a->sources->all[i];
		if (!s->router) {
			paths[n_paths++] = s->name;
			continue;
		}
		r = search_ask(a, s->name, "organizations", ORGANIZATIONS_TOLD_MAX, &body, e);
		if (r == 0)
			r = organization_list_parse(s->name, buf_span(&body), &others[n_others++], e);
	}
	if (r == 0)
		r = organization_list_of_all(paths, n_paths, others, n_others, &o, ret, e);
	for (size_t i = 0; i < n_others; i++)
		organization_list_free(others[i]);
	return r;
}

static int search_organizations(const struct search_arguments *a, struct buf *out, struct err *e)
{
	CLEANUP(organization_list_freep) struct organization_list *found = NULL;
	int r = search_find_organizations(a, &found, e);
	if (r < 0)
		return r;
	search_put_span(a, out);
	if (a->format == SEARCH_JSON)
		organization_list_to_json(found, out);
	else if (a->format == SEARCH_CSV)
		organization_list_to_csv(found, out);
	else
		organization_list_to_text(found, a->columns, out);
	return 0;
}

int search_command(const struct search_arguments *a, struct buf *out)
{
	struct err e = {""};
	int r = status_sources_differ(a->sources, &e);
	switch (r == 0 ? a->what : SEARCH_NOTHING) {
	case SEARCH_REQUESTS:
	case SEARCH_REQUEST:
		r = search_requests(a, out, &e);
		break;
	case SEARCH_ERRORS:
		r = search_errors(a, out, &e);
		break;
	case SEARCH_ORGANIZATIONS:
		r = search_organizations(a, out, &e);
		break;
	case SEARCH_NOTHING:
		break;
	}
	if (r >= 0)
		return r;
	fprintf(stderr, "migration-status: %s\n", e.text);
	return EXIT_FAILURE;
}
