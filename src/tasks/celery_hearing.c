/*
 * Whether results can be heard at all: a result backend that is away, or a user who may not subscribe there, would leave every task
 * without an answer. A subscription to a result that never comes, kept as long as the client, tells it at all times.
 */
#include "tasks/celery_internal.h"

static void settle(struct celery_client *c, const char *why)
{
	err_set(&c->hearing.why, 0, "%s", why);
	c->hearing.settled = true;
	celery_pidbox_go_on(c);
}

static void on_ready(void *arg)
{
	settle(arg, "");
}

static void on_message(void *arg, struct span payload)
{
	(void)arg, (void)payload;
}

void celery_hearing_state(void *client, enum redis_state state, const char *why)
{
	struct celery_client *c = client;
	if (state == REDIS_DOWN && c->hearing.probe)
		settle(c, why);
}

void celery_hear(struct celery_client *c)
{
	static const struct redis_listener listener = {.ready = on_ready, .message = on_message};
	char key[CELERY_KEY_MAX];
	struct err why;
	if (c->hearing.probe)
		return;
	bool away = redis_away(c->listener, &why);
	c->hearing.probe = redis_subscribe(c->listener, celery_result_key(c, span_of(c->sender.reply_to), key), &listener, c);
	if (!c->hearing.probe || away)
		settle(c, away ? why.text : "out of memory");
}

void celery_hearing_drop(struct celery_client *c)
{
	c->hearing.probe = redis_unsubscribe(c->hearing.probe);
}
