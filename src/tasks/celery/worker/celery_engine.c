/*
 * The worker for Celery's queues over Redis: connections, life and drain. What is taken stands in
 * taking.h, what becomes of it in requests.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/http_client.h"
#include "base/log.h"
#include "tasks/celery/worker/control.h"
#include "tasks/celery/worker/requests.h"
#include "tasks/celery/worker/restoring.h"
#include "tasks/worker/engine.h"

#define FAREWELL_MS 500
#define LAST_MS 5000 /* to store the ends of what was killed at the end of the drain */

struct celery_worker {
	struct worker_options o;
	const struct celery_options *c;
	struct loop *loop;
	struct handler_env env;
	char name[512]; /* node name: <name>@<host> */
	struct redis *broker, *results, *listener;
	struct celery_writes to_broker, to_results;
	struct celery_taking *taking;
	struct celery_restoring *restoring;
	struct celery_requests requests;
	struct celery_events events;
	struct celery_control *control;
	struct loop_timer *beat;
	struct loop_timer *drain;
	struct loop_work stopped;
	bool stopping, idle, drained, over, connected, said_online;
};

/* --- what the parts tell -------------------------------------------------------------------------------- */

static unsigned engine_wanted(void *arg)
{
	const struct celery_worker *w = arg;
	return celery_requests_room(&w->requests);
}

static void engine_delivered(void *arg, struct celery_held *h)
{
	struct celery_worker *w = arg;
	celery_requests_take(&w->requests, h);
}

static void engine_on_broker(void *arg, bool works, const char *why)
{
	struct celery_worker *w = arg;
	w->connected = works;
	if (works)
		log_info("broker_works", LOG_STR("broker", redis_where(w->broker)));
	else
		log_error("broker_failed", LOG_STR("broker", redis_where(w->broker)), LOG_STR("error", why),
			  LOG_STR("effect", "no tasks are taken; what runs goes on"));
}

static void engine_on_farewell(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			       const struct err *why)
{
	struct celery_worker *w = arg;
	(void)outcome, (void)reply, (void)why;
	loop_defer(w->loop, &w->stopped);
}

/* The last event is on its way: PING is answered after it. */
static void engine_end(struct celery_worker *w)
{
	const struct span ping = SPAN_LIT("PING");
	loop_timer_stop(w->beat);
	celery_events_worker(&w->events, "worker-offline", 0, w->requests.succeeded + w->requests.failed);
	redis_command(w->broker, &ping, 1, FAREWELL_MS, engine_on_farewell, w);
}

static void engine_check_stopped(struct celery_worker *w)
{
	if (w->over || !w->stopping || !w->idle || w->requests.n || celery_writes_open(&w->to_broker) ||
	    celery_writes_open(&w->to_results))
		return;
	w->over = true;
	loop_timer_stop(w->drain);
	engine_end(w);
}

static void engine_changed(void *arg)
{
	struct celery_worker *w = arg;
	if (w->taking)
		celery_taking_look(w->taking);
	engine_check_stopped(w);
}

static void engine_on_idle(void *arg)
{
	struct celery_worker *w = arg;
	w->idle = true;
	engine_check_stopped(w);
}

static void engine_on_state(void *arg, enum redis_state state, const char *why)
{
	struct celery_worker *w = arg;
	(void)why;
	if (state != REDIS_READY || w->over)
		return;
	if (w->to_broker.redis)
		celery_writes_go_on(&w->to_broker);
	if (w->to_results.redis)
		celery_writes_go_on(&w->to_results);
}

static void engine_beat(void *arg)
{
	struct celery_worker *w = arg;
	const struct celery_requests *q = &w->requests;
	celery_events_worker(&w->events, w->said_online ? "worker-heartbeat" : "worker-online",
			     (unsigned)q->n_running, q->succeeded + q->failed + q->retried);
	w->said_online = true;
}

/* Nothing runs, and no result waits to be stored: what could not be put back is in `unacked`, and comes
 * back by itself. */
static void engine_hurry(struct celery_worker *w)
{
	const struct celery_request *r;
	TAILQ_FOREACH (r, &w->requests.all, place)
		if (!r->requeue)
			return;
	w->drained = true;
	loop_timer_start(w->drain, LAST_MS);
}

static void engine_on_beat(void *arg)
{
	struct celery_worker *w = arg;
	engine_beat(w);
	if (w->stopping && !w->drained)
		engine_hurry(w);
	loop_timer_start(w->beat, CELERY_HEARTBEAT_MS);
}

/* --- stopping ------------------------------------------------------------------------------------------- */

static void engine_on_stopped(struct loop_work *work)
{
	struct celery_worker *w =
		(struct celery_worker *)((char *)work - offsetof(struct celery_worker, stopped));
	w->o.stopped(w->o.arg);
}

/* First what runs is killed. What could still not be stored some seconds later is left. */
static void engine_on_drain_end(void *arg)
{
	struct celery_worker *w = arg;
	if (!w->drained) {
		w->drained = true;
		celery_requests_kill(&w->requests);
		loop_timer_start(w->drain, LAST_MS);
		engine_check_stopped(w);
		return;
	}
	log_error("worker_leaves_tasks", LOG_INT("tasks", w->requests.n),
		  LOG_STR("effect",
			  "what is not acknowledged comes back after the visibility timeout; results that "
			  "could not be stored are lost"));
	w->over = true;
	loop_defer(w->loop, &w->stopped);
}

static void engine_stop(void *arg)
{
	struct celery_worker *w = arg;
	if (w->stopping) {
		celery_requests_kill(&w->requests);
		return;
	}
	w->stopping = true;
	log_info("worker_drains", LOG_INT("running", w->requests.n_running),
		 LOG_INT("deadline_ms", w->o.drain_ms));
	loop_timer_start(w->drain, w->o.drain_ms);
	celery_requests_stop(&w->requests);
	celery_taking_stop(w->taking);
}

/* --- begin and end -------------------------------------------------------------------------------------- */

static void engine_release(void *arg)
{
	struct celery_worker *w = arg;
	if (!w)
		return;
	celery_control_free(w->control);
	redis_free(w->listener);
	if (w->results != w->broker)
		redis_free(w->results);
	redis_free(w->broker);
	celery_writes_release(&w->to_broker);
	celery_writes_release(&w->to_results);
	celery_requests_release(&w->requests);
	celery_taking_free(w->taking);
	celery_restoring_free(w->restoring);
	celery_events_release(&w->events);
	loop_timer_free(w->beat);
	loop_timer_free(w->drain);
	loop_defer_cancel(w->loop, &w->stopped);
	http_client_free(w->env.http);
	registry_free(w->o.registry);
	free(w);
}

static void engine_set_registry(void *arg, struct registry *r)
{
	struct celery_worker *w = arg;
	registry_free(w->o.registry);
	w->o.registry = registry_ref(r);
	celery_requests_set_registry(&w->requests, w->o.registry);
}

static int engine_check(const struct task_options *options, struct err *e)
{
	const struct celery_options *c = (const struct celery_options *)options;
	if (c->broker_kind == CELERY_BROKER_REDIS && c->results_kind == CELERY_RESULTS_REDIS)
		return 0;
	return err_set(
		e, -EINVAL,
		"task-backend-worker serves Celery over Redis alone, with redis:// as broker_url and "
		"result_backend; amqp:// (RabbitMQ), rpc:// and db+postgresql:// are the router's so far");
}

static int engine_connect(struct celery_worker *w, struct redis_options *o, struct err *e)
{
	const struct celery_options *c = w->c;
	*o = (struct redis_options){.url = &c->broker,
				    .connect_timeout_ms = c->connect_timeout_ms,
				    .command_timeout_ms = c->command_timeout_ms,
				    .on_state = engine_on_state,
				    .arg = w};
	int r = engine_check(w->o.backend, e); /* libtaskq comes without having asked */
	if (r == 0)
		r = redis_new(w->loop, o, &w->broker, e);
	w->results = w->broker;
	if (r == 0 && c->has_results && !redis_url_same(&c->broker, &c->results, false)) {
		w->results = NULL;
		struct redis_options results = *o;
		results.url = &c->results;
		r = redis_new(w->loop, &results, &w->results, e);
	}
	o->on_state = NULL;
	return r < 0 ? r : redis_new(w->loop, o, &w->listener, e);
}

static int engine_open(struct celery_worker *w, struct err *e)
{
	struct redis_options redis;
	int r = engine_connect(w, &redis, e);
	if (r == 0)
		r = celery_writes_init(&w->to_broker, w->loop, w->broker);
	if (r == 0)
		r = celery_writes_init(&w->to_results, w->loop, w->results);
	if (r == 0)
		r = http_client_new(w->loop, NULL, &w->env.http, e);
	if (r == 0)
		r = loop_timer_new(w->loop, engine_on_drain_end, w, &w->drain);
	struct celery_requests_options requests = {.loop = w->loop,
						   .c = w->c,
						   .env = &w->env,
						   .registry = w->o.registry,
						   .broker = &w->to_broker,
						   .results = &w->to_results,
						   .events = &w->events,
						   .hostname = w->name,
						   .queues = w->o.queues,
						   .concurrency = w->o.concurrency,
						   .changed = engine_changed,
						   .arg = w};
	if (r == 0)
		r = loop_timer_new(w->loop, engine_on_beat, w, &w->beat);
	celery_events_init(&w->events, w->loop, w->c, w->broker, w->name);
	if (r == 0)
		r = celery_requests_init(&w->requests, &requests);
	const struct celery_control_options control = {.loop = w->loop,
						       .c = w->c,
						       .broker = w->broker,
						       .listener = w->listener,
						       .requests = &w->requests,
						       .events = &w->events,
						       .hostname = w->name,
						       .queues = w->o.queues,
						       .n_queues = w->o.n_queues,
						       .heartbeat = engine_beat,
						       .shutdown = engine_stop,
						       .arg = w};
	if (r == 0)
		r = celery_control_new(&control, &w->control, e);
	const struct celery_taking_options taking = {.loop = w->loop,
						     .c = w->c,
						     .redis = &redis,
						     .writes = &w->to_broker,
						     .queues = w->o.queues,
						     .n_queues = w->o.n_queues,
						     .visibility_ms = w->c->visibility_timeout_ms,
						     .wanted = engine_wanted,
						     .delivered = engine_delivered,
						     .state = engine_on_broker,
						     .idle = engine_on_idle,
						     .arg = w};
	if (r == 0)
		r = celery_restoring_new(w->loop, w->c, w->broker, &w->restoring, e);
	return r < 0 ? r : celery_taking_new(&taking, &w->taking, e);
}

static int engine_make(struct loop *loop, const struct worker_options *o, void **ret, struct err *e)
{
	char host[256] = "localhost";
	struct celery_worker *w = calloc(1, sizeof(*w));
	if (!w)
		return err_set(e, -ENOMEM, "out of memory");
	w->o = *o;
	w->c = (const struct celery_options *)o->backend;
	registry_ref(w->o.registry);
	w->loop = w->env.loop = loop;
	w->stopped.fn = engine_on_stopped;
	gethostname(host, sizeof(host) - 1);
	snprintf(w->name, sizeof(w->name), "%.240s%s%.255s", o->name, strchr(o->name, '@') ? "" : "@",
		 strchr(o->name, '@') ? "" : host);
	int r = engine_open(w, e);
	if (r < 0) {
		engine_release(w);
		return r;
	}
	engine_on_beat(w);
	*ret = w;
	return 0;
}

static void engine_counts(const void *arg, struct worker_counts *ret)
{
	const struct celery_worker *w = arg;
	const struct celery_requests *q = &w->requests;
	*ret = (struct worker_counts){.received = q->received,
				      .succeeded = q->succeeded,
				      .failed = q->failed,
				      .retried = q->retried,
				      .revoked = q->revoked,
				      .refused = q->refused,
				      .running = (unsigned)q->n_running,
				      .waiting = (unsigned)(q->n - q->n_running),
				      .connected = w->connected};
}

const struct worker_engine celery_engine = {.name = "celery",
					    .default_queue = CELERY_DEFAULT_QUEUE,
					    .of_options = true,
					    .check = engine_check,
					    .make = engine_make,
					    .set_registry = engine_set_registry,
					    .stop = engine_stop,
					    .release = engine_release,
					    .counts = engine_counts};
