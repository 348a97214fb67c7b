/*
 * RabbitMQ as the broker. Messages go through the default exchange to the queue of their name, which is what
 * Celery's own producer does with queues of direct exchanges; queues and exchanges are the workers' to
 * declare.
 *
 * Priorities are the message's property: a queue that was declared without x-max-priority ignores it.
 * No `expiration`: RabbitMQ would drop the message, and nobody would ever say so. The header `expires` makes
 * the worker revoke the task instead.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/rabbit.h"
#include "tasks/celery/celery_heard.h"
#include "tasks/celery/celery_internal.h"

#define SILENCE_MS 1000
#define ANSWERS_MAX 4000
#define ANSWERS_BYTES (16u << 20)

struct amqp_errand {
	LIST_ENTRY(amqp_errand) place;
	struct celery_client *client;
	celery_sent_fn fn;
	void *arg;
};

struct amqp_answer {
	TAILQ_ENTRY(amqp_answer) place;
	size_t ticket, size; /* lengths */
	char text[];	     /* ticket, body */
};

/* --- life ----------------------------------------------------------------------------------------------- */

static void on_reply(void *arg, struct span ticket, struct span body);
static void on_silence(void *arg);

static int amqp_open(struct celery_client *c, struct err *e)
{
	const struct rabbit_port_options o = {.reply = on_reply, .arg = c};
	TAILQ_INIT(&c->amqp.answers);
	span_copy(span_of(c->o->reply_queue), c->sender.reply_to, sizeof(c->sender.reply_to));
	int r = rabbit_port_new(c->o->rabbit, c->base.loop, &o, &c->amqp.port);
	if (r == 0)
		r = loop_timer_new(c->base.loop, on_silence, c, &c->amqp.silence);
	return r < 0 ? err_set(e, r, "out of memory or descriptors") : 0;
}

static void forget_answers(struct celery_client *c)
{
	struct amqp_answer *a;
	while ((a = TAILQ_FIRST(&c->amqp.answers))) {
		TAILQ_REMOVE(&c->amqp.answers, a, place);
		free(a);
	}
	c->amqp.n_answers = c->amqp.bytes = 0;
}

static struct amqp_errand errand_end(struct amqp_errand *a)
{
	struct amqp_errand copy = *a;
	LIST_REMOVE(a, place);
	free(a);
	return copy;
}

static void amqp_close(struct celery_client *c)
{
	rabbit_port_free(c->amqp.port);
	loop_timer_free(c->amqp.silence);
	loop_defer_cancel(c->base.loop, &c->amqp.work);
	if (c->amqp.port)
		forget_answers(c);
	while (!LIST_EMPTY(&c->amqp.errands))
		errand_end(LIST_FIRST(&c->amqp.errands));
}

static const char *amqp_where(const struct celery_client *c)
{
	struct celery_client *mine = (struct celery_client *)(uintptr_t)c;
	rabbit_where_now(c->o->rabbit, mine->amqp.where);
	return c->amqp.where;
}

static bool amqp_away(const struct celery_client *c, struct err *why)
{
	return rabbit_port_away(c->amqp.port, why);
}

/* --- sending -------------------------------------------------------------------------------------------- */

static int amqp_write(const struct celery_client *c, const struct task_call *call,
		      const struct workflow_definition *w, struct span queue, struct celery_letter *out,
		      struct err *why)
{
	out->body = BUF_INIT((512u << 20) - 1);
	out->headers = BUF_INIT(1u << 16);
	buf_append_span(&out->address, queue);
	int r = w ? celery_chain_message(&c->sender, call, w, queue, clock_wall_us(), &out->headers,
					 &out->body)
		  : celery_task_message(&c->sender, call, queue, clock_wall_us(), &out->headers, &out->body);
	if (r == -EFBIG)
		return err_set(why, r, "the message would be too large for RabbitMQ");
	return r < 0 ? err_set(why, r, "out of memory") : 0;
}

static void on_settled(void *arg, const struct rabbit_answer *answer)
{
	static const enum celery_sent sent[] = {[RABBIT_DONE] = CELERY_SENT,
						[RABBIT_REFUSED] = CELERY_NOT_SENT,
						[RABBIT_UNKNOWN] = CELERY_MAYBE_SENT};
	struct amqp_errand a = errand_end(arg);
	a.fn(a.arg, sent[answer->outcome], -1, &answer->why);
}

static struct amqp_errand *errand_new(struct celery_client *c, celery_sent_fn fn, void *arg)
{
	struct amqp_errand *a = malloc(sizeof(*a));
	struct err e;
	if (!a) {
		err_set(&e, -ENOMEM, "out of memory");
		fn(arg, CELERY_NOT_SENT, -1, &e);
		return NULL;
	}
	*a = (struct amqp_errand){.client = c, .fn = fn, .arg = arg};
	LIST_INSERT_HEAD(&c->amqp.errands, a, place);
	return a;
}

static void amqp_send(struct celery_client *c, const struct celery_letter *letter, celery_sent_fn fn,
		      void *arg)
{
	struct amqp_errand *a = errand_new(c, fn, arg);
	const struct rabbit_message m = {.exchange = SPAN_LIT(""),
					 .routing_key = buf_span(&letter->address),
					 .headers = buf_span(&letter->headers),
					 .correlation_id = span_of(letter->id),
					 .reply_to = span_of(c->sender.reply_to),
					 .body = buf_span(&letter->body),
					 .priority = letter->priority > 9 ? 9 : letter->priority,
					 .persistent = true};
	if (a)
		rabbit_publish(c->amqp.port, RABBIT_TASKS, &m, on_settled, a);
}

/* --- the queue ------------------------------------------------------------------------------------------ */

static void on_looked(void *arg, const struct rabbit_answer *a)
{
	struct celery_client *c = arg;
	const bool asked = a->outcome == RABBIT_DONE;
	struct celery_look look = {.reachable = asked,
				   .backlog = asked && a->queue.there ? a->queue.messages : -1,
				   .workers = asked && a->queue.there ? a->queue.consumers : 0,
				   .why = a->why};
	c->amqp.look(c, &look);
}

static void amqp_look(struct celery_client *c, celery_look_fn fn)
{
	c->amqp.look = fn;
	rabbit_look(c->amqp.port, span_of(c->o->queue), on_looked, c);
}

/* --- to all workers ------------------------------------------------------------------------------------- */

static void tell_workers(struct celery_client *c, const char *method, struct span arguments,
			 const char *ticket, rabbit_fn fn, void *arg)
{
	CLEANUP(buf_releasep) struct buf exchange = BUF_INIT(1024), headers = BUF_INIT(1024);
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(1u << 16);
	struct rabbit_answer failed = {.outcome = RABBIT_REFUSED};
	buf_printf(&exchange, "%s.pidbox", c->o->control_exchange);
	int r = celery_control_message(c->o->control_exchange, method, arguments, ticket,
				       span_of(c->o->reply_queue), &headers, &body);
	if (r < 0 || exchange.error) {
		err_set(&failed.why, 0, "out of memory");
		fn(arg, &failed);
		return;
	}
	const struct rabbit_message m = {.exchange = buf_span(&exchange),
					 .routing_key = SPAN_LIT(""),
					 .headers = buf_span(&headers),
					 .body = buf_span(&body),
					 .priority = -1};
	rabbit_publish(c->amqp.port, RABBIT_CONTROL, &m, fn, arg);
}

/* What no worker's mailbox takes comes back. */
static void on_commanded(void *arg, const struct rabbit_answer *answer)
{
	struct amqp_errand a = errand_end(arg);
	if (answer->returned)
		a.fn(a.arg, CELERY_SENT, 0, &answer->why);
	else
		a.fn(a.arg, answer->outcome == RABBIT_DONE ? CELERY_SENT : CELERY_NOT_SENT, -1, &answer->why);
}

static void amqp_command(struct celery_client *c, const char *method, struct span arguments,
			 celery_sent_fn fn, void *arg)
{
	struct amqp_errand *a = errand_new(c, fn, arg);
	if (a)
		tell_workers(c, method, arguments, NULL, on_commanded, a);
}

/* --- a round of questions ------------------------------------------------------------------------------- */

static int amqp_round_open(struct celery_client *c, struct err *e)
{
	(void)c, (void)e;
	return 0;
}

static void on_room(void *arg, const struct rabbit_answer *a)
{
	struct celery_client *c = arg;
	const struct celery_told told = {
		.done = a->outcome == RABBIT_DONE, .unreachable = true, .why = a->why};
	c->amqp.told(c, &told);
}

/* A question about our own queue: a server that is away, or takes nothing, says so here. */
static void amqp_round_begin(struct celery_client *c, celery_told_fn fn)
{
	forget_answers(c);
	c->amqp.told = fn;
	c->amqp.open = true;
	rabbit_look(c->amqp.port, span_of(c->o->reply_queue), on_room, c);
}

static void on_asked(void *arg, const struct rabbit_answer *a)
{
	struct celery_client *c = arg;
	const struct celery_told told = {.done = a->outcome == RABBIT_DONE || a->returned,
					 .unreachable = true,
					 .receivers = a->returned ? 0 : -1,
					 .why = a->why};
	c->amqp.told(c, &told);
}

static void amqp_ask(struct celery_client *c, const struct celery_question *question, const char *ticket,
		     celery_told_fn fn)
{
	c->amqp.told = fn;
	tell_workers(c, question->method, span_of(question->arguments), ticket, on_asked, c);
}

static void tell_answer(struct celery_client *c)
{
	struct amqp_answer *a = TAILQ_FIRST(&c->amqp.answers);
	struct err e;
	c->amqp.listening = false;
	loop_timer_stop(c->amqp.silence);
	TAILQ_REMOVE(&c->amqp.answers, a, place);
	c->amqp.n_answers--;
	c->amqp.bytes -= a->size;
	struct celery_told told = {
		.done = true,
		.answered = true,
		.receivers = -1,
		.ticket = {a->text, a->ticket},
		.body = span_trim((struct span){a->text + a->ticket, a->size - a->ticket})};
	if (json_validate(told.body, &e) < 0)
		told.body = SPAN_NONE;
	c->amqp.told(c, &told);
	free(a);
}

static void on_answer_work(struct loop_work *work)
{
	struct celery_client *c =
		(struct celery_client *)((char *)work - offsetof(struct celery_client, amqp.work));
	c->amqp.work_due = false;
	if (c->amqp.listening && !TAILQ_EMPTY(&c->amqp.answers))
		tell_answer(c);
}

static void answer_later(struct celery_client *c)
{
	if (c->amqp.work_due)
		return;
	c->amqp.work_due = true;
	c->amqp.work.fn = on_answer_work;
	loop_defer(c->base.loop, &c->amqp.work);
}

static void on_reply(void *arg, struct span ticket, struct span body)
{
	struct celery_client *c = arg;
	size_t size = ticket.len + body.len;
	struct amqp_answer *a =
		c->amqp.open && c->amqp.n_answers < ANSWERS_MAX && size + c->amqp.bytes < ANSWERS_BYTES
			? malloc(sizeof(*a) + size)
			: NULL;
	if (!a)
		return;
	a->ticket = ticket.len;
	a->size = size;
	memcpy(a->text, ticket.ptr, ticket.len);
	memcpy(a->text + ticket.len, body.len ? body.ptr : "", body.len);
	TAILQ_INSERT_TAIL(&c->amqp.answers, a, place);
	c->amqp.n_answers++;
	c->amqp.bytes += size;
	if (c->amqp.listening)
		answer_later(c);
}

static void on_silence(void *arg)
{
	struct celery_client *c = arg;
	const struct celery_told told = {.done = true, .receivers = -1};
	c->amqp.listening = false;
	c->amqp.told(c, &told);
}

static void amqp_answer(struct celery_client *c, celery_told_fn fn)
{
	c->amqp.told = fn;
	c->amqp.listening = true;
	loop_timer_start(c->amqp.silence, SILENCE_MS);
	if (!TAILQ_EMPTY(&c->amqp.answers))
		answer_later(c);
}

static void amqp_round_end(struct celery_client *c, bool late)
{
	(void)late;
	c->amqp.open = c->amqp.listening = false;
	loop_timer_stop(c->amqp.silence);
	forget_answers(c);
}

/* --- what all clients share ----------------------------------------------------------------------------- */

/* A result of rpc, on the connection's thread. Of one that is too large no more than that it is there can be
 * told. */
static void on_arrived(void *arg, struct span correlation_id, struct span body, bool too_large)
{
	const struct celery_options *o = arg;
	const struct span unreadable = SPAN_LIT("{\"status\": \"SUCCESS\", \"result\": too large}");
	celery_heard_text(o->heard, correlation_id, too_large ? unreadable : body);
}

static void on_hearing(void *arg, const char *why)
{
	const struct celery_options *o = arg;
	celery_heard_state(o->heard, why);
}

static int amqp_start(struct celery_options *o, struct err *e)
{
	bool rpc = o->results_kind == CELERY_RESULTS_RPC;
	struct rabbit_options r = {.url = &o->amqp,
				   .reply_queue = o->reply_queue,
				   .connect_timeout_ms = o->connect_timeout_ms,
				   .command_timeout_ms = o->command_timeout_ms,
				   .max_body = 512u << 20};
	crypto_uuid4(o->reply_queue);
	if (rpc && celery_heard_new(true, NULL, NULL, &o->heard) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	if (rpc) {
		r.arrived = on_arrived;
		r.hearing = on_hearing;
		r.arg = o;
	}
	return rabbit_new(&r, &o->rabbit, e);
}

static void amqp_stop(struct celery_options *o)
{
	rabbit_free(o->rabbit);
	if (o->results_kind == CELERY_RESULTS_RPC)
		celery_heard_free(o->heard);
}

const struct celery_broker celery_broker_amqp = {
	.start = amqp_start,
	.stop = amqp_stop,
	.open = amqp_open,
	.close = amqp_close,
	.where = amqp_where,
	.away = amqp_away,
	.write = amqp_write,
	.send = amqp_send,
	.look = amqp_look,
	.command = amqp_command,
	.round_open = amqp_round_open,
	.round_begin = amqp_round_begin,
	.ask = amqp_ask,
	.answer = amqp_answer,
	.round_end = amqp_round_end,
};
