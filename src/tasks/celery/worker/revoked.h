/*
 * Ids of tasks that are not to be run: the newest REVOKED_MAX, as Celery's workers keep them
 * (celery/worker/state.py).
 *
 * Threads: no state of its own.
 */
#ifndef TASKS_CELERY_WORKER_REVOKED_H
#define TASKS_CELERY_WORKER_REVOKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

#define CELERY_REVOKED_MAX 50000
#define CELERY_REVOKED_BUCKETS 65536u

struct celery_revoked {
	char **ids;		 /* a ring; the oldest is at `next` once it is full */
	uint32_t *heads, *links; /* by hash; places + 1 */
	size_t n, next;
};

/* 0, or -ENOMEM. One that is there stays as old as it was. */
int celery_revoked_add(struct celery_revoked *r, struct span id);
bool celery_revoked_has(const struct celery_revoked *r, struct span id);
/* Appends a JSON array, the oldest first. */
int celery_revoked_put(const struct celery_revoked *r, struct buf *out);
void celery_revoked_release(struct celery_revoked *r);

#endif
