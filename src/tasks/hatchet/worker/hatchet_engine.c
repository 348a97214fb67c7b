/*
 * The worker for a Hatchet engine: life, reload and drain. What it says to be there stands in session.h,
 * what becomes of the tasks it is given in assignments.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "base/log.h"
#include "tasks/hatchet/worker/assignments.h"
#include "tasks/hatchet/worker/session.h"
#include "tasks/worker/engine.h"

#define LAST_MS 5000 /* to tell the ends of what was killed at the end of the drain */

struct engine_session {
	LIST_ENTRY(engine_session) place;
	struct hatchet_session *session;
};

struct hatchet_worker {
	struct worker_options o;
	const struct hatchet_settings *settings;
	struct loop *loop;
	struct handler_env env;
	struct grpc_channel *engine;
	struct http_client *rest;
	char *name;	     /* as the engine takes it */
	const char *address; /* of its side for workers */
	struct hatchet_assignments assignments;
	/* The first is the one that takes tasks, until the worker stops; the others end. */
	LIST_HEAD(, engine_session) sessions;
	struct loop_timer *drain;
	struct loop_work stopped;
	bool stopping, drained, over, connected, said_away;
};

/* --- what the parts tell -------------------------------------------------------------------------------- */

static struct hatchet_session *engine_current(const struct hatchet_worker *w)
{
	const struct engine_session *first = LIST_FIRST(&w->sessions);
	return first ? first->session : NULL;
}

static void engine_on_state(void *arg, struct hatchet_session *s, bool listens, const char *why)
{
	struct hatchet_worker *w = arg;
	if (s != engine_current(w))
		return;
	if (listens && (!w->connected || w->said_away)) {
		log_info("engine_works", LOG_STR("engine", w->address));
		hatchet_assignments_go_on(&w->assignments);
	}
	if (!listens && !w->said_away)
		log_error("engine_failed", LOG_STR("engine", w->address), LOG_STR("error", why),
			  LOG_STR("effect", "no tasks are taken; what runs goes on"));
	w->connected = listens;
	w->said_away = !listens;
}

static void engine_on_action(void *arg, struct hatchet_session *s, struct hatchet_action *a)
{
	struct hatchet_worker *w = arg;
	hatchet_assignments_take(&w->assignments, hatchet_session_catalog(s), hatchet_session_worker_id(s),
				 a);
}

static size_t engine_held(void *arg, const char *worker_id)
{
	const struct hatchet_worker *w = arg;
	return hatchet_assignments_held(&w->assignments, worker_id);
}

static void engine_check_stopped(struct hatchet_worker *w)
{
	if (w->over || !w->stopping || w->assignments.n || !LIST_EMPTY(&w->sessions))
		return;
	w->over = true;
	loop_timer_stop(w->drain);
	loop_defer(w->loop, &w->stopped);
}

static void engine_on_closed(void *arg, struct hatchet_session *s)
{
	struct hatchet_worker *w = arg;
	struct engine_session *x;
	LIST_FOREACH (x, &w->sessions, place)
		if (x->session == s)
			break;
	if (x) {
		LIST_REMOVE(x, place);
		free(x);
	}
	hatchet_session_free(s);
	engine_check_stopped(w);
}

static void engine_on_gone(void *arg, const char *worker_id)
{
	struct hatchet_worker *w = arg;
	struct engine_session *x;
	(void)worker_id;
	LIST_FOREACH (x, &w->sessions, place)
		hatchet_session_look(x->session);
	engine_check_stopped(w);
}

/* --- sessions ------------------------------------------------------------------------------------------- */

static int engine_open_session(struct hatchet_worker *w, struct err *e)
{
	struct hatchet_catalog *c = NULL;
	struct engine_session *x = calloc(1, sizeof(*x));
	int r = x ? 0 : err_set(e, -ENOMEM, "out of memory");
	if (r == 0)
		r = hatchet_catalog_new(w->o.registry, w->o.queues, w->o.n_queues, &c, e);
	const struct hatchet_session_options o = {.loop = w->loop,
						  .settings = w->settings,
						  .engine = w->engine,
						  .rest = w->rest,
						  .catalog = c,
						  .name = w->name,
						  .slots = w->o.concurrency,
						  .state = engine_on_state,
						  .action = engine_on_action,
						  .held = engine_held,
						  .closed = engine_on_closed,
						  .arg = w};
	if (r == 0)
		r = hatchet_session_new(&o, &x->session, e);
	hatchet_catalog_free(c);
	if (r < 0) {
		free(x);
		return r;
	}
	LIST_INSERT_HEAD(&w->sessions, x, place);
	return 0;
}

static void engine_set_registry(void *arg, struct registry *r)
{
	struct hatchet_worker *w = arg;
	struct engine_session *before = LIST_FIRST(&w->sessions);
	struct registry *old = w->o.registry;
	struct err e = {""};
	if (w->stopping)
		return;
	w->o.registry = registry_ref(r);
	if (engine_open_session(w, &e) < 0) {
		log_error("tasks_not_declared", LOG_STR("error", e.text),
			  LOG_STR("effect", "the engine gives this worker what it gave it before"));
		registry_free(w->o.registry);
		w->o.registry = old;
		return;
	}
	registry_free(old);
	if (before)
		hatchet_session_end(before->session);
}

/* --- stopping ------------------------------------------------------------------------------------------- */

static void engine_on_stopped(struct loop_work *work)
{
	struct hatchet_worker *w =
		(struct hatchet_worker *)((char *)work - offsetof(struct hatchet_worker, stopped));
	w->o.stopped(w->o.arg);
}

/* First what runs is killed. What could still not be told some seconds later is left. */
static void engine_on_drain_end(void *arg)
{
	struct hatchet_worker *w = arg;
	if (!w->drained) {
		w->drained = true;
		loop_timer_start(w->drain, LAST_MS);
		hatchet_assignments_kill(&w->assignments);
		return;
	}
	log_error("worker_leaves_tasks", LOG_INT("tasks", w->assignments.n),
		  LOG_STR("effect",
			  "their ends could not be told; the engine gives them to another worker, or "
			  "fails them"));
	w->over = true;
	loop_defer(w->loop, &w->stopped);
}

static void engine_stop(void *arg)
{
	struct hatchet_worker *w = arg;
	struct engine_session *x;
	if (w->stopping) {
		hatchet_assignments_kill(&w->assignments);
		return;
	}
	w->stopping = true;
	log_info("worker_drains", LOG_INT("running", w->assignments.n_running),
		 LOG_INT("deadline_ms", w->o.drain_ms));
	loop_timer_start(w->drain, w->o.drain_ms);
	LIST_FOREACH (x, &w->sessions, place)
		hatchet_session_end(x->session);
	engine_check_stopped(w);
}

/* --- begin and end -------------------------------------------------------------------------------------- */

static void engine_release(void *arg)
{
	struct hatchet_worker *w = arg;
	struct engine_session *x;
	if (!w)
		return;
	while ((x = LIST_FIRST(&w->sessions)) != NULL) {
		LIST_REMOVE(x, place);
		hatchet_session_free(x->session);
		free(x);
	}
	hatchet_assignments_release(&w->assignments);
	grpc_channel_free(w->engine);
	http_client_free(w->rest);
	http_client_free(w->env.http);
	loop_timer_free(w->drain);
	loop_defer_cancel(w->loop, &w->stopped);
	registry_free(w->o.registry);
	free(w->name);
	free(w);
}

static int engine_name(struct hatchet_worker *w, struct err *e)
{
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(1024);
	hatchet_put_worker_name(span_of(w->o.name), &name);
	w->name = name.error ? NULL : buf_steal(&name);
	return w->name ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int engine_open(struct hatchet_worker *w, struct err *e)
{
	const struct hatchet_settings *s = w->settings;
	const struct http_client_options rest = {.ca_file = s->ca_file};
	const struct http_field fields[] = {{SPAN_LIT("authorization"), span_of(s->authorization)}};
	struct grpc_channel_options engine = {.ca_file = s->grpc_ca_file ? s->grpc_ca_file : s->ca_file,
					      .metadata = fields,
					      .n_metadata = 1};
	int r = hatchet_grpc_place(s, &engine.address, &engine.tls, e);
	w->address = engine.address;
	if (r == 0)
		r = engine_name(w, e);
	if (r == 0)
		r = http_client_new(w->loop, NULL, &w->env.http, e);
	if (r == 0)
		r = http_client_new(w->loop, &rest, &w->rest, e);
	if (r == 0)
		r = grpc_channel_new(w->loop, &engine, &w->engine, e);
	if (r == 0)
		r = loop_timer_new(w->loop, engine_on_drain_end, w, &w->drain);
	const struct hatchet_assignments_options assignments = {.loop = w->loop,
								.settings = s,
								.engine = w->engine,
								.env = &w->env,
								.rest = w->rest,
								.concurrency = w->o.concurrency,
								.gone = engine_on_gone,
								.arg = w};
	if (r == 0)
		r = hatchet_assignments_init(&w->assignments, &assignments);
	return r < 0 ? r : engine_open_session(w, e);
}

static int engine_make(struct loop *loop, const struct worker_options *o, void **ret, struct err *e)
{
	struct hatchet_worker *w = calloc(1, sizeof(*w));
	if (!w)
		return err_set(e, -ENOMEM, "out of memory");
	w->o = *o;
	w->settings = (const struct hatchet_settings *)o->backend;
	registry_ref(w->o.registry);
	w->loop = w->env.loop = loop;
	w->stopped.fn = engine_on_stopped;
	int r = engine_open(w, e);
	if (r < 0) {
		engine_release(w);
		return r;
	}
	*ret = w;
	return 0;
}

static void engine_counts(const void *arg, struct worker_counts *ret)
{
	const struct hatchet_worker *w = arg;
	const struct hatchet_assignments *q = &w->assignments;
	*ret = (struct worker_counts){.received = q->received,
				      .succeeded = q->succeeded,
				      .failed = q->failed,
				      .retried = q->retried,
				      .revoked = q->cancelled,
				      .refused = q->refused,
				      .running = (unsigned)q->n_running,
				      .waiting = (unsigned)(q->n - q->n_running),
				      .connected = w->connected};
}

const struct worker_engine hatchet_engine = {.name = "hatchet",
					     .default_queue = REGISTRY_DEFAULT_QUEUE,
					     .of_options = true,
					     .make = engine_make,
					     .set_registry = engine_set_registry,
					     .stop = engine_stop,
					     .release = engine_release,
					     .counts = engine_counts};
