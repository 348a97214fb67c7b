/* What another router found: the inverse of search_json.c. */
#include <errno.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/text.h"
#include "outcomes/search/errors.h"
#include "outcomes/search/organizations.h"
#include "outcomes/search/requests.h"
#include "outcomes/when.h"

#define EXACT_MAX 9e15 /* whole numbers that a double holds */

static int64_t found_number(const struct json_node *object, const char *name)
{
	double d;
	return json_number(json_get(object, name), &d) && d > -EXACT_MAX && d < EXACT_MAX ? (int64_t)d : 0;
}

static uint64_t found_count(const struct json_node *object, const char *name)
{
	int64_t n = found_number(object, name);
	return n < 0 ? 0 : (uint64_t)n;
}

static int64_t found_time(const struct json_node *object, const char *name)
{
	const char *text = json_string(json_get(object, name));
	int64_t us;
	return text && when_parse(text, 0, &us) ? us : 0;
}

static struct span found_text(const struct json_node *object, const char *name)
{
	const char *text = json_string(json_get(object, name));
	return span_of(text ? text : "");
}

static bool found_truth(const struct json_node *object, const char *name)
{
	bool b;
	return json_bool(json_get(object, name), &b) && b;
}

/* A word of a newer version. */
static uint8_t found_word(int parsed, int otherwise)
{
	return (uint8_t)(parsed < 0 ? otherwise : parsed);
}

#define FOUND_TEXT(object, to, member, name) \
	text_copy(found_text(object, name), (to)->member, sizeof((to)->member))

/* The list `what` in it; *ret_n: how long it is. */
static int found_list(struct span json, const char *what, size_t max, struct json_doc **ret_doc,
		      const struct json_node **ret, size_t *ret_n, struct err *e)
{
	int r = json_doc_parse(json, ret_doc, e);
	if (r < 0)
		return r;
	const struct json_node *root = json_root(*ret_doc);
	*ret = json_get(root, what);
	*ret_n = json_count(*ret);
	if (found_number(root, "version") != 1 || json_node_type(*ret) != JSON_ARRAY)
		return err_set(e, -EPROTO, "it does not tell of %s", what);
	return *ret_n > max ? err_set(e, -EPROTO, "more than %zu %s", max, what) : 0;
}

/* --- requests ------------------------------------------------------------------------------------------- */

static void found_attempt(const struct json_node *o, struct attempt *a)
{
	a->row = found_number(o, "row");
	a->time_us = found_time(o, "time");
	a->latency_us = found_number(o, "latency_us");
	FOUND_TEXT(o, a, request_id, "request_id");
	FOUND_TEXT(o, a, service, "service");
	FOUND_TEXT(o, a, operation, "operation");
	FOUND_TEXT(o, a, organization, "organization");
	FOUND_TEXT(o, a, user, "user");
	FOUND_TEXT(o, a, client, "client");
	FOUND_TEXT(o, a, backend, "backend");
	FOUND_TEXT(o, a, variant, "variant");
	FOUND_TEXT(o, a, task_id, "task_id");
	FOUND_TEXT(o, a, error, "error");
	a->side = found_word(outcome_side_parse(found_text(o, "side")), OUTCOME_LEGACY);
	a->role = found_word(outcome_role_parse(found_text(o, "role")), OUTCOME_PRIMARY);
	a->reason = found_word(outcome_reason_parse(found_text(o, "reason")), REASON_OTHER);
	a->result = found_word(outcome_result_parse(found_text(o, "result")), OUTCOME_UNKNOWN);
	a->answered = found_truth(o, "answered");
	a->http_status = (int)found_number(o, "http_status");
}

int requests_parse(const char *name, struct span json, struct requests **ret, struct err *e)
{
	CLEANUP(requests_freep) struct requests *found = calloc(1, sizeof(*found));
	struct json_doc *doc = NULL;
	const struct json_node *list = NULL;
	size_t n = 0;
	int r = found ? found_list(json, "requests", REQUESTS_MAX, &doc, &list, &n, e)
		      : err_set(e, -ENOMEM, "out of memory");
	if (r == 0 && !(found->all = calloc(n + 1, sizeof(*found->all))))
		r = err_set(e, -ENOMEM, "out of memory");
	for (const struct json_node *one = r == 0 ? json_first(list) : NULL; one; one = json_next(one))
		found_attempt(one, &found->all[found->n++]);
	if (r == 0) {
		found->next = found_number(json_root(doc), "next");
		found->cut = !found_truth(json_root(doc), "complete");
	}
	json_doc_free(doc);
	if (r < 0)
		return err_prefix(e, r, "%s", name);
	*ret = steal(found);
	return 0;
}

/* --- errors --------------------------------------------------------------------------------------------- */

static void found_group(const struct json_node *o, struct error_group *g)
{
	g->count = found_count(o, "count");
	FOUND_TEXT(o, g, service, "service");
	FOUND_TEXT(o, g, operation, "operation");
	FOUND_TEXT(o, g, backend, "backend");
	FOUND_TEXT(o, g, error, "error");
	FOUND_TEXT(o, g, request_id, "sample_request_id");
	FOUND_TEXT(o, g, text, "sample_error");
	g->side = found_word(outcome_side_parse(found_text(o, "side")), OUTCOME_LEGACY);
	g->role = found_word(outcome_role_parse(found_text(o, "role")), OUTCOME_PRIMARY);
	g->result = found_word(outcome_result_parse(found_text(o, "result")), OUTCOME_UNKNOWN);
	g->http_status = (int)found_number(o, "http_status");
	g->first_us = found_time(o, "first");
	g->last_us = found_time(o, "last");
}

int errors_parse(const char *name, struct span json, struct errors **ret, struct err *e)
{
	CLEANUP(errors_freep) struct errors *found = calloc(1, sizeof(*found));
	struct json_doc *doc = NULL;
	const struct json_node *list = NULL;
	size_t n = 0;
	int r = found ? found_list(json, "errors", ERRORS_MAX, &doc, &list, &n, e)
		      : err_set(e, -ENOMEM, "out of memory");
	if (r == 0 && !(found->all = calloc(n + 1, sizeof(*found->all))))
		r = err_set(e, -ENOMEM, "out of memory");
	for (const struct json_node *one = r == 0 ? json_first(list) : NULL; one; one = json_next(one))
		found_group(one, &found->all[found->n++]);
	if (r == 0) {
		found->total = found_count(json_root(doc), "total");
		found->left_out = found_count(json_root(doc), "left_out");
		found->recorded = found_truth(json_root(doc), "recorded");
		found->cut = !found_truth(json_root(doc), "complete");
	}
	json_doc_free(doc);
	if (r < 0)
		return err_prefix(e, r, "%s", name);
	*ret = steal(found);
	return 0;
}

/* --- organizations -------------------------------------------------------------------------------------- */

static void found_side(const struct json_node *o, struct organization_sums *s)
{
	s->requests = found_count(o, "requests");
	s->counted = found_count(o, "counted");
	s->errors = found_count(o, "errors");
	s->first_us = found_time(o, "first");
	s->last_us = found_time(o, "last");
}

int organization_list_parse(const char *name, struct span json, struct organization_list **ret, struct err *e)
{
	CLEANUP(organization_list_freep) struct organization_list *found = calloc(1, sizeof(*found));
	struct json_doc *doc = NULL;
	const struct json_node *list = NULL;
	size_t n = 0;
	int r = found ? found_list(json, "organizations", ORGANIZATIONS_TOLD_MAX, &doc, &list, &n, e)
		      : err_set(e, -ENOMEM, "out of memory");
	if (r == 0 && found_count(json_root(doc), "found") > n)
		r = err_set(e, -EPROTO, "more than %d organizations: name a part of theirs, or --org",
			    ORGANIZATIONS_TOLD_MAX);
	if (r == 0 && !(found->all = calloc(n + 1, sizeof(*found->all))))
		r = err_set(e, -ENOMEM, "out of memory");
	for (const struct json_node *one = r == 0 ? json_first(list) : NULL; one; one = json_next(one)) {
		struct organization *o = &found->all[found->n++];
		FOUND_TEXT(one, o, name, "organization");
		for (int side = 0; side < OUTCOME_SIDE_COUNT; side++)
			found_side(json_get(one, outcome_side_text((enum outcome_side)side)),
				   &o->sides[side]);
	}
	if (r == 0) {
		found->found = n;
		found->left_out = found_count(json_root(doc), "left_out");
		found->cut = !found_truth(json_root(doc), "complete");
	}
	json_doc_free(doc);
	if (r < 0)
		return err_prefix(e, r, "%s", name);
	*ret = steal(found);
	return 0;
}
