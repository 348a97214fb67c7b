#include "traces/traces.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/backoff.h"
#include "base/clock.h"
#include "base/http_client.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/ring.h"
#include "base/text.h"
#include "traces/otlp.h"

#define FLUSH_MS 1000
#define TIMEOUT_MS 10000
#define STOP_PATIENCE_MS 2000
#define FIRST_PAUSE_MS 500
#define LONGEST_PAUSE_MS 30000
#define BATCH_BYTES_MAX (8u << 20)
#define ANSWER_MAX 65536

struct traces_producer {
	struct ring *ring;
	struct traces *owner;
	struct traces_producer *next;
};

struct traces {
	char *endpoint, *ca_file, *authorization, *service_name;
	char instance[300];
	double sample;
	unsigned queue_slots, flush_ms;
	pthread_t thread;
	struct loop *loop;
	struct loop_work wake, end; /* posted */
	atomic_bool woken;

	pthread_mutex_t lock; /* over what follows, up to the blank line */
	struct traces_producer *producers;
	struct traces_status status;

	/* the thread's own */
	struct http_client *client;
	struct loop_timer *timer; /* the next look at the queues, or the pause before another try */
	struct http_call *call;
	struct buf batch;
	size_t n_batch; /* spans in it */
	unsigned attempts;
	int64_t stop_at_ms; /* 0: not yet */
};

bool traces_options_same(const struct traces_options *a, const struct traces_options *b)
{
	return text_eq(a->endpoint, b->endpoint) && text_eq(a->ca_file, b->ca_file) &&
	       text_eq(a->authorization, b->authorization) && text_eq(a->service_name, b->service_name) &&
	       !(a->sample < b->sample) && !(a->sample > b->sample) && a->queue_slots == b->queue_slots &&
	       a->flush_ms == b->flush_ms;
}

/* --- spans ---------------------------------------------------------------------------------------------- */

void trace_span_text(struct trace_span *s, const char *key, struct span value)
{
	size_t room = sizeof(s->text) - s->used;
	if (!value.ptr || value.len == 0 || room == 0 || s->n_attributes == TRACE_ATTRIBUTES)
		return;
	if (value.len > room)
		value = text_front(value, room);
	memcpy(s->text + s->used, value.ptr, value.len);
	s->attributes[s->n_attributes++] =
		(struct trace_attribute){.key = key, .at = s->used, .length = (uint16_t)value.len};
	s->used = (uint16_t)(s->used + value.len);
}

void trace_span_number(struct trace_span *s, const char *key, int64_t value)
{
	if (s->n_attributes < TRACE_ATTRIBUTES)
		s->attributes[s->n_attributes++] =
			(struct trace_attribute){.key = key, .is_number = true, .number = value};
}

int traces_producer_new(struct traces *t, struct traces_producer **ret)
{
	struct traces_producer *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	int r = ring_new(t->queue_slots, sizeof(struct trace_span), &p->ring);
	if (r < 0) {
		free(p);
		return r;
	}
	p->owner = t;
	pthread_mutex_lock(&t->lock);
	p->next = t->producers;
	t->producers = p;
	pthread_mutex_unlock(&t->lock);
	*ret = p;
	return 0;
}

struct trace_span *traces_reserve(struct traces_producer *p)
{
	struct trace_span *s = ring_reserve(p->ring);
	if (s)
		memset(s, 0, offsetof(struct trace_span, text));
	return s;
}

void traces_commit(struct traces_producer *p)
{
	ring_commit(p->ring);
	if (ring_length(p->ring) >= ring_slots(p->ring) / 2 && !atomic_exchange(&p->owner->woken, true))
		loop_post(p->owner->loop, &p->owner->wake);
}

double traces_sample(const struct traces *t)
{
	return t->sample;
}

/* --- batches -------------------------------------------------------------------------------------------- */

static void traces_count(struct traces *t, uint64_t exported, uint64_t failed, const char *error)
{
	pthread_mutex_lock(&t->lock);
	bool was_failing = t->status.failing;
	t->status.exported += exported;
	t->status.failed += failed;
	t->status.failing = error != NULL;
	if (error)
		span_copy(span_of(error), t->status.last_error, sizeof(t->status.last_error));
	pthread_mutex_unlock(&t->lock);
	if (error && !was_failing)
		log_warn("traces_failing", LOG_STR("error", error));
	else if (!error && was_failing)
		log_info("traces_recovered", LOG_STR("endpoint", t->endpoint));
}

static void traces_take_from(struct traces *t, struct traces_producer *p)
{
	const struct trace_span *s;
	while (t->n_batch < TRACES_BATCH && (s = ring_peek(p->ring))) {
		otlp_put_span(&t->batch, s, t->n_batch == 0);
		t->n_batch++;
		ring_release(p->ring);
	}
}

/* Whether there are any. */
static bool traces_take(struct traces *t)
{
	buf_clear(&t->batch);
	t->n_batch = 0;
	otlp_begin(&t->batch, t->service_name, t->instance);
	pthread_mutex_lock(&t->lock);
	struct traces_producer *all = t->producers;
	pthread_mutex_unlock(&t->lock);
	for (struct traces_producer *p = all; p; p = p->next) /* only ever added to at its front */
		traces_take_from(t, p);
	if (t->n_batch && otlp_end(&t->batch) < 0) {
		traces_count(t, 0, t->n_batch, "a batch does not fit into memory");
		t->n_batch = 0;
	}
	return t->n_batch > 0;
}

static void traces_look(void *arg);

static void traces_batch_over(struct traces *t)
{
	t->n_batch = 0;
	t->attempts = 0;
	traces_look(t);
}

static bool traces_may_retry(const struct traces *t, const struct http_reply *r)
{
	if (t->attempts >= TRACES_ATTEMPTS || t->stop_at_ms)
		return false;
	return r->failure != HTTP_OK || r->status == 429 || (r->status >= 502 && r->status <= 504);
}

static void traces_on_done(void *arg, const struct http_reply *r)
{
	struct traces *t = arg;
	struct err why = {""};
	t->call = NULL;
	if (r->failure == HTTP_OK && r->status >= 200 && r->status < 300) {
		uint64_t refused = otlp_rejected(r->body, t->n_batch, &why);
		traces_count(t, t->n_batch - refused, refused, why.text[0] ? why.text : NULL);
		traces_batch_over(t);
		return;
	}
	if (r->failure == HTTP_OK)
		err_set(&why, 0, "the collector answers %d", r->status);
	else
		err_set(&why, 0, "the collector: %s", r->detail ? r->detail : "no answer");
	if (traces_may_retry(t, r)) {
		traces_count(t, 0, 0, why.text);
		loop_timer_start(t->timer, backoff_ms(FIRST_PAUSE_MS, LONGEST_PAUSE_MS, t->attempts));
		return;
	}
	traces_count(t, 0, t->n_batch, why.text);
	traces_batch_over(t);
}

static void traces_send(struct traces *t)
{
	struct http_field fields[2] = {{SPAN_LIT("Content-Type"), SPAN_LIT("application/json")}};
	size_t n = 1;
	struct err e = {""};
	if (t->authorization)
		fields[n++] = (struct http_field){SPAN_LIT("Authorization"), span_of(t->authorization)};
	const struct http_call_request request = {.method = "POST",
						  .url = t->endpoint,
						  .fields = fields,
						  .n_fields = n,
						  .body = buf_span(&t->batch),
						  .ca_file = t->ca_file,
						  .timeout_ms = TIMEOUT_MS,
						  .max_body = ANSWER_MAX};
	const struct http_events events = {.arg = t, .done = traces_on_done};
	t->attempts++;
	if (t->stop_at_ms)
		loop_timer_start(t->timer, STOP_PATIENCE_MS + 1);
	if (http_start(t->client, &request, &events, &t->call, &e) == 0)
		return;
	traces_count(t, 0, t->n_batch, e.text);
	t->n_batch = 0;
	t->attempts = 0;
	loop_timer_start(t->timer, t->flush_ms);
}

/* The next batch, or the one before it again; at the end nothing more. */
static void traces_look(void *arg)
{
	struct traces *t = arg;
	bool late = t->stop_at_ms && clock_mono_ms() >= t->stop_at_ms;
	if (t->call) {
		if (late)
			loop_stop(t->loop);
		return;
	}
	if (!late && (t->n_batch || traces_take(t)))
		traces_send(t);
	else if (t->stop_at_ms)
		loop_stop(t->loop);
	else
		loop_timer_start(t->timer, t->flush_ms);
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void traces_on_wake(struct loop_work *work)
{
	struct traces *t = (struct traces *)((char *)work - offsetof(struct traces, wake));
	atomic_store(&t->woken, false);
	if (t->n_batch == 0) /* a batch that waits for its next try goes on waiting */
		traces_look(t);
}

static void traces_on_end(struct loop_work *work)
{
	struct traces *t = (struct traces *)((char *)work - offsetof(struct traces, end));
	t->stop_at_ms = clock_mono_ms() + STOP_PATIENCE_MS;
	if (t->call) /* its answer is waited for, and what waits behind it */
		loop_timer_start(t->timer, STOP_PATIENCE_MS + 1);
	else
		traces_look(t);
}

static void *traces_run(void *arg)
{
	struct traces *t = arg;
	loop_timer_start(t->timer, t->flush_ms);
	loop_run(t->loop);
	return NULL;
}

static void traces_release(struct traces *t)
{
	http_cancel(t->call);
	http_client_free(t->client);
	loop_timer_free(t->timer);
	loop_free(t->loop);
	for (struct traces_producer *p = t->producers, *next; p; p = next) {
		next = p->next;
		ring_free(p->ring);
		free(p);
	}
	buf_release(&t->batch);
	pthread_mutex_destroy(&t->lock);
	free(t->endpoint);
	free(t->ca_file);
	free(t->authorization);
	free(t->service_name);
	free(t);
}

static int traces_copy(struct traces *t, const struct traces_options *o)
{
	char host[256];
	t->endpoint = strdup(o->endpoint);
	t->ca_file = o->ca_file ? strdup(o->ca_file) : NULL;
	t->authorization = o->authorization ? strdup(o->authorization) : NULL;
	t->service_name = strdup(o->service_name ? o->service_name : "migration-router");
	t->sample = o->sample;
	t->queue_slots = o->queue_slots ? o->queue_slots : TRACES_QUEUE;
	t->flush_ms = o->flush_ms ? o->flush_ms : FLUSH_MS;
	if (gethostname(host, sizeof(host)) < 0)
		strcpy(host, "localhost");
	host[sizeof(host) - 1] = '\0';
	snprintf(t->instance, sizeof(t->instance), "%s:%ld", host, (long)getpid());
	bool whole = t->endpoint && t->service_name && (t->ca_file || !o->ca_file) &&
		     (t->authorization || !o->authorization);
	return whole ? 0 : -ENOMEM;
}

int traces_start(const struct traces_options *o, struct traces **ret, struct err *e)
{
	struct traces *t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(e, -ENOMEM, "out of memory");
	pthread_mutex_init(&t->lock, NULL);
	buf_init(&t->batch, BATCH_BYTES_MAX);
	t->wake.fn = traces_on_wake;
	t->end.fn = traces_on_end;
	int r = traces_copy(t, o);
	if (r == 0)
		r = loop_new(&t->loop);
	if (r == 0)
		r = loop_timer_new(t->loop, traces_look, t, &t->timer);
	if (r < 0)
		err_set(e, r, "%s", strerror(-r));
	else
		r = http_client_new(t->loop, &(struct http_client_options){.max_connections = 2}, &t->client,
				    e);
	if (r == 0 && (r = -pthread_create(&t->thread, NULL, traces_run, t)) < 0)
		err_set(e, r, "thread: %s", strerror(-r));
	if (r < 0) {
		traces_release(t);
		return r;
	}
	*ret = t;
	return 0;
}

struct traces *traces_stop(struct traces *t)
{
	if (!t)
		return NULL;
	loop_post(t->loop, &t->end);
	pthread_join(t->thread, NULL);
	traces_release(t);
	return NULL;
}

void traces_status(struct traces *t, struct traces_status *ret)
{
	*ret = (struct traces_status){.exported = 0};
	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	*ret = t->status;
	for (struct traces_producer *p = t->producers; p; p = p->next) {
		ret->dropped += ring_dropped(p->ring);
		ret->queued += ring_length(p->ring);
	}
	pthread_mutex_unlock(&t->lock);
}
