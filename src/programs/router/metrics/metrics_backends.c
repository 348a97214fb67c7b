/* Of task backends and legacy services: whether they answer, and what stands in the way. */
#include <math.h>

#include "base/clock.h"
#include "programs/router/app_internal.h"
#include "programs/router/metrics/metrics.h"

static void put_health(const struct app *a, struct metric_text *out)
{
	metric_begin(out, "migration_backend_up", METRIC_GAUGE, "1 while the backend accepts tasks.");
	for (size_t i = 0; i < a->env.n_backends; i++)
		metric_count(out, a->health[i].known && a->health[i].now.reachable,
			     METRIC_LABELS({"backend", a->env.backends[i].name}));
	metric_begin(out, "migration_backend_worker", METRIC_GAUGE,
		     "1 while the backend has a worker that runs its tasks.");
	for (size_t i = 0; i < a->env.n_backends; i++)
		metric_count(out, a->health[i].known && a->health[i].now.worker,
			     METRIC_LABELS({"backend", a->env.backends[i].name}));
	metric_begin(out, "migration_backend_backlog", METRIC_GAUGE,
		     "Tasks waiting for a worker. NaN: the backend does not tell.");
	for (size_t i = 0; i < a->env.n_backends; i++) {
		const struct app_health *h = &a->health[i];
		metric_value(out, h->known && h->now.backlog >= 0 ? (double)h->now.backlog : NAN,
			     METRIC_LABELS({"backend", a->env.backends[i].name}));
	}
	metric_begin(out, "migration_backend_operations_not_ready", METRIC_GAUGE,
		     "Operations that legacy serves because the backend would not run their task.");
	for (size_t i = 0; i < a->env.n_backends; i++) {
		const char *why;
		metric_count(out, readiness_count_of(a->readiness, a->env.backends[i].name, &why),
			     METRIC_LABELS({"backend", a->env.backends[i].name}));
	}
}

static void put_breakers(const struct app *a, struct metric_text *out)
{
	struct breaker_status s[CONFIG_MAX_BACKENDS];
	const struct plane_backend *all = a->env.backends;
	metric_begin(out, "migration_breaker_state", METRIC_GAUGE,
		     "Circuit breaker of the backend: 0 closed, 1 half-open, 2 open (legacy serves).");
	for (size_t i = 0; i < a->env.n_backends; i++) {
		breaker_status(all[i].breaker, clock_mono_us(), &s[i]);
		metric_count(out, s[i].state, METRIC_LABELS({"backend", all[i].name}));
	}
	metric_begin(out, "migration_breaker_transitions_total", METRIC_COUNTER,
		     "Transitions of the backend's circuit breaker, by the state it went to.");
	for (size_t i = 0; i < a->env.n_backends; i++)
		for (int to = 0; to < BREAKER_STATES; to++)
			metric_count(out, s[i].transitions[to],
				     METRIC_LABELS({"backend", all[i].name},
						   {"to", span_of(breaker_state_text(to))}));
	metric_begin(out, "migration_breaker_turned_away_total", METRIC_COUNTER,
		     "Submissions that waited for the breaker, or met it open, and were not made.");
	for (size_t i = 0; i < a->env.n_backends; i++)
		metric_count(out, s[i].turned_away, METRIC_LABELS({"backend", all[i].name}));
}

static void put_in_flight(const struct app *a, struct metric_text *out)
{
	metric_begin(out, "migration_backend_in_flight", METRIC_GAUGE, "Tasks submitted and waited for.");
	for (size_t i = 0; i < a->env.n_backends; i++)
		metric_count(out, atomic_load(&a->env.backends[i].in_flight),
			     METRIC_LABELS({"backend", a->env.backends[i].name}));
	metric_begin(out, "migration_backend_full_total", METRIC_COUNTER,
		     "Submissions not made because of the backend's in-flight limit.");
	for (size_t i = 0; i < a->env.n_backends; i++)
		metric_count(out, atomic_load(&a->env.backends[i].full),
			     METRIC_LABELS({"backend", a->env.backends[i].name}));
}

void metrics_put_backends(const struct app *a, struct metric_text *out)
{
	put_health(a, out);
	put_breakers(a, out);
	put_in_flight(a, out);
}

void metrics_put_legacy(const struct app *a, struct metric_text *out)
{
	metric_begin(out, "migration_legacy_up", METRIC_GAUGE,
		     "0 while connections to the legacy service fail, as far as callers have tried.");
	for (size_t i = 0; i < a->env.n_services; i++)
		metric_count(out, legacy_state_reachable(&a->env.services[i].legacy),
			     METRIC_LABELS({"service", span_of(a->env.services[i].name)}));
	metric_begin(out, "migration_legacy_errors_total", METRIC_COUNTER,
		     "Calls to the legacy service that failed, by kind.");
	for (size_t i = 0; i < a->env.n_services; i++)
		for (unsigned f = 0; f < LEGACY_FAILURES; f++)
			metric_count(
				out, atomic_load(&a->env.services[i].legacy.kinds[f].count),
				METRIC_LABELS({"service", span_of(a->env.services[i].name)},
					      {"kind", span_of(legacy_state_kind((enum legacy_failure)f))}));
}
