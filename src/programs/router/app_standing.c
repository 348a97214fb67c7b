#include "programs/router/app_standing.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "programs/router/app_guard.h"
#include "programs/router/app_registration.h"
#include "router/http/acceptor.h"
#include "router/set_share.h"
#include "standing/standing_changes.h"
#include "standing/standing_row.h"
#include "standing/standing_window.h"

#define PATIENCE_MS 5000 /* for the first flags: until then nothing is known of what is set */
#define RATE_MS 60000	 /* errors per minute are counted over one to two of these */

/* Errors of a legacy service at two moments of the past. */
struct error_rate {
	uint64_t older, newer;
	int64_t older_ms, newer_ms;
};

struct app_standing {
	struct app *app;
	struct standing_row *row;
	struct events *events;
	bool begun, ended, quiet;
	int64_t begun_ms, written_us;
	uint64_t changes; /* of what is known */

	/* what `last` was made from: while both are the same what is set is, too */
	const struct config *config;	   /* referenced */
	const struct flag_snapshot *flags; /* referenced, or NULL */
	char path[256];			   /* of the configuration, absolute */
	struct error_rate rates[CONFIG_MAX_SERVICES];

	pthread_mutex_t lock; /* over `last`: others copy it */
	struct standing_facts *last;

	struct loop_job job; /* makes the standing that /readyz tells */
	bool looking, again;
	int64_t looked_ms;
	struct standing *made, *told; /* by the job; the last one */
};

/* --- facts ---------------------------------------------------------------------------------------------- */

static size_t count_operations(const struct config *c, size_t *ret_without)
{
	size_t n = 0;
	*ret_without = 0;
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			bool task = c->services[i].operations[j].has_task;
			n += task;
			*ret_without += !task;
		}
	return n;
}

static void fill_flags(struct app *a, struct standing_flags *f)
{
	struct flag_source_status s;
	struct app_broken_flags broken;
	app_flags_status(a, &s);
	app_broken_flags(a, &broken);
	text_copy(span_of(s.kind), f->source, sizeof(f->source));
	text_copy(span_of(s.where), f->where, sizeof(f->where));
	text_copy(span_of(s.digest), f->digest, sizeof(f->digest));
	text_copy(span_of(s.version), f->version, sizeof(f->version));
	text_copy(span_of(s.last_error), f->last_error, sizeof(f->last_error));
	f->loaded = a->flags != NULL;
	f->failing = s.failing;
	f->unsaved = s.unsaved;
	f->confirmed_us = s.good_us;
	f->vanished = (unsigned)s.carried.n;
	f->broken = (unsigned)broken.n;
	if (s.carried.n)
		text_copy(span_of(s.carried.names[0]), f->vanished_name, sizeof(f->vanished_name));
	if (broken.n)
		text_copy(broken.keys[0], f->broken_name, sizeof(f->broken_name));
}

static void fill_stores(struct app *a, struct standing_facts *f)
{
	struct recorder_status r;
	struct ledger_status l;
	struct claims_status k;
	recorder_status(a->recorder, &r);
	ledger_status(a->ledger, &l);
	claims_status(a->env.claims, &k);
	f->dropped = r.dropped;
	f->recorder.failing = r.failing;
	text_copy(span_of(r.last_error), f->recorder.last_error, sizeof(f->recorder.last_error));
	text_copy(span_of(a->outcomes_path), f->recorder.where, sizeof(f->recorder.where));
	f->state.failing = l.failing;
	text_copy(span_of(l.last_error), f->state.last_error, sizeof(f->state.last_error));
	text_copy(span_of(l.warning ? l.warning : ""), f->state_warning, sizeof(f->state_warning));
	app_guard_trouble(a, f->guard_trouble);
	if (l.remote)
		text_copy(span_of(l.where), f->state.where, sizeof(f->state.where));
	f->keys.failing = k.failing;
	text_copy(span_of(k.last_error), f->keys.last_error, sizeof(f->keys.last_error));
}

static void fill_backend(struct app *a, size_t i, struct standing_backend *b)
{
	const struct app_health *h = &a->health[i];
	struct breaker_status s;
	breaker_status(a->env.backends[i].breaker, clock_mono_us(), &s);
	text_copy(a->env.backends[i].name, b->name, sizeof(b->name));
	b->known = h->known;
	b->reachable = h->known && h->now.reachable;
	b->worker = h->known && h->now.worker;
	b->backlog = h->known ? h->now.backlog : -1;
	b->backlog_floor = backlog_floor(&h->floor);
	if (h->known)
		text_copy(span_of(h->now.detail), b->detail, sizeof(b->detail));
	text_copy(span_of(s.off ? "off" : breaker_state_text(s.state)), b->breaker, sizeof(b->breaker));
	b->breaker_since_us = s.since_us;
	text_copy(span_of(s.why), b->breaker_why, sizeof(b->breaker_why));
	b->in_flight = atomic_load(&a->env.backends[i].in_flight);
}

static double errors_per_minute(struct error_rate *r, uint64_t errors)
{
	int64_t now = clock_mono_ms();
	if (!r->newer_ms)
		*r = (struct error_rate){errors, errors, now, now};
	if (now - r->newer_ms > RATE_MS) {
		r->older = r->newer;
		r->older_ms = r->newer_ms;
		r->newer = errors;
		r->newer_ms = now;
	}
	int64_t span = now - r->older_ms;
	/* At first the minute is not over: what came in it counts as if it were. */
	return (double)(errors - r->older) * RATE_MS / (double)(span > RATE_MS ? span : RATE_MS);
}

static const struct service *service_of(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_services; i++)
		if (span_is(c->services[i].name, name))
			return &c->services[i];
	return NULL;
}

static void fill_legacy(struct app_standing *s, size_t i, const struct service *of, struct standing_legacy *l)
{
	const struct service_shared *shared = &s->app->env.services[i];
	CLEANUP(buf_releasep) struct buf address = BUF_INIT(4096);
	text_copy(span_of(shared->name), l->service, sizeof(l->service));
	l->known = legacy_state_tried(&shared->legacy);
	legacy_state_read(&shared->legacy, &l->reachable, l->failing, sizeof(l->failing), &l->errors);
	l->per_minute = errors_per_minute(&s->rates[i], l->errors);
	if (text_put_masked(&address, span_of(of->legacy_url)) == 0)
		text_copy(buf_span(&address), l->address, sizeof(l->address));
}

static void fill_services(struct app_standing *s, struct standing_facts *f)
{
	const struct app *a = s->app;
	for (size_t i = 0; i < a->env.n_services && f->n_legacy < STANDING_SERVICES_MAX; i++) {
		const struct service *of = service_of(a->config, a->env.services[i].name);
		if (of) /* else it is gone since a reload */
			fill_legacy(s, i, of, &f->legacy[f->n_legacy++]);
	}
}

/* --- one operation -------------------------------------------------------------------------------------- */

static double step_after(double set)
{
	static const double usual[] = {1, 5, 10, 25, 50, 100};
	for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
		if (usual[i] > set + 0.05)
			return usual[i];
	return STANDING_NOT_SET;
}

/* Where its flag stands among the steps of its plan, by what is set. */
static void fill_plan(const struct config *c, const struct operation *op, struct standing_operation_facts *o)
{
	const struct rollout_steps *plan = op->n_flags ? config_rollout(c, op->flags[0]) : NULL;
	size_t at = 0;
	o->next = STANDING_NOT_SET;
	if (op->n_flags != 1 || o->set < 0) /* of several flags the product is not what one is set to */
		return;
	if (!plan) {
		o->next = step_after(o->set);
		return;
	}
	for (size_t i = 0; i < plan->n; i++) {
		const struct rollout_step *s = &plan->steps[i];
		if (s->segment.ptr)
			continue;
		if (s->percent <= o->set + 0.05)
			at = i;
		else if (o->next < 0)
			o->next = s->percent;
	}
	snprintf(o->phase, sizeof(o->phase), "step %zu of %zu", at + 1, plan->n);
}

static const char *stage_of(const struct standing_operation_facts *o)
{
	if (o->set >= 99.995)
		return "complete";
	if (o->set > 0 || o->n_segments > 0)
		return "rolling";
	return o->shadow > 0 ? "shadow" : "off";
}

static void fill_set(const struct app *a, const struct operation *op, struct standing_operation_facts *o)
{
	struct set_share set;
	text_copy(op->service, o->service, sizeof(o->service));
	text_copy(op->name, o->operation, sizeof(o->operation));
	if (op->n_flags)
		text_copy(op->flags[0], o->flag, sizeof(o->flag));
	set_share_of(a->config, op, a->flags, &set);
	text_copy(set.backend, o->backend, sizeof(o->backend));
	o->set = op->n_flags ? set.task * 100 : STANDING_NOT_SET;
	o->shadow = set.shadow * 100;
	for (size_t i = 0; i < set.n_segments; i++) {
		text_copy(set.segments[i].name, o->segments[i].name, sizeof(o->segments[i].name));
		o->segments[i].percent = set.segments[i].task * 100;
	}
	o->n_segments = set.n_segments;
	fill_plan(a->config, op, o);
	text_copy(span_of(stage_of(o)), o->stage, sizeof(o->stage));
}

static void fill_readiness(const struct app *a, struct standing_operation_facts *o)
{
	const char *why = readiness_against(a->readiness, span_of(o->service), span_of(o->operation),
					    span_of(o->backend));
	text_copy(span_of(why ? why : ""), o->not_ready, sizeof(o->not_ready));
}

/* Both lists are in the order of the configuration, as a rule: `at`, where the last one was found, is where
 * to begin. */
static void fill_guard(const struct guard_verdicts *v, size_t *at, struct standing_operation_facts *o)
{
	o->guard_mode = GUARD_OFF;
	o->guard_judged = o->held = false;
	o->held_us = 0;
	o->guard_why[0] = '\0';
	for (size_t i = 0; i < v->n; i++) {
		const struct guard_operation_verdict *x = &v->operations[(*at + i) % v->n];
		CLEANUP(buf_releasep) struct buf why = BUF_INIT(4096);
		if (strcmp(x->operation, o->operation) != 0 || strcmp(x->service, o->service) != 0)
			continue;
		*at = (*at + i) % v->n;
		o->guard_mode = x->mode;
		o->guard = x->verdict;
		o->guard_judged = x->mode != GUARD_OFF && x->epoch > 0;
		o->held = x->held;
		o->held_us = x->held_us;
		if (guard_verdict_to_text(x, &why) == 0)
			text_copy(buf_span(&why), o->guard_why, sizeof(o->guard_why));
		return;
	}
}

/* What is set is found out only when the flags or the configuration are others. */
static void fill_operations(struct app_standing *s, struct standing_facts *f)
{
	const struct app *a = s->app;
	bool same = s->last && s->config == a->config && s->flags == a->flags &&
		    s->last->n_operations == f->n_operations;
	size_t n = 0, at = 0;
	for (size_t i = 0; i < a->config->n_services; i++)
		for (size_t j = 0; j < a->config->services[i].n_operations; j++) {
			const struct operation *op = &a->config->services[i].operations[j];
			if (!op->has_task)
				continue;
			if (same)
				f->operations[n] = s->last->operations[n];
			else
				fill_set(a, op, &f->operations[n]);
			fill_readiness(a, &f->operations[n++]);
		}
	CLEANUP(guard_verdicts_freep) struct guard_verdicts *v = NULL;
	if (app_guard_verdicts_known(s->app, &f->guard_known, &v) < 0)
		f->guard_known = false;
	for (size_t i = 0; f->guard_known && i < n; i++)
		fill_guard(v, &at, &f->operations[i]);
}

static int fill_all(struct app_standing *s, struct standing_facts **ret)
{
	struct app *a = s->app;
	size_t without;
	char host[64] = "";
	struct standing_facts *f;
	size_t n = count_operations(a->config, &without);
	int r = standing_facts_new(n, &f);
	if (r < 0)
		return r;
	gethostname(host, sizeof(host) - 1);
	snprintf(f->router, sizeof(f->router), "%s:%ld", host, (long)getpid());
	snprintf(f->version, sizeof(f->version), "%s", PROJECT_VERSION);
	text_copy(span_of(s->path), f->config, sizeof(f->config));
	if (a->admin && a->config->admin.listen) {
		text_copy(span_of(a->config->admin.listen), f->admin, sizeof(f->admin));
		char *colon = strrchr(f->admin, ':');
		if (colon && (size_t)(colon - f->admin) + 8 < sizeof(f->admin))
			snprintf(colon, 8, ":%u", admin_port(a->admin));
	}
	f->time_us = clock_wall_us();
	f->started_us = a->started_us;
	f->accepting = !acceptor_outage();
	f->draining = a->draining;
	f->without_task = without;
	f->n_operations = n;
	fill_flags(a, &f->flags);
	fill_stores(a, f);
	for (size_t i = 0; i < a->env.n_backends && i < STANDING_BACKENDS_MAX; i++)
		fill_backend(a, i, &f->backends[f->n_backends++]);
	fill_services(s, f);
	fill_operations(s, f);
	*ret = f;
	return 0;
}

/* --- looking -------------------------------------------------------------------------------------------- */

static void on_change(void *arg, const struct event *e)
{
	struct app_standing *s = arg;
	events_add(s->events, e);
}

/* Flags that have not been read yet are not a percentage of nothing. */
static bool is_too_early(const struct app_standing *s)
{
	struct flag_source_status f;
	if (s->app->flags || clock_mono_ms() - s->begun_ms > PATIENCE_MS)
		return false;
	app_flags_status(s->app, &f);
	return !f.failing;
}

static void keep_facts(struct app_standing *s, struct standing_facts *now)
{
	struct app *a = s->app;
	pthread_mutex_lock(&s->lock);
	struct standing_facts *old = s->last;
	s->last = now;
	pthread_mutex_unlock(&s->lock);
	standing_facts_free(old);
	if (s->config != a->config) {
		config_unref(s->config);
		s->config = config_ref(a->config);
	}
	if (s->flags != a->flags) {
		flag_snapshot_unref(s->flags);
		s->flags = a->flags ? flag_snapshot_ref(a->flags) : NULL;
	}
}

static void find_path(struct app_standing *s)
{
	char *whole = realpath(s->app->config->path, NULL);
	text_copy(span_of(whole ? whole : s->app->config->path), s->path, sizeof(s->path));
	free(whole);
}

static void look_at_outcomes(struct app_standing *s);

void app_standing_look(struct app *a)
{
	struct app_standing *s = a->standing;
	struct standing_facts *now;
	if (!s || !s->begun || s->ended || is_too_early(s))
		return;
	if (s->config != a->config)
		find_path(s);
	if (fill_all(s, &now) < 0) {
		log_error("standing_lost", LOG_STR("error", "out of memory"));
		return;
	}
	standing_since(s->last, now);
	bool differs = standing_differs(s->last, now);
	s->changes += differs;
	if (!s->quiet)
		standing_each_change(s->last, now, on_change, s);
	keep_facts(s, now);
	if (differs || now->time_us - s->written_us >= STANDING_REPORT_US || now->time_us < s->written_us) {
		s->written_us = now->time_us;
		if (standing_row_set(s->row, now) < 0)
			log_error("standing_lost", LOG_STR("error", "out of memory"));
	}
	if (differs || clock_mono_ms() - s->looked_ms >= STANDING_REPORT_US / 1000)
		look_at_outcomes(s);
}

void app_standing_tell(struct app *a, enum event_kind kind, const char *what, const char *why)
{
	struct event e = {.kind = kind, .before = EVENT_NO_PERCENT, .after = EVENT_NO_PERCENT};
	if (!a->standing)
		return;
	text_copy(span_of(what), e.what, sizeof(e.what));
	text_copy(span_of(why), e.why, sizeof(e.why));
	events_add(a->standing->events, &e);
}

uint64_t app_standing_changes(const struct app *a)
{
	return a->standing ? a->standing->changes : 0;
}

struct events *app_standing_events(struct app *a)
{
	return a->standing->events;
}

/* --- what is told --------------------------------------------------------------------------------------- */

static struct standing_facts *copy_facts(struct app_standing *s)
{
	struct standing_facts *copy = NULL;
	pthread_mutex_lock(&s->lock);
	if (s->last && standing_facts_new(s->last->n_operations, &copy) == 0) {
		struct standing_operation_facts *operations = copy->operations;
		memcpy(operations, s->last->operations, s->last->n_operations * sizeof(*operations));
		*copy = *s->last;
		copy->operations = operations;
	}
	pthread_mutex_unlock(&s->lock);
	return copy;
}

int app_standing_now(struct app *a, struct standing **ret)
{
	struct standing_facts *f = copy_facts(a->standing);
	int64_t now_us = clock_wall_us();
	if (f && !f->stopped) /* the process lives: what it knew a moment ago is what it knows */
		f->time_us = now_us;
	return standing_of(a->outcomes_path, f, now_us, ret);
}

static void run_look(struct loop_job *job)
{
	struct app_standing *s = (struct app_standing *)((char *)job - offsetof(struct app_standing, job));
	s->made = NULL;
	app_standing_now(s->app, &s->made);
}

/* A stop is told to the log with each sentence that it has, anything else when the level changes. */
static void log_standing(const struct standing *was, const struct standing *is)
{
	bool other = !was || strcmp(was->sentence, is->sentence) != 0;
	if (was && was->level == is->level && (is->level != STANDING_STOP || !other))
		return;
	LOG_AT(is->level == STANDING_STOP ? LOG_WARN : LOG_INFO, "standing",
	       LOG_STR("level", standing_level_text(is->level)), LOG_STR("sentence", is->sentence));
}

static void look_done(struct loop_job *job)
{
	struct app_standing *s = (struct app_standing *)((char *)job - offsetof(struct app_standing, job));
	s->looking = false;
	if (s->made) {
		log_standing(s->told, s->made);
		standing_free(s->told);
		s->told = steal(s->made);
	}
	if (s->again && !s->ended)
		look_at_outcomes(s);
}

static void look_at_outcomes(struct app_standing *s)
{
	s->again = s->looking;
	if (s->looking)
		return;
	s->looking = true;
	s->looked_ms = clock_mono_ms();
	s->job = (struct loop_job){.work = run_look, .done = look_done};
	loop_job_start(s->app->loop, &s->job);
}

bool app_standing_put(struct app *a, struct buf *json)
{
	const struct standing *t = a->standing ? a->standing->told : NULL;
	char made[CLOCK_TEXT_MAX];
	if (!t) {
		buf_puts(json, "\"standing\":null");
		return true;
	}
	clock_format(t->made_us, made);
	buf_printf(json, "\"standing\":{\"level\":\"%s\",\"made_at\":\"%s\",\"sentence\":",
		   standing_level_text(t->level), made);
	json_quote(json, span_of(t->sentence));
	buf_puts(json, ",\"command\":");
	json_quote(json, span_of(t->command));
	buf_puts(json, "}");
	return t->level != STANDING_STOP;
}

/* --- life ----------------------------------------------------------------------------------------------- */

/* What the last process knew: since when states are as they are, and what changed since. */
static struct standing_facts *read_last(const struct app *a)
{
	struct standing_facts *f = NULL;
	struct err e = {""};
	int r = standing_row_read(a->outcomes_path, &f, &e);
	if (r < 0 && r != -ENOENT)
		log_warn("standing_unread", LOG_STR("error", e.text));
	return f;
}

int app_standing_start(struct app *a, struct recorder_tap *ret_row, struct recorder_tap *ret_events,
		       struct err *e)
{
	struct app_standing *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	pthread_mutex_init(&s->lock, NULL);
	s->app = a;
	a->standing = s;
	if (standing_row_new(&s->row) < 0 || events_new(&s->events) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	standing_row_tap(s->row, ret_row);
	events_tap(s->events, ret_events);
	return 0;
}

void app_standing_begin(struct app *a)
{
	struct app_standing *s = a->standing;
	s->last = read_last(a);
	s->begun = true;
	s->begun_ms = clock_mono_ms();
	app_standing_tell(a, EVENT_START, "the router has started", PROJECT_VERSION);
	app_standing_look(a);
}

void app_standing_quiet(struct app *a)
{
	a->standing->quiet = true;
	standing_row_quiet(a->standing->row);
}

void app_standing_end(struct app *a)
{
	struct app_standing *s = a->standing;
	if (!s || !s->begun)
		return;
	s->ended = true;
	while (s->looking)
		loop_run_once(a->loop);
	if (s->quiet || !s->last)
		return;
	s->last->stopped = true;
	s->last->time_us = clock_wall_us();
	standing_row_set(s->row, s->last);
	app_standing_tell(a, EVENT_STOP, "the router has stopped", "");
}

void app_standing_free(struct app *a)
{
	struct app_standing *s = a->standing;
	if (!s)
		return;
	a->standing = NULL;
	standing_row_free(s->row);
	events_free(s->events);
	standing_facts_free(s->last);
	standing_free(s->told);
	standing_free(s->made);
	flag_snapshot_unref(s->flags);
	config_unref(s->config);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
