/*
 * Recorder: one thread that owns outcomes.db and writes what the data-plane threads hand over.
 *
 * Why:       SQLite is never called on a data-plane thread; recording never delays or fails a request (rule 5).
 * Threads:   recorder_producer once per producing thread, then recorder_put from that thread only; the rest from any.
 * Durability: a batch is committed every flush interval: kill -9 loses at most that; recorder_stop loses nothing.
 */
#ifndef METRICS_RECORDER_H
#define METRICS_RECORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "metrics/outcome.h"

struct recorder;
struct recorder_producer;

struct recorder_options {
	const char *path;	  /* outcomes.db, made with mode 0600, WAL */
	unsigned flush_ms;	  /* default 50 */
	unsigned queue_slots;	  /* per producer */
	unsigned retention_days;  /* rows older go; rollups are kept retention_rollup_days */
	unsigned retention_rollup_days;
	uint64_t max_bytes;	  /* of the rows: the oldest go first */
	bool hash_users;	  /* user ids stored as HMAC-SHA-256 with the file's own random key */
};

struct recorder_status {
	uint64_t written, dropped;
	bool failing; /* the file cannot be written now */
	char last_error[256];
};

/* A file that cannot be opened or written is no error at start: the recorder goes on trying and says so in its status. */
int recorder_start(const struct recorder_options *o, struct recorder **ret, struct err *e);
struct recorder *recorder_stop(struct recorder *r); /* writes everything handed over, then ends the thread */
int recorder_producer_new(struct recorder *r, struct recorder_producer **ret);
/* The record to fill (zeroed), then recorder_commit; NULL when the queue is full (dropped and counted). */
struct outcome *recorder_reserve(struct recorder_producer *p);
void recorder_commit(struct recorder_producer *p);
void recorder_status(struct recorder *r, struct recorder_status *ret);

#endif
