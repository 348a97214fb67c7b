/*
 * One connection to RabbitMQ, as the thread that owns it sees it. Over librabbitmq (rabbitmq-c), whose calls
 * block: each within the time limits given.
 *
 * Shape:     four channels: tasks and control messages are published with confirms, each on its own;
 *            questions about queues on a third, since the server closes a channel whose question it denies;
 *            what comes to our own queue on the fourth.
 * Threads:   one.
 * Errors:    negative: the connection is lost or cannot be used, with a sentence that holds neither user nor
 *            password.
 */
#ifndef BASE_RABBIT_LINK_H
#define BASE_RABBIT_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/rabbit_url.h"
#include "base/span.h"

enum rabbit_lane { RABBIT_TASKS, RABBIT_CONTROL, RABBIT_LANES };

struct rabbit_link;

struct rabbit_link_options {
	const struct rabbit_server *server;
	unsigned connect_timeout_ms, command_timeout_ms, heartbeat_s;
	const char *reply_queue;   /* ours: declared, and consumed */
	unsigned reply_expires_ms; /* it goes this long after its last consumer has */
	size_t max_body;	   /* of what comes */
};

struct rabbit_message {
	struct span exchange, routing_key;
	struct span headers;		      /* a JSON object */
	struct span correlation_id, reply_to; /* SPAN_NONE: none */
	struct span body;		      /* JSON */
	int priority;			      /* -1: none */
	bool persistent;
};

enum rabbit_event_kind {
	RABBIT_NOTHING,
	RABBIT_ACKED,	 /* lane, tag, multiple */
	RABBIT_NACKED,	 /* the same */
	RABBIT_RETURNED, /* lane, correlation_id, routing_key, text: no queue takes it; an ack follows */
	RABBIT_ARRIVED,	 /* correlation_id, ticket, body */
	RABBIT_CLOSED,	 /* lane, text, code: the channel, by the server; it is open again */
	RABBIT_BLOCKED,	 /* text: the server takes no messages */
	RABBIT_UNBLOCKED,
	RABBIT_DEAF /* text: our own queue is no longer consumed */
};

struct rabbit_event {
	enum rabbit_event_kind kind;
	enum rabbit_lane lane;
	uint64_t tag;
	bool multiple;
	unsigned code;
	bool too_large; /* the body is above max_body, and not there */
	/* borrowed until the next call */
	struct span text, correlation_id, routing_key, ticket, body;
};

struct rabbit_queue {
	bool there;
	int64_t messages, consumers;
	struct err why; /* unless there */
};

/* `deaf`: a sentence when our own queue cannot be had; the rest works nevertheless. */
int rabbit_link_open(const struct rabbit_link_options *o, struct rabbit_link **ret, struct err *deaf,
		     struct err *e);
void rabbit_link_close(struct rabbit_link *l); /* NULL is allowed */
/* Consumes our own queue again, after RABBIT_DEAF. */
int rabbit_link_hear(struct rabbit_link *l, struct err *deaf, struct err *e);
int rabbit_link_fd(const struct rabbit_link *l);
/* The next thing that has come; RABBIT_NOTHING when it would have to wait. */
int rabbit_link_next(struct rabbit_link *l, struct rabbit_event *ret, struct err *e);
/* Mandatory. *tag is what the confirm will name. > 0: this message cannot be written, and was not. */
int rabbit_link_publish(struct rabbit_link *l, enum rabbit_lane lane, const struct rabbit_message *m,
			uint64_t *tag, struct err *e);
int rabbit_link_look(struct rabbit_link *l, const char *queue, struct rabbit_queue *ret, struct err *e);
int rabbit_link_has_exchange(struct rabbit_link *l, const char *exchange, bool *ret, struct err *e);

#endif
