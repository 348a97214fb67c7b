/*
 * Results that a thread hears for all clients of one configured backend, and tells the loops: the part that
 * the result stores `rpc` (messages) and PostgreSQL (polling) have in common.
 *
 * Shape:     one table by task id, of what is watched, and of what has come where the store keeps nothing
 *            itself (`keeps`); each client has an ear on its loop.
 * Threads:   the table is under a lock. celery_heard_* of the thread's half from that thread; those of ears
 *            from the loop of their client.
 * Limits:    what is kept without a watch: CELERY_KEPT_IDS ids, CELERY_KEPT_BYTES; the oldest go.
 */
#ifndef TASKS_CELERY_CELERY_HEARD_H
#define TASKS_CELERY_CELERY_HEARD_H

#include "base/buf.h"
#include "tasks/celery/celery_results.h"
#include "tasks/task_backend.h"

#define CELERY_KEPT_IDS 100000
#define CELERY_KEPT_BYTES (64u << 20)

struct celery_heard;
struct celery_ear;
struct loop;

/* `wake` is called, without the lock, when there is something for the thread to do; NULL: never. */
int celery_heard_new(bool keeps, void (*wake)(void *arg), void *arg, struct celery_heard **ret);
struct celery_heard *celery_heard_free(struct celery_heard *h); /* no ear is left; NULL is allowed */

/* --- the thread's half ---------------------------------------------------------------------------------- */
/* "": results are heard from now on; called again after each time that something may have been missed. NULL:
 * not at the moment, which will be known soon. */
void celery_heard_state(struct celery_heard *h, const char *why);
void celery_heard_text(struct celery_heard *h, struct span id, struct span text);
/* Appends at most `max` watched ids, each with a NUL, going round; their number. */
size_t celery_heard_watched(struct celery_heard *h, size_t max, struct buf *out);
/* The next reading that waits, for a store that does not keep: false when there is none. Its ids are
 * appended, each with a NUL. It is answered by celery_heard_answer before the next is taken. */
bool celery_heard_take(struct celery_heard *h, struct buf *ids, size_t *n);
void celery_heard_answer(struct celery_heard *h, enum celery_read_outcome outcome, const struct span *texts,
			 size_t n);

/* --- the loops' half ------------------------------------------------------------------------------------ */
int celery_ear_new(struct celery_heard *h, struct loop *loop, struct celery_client *c,
		   struct celery_ear **ret);
void celery_ear_free(struct celery_ear *ear); /* watches are gone; NULL is allowed */
bool celery_ear_ready(const struct celery_ear *ear);
/* Of a store that keeps: its result has come, or this process has sent it and would hear of it now. */
bool celery_ear_knows(const struct celery_ear *ear, struct span id);
void celery_ear_sent(struct celery_ear *ear, struct span id);
struct celery_watch *celery_ear_watch(struct celery_ear *ear, struct span id,
				      const struct celery_watcher *watcher, void *arg);
void celery_ear_unwatch(struct celery_watch *w);
struct celery_reading *celery_ear_read(struct celery_ear *ear, const struct span *ids, size_t n,
				       celery_read_fn fn, void *arg);
void celery_ear_read_drop(struct celery_reading *r);

#endif
