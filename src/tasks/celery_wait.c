/*
 * Waiting for results: SUBSCRIBE to the result's channel, then GET its key, so that nothing is missed between the two; and both again
 * after each reconnection.
 *
 * A wait ends by the first meta with a final state, from whichever of the two. When the read failed because the connection for commands
 * is away, it is due again once that is ready (celery_waits_read_again).
 */
#include <stdlib.h>

#include "tasks/celery_internal.h"
#include "tasks/celery_meta.h"

struct task_wait {
	struct celery_client *client;
	struct task_wait *next, **link;
	struct redis_subscription *subscription;
	struct redis_call *read;
	bool unread; /* the last read failed */
	task_result_fn fn;
	void *arg;
	char id[TASK_ID_MAX];
};

static void wait_free(struct task_wait *w)
{
	*w->link = w->next;
	if (w->next)
		w->next->link = w->link;
	redis_unsubscribe(w->subscription);
	redis_call_cancel(w->read);
	free(w);
}

/* Ends the wait when the meta is final. */
static void consider(struct task_wait *w, struct span text)
{
	struct celery_meta m = CELERY_META_INIT;
	struct task_result r;
	struct task_wait copy = *w;
	celery_meta_read(&m, text, span_of(copy.id), &r);
	if (celery_meta_is_end(&r)) {
		wait_free(w);
		copy.fn(copy.arg, 0, &r);
	}
	celery_meta_release(&m);
}

static void on_read(void *arg, enum redis_outcome outcome, const struct redis_reply *reply, const struct err *why)
{
	struct task_wait *w = arg;
	(void)why;
	w->read = NULL;
	w->unread = outcome != REDIS_ANSWERED || redis_reply_type(reply) == REDIS_ERROR;
	if (redis_reply_type(reply) == REDIS_TEXT)
		consider(w, redis_reply_text(reply));
}

static void read_result(struct task_wait *w)
{
	char key[CELERY_KEY_MAX];
	const struct span words[] = {SPAN_LIT("GET"), celery_result_key(w->client, span_of(w->id), key)};
	redis_call_cancel(w->read);
	w->read = redis_command(w->client->results, words, 2, 0, on_read, w);
}

static void on_ready(void *arg)
{
	read_result(arg);
}

static void on_message(void *arg, struct span payload)
{
	consider(arg, payload);
}

static const struct redis_listener listener = {.ready = on_ready, .message = on_message};

struct task_wait *celery_wait(struct task_client *base, struct span id, task_result_fn fn, void *arg)
{
	struct celery_client *c = (struct celery_client *)base;
	struct task_wait *w = calloc(1, sizeof(*w));
	char key[CELERY_KEY_MAX];
	if (!w)
		return NULL;
	w->client = c;
	w->fn = fn;
	w->arg = arg;
	span_copy(id, w->id, sizeof(w->id));
	w->subscription = redis_subscribe(c->listener, celery_result_key(w->client, span_of(w->id), key), &listener, w);
	if (!w->subscription) {
		free(w);
		return NULL;
	}
	w->next = c->waits;
	w->link = &c->waits;
	if (w->next)
		w->next->link = &w->next;
	c->waits = w;
	return w;
}

void celery_wait_cancel(struct task_wait *w)
{
	wait_free(w);
}

void celery_waits_read_again(struct celery_client *c)
{
	for (struct task_wait *w = c->waits; w; w = w->next)
		if (w->unread && !w->read)
			read_result(w);
}

void celery_waits_drop(struct celery_client *c)
{
	while (c->waits)
		wait_free(c->waits);
}
