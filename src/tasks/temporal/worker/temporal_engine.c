/*
 * The worker for a Temporal server's task queues: connection, polls, life and drain. Workflow tasks are
 * workflow_tasks.h, activity tasks activity_tasks.h.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/http_client.h"
#include "base/log.h"
#include "tasks/temporal/temporal_options.h"
#include "tasks/temporal/worker/activity_tasks.h"
#include "tasks/temporal/worker/polls.h"
#include "tasks/temporal/worker/workflow_tasks.h"
#include "tasks/worker/engine.h"

#define WORKFLOW_POLLS 8
#define LAST_MS 5000 /* to tell the ends of what was killed at the end of the drain */

struct temporal_worker {
	struct worker_options o;
	const struct temporal_options *t;
	struct loop *loop;
	struct handler_env env;
	struct temporal_calls calls;
	struct temporal_polls *polls[2 * WORKER_MAX_QUEUES];
	size_t n_polls;
	struct temporal_workflow_tasks workflows;
	struct temporal_activities activities;
	struct loop_timer *drain;
	struct loop_work stopped;
	bool connected, told, stopping, drained, over;
};

/* --- what the parts tell -------------------------------------------------------------------------------- */

static void temporal_engine_state(void *arg, bool works, const char *why)
{
	struct temporal_worker *w = arg;
	if (w->told && w->connected == works)
		return;
	w->told = true;
	w->connected = works;
	if (works)
		log_info("temporal_works", LOG_STR("address", w->t->address),
			 LOG_STR("namespace", w->t->namespace_name));
	else
		log_error("temporal_failed", LOG_STR("address", w->t->address),
			  LOG_STR("namespace", w->t->namespace_name), LOG_STR("error", why),
			  LOG_STR("effect", "no tasks are taken; what runs goes on"));
}

static unsigned temporal_engine_workflow_limit(void *arg)
{
	const struct temporal_worker *w = arg;
	unsigned each = WORKFLOW_POLLS / (unsigned)w->o.n_queues;
	if (w->stopping)
		return 0;
	return each < 2 ? 2 : each;
}

/* Every queue has a poll as long as there is a slot: with several queues the last slot may be taken by one
 * task of each. */
static unsigned temporal_engine_activity_limit(void *arg)
{
	const struct temporal_worker *w = arg;
	size_t busy = w->activities.n;
	if (w->stopping || busy >= w->o.concurrency)
		return 0;
	size_t each = (w->o.concurrency - busy) / w->o.n_queues;
	if (each > TEMPORAL_POLLS_MAX)
		each = TEMPORAL_POLLS_MAX;
	return each ? (unsigned)each : 1;
}

static void temporal_engine_take_workflow(void *arg, struct span message)
{
	struct temporal_worker *w = arg;
	temporal_workflow_tasks_take(&w->workflows, message);
}

static void temporal_engine_take_activity(void *arg, struct span message)
{
	struct temporal_worker *w = arg;
	temporal_activities_take(&w->activities, message);
}

static void temporal_engine_check_stopped(void *arg)
{
	struct temporal_worker *w = arg;
	if (!w->stopping || w->over || w->activities.n || w->workflows.n)
		return;
	for (size_t i = 0; i < w->n_polls; i++)
		if (!w->drained && temporal_polls_open(w->polls[i]))
			return;
	w->over = true;
	loop_timer_stop(w->drain);
	loop_defer(w->loop, &w->stopped);
}

static void temporal_engine_changed(void *arg)
{
	struct temporal_worker *w = arg;
	for (size_t i = 0; i < w->n_polls && !w->stopping; i++)
		temporal_polls_look(w->polls[i]);
	temporal_engine_check_stopped(w);
}

/* --- stopping ------------------------------------------------------------------------------------------- */

static void temporal_engine_on_stopped(struct loop_work *work)
{
	struct temporal_worker *w =
		(struct temporal_worker *)((char *)work - offsetof(struct temporal_worker, stopped));
	w->o.stopped(w->o.arg);
}

/* First what runs is killed, and told; the polls that are open are not waited for any more. What could not
 * be told some seconds later is left. */
static void temporal_engine_on_drain_end(void *arg)
{
	struct temporal_worker *w = arg;
	if (!w->drained) {
		w->drained = true;
		temporal_activities_kill(&w->activities);
		loop_timer_start(w->drain, LAST_MS);
		temporal_engine_check_stopped(w);
		return;
	}
	log_error("worker_leaves_tasks", LOG_INT("tasks", w->activities.n),
		  LOG_STR("effect", "for the server they will have timed out"));
	w->over = true;
	loop_defer(w->loop, &w->stopped);
}

static void temporal_engine_stop(void *arg)
{
	struct temporal_worker *w = arg;
	if (w->stopping) {
		if (!w->drained && !w->over)
			temporal_engine_on_drain_end(w);
		return;
	}
	w->stopping = true;
	log_info("worker_drains", LOG_INT("running", w->activities.n_running),
		 LOG_INT("deadline_ms", w->o.drain_ms));
	loop_timer_start(w->drain, w->o.drain_ms);
	for (size_t i = 0; i < w->n_polls; i++)
		temporal_polls_stop(w->polls[i]);
	temporal_engine_check_stopped(w);
}

/* --- begin and end -------------------------------------------------------------------------------------- */

static void temporal_engine_release(void *arg)
{
	struct temporal_worker *w = arg;
	if (!w)
		return;
	for (size_t i = 0; i < w->n_polls; i++)
		temporal_polls_free(w->polls[i]);
	temporal_workflow_tasks_release(&w->workflows);
	temporal_activities_release(&w->activities);
	grpc_channel_free(w->calls.channel);
	loop_timer_free(w->drain);
	loop_defer_cancel(w->loop, &w->stopped);
	http_client_free(w->env.http);
	registry_free(w->o.registry);
	free(w);
}

static void temporal_engine_set_registry(void *arg, struct registry *r)
{
	struct temporal_worker *w = arg;
	registry_free(w->o.registry);
	w->o.registry = registry_ref(r);
	w->workflows.registry = w->activities.registry = w->o.registry;
}

static int temporal_engine_check(const struct task_options *options, struct err *e)
{
	const struct temporal_options *t = (const struct temporal_options *)options;
	return t->address ? 0
			  : err_set(e, -EINVAL,
				    "temporal: a worker speaks gRPC, not HTTP: set address (host:port, "
				    "usually port "
				    "7233), or TEMPORAL_ADDRESS");
}

static int temporal_engine_connect(struct temporal_worker *w, struct err *e)
{
	const struct http_field key = {SPAN_INIT("authorization"), span_of(w->t->authorization)};
	const struct grpc_channel_options o = {.address = w->t->address,
					       .tls = w->t->address_tls,
					       .ca_file = w->t->ca_file,
					       .client_cert = w->t->client_cert,
					       .client_key = w->t->client_key,
					       .metadata = &key,
					       .n_metadata = w->t->authorization ? 1 : 0,
					       .max_connections = 256};
	int r = temporal_engine_check(w->o.backend, e);
	if (r < 0)
		return r;
	r = grpc_channel_new(w->loop, &o, &w->calls.channel, e);
	return r < 0 ? err_prefix(e, r, "temporal: address") : 0;
}

static int temporal_engine_poll(struct temporal_worker *w, const char *queue, bool activities)
{
	const struct temporal_polls_options o = {
		.calls = &w->calls,
		.method = activities ? TEMPORAL_POLL_ACTIVITY : TEMPORAL_POLL_WORKFLOW,
		.queue = queue,
		.limit = activities ? temporal_engine_activity_limit : temporal_engine_workflow_limit,
		.taken = activities ? temporal_engine_take_activity : temporal_engine_take_workflow,
		.state = temporal_engine_state,
		.idle = temporal_engine_check_stopped,
		.arg = w};
	int r = temporal_polls_new(&o, &w->polls[w->n_polls]);
	w->n_polls += r == 0;
	return r;
}

static int temporal_engine_open(struct temporal_worker *w, struct err *e)
{
	w->calls = (struct temporal_calls){.loop = w->loop,
					   .namespace_name = w->t->namespace_name,
					   .identity = w->o.name,
					   .poll_ms = w->t->poll_timeout_ms};
	w->workflows = (struct temporal_workflow_tasks){.calls = &w->calls,
							.registry = w->o.registry,
							.heartbeat_ms = w->t->heartbeat_timeout_ms,
							.changed = temporal_engine_changed,
							.arg = w};
	w->activities = (struct temporal_activities){.calls = &w->calls,
						     .registry = w->o.registry,
						     .env = &w->env,
						     .changed = temporal_engine_changed,
						     .arg = w};
	int r = temporal_engine_connect(w, e);
	if (r == 0)
		r = http_client_new(w->loop, NULL, &w->env.http, e);
	if (r == 0)
		r = loop_timer_new(w->loop, temporal_engine_on_drain_end, w, &w->drain);
	for (size_t i = 0; i < 2 * w->o.n_queues && r == 0; i++)
		r = temporal_engine_poll(w, w->o.queues[i / 2], i % 2);
	return r;
}

static int temporal_engine_make(struct loop *loop, const struct worker_options *o, void **ret, struct err *e)
{
	struct temporal_worker *w = calloc(1, sizeof(*w));
	if (!w)
		return err_set(e, -ENOMEM, "out of memory");
	w->o = *o;
	w->t = (const struct temporal_options *)o->backend;
	registry_ref(w->o.registry);
	w->loop = w->env.loop = loop;
	w->stopped.fn = temporal_engine_on_stopped;
	int r = temporal_engine_open(w, e);
	if (r < 0) {
		temporal_engine_release(w);
		return r;
	}
	temporal_engine_changed(w);
	*ret = w;
	return 0;
}

static void temporal_engine_counts(const void *arg, struct worker_counts *ret)
{
	const struct temporal_worker *w = arg;
	const struct temporal_activities *a = &w->activities;
	*ret = (struct worker_counts){.received = a->received,
				      .succeeded = a->succeeded,
				      .failed = a->failed - a->refused,
				      .revoked = a->cancelled,
				      .refused = a->refused,
				      .running = (unsigned)a->n_running,
				      .waiting = (unsigned)(a->n - a->n_running),
				      .connected = w->connected};
}

static const char *temporal_engine_queue(const struct task_options *options)
{
	return ((const struct temporal_options *)options)->task_queue;
}

const struct worker_engine temporal_engine = {.name = "temporal",
					      .default_queue = TEMPORAL_DEFAULT_QUEUE,
					      .queue = temporal_engine_queue,
					      .of_options = true,
					      .check = temporal_engine_check,
					      .make = temporal_engine_make,
					      .set_registry = temporal_engine_set_registry,
					      .stop = temporal_engine_stop,
					      .release = temporal_engine_release,
					      .counts = temporal_engine_counts};
