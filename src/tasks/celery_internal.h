/* What the files of the celery backend share. Private to them. */
#ifndef TASKS_CELERY_INTERNAL_H
#define TASKS_CELERY_INTERNAL_H

#include "base/crypto.h"
#include "base/redis.h"
#include "tasks/celery.h"
#include "tasks/celery_message.h"

#define CELERY_RESULT_PREFIX "celery-task-meta-"
#define CELERY_KEY_MAX (sizeof(CELERY_RESULT_PREFIX) + TASK_ID_MAX)

struct celery_options {
	struct redis_url broker, results;
	bool has_broker, has_results;
	char *queue, *control_exchange;
	size_t max_input;
	unsigned connect_timeout_ms, command_timeout_ms, health_interval_ms;
	bool terminate;
};

struct celery_operation; /* a submission, look-up or cancellation under way */
struct celery_queue;	 /* one whose binding was told to this Redis */
struct celery_health_request;

struct celery_health {
	struct celery_health_request *requests;
	struct loop_work work; /* tells them */
	struct task_health now;
	uint64_t asked_ms; /* 0: never */
	unsigned asking;   /* replies under way */
	int64_t receivers, answers;
};

struct celery_client {
	struct task_client base;
	const struct celery_options *o;
	struct redis *broker, *results; /* may be one */
	struct redis *listener;		/* subscriptions to results */
	struct redis *replies;		/* BRPOP; NULL until health is asked */
	struct celery_sender sender;
	struct celery_operation *operations;
	struct task_wait *waits;
	struct celery_queue *queues;
	struct celery_health health;
};

int celery_connect(struct celery_client *c, const struct redis_url *url, redis_state_fn on_state, struct redis **ret, struct err *e);
struct span celery_result_key(struct span id, char key[CELERY_KEY_MAX]);

/* celery_wait.c */
struct task_wait *celery_wait(struct task_client *base, struct span id, task_result_fn fn, void *arg);
void celery_wait_cancel(struct task_wait *w);
void celery_waits_read_again(struct celery_client *c); /* the result backend is back */
void celery_waits_drop(struct celery_client *c);

/* celery_health.c */
void celery_health(struct task_client *base, task_health_fn fn, void *arg);
void celery_health_drop(struct celery_client *c);

#endif
