/*
 * Redis as the broker: a queue is a list (one for each step of priorities), a message one text, and workers
 * listen for questions on a channel.
 *
 * Answers: into a list of ours. Workers send there through the default exchange, which takes its routing key
 * for the queue's name: no binding is written, which producers of another `sep` could not read. The list is
 * removed when a round ends.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/json.h"
#include "tasks/celery/celery_internal.h"

#define ANSWER_SECONDS "1"
#define ANSWER_LIMIT_MS 3000
#define ANSWER_MAX (4u << 20)
#define LATE_SECONDS "3600"

/* What a command was for. */
struct redis_errand {
	LIST_ENTRY(redis_errand) place;
	struct celery_client *client;
	celery_sent_fn fn;
	void *arg;
};

static struct redis_errand *errand_new(struct celery_client *c, celery_sent_fn fn, void *arg)
{
	struct redis_errand *a = malloc(sizeof(*a));
	if (!a)
		return NULL;
	*a = (struct redis_errand){.client = c, .fn = fn, .arg = arg};
	LIST_INSERT_HEAD(&c->errands, a, place);
	return a;
}

static struct redis_errand errand_end(struct redis_errand *a)
{
	struct redis_errand copy = *a;
	LIST_REMOVE(a, place);
	free(a);
	return copy;
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void redis_broker_state(void *arg, enum redis_state state, const char *why)
{
	struct celery_client *c = arg;
	(void)why;
	if (state == REDIS_READY && c->redis_results == c->redis_broker)
		celery_waits_read_again(c);
}

static int redis_broker_open(struct celery_client *c, struct err *e)
{
	return celery_connect(c, &c->o->broker, redis_broker_state, &c->redis_broker, e);
}

static void redis_broker_close(struct celery_client *c)
{
	redis_free(c->redis_replies);
	redis_free(c->redis_broker);
	while (!LIST_EMPTY(&c->errands))
		errand_end(LIST_FIRST(&c->errands));
}

static const char *redis_broker_where(const struct celery_client *c)
{
	return redis_where(c->redis_broker);
}

static bool redis_broker_away(const struct celery_client *c, struct err *why)
{
	return redis_away(c->redis_broker, why);
}

/* --- sending -------------------------------------------------------------------------------------------- */

static int redis_broker_write(const struct celery_client *c, const struct task_call *call,
			      const struct workflow_definition *w, struct span queue,
			      struct celery_letter *out, struct err *why)
{
	out->body = BUF_INIT((512u << 20) - 1);
	buf_puts(&out->address, c->o->broker_prefix);
	int r = celery_queue_key(&c->o->lists, queue, call->priority, &out->address);
	if (r == 0)
		r = w ? celery_chain_message(&c->sender, call, w, queue, clock_wall_us(), NULL, &out->body)
		      : celery_task_message(&c->sender, call, queue, clock_wall_us(), NULL, &out->body);
	if (r == -EFBIG)
		return err_set(why, r, "the message would be too large for Redis");
	return r < 0 ? err_set(why, r, "out of memory") : 0;
}

static void on_pushed(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		      const struct err *why)
{
	struct redis_errand a = errand_end(arg);
	enum celery_sent sent = CELERY_SENT;
	struct err e = {""};
	if (outcome == REDIS_NO_REPLY)
		sent = CELERY_MAYBE_SENT;
	else if (outcome == REDIS_NOT_SENT || redis_reply_type(reply) == REDIS_ERROR)
		sent = CELERY_NOT_SENT;
	if (outcome != REDIS_ANSWERED)
		e = *why;
	else if (sent == CELERY_NOT_SENT)
		err_set(&e, 0, "Redis at %s refused the message: %.*s", redis_where(a.client->redis_broker),
			SPAN_ARG(redis_reply_text(reply)));
	a.fn(a.arg, sent, -1, &e);
}

static void told_no_memory(celery_sent_fn fn, void *arg)
{
	struct err e;
	err_set(&e, -ENOMEM, "out of memory");
	fn(arg, CELERY_NOT_SENT, -1, &e);
}

/* LPUSH and nothing else: a list needs no binding, and the tables of bindings are the application's (with
 * another `sep`, or an exchange of another type of that name, an entry of ours would break every producer
 * of it). */
static void redis_broker_send(struct celery_client *c, const struct celery_letter *letter, celery_sent_fn fn,
			      void *arg)
{
	struct redis_errand *a = errand_new(c, fn, arg);
	const struct span words[] = {SPAN_LIT("LPUSH"), buf_span(&letter->address), buf_span(&letter->body)};
	if (a)
		redis_command(c->redis_broker, words, 3, 0, on_pushed, a);
	else
		told_no_memory(fn, arg);
}

/* --- the queue ------------------------------------------------------------------------------------------ */

static void on_length(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		      const struct err *why)
{
	struct celery_client *c = arg;
	struct celery_redis_look *l = &c->redis_look;
	(void)why;
	if (outcome == REDIS_ANSWERED && redis_reply_type(reply) == REDIS_INTEGER && l->look.backlog >= 0)
		l->look.backlog += redis_reply_integer(reply);
	else
		l->look.backlog = -1;
	if (--l->waiting == 0)
		l->fn(c, &l->look);
}

static void ask_lengths(struct celery_client *c)
{
	c->redis_look.waiting = c->o->lists.n_steps;
	for (size_t i = 0; i < c->o->lists.n_steps; i++) {
		CLEANUP(buf_releasep) struct buf key = BUF_INIT(1024);
		buf_puts(&key, c->o->broker_prefix);
		celery_queue_key(&c->o->lists, span_of(c->o->queue), c->o->lists.steps[i], &key);
		const struct span words[] = {SPAN_LIT("LLEN"), buf_span(&key)};
		redis_command(c->redis_broker, words, 2, 0, on_length, c);
	}
}

static void on_ping(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		    const struct err *why)
{
	struct celery_client *c = arg;
	struct celery_redis_look *l = &c->redis_look;
	l->look = (struct celery_look){.backlog = -1, .workers = -1};
	l->look.reachable = outcome == REDIS_ANSWERED && redis_reply_type(reply) != REDIS_ERROR;
	if (l->look.reachable) {
		l->look.backlog = 0;
		ask_lengths(c);
		return;
	}
	if (outcome == REDIS_ANSWERED)
		err_set(&l->look.why, 0, "Redis at %s: %.*s", redis_where(c->redis_broker),
			SPAN_ARG(redis_reply_text(reply)));
	else
		l->look.why = *why;
	l->fn(c, &l->look);
}

static void redis_broker_look(struct celery_client *c, celery_look_fn fn)
{
	const struct span words[] = {SPAN_LIT("PING")};
	c->redis_look.fn = fn;
	redis_command(c->redis_broker, words, 1, 2000, on_ping, c);
}

/* --- to all workers ------------------------------------------------------------------------------------- */

static void pidbox_channel(const struct celery_client *c, struct buf *out)
{
	celery_put_fanout_prefix(c->o, out);
	buf_printf(out, "%s.pidbox", c->o->control_exchange);
}

static void on_commanded(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			 const struct err *why)
{
	struct redis_errand a = errand_end(arg);
	struct err e = {""};
	bool well = outcome == REDIS_ANSWERED && redis_reply_type(reply) != REDIS_ERROR;
	if (outcome != REDIS_ANSWERED)
		e = *why;
	else if (!well)
		err_set(&e, 0, "Redis at %s: %.*s", redis_where(a.client->redis_broker),
			SPAN_ARG(redis_reply_text(reply)));
	a.fn(a.arg, well ? CELERY_SENT : CELERY_NOT_SENT, well ? redis_reply_integer(reply) : -1, &e);
}

static void redis_broker_command(struct celery_client *c, const char *method, struct span arguments,
				 celery_sent_fn fn, void *arg)
{
	CLEANUP(buf_releasep) struct buf channel = BUF_INIT(1024), message = BUF_INIT(1u << 16);
	pidbox_channel(c, &channel);
	int r = celery_control_message(c->o->control_exchange, method, arguments, NULL, SPAN_NONE, NULL,
				       &message);
	struct redis_errand *a = r < 0 || channel.error ? NULL : errand_new(c, fn, arg);
	const struct span words[] = {SPAN_LIT("PUBLISH"), buf_span(&channel), buf_span(&message)};
	if (a)
		redis_command(c->redis_broker, words, 3, 0, on_commanded, a);
	else
		told_no_memory(fn, arg);
}

/* --- a round of questions ------------------------------------------------------------------------------- */

static struct span reply_list(const struct celery_client *c, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf queue = BUF_INIT(1024);
	buf_printf(&queue, "%s.reply.%s.pidbox", c->sender.reply_to, c->o->control_exchange);
	buf_puts(out, c->o->broker_prefix);
	celery_queue_key(&c->o->lists, buf_span(&queue), 0, out);
	return buf_span(out);
}

static void clear_replies(struct celery_client *c)
{
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(1024);
	const struct span words[] = {SPAN_LIT("DEL"), reply_list(c, &list)};
	redis_command(c->redis_broker, words, 2, 0, NULL, NULL);
}

/* Workers that are late would recreate the list, for good: it is left for their answers, and goes by
 * itself. */
static void leave_for_late_answers(struct celery_client *c)
{
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(1024);
	const struct span name = reply_list(c, &list);
	const struct span push[] = {SPAN_LIT("RPUSH"), name, SPAN_LIT("")},
			  expire[] = {SPAN_LIT("EXPIRE"), name, SPAN_LIT(LATE_SECONDS)};
	redis_command(c->redis_broker, push, 3, 0, NULL, NULL);
	redis_command(c->redis_broker, expire, 3, 0, NULL, NULL);
}

static int redis_round_open(struct celery_client *c, struct err *e)
{
	return c->redis_replies ? 0 : celery_connect(c, &c->o->broker, NULL, &c->redis_replies, e);
}

/* Whether Redis has done it, and why not. */
static struct celery_told told_of(const struct celery_client *c, enum redis_outcome outcome,
				  const struct redis_reply *reply, const struct err *why)
{
	struct celery_told t = {.receivers = -1};
	t.done = outcome == REDIS_ANSWERED && redis_reply_type(reply) != REDIS_ERROR;
	if (outcome == REDIS_ANSWERED && !t.done) {
		struct span text = redis_reply_text(reply);
		err_set(&t.why, 0, "Redis at %s: %.*s", redis_where(c->redis_broker), SPAN_ARG(text));
		/* What this user may not do says nothing of what others may; everything else (OOM, READONLY,
		 * LOADING, …) also befalls a submission. */
		t.unreachable = !span_starts(text, SPAN_LIT("NOPERM"));
	} else if (!t.done) {
		t.why = *why;
		t.unreachable = true;
	}
	return t;
}

static void on_room(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		    const struct err *why)
{
	struct celery_client *c = arg;
	const struct celery_told told = told_of(c, outcome, reply, why);
	c->redis_told(c, &told);
}

/* LPUSHX on the list that is not there writes nothing, and is refused as a submission is: a Redis that is
 * full or read-only says so here already. */
static void redis_round_begin(struct celery_client *c, celery_told_fn fn)
{
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(1024);
	clear_replies(c); /* of a worker that was late the last time */
	c->redis_told = fn;
	const struct span words[] = {SPAN_LIT("LPUSHX"), reply_list(c, &list), SPAN_LIT("")};
	redis_command(c->redis_broker, words, 3, 0, on_room, c);
}

static void on_asked(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		     const struct err *why)
{
	struct celery_client *c = arg;
	struct celery_told told = told_of(c, outcome, reply, why);
	if (told.done)
		told.receivers = redis_reply_integer(reply);
	c->redis_told(c, &told);
}

static void redis_broker_ask(struct celery_client *c, const struct celery_question *question,
			     const char *ticket, celery_told_fn fn)
{
	CLEANUP(buf_releasep) struct buf channel = BUF_INIT(1024);
	CLEANUP(buf_releasep) struct buf queue = BUF_INIT(1024);
	CLEANUP(buf_releasep) struct buf message = BUF_INIT(1u << 16);
	pidbox_channel(c, &channel);
	buf_printf(&queue, "%s.reply.%s.pidbox", c->sender.reply_to, c->o->control_exchange);
	celery_control_message(c->o->control_exchange, question->method, span_of(question->arguments), ticket,
			       buf_span(&queue), NULL, &message);
	c->redis_told = fn;
	const struct span words[] = {SPAN_LIT("PUBLISH"), buf_span(&channel), buf_span(&message)};
	redis_command(c->redis_broker, words, 3, 0, on_asked, c);
}

/* {worker: answer} in base64, in a message of kombu's. */
static void open_answer(struct span message, struct buf *body, struct celery_told *t)
{
	static const struct span pointers[] = {SPAN_INIT("/headers/ticket"), SPAN_INIT("/body")};
	struct span f[2];
	struct err e;
	if (json_pointers(message, pointers, 2, f, &e) < 0)
		return;
	if (json_type_of(f[0]) == JSON_STRING)
		t->ticket = (struct span){f[0].ptr + 1, f[0].len - 2};
	if (json_type_of(f[1]) == JSON_STRING &&
	    base64_decode((struct span){f[1].ptr + 1, f[1].len - 2}, body) == 0 &&
	    json_validate(buf_span(body), &e) == 0)
		t->body = span_trim(buf_span(body));
}

static void on_answer(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		      const struct err *why)
{
	struct celery_client *c = arg;
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(ANSWER_MAX);
	struct celery_told told = told_of(c, outcome, reply, why);
	told.answered = told.done && redis_reply_type(reply) == REDIS_ARRAY;
	if (told.answered)
		open_answer(redis_reply_text(redis_reply_at(reply, 1)), &body, &told);
	c->redis_told(c, &told);
}

static void redis_broker_answer(struct celery_client *c, celery_told_fn fn)
{
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(1024);
	const struct span words[] = {SPAN_LIT("BRPOP"), reply_list(c, &list), SPAN_LIT(ANSWER_SECONDS)};
	c->redis_told = fn;
	redis_command(c->redis_replies, words, 3, ANSWER_LIMIT_MS, on_answer, c);
}

static void redis_round_end(struct celery_client *c, bool late)
{
	clear_replies(c);
	if (late)
		leave_for_late_answers(c);
}

const struct celery_broker celery_broker_redis = {
	.open = redis_broker_open,
	.close = redis_broker_close,
	.where = redis_broker_where,
	.away = redis_broker_away,
	.write = redis_broker_write,
	.send = redis_broker_send,
	.look = redis_broker_look,
	.command = redis_broker_command,
	.round_open = redis_round_open,
	.round_begin = redis_round_begin,
	.ask = redis_broker_ask,
	.answer = redis_broker_answer,
	.round_end = redis_round_end,
};
