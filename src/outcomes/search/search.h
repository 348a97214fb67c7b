/*
 * Search: what is asked of outcomes.db, and the file while it is read. What requests.h, errors.h and
 * organizations.h have in common.
 *
 * Errors:    of all of them db.h's; -ENOENT no such file, -EMEDIUMTYPE not a database or not ours, -EPROTO
 *            of a newer version, -ENODATA nothing was ever written to it, -EBUSY locked.
 * Threads:   any; reads with a connection of its own, and never holds up the recorder.
 */
#ifndef OUTCOMES_SEARCH_SEARCH_H
#define OUTCOMES_SEARCH_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "outcomes/outcome.h"
#include "outcomes/search/rows.h"

#define SEARCH_ANY (-1)

/* Strings are borrowed; NULL = all. */
struct search_filter {
	int64_t since_us, until_us; /* 0 = open; begins: since <= begin < until */
	const char *service, *operation, *backend;
	/* Ids as callers say them. A user is also found where the file has pseudonyms, if the key next to
	 * it can be read. */
	const char *organization, *user, *request_id, *task_id;
	const char *error;	/* a pattern (error_pattern.h), as error groups have it */
	int side, role, result; /* SEARCH_ANY = all */
	int status;		/* HTTP; 0 = all */
	bool failed; /* only attempts with an error text, and failed ones of before there was any */
};
#define SEARCH_FILTER_ALL \
	((struct search_filter){.side = SEARCH_ANY, .role = SEARCH_ANY, .result = SEARCH_ANY})

struct search_series {
	int64_t id;
	char service[32], operation[64], backend[16];
	uint8_t side, role, reason, result;
	bool answered;
	bool wanted; /* by the filter */
};

struct search {
	const struct search_filter *filter;
	struct rows_reader rows;
	struct db *db;
	struct search_series *series; /* by id */
	size_t n_series, n_wanted;
	char organization[sizeof(((struct outcome *)NULL)->organization)];
	char user[sizeof(((struct outcome *)NULL)->user)];
	char pseudonym[72]; /* of the user; "" = there is no key */
};

/* Opens the file for one question; `s` is released by search_close also after an error. */
int search_open(const char *path, const struct search_filter *f, struct search *s, struct err *e);
void search_close(struct search *s);

const struct search_series *search_series_of(const struct search *s,
					     int64_t id); /* NULL: none, or not wanted */

/* A statement for rows_each: "SELECT <columns> FROM outcomes WHERE …" with what the filter says of rows,
 * bound. `tail` may be "" or " ORDER BY id DESC". `error` may be named in `columns`; where the file has no
 * such column it is NULL. */
int search_prepare_rows(struct search *s, const char *columns, const char *tail, struct db_stmt **ret,
			struct err *e);
/* Whether a row's error text is of the filter's pattern; true where none is asked for. */
bool search_error_matches(const struct search *s, struct span error);

#endif
