/*
 * A message as a Celery worker takes it from its queue: kombu's envelope, and Celery's protocols 1 and 2
 * in it. Pure.
 *
 * Why:       what is passed on (signatures, groups, priorities) stays the raw JSON that the producer
 *            wrote.
 * Ownership: spans borrow from the text that was read, or from the message's own buffers.
 * Limits:    CELERY_BODY_MAX bytes of a body, unpacked.
 * Source:    kombu/message.py, kombu/compression.py, celery/worker/strategy.py;
 *            docs.celeryq.dev "Message Protocol".
 */
#ifndef TASKS_CELERY_WORKER_INCOMING_H
#define TASKS_CELERY_WORKER_INCOMING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"
#include "tasks/task_backend.h"

#define CELERY_BODY_MAX (512u << 20)
#define CELERY_ID_MAX 256 /* of ids and names, with NUL */

enum celery_incoming_verdict {
	CELERY_INCOMING_GOOD,
	CELERY_INCOMING_NO_MESSAGE, /* no envelope of kombu's */
	CELERY_INCOMING_NO_TASK,    /* an envelope without a task in it */
	CELERY_INCOMING_REFUSED,    /* serialized or packed in a way that is not taken; its id may be known */
	CELERY_INCOMING_INVALID,    /* a task whose content is not as the protocol has it; its id is known */
};

struct celery_incoming {
	char id[CELERY_ID_MAX], task[CELERY_ID_MAX];
	char content[96];	  /* why it is refused: what it is serialized or compressed with */
	struct span args, kwargs; /* a JSON array and object */
	/* Of the body: raw JSON, or null. */
	struct span callbacks, errbacks, chain, chord;
	/* Of the headers: raw JSON, SPAN_NONE where there is none (null is none, too). */
	struct span root_id, parent_id, group, group_index, origin, shadow_name, stamped_headers, stamps,
		timelimit, reply_to, correlation_id, priority, exchange, routing_key, argsrepr, kwargsrepr,
		ignore_result, headers;
	unsigned retries;
	int64_t eta_us, expires_us;						   /* wall clock; 0: none */
	int64_t hard_ms, soft_ms;						   /* 0: none */
	char traceparent[TASK_TRACE_PARENT], tracestate[TASK_TRACE_STATE_MAX + 1]; /* "": none */
	bool shadow, ignores_result, ignore_is_said, redelivered;
	bool protocol1;
	struct buf body, unwrapped; /* what args, kwargs and the rest are in */
};

#define CELERY_INCOMING_INIT \
	((struct celery_incoming){.body = BUF_INIT(CELERY_BODY_MAX), .unwrapped = BUF_INIT(CELERY_BODY_MAX)})
void celery_incoming_release(struct celery_incoming *m);

/* Reads it; the sentence of anything that is not good is in `e`. -ENOMEM. The text outlives the message.
 * */
int celery_incoming_read(struct celery_incoming *m, struct span text, struct err *e);

/* As Python's isoformat writes it, with an offset or without (UTC); false: it is none. */
bool celery_instant_read(struct span text, int64_t *ret_us);
/* Appends it that way, in UTC, without quotes. */
int celery_put_instant(struct buf *out, int64_t us);
/* The object with a member set, whatever it was before. */
int celery_put_with_member(struct span object, const char *key, struct span value, struct buf *out);
/* The message as kombu puts one back that somebody had taken: it says that it is redelivered. */
int celery_put_redelivered(struct span message, struct buf *out);

#endif
