#include "programs/router/app_guard.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "guard/guard.h"
#include "operation/route.h"
#include "programs/router/app_internal.h"
#include "programs/router/app_webhook.h"
#include "router/decide.h"

#define EVENT_MAX 65536

struct app_guard {
	struct app *app;
	struct guard *guard;
	struct webhook *webhook;
	struct loop_work look;
	atomic_bool posted;
	bool known;		     /* outcomes.db has been read */
	bool stopping;		     /* the planes are gone */
	struct guard_verdicts *last; /* what was told */
	const struct guard_holds *holds;
};

static_assert((int)GUARD_ACTION_OFF == (int)GUARD_OFF && (int)GUARD_ACTION_WATCH == (int)GUARD_WATCH &&
		      (int)GUARD_ACTION_HOLD == (int)GUARD_HOLD &&
		      (int)GUARD_ACTION_ROLLBACK == (int)GUARD_ROLLBACK,
	      "the configuration's words are the guard's");

/* --- what is held --------------------------------------------------------------------------------------- */

static const struct guard_operation_verdict *verdict_of(const struct guard_verdicts *v, const char *service,
							const char *operation)
{
	for (size_t i = 0; v && i < v->n; i++)
		if (strcmp(v->operations[i].operation, operation) == 0 &&
		    strcmp(v->operations[i].service, service) == 0)
			return &v->operations[i];
	return NULL;
}

static void publish_holds(struct app_guard *g, struct guard_holds *now)
{
	if (!now || guard_holds_equal(g->holds, now)) {
		guard_holds_unref(now);
		if (!now)
			log_error("guard_holds_lost", LOG_STR("error", "out of memory"));
		return;
	}
	for (size_t i = 0; i < g->app->n_planes; i++)
		plane_set_holds(g->app->planes[i], now);
	guard_holds_unref(g->holds);
	g->holds = now;
	g->app->env.holds = now;
}

static void put_hold(struct guard_holds *h, const char *service, const char *operation, bool unknown,
		     double keeps)
{
	struct guard_hold hold = {.unknown = unknown, .keeps = keeps};
	span_copy(span_of(service), hold.service, sizeof(hold.service));
	span_copy(span_of(operation), hold.operation, sizeof(hold.operation));
	if (h && guard_holds_put(h, &hold) < 0)
		log_error("guard_hold_lost", LOG_STR("service", service), LOG_STR("operation", operation));
}

static struct guard_holds *holds_of(const struct guard_verdicts *v)
{
	struct guard_holds *h = guard_holds_new();
	for (size_t i = 0; h && i < v->n; i++)
		if (v->operations[i].held)
			put_hold(h, v->operations[i].service, v->operations[i].operation, false,
				 v->operations[i].keeps);
	return h;
}

static bool is_guarded(const struct operation *op)
{
	return op->has_task && op->n_flags > 0;
}

/* At the start: what the file says, or for each operation that may be held that it is not known. */
static struct guard_holds *holds_at_start(struct app_guard *g)
{
	const struct config *c = g->app->config;
	struct guard_holds *h = guard_holds_new();
	for (size_t i = 0; h && i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			const struct operation *op = &c->services[i].operations[j];
			struct guard_operation_verdict const *v =
				verdict_of(g->last, op->service.ptr, op->name.ptr);
			if (is_guarded(op) && op->guard.on_breach >= GUARD_ACTION_HOLD &&
			    (!g->known || (v && v->held)))
				put_hold(h, op->service.ptr, op->name.ptr, !(v && v->held), v ? v->keeps : 0);
		}
	return h;
}

/* --- telling -------------------------------------------------------------------------------------------- */

static void send_event(struct app_guard *g, const char *event, const struct guard_operation_verdict *v)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(EVENT_MAX), name = BUF_INIT(1024);
	char id[CRYPTO_SHA256_HEX], time[CLOCK_TEXT_MAX];
	if (g->app->draining) /* the process that has taken over tells it */
		return;
	clock_format(clock_wall_us(), time);
	/* The same at all replicas: one event for who receives it. */
	bool shared = v->generation_us != 0;
	buf_printf(&name, "%s/%s/%lld/%lld/%s", v->service, v->operation,
		   (long long)(shared ? v->generation : v->epoch),
		   (long long)(shared ? v->generation_us : v->changed_us), event);
	crypto_sha256_hex(buf_span(&name), id);
	buf_printf(&body, "{\"event\":\"%s\",\"id\":\"%s\",\"time\":\"%s\",\"guard\":", event, id, time);
	guard_verdict_to_json(v, &body);
	buf_puts(&body, "}");
	if (!body.error)
		webhook_send(g->webhook, buf_span(&body));
}

static void tell_verdict(struct app_guard *g, const struct guard_operation_verdict *v)
{
	CLEANUP(buf_releasep) struct buf why = BUF_INIT(4096);
	guard_verdict_to_text(v, &why);
	const char *event = guard_verdict_text(v->verdict);
	if (v->verdict == GUARD_BREACH)
		log_error("guard_breach", LOG_STR("service", v->service), LOG_STR("operation", v->operation),
			  LOG_INT("epoch", v->epoch), LOG_BOOL("held", v->held),
			  LOG_SPAN("why", buf_span(&why)));
	else if (v->verdict == GUARD_SHARE_MISMATCH)
		log_warn("guard_share_mismatch", LOG_STR("service", v->service),
			 LOG_STR("operation", v->operation), LOG_INT("epoch", v->epoch),
			 LOG_SPAN("why", buf_span(&why)));
	else if (v->verdict == GUARD_SAFE)
		log_info("guard_safe", LOG_STR("service", v->service), LOG_STR("operation", v->operation),
			 LOG_INT("epoch", v->epoch));
	else
		return;
	send_event(g, event, v);
}

static void tell_change(struct app_guard *g, const struct guard_operation_verdict *was,
			const struct guard_operation_verdict *v)
{
	static const struct guard_operation_verdict none;
	was = was ? was : &none;
	if (was->epoch != v->epoch)
		log_info("guard_epoch", LOG_STR("service", v->service), LOG_STR("operation", v->operation),
			 LOG_INT("epoch", v->epoch), LOG_STR("because", v->began_because));
	if (v->epoch && (was->epoch != v->epoch || was->verdict != v->verdict))
		tell_verdict(g, v);
	else if (!was->held && v->held)
		log_error("guard_held", LOG_STR("service", v->service), LOG_STR("operation", v->operation));
	if (was->held && !v->held) {
		log_info("guard_released", LOG_STR("service", v->service), LOG_STR("operation", v->operation),
			 LOG_STR("because", v->began_because));
		send_event(g, "released", v);
	}
}

static void on_look(struct loop_work *work)
{
	struct app_guard *g = (struct app_guard *)((char *)work - offsetof(struct app_guard, look));
	struct guard_verdicts *now;
	bool known;
	atomic_store(&g->posted, false);
	if (g->stopping)
		return;
	if (guard_now(g->guard, &known, &now) < 0) {
		log_error("guard_look_lost", LOG_STR("error", "out of memory"));
		return;
	}
	if (!known) { /* until it is, what holds goes on holding */
		guard_verdicts_free(now);
		return;
	}
	g->known = true;
	publish_holds(g, holds_of(now));
	for (size_t i = 0; i < now->n; i++)
		tell_change(g, verdict_of(g->last, now->operations[i].service, now->operations[i].operation),
			    &now->operations[i]);
	if (g->app->on_verdicts)
		g->app->on_verdicts(g->app, now);
	guard_verdicts_free(g->last);
	g->last = now;
}

/* On the recorder's thread. */
static void on_guard_changed(void *arg)
{
	struct app_guard *g = arg;
	if (!atomic_exchange(&g->posted, true))
		loop_post(g->app->loop, &g->look);
}

/* --- what it is to watch -------------------------------------------------------------------------------- */

static void expect_operation(const struct operation *op, const struct flag_snapshot *flags,
			     struct guard_expected *x)
{
	const struct guard_policy *p = &op->guard;
	span_copy(op->service, x->service, sizeof(x->service));
	span_copy(op->name, x->operation, sizeof(x->operation));
	x->mode = (enum guard_mode)p->on_breach;
	x->rule.alpha = p->alpha;
	x->rule.tolerated = p->tolerated;
	x->rule.harm = p->harm;
	x->rule.negligible = p->negligible;
	x->slow_factor = p->slow_factor;
	x->split = decide_split(op, flags);
}

void app_guard_expect(struct app *a, const struct config *config, const struct flag_snapshot *flags)
{
	struct app_guard *g = a->guard;
	size_t n = 0, room = 0;
	if (!g || !flags) /* without flags no percentage decides; what holds goes on holding */
		return;
	webhook_set(g->webhook, config->webhook.url, config->webhook.ca_file, config->webhook.secret);
	for (size_t i = 0; i < config->n_services; i++)
		room += config->services[i].n_operations;
	struct guard_expected *list = calloc(room + 1, sizeof(*list));
	for (size_t i = 0; list && i < config->n_services; i++)
		for (size_t j = 0; j < config->services[i].n_operations; j++)
			if (is_guarded(&config->services[i].operations[j]))
				expect_operation(&config->services[i].operations[j], flags, &list[n++]);
	int r = list ? guard_expect(g->guard, list, n) : -ENOMEM;
	if (r < 0)
		log_error("guard_blind", LOG_STR("error", strerror(-r)));
	free(list);
}

/* --- life ----------------------------------------------------------------------------------------------- */

int app_guard_start(struct app *a, struct recorder_tap *ret_tap, struct err *e)
{
	struct app_guard *g = calloc(1, sizeof(*g));
	if (!g)
		return err_set(e, -ENOMEM, "out of memory");
	a->guard = g;
	g->app = a;
	g->look.fn = on_look;
	int r = guard_new(on_guard_changed, g, &g->guard);
	if (r < 0)
		return err_set(e, r, "out of memory");
	const char *state = a->config->state.url;
	if (state && (r = guard_share_with(g->guard, state, a->config->state.prefix,
					   a->config->state.timeout_ms, e)) < 0)
		return err_prefix(e, r, "state");
	if ((r = webhook_new(a->loop, &g->webhook, e)) < 0)
		return r;
	struct err why = {""};
	r = guard_verdicts_read(a->config->outcomes.path, "", "", &g->last, &why);
	g->known = r == 0 || r == -ENOENT || r == -ENODATA;
	if (!g->known)
		log_warn("guard_unknown", LOG_STR("error", why.text),
			 LOG_STR("effect",
				 "requests that percentages send to guarded task sides go to legacy"));
	g->known = g->known && !state; /* what the other replicas found is not known yet */
	publish_holds(g, holds_at_start(g));
	for (size_t i = 0; i < guard_holds_count(g->holds); i++)
		if (!guard_holds_at(g->holds, i)->unknown)
			log_warn("guard_held", LOG_STR("service", guard_holds_at(g->holds, i)->service),
				 LOG_STR("operation", guard_holds_at(g->holds, i)->operation),
				 LOG_STR("since", "before the start"));
	guard_tap(g->guard, ret_tap);
	return 0;
}

void app_guard_stop(struct app *a)
{
	struct app_guard *g = a->guard;
	if (!g)
		return;
	a->guard = NULL;
	a->env.holds = NULL;
	g->stopping = true;
	loop_run_posted(a->loop); /* a look may be waiting: it must not find g gone */
	webhook_free(g->webhook);
	guard_free(g->guard);
	guard_verdicts_free(g->last);
	guard_holds_unref(g->holds);
	free(g);
}

/* --- what is shown -------------------------------------------------------------------------------------- */

bool app_guard_put(struct app *a, struct buf *json)
{
	struct guard_verdicts *v = NULL;
	bool fine = true, known, first = true;
	char trouble[256], alone[256];
	guard_trouble(a->guard->guard, trouble);
	int r = guard_now(a->guard->guard, &known, &v);
	buf_puts(json, "\"guard\":{\"known\":");
	buf_puts(json, r == 0 && known ? "true" : "false");
	buf_puts(json, ",\"last_error\":");
	json_quote(json, span_of(trouble));
	bool shared = guard_is_shared(a->guard->guard, alone);
	buf_puts(json, ",\"shared\":");
	if (shared)
		buf_printf(json, "{\"works\":%s,\"last_error\":", alone[0] ? "false" : "true");
	if (shared)
		json_quote(json, span_of(alone));
	buf_puts(json, shared ? "}" : "null");
	buf_puts(json, ",\"operations\":[");
	for (size_t i = 0; r == 0 && i < v->n; i++) {
		const struct guard_operation_verdict *of = &v->operations[i];
		bool well = !of->held && of->verdict != GUARD_BREACH && of->verdict != GUARD_SHARE_MISMATCH;
		fine = fine && !of->held && of->verdict != GUARD_BREACH;
		if (well)
			continue;
		buf_puts(json, first ? "" : ",");
		guard_verdict_to_json(of, json);
		first = false;
	}
	buf_puts(json, "]}");
	guard_verdicts_free(v);
	return fine && !trouble[0];
}

int app_guard_verdicts(struct app *a, struct guard_verdicts **ret)
{
	bool known;
	return app_guard_verdicts_known(a, &known, ret);
}

int app_guard_verdicts_known(struct app *a, bool *ret_known, struct guard_verdicts **ret)
{
	return guard_now(a->guard->guard, ret_known, ret);
}

void app_guard_trouble(struct app *a, char ret[256])
{
	guard_trouble(a->guard->guard, ret);
}

static const struct metric_label *guard_labels(const struct guard_operation_verdict *v,
					       struct metric_label ret[3])
{
	ret[0] = (struct metric_label){"service", span_of(v->service)};
	ret[1] = (struct metric_label){"operation", span_of(v->operation)};
	return ret;
}

static void put_verdicts(const struct guard_verdicts *v, struct metric_text *out)
{
	struct metric_label l[3];
	metric_begin(out, "migration_guard_held", METRIC_GAUGE,
		     "1 while the guard holds the operation's task side at legacy.");
	for (size_t i = 0; i < v->n; i++)
		metric_count(out, v->operations[i].held, guard_labels(&v->operations[i], l), 2);
	metric_begin(out, "migration_guard_verdict", METRIC_GAUGE,
		     "1 for the guard's verdict on the operation.");
	for (size_t i = 0; i < v->n; i++)
		for (int w = 0; w < GUARD_VERDICT_COUNT; w++) {
			l[2] = (struct metric_label){"verdict", span_of(guard_verdict_text(w))};
			metric_count(out, v->operations[i].verdict == (enum guard_verdict)w,
				     guard_labels(&v->operations[i], l), 3);
		}
	metric_begin(out, "migration_guard_entities", METRIC_GAUGE,
		     "Entities of the epoch, by the side that served them.");
	for (size_t i = 0; i < v->n; i++)
		for (int s = 0; s < OUTCOME_SIDE_COUNT; s++) {
			l[2] = (struct metric_label){"side", span_of(outcome_side_text(s))};
			metric_count(out, v->operations[i].entities[s], guard_labels(&v->operations[i], l),
				     3);
		}
}

/* 1 and more is a breach, or what `safe` needs. */
static void put_evidence(const struct guard_verdicts *v, bool harmless, struct metric_text *out)
{
	struct metric_label l[3];
	for (size_t i = 0; i < v->n; i++)
		for (int k = 0; k < GUARD_KIND_COUNT; k++) {
			const struct guard_kind_verdict *of = &v->operations[i].kinds[k];
			double needed = harmless ? of->harmless_needed : of->worse_needed;
			double is = harmless ? of->harmless : of->worse;
			l[2] = (struct metric_label){"kind", span_of(guard_kind_text(k))};
			metric_value(out, needed > 0 ? is / needed : 0, guard_labels(&v->operations[i], l),
				     3);
		}
}

static void put_guard(const struct guard_verdicts *v, struct metric_text *out)
{
	put_verdicts(v, out);
	metric_begin(out, "migration_guard_evidence", METRIC_GAUGE,
		     "Evidence that the task side is worse, as a fraction of a breach.");
	put_evidence(v, false, out);
	metric_begin(out, "migration_guard_harmless_evidence", METRIC_GAUGE,
		     "Evidence that a harm is excluded, as a fraction of what safe needs.");
	put_evidence(v, true, out);
}

void app_guard_metrics(struct app *a, struct metric_text *out)
{
	struct guard_verdicts *v = NULL;
	struct webhook_counts c = webhook_counts(a->guard->webhook);
	char trouble[256];
	bool known = false;
	if (guard_now(a->guard->guard, &known, &v) == 0)
		put_guard(v, out);
	guard_verdicts_free(v);
	guard_trouble(a->guard->guard, trouble);
	metric_begin(out, "migration_guard_failing", METRIC_GAUGE,
		     "1 while evidence cannot be read or written: there is no verdict to rely on.");
	metric_count(out, !known || trouble[0], METRIC_NO_LABELS);
	metric_begin(out, "migration_guard_webhooks_total", METRIC_COUNTER,
		     "Events for the guard's webhook, by result.");
	const struct {
		const char *result;
		uint64_t n;
	} results[] = {{"delivered", c.delivered}, {"failed", c.failed}, {"dropped", c.dropped}};
	for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++)
		metric_count(out, results[i].n, METRIC_LABELS({"result", span_of(results[i].result)}));
}

/* --- the doors ------------------------------------------------------------------------------------------ */

struct named {
	struct buf service, operation, by;
};

static void named_release(struct named *n)
{
	buf_release(&n->service);
	buf_release(&n->operation);
	buf_release(&n->by);
}

/* `operation=answer`, with `service=` where several have it, or `operation=prompt.answer`. */
static int read_named(struct span target, const char *const *names, size_t n_names, struct named *n,
		      struct err *e)
{
	if (route_query_check(target, names, n_names, e) < 0)
		return 400;
	if ((route_query(target, SPAN_LIT("service"), &n->service) && n->service.error) ||
	    (route_query(target, SPAN_LIT("operation"), &n->operation) && n->operation.error) ||
	    (route_query(target, SPAN_LIT("by"), &n->by) && n->by.error)) {
		err_set(e, 400, "service, operation or by: too long");
		return 400;
	}
	return 0;
}

static bool is_named(const struct named *n, const struct guard_operation_verdict *v)
{
	char both[sizeof(v->service) + sizeof(v->operation) + 1];
	snprintf(both, sizeof(both), "%s.%s", v->service, v->operation);
	struct span operation = buf_span(&n->operation), service = buf_span(&n->service);
	return (!service.len || span_is(service, v->service)) &&
	       (!operation.len || span_is(operation, v->operation) || span_is(operation, both));
}

/* Keeps those that are named; none: 404. */
static int choose_named(struct app_guard *g, const struct named *n, struct guard_verdicts **ret,
			struct err *e)
{
	bool known;
	struct guard_verdicts *v;
	if (guard_now(g->guard, &known, &v) < 0) {
		err_set(e, 503, "out of memory");
		return 503;
	}
	size_t kept = 0;
	for (size_t i = 0; i < v->n; i++)
		if (is_named(n, &v->operations[i]))
			v->operations[kept++] = v->operations[i];
	v->n = kept;
	*ret = v;
	if (!known) { /* no breach, as 503 would say */
		err_set(e, 425, "outcomes.db has not been read yet");
		return 425;
	}
	if (kept == 0) {
		err_set(e, 404, "no operation of that name has flags and a task");
		return 404;
	}
	return 0;
}

int app_guard_gate(void *arg, struct span target, struct buf *json, struct err *e)
{
	static const int statuses[GUARD_VERDICT_COUNT] = {[GUARD_NOT_ENOUGH_DATA] = 425,
							  [GUARD_SAFE] = 200,
							  [GUARD_SHARE_MISMATCH] = 425,
							  [GUARD_BREACH] = 503};
	static const char *const names[] = {"service", "operation"};
	struct app *a = arg;
	CLEANUP(named_release) struct named n = {BUF_INIT(256), BUF_INIT(256), BUF_INIT(256)};
	CLEANUP(guard_verdicts_freep) struct guard_verdicts *v = NULL;
	int r = read_named(target, names, 2, &n, e);
	if (r == 0)
		r = choose_named(a->guard, &n, &v, e);
	if (r != 0)
		return r;
	enum guard_verdict worst = guard_verdicts_worst(v);
	buf_printf(json, "{\"verdict\":\"%s\",\"operations\":[", guard_verdict_text(worst));
	for (size_t i = 0; i < v->n; i++) {
		buf_puts(json, i ? "," : "");
		guard_verdict_to_json(&v->operations[i], json);
	}
	buf_puts(json, "]}\n");
	return statuses[worst];
}

static const char *const release_names[] = {"service", "operation", "by", "message", "form"};
#define RELEASE_NAMES (sizeof(release_names) / sizeof(release_names[0]))

/* From the body, or else from the target. */
static bool release_value(const struct admin_change *c, const char *name, struct buf *ret)
{
	return admin_change_value(c, name, ret) || route_query(c->target, span_of(name), ret);
}

static int read_release(const struct admin_change *c, struct named *n, struct buf *message, struct err *e)
{
	struct buf *const values[] = {&n->service, &n->operation, &n->by, message};
	if (route_query_check(c->target, release_names, RELEASE_NAMES, e) < 0 ||
	    admin_change_check(c, release_names, RELEASE_NAMES, e) < 0)
		return 400;
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		if (release_value(c, release_names[i], values[i]) && values[i]->error) {
			err_set(e, 400, "%s: too long", release_names[i]);
			return 400;
		}
	if (n->operation.len)
		return 0;
	err_set(e, 400, "operation: name the one to release");
	return 400;
}

/* Who, and why. */
static void release_by(const struct admin_change *c, const struct named *n, const struct buf *message,
		       char by[120])
{
	CLEANUP(buf_releasep) struct buf all = BUF_INIT(4096);
	buf_puts(&all, c->caller.name);
	if (!c->caller.name[0])
		buf_append_span(&all, buf_span(&n->by));
	if (message->len)
		buf_printf(&all, "%s%.*s", all.len ? ": " : "", SPAN_ARG(buf_span(message)));
	text_copy(buf_span(&all), by, 120);
}

int app_guard_release(struct app *a, const struct admin_change *c, struct buf *json, struct err *e)
{
	CLEANUP(named_release) struct named n = {BUF_INIT(256), BUF_INIT(256), BUF_INIT(256)};
	CLEANUP(guard_verdicts_freep) struct guard_verdicts *v = NULL;
	CLEANUP(buf_releasep) struct buf message = BUF_INIT(1000);
	char by[120];
	int r = read_release(c, &n, &message, e);
	if (r == 0)
		r = choose_named(a->guard, &n, &v, e);
	if (r == 0 && v->n > 1) {
		err_set(e, 400, "several services have an operation of that name: add service=");
		return 400;
	}
	if (r != 0)
		return r;
	const struct guard_operation_verdict *of = &v->operations[0];
	release_by(c, &n, &message, by);
	r = guard_release(a->guard->guard, of->service, of->operation, by);
	if (r < 0) {
		err_set(e, 503, "it cannot be released right now: %s", strerror(-r));
		return 503;
	}
	log_info("guard_release_asked", LOG_STR("service", of->service), LOG_STR("operation", of->operation),
		 LOG_STR("by", by));
	buf_puts(json, "{\"released\":");
	guard_verdict_to_json(of, json);
	buf_puts(json, "}\n");
	return 202;
}
