#include "programs/router/reports/app_search.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/digits.h"
#include "operation/route.h"
#include "outcomes/search/errors.h"
#include "outcomes/search/organizations.h"
#include "outcomes/search/requests.h"
#include "outcomes/when.h"
#include "programs/router/app_internal.h"

#define SEARCH_VALUE_MAX 1024 /* bytes of a parameter */
#define SEARCH_LIMIT 50

enum search_value {
	VALUE_SINCE,
	VALUE_UNTIL,
	VALUE_SERVICE,
	VALUE_OPERATION,
	VALUE_ORG,
	VALUE_USER,
	VALUE_REQUEST,
	VALUE_TASK,
	VALUE_SIDE,
	VALUE_RESULT,
	VALUE_BACKEND,
	VALUE_STATUS,
	VALUE_ERROR,
	VALUE_BEFORE,
	VALUE_LIMIT,
	VALUE_PART,
	VALUES
};

static const char *const search_names[VALUES] = {
	"since", "until",  "service", "operation", "org",   "user",   "request", "task",
	"side",	 "result", "backend", "status",	   "error", "before", "limit",	 "part"};

struct search_question {
	struct buf values[VALUES];
	struct search_filter filter;
	int64_t before;
	size_t limit; /* 0: not said */
};

static void search_question_release(struct search_question *q)
{
	for (size_t i = 0; i < VALUES; i++)
		buf_release(&q->values[i]);
}

static const char *search_text(const struct search_question *q, enum search_value i)
{
	return q->values[i].len ? q->values[i].ptr : NULL;
}

static int search_refuse(struct err *e, const char *name, const char *what)
{
	err_set(e, 400, "%s: %s", name, what);
	return 400;
}

static int search_time(const struct search_question *q, enum search_value i, int64_t *ret, struct err *e)
{
	const char *text = search_text(q, i);
	if (!text || when_parse(text, clock_wall_us(), ret))
		return 0;
	return search_refuse(e, search_names[i], "neither a duration such as 24h nor an RFC 3339 time");
}

static int search_number(const struct search_question *q, enum search_value i, uint64_t most, int64_t *ret,
			 struct err *e)
{
	uint64_t n;
	if (!search_text(q, i))
		return 0;
	if (!digits_read(buf_span(&q->values[i]), most, &n) || n < 1)
		return search_refuse(e, search_names[i], "no such number");
	*ret = (int64_t)n;
	return 0;
}

static int search_word(const struct search_question *q, enum search_value i, int (*parse)(struct span),
		       int *ret, struct err *e)
{
	if (search_text(q, i) && (*ret = parse(buf_span(&q->values[i]))) < 0)
		return search_refuse(e, search_names[i], "no such word");
	return 0;
}

static int search_read_texts(struct span target, struct search_question *q, struct err *e)
{
	if (route_query_check(target, search_names, VALUES, e) < 0)
		return 400;
	for (size_t i = 0; i < VALUES; i++) {
		struct buf *b = &q->values[i];
		*b = BUF_INIT(SEARCH_VALUE_MAX);
		route_query(target, span_of(search_names[i]), b);
		if (b->error || memchr(b->ptr ? b->ptr : "", 0, b->len))
			return search_refuse(e, search_names[i], "too long, or with a NUL");
	}
	return 0;
}

/* 0, or an HTTP status. */
static int search_read(struct span target, struct search_question *q, struct err *e)
{
	struct search_filter *f = &q->filter;
	int64_t status = 0, limit = 0;
	*f = SEARCH_FILTER_ALL;
	int code = search_read_texts(target, q, e);
	f->service = search_text(q, VALUE_SERVICE);
	f->operation = search_text(q, VALUE_OPERATION);
	f->organization = search_text(q, VALUE_ORG);
	f->user = search_text(q, VALUE_USER);
	f->request_id = search_text(q, VALUE_REQUEST);
	f->task_id = search_text(q, VALUE_TASK);
	f->backend = search_text(q, VALUE_BACKEND);
	f->error = search_text(q, VALUE_ERROR);
	if (code == 0)
		code = search_time(q, VALUE_SINCE, &f->since_us, e);
	if (code == 0)
		code = search_time(q, VALUE_UNTIL, &f->until_us, e);
	if (code == 0)
		code = search_word(q, VALUE_SIDE, outcome_side_parse, &f->side, e);
	if (code == 0)
		code = search_word(q, VALUE_RESULT, outcome_result_parse, &f->result, e);
	if (code == 0)
		code = search_number(q, VALUE_STATUS, 999, &status, e);
	if (code == 0)
		code = search_number(q, VALUE_BEFORE, INT64_MAX, &q->before, e);
	if (code == 0)
		code = search_number(q, VALUE_LIMIT, ORGANIZATIONS_TOLD_MAX, &limit, e);
	f->status = (int)status;
	q->limit = (size_t)limit;
	return code;
}

static size_t search_limit(const struct search_question *q, size_t most)
{
	size_t limit = q->limit ? q->limit : SEARCH_LIMIT;
	return limit < most ? limit : most;
}

static int search_requests(const char *path, const struct search_question *q, struct buf *json, struct err *e)
{
	CLEANUP(requests_freep) struct requests *found = NULL;
	int r = q->filter.request_id ? requests_of(path, q->filter.request_id, &found, e)
				     : requests_find(path, &q->filter, q->before,
						     search_limit(q, REQUESTS_MAX), &found, e);
	return r < 0 ? r : requests_to_json(found, json);
}

static int search_errors(const char *path, const struct search_question *q, struct buf *json, struct err *e)
{
	CLEANUP(errors_freep) struct errors *found = NULL;
	int r = errors_find(path, &q->filter, search_limit(q, ERRORS_MAX), &found, e);
	return r < 0 ? r : errors_to_json(found, json);
}

static int search_organizations(const char *path, const struct search_question *q, struct buf *json,
				struct err *e)
{
	CLEANUP(organization_list_freep) struct organization_list *found = NULL;
	const struct organizations_options o = {.filter = q->filter,
						.search = search_text(q, VALUE_PART),
						.limit = search_limit(q, ORGANIZATIONS_TOLD_MAX)};
	int r = organization_list_find(path, &o, &found, e);
	return r < 0 ? r : organization_list_to_json(found, json);
}

int app_search(void *arg, struct span target, struct buf *json, struct err *e)
{
	const struct app *a = arg;
	CLEANUP(search_question_release) struct search_question q = {.before = 0};
	struct span path = route_path(target);
	int code = search_read(target, &q, e), r;
	if (code != 0)
		return code;
	if (span_is(path, "/_admin/requests.json"))
		r = search_requests(a->outcomes_path, &q, json, e);
	else if (span_is(path, "/_admin/errors.json"))
		r = search_errors(a->outcomes_path, &q, json, e);
	else
		r = search_organizations(a->outcomes_path, &q, json, e);
	if (r >= 0)
		return 0;
	if (json->error)
		err_set(e, 503, "it does not fit into %zu bytes; ask for less", json->max);
	return 503;
}
