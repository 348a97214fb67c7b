/*
 * The verbs of a broker, one row for each kind: what the client needs to send tasks, to ask how its queue is
 * and to speak with all workers at once. The URL's scheme chooses the row (celery.c).
 *
 * Why:       submissions, health and checks are the same over every broker; how a message is written, what
 *            says that it is stored, and who answers are not.
 * Callbacks: each comes once, later than the call (from within it only if out of memory), unless the client
 *            is closed before. They may free the client.
 */
#ifndef TASKS_CELERY_CELERY_BROKER_H
#define TASKS_CELERY_CELERY_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"
#include "tasks/task_backend.h"

struct celery_client;
struct celery_options;
struct celery_question;
struct workflow_definition;

/* A task's message as its broker takes it: written first, sent when it is known that results can be heard. */
struct celery_letter {
	struct buf address; /* the list's key; the queue's name */
	struct buf headers; /* JSON; not of a Redis message, which is one text */
	struct buf body;
	int priority;
	char id[TASK_ID_MAX];
};

enum celery_sent {
	CELERY_SENT,
	CELERY_NOT_SENT,  /* provably in no queue */
	CELERY_MAYBE_SENT /* written, and nobody has said what became of it */
};
/* `why` unless sent. receivers: workers that it was delivered to, -1 not known. */
typedef void (*celery_sent_fn)(void *arg, enum celery_sent sent, int64_t receivers, const struct err *why);

/* How the default queue is. */
struct celery_look {
	bool reachable;	 /* the broker answers */
	int64_t backlog; /* -1: not known */
	int64_t workers; /* who consumes it, -1: the broker cannot tell */
	struct err why;	 /* unless reachable; or what is wrong with the queue */
};
typedef void (*celery_look_fn)(struct celery_client *c, const struct celery_look *look);

/* What came of one step of a round of questions. */
struct celery_told {
	bool done;
	/* unless done: a submission would be refused for the same reason */
	bool unreachable;
	struct err why;
	int64_t receivers; /* of a question; -1: not known, so that answers end by silence */
	/* one answer; none: nobody has spoken for a second */
	bool answered;
	struct span ticket, body; /* ticket without quotes; body: {worker: answer}, valid JSON or empty */
};
typedef void (*celery_told_fn)(struct celery_client *c, const struct celery_told *told);

struct celery_broker {
	/* What the clients of all loops share; NULL: nothing. `stop` is of whatever start has done. */
	int (*start)(struct celery_options *o, struct err *e);
	void (*stop)(struct celery_options *o);
	/* Connects when it must; a broker that is down is not an error. */
	int (*open)(struct celery_client *c, struct err *e);
	void (*close)(struct celery_client *c);		     /* of whatever open has done */
	const char *(*where)(const struct celery_client *c); /* address for people */
	/* Known to be away: it would refuse a submission at once. */
	bool (*away)(const struct celery_client *c, struct err *why);
	/* 0, -EFBIG or -ENOMEM. `w`: NULL unless the call is that of a declared workflow. */
	int (*write)(const struct celery_client *c, const struct task_call *call,
		     const struct workflow_definition *w, struct span queue, struct celery_letter *out,
		     struct err *why);
	void (*send)(struct celery_client *c, const struct celery_letter *letter, celery_sent_fn fn,
		     void *arg);
	void (*look)(struct celery_client *c, celery_look_fn fn);
	/* To all workers; nobody answers. Arguments as JSON. */
	void (*command)(struct celery_client *c, const char *method, struct span arguments, celery_sent_fn fn,
			void *arg);
	/* One round at a time: begin, then questions one after the other, then answers; end at any time. */
	int (*round_open)(struct celery_client *c, struct err *e); /* what is needed before the first */
	void (*round_begin)(struct celery_client *c, celery_told_fn fn);
	void (*ask)(struct celery_client *c, const struct celery_question *question, const char *ticket,
		    celery_told_fn fn);
	void (*answer)(struct celery_client *c, celery_told_fn fn);
	void (*round_end)(struct celery_client *c, bool late); /* late: answers are still to come */
};

extern const struct celery_broker celery_broker_redis, celery_broker_amqp;

#endif
