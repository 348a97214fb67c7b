/*
 * Outcome store: the file outcomes.db, as the recorder writes it.
 *
 * Tables (all times are of the wall clock, UTC):
 *   series     the words of a combination (outcomes/series.h), so that a row holds a number in their stead
 *   outcomes   one row per attempt, ids in the order of writing; the view `attempts` joins the words for
 *              people
 *   rollups    per minute and series: count, sum of latencies, histogram (outcomes/histogram.h); after two
 *              days per hour
 *   folded     up to which minute rollups are per hour (outcomes/rollup_fold.h)
 *   drops      per minute: outcomes that found the queue full
 *   row_chunks, organization_hours, error_hours  what rows are found by (row_index.h)
 *   last_seen, unmapped, presence  what drain asks for (usage_store.h)
 *   row_marks  the first id written in a minute: what is older than a time is found without an index over the
 *              rows
 *
 * Why:       rows, sums and drops of a batch are one transaction, so that they always agree.
 * Ownership: the store owns the file, the statements, and the open minutes that hang on the series.
 * Threads:   one: the recorder's.
 * Errors:    db.h's. After one of a write the transaction is undone and the same batch can be written again;
 *            nothing of it has been counted.
 */
#ifndef OUTCOMES_OUTCOME_STORE_H
#define OUTCOMES_OUTCOME_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/span.h"
#include "outcomes/outcome.h"
#include "outcomes/recorder.h"
#include "outcomes/series.h"

#define OUTCOME_STORE_APPLICATION 0x4d526f63 /* "MRoc" */
#define OUTCOME_STORE_VERSION 2

struct db;
struct outcome_store;

struct outcome_drops {
	int64_t minute; /* since 1970 */
	uint64_t count;
};

struct outcome_batch {
	const struct outcome *outcomes;
	struct series *const *series; /* of each outcome */
	size_t count;
	const struct outcome_drops *drops;
	size_t drop_count;
	/* user ids and clients' addresses are stored as HMAC-SHA-256 in hex under this key; SPAN_NONE: as
	 * they are */
	struct span user_key;
	int64_t now_us;
	const struct recorder_tap *taps[RECORDER_TAPS_MAX]; /* NULL: nobody */
};

struct outcome_limits {
	int64_t rows_before_us;	   /* rows written before go */
	int64_t rollups_before_us; /* sums and drops of minutes before go */
	uint64_t max_bytes;	   /* of the file's used pages: the oldest rows go first; 0 = no limit */
	int64_t now_us;
	bool keep_marks; /* the clock may be wrong: times to come are left as they are */
};

int outcome_store_open(const char *path, struct series_table *series, struct outcome_store **ret,
		       struct err *e);
struct outcome_store *outcome_store_close(struct outcome_store *s); /* NULL is allowed; returns NULL */
int outcome_store_write(struct outcome_store *s, const struct outcome_batch *batch, struct err *e);

/* Whether a batch is to be written though it is empty: an idle recorder says that it is there
 * (usage_store.h). */
bool outcome_store_is_due(const struct outcome_store *s, int64_t now_us);

/* Deletes one chunk of what is over the limits, or indexes one of what is new (row_index.h), so that
 * writing continues in between: 1 = there is more, 0 = done. */
int outcome_store_retain(struct outcome_store *s, const struct outcome_limits *limits, struct err *e);

/* When the newest row was written, to the minute (us, wall clock); 0 = there is none. */
int outcome_store_newest(struct outcome_store *s, int64_t *ret_us, struct err *e);

struct db *outcome_store_db(struct outcome_store *s); /* for a tap */

/* Whether another file, or none, is now at the path. */
bool outcome_store_moved(struct outcome_store *s);

DEFINE_CLEANUP(struct outcome_store *, outcome_store_close)

#define OUTCOME_STORE_NAME 65
/* Which file it is, whatever it is called, and whether it is asked here or by the router on this machine;
 * left as it is when there is none. */
void outcome_store_name(const char *path, char out[OUTCOME_STORE_NAME]);

#endif
