/*
 * Rows: the attempts in outcomes.db that may match, newest first, without looking at all of them.
 *
 * How:       a range of ids whose chunk (row_index.h) says that nothing in it can match, by its times or
 *            by its filter, is not read. Rows after the last chunk always are.
 * Limits:    ROWS_LOOKED_MAX rows are looked at, then it ends and says so (`cut`, `cut_before`): the
 *            answer is then of what is newer.
 * Ownership: who opens it closes the database after. Threads: one. Errors: db.h's.
 */
#ifndef OUTCOMES_SEARCH_ROWS_H
#define OUTCOMES_SEARCH_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/db.h"
#include "base/err.h"

#define ROWS_LOOKED_MAX 3000000
#define ROWS_KEYS_MAX 8
#define ROWS_HOUR_US INT64_C(3600000000)

struct rows_reader {
	struct db *db;
	bool has_errors; /* the column `error`: files that older programs made have none */
	bool has_index;
	int64_t indexed; /* the last id in a chunk; 0 = there are none */
	/* Of each pair one must occur in a row: row_filter_key's. Two are the same where there is but one. */
	struct {
		uint64_t either, or ;
	} keys[ROWS_KEYS_MAX];
	size_t n_keys;
	int64_t most, looked; /* rows that may be, and were, looked at; at first ROWS_LOOKED_MAX, and 0 */
	bool cut;
	int64_t cut_before; /* the lowest id that was looked at */
};

struct rows_span {
	int64_t first, last;	    /* ids, both included */
	int64_t since_us, until_us; /* begins: since <= begin < until; INT64_MIN and INT64_MAX = open */
};

/* `db` is open, in a transaction, and of a version that this program knows. */
int rows_open(struct db *db, struct rows_reader *ret, struct err *e);

/* Steps `q` over the ranges that may match: its ?1 and ?2 are the ids, ?3 and ?4 the times; what else it
 * asks is bound already. `fn` returns 0 to continue, 1 to end, <0 for an error. Returns 0, 1 when fn ended
 * it, <0. */
int rows_each(struct rows_reader *r, struct db_stmt *q, const struct rows_span *span,
	      int (*fn)(void *arg, struct db_stmt *q), void *arg, struct err *e);

/* What a span is, when hours that are summed up can stand for rows: sums of [first_hour, end_hour), and
 * rows of the spans. Together each row of the span once. */
struct rows_split {
	int64_t first_hour, end_hour; /* the same: none */
	struct rows_span spans[3];
	size_t n_spans;
};
void rows_split(const struct rows_reader *r, int64_t since_us, int64_t until_us, struct rows_split *ret);

#endif
