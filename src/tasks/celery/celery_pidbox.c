/*
 * Questions to all workers at once, as Celery's own `control.inspect()` puts them: published on the pidbox,
 * answered by each worker into a list of ours. They send there through the default exchange, which takes its
 * routing key for the queue's name: no binding is written, which producers of another `sep` could not read.
 * The list is removed when a round ends.
 *
 * Lifetime of a round (one at a time, the others wait in line):
 *   waiting    until the results can be heard, or are known not to be (celery_hearing)
 *   room       LPUSHX on the list that is not there: a Redis that is full or read-only says so here already
 *   asking     one PUBLISH per question; the number of receivers is the number of answers to expect
 *   reading    BRPOP, until every answer is there, none came for ANSWER_SECONDS, or the round is ROUND_MS old
 */
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/json.h"
#include "tasks/celery/celery_internal.h"

#define ANSWER_SECONDS "1"
#define ROUND_MS 3000
#define ANSWER_MAX (4u << 20)
#define LATE_SECONDS "3600"

static void begin(struct celery_client *c);

/* --- the list of answers -------------------------------------------------------------------------------- */

static struct span reply_list(const struct celery_client *c, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf queue = BUF_INIT(1024);
	buf_printf(&queue, "%s.reply.%s.pidbox", c->sender.reply_to, c->o->control_exchange);
	buf_puts(out, c->o->broker_prefix);
	celery_queue_key(&c->o->lists, buf_span(&queue), 0, out);
	return buf_span(out);
}

/* Writes nothing, and is refused as a submission is. */
static void ask_for_room(struct celery_client *c, redis_reply_fn fn)
{
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(1024);
	const struct span words[] = {SPAN_LIT("LPUSHX"), reply_list(c, &list), SPAN_LIT("")};
	redis_command(c->broker, words, 3, 0, fn, c);
}

static void clear_replies(struct celery_client *c)
{
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(1024);
	const struct span words[] = {SPAN_LIT("DEL"), reply_list(c, &list)};
	redis_command(c->broker, words, 2, 0, NULL, NULL);
}

/* Workers that are late would recreate the list, for good: it is left for their answers, and goes by
 * itself. */
static void leave_for_late_answers(struct celery_client *c)
{
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(1024);
	const struct span name = reply_list(c, &list);
	const struct span push[] = {SPAN_LIT("RPUSH"), name, SPAN_LIT("")},
			  expire[] = {SPAN_LIT("EXPIRE"), name, SPAN_LIT(LATE_SECONDS)};
	redis_command(c->broker, push, 3, 0, NULL, NULL);
	redis_command(c->broker, expire, 3, 0, NULL, NULL);
}

/* --- the end -------------------------------------------------------------------------------------------- */

/* The next round begins before this one is told: its owner may free the client. */
static void end(struct celery_client *c)
{
	struct celery_round *round = c->pidbox.first;
	clear_replies(c);
	if (round->answers < round->expected && round->reachable)
		leave_for_late_answers(c);
	c->pidbox.first = round->next;
	c->pidbox.begun = false;
	round->running = false;
	if (c->pidbox.first)
		begin(c);
	round->end(c);
}

/* true when Redis has done it; otherwise the round has ended, and says why. */
static bool done(struct celery_client *c, enum redis_outcome outcome, const struct redis_reply *reply,
		 const struct err *why)
{
	struct celery_round *round = c->pidbox.first;
	if (outcome == REDIS_ANSWERED && redis_reply_type(reply) != REDIS_ERROR)
		return true;
	if (outcome == REDIS_ANSWERED) {
		struct span text = redis_reply_text(reply);
		err_set(&round->why, 0, "Redis at %s: %.*s", redis_where(c->broker), SPAN_ARG(text));
		/* What this user may not do says nothing of what others may; everything else (OOM, READONLY,
		 * LOADING, …) also befalls a submission. */
		round->reachable = span_starts(text, SPAN_LIT("NOPERM"));
	} else {
		round->why = *why;
		round->reachable = false;
	}
	end(c);
	return false;
}

/* --- reading -------------------------------------------------------------------------------------------- */

static size_t question_of(const struct celery_round *round, struct span ticket)
{
	size_t i = 0;
	while (i < round->n_questions && !(ticket.len == CRYPTO_UUID + 1 &&
					   memcmp(ticket.ptr + 1, round->tickets[i], CRYPTO_UUID - 1) == 0))
		i++;
	return i;
}

/* {worker: answer} in base64, in a message of kombu's. Answers to another round's question and what is
 * none are skipped. */
static void take(struct celery_client *c, struct span message)
{
	static const struct span pointers[] = {SPAN_INIT("/headers/ticket"), SPAN_INIT("/body")};
	struct celery_round *round = c->pidbox.first;
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(ANSWER_MAX), worker = BUF_INIT(1024);
	struct span f[2], key, value;
	struct json_iter it;
	struct err e;
	if (json_pointers(message, pointers, 2, f, &e) < 0)
		return;
	size_t question = question_of(round, f[0]);
	if (question == round->n_questions)
		return;
	round->answers++;
	if (json_type_of(f[1]) != JSON_STRING ||
	    base64_decode((struct span){f[1].ptr + 1, f[1].len - 2}, &body) < 0 ||
	    json_validate(buf_span(&body), &e) < 0)
		return;
	json_iter_init(&it, span_trim(buf_span(&body)));
	if (json_iter_next(&it, &key, &value) && json_unescape(key, &worker) == 0)
		round->answer(c, question, buf_span(&worker), value);
}

static void on_answer(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		      const struct err *why);

static void read_answer(struct celery_client *c)
{
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(1024);
	const struct span words[] = {SPAN_LIT("BRPOP"), reply_list(c, &list), SPAN_LIT(ANSWER_SECONDS)};
	redis_command(c->replies, words, 3, ROUND_MS, on_answer, c);
}

static void on_answer(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		      const struct err *why)
{
	struct celery_client *c = arg;
	struct celery_round *round = c->pidbox.first;
	if (!done(c, outcome, reply, why))
		return;
	bool silent = redis_reply_type(reply) != REDIS_ARRAY;
	if (!silent)
		take(c, redis_reply_text(redis_reply_at(reply, 1)));
	if (silent || round->answers >= round->expected ||
	    loop_now_ms(c->base.loop) - round->begun_ms >= ROUND_MS)
		end(c);
	else
		read_answer(c);
}

/* --- asking --------------------------------------------------------------------------------------------- */

static void on_asked(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		     const struct err *why);

static void ask(struct celery_client *c)
{
	struct celery_round *round = c->pidbox.first;
	const struct celery_question *question = &round->questions[round->asked];
	CLEANUP(buf_releasep) struct buf channel = BUF_INIT(1024);
	CLEANUP(buf_releasep) struct buf queue = BUF_INIT(1024);
	CLEANUP(buf_releasep) struct buf message = BUF_INIT(1u << 16);
	crypto_uuid4(round->tickets[round->asked]);
	celery_pidbox_channel(c, &channel);
	buf_printf(&queue, "%s.reply.%s.pidbox", c->sender.reply_to, c->o->control_exchange);
	celery_control_message(c->o->control_exchange, question->method, span_of(question->arguments),
			       round->tickets[round->asked], buf_span(&queue), &message);
	const struct span words[] = {SPAN_LIT("PUBLISH"), buf_span(&channel), buf_span(&message)};
	redis_command(c->broker, words, 3, 0, on_asked, c);
}

static void on_asked(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		     const struct err *why)
{
	struct celery_client *c = arg;
	struct celery_round *round = c->pidbox.first;
	if (!done(c, outcome, reply, why))
		return;
	int64_t receivers = redis_reply_integer(reply);
	round->expected += receivers;
	round->listeners = receivers > round->listeners ? receivers : round->listeners;
	if (++round->asked < round->n_questions)
		ask(c);
	else if (round->expected == 0)
		end(c);
	else
		read_answer(c);
}

static void on_room(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		    const struct err *why)
{
	struct celery_client *c = arg;
	if (!done(c, outcome, reply, why))
		return;
	c->pidbox.first->reachable = true;
	ask(c);
}

static void begin(struct celery_client *c)
{
	celery_hear(c, true);
	celery_pidbox_go_on(c);
}

void celery_pidbox_go_on(struct celery_client *c)
{
	if (!c->pidbox.first || c->pidbox.begun || !celery_hears(c))
		return;
	c->pidbox.begun = true;
	c->pidbox.first->begun_ms = loop_now_ms(c->base.loop);
	clear_replies(c); /* of a worker that was late the last time */
	ask_for_room(c, on_room);
}

int celery_pidbox_ask(struct celery_client *c, struct celery_round *round, struct err *e)
{
	struct celery_round **last = &c->pidbox.first;
	int r = c->replies ? 0 : celery_connect(c, &c->o->broker, NULL, &c->replies, e);
	if (r < 0)
		return r;
	while (*last)
		last = &(*last)->next;
	*last = round;
	round->next = NULL;
	round->running = true;
	round->reachable = false;
	round->asked = 0;
	round->expected = round->listeners = round->answers = 0;
	err_set(&round->why, 0, "%s", "");
	if (c->pidbox.first == round)
		begin(c);
	return 0;
}

void celery_pidbox_channel(const struct celery_client *c, struct buf *out)
{
	celery_put_fanout_prefix(c->o, out);
	buf_printf(out, "%s.pidbox", c->o->control_exchange);
}
