/*
 * Redis as the result store: a key for each result, and a channel of the same name on which its worker
 * publishes what it has stored.
 */
#include <stdlib.h>

#include "tasks/celery/celery_internal.h"

struct celery_reading {
	LIST_ENTRY(celery_reading) place;
	struct redis_call *call;
	celery_read_fn fn;
	void *arg;
	size_t n;
};

struct celery_watch {
	struct redis_subscription *subscription;
	const struct celery_watcher *watcher;
	void *arg;
};

static void reading_free(struct celery_reading *r)
{
	LIST_REMOVE(r, place);
	free(r);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void redis_results_state(void *arg, enum redis_state state, const char *why)
{
	struct celery_client *c = arg;
	(void)why;
	if (state == REDIS_READY)
		celery_waits_read_again(c);
}

static void listener_state(void *arg, enum redis_state state, const char *why)
{
	struct celery_client *c = arg;
	if (state == REDIS_DOWN)
		celery_hearing_down(c, why);
}

/* Of a Redis that is the broker, too, the connection is the same. */
static int redis_results_open(struct celery_client *c, struct err *e)
{
	const struct redis_url *url = c->o->has_results ? &c->o->results : &c->o->broker;
	int r = 0;
	if (c->redis_broker && redis_url_same(url, &c->o->broker, false))
		c->redis_results = c->redis_broker;
	else
		r = celery_connect(c, url, redis_results_state, &c->redis_results, e);
	return r < 0 ? r : celery_connect(c, url, listener_state, &c->redis_listener, e);
}

/* The calls go with their connection, which is ended before anything else runs. */
static void redis_results_close(struct celery_client *c)
{
	redis_free(c->redis_listener);
	if (c->redis_results != c->redis_broker)
		redis_free(c->redis_results);
	while (!LIST_EMPTY(&c->readings))
		reading_free(LIST_FIRST(&c->readings));
}

static const char *redis_results_where(const struct celery_client *c)
{
	return redis_where(c->redis_listener);
}

static bool redis_results_ready(const struct celery_client *c)
{
	return redis_state(c->redis_listener) == REDIS_READY;
}

/* --- watching ------------------------------------------------------------------------------------------- */

static void on_ready(void *arg)
{
	struct celery_watch *w = arg;
	w->watcher->ready(w->arg);
}

static void on_message(void *arg, struct span payload)
{
	struct celery_watch *w = arg;
	w->watcher->message(w->arg, payload);
}

static struct celery_watch *redis_results_watch(struct celery_client *c, struct span id,
						const struct celery_watcher *watcher, void *arg)
{
	static const struct redis_listener listener = {.ready = on_ready, .message = on_message};
	char key[CELERY_KEY_MAX];
	struct celery_watch *w = malloc(sizeof(*w));
	if (!w)
		return NULL;
	*w = (struct celery_watch){.watcher = watcher, .arg = arg};
	w->subscription = redis_subscribe(c->redis_listener, celery_result_key(c, id, key), &listener, w);
	if (w->subscription)
		return w;
	free(w);
	return NULL;
}

static void redis_results_unwatch(struct celery_watch *w)
{
	if (w)
		redis_unsubscribe(w->subscription);
	free(w);
}

/* --- reading -------------------------------------------------------------------------------------------- */

static void on_read(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
		    const struct err *why)
{
	struct celery_reading r = *(struct celery_reading *)arg;
	CLEANUP(freep) struct span *texts = calloc(r.n, sizeof(*texts));
	(void)why;
	reading_free(arg);
	if (outcome != REDIS_ANSWERED || !texts) {
		r.fn(r.arg, CELERY_UNREAD, NULL, 0);
		return;
	}
	if (redis_reply_type(reply) == REDIS_ERROR) {
		r.fn(r.arg, CELERY_READ_REFUSED, NULL, 0);
		return;
	}
	for (size_t i = 0; i < r.n; i++) {
		const struct redis_reply *one = r.n == 1 ? reply : redis_reply_at(reply, i);
		if (redis_reply_type(one) == REDIS_TEXT)
			texts[i] = redis_reply_text(one);
	}
	r.fn(r.arg, CELERY_READ, texts, r.n);
}

static struct celery_reading *reading_new(struct celery_client *c, size_t n, celery_read_fn fn, void *arg)
{
	struct celery_reading *r = malloc(sizeof(*r));
	if (!r)
		return NULL;
	*r = (struct celery_reading){.n = n, .fn = fn, .arg = arg};
	LIST_INSERT_HEAD(&c->readings, r, place);
	return r;
}

static struct celery_reading *redis_results_read(struct celery_client *c, const struct span *ids, size_t n,
						 celery_read_fn fn, void *arg)
{
	CLEANUP(freep) struct span *words = calloc(n + 1, sizeof(*words));
	CLEANUP(freep) char(*keys)[CELERY_KEY_MAX] = calloc(n, sizeof(*keys));
	struct celery_reading *r = words && keys ? reading_new(c, n, fn, arg) : NULL;
	if (!r) {
		fn(arg, CELERY_UNREAD, NULL, 0);
		return NULL;
	}
	words[0] = n == 1 ? SPAN_LIT("GET") : SPAN_LIT("MGET");
	for (size_t i = 0; i < n; i++)
		words[i + 1] = celery_result_key(c, ids[i], keys[i]);
	struct redis_call *call = redis_command(c->redis_results, words, n + 1, 0, on_read, r);
	if (call)
		r->call = call;
	return call ? r : NULL;
}

static void redis_results_read_drop(struct celery_reading *r)
{
	if (!r)
		return;
	redis_call_cancel(r->call);
	reading_free(r);
}

const struct celery_results celery_results_redis = {
	.name = "Redis",
	.open = redis_results_open,
	.close = redis_results_close,
	.where = redis_results_where,
	.ready = redis_results_ready,
	.watch = redis_results_watch,
	.unwatch = redis_results_unwatch,
	.read = redis_results_read,
	.read_drop = redis_results_read_drop,
};
