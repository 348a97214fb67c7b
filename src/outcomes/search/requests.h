/*
 * Requests: single attempts, as they were recorded, newest first; and all attempts of one request.
 *
 * Limits:    REQUESTS_MAX at a time, and those of rows.h; what is left is told by `next`.
 */
#ifndef OUTCOMES_SEARCH_REQUESTS_H
#define OUTCOMES_SEARCH_REQUESTS_H

#include "base/cleanup.h"
#include "outcomes/search/search.h"

#define REQUESTS_MAX 1000

struct attempt {
	int64_t row;	 /* its id in the file */
	int64_t time_us; /* wall clock at its start */
	int64_t latency_us;
	char service[32], operation[64], backend[16], organization[64], variant[48], task_id[64],
		request_id[80];
	char user[72]; /* or a pseudonym */
	char client[72];
	char error[OUTCOME_ERROR_MAX];
	int http_status; /* 0 = the caller got nothing of it */
	uint8_t side, role, reason, result;
	bool answered;
};

struct requests {
	struct attempt *all; /* newest first; of one request in the order of time */
	size_t n;
	int64_t next;	 /* `before` for what follows; 0 = that is all */
	bool cut;	 /* rows_looked_max was reached: older ones may match */
	int64_t more_us; /* of several files: older ones than this are left; 0 = none */
	int64_t cut_us;	 /* when the oldest one that was looked at began; 0 = not known */
};

/* before: the id of a row; 0 = from the newest on. */
int requests_find(const char *path, const struct search_filter *f, int64_t before, size_t limit,
		  struct requests **ret, struct err *e);
/* All attempts of one request, oldest first. None is no error. */
int requests_of(const char *path, const char *request_id, struct requests **ret, struct err *e);
/* What several files say, as one: the newest first, or, of one request, the oldest. Takes nothing from
 * them. */
int requests_merge(struct requests *const *all, size_t n, bool oldest_first, size_t limit,
		   struct requests **ret, struct err *e);
/* What another router's requests_to_json said. -EPROTO with a sentence about `name`. */
int requests_parse(const char *name, struct span json, struct requests **ret, struct err *e);
struct requests *requests_free(struct requests *r); /* NULL is allowed; returns NULL */

/* {"version":1,"requests":[…],"next":…,"complete":…}; lines of text at `columns` (0 = 80); CSV with a
 * head. All append and give buf's errors. */
int requests_to_json(const struct requests *r, struct buf *out);
int requests_to_csv(const struct requests *r, struct buf *out);
int requests_to_text(const struct requests *r, unsigned columns, struct buf *out);
/* The attempts of one request, each with all that is known of it. */
int request_to_text(const struct requests *r, unsigned columns, struct buf *out);

DEFINE_CLEANUP(struct requests *, requests_free)

#endif
