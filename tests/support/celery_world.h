/*
 * A client of the celery backend on a loop, a real Redis of the test's own, and a second connection to play
 * the worker with.
 */
#ifndef SUPPORT_CELERY_WORLD_H
#define SUPPORT_CELERY_WORLD_H

#include "support/redis_server.h"
#include "tasks/celery/celery.h"
#include "tasks/task_options.h"

struct celery_world {
	struct redis_server server;
	struct loop *loop;
	struct loop_timer *guard;
	struct task_options *options;
	struct task_client *client;
	struct redis *worker; /* what the test does to Redis */
	unsigned waiting;
	bool frees; /* the client, from within the next callback */
};

void celery_world_start(struct celery_world *w);
void celery_world_stop(struct celery_world *w);
void celery_world_set(struct celery_world *w, const char *key, const char *value);
/* To be called by each callback; celery_world_wait returns after that many of them, and fails the test
 * after 20 s. */
void celery_world_happened(struct celery_world *w);
void celery_world_wait(struct celery_world *w, unsigned events);
/* Lets this much time pass on the loop, for what depends on the age of an answer. */
void celery_world_pass(struct celery_world *w, unsigned ms);
/* Exit code 77 when there is no redis-server on this machine. */
bool celery_world_possible(void);

#endif
