/*
 * Writes that must get there: commands to Redis that may be sent twice without harm, sent until the
 * server has answered each of them.
 *
 * Why:       base/redis never sends anything twice; a result or an acknowledgment must survive a restart
 *            of Redis.
 * Order:     the commands of one write go out together, in order. Different writes have no order once one
 *            of them is repeated: what must follow is added from the callback.
 * Ownership: words are copied. Those open at celery_writes_release end without their callbacks.
 * Threads:   the loop's own.
 * Limits:    none of its own: whoever adds holds what it writes about, and is limited in that.
 */
#ifndef TASKS_CELERY_WORKER_WRITES_H
#define TASKS_CELERY_WORKER_WRITES_H

#include <sys/queue.h>

#include "base/redis.h"

#define CELERY_WRITE_COMMANDS 4

struct celery_write;

struct celery_writes {
	struct redis *redis; /* borrowed */
	struct loop_timer *again;
	TAILQ_HEAD(, celery_write) open, waiting;
	size_t n_open;
	const struct redis_reply *reply; /* the last answer, while a write's callback runs */
};

struct celery_command {
	const struct span *words;
	size_t n;
};

/* 0, where an attempt before, of which no answer came, may have been executed */
#define CELERY_WRITE_PERHAPS (-1)

/* `why` is NULL when all were executed; else what the server refuses for good. `first` is the answer to
 * the first command, an integer. */
typedef void (*celery_write_fn)(void *arg, int64_t first, const struct err *why);

int celery_writes_init(struct celery_writes *w, struct loop *loop, struct redis *redis);
/* Drops all that are open. */
void celery_writes_release(struct celery_writes *w);
/* fn comes later, once; it may be NULL. -ENOMEM: it will not be written, and fn not called. */
int celery_writes_add(struct celery_writes *w, const struct celery_command *commands, size_t n,
		      celery_write_fn fn, void *arg);
/* Puts a value into a list once, however often it is sent: at the end that is taken next, or at the other
 * (`tail`). */
int celery_writes_push_once(struct celery_writes *w, const char *prefix, struct span list, struct span value,
			    bool tail, celery_write_fn fn, void *arg);
/* The server is back. */
void celery_writes_go_on(struct celery_writes *w);
static inline bool celery_writes_open(const struct celery_writes *w)
{
	return w->n_open > 0;
}

#endif
