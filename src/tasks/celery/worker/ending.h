/*
 * The end of a request: what follows it is published, its result is stored, its part of a chord is
 * counted; each in turn, when the one before it is confirmed, and again while Redis is away.
 *
 * Order:   as Celery's: followers of a success before its result, so that the result names them; a
 *          failure first, then what waits for it: the rest of its chain fails with it, its chord's body
 *          with a ChordError, errbacks are called with its id.
 * Chords:  counted in the result backend as Celery's own (keys .j .t .s .d .c of the group), so that
 *          parts may run on workers of both kinds; one worker claims the body.
 * Threads: the loop's own.
 */
#ifndef TASKS_CELERY_WORKER_ENDING_H
#define TASKS_CELERY_WORKER_ENDING_H

#include "tasks/celery/worker/canvas.h"
#include "tasks/celery/worker/requests.h"

struct celery_ending;

/* fn comes later, once. NULL: no memory, and fn is not called. Freed by itself before fn, or by
 * celery_ending_free. */
struct celery_ending *celery_end(struct celery_request *r, void (*fn)(struct celery_request *r));
void celery_ending_free(struct celery_ending *e);
/* The state of a task that has begun; nobody waits for it. */
void celery_store_started(struct celery_request *r, struct span result);

#endif
