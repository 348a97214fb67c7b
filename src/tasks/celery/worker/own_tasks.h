/*
 * Tasks that every worker of Celery has, whatever its application registers: `celery.map` and
 * `celery.starmap` (also what `chunks` sends), `celery.accumulate`, `celery.backend_cleanup`. Pure.
 *
 * Not:     `celery.chord_unlock` (no producer sends it with these result backends), `celery.chunks`,
 *          `celery.group`, `celery.chain` and `celery.chord` (nobody sends them as tasks since Celery 4):
 *          they fail as NotRegistered.
 * Source:  celery/app/builtins.py.
 */
#ifndef TASKS_CELERY_WORKER_OWN_TASKS_H
#define TASKS_CELERY_WORKER_OWN_TASKS_H

#include "base/json.h"
#include "tasks/celery/worker/incoming.h"

/* The items of a map, which are calls of another task, one behind the other; they borrow from the message. */
struct celery_each {
	char task[CELERY_ID_MAX]; /* "": it is no map */
	bool star;		  /* an item is all arguments, not one */
	struct json_iter items;
	struct buf args, results; /* of the call at hand; of those before, without brackets */
};

enum celery_own_kind { CELERY_OWN_NONE, CELERY_OWN_RESULT, CELERY_OWN_EACH };

/* RESULT: it is in `result`, as JSON. -EINVAL with a sentence: arguments that it does not take. -ENOMEM. */
int celery_own_read(const struct celery_incoming *m, struct celery_each *each, struct buf *result,
		    struct err *e);
/* The arguments of the next call, which is good until the one after it. False: there is none, or no
 * memory. */
bool celery_each_next(struct celery_each *each, struct span *ret_args);
int celery_each_add(struct celery_each *each, struct span result);
int celery_each_put(const struct celery_each *each, struct buf *out); /* all results, as an array */
void celery_each_release(struct celery_each *each);

#endif
