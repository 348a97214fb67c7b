#include "router/plane.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "operation/listen_address.h"
#include "router/forward.h"
#include "router/plane_internal.h"
#include "router/request/auth_ask.h"
#include "router/request/hold.h"
#include "router/request/request.h"
#include "router/shadow/shadow.h"
#include "router/shadow/shadow_legacy.h"

/* --- services ------------------------------------------------------------------------------------------- */

struct service_shared *plane_env_service(struct plane_env *env, struct span name)
{
	for (size_t i = 0; i < env->n_services; i++)
		if (span_is(name, env->services[i].name))
			return &env->services[i];
	if (env->n_services == CONFIG_MAX_SERVICES)
		return NULL;
	struct service_shared *s = &env->services[env->n_services++];
	span_copy(name, s->name, sizeof(s->name));
	crypto_random_id(s->id);
	for (int http10 = 0; http10 < 2; http10++)
		forward_write_via(http10, span_of(s->id), s->via[http10]);
	return s;
}

static struct service_shared *find_shared(struct plane_env *env, struct span name)
{
	for (size_t i = 0; i < env->n_services; i++)
		if (span_is(name, env->services[i].name))
			return &env->services[i];
	return NULL;
}

static void protect(struct service_runtime *s, const struct identity_source *sources, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bool cookie = sources[i].kind == IDENTITY_COOKIE;
		struct span name = cookie ? SPAN_LIT("Cookie") : sources[i].name;
		bool known = (sources[i].kind != IDENTITY_HEADER && !cookie) ||
			     s->n_identity_fields == SERVICE_IDENTITY_FIELDS;
		for (size_t k = 0; !known && k < s->n_identity_fields; k++)
			known = span_eq(s->identity_fields[k], name);
		if (!known)
			s->identity_fields[s->n_identity_fields++] = name;
	}
}

static void find_identity_fields(struct service_runtime *s)
{
	for (size_t i = 0; i < s->service->n_operations; i++) {
		const struct identity_sources *sources = &s->service->operations[i].identity;
		protect(s, sources->user, sources->n_user);
		protect(s, sources->organization, sources->n_organization);
		for (size_t j = 0; j < s->service->operations[i].n_context; j++)
			protect(s, s->service->operations[i].context[j].sources,
				s->service->operations[i].context[j].n_sources);
	}
}

/* "http://host:port/prefix" → "host:port" */
static struct span host_of(const char *url)
{
	const char *host = strstr(url, "://");
	host = host ? host + 3 : url;
	return (struct span){host, strcspn(host, "/")};
}

static int service_runtime_new(struct plane *p, const struct config *config, const struct service *service,
			       struct service_runtime **ret, struct err *e)
{
	struct service_runtime *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->refs = 1;
	s->plane = p;
	s->config = config_ref(config);
	s->service = service;
	s->shared = find_shared(p->env, service->name);
	s->host = host_of(service->legacy_url);
	find_identity_fields(s);
	struct legacy_options o = {
		.base_url = service->legacy_url,
		.server_name = service->legacy_host && *service->legacy_host ? service->legacy_host : NULL,
		.ca_file = service->legacy_ca_file,
		.max_connections = service->legacy_max_connections,
		.max_queued = service->max_in_flight,
		.max_kept = service->legacy_max_kept,
		.keep_ms = service->legacy_keep_ms,
		.connect_timeout_ms = service->connect_timeout_ms,
		.response_timeout_ms = service->response_timeout_ms,
		.idle_timeout_ms = service->idle_timeout_ms,
		.max_head = config->max_head,
	};
	int r = s->shared ? legacy_upstream_new(p->loop, &o, &s->upstream, e)
			  : err_set(e, -ENOSPC, "more than %d services since the start", CONFIG_MAX_SERVICES);
	if (r == 0)
		r = route_table_new(service->operations, service->n_operations, &s->routes, e);
	if (r < 0) {
		service_runtime_unref(s);
		return err_prefix(e, r, "service %.*s", SPAN_ARG(service->name));
	}
	*ret = s;
	return 0;
}

/* --- listeners ------------------------------------------------------------------------------------------ */

/* With SO_REUSEPORT a second router would silently take half of the connections: the first listener of this
 * process looks whether the address is free of anyone's. */
int plane_address_free(const char *address, struct err *e)
{
	CLEANUP(closep) int fd = -1;
	unsigned port;
	if (listen_address_is_inherited(address, NULL))
		return 0;
	return listen_address_open(address, false, &fd, &port, e);
}

static struct listener_options options_of(const struct config *c, const struct service *s)
{
	return (struct listener_options){
		.reuse_port = true,
		.max_connections = s->max_connections,
		.max_head = c->max_head,
		.head_timeout_ms = s->head_timeout_ms,
		.idle_timeout_ms = s->client_idle_timeout_ms,
		.half_close_is_gone = s->half_close_is_gone,
		.drain_timeout_ms = s->drain_timeout_ms,
	};
}

/* A listener that stays open keeps what it was opened with; said aloud rather than silently ignored. */
static void warn_of_fixed_options(const struct plane_listener *pl, const struct config *c,
				  const struct service *s)
{
	const struct listener_options old = pl->opened, new = options_of(c, s);
	const struct {
		const char *key;
		bool changed;
	} parts[] = {
		{"limits.max_connections", old.max_connections != new.max_connections},
		{"client.head_timeout", old.head_timeout_ms != new.head_timeout_ms},
		{"client.idle_timeout", old.idle_timeout_ms != new.idle_timeout_ms},
		{"client.half_close_is_gone", old.half_close_is_gone != new.half_close_is_gone},
		{"client.drain_timeout", old.drain_timeout_ms != new.drain_timeout_ms},
	};
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		char key[128];
		snprintf(key, sizeof(key), "services.%.*s.%s", SPAN_ARG(s->name), parts[i].key);
		if (parts[i].changed)
			log_warn("reload_needs_restart", LOG_STR("key", key));
	}
}

static int open_listener(struct plane *p, struct service_runtime *s, struct err *e)
{
	struct plane_listener *pl = calloc(1, sizeof(*pl));
	if (!pl)
		return err_set(e, -ENOMEM, "out of memory");
	pl->plane = p;
	pl->current = service_runtime_ref(s);
	snprintf(pl->address, sizeof(pl->address), "%s", s->service->listen);
	/* Known once the first plane has bound it. Port 0 is for tests: the first plane's port becomes
	 * everybody's. */
	char address[160];
	unsigned port = atomic_load(&s->shared->port);
	const char *colon = strrchr(pl->address, ':');
	if (port && colon && strcmp(colon, ":0") == 0)
		snprintf(address, sizeof(address), "%.*s:%u", (int)(colon - pl->address), pl->address, port);
	else
		snprintf(address, sizeof(address), "%s", pl->address);
	pl->opened = options_of(s->config, s->service);
	struct listener_options o = pl->opened;
	o.address = address;
	o.held = atomic_load(&p->env->held);
	struct listener_handler h = request_handler;
	h.arg = pl;
	int r = p->index == 0 && port == 0 ? plane_address_free(address, e) : 0;
	if (r == 0)
		r = listener_start(p->loop, &o, &h, &pl->listener, e);
	if (r < 0) {
		service_runtime_unref(pl->current);
		free(pl);
		return err_prefix(e, r, "service %.*s", SPAN_ARG(s->service->name));
	}
	atomic_store(&s->shared->port, listener_port(pl->listener));
	if (p->index == 0)
		log_info("listening", LOG_SPAN("service", s->service->name), LOG_STR("address", pl->address),
			 LOG_INT("port", listener_port(pl->listener)),
			 LOG_STR("legacy", s->service->legacy_url));
	pl->next = p->listeners;
	p->listeners = pl;
	return 0;
}

static struct plane_listener *find_listener(struct plane *p, const struct service *s)
{
	for (struct plane_listener *pl = p->listeners; pl; pl = pl->next)
		if (!pl->closing && strcmp(pl->address, s->listen) == 0 &&
		    span_eq(pl->current->service->name, s->name))
			return pl;
	return NULL;
}

static void close_listener(struct plane_listener *pl)
{
	listener_stop(pl->listener);
	service_runtime_unref(pl->current);
	free(pl);
}

static bool in_config(const struct config *c, const struct plane_listener *pl)
{
	for (size_t i = 0; i < c->n_services; i++)
		if (strcmp(c->services[i].listen, pl->address) == 0 &&
		    span_eq(c->services[i].name, pl->current->service->name))
			return true;
	return false;
}

#define CLOSING_TICK_MS 20

static void close_softly(struct plane *p, struct plane_listener *pl, bool patient)
{
	pl->closing = true;
	listener_quiesce(pl->listener, patient);
	if (!loop_timer_active(p->closing))
		loop_timer_start(p->closing, CLOSING_TICK_MS);
}

/* Listeners that are being closed: what they may still be asked is counted; those that are gone from the
 * configuration are freed once nobody is left. */
static void on_closing(void *arg)
{
	struct plane *p = arg;
	unsigned unheard = 0;
	bool more = false, settling = false;
	for (struct plane_listener **at = &p->listeners; *at;) {
		struct plane_listener *pl = *at;
		unsigned n = pl->closing ? listener_unheard(pl->listener) : 0;
		bool unsettled = pl->closing && listener_settling(pl->listener);
		unheard += n;
		settling |= unsettled;
		if (pl->retired && n == 0 && !unsettled && listener_exchanges(pl->listener) == 0) {
			*at = pl->next;
			close_listener(pl);
			continue;
		}
		more |= pl->closing;
		at = &pl->next;
	}
	atomic_store(&p->unheard, unheard);
	atomic_store(&p->settling, settling);
	if (more)
		loop_timer_start(p->closing, CLOSING_TICK_MS);
}

/* What is gone from the configuration stops accepting. */
static void retire_listeners(struct plane *p, const struct config *c)
{
	for (struct plane_listener *pl = p->listeners; pl; pl = pl->next)
		if (!pl->closing && !in_config(c, pl)) {
			pl->retired = true;
			close_softly(p, pl, false);
		}
}

static int apply_config(struct plane *p, const struct config *c, struct err *e)
{
	retire_listeners(p, c);
	for (size_t i = 0; i < c->n_services; i++) {
		struct service_runtime *s = NULL;
		int r = service_runtime_new(p, c, &c->services[i], &s, e);
		if (r < 0)
			return r;
		struct plane_listener *pl = find_listener(p, &c->services[i]);
		if (pl) {
			if (p->index == 0)
				warn_of_fixed_options(pl, c, &c->services[i]);
			service_runtime_unref(pl->current);
			pl->current = service_runtime_ref(s);
		} else {
			r = open_listener(p, s, e);
		}
		service_runtime_unref(s);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- messages from the control thread ------------------------------------------------------------------- */

struct message {
	struct loop_work work;
	struct plane *plane;
	const struct flag_snapshot *flags;
	const struct config *config;
	const struct readiness *readiness;
	const struct guard_holds *holds;
	bool patient;
};

static struct message *message_of(struct loop_work *w)
{
	return (struct message *)((char *)w - offsetof(struct message, work));
}

/* What it holds is the message's own from here on. */
static void post(struct plane *p, void (*fn)(struct loop_work *), const struct message *what)
{
	struct message *m = calloc(1, sizeof(*m));
	if (!m) {
		log_error("plane_message_lost", LOG_STR("error", "out of memory"));
		return;
	}
	m->work.fn = fn;
	m->plane = p;
	m->flags = what->flags ? flag_snapshot_ref(what->flags) : NULL;
	m->config = what->config ? config_ref(what->config) : NULL;
	m->readiness = readiness_ref(what->readiness);
	m->holds = guard_holds_ref(what->holds);
	m->patient = what->patient;
	loop_post(p->loop, &m->work);
}

static void on_beat(struct loop_work *w)
{
	struct plane *p = (struct plane *)((char *)w - offsetof(struct plane, beat));
	atomic_store(&p->beating, false);
}

bool plane_answers(struct plane *p)
{
	if (atomic_exchange(&p->beating, true))
		return false;
	p->beat.fn = on_beat;
	loop_post(p->loop, &p->beat);
	return true;
}

static void on_flags(struct loop_work *w)
{
	struct message *m = message_of(w);
	flag_snapshot_unref(m->plane->flags);
	m->plane->flags = m->flags;
	free(m);
}

static void on_readiness(struct loop_work *w)
{
	struct message *m = message_of(w);
	readiness_unref(m->plane->readiness);
	m->plane->readiness = m->readiness;
	free(m);
}

static void on_holds(struct loop_work *w)
{
	struct message *m = message_of(w);
	guard_holds_unref(m->plane->holds);
	m->plane->holds = m->holds;
	free(m);
}

static void on_config(struct loop_work *w)
{
	struct message *m = message_of(w);
	struct err e;
	if (apply_config(m->plane, m->config, &e) < 0)
		log_error("reload_incomplete", LOG_INT("plane", m->plane->index), LOG_STR("error", e.text));
	config_unref(m->config);
	free(m);
}

static void on_open(struct loop_work *w)
{
	struct message *m = message_of(w);
	for (struct plane_listener *pl = m->plane->listeners; pl; pl = pl->next)
		listener_open(pl->listener);
	free(m);
}

static void on_quiesce(struct loop_work *w)
{
	struct message *m = message_of(w);
	for (struct plane_listener *pl = m->plane->listeners; pl; pl = pl->next)
		close_softly(m->plane, pl, m->patient);
	on_closing(m->plane);
	free(m);
}

void plane_set_flags(struct plane *p, const struct flag_snapshot *flags)
{
	post(p, on_flags, &(struct message){.flags = flags});
}

void plane_set_readiness(struct plane *p, const struct readiness *readiness)
{
	post(p, on_readiness, &(struct message){.readiness = readiness});
}

void plane_set_holds(struct plane *p, const struct guard_holds *holds)
{
	post(p, on_holds, &(struct message){.holds = holds});
}

void plane_set_config(struct plane *p, const struct config *config)
{
	post(p, on_config, &(struct message){.config = config});
}

void plane_open(struct plane *p)
{
	post(p, on_open, &(struct message){0});
}

void plane_quiesce(struct plane *p, bool patient)
{
	atomic_store(&p->settling, true); /* until the plane has looked */
	post(p, on_quiesce, &(struct message){.patient = patient});
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void *plane_run(void *arg)
{
	struct plane *p = arg;
	/* Signals are the control thread's. */
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	loop_run(p->loop);
	return NULL;
}

static int make_clients(struct plane *p, struct err *e)
{
	for (size_t i = 0; i < p->env->n_backends; i++) {
		const struct plane_backend *b = &p->env->backends[i];
		int r = task_client_new(b->options, p->loop, &p->clients[i], e);
		if (r < 0)
			return err_prefix(e, r, "backend %.*s", SPAN_ARG(b->name));
	}
	return 0;
}

int plane_start(struct plane_env *env, unsigned index, const struct config *config,
		const struct flag_snapshot *flags, struct plane **ret, struct err *e)
{
	struct plane *p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	p->env = env;
	p->index = index;
	p->flags = flags ? flag_snapshot_ref(flags) : NULL;
	p->holds = guard_holds_ref(env->holds);
	int r = loop_new(&p->loop);
	if (r < 0) {
		err_set(e, r, "event loop: %s", strerror(-r));
		goto fail;
	}
	if ((r = loop_timer_new(p->loop, on_closing, p, &p->closing)) < 0 || (r = hold_init(p)) < 0) {
		err_set(e, r, "timer: %s", strerror(-r));
		goto fail;
	}
	r = recorder_producer_new(env->recorder, &p->producer);
	if (r < 0) {
		err_set(e, r, "recorder queue: %s", strerror(-r));
		goto fail;
	}
	if (env->traces && (r = traces_producer_new(env->traces, &p->spans)) < 0) {
		err_set(e, r, "queue of spans: %s", strerror(-r));
		goto fail;
	}
	if ((r = make_clients(p, e)) < 0 || (r = apply_config(p, config, e)) < 0)
		goto fail;
	r = -pthread_create(&p->thread, NULL, plane_run, p);
	if (r < 0) {
		err_set(e, r, "thread: %s", strerror(-r));
		goto fail;
	}
	p->running = true;
	*ret = p;
	return 0;
fail:
	plane_free(p);
	return r;
}

void plane_halt(struct plane *p)
{
	if (p->running) {
		loop_stop(p->loop);
		pthread_join(p->thread, NULL);
	}
	p->running = false;
}

struct plane *plane_free(struct plane *p)
{
	if (!p)
		return NULL;
	plane_halt(p);
	hold_release(p);
	auth_ask_release(p);
	/* The order matters: listeners cut their exchanges, which end their upstream calls and waits; what
	 * other threads have posted by now is taken in; then the clients drop what would still call back,
	 * and the requests that waited for it. */
	while (p->listeners) {
		struct plane_listener *pl = p->listeners;
		p->listeners = pl->next;
		close_listener(pl);
	}
	p->closing = loop_timer_free(p->closing);
	loop_run_posted(p->loop);
	shadow_end_all(p);
	shadow_legacy_end_all(p);
	for (size_t i = 0; i < p->env->n_backends; i++)
		task_client_free(p->clients[i]);
	loop_run_posted(p->loop); /* the clients' answers on their way, which they now drop */
	shadow_free_all(p);
	request_free_all(p);
	flag_snapshot_unref(p->flags);
	readiness_unref(p->readiness);
	guard_holds_unref(p->holds);
	loop_free(p->loop);
	free(p);
	return NULL;
}

unsigned plane_unheard(const struct plane *p)
{
	return atomic_load(&p->unheard);
}

bool plane_settling(const struct plane *p)
{
	return atomic_load(&p->settling);
}

unsigned plane_exchanges(const struct plane *p)
{
	return atomic_load_explicit(&p->exchanges, memory_order_relaxed);
}
