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
 *            written; a filter costs a few bytes of it, and is written once. Derived from rows and not
 *            beside them: what an older program or another process wrote, and a file from before, is taken
 *            up like anything else, little by little, and never holds up writing.
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

#define ROW_INDEX_RANGE 8192	 /* ids in a chunk */
#define ROW_INDEX_ERRORS_MAX 500 /* patterns per hour; more are counted as ROW_INDEX_OTHER */
#define ROW_INDEX_OTHER "(other)"

struct row_index;

/* Adds column and tables to a file that has none. No new version of the schema: an older program can go on
 * with the file. */
int row_index_prepare(struct db *db, struct err *e);
int row_index_new(struct db *db, struct row_index **ret, struct err *e);
struct row_index *row_index_free(struct row_index *x); /* NULL is allowed; returns NULL */

/* Within a transaction: one more chunk, or one more hour added to its day. 1 = there may be more, 0 = too
 * few rows are left. `last` is the highest id. */
int row_index_step(struct row_index *x, int64_t last, int64_t now_us, struct err *e);
/* Forgets what is about rows before `row`. */
int row_index_retain(struct row_index *x, int64_t row, struct err *e);

DEFINE_CLEANUP(struct row_index *, row_index_free)

#endif
