/*
 * Questions to all workers at once, as Celery's own `control.inspect()` puts them: published on the pidbox,
 * answered by each worker to a queue of ours.
 *
 * Lifetime of a round (one at a time, the others wait in line):
 *   waiting    until the results can be heard, or are known not to be (celery_hearing)
 *   room       the broker is asked for room for answers: one that is away or full says so here already
 *   asking     one message per question; where the broker knows the number of receivers, it is that of the
 *              answers to expect
 *   reading    until every answer is there, none came for a second, or the round is ROUND_MS old
 */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tasks/celery/celery_internal.h"

#define ROUND_MS 3000

static void begin(struct celery_client *c);

/* --- the end -------------------------------------------------------------------------------------------- */

/* The next round begins before this one is told: its owner may free the client. */
static void end(struct celery_client *c)
{
	struct celery_round *round = c->pidbox.first;
	c->broker->round_end(c, round->answers < round->expected && round->reachable);
	c->pidbox.first = round->next;
	c->pidbox.begun = false;
	round->running = false;
	if (c->pidbox.first)
		begin(c);
	round->end(c);
}

/* true when the broker has done it; otherwise the round has ended, and says why. */
static bool done(struct celery_client *c, const struct celery_told *told)
{
	struct celery_round *round = c->pidbox.first;
	if (told->done)
		return true;
	round->why = told->why;
	round->reachable = !told->unreachable;
	end(c);
	return false;
}

/* --- reading -------------------------------------------------------------------------------------------- */

static size_t question_of(const struct celery_round *round, struct span ticket)
{
	size_t i = 0;
	while (i < round->n_questions && !span_is(ticket, round->tickets[i]))
		i++;
	return i;
}

/* Answers to another round's question and what is none are skipped. */
static void take(struct celery_client *c, const struct celery_told *told)
{
	struct celery_round *round = c->pidbox.first;
	CLEANUP(buf_releasep) struct buf worker = BUF_INIT(1024);
	struct span key, value;
	struct json_iter it;
	size_t question = question_of(round, told->ticket);
	if (question == round->n_questions)
		return;
	round->answers++;
	json_iter_init(&it, told->body);
	if (told->body.len && json_iter_next(&it, &key, &value) && json_unescape(key, &worker) == 0)
		round->answer(c, question, buf_span(&worker), value);
}

static void on_answer(struct celery_client *c, const struct celery_told *told)
{
	struct celery_round *round = c->pidbox.first;
	if (!done(c, told))
		return;
	if (told->answered)
		take(c, told);
	if (!told->answered && round->open_ended)
		round->expected = round->answers;
	if (!told->answered || (!round->open_ended && round->answers >= round->expected) ||
	    loop_now_ms(c->base.loop) - round->begun_ms >= ROUND_MS)
		end(c);
	else
		c->broker->answer(c, on_answer);
}

/* --- asking --------------------------------------------------------------------------------------------- */

static void on_asked(struct celery_client *c, const struct celery_told *told);

static void ask(struct celery_client *c)
{
	struct celery_round *round = c->pidbox.first;
	crypto_uuid4(round->tickets[round->asked]);
	c->broker->ask(c, &round->questions[round->asked], round->tickets[round->asked], on_asked);
}

static void on_asked(struct celery_client *c, const struct celery_told *told)
{
	struct celery_round *round = c->pidbox.first;
	if (!done(c, told))
		return;
	/* One that is not told of any number has been delivered to somebody. */
	int64_t receivers = told->receivers < 0 ? 1 : told->receivers;
	round->open_ended |= told->receivers < 0;
	round->expected += receivers;
	round->listeners = receivers > round->listeners ? receivers : round->listeners;
	if (++round->asked < round->n_questions)
		ask(c);
	else if (round->expected == 0)
		end(c);
	else
		c->broker->answer(c, on_answer);
}

static void on_room(struct celery_client *c, const struct celery_told *told)
{
	if (!done(c, told))
		return;
	c->pidbox.first->reachable = true;
	if (c->pidbox.first->n_questions)
		ask(c);
	else
		end(c);
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
	c->broker->round_begin(c, on_room);
}

int celery_pidbox_ask(struct celery_client *c, struct celery_round *round, struct err *e)
{
	struct celery_round **last = &c->pidbox.first;
	int r = c->broker->round_open(c, e);
	if (r < 0)
		return r;
	while (*last)
		last = &(*last)->next;
	*last = round;
	round->next = NULL;
	round->running = true;
	round->reachable = round->open_ended = false;
	round->asked = 0;
	round->expected = round->listeners = round->answers = 0;
	err_set(&round->why, 0, "%s", "");
	if (c->pidbox.first == round)
		begin(c);
	return 0;
}
