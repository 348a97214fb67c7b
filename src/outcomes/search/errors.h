/*
 * Errors: what goes wrong, grouped by operation, side, backend, result, status and pattern of the error text.
 *
 * What:      attempts of every role with an error text: those that did not succeed, without answers that
 *            are the caller's fault by the side's own word. From sums per hour, and from rows at the edges
 *            of the span, so that counts are exact.
 * Limits:    ERRORS_MAX groups, the largest; the others are counted in `left_out`.
 */
#ifndef OUTCOMES_SEARCH_ERRORS_H
#define OUTCOMES_SEARCH_ERRORS_H

#include "base/cleanup.h"
#include "outcomes/search/search.h"

#define ERRORS_MAX 1000

struct error_group {
	char service[32], operation[64], backend[16];
	uint8_t side, role, result;
	int http_status;
	char error[OUTCOME_ERROR_MAX]; /* the pattern */
	uint64_t count;
	int64_t first_us, last_us;		      /* begins */
	int64_t sample;				      /* row of a newer one */
	char request_id[80], text[OUTCOME_ERROR_MAX]; /* of the sample; "" when it is gone */
};

struct errors {
	struct error_group *all; /* the most frequent first */
	size_t n;
	uint64_t left_out; /* attempts of groups that are not listed */
	uint64_t total;	   /* attempts of all */
	bool recorded;	   /* false: made by a program that recorded no error texts */
	bool cut;	   /* rows_looked_max was reached: older ones are not counted */
};

/* With a filter by organization, user, request or task it is made from rows alone. */
int errors_find(const char *path, const struct search_filter *f, size_t limit, struct errors **ret,
		struct err *e);
/* What several files say, as one. Takes nothing from them. */
int errors_merge(struct errors *const *all, size_t n, size_t limit, struct errors **ret, struct err *e);
/* What another router's errors_to_json said. -EPROTO with a sentence about `name`. */
int errors_parse(const char *name, struct span json, struct errors **ret, struct err *e);
struct errors *errors_free(struct errors *r); /* NULL is allowed; returns NULL */

int errors_to_json(const struct errors *r, struct buf *out);
int errors_to_csv(const struct errors *r, struct buf *out);
int errors_to_text(const struct errors *r, unsigned columns, struct buf *out);

DEFINE_CLEANUP(struct errors *, errors_free)

#endif
