/*
 * Taking messages from the queues, as kombu's Redis transport does, and holding them until they are
 * acknowledged.
 *
 * Shape:     one connection takes: a script while there are messages, BRPOP when there are none. What is
 *            taken stands in the hash `unacked` (and in `unacked_index`, scored by time) until it is
 *            acknowledged; kombu's workers and ours put back what stands there for longer than their
 *            visibility timeout.
 * Safer:     the script moves messages from the queue to `unacked` in one step, so that a kill loses
 *            none; with BRPOP there is a moment, as in kombu, in which the message is nowhere. What is
 *            held is refreshed, so that a task longer than the visibility timeout is not run twice. An
 *            acknowledgment says whether the message was still held: one that was put back meanwhile
 *            belongs to somebody else.
 * Lists:     a queue is a list for each priority step, the lowest step first; of several queues each
 *            comes first in turn.
 * Ownership: what is delivered belongs to whoever gets it, until celery_held_free.
 * Threads:   the loop's own.
 */
#ifndef TASKS_CELERY_WORKER_TAKING_H
#define TASKS_CELERY_WORKER_TAKING_H

#include "tasks/celery/celery_internal.h"
#include "tasks/celery/worker/writes.h"

#define CELERY_TAG_MAX 64

struct celery_taking;

struct celery_held {
	struct celery_taking *taking;
	LIST_ENTRY(celery_held) place;
	char tag[CELERY_TAG_MAX];
	size_t queue, list; /* where it was taken from */
	int64_t taken_ms;
	struct span raw; /* the envelope; its own */
};

struct celery_taking_options {
	struct loop *loop;
	const struct celery_options *c; /* borrowed */
	const struct redis_options *redis;
	struct celery_writes *writes; /* to the broker; borrowed */
	const char *const *queues;    /* borrowed */
	size_t n_queues;
	int64_t visibility_ms;
	unsigned (*wanted)(void *arg); /* how many more may be taken now */
	void (*delivered)(void *arg, struct celery_held *h);
	void (*state)(void *arg, bool works, const char *why); /* of the broker, when it changes */
	void (*idle)(void *arg); /* after celery_taking_stop: nothing more is delivered */
	void *arg;
};

int celery_taking_new(const struct celery_taking_options *o, struct celery_taking **ret, struct err *e);
/* More may be wanted than before. */
void celery_taking_look(struct celery_taking *t);
void celery_taking_stop(struct celery_taking *t);
struct celery_taking *
celery_taking_free(struct celery_taking *t); /* NULL is allowed; held messages are gone before */
/* A broker's key with the configured prefix. */
void celery_taking_key(const struct celery_options *c, const char *name, struct buf *out);

/* Acknowledges it: it will not come again. fn's `first` says for celery_held_was_ours whether it was
 * still held. The message stays until celery_held_free. */
int celery_held_ack(struct celery_held *h, celery_write_fn fn, void *arg);
/* Whether the acknowledged message was ours, and nobody else has it or had it put back. */
bool celery_held_was_ours(const struct celery_held *h, int64_t first);
/* Puts it back to where it came from, to be taken next; also when it is not held any more nothing is
 * doubled. */
int celery_held_give_back(struct celery_held *h, celery_write_fn fn, void *arg);
/* The same of one that was acknowledged and has not begun. */
int celery_held_push_back(struct celery_held *h, celery_write_fn fn, void *arg);
void celery_held_free(struct celery_held *h);

#endif
