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

/* --- requests ------------------------------------------------------------------------------------------- */

static int search_find_requests(const struct search_arguments *a, struct requests **ret, struct err *e)
{
	struct requests *all[SEARCH_FILES_MAX] = {NULL};
	int r = 0;
	for (size_t i = 0; r == 0 && i < a->n_paths; i++)
		r = a->what == SEARCH_REQUEST
			    ? requests_of(a->paths[i], a->filter.request_id, &all[i], e)
			    : requests_find(a->paths[i], &a->filter, a->before, search_limit(a), &all[i], e);
	if (r == 0)
		r = requests_merge(all, a->n_paths, a->what == SEARCH_REQUEST, search_limit(a), ret, e);
	for (size_t i = 0; i < a->n_paths; i++)
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

static int search_errors(const struct search_arguments *a, struct buf *out, struct err *e)
{
	struct errors *all[SEARCH_FILES_MAX] = {NULL};
	CLEANUP(errors_freep) struct errors *found = NULL;
	int r = 0;
	for (size_t i = 0; r == 0 && i < a->n_paths; i++)
		r = errors_find(a->paths[i], &a->filter, ERRORS_MAX, &all[i], e);
	if (r == 0)
		r = errors_merge(all, a->n_paths, search_limit(a), &found, e);
	for (size_t i = 0; i < a->n_paths; i++)
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

static int search_organizations(const struct search_arguments *a, struct buf *out, struct err *e)
{
	const struct organizations_options o = {
		.filter = a->filter, .search = a->search, .limit = search_limit(a)};
	CLEANUP(organization_list_freep) struct organization_list *found = NULL;
	int r = organization_list_of_files(a->paths, a->n_paths, &o, &found, e);
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
	int r = 0;
	switch (a->what) {
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
