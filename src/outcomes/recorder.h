/*
 * Recorder: one thread that owns outcomes.db and writes what the data-plane threads hand over.
 *
 * Why:       SQLite is never called on a data-plane thread; recording never delays or fails a request (rule
 *            5).
 * Threads:   recorder_producer_new once per producing thread, then reserve and commit from that thread only;
 *            the rest from any. No producer may be used after recorder_stop has begun.
 * Durability: a batch is committed every flush interval, or when a queue is half full: kill -9 loses at most
 *            that; recorder_stop loses nothing.
 * Failures:  a full disk, a locked, read-only, deleted or corrupt file never stop a producer. The queues hold
 *            what they can, the rest is dropped and counted; the recorder tries again four times a second
 *            with what it holds, opens a file that was deleted or replaced, and leaves a corrupt one
 *            alone until someone moves it away. The status says what is wrong, the log when it begins and
 *            when it ends.
 * User ids:  with hash_users they, and clients' addresses, are stored as HMAC-SHA-256 in hex. The key is the
 *            line of `<path>-userkey`, made with mode 0600: next to the database and not in it, so that a
 *            copy of outcomes.db alone tells no user ids.
 */
#ifndef OUTCOMES_RECORDER_H
#define OUTCOMES_RECORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "outcomes/outcome.h"

struct db;
struct recorder;
struct recorder_producer;

/* What a tap gets of a batch. */
struct recorder_batch {
	const struct outcome *outcomes;
	size_t count;
	struct span user_key; /* under which ids are pseudonyms; SPAN_NONE: they are stored as they are */
	int64_t now_us;	      /* wall clock */
};

#define RECORDER_TAPS_MAX 4

/* Who reads along: each outcome once, in the transaction in which it is recorded. All on the recorder's
 * thread; all but `arg` must be there, or none. */
struct recorder_tap {
	void *arg;
	/* A file was opened, also anew: makes the tables that it needs. An error is reported by `ended`. */
	int (*opened)(void *arg, struct db *db, struct err *e);
	void (*closed)(void *arg); /* before the file is closed; also after an `opened` that failed */
	bool (*due)(void *arg);	   /* whether `write` has something to do though nothing was recorded */
	/* Within the transaction. An error undoes what it wrote, and nothing else: outcomes do not depend on
	 * it. */
	int (*write)(void *arg, const struct recorder_batch *b, struct err *e);
	/* `error`: of opened or write, or NULL. Not committed: the same batch comes again. */
	void (*ended)(void *arg, bool committed, const char *error);
};

/* As configured (`outcomes:`). */
struct recorder_options {
	const char *path;		/* outcomes.db, made with mode 0600, WAL */
	unsigned flush_ms;		/* 0 = 50 */
	unsigned queue_slots;		/* per producer; 0 = 16384 */
	unsigned retention_days;	/* rows older go; 0 = none does */
	unsigned retention_rollup_days; /* likewise the sums per minute, from which reports are made */
	uint64_t max_bytes;		/* of the file's used pages: the oldest rows go first; 0 = no limit */
	bool hash_users;
	struct recorder_tap taps[RECORDER_TAPS_MAX]; /* write NULL: nobody; given at the start, no setting */
};

/* Whether their settings are the same. */
bool recorder_options_same(const struct recorder_options *a, const struct recorder_options *b);

struct recorder_status {
	uint64_t written, dropped;
	size_t queued, slots; /* outcomes in the producers' queues, and how many these hold */
	bool failing;	      /* the file cannot be written now */
	char last_error[256]; /* the last one, also after it has passed; "" = none since the start */
};

/* A file that cannot be opened or written is not an error at startup: the recorder keeps trying and says so
 * in its status. */
int recorder_start(const struct recorder_options *o, struct recorder **ret, struct err *e);
/* Writes everything handed over, then ends the thread. With a file that cannot be written it gives up after
 * five seconds and counts the rest as dropped. NULL is allowed; returns NULL. */
struct recorder *recorder_stop(struct recorder *r);
int recorder_producer_new(struct recorder *r, struct recorder_producer **ret);
/* The record to fill (zeroed), then recorder_commit; NULL when the queue is full (dropped and counted). */
struct outcome *recorder_reserve(struct recorder_producer *p);
void recorder_commit(struct recorder_producer *p);
void recorder_status(struct recorder *r, struct recorder_status *ret);

/* Calls fn for each series with its sums since the start; the recorder waits meanwhile (not the producers),
 * so fn must be quick and must not call the recorder. */
struct series;
void recorder_each_series(struct recorder *r, void (*fn)(const struct series *series, void *arg), void *arg);

#endif
