/*
 * Health: Redis answers a PING, how many tasks wait on the default queue, and whether a worker answers a ping on the pidbox.
 *
 * Asking again within health_interval gives the answer of the last time, so that a status page does not flood the workers. Workers
 * answer by a list of ours in the broker, found through the binding of our reply exchange; both are removed at the end of a round
 * in which every worker that heard us has answered.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include "tasks/celery_internal.h"

#define ANSWER_SECONDS "1"

struct celery_health_request {
	struct celery_health_request *next;
	task_health_fn fn;
	void *arg;
};

/* --- telling ------------------------------------------------------------------------------------------------------- */

static void finish(struct celery_client *c);

/* One at a time: a callback may free the client. */
static void tell(struct loop_work *work)
{
	struct celery_health *h = (struct celery_health *)((char *)work - offsetof(struct celery_health, work));
	struct celery_client *c = (struct celery_client *)((char *)h - offsetof(struct celery_client, health));
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

/* --- the answers of workers ------------------------------------------------------------------------------------------- */

static struct span reply_list(const struct celery_client *c, struct buf *out)
{
	buf_printf(out, "%s.reply.%s.pidbox", c->sender.reply_to, c->o->control_exchange);
	return buf_span(out);
}

static void bind_replies(struct celery_client *c, const char *verb)
{
	CLEANUP(buf_releasep) struct buf key = BUF_INIT(512), member = BUF_INIT(1024);
	buf_printf(&key, "_kombu.binding.reply.%s.pidbox", c->o->control_exchange);
	buf_printf(&member, "%s" CELERY_SEPARATOR CELERY_SEPARATOR "%s.reply.%s.pidbox", c->sender.reply_to, c->sender.reply_to,
		   c->o->control_exchange);
	const struct span words[] = {span_of(verb), buf_span(&key), buf_span(&member)};
	redis_command(c->broker, words, 3, 0, NULL, NULL);
}

static void clear_replies(struct celery_client *c)
{
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(512);
	const struct span words[] = {SPAN_LIT("DEL"), reply_list(c, &list)};
	redis_command(c->broker, words, 2, 0, NULL, NULL);
}

static void next_answer(struct celery_client *c);

static void end_round(struct celery_client *c)
{
	if (c->health.answers == c->health.receivers) {
		clear_replies(c);
		bind_replies(c, "SREM");
	}
	finish(c);
}

static void on_answer(void *arg, enum redis_outcome outcome, const struct redis_reply *reply, const struct err *why)
{
	struct celery_client *c = arg;
	struct celery_health *h = &c->health;
	(void)why;
	if (outcome == REDIS_ANSWERED && redis_reply_type(reply) == REDIS_ARRAY) {
		h->answers++;
		h->now.worker = true;
		if (h->answers < h->receivers) {
			next_answer(c);
			return;
		}
	} else if (!h->now.worker) {
		say(c, "workers listen, but none answered within %s s", ANSWER_SECONDS);
	}
	end_round(c);
}

static void next_answer(struct celery_client *c)
{
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(512);
	const struct span words[] = {SPAN_LIT("BRPOP"), reply_list(c, &list), SPAN_LIT(ANSWER_SECONDS)};
	redis_command(c->replies, words, 3, 5000, on_answer, c);
}

static void on_pinged_workers(void *arg, enum redis_outcome outcome, const struct redis_reply *reply, const struct err *why)
{
	struct celery_client *c = arg;
	c->health.receivers = redis_reply_integer(reply);
	c->health.answers = 0;
	if (outcome == REDIS_ANSWERED && c->health.receivers > 0) {
		next_answer(c);
		return;
	}
	if (outcome == REDIS_ANSWERED)
		say(c, "no worker is connected to %s", redis_where(c->broker));
	else
		say(c, "%s", why->text);
	end_round(c);
}

static void ping_workers(struct celery_client *c)
{
	CLEANUP(buf_releasep) struct buf channel = BUF_INIT(512), message = BUF_INIT(1u << 16);
	char ticket[CRYPTO_UUID];
	struct err e;
	if (!c->replies && celery_connect(c, &c->o->broker, NULL, &c->replies, &e) < 0) {
		say(c, "%s", e.text);
		finish(c);
		return;
	}
	crypto_uuid4(ticket);
	clear_replies(c); /* of a worker that was late the last time */
	bind_replies(c, "SADD");
	buf_printf(&channel, "/%u.%s.pidbox", c->o->broker.db, c->o->control_exchange);
	celery_control_message(&c->sender, c->o->control_exchange, "ping", SPAN_LIT("{}"), ticket, &message);
	const struct span words[] = {SPAN_LIT("PUBLISH"), buf_span(&channel), buf_span(&message)};
	redis_command(c->broker, words, 3, 0, on_pinged_workers, c);
}

/* --- Redis ------------------------------------------------------------------------------------------------------------ */

static void on_length(void *arg, enum redis_outcome outcome, const struct redis_reply *reply, const struct err *why)
{
	struct celery_client *c = arg;
	(void)why;
	if (outcome == REDIS_ANSWERED && redis_reply_type(reply) == REDIS_INTEGER && c->health.now.backlog >= 0)
		c->health.now.backlog += redis_reply_integer(reply);
	else
		c->health.now.backlog = -1;
}

static void ask_lengths(struct celery_client *c)
{
	for (size_t i = 0; i < CELERY_PRIORITIES; i++) {
		CLEANUP(buf_releasep) struct buf key = BUF_INIT(512);
		celery_queue_key(span_of(c->o->queue), celery_priority_steps[i], &key);
		const struct span words[] = {SPAN_LIT("LLEN"), buf_span(&key)};
		redis_command(c->broker, words, 2, 0, on_length, c);
	}
}

static void on_ping(void *arg, enum redis_outcome outcome, const struct redis_reply *reply, const struct err *why)
{
	struct celery_client *c = arg;
	struct celery_health *h = &c->health;
	h->now.reachable = outcome == REDIS_ANSWERED && redis_reply_type(reply) != REDIS_ERROR;
	if (h->now.reachable) {
		h->now.backlog = 0;
		ask_lengths(c); /* answered before what follows, on the same connection */
		ping_workers(c);
		return;
	}
	if (outcome == REDIS_ANSWERED) {
		say(c, "Redis at %s: %.*s", redis_where(c->broker), SPAN_ARG(redis_reply_text(reply)));
	} else {
		say(c, "%s", why->text);
	}
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
	if (h->asked_ms && now - h->asked_ms < c->o->health_interval_ms && h->now.reachable && h->now.worker) {
		finish(c);
		return;
	}
	h->asked_ms = now;
	h->now = (struct task_health){.backlog = -1};
	const struct span words[] = {SPAN_LIT("PING")};
	redis_command(c->broker, words, 1, 2000, on_ping, c);
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
