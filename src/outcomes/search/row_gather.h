/*
 * Row gather: what a chunk of rows adds to the tables of row_index.h, gathered a row at a time, in any order.
 * Pure.
 *
 * Why:       so that rows being written are indexed without being read again, and rows that are in the file
 *            already by the same code.
 * Memory:    as much as the rows differ: some 0.5 MiB for those of a service, 4 MiB at most.
 * Ownership: spans are borrowed for the call.
 */
#ifndef OUTCOMES_SEARCH_ROW_GATHER_H
#define OUTCOMES_SEARCH_ROW_GATHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/span.h"
#include "outcomes/histogram.h"

#define ROW_GATHER_MAX 8192 /* rows; part of the format: those of a chunk */

struct gathered_row {
	int64_t id, time_us, latency_us, series;
	int http_status;
	bool failed; /* neither a success nor rejected, or with an error */
	struct span request_id, user, organization, task_id, error; /* as recorded; empty: none */
};

/* Of the rows of one hour, organization and series; or of one hour, series, status and error pattern. */
struct gathered_sums {
	int64_t hour, series, count, latency_us, first_us, last_us;
	int64_t newest; /* row */
	int status;	/* of errors; -1: of an organization */
	uint32_t at;	/* among the sums, as they were begun */
	uint32_t text, text_len;
	uint32_t latencies; /* of the last row, see row_gather_latencies */
};

struct row_gather;

struct row_gather *row_gather_new(void);		  /* NULL if out of memory */
struct row_gather *row_gather_free(struct row_gather *g); /* NULL is allowed; returns NULL */
void row_gather_clear(struct row_gather *g);
/* -ENOMEM, -ENOSPC after ROW_GATHER_MAX rows; then it is to be cleared. */
int row_gather_add(struct row_gather *g, const struct gathered_row *row);

/* Begin of the earliest and the latest row; of no rows INT64_MAX and INT64_MIN. */
int64_t row_gather_earliest(const struct row_gather *g);
int64_t row_gather_latest(const struct row_gather *g);
/* The filter over what rows are asked by; the caller frees it. NULL if out of memory. */
unsigned char *row_gather_filter(const struct row_gather *g, size_t *ret_size);

/* Sorts the sums, after the last row: errors first, in the order of their first rows; organizations by hour,
 * name and series, so that what is near in the table is written together. */
void row_gather_sort(struct row_gather *g);
/* NULL after the last. */
const struct gathered_sums *row_gather_sums(const struct row_gather *g, size_t n);
struct span row_gather_text(const struct row_gather *g, const struct gathered_sums *s);
/* Adds the latencies of an organization's rows. */
void row_gather_latencies(const struct row_gather *g, const struct gathered_sums *s, struct histogram *to);

DEFINE_CLEANUP(struct row_gather *, row_gather_free)

#endif
