/*
 * What the application tells of itself: /readyz, /_admin/flags and the report (/metrics: metrics/).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "operation/identity.h"
#include "operation/route.h"
#include "outcomes/report_sums.h"
#include "outcomes/when.h"
#include "page/page.h"
#include "guard/guard_verdict.h"
#include "programs/router/reports/app_drain.h"
#include "programs/router/reports/app_search.h"
#include "programs/router/reports/app_peers.h"
#include "programs/router/app_guard.h"
#include "programs/router/app_internal.h"
#include "programs/router/moving/app_move.h"
#include "programs/router/moving/app_setback.h"
#include "programs/router/app_page.h"
#include "programs/router/app_registration.h"
#include "programs/router/app_standing.h"
#include "programs/router/metrics/metrics.h"
#include "router/http/acceptor.h"

#define HEALTH_EVERY_MS 2000
#define REGISTRATION_EVERY 5 /* rounds of health */
#define MISSING_MAX 100	     /* shown by /readyz */

/* --- JSON, a little ------------------------------------------------------------------------------------- */

static void app_status_put_text(struct buf *b, const char *name, const char *value)
{
	buf_printf(b, "\"%s\":", name);
	json_quote(b, span_of(value));
}

static void put_bool(struct buf *b, const char *name, bool value)
{
	buf_printf(b, "\"%s\":%s", name, value ? "true" : "false");
}

/* --- what is known not to be run: legacy serves it ------------------------------------------------------ */

static const struct app_health *health_of(const struct app *a, struct span backend)
{
	for (size_t i = 0; i < a->env.n_backends; i++)
		if (span_eq(a->env.backends[i].name, backend))
			return &a->health[i];
	return NULL;
}

/* Why this entry's task is known not to be run, or "". What was not asked yet since a reload stays as it
 * was. */
static void against(const struct app *a, const struct registration_entry *entry, char out[256])
{
	const struct backend_config *b = config_backend(registration_config(a->registration), entry->backend);
	const struct app_health *h = health_of(a, entry->backend);
	const struct operation *op = entry->operation;
	const struct task_check *c = &entry->now;
	const char *why = "";
	if (!b || b->submit_anyway || !h) {
		out[0] = '\0';
		return;
	}
	/* A backend's own word on its workers is about all of them, or about one task of many: each
	 * operation has been asked about. */
	if (h->known && !h->now.reachable)
		why = h->now.detail[0] ? h->now.detail : "the backend is unreachable";
	else if (!entry->asked)
		why = readiness_against(a->readiness, op->service, op->name, entry->backend);
	else if (!c->reachable || c->worker == TASK_ANSWER_NO || c->known == TASK_ANSWER_NO)
		why = c->missing[0] ? c->missing : "the task would not be run";
	snprintf(out, 256, "%s", why ? why : "");
}

static struct readiness *look_at_readiness(struct app *a)
{
	struct readiness *r = readiness_new();
	char why[256];
	for (size_t i = 0; r && i < registration_count(a->registration); i++) {
		const struct registration_entry *entry = registration_at(a->registration, i);
		against(a, entry, why);
		if (why[0])
			readiness_put(r, entry->operation->service, entry->operation->name, entry->backend,
				      span_of(why));
	}
	return r;
}

/* One line per backend, however many operations it serves; which they are is shown by /readyz. */
static void log_readiness(const struct app *a, const struct readiness *now)
{
	for (size_t b = 0; b < a->env.n_backends; b++) {
		struct span backend = a->env.backends[b].name;
		const char *why = NULL;
		size_t before = readiness_count_of(a->readiness, backend, &why),
		       held = readiness_count_of(now, backend, &why);
		if (before != held)
			LOG_AT(held > before ? LOG_WARN : LOG_INFO,
			       held ? "backend_not_ready" : "backend_ready", LOG_SPAN("backend", backend),
			       LOG_INT("operations_on_legacy", held), LOG_STR("why", held ? why : ""));
	}
}

/* A backend of which nothing that was asked about would be run is no matter of single operations. */
static void tell_breakers(const struct app *a)
{
	for (size_t b = 0; b < a->env.n_backends; b++) {
		struct span backend = a->env.backends[b].name;
		const char *why = NULL;
		size_t asked = 0, held = readiness_count_of(a->readiness, backend, &why);
		for (size_t i = 0; i < registration_count(a->registration); i++)
			asked += span_eq(registration_at(a->registration, i)->backend, backend);
		breaker_know(a->env.backends[b].breaker, held && held >= asked ? why : NULL, clock_mono_us());
	}
}

static void publish_readiness(struct app *a)
{
	if (!a->registration)
		return;
	struct readiness *now = look_at_readiness(a);
	if (!now || readiness_equal(a->readiness, now)) {
		readiness_unref(now);
		tell_breakers(a); /* a reload may have switched one on */
		return;
	}
	for (size_t i = 0; i < a->n_planes; i++)
		plane_set_readiness(a->planes[i], now);
	log_readiness(a, now);
	readiness_unref(a->readiness);
	a->readiness = now;
	tell_breakers(a);
}

/* --- health of the backends: asked now and then on the control loop ------------------------------------- */

static void on_registration(void *arg)
{
	publish_readiness(arg);
	app_standing_look(arg);
}

/* A reload changes what is asked for; a round that is on is never cut. */
static void ask_registration(struct app *a)
{
	struct err e;
	if (registration_config(a->registration) != a->config && !registration_asking(a->registration)) {
		struct registration *r;
		if (registration_new(a, a->config, &r, &e) < 0)
			return;
		registration_free(a->registration);
		a->registration = r;
	}
	registration_ask(a->registration, on_registration, a);
}

static void app_status_on_health(void *arg, const struct task_health *h)
{
	struct app_health *state = arg;
	bool same = state->known && state->now.reachable == h->reachable && state->now.worker == h->worker;
	if (!same)
		LOG_AT(h->reachable && h->worker ? LOG_INFO : LOG_WARN, "backend_health",
		       LOG_SPAN("backend", state->name), LOG_BOOL("reachable", h->reachable),
		       LOG_BOOL("worker", h->worker), LOG_STR("detail", h->detail));
	state->now = *h;
	backlog_floor_note(&state->floor, h->reachable ? h->backlog : -1, clock_mono_ms());
	state->known = true;
	state->asking = false;
	publish_readiness(state->app);
	app_standing_look(state->app);
	if (!same)
		ask_registration(state->app); /* what has changed for the backend has for its operations */
}

static void ask_health(void *arg)
{
	struct app *a = arg;
	for (size_t i = 0; i < a->env.n_services; i++)
		legacy_state_look(&a->env.services[i].legacy, a->env.services[i].name);
	for (size_t i = 0; i < a->env.n_backends; i++) {
		struct app_health *h = &a->health[i];
		if (h->asking || !h->client)
			continue;
		h->asking = true;
		h->app = a;
		task_health(h->client, app_status_on_health, h);
	}
	metrics_look(a);
	/* What is missing is asked for in every round: traffic waits for it to come back. */
	if (a->health_rounds++ % REGISTRATION_EVERY == 0 || readiness_count(a->readiness) ||
	    registration_config(a->registration) != a->config)
		ask_registration(a);
	app_standing_look(a);
	loop_timer_start(a->health_timer, HEALTH_EVERY_MS);
}

static int start_health(struct app *a, struct err *e)
{
	int r = loop_timer_new(a->loop, ask_health, a, &a->health_timer);
	if (r < 0)
		return err_set(e, r, "out of memory");
	ask_health(a);
	return 0;
}

/* --- /readyz -------------------------------------------------------------------------------------------- */

static void put_flags(struct app *a, struct buf *b)
{
	struct flag_source_status s;
	app_flags_status(a, &s);
	buf_puts(b, "{");
	app_status_put_text(b, "source", s.kind);
	buf_puts(b, ",");
	app_status_put_text(b, "where", s.where);
	buf_puts(b, ",");
	app_status_put_text(b, "digest", s.digest);
	buf_puts(b, ",");
	app_status_put_text(b, "content", s.content[0] ? s.content : s.digest);
	buf_puts(b, ",");
	if (s.version[0]) {
		app_status_put_text(b, "version", s.version);
		buf_puts(b, ",");
	}
	put_bool(b, "loaded", a->flags != NULL);
	buf_puts(b, ",");
	put_bool(b, "failing", s.failing);
	buf_puts(b, ",");
	put_bool(b, "saved", !s.unsaved);
	buf_puts(b, ",");
	put_bool(b, "streaming", s.streaming);
	if (s.good_us)
		buf_printf(b, ",\"confirmed_ms_ago\":%lld",
			   (long long)((clock_wall_us() - s.good_us) / 1000));
	buf_puts(b, ",\"vanished\":[");
	for (size_t i = 0; i < s.carried.n && i < FLAG_CARRIED_NAMED; i++) {
		buf_puts(b, i ? "," : "");
		json_quote(b, span_of(s.carried.names[i]));
	}
	buf_puts(b, "],\"broken\":[");
	struct app_broken_flags broken;
	app_broken_flags(a, &broken);
	for (size_t i = 0; i < broken.n; i++) {
		buf_puts(b, i ? "," : "");
		json_quote(b, broken.keys[i]);
	}
	buf_puts(b, "],");
	app_status_put_text(b, "last_error", s.last_error);
	buf_puts(b, "}");
}

static void put_remote_ledger(const struct ledger_status *l, struct buf *b)
{
	char since[CLOCK_TEXT_MAX];
	clock_format(l->since_us, since);
	buf_puts(b, ",");
	app_status_put_text(b, "store", l->where);
	buf_puts(b, ",");
	app_status_put_text(b, "since", since);
	buf_printf(b, ",\"errors\":%llu,\"unwritten_removals\":%llu,\"losses\":%llu,",
		   (unsigned long long)l->errors, (unsigned long long)l->unwritten,
		   (unsigned long long)l->losses);
	app_status_put_text(b, "warning", l->warning ? l->warning : "");
	buf_puts(b, ",");
}

static bool put_stores(struct app *a, struct buf *b)
{
	struct recorder_status r;
	struct ledger_status l;
	struct claims_status k;
	recorder_status(a->recorder, &r);
	ledger_status(a->ledger, &l);
	claims_status(a->env.claims, &k);
	buf_puts(b, "\"outcomes\":{");
	put_bool(b, "failing", r.failing);
	buf_printf(b, ",\"written\":%llu,\"dropped\":%llu,", (unsigned long long)r.written,
		   (unsigned long long)r.dropped);
	app_status_put_text(b, "last_error", r.last_error);
	buf_puts(b, "},\"ledger\":{");
	put_bool(b, "failing", l.failing);
	if (l.remote)
		put_remote_ledger(&l, b);
	else
		buf_printf(b, ",\"entries\":%llu,", (unsigned long long)l.entries);
	app_status_put_text(b, "last_error", l.last_error);
	buf_puts(b, "},\"idempotency_keys\":{");
	put_bool(b, "failing", k.failing);
	buf_printf(b, ",\"entries\":%llu,", (unsigned long long)k.claims);
	app_status_put_text(b, "last_error", k.last_error);
	buf_puts(b, "}");
	return !r.failing && !l.failing && !k.failing;
}

/* Half-open with nobody in progress is not an ongoing failure: it has been long enough, and nobody has come
 * to try. */
static bool breaker_serves(struct breaker *breaker)
{
	struct breaker_status s;
	breaker_status(breaker, clock_mono_us(), &s);
	return s.state == BREAKER_CLOSED || (s.state == BREAKER_HALF_OPEN && !s.probing);
}

static bool breakers_serve(const struct app *a)
{
	bool fine = true;
	for (size_t i = 0; i < a->env.n_backends; i++)
		fine = fine && breaker_serves(a->env.backends[i].breaker);
	return fine;
}

static void put_breaker(struct breaker *breaker, struct buf *b)
{
	struct breaker_status s;
	char since[CLOCK_TEXT_MAX];
	breaker_status(breaker, clock_mono_us(), &s);
	buf_puts(b, "\"breaker\":{");
	app_status_put_text(b, "state", s.off ? "off" : breaker_state_text(s.state));
	buf_printf(b, ",\"failed\":%u,\"unanswered\":%u,\"without_result\":%u,", s.failed, s.unanswered,
		   s.without_result);
	if (s.since_us) {
		clock_format(s.since_us, since);
		app_status_put_text(b, "since", since);
		buf_puts(b, ",");
	}
	app_status_put_text(b, "why", s.why);
	buf_puts(b, "}");
}

static bool app_status_put_backends(struct app *a, struct buf *b)
{
	bool fine = true;
	buf_puts(b, "\"backends\":[");
	for (size_t i = 0; i < a->env.n_backends; i++) {
		const struct app_health *h = &a->health[i];
		fine = fine && h->known && h->now.reachable && h->now.worker;
		buf_puts(b, i ? ",{\"name\":" : "{\"name\":");
		json_quote(b, h->name);
		buf_puts(b, ",");
		put_bool(b, "reachable", h->known && h->now.reachable);
		buf_puts(b, ",");
		put_bool(b, "worker", h->known && h->now.worker);
		if (h->known && h->now.backlog >= 0)
			buf_printf(b, ",\"backlog\":%lld", (long long)h->now.backlog);
		buf_puts(b, ",");
		app_status_put_text(b, "detail", h->known ? h->now.detail : "not asked yet");
		buf_puts(b, ",");
		put_breaker(a->env.backends[i].breaker, b);
		buf_printf(b, ",\"in_flight\":%u", atomic_load(&a->env.backends[i].in_flight));
		buf_puts(b, "}");
	}
	buf_puts(b, "]");
	return fine;
}

/* The operations whose task would not be run where they may send it. */
static bool put_registration(struct app *a, struct buf *b)
{
	size_t n = 0;
	buf_puts(b, "\"registration\":[");
	for (size_t i = 0; i < registration_count(a->registration); i++) {
		const struct registration_entry *entry = registration_at(a->registration, i);
		if (!entry->needed || !registration_lacks(entry) || ++n > MISSING_MAX)
			continue;
		buf_printf(b,
			   "%s{\"operation\":\"%.*s.%.*s\",\"backend\":\"%.*s\",\"task\":", n > 1 ? "," : "",
			   SPAN_ARG(entry->operation->service), SPAN_ARG(entry->operation->name),
			   SPAN_ARG(entry->backend));
		json_quote(b, entry->operation->task.task);
		buf_puts(b, ",");
		app_status_put_text(b, "missing", entry->now.missing);
		buf_puts(b, "}");
	}
	buf_puts(b, "]");
	return n == 0;
}

/* The operations that legacy serves at present, whatever their flags say. */
static void put_not_ready(struct app *a, struct buf *b)
{
	buf_puts(b, "\"not_ready\":[");
	for (size_t i = 0; i < readiness_count(a->readiness) && i < MISSING_MAX; i++) {
		const struct readiness_entry *e = readiness_at(a->readiness, i);
		buf_printf(b, "%s{\"operation\":\"%s.%s\",\"backend\":\"%s\",", i ? "," : "", e->service,
			   e->operation, e->backend);
		app_status_put_text(b, "why", e->why);
		buf_puts(b, "}");
	}
	buf_puts(b, "]");
}

/* What callers have met of late; nobody is asked for it. */
static bool put_legacy(struct app *a, struct buf *b)
{
	bool fine = true;
	buf_puts(b, "\"legacy\":[");
	for (size_t i = 0; i < a->env.n_services; i++) {
		const struct service_shared *s = &a->env.services[i];
		buf_puts(b, i ? "," : "");
		legacy_state_write_json(&s->legacy, s->name, b);
		fine = fine && legacy_state_reachable(&s->legacy);
	}
	buf_puts(b, "]");
	return fine;
}

/* The router serves as long as it takes requests: what is missing makes it `degraded` (legacy takes over,
 * rule 1), and only draining takes it out. */
static bool write_ready(void *arg, bool whole, struct buf *out)
{
	struct app *a = arg;
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(1u << 20);
	bool accepting = !acceptor_outage();
	bool ready = !a->draining && a->n_planes > 0 && accepting;
	bool stores = put_stores(a, &b);
	buf_puts(&b, ",");
	bool backends = app_status_put_backends(a, &b);
	buf_puts(&b, ",");
	bool registered = put_registration(a, &b);
	buf_puts(&b, ",");
	put_not_ready(a, &b);
	buf_puts(&b, ",");
	bool legacy = put_legacy(a, &b);
	buf_puts(&b, ",\"flags\":");
	put_flags(a, &b);
	struct flag_source_status f;
	app_flags_status(a, &f);
	struct app_broken_flags broken;
	app_broken_flags(a, &broken);
	bool flags_fine = a->flags && !f.failing && !f.unsaved && !f.carried.n && !broken.n;
	bool closed = breakers_serve(a);
	buf_puts(&b, ",");
	bool unharmed = app_guard_put(a, &b);
	buf_puts(&b, ",");
	unharmed = app_setback_put(a, &b) && unharmed;
	buf_puts(&b, ",");
	bool calm = app_standing_put(a, &b);
	bool fine = calm && unharmed && stores && legacy && backends && registered && closed && flags_fine;
	const char *status = "degraded";
	if (a->draining)
		status = "draining";
	else if (accepting && !ready)
		status = "starting";
	else if (accepting && fine)
		status = "ready";
	buf_puts(out, "{");
	app_status_put_text(out, "status", status);
	buf_puts(out, ",");
	put_bool(out, "ready", ready);
	if (!whole) { /* what follows tells of the inside */
		buf_puts(out, "}\n");
		return ready;
	}
	buf_puts(out, ",\"missing\":[");
	const struct {
		const char *what;
		bool missing;
	} parts[] = {
		{"callers are hurt, or would be; see standing", !calm},
		{"a legacy service cannot be reached, or fails; see legacy", !legacy},
		{"connections cannot be accepted: out of descriptors or memory", !accepting},
		{"outcomes or ledger cannot be written", !stores},
		{"a backend is unreachable or without a worker", !backends},
		{"a backend's circuit breaker is open, and legacy serves; see backends", !closed},
		{"the guard has found a task side to be worse, or cannot work; see guard", !unharmed},
		{"an operation's task would not be run; see registration", !registered},
		{"no flag snapshot", !a->flags},
		{"the flag source is failing; the last good snapshot serves", a->flags && f.failing},
		{"the flags in use cannot be saved; a restart would start with older ones", f.unsaved},
		{"flags in use have vanished from their source; their last good definitions serve",
		 f.carried.n > 0},
		{"flags in use cannot be understood and are set aside; legacy serves those who ask for them",
		 broken.n > 0}};
	for (size_t i = 0, n = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (parts[i].missing) {
			buf_puts(out, n++ ? "," : "");
			json_quote(out, span_of(parts[i].what));
		}
	buf_puts(out, "],");
	buf_append_span(out, b.error ? SPAN_LIT("\"left_out\":\"the details are too long\"") : buf_span(&b));
	buf_puts(out, "}\n");
	return ready;
}

/* --- the rest ------------------------------------------------------------------------------------------- */

static void write_metrics(void *arg, bool open_metrics, struct buf *b)
{
	metrics_write(arg, open_metrics, b);
}

static void write_flags(void *arg, struct buf *b)
{
	put_flags(arg, b);
	buf_putc(b, '\n');
}

/* 1: there is one; 0: none, or empty; 400 with a sentence when it cannot be one: it is not left out
 * quietly. */
static int parameter(struct span target, const char *name, struct buf *value, struct err *e)
{
	bool found = route_query(target, span_of(name), value);
	if (value->error || memchr(value->ptr ? value->ptr : "", '\0', value->len)) {
		err_set(e, 400, "%s: longer than %zu bytes, or with a NUL", name, value->max);
		return 400;
	}
	return found && value->len > 0;
}

struct report_parameters {
	struct buf since, until, service, operation, organization, form, all;
	bool asks_all; /* also the peers of `routers:` */
};

static int read_parameters(struct span target, struct report_parameters *p, struct report_options *o,
			   struct err *e)
{
	const struct {
		const char *name;
		struct buf *value;
		const char **into;
	} all[] = {{"service", &p->service, &o->service},
		   {"operation", &p->operation, &o->operation},
		   {"org", &p->organization, &o->organization}};
	static const char *const names[] = {"since", "until", "form", "service", "operation", "org", "all"};
	if (route_query_check(target, names, sizeof(names) / sizeof(names[0]), e) < 0)
		return 400;
	int r = parameter(target, "since", &p->since, e);
	if (r == 1 && !when_parse(p->since.ptr, clock_wall_us(), &o->since_us)) {
		err_set(e, 400,
			"since: \"%s\" is neither a duration such as 15m, 24h or 7d nor an RFC 3339 time",
			p->since.ptr);
		return 400;
	}
	if (r <= 1)
		r = parameter(target, "until", &p->until, e);
	if (r == 1 && !when_parse(p->until.ptr, clock_wall_us(), &o->until_us)) {
		err_set(e, 400, "until: \"%s\" is neither a duration nor an RFC 3339 time", p->until.ptr);
		return 400;
	}
	if (r <= 1)
		r = parameter(target, "form", &p->form, e);
	if (r == 1 && strcmp(p->form.ptr, "sums") != 0) {
		err_set(e, 400, "form: \"%s\" is unknown; only sums is supported", p->form.ptr);
		return 400;
	}
	if (r <= 1 && route_query(target, SPAN_LIT("all"), &p->all))
		p->asks_all = !p->all.len || span_is(buf_span(&p->all), "1");
	if (r <= 1 && (p->all.error || (p->all.len && !p->asks_all) || (p->asks_all && p->form.len))) {
		err_set(e, 400, "all: takes no value but 1, and cannot be combined with form");
		return 400;
	}
	for (size_t i = 0; r <= 1 && i < sizeof(all) / sizeof(all[0]); i++) {
		r = parameter(target, all[i].name, all[i].value, e);
		if (r == 1)
			*all[i].into = all[i].value->ptr;
	}
	return r <= 1 ? 0 : r;
}

static void parameters_release(struct report_parameters *p)
{
	buf_release(&p->since);
	buf_release(&p->until);
	buf_release(&p->form);
	buf_release(&p->all);
	buf_release(&p->service);
	buf_release(&p->operation);
	buf_release(&p->organization);
}

/* Sums are for who adds up those of several routers. What does not fit is reported by `json`. */
static int make_report_or_sums(const struct report_options *o, bool sums, struct buf *json, struct err *e)
{
	CLEANUP(report_sums_freep) struct report_sums *s = NULL;
	CLEANUP(report_freep) struct report *r = NULL;
	int code = report_sums_read(o, &s, e);
	if (code == 0 && !sums)
		code = report_merge(o, &s, 1, &r, e);
	if (code < 0)
		return code;
	if (sums)
		report_sums_to_json(s, json);
	else
		report_to_json(r, json);
	return 0;
}

static int make_report_of_all(const struct app *a, const struct report_options *o, struct buf *json,
			      struct err *e)
{
	CLEANUP(peers_told_freep) struct peers_told *t = NULL;
	if (app_peers_report(a, o, &t, e) < 0)
		return 503;
	t->guard->n = o->organization ? 0 : t->guard->n; /* it is of operations */
	guard_verdicts_keep_telling(t->guard);
	report_to_json(t->report, json);
	if (json->error || guard_verdicts_into_json(t->guard, json) < 0 ||
	    peers_told_into_json(t, json) < 0) {
		err_set(e, 503, "the report does not fit into %zu bytes; name a service or an operation",
			json->max);
		return 503;
	}
	return 0;
}

static int make_report(void *arg, struct span target, struct buf *json, struct err *e)
{
	struct app *a = arg;
	CLEANUP(parameters_release)
	struct report_parameters p = {BUF_INIT(64),	      BUF_INIT(64), BUF_INIT(256), BUF_INIT(256),
				      BUF_INIT(IDENTITY_MAX), BUF_INIT(16), BUF_INIT(16),  false};
	struct report_options o = {.path = a->outcomes_path};
	int code = read_parameters(target, &p, &o, e);
	if (code != 0)
		return code;
	if (p.asks_all)
		return make_report_of_all(a, &o, json, e);
	if (make_report_or_sums(&o, p.form.len > 0, json, e) < 0)
		return 503;
	CLEANUP(guard_verdicts_freep) struct guard_verdicts *guard = NULL;
	if (guard_verdicts_read(o.path, o.service ? o.service : "", o.operation ? o.operation : "", &guard,
				e) < 0)
		return 503;
	guard->n = o.organization ? 0 : guard->n; /* it is of operations */
	guard_verdicts_keep_telling(guard);
	if (json->error || guard_verdicts_into_json(guard, json) < 0) {
		err_set(e, 503, "the report does not fit into %zu bytes; name a service or an operation",
			json->max);
		return 503;
	}
	return 0;
}

static int make_standing(void *arg, struct span target, struct buf *json, struct err *e)
{
	CLEANUP(standing_freep) struct standing *s = NULL;
	if (route_query_check(target, NULL, 0, e) < 0)
		return 400;
	if (app_standing_now(arg, &s) == 0 && standing_to_json(s, json) == 0)
		return 0;
	err_set(e, 503, "out of memory, or too many operations for %zu bytes", json->max);
	return 503;
}

int app_status_start(struct app *a, struct err *e)
{
	struct admin_content content = {.arg = a,
					.ready = write_ready,
					.metrics = write_metrics,
					.flags = write_flags,
					.report = make_report,
					.drain = app_drain,
					.search = app_search,
					.standing = make_standing,
					.gate = app_guard_gate,
					.change = app_move_change,
					.is_page = page_is,
					.page_facts = app_page_facts,
					.page = app_page,
					.version = app_page_version};
	int r = start_health(a, e);
	if (r == 0)
		r = app_move_start(a, e);
	if (r == 0)
		r = app_setback_start(a, e);
	if (r < 0 || !a->config->admin.listen)
		return r;
	r = admin_start(a->loop, a->config, a->env.guesses, &content, atomic_load(&a->env.held), &a->admin,
			e);
	if (r == 0)
		log_info("admin_listening", LOG_STR("address", a->config->admin.listen),
			 LOG_INT("port", admin_port(a->admin)));
	return r;
}

void app_status_stop(struct app *a)
{
	app_move_stop(a);
	app_setback_stop(a);
	a->admin = admin_stop(a->admin);
	for (size_t i = 0; i < a->env.n_backends; i++)
		a->health[i].client = task_client_free(a->health[i].client);
	a->registration = registration_free(a->registration);
	a->readiness = readiness_unref(a->readiness);
	a->health_timer = loop_timer_free(a->health_timer);
	if (a->loop)
		loop_run_posted(a->loop);
}
