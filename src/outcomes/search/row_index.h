/*
 * Row index: what makes rows findable among tens of millions (design, "Asking for rows"). Tables next to
 * `outcomes`, made from rows that are written already, RANGE at a time and in the order of their ids:
 *
 *   row_chunks          per range of ids: its first and last id, the earliest and latest begin, and a filter
 *                       (row_filter.h) over what rows are asked by
 *   organization_hours  per hour, organization and series: count, latencies, first and last begin
 *   organization_days   the same per day, without latencies, of the hours before organization_days_until
 *   error_hours         per hour, series, status and pattern of the error text: count, first and last begin,
 *                       the newest row
 *
 * Why:       indexes over ids of requests and users would touch a page for nearly every row that is
 *            written; a filter costs a few bytes of it, and is written once.
 * From:      rows as they are written, gathered in memory (row_gather.h) and put into the file with the last
 *            one of their chunk, in its transaction. What was not seen being written (by an older program,
 *            another process, before a restart) is read, at most a chunk at a time: all that is remembered
 *            is in the file.
 * Not in it: the rows after the last chunk. Readers look at these one by one (search/rows.h).
 * Ownership: the owner of the file (outcome_store) opens and closes transactions.
 * Threads:   the recorder's. Errors: db.h's.
 */
#ifndef OUTCOMES_SEARCH_ROW_INDEX_H
#define OUTCOMES_SEARCH_ROW_INDEX_H

#include <stdint.h>

#include "base/cleanup.h"
#include "base/db.h"
#include "base/err.h"
#include "outcomes/search/row_gather.h"

#define ROW_INDEX_RANGE ROW_GATHER_MAX /* ids in a chunk */
#define ROW_INDEX_ERRORS_MAX 500       /* patterns per hour; more are counted as ROW_INDEX_OTHER */
#define ROW_INDEX_OTHER "(other)"

struct row_index;

/* Adds column and tables to a file that has none. No new version of the schema: an older program can go on
 * with the file. */
int row_index_prepare(struct db *db, struct err *e);
int row_index_new(struct db *db, struct row_index **ret, struct err *e);
struct row_index *row_index_free(struct row_index *x); /* NULL is allowed; returns NULL */

/* Within the transaction that inserted the row, after it. Where the tables cannot be written the row stays,
 * and it is left to row_index_step to say so; an error is one of the transaction. */
int row_index_add(struct row_index *x, const struct gathered_row *row, struct err *e);
/* The rows added since the last commit are not in the file after all. */
void row_index_forget(struct row_index *x);

/* Within a transaction: one more chunk of rows that were not added as they were written, or one more hour
 * added to its day. 1 = there may be more, 0 = too few rows are left. `last` is the highest id. */
int row_index_step(struct row_index *x, int64_t last, int64_t now_us, struct err *e);
/* Forgets what is about rows before `row`. */
int row_index_retain(struct row_index *x, int64_t row, struct err *e);

DEFINE_CLEANUP(struct row_index *, row_index_free)

#endif
