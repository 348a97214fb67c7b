/*
 * Whether results can be heard at all: a result backend that is unreachable, or a user who may not subscribe
 * there, would leave every task without an answer.
 *
 * Found out by a watch for a result that never comes: before the first submission of a client, again
 * when the connection is back after it was lost, and at all times in a client that is asked for health or
 * checks. Bounded by the time limits of connection and command.
 */
#include "tasks/celery/celery_internal.h"

static void drop_probe(struct celery_client *c)
{
	c->results->unwatch(c->hearing.probe);
	c->hearing.probe = NULL;
}

static void settle(struct celery_client *c, const char *why)
{
	err_set(&c->hearing.why, 0, "%s", why);
	c->hearing.settled = true;
	loop_timer_stop(c->hearing.limit);
	if (!c->hearing.stays)
		drop_probe(c);
	c->hearing.fn(c->hearing.arg);
}

static void on_ready(void *arg)
{
	settle(arg, "");
}

static void on_message(void *arg, struct span payload)
{
	(void)arg, (void)payload;
}

static void on_limit(void *arg)
{
	struct celery_client *c = arg;
	struct err why;
	err_set(&why, 0, "%s at %s: no answer within the time limit", c->results->name, c->results->where(c));
	settle(c, why.text);
}

int celery_hearing_init(struct celery_client *c, void (*fn)(void *arg), void *arg)
{
	c->hearing.fn = fn;
	c->hearing.arg = arg;
	return loop_timer_new(c->base.loop, on_limit, c, &c->hearing.limit);
}

void celery_hearing_down(struct celery_client *c, const char *why)
{
	settle(c, why);
}

bool celery_hears(const struct celery_client *c)
{
	return c->hearing.settled && !(c->hearing.why.text[0] && c->results->ready(c));
}

void celery_hear(struct celery_client *c, bool stays)
{
	static const struct celery_watcher watcher = {.ready = on_ready, .message = on_message};
	c->hearing.stays |= stays;
	if (!c->hearing.probe)
		c->hearing.probe = c->results->watch(c, span_of(c->sender.reply_to), &watcher, c);
	if (!c->hearing.probe)
		settle(c, "out of memory");
	else if (!celery_hears(c) && !loop_timer_active(c->hearing.limit))
		loop_timer_start(c->hearing.limit, c->o->connect_timeout_ms + c->o->command_timeout_ms);
}

void celery_hearing_drop(struct celery_client *c)
{
	drop_probe(c);
	loop_timer_free(c->hearing.limit);
}
