/*
 * Health: the broker answers and takes messages, results can be heard, how many tasks wait on the default
 * queue, and whether a worker answers a ping on the pidbox.
 *
 * Asking again within health_interval gives the answer of the last time, so that a status page does not flood
 * the workers.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include "tasks/celery/celery_internal.h"

struct celery_health_request {
	struct celery_health_request *next;
	task_health_fn fn;
	void *arg;
};

/* --- telling -------------------------------------------------------------------------------------------- */

static void finish(struct celery_client *c);

/* One at a time: a callback may free the client. */
static void tell(struct loop_work *work)
{
	struct celery_health *h =
		(struct celery_health *)((char *)work - offsetof(struct celery_health, work));
	struct celery_client *c =
		(struct celery_client *)((char *)h - offsetof(struct celery_client, health));
	struct celery_health_request *q = h->requests;
	const struct task_health now = h->now;
	task_health_fn fn = q->fn;
	void *arg = q->arg;
	h->requests = q->next;
	free(q);
	if (h->requests)
		finish(c);
	fn(arg, &now);
}

static void finish(struct celery_client *c)
{
	c->health.work.fn = tell;
	loop_defer_cancel(c->base.loop, &c->health.work);
	loop_defer(c->base.loop, &c->health.work);
}

/* The first thing that is missing is the one to be told. */
static void __attribute__((format(printf, 2, 3))) say(struct celery_client *c, const char *format, ...)
{
	struct task_health *now = &c->health.now;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1024);
	va_list ap;
	va_start(ap, format);
	buf_vprintf(&text, format, ap);
	va_end(ap);
	if (!now->detail[0])
		span_copy(buf_span(&text), now->detail, sizeof(now->detail));
}

/* --- the answers of workers ----------------------------------------------------------------------------- */

static void on_answer(struct celery_client *c, size_t question, struct span worker, struct span value)
{
	(void)question, (void)worker, (void)value;
	c->health.now.worker = true;
}

static void on_end(struct celery_client *c)
{
	struct celery_health *h = &c->health;
	bool deaf = c->hearing.why.text[0], asked = h->round.n_questions > 0;
	if (h->round.why.text[0])
		say(c, "%s", h->round.why.text);
	else if (!asked && !h->now.worker)
		say(c, "no worker consumes the queue \"%s\" of %s", c->o->queue, c->broker->where(c));
	else if (asked && h->round.listeners == 0)
		say(c, CELERY_NO_WORKER, c->broker->where(c));
	else if (!h->now.worker)
		say(c, "workers listen, but none answered in time");
	if (deaf)
		say(c, CELERY_DEAF, c->hearing.why.text);
	h->now.reachable = h->round.reachable && !deaf;
	finish(c);
}

/* A broker that knows who consumes the queue spares the workers the question; the round then only finds out
 * whether results are heard. */
static void ping_workers(struct celery_client *c, bool known)
{
	static const struct celery_question ping = {"ping", "{}"};
	struct err e;
	c->health.round = (struct celery_round){
		.questions = &ping, .n_questions = known ? 0 : 1, .answer = on_answer, .end = on_end};
	if (celery_pidbox_ask(c, &c->health.round, &e) < 0) {
		say(c, "%s", e.text);
		finish(c);
	}
}

/* --- the queue ------------------------------------------------------------------------------------------ */

static void on_look(struct celery_client *c, const struct celery_look *look)
{
	struct celery_health *h = &c->health;
	h->now.reachable = look->reachable;
	h->now.backlog = look->backlog;
	h->now.worker = look->workers > 0;
	if (look->why.text[0])
		say(c, "%s", look->why.text);
	if (look->reachable)
		ping_workers(c, look->workers >= 0);
	else
		finish(c);
}

void celery_health(struct task_client *base, task_health_fn fn, void *arg)
{
	struct celery_client *c = (struct celery_client *)base;
	struct celery_health *h = &c->health;
	struct celery_health_request *q = malloc(sizeof(*q));
	if (!q) {
		const struct task_health none = {.backlog = -1, .detail = "out of memory"};
		fn(arg, &none);
		return;
	}
	bool asking = h->requests != NULL;
	*q = (struct celery_health_request){.next = h->requests, .fn = fn, .arg = arg};
	h->requests = q;
	if (asking)
		return;
	uint64_t now = loop_now_ms(base->loop);
	/* Only what is well is kept: who waits for a recovery sees it at once. */
	if (h->asked_ms && now - h->asked_ms < c->o->health_interval_ms && h->now.reachable &&
	    h->now.worker) {
		finish(c);
		return;
	}
	h->asked_ms = now;
	h->now = (struct task_health){.backlog = -1};
	c->broker->look(c, on_look);
}

void celery_health_drop(struct celery_client *c)
{
	loop_defer_cancel(c->base.loop, &c->health.work);
	while (c->health.requests) {
		struct celery_health_request *q = c->health.requests;
		c->health.requests = q->next;
		free(q);
	}
}
