/*
 * Waiting for results: SUBSCRIBE to the result's channel, then GET its key, so that nothing is missed between
 * the two; and both again after each reconnection.
 *
 * A wait ends by the first meta with a final state, from whichever of the two. When the read failed because
 * the connection for commands is down, it is due again once that is ready (celery_waits_read_again).
 *
 * A submission whose result is awaited subscribes ahead, on a connection that is up. Its result is then
 * practically always heard, and most tasks end without being read at all: the read waits for READ_LATER_MS,
 * and many are sent together. Nothing orders the two connections, though, which is why it cannot be left out.
 * It comes at once wherever something can have been missed for another reason.
 */
#include <errno.h>
#include <stdlib.h>

#include "tasks/celery/celery_internal.h"
#include "tasks/celery/celery_meta.h"

#define READ_LATER_MS 20

struct task_wait {
	struct celery_client *client;
	LIST_ENTRY(task_wait) place;
	struct task_wait *next_offered;
	bool is_unheard; /* in that list */
	TAILQ_ENTRY(task_wait) unheard;
	uint64_t read_ms; /* when it is due */
	struct celery_watch *watch;
	struct celery_reading *read;
	bool unread;	   /* the last read failed */
	bool confirmed;	   /* the subscription was */
	bool missed;	   /* something was, or may have been, before there was a callback for it */
	bool ahead;	   /* subscribed before the task was submitted */
	bool plain;	   /* submitted here, and not as a chain: it has no steps */
	task_result_fn fn; /* NULL: nobody has claimed it yet */
	void *arg;
	struct buf end; /* the final meta, while the steps of a chain are asked for */
	char id[TASK_ID_MAX];
};

static void leave_unheard(struct task_wait *w)
{
	if (w->is_unheard)
		TAILQ_REMOVE(&w->client->unheard, w, unheard);
	w->is_unheard = false;
}

static void wait_free(struct task_wait *w)
{
	LIST_REMOVE(w, place);
	leave_unheard(w);
	w->client->results->unwatch(w->watch);
	w->client->results->read_drop(w->read);
	buf_release(&w->end);
	free(w);
}

/* A chain is told with the results of all its steps. */
static void on_steps(void *arg, enum celery_read_outcome outcome, const struct span *texts, size_t n)
{
	struct task_wait *w = arg;
	(void)n;
	w->read = NULL;
	if (outcome == CELERY_UNREAD) {
		buf_clear(&w->end); /* all of it again, once the connection is back */
		w->unread = true;
		return;
	}
	CLEANUP(buf_releasep) struct buf end = w->end, whole = BUF_INIT(512u << 20);
	struct celery_meta m = CELERY_META_INIT;
	struct task_wait copy = *w;
	struct task_result r;
	w->end = BUF_INIT(0);
	int error = TASK_E_UNREADABLE; /* nobody gets another shape because the store says no */
	if (outcome == CELERY_READ)
		error = celery_meta_read(&m, buf_span(&end), span_of(copy.id), &r);
	if (error == 0 && celery_steps_compose(copy.client, texts, r.result, &whole))
		r.result = buf_span(&whole);
	wait_free(w);
	copy.fn(copy.arg, error, error ? NULL : &r);
	celery_meta_release(&m);
}

/* Whether the steps' results are on their way. */
static bool asks_steps(struct task_wait *w, struct span text)
{
	w->end = BUF_INIT(512u << 20);
	if (buf_append_span(&w->end, text) < 0)
		return false;
	struct celery_reading *before = w->read;
	if (!celery_steps_ask(w->client, span_of(w->id), on_steps, w, &w->read)) {
		buf_release(&w->end);
		return false;
	}
	leave_unheard(w);
	w->client->results->read_drop(before);
	return true;
}

/* Ends the wait when the meta is final. */
static void consider(struct task_wait *w, struct span text)
{
	struct celery_meta m = CELERY_META_INIT;
	struct task_result r;
	struct task_wait copy = *w;
	if (w->end.len)
		return;
	int error = celery_meta_read(&m, text, span_of(copy.id), &r);
	if (!error && r.status == TASK_COMPLETED && !w->plain && asks_steps(w, text)) {
		celery_meta_release(&m);
		return;
	}
	if (error || celery_meta_is_end(&r)) {
		wait_free(w);
		copy.fn(copy.arg, error, error ? NULL : &r);
	}
	celery_meta_release(&m);
}

static void on_read(void *arg, enum celery_read_outcome outcome, const struct span *texts, size_t n)
{
	struct task_wait *w = arg;
	(void)n;
	w->read = NULL;
	w->unread = outcome != CELERY_READ;
	if (!w->unread && texts[0].ptr)
		consider(w, texts[0]);
}

static void read_result(struct task_wait *w)
{
	const struct span id = span_of(w->id);
	leave_unheard(w);
	w->client->results->read_drop(w->read);
	w->read = w->client->results->read(w->client, &id, 1, on_read, w);
}

static void on_read_timer(void *arg)
{
	struct celery_client *c = arg;
	struct task_wait *first;
	while ((first = TAILQ_FIRST(&c->unheard)) && first->read_ms <= loop_now_ms(c->base.loop))
		read_result(first);
	/* Not when the next one is due, but when some have come together. */
	if (first)
		loop_timer_start(c->read_timer, READ_LATER_MS);
}

static void read_later(struct task_wait *w)
{
	struct celery_client *c = w->client;
	w->read_ms = loop_now_ms(c->base.loop) + READ_LATER_MS;
	w->is_unheard = true;
	TAILQ_INSERT_TAIL(&c->unheard, w, unheard);
	if (!loop_timer_active(c->read_timer))
		loop_timer_start(c->read_timer, READ_LATER_MS);
}

/* The first time and each time after a reconnection. */
static void on_ready(void *arg)
{
	struct task_wait *w = arg;
	bool heard_all = w->ahead && !w->confirmed;
	if (w->client->results->watch_tells_stored)
		return;
	w->confirmed = true;
	w->missed |= !heard_all;
	if (w->fn && heard_all)
		read_later(w);
	else if (w->fn)
		read_result(w);
}

static void on_message(void *arg, struct span payload)
{
	struct task_wait *w = arg;
	w->missed |= !w->fn;
	if (w->fn)
		consider(w, payload);
}

static const struct celery_watcher watcher = {.ready = on_ready, .message = on_message};

static struct task_wait *wait_new(struct celery_client *c, struct span id)
{
	struct task_wait *w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->client = c;
	span_copy(id, w->id, sizeof(w->id));
	w->watch = c->results->watch(c, id, &watcher, w);
	if (!w->watch) {
		free(w);
		return NULL;
	}
	LIST_INSERT_HEAD(&c->waits, w, place);
	return w;
}

struct task_wait *celery_wait_ahead(struct celery_client *c, struct span id, bool chain)
{
	/* A connection that is not up yet may be so after the task has run. */
	bool up = c->results->ready(c);
	struct task_wait *w = wait_new(c, id);
	if (w) {
		w->ahead = up;
		w->plain = !chain;
	}
	return w;
}

void celery_wait_offer(struct task_wait *w)
{
	if (!w)
		return;
	struct celery_client *c = w->client;
	if (!c->drop_due)
		loop_defer(c->base.loop, &c->drop_offered);
	c->drop_due = true;
	w->next_offered = c->offered;
	c->offered = w;
}

static void drop_offered(struct loop_work *work)
{
	struct celery_client *c =
		(struct celery_client *)((char *)work - offsetof(struct celery_client, drop_offered));
	c->drop_due = false;
	for (struct task_wait *w = steal(c->offered), *next; w; w = next) {
		next = w->next_offered;
		wait_free(w);
	}
}

static struct task_wait *claim(struct celery_client *c, struct span id)
{
	struct task_wait **at = &c->offered;
	while (*at && !span_is(id, (*at)->id))
		at = &(*at)->next_offered;
	struct task_wait *w = *at;
	if (w)
		*at = w->next_offered;
	return w;
}

struct task_wait *celery_wait(struct task_client *base, struct span id, task_result_fn fn, void *arg)
{
	struct celery_client *c = (struct celery_client *)base;
	struct task_wait *w = claim(c, id);
	if (!w)
		w = wait_new(c, id);
	if (!w)
		return NULL;
	w->fn = fn;
	w->arg = arg;
	if (w->missed)
		read_result(w);
	else if (w->confirmed)
		read_later(w);
	return w;
}

void celery_wait_cancel(struct task_wait *w)
{
	if (w)
		wait_free(w);
}

void celery_waits_read_again(struct celery_client *c)
{
	struct task_wait *w;
	LIST_FOREACH (w, &c->waits, place)
		if (w->unread && !w->read)
			read_result(w);
}

int celery_waits_init(struct celery_client *c)
{
	c->drop_offered.fn = drop_offered;
	TAILQ_INIT(&c->unheard);
	return loop_timer_new(c->base.loop, on_read_timer, c, &c->read_timer);
}

void celery_waits_drop(struct celery_client *c)
{
	loop_defer_cancel(c->base.loop, &c->drop_offered);
	loop_timer_free(c->read_timer);
	while (!LIST_EMPTY(&c->waits))
		wait_free(LIST_FIRST(&c->waits));
}
