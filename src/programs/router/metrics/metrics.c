#include "programs/router/metrics/metrics.h"

#include "programs/router/app_guard.h"
#include "programs/router/app_internal.h"

static void put_service_counts(const struct app *a, struct metric_text *out)
{
	static const struct {
		const char *name, *help;
		size_t offset;
	} counters[] = {
		{"migration_requests_total", "Requests received.", offsetof(struct service_shared, requests)},
		{"migration_refused_total",
		 "Requests refused as malformed or beyond a limit, before any decision.",
		 offsetof(struct service_shared, refused)},
		{"migration_overloaded_total", "Requests answered 503 for the limit of requests in flight.",
		 offsetof(struct service_shared, overloaded)},
		{"migration_shadow_dropped_total", "Shadows beyond a limit, or that could not become a task.",
		 offsetof(struct service_shared, shadow_dropped)}};
	for (size_t m = 0; m < sizeof(counters) / sizeof(counters[0]); m++) {
		metric_begin(out, counters[m].name, METRIC_COUNTER, counters[m].help);
		for (size_t i = 0; i < a->env.n_services; i++) {
			const void *at = (const char *)&a->env.services[i] + counters[m].offset;
			metric_count(out, atomic_load((const atomic_uint_fast64_t *)at),
				     METRIC_LABELS({"service", span_of(a->env.services[i].name)}));
		}
	}
	metric_begin(out, "migration_in_flight", METRIC_GAUGE, "Requests in flight.");
	for (size_t i = 0; i < a->env.n_services; i++)
		metric_count(out, atomic_load(&a->env.services[i].in_flight),
			     METRIC_LABELS({"service", span_of(a->env.services[i].name)}));
}

static void put_shed(const struct app *a, struct metric_text *out)
{
	metric_begin(out, "migration_shed_total", METRIC_COUNTER,
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
			metric_count(out, atomic_load(all[k].count),
				     METRIC_LABELS({"service", span_of(s->name)},
						   {"limit", span_of(all[k].limit)}));
	}
}

static void put_auth(const struct app *a, struct metric_text *out)
{
	static const char *const results[] = {
		[AUTH_ASK_ACCEPTED] = "accepted",
		[AUTH_ASK_DENIED] = "denied",
		[AUTH_ASK_FAILED] = "failed",
		[AUTH_ASK_CACHED_ANSWER] = "cached",
	};
	metric_begin(out, "migration_auth_checks_total", METRIC_COUNTER,
		     "Requests to endpoints that check credentials (auth: check), by answer.");
	for (size_t i = 0; i < AUTH_ASK_RESULTS; i++)
		metric_count(out, atomic_load(&a->env.auth_asks[i]),
			     METRIC_LABELS({"result", span_of(results[i])}));
	metric_begin(out, "migration_inspect_bytes", METRIC_GAUGE, "Bytes of bodies being held.");
	metric_count(out, atomic_load(&a->env.inspect.held), METRIC_NO_LABELS);
}

void metrics_write(struct app *a, bool open_metrics, struct buf *b)
{
	struct metric_text out = {.out = b, .open_metrics = open_metrics};
	metrics_put_operations(a, &out);
	metrics_put_shares(a, &out);
	put_service_counts(a, &out);
	metrics_put_legacy(a, &out);
	metrics_put_stores(a, &out);
	metrics_put_backends(a, &out);
	metrics_put_pairs(a, &out);
	put_shed(a, &out);
	app_guard_metrics(a, &out);
	put_auth(a, &out);
	metrics_put_flags(a, &out);
	metrics_put_process(a, &out);
	metric_end(&out);
}
