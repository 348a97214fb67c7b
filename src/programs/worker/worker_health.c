#include "programs/worker/worker_health.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/metric_text.h"
#include "router/http/listener.h"

struct worker_health {
	struct worker_health_options o;
	struct listener *listener;
	bool drains;
};

static void worker_health_respond(struct exchange *x, int status, const char *type, struct span body)
{
	const struct http_field fields[] = {{SPAN_LIT("Content-Type"), span_of(type)},
					    {SPAN_LIT("Cache-Control"), SPAN_LIT("no-store")},
					    {SPAN_LIT("X-Content-Type-Options"), SPAN_LIT("nosniff")}};
	const struct http_response r = {.status = status, .fields = fields, .n_fields = 3};
	exchange_respond(x, &r, body);
}

static void worker_health_say_registry(const struct worker_registry *w, struct buf *body)
{
	char since[CLOCK_TEXT_MAX];
	const char *lines;
	buf_printf(body, ",\"tasks\":{\"known\":%zu,\"workflows\":%zu,\"left_out\":%u,\"refused_since\":",
		   registry_count(w->now), registry_workflow_count(w->now), registry_skipped(w->now, &lines));
	clock_format(w->stale_us, since);
	if (w->stale_us)
		buf_printf(body, "\"%s\"}", since);
	else
		buf_puts(body, "null}");
}

static void worker_health_say(const struct worker_health *h, struct exchange *x)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(1u << 16);
	struct worker_counts c = {0};
	h->o.counts(h->o.arg, &c);
	bool well = c.connected && !h->drains;
	const char *status = c.connected ? "draining" : "not connected";
	buf_printf(&body, "{\"status\":\"%s\",\"backend\":\"%s\",\"worker\":", well ? "healthy" : status,
		   h->o.backend);
	json_quote(&body, span_of(h->o.name));
	buf_printf(&body, ",\"running\":%u,\"waiting\":%u,\"concurrency\":%u", c.running, c.waiting,
		   h->o.concurrency);
	worker_health_say_registry(h->o.registry, &body);
	buf_puts(&body, "}\n");
	worker_health_respond(x, well ? 200 : 503, "application/json", buf_span(&body));
}

static void worker_health_put(const struct worker_health *h, struct metric_text *m)
{
	struct worker_counts c = {0};
	h->o.counts(h->o.arg, &c);
	const struct {
		const char *result;
		uint64_t n;
	} ends[] = {{"success", c.succeeded},
		    {"failure", c.failed},
		    {"retry", c.retried},
		    {"revoked", c.revoked},
		    {"refused", c.refused}};
	metric_begin(m, "task_worker_received_total", METRIC_COUNTER, "Tasks taken from the queues.");
	metric_count(m, c.received, METRIC_NO_LABELS);
	metric_begin(m, "task_worker_tasks_total", METRIC_COUNTER, "Tasks that ended, by how.");
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		metric_count(m, ends[i].n, METRIC_LABELS({"result", span_of(ends[i].result)}));
	metric_begin(m, "task_worker_running", METRIC_GAUGE, "Tasks that run.");
	metric_value(m, c.running, METRIC_NO_LABELS);
	metric_begin(m, "task_worker_waiting", METRIC_GAUGE, "Tasks that are held and do not run.");
	metric_value(m, c.waiting, METRIC_NO_LABELS);
	metric_begin(m, "task_worker_concurrency", METRIC_GAUGE, "Tasks that may run at once.");
	metric_value(m, h->o.concurrency, METRIC_NO_LABELS);
	metric_begin(m, "task_worker_connected", METRIC_GAUGE, "1 while the queues can be read.");
	metric_value(m, c.connected, METRIC_NO_LABELS);
	const char *lines;
	const struct worker_registry *w = h->o.registry;
	metric_begin(m, "task_worker_known", METRIC_GAUGE, "Tasks and workflows that it can run.");
	metric_value(m, (double)(registry_count(w->now) + registry_workflow_count(w->now)), METRIC_NO_LABELS);
	metric_begin(m, "task_worker_left_out", METRIC_GAUGE,
		     "Tasks, workflows and files that are wrong and were left out.");
	metric_value(m, registry_skipped(w->now, &lines), METRIC_NO_LABELS);
	metric_begin(m, "task_worker_tasks_refused", METRIC_GAUGE,
		     "1 while what is in the files was refused at a reload and older tasks are in force.");
	metric_value(m, w->stale_us != 0, METRIC_NO_LABELS);
	metric_end(m);
}

static void *worker_health_on_head(void *arg, struct exchange *x, const struct http_request *r)
{
	const struct worker_health *h = arg;
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(1u << 20);
	bool get = span_is(r->method, "GET") || span_is(r->method, "HEAD");
	if (get && span_is(r->target, "/health")) {
		worker_health_say(h, x);
	} else if (get && span_is(r->target, "/metrics")) {
		struct metric_text m = {.out = &body};
		worker_health_put(h, &m);
		worker_health_respond(x, body.error ? 500 : 200, METRIC_TEXT_TYPE, buf_span(&body));
	} else {
		worker_health_respond(x, get ? 404 : 405, "text/plain",
				      SPAN_LIT("there are /health and /metrics\n"));
	}
	return arg;
}

static size_t worker_health_on_body(void *user, struct exchange *x, const char *bytes, size_t n)
{
	(void)user, (void)x, (void)bytes;
	return n;
}

static void worker_health_on_nothing(void *user, struct exchange *x)
{
	(void)user, (void)x;
}

static void worker_health_on_finished(void *user, struct exchange *x, bool gone)
{
	(void)user, (void)x, (void)gone;
}

static void worker_health_on_refused(void *arg, int status, const char *why)
{
	(void)arg, (void)status, (void)why;
}

int worker_health_start(struct loop *loop, const struct worker_health_options *o, struct worker_health **ret,
			struct err *e)
{
	char address[256];
	struct worker_health *h = calloc(1, sizeof(*h));
	if (!h)
		return err_set(e, -ENOMEM, "out of memory");
	h->o = *o;
	bool port = o->address[strspn(o->address, "0123456789")] == '\0';
	snprintf(address, sizeof(address), "%s%s", port ? "127.0.0.1:" : "", o->address);
	const struct listener_options options = {.address = address,
						 .max_connections = 64,
						 .newest_first = true,
						 .reserve = 4,
						 .max_head = 16384,
						 .head_timeout_ms = 10000,
						 .idle_timeout_ms = 30000,
						 .drain_timeout_ms = 1000};
	const struct listener_handler handler = {.arg = h,
						 .head = worker_health_on_head,
						 .body = worker_health_on_body,
						 .body_end = worker_health_on_nothing,
						 .client_gone = worker_health_on_nothing,
						 .finished = worker_health_on_finished,
						 .refused = worker_health_on_refused};
	int r = listener_start(loop, &options, &handler, &h->listener, e);
	if (r < 0) {
		free(h);
		return err_prefix(e, r, "--health-port");
	}
	*ret = h;
	return 0;
}

unsigned worker_health_port(const struct worker_health *h)
{
	return listener_port(h->listener);
}

void worker_health_drains(struct worker_health *h)
{
	if (h)
		h->drains = true;
}

struct worker_health *worker_health_stop(struct worker_health *h)
{
	if (!h)
		return NULL;
	listener_stop(h->listener);
	free(h);
	return NULL;
}
