/* /metrics of the process: everything but what outcomes say (outcomes/outcome_metrics.h) and the guard
 * (app_guard.c). A new metric goes here. */
#include <stdio.h>

#include "base/clock.h"
#include "outcomes/outcome_metrics.h"
#include "programs/router/app_guard.h"
#include "programs/router/app_internal.h"

static void write_legacy_metrics(const struct app *a, struct buf *b)
{
	metric_head(b, "migration_legacy_reachable", "gauge",
		    "0 while connections to the legacy service fail.");
	for (size_t i = 0; i < a->env.n_services; i++)
		buf_printf(b, "migration_legacy_reachable{service=\"%s\"} %d\n", a->env.services[i].name,
			   legacy_state_reachable(&a->env.services[i].legacy));
	metric_head(b, "migration_legacy_errors_total", "counter",
		    "Calls to the legacy service that failed, by kind.");
	for (size_t i = 0; i < a->env.n_services; i++)
		for (unsigned f = 0; f < LEGACY_FAILURES; f++)
			buf_printf(
				b, "migration_legacy_errors_total{service=\"%s\",kind=\"%s\"} %llu\n",
				a->env.services[i].name, legacy_state_kind((enum legacy_failure)f),
				(unsigned long long)atomic_load(&a->env.services[i].legacy.kinds[f].count));
	metric_head(b, "migration_access_log_dropped_total", "counter",
		    "Lines of the access log that could not be written.");
	buf_printf(b, "migration_access_log_dropped_total %llu\n",
		   (unsigned long long)(a->env.access_log ? access_log_dropped(a->env.access_log) : 0));
}

static void write_state_metrics(struct app *a, struct buf *b)
{
	struct ledger_status l;
	ledger_status(a->ledger, &l);
	metric_head(b, "migration_state_up", "gauge",
		    "0 while the ledger's store (the file, or the shared Redis) cannot be read or written.");
	buf_printf(b, "migration_state_up %d\n", !l.failing);
	if (!l.remote)
		return;
	metric_head(b, "migration_state_errors_total", "counter",
		    "Requests to the shared Redis that failed or had no answer in time.");
	buf_printf(b, "migration_state_errors_total %llu\n", (unsigned long long)l.errors);
	metric_head(b, "migration_state_unwritten_removals", "gauge",
		    "Entry removals waiting until the shared Redis can be written.");
	buf_printf(b, "migration_state_unwritten_removals %llu\n", (unsigned long long)l.unwritten);
	metric_head(b, "migration_state_losses_total", "counter",
		    "Times the shared Redis was found to have lost its data.");
	buf_printf(b, "migration_state_losses_total %llu\n", (unsigned long long)l.losses);
	metric_head(b, "migration_state_at_risk", "gauge",
		    "1 while the shared Redis is set up so that entries may be lost; see /readyz.");
	buf_printf(b, "migration_state_at_risk %d\n", l.warning != NULL);
}

static void write_breaker_metrics(const struct app *a, struct buf *b)
{
	metric_head(b, "migration_breaker_state", "gauge",
		    "Circuit breaker of the backend: 0 closed, 1 half-open, 2 open (legacy serves).");
	struct breaker_status s[CONFIG_MAX_BACKENDS];
	const struct plane_backend *all = a->env.backends;
	for (size_t i = 0; i < a->env.n_backends; i++) {
		breaker_status(all[i].breaker, clock_mono_us(), &s[i]);
		buf_printf(b, "migration_breaker_state{backend=\"%.*s\"} %d\n", SPAN_ARG(all[i].name),
			   s[i].state);
	}
	metric_head(b, "migration_breaker_transitions_total", "counter",
		    "Transitions of the backend's circuit breaker, by the state it went to.");
	for (size_t i = 0; i < a->env.n_backends; i++)
		for (int to = 0; to < BREAKER_STATES; to++)
			buf_printf(b,
				   "migration_breaker_transitions_total{backend=\"%.*s\",to=\"%s\"} %llu\n",
				   SPAN_ARG(all[i].name), breaker_state_text((enum breaker_state)to),
				   (unsigned long long)s[i].transitions[to]);
}

static void write_shed_metrics(const struct app *a, struct buf *b)
{
	metric_head(b, "migration_shed_total", "counter",
		    "Requests answered 503 because of an in-flight limit, by limit.");
	for (size_t i = 0; i < a->env.n_services; i++) {
		const struct service_shared *s = &a->env.services[i];
		const struct {
			const char *limit;
			const atomic_uint_fast64_t *count;
		} all[] = {{"service", &s->overloaded},
			   {"organization", &s->shed_organization},
			   {"backend", &s->shed_backend}};
		for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++)
			buf_printf(b, "migration_shed_total{service=\"%s\",limit=\"%s\"} %llu\n", s->name,
				   all[k].limit, (unsigned long long)atomic_load(all[k].count));
	}
	metric_head(b, "migration_backend_in_flight", "gauge", "Tasks submitted and waited for.");
	for (size_t i = 0; i < a->env.n_backends; i++)
		buf_printf(b, "migration_backend_in_flight{backend=\"%.*s\"} %u\n",
			   SPAN_ARG(a->env.backends[i].name), atomic_load(&a->env.backends[i].in_flight));
	metric_head(b, "migration_backend_full_total", "counter",
		    "Submissions not made because of the backend's in-flight limit.");
	for (size_t i = 0; i < a->env.n_backends; i++)
		buf_printf(b, "migration_backend_full_total{backend=\"%.*s\"} %llu\n",
			   SPAN_ARG(a->env.backends[i].name),
			   (unsigned long long)atomic_load(&a->env.backends[i].full));
}

static void write_key_metrics(struct app *a, struct buf *b)
{
	static const char *const results[] = {
		[KEY_BEGUN] = "begun",	   [KEY_ANSWERED] = "answered",
		[KEY_RUNNING] = "running", [KEY_OTHER_REQUEST] = "other_request",
		[KEY_REFUSED] = "refused", [KEY_UNKNOWN] = "unknown",
	};
	struct claims_status s;
	claims_status(a->env.claims, &s);
	metric_head(b, "migration_idempotency_keys_total", "counter",
		    "Requests with an idempotency key, by result.");
	for (size_t i = 0; i < KEY_RESULTS; i++)
		buf_printf(b, "migration_idempotency_keys_total{result=\"%s\"} %llu\n", results[i],
			   (unsigned long long)atomic_load(&a->env.keys[i]));
	metric_head(b, "migration_idempotency_keys", "gauge", "Remembered keys, of both sides.");
	buf_printf(b, "migration_idempotency_keys %llu\n", (unsigned long long)s.claims);
	metric_head(b, "migration_idempotency_answer_bytes", "gauge", "Bytes of answers kept for them.");
	buf_printf(b, "migration_idempotency_answer_bytes %llu\n", (unsigned long long)s.bytes);
	metric_head(b, "migration_idempotency_answers_unkept_total", "counter",
		    "Answers not kept for lack of room, or because the file could not be written.");
	buf_printf(b, "migration_idempotency_answers_unkept_total %llu\n",
		   (unsigned long long)(s.unkept + s.lost));
}

static void write_auth_metrics(struct app *a, struct buf *b)
{
	static const char *const results[] = {
		[AUTH_ASK_ACCEPTED] = "accepted",
		[AUTH_ASK_DENIED] = "denied",
		[AUTH_ASK_FAILED] = "failed",
		[AUTH_ASK_CACHED_ANSWER] = "cached",
	};
	metric_head(b, "migration_auth_checks_total", "counter",
		    "Requests to endpoints that check credentials (auth: check), by answer.");
	for (size_t i = 0; i < AUTH_ASK_RESULTS; i++)
		buf_printf(b, "migration_auth_checks_total{result=\"%s\"} %llu\n", results[i],
			   (unsigned long long)atomic_load(&a->env.auth_asks[i]));
}

struct compared_metric {
	struct buf *out;
	enum { COMPARED, DIFFERING, NOT_COMPARED } which;
};

static void write_compared(void *arg, const char *service, const char *operation,
			   const struct pairs_counts *c)
{
	const struct compared_metric *m = arg;
	static const char *const names[] = {"compared", "differing", "not_compared"};
	for (int kind = 0; kind < PAIRS_KINDS; kind++) {
		const char *pair = pairs_kind_text(kind);
		if (m->which != NOT_COMPARED) {
			uint64_t n = m->which == COMPARED ? c->compared[kind] : c->differing[kind];
			buf_printf(m->out,
				   "migration_shadow_%s_total{service=\"%s\",operation=\"%s\",pair=\"%s\"} "
				   "%llu\n",
				   names[m->which], service, operation, pair, (unsigned long long)n);
			continue;
		}
		for (int why = PAIRS_NO_ANSWER; why < PAIRS_WHY_COUNT; why++)
			if (c->not_compared[kind][why])
				buf_printf(m->out,
					   "migration_shadow_not_compared_total{service=\"%s\",operation="
					   "\"%s\",pair=\"%s\",why=\"%s\"} %llu\n",
					   service, operation, pair, pairs_why_text(why),
					   (unsigned long long)c->not_compared[kind][why]);
	}
}

static void write_comparing_metrics(const struct app *a, struct buf *b)
{
	struct compared_metric m = {.out = b, .which = COMPARED};
	metric_head(b, "migration_shadow_compared_total", "counter",
		    "Pairs of answers compared: both sides' (sides), or two of legacy's (noise).");
	pairs_each(a->pairs, write_compared, &m);
	m.which = DIFFERING;
	metric_head(b, "migration_shadow_differing_total", "counter", "Pairs that differ.");
	pairs_each(a->pairs, write_compared, &m);
	m.which = NOT_COMPARED;
	metric_head(b, "migration_shadow_not_compared_total", "counter",
		    "Pairs not compared because of a limit or a missing answer, by cause.");
	pairs_each(a->pairs, write_compared, &m);
}

void app_write_metrics(void *arg, struct buf *b)
{
	struct app *a = arg;
	outcome_metrics_render(a->recorder, b);
	static const struct {
		const char *name, *type, *help;
		size_t offset;
		bool wide;
	} counters[] = {{"migration_requests_total", "counter", "Requests received.",
			 offsetof(struct service_shared, requests), true},
			{"migration_refused_total", "counter",
			 "Requests refused as malformed or beyond a limit, before any decision.",
			 offsetof(struct service_shared, refused), true},
			{"migration_overloaded_total", "counter",
			 "Requests answered 503 for the limit of requests in flight.",
			 offsetof(struct service_shared, overloaded), true},
			{"migration_shadow_dropped_total", "counter",
			 "Shadows beyond a limit, or that could not become a task.",
			 offsetof(struct service_shared, shadow_dropped), true},
			{"migration_in_flight", "gauge", "Requests in flight.",
			 offsetof(struct service_shared, in_flight), false}};
	for (size_t m = 0; m < sizeof(counters) / sizeof(counters[0]); m++) {
		metric_head(b, counters[m].name, counters[m].type, counters[m].help);
		for (size_t i = 0; i < a->env.n_services; i++) {
			const char *at = (const char *)&a->env.services[i] + counters[m].offset;
			unsigned long long value =
				counters[m].wide ? atomic_load((const atomic_uint_fast64_t *)(const void *)at)
						 : atomic_load((const atomic_uint *)(const void *)at);
			buf_printf(b, "%s{service=\"%s\"} %llu\n", counters[m].name, a->env.services[i].name,
				   value);
		}
	}
	write_legacy_metrics(a, b);
	write_state_metrics(a, b);
	write_breaker_metrics(a, b);
	write_comparing_metrics(a, b);
	write_shed_metrics(a, b);
	app_guard_metrics(a, b);
	write_key_metrics(a, b);
	write_auth_metrics(a, b);
	metric_head(b, "migration_inspect_bytes", "gauge", "Bytes of bodies being held.");
	buf_printf(b, "migration_inspect_bytes %llu\n",
		   (unsigned long long)atomic_load(&a->env.inspect.held));
	struct flag_source_status f;
	app_flags_status(a, &f);
	metric_head(b, "migration_flags_failing", "gauge",
		    "1 while the flag source cannot be read; the last good snapshot serves.");
	buf_printf(b, "migration_flags_failing %d\n", f.failing);
	metric_head(b, "migration_flags_vanished", "gauge",
		    "Flags in use that their source no longer has; their last good definitions serve.");
	buf_printf(b, "migration_flags_vanished %zu\n", f.carried.n);
	struct app_broken_flags broken;
	app_broken_flags(a, &broken);
	metric_head(b, "migration_flags_broken", "gauge",
		    "Flags in use that cannot be understood and are set aside; legacy serves.");
	buf_printf(b, "migration_flags_broken %zu\n", broken.n);
	metric_head(b, "migration_flags_confirmed_timestamp_seconds", "gauge",
		    "When the flag snapshot was last confirmed.");
	buf_printf(b, "migration_flags_confirmed_timestamp_seconds %.3f\n", (double)f.good_us / 1e6);
}
