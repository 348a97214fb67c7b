/*
 * Signatures applied, as Celery's canvas applies them: what follows a task (callbacks, the rest of a
 * chain, the body of a chord, errbacks) becomes messages. Pure: it says what is to be written, and writes
 * nothing.
 *
 * Taken:   tasks (also `map` and `starmap`), groups, chains, chords, any of them within any other or as a
 *          callback. A group within a chain, before its end, is a chord of what follows, as Celery's
 *          producers make it; groups within the header of a chord are its parts, in the order that Celery
 *          gives them.
 * Not:     `chunks` and other kinds, which no producer sends: CANVAS_E_NOT_TAKEN, and the task that they
 *          would follow fails with the reason.
 * Queues:  that of the signature's options, else the setting `queue`: routes of the application are not
 *          known here.
 * Source:  celery/canvas.py; docs.celeryq.dev "Canvas: designing work-flows".
 */
#ifndef TASKS_CELERY_WORKER_CANVAS_H
#define TASKS_CELERY_WORKER_CANVAS_H

#include "tasks/celery/celery_internal.h"

#define CANVAS_MAX_MESSAGES 10000
#define CANVAS_MAX_LEVELS 32
#define CANVAS_E_NOT_TAKEN 1

struct canvas_message {
	struct buf queue, text; /* name without prefix; envelope */
	int priority;
};

/* How many parts a chord has, to be known before the first of them begins. */
struct canvas_size {
	char *group;
	size_t n;
};

struct canvas {
	const struct celery_options *c;
	const struct celery_sender *sender;
	const char *default_queue;
	struct canvas_message *messages;
	size_t n_messages;
	struct canvas_size *sizes;
	size_t n_sizes;
	struct buf children; /* of the task whose result this follows: JSON, without brackets */
};

/* What a signature is applied with. Raw JSON or SPAN_NONE. */
struct canvas_call {
	struct span args;  /* array, put before its own unless it is immutable */
	struct span chain; /* array, what follows it, the last one first */
	struct span root_id, parent_id, chord, group_id, group_index;
};

void canvas_init(struct canvas *v, const struct celery_options *c, const struct celery_sender *sender,
		 const char *default_queue);
void canvas_release(struct canvas *v);
int canvas_apply(struct canvas *v, struct span signature, const struct canvas_call *call, struct err *e);
/* A message of a task that is to run again: `headers` and `body` as they were, but for retries and eta.
 * */
struct celery_incoming;
int canvas_again(struct canvas *v, const struct celery_incoming *m, struct span raw, struct span queue,
		 int64_t eta_us);

#endif
