/*
 * Messages of Celery's protocol 2 (docs: celery "Message Protocol"; docs/protocols/celery.md), in one of two
 * shapes: with `headers` NULL as the one text that kombu puts into Redis (body in base64, headers and
 * properties around it); else the headers, a JSON object, and the body apart, for brokers whose messages have
 * both.
 *
 * Why:       args and kwargs keep their bytes: they are put into the body as they came, not printed again.
 */
#ifndef TASKS_CELERY_CELERY_MESSAGE_H
#define TASKS_CELERY_CELERY_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/crypto.h"
#include "base/span.h"
#include "tasks/task_backend.h"
#include "tasks/worker/registry.h"

#define CELERY_DEFAULT_QUEUE "celery"
#define CELERY_STEPS_MAX 32
#define CELERY_SEPARATOR_MAX 16

/* How a queue is spread over Redis' lists: broker_transport_options of the application
 * (kombu/transport/redis.py). */
struct celery_lists {
	char separator[CELERY_SEPARATOR_MAX + 1];
	int steps[CELERY_STEPS_MAX]; /* ascending */
	size_t n_steps;
};
extern const struct celery_lists celery_lists_default; /* \x06\x16; 0 3 6 9 */

/* Who sends: one per client. */
struct celery_sender {
	char origin[160]; /* gen<pid>@<host> */
	char reply_to[CRYPTO_UUID];
};
void celery_sender_init(struct celery_sender *s);

/* `call` has its task_id; args are a valid array or absent, kwargs a valid object
 * or absent. */
int celery_task_message(const struct celery_sender *s, const struct task_call *call, struct span queue,
			int64_t now_us, struct buf *headers, struct buf *out);

/* The same for the first link of a chain: `chain` is the JSON array of the signatures that follow, the
 * last one first. */
int celery_link_message(const struct celery_sender *s, const struct task_call *call, struct span chain,
			struct span queue, int64_t now_us, struct buf *headers, struct buf *out);

/* Whether Celery can run it: a sequence of steps, at its end perhaps steps beside each other with one behind
 * them. */
bool celery_can_chord(const struct workflow_definition *w);
/* A sequence alone: chords need a result store that counts their parts. */
bool celery_can_chain(const struct workflow_definition *w);
/* A workflow as a chain, whose last step has the call's task_id. `call` is that
 * of the workflow. */
/* The id of one of its steps but the last: another one for each workflow and step. */
void celery_step_id(struct span id, const struct workflow_definition *w, size_t step, char out[CRYPTO_UUID]);
int celery_chain_message(const struct celery_sender *s, const struct task_call *call,
			 const struct workflow_definition *w, struct span queue, int64_t now_us,
			 struct buf *headers, struct buf *out);

/* 60, 2.5 */
void celery_put_seconds(unsigned ms, struct buf *out);

/* A control message: method and its arguments as JSON. With a ticket workers
 * answer to the queue `reply_list`, through the default exchange, which needs no binding. */
int celery_control_message(const char *exchange, const char *method, struct span arguments,
			   const char *ticket, struct span reply_list, struct buf *headers, struct buf *out);

/* The step that a priority is put to: the largest that is not above it; the last one when all are. */
int celery_priority_step(const struct celery_lists *l, int priority);
/* The list of a priority: the queue's name, with a suffix above step 0. */
int celery_queue_key(const struct celery_lists *l, struct span queue, int priority, struct buf *out);

/* Appends repr(value) as Celery's argsrepr has it: at most about `max` characters and three levels. The
 * value is valid JSON. */
int celery_repr(struct span value, size_t max, struct buf *out);

#endif
