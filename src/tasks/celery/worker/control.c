#include "tasks/celery/worker/control.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "tasks/worker/worker.h"

#define MESSAGE_MAX (16u << 20)
#define ANSWER_MAX (16u << 20)
#define NAME_MAX_BYTES 256
#define ARGS_SHOWN 1024

struct celery_control {
	struct celery_control_options o;
	struct redis_subscription *subscription;
	int64_t began_ms;
};

/* --- one request, as people see it ---------------------------------------------------------------------- */

static void control_put_value(struct buf *out, const char *name, struct span value)
{
	buf_printf(out, ", \"%s\": ", name);
	buf_append_span(out, value.ptr ? value : SPAN_LIT("null"));
}

static void control_put_text(struct buf *out, const char *name, struct span text)
{
	buf_printf(out, ", \"%s\": ", name);
	json_quote(out, text);
}

static void control_put_repr(struct buf *out, const char *name, struct span repr, struct span value)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 16);
	if (repr.ptr) {
		control_put_value(out, name, repr);
		return;
	}
	celery_repr(value, ARGS_SHOWN, &text);
	control_put_text(out, name, buf_span(&text));
}

static void control_put_request(const struct celery_control *k, const struct celery_request *r,
				struct buf *out)
{
	const struct celery_incoming *m = &r->m;
	buf_puts(out, "{\"id\": ");
	json_quote(out, span_of(m->id));
	control_put_text(out, "name", span_of(m->task));
	control_put_repr(out, "args", m->argsrepr, m->args);
	control_put_repr(out, "kwargs", m->kwargsrepr, m->kwargs);
	control_put_text(out, "type", span_of(m->task));
	control_put_text(out, "hostname", span_of(k->o.hostname));
	if (r->begun_us)
		buf_printf(out, ", \"time_start\": %.6f", (double)r->begun_us / 1e6);
	else
		buf_puts(out, ", \"time_start\": null");
	buf_printf(out, ", \"acknowledged\": %s, \"delivery_info\": {\"exchange\": ",
		   r->acknowledged ? "true" : "false");
	buf_append_span(out, m->exchange.ptr ? m->exchange : SPAN_LIT("null"));
	control_put_value(out, "routing_key", m->routing_key);
	control_put_value(out, "priority", m->priority);
	buf_printf(out, ", \"redelivered\": %s}, \"worker_pid\": %ld}", m->redelivered ? "true" : "false",
		   (long)getpid());
}

static bool control_is_active(const struct celery_request *r)
{
	return r->state == CELERY_REQUEST_RUNS || r->state == CELERY_REQUEST_CLAIMED;
}

static const char *control_state(const struct celery_request *r)
{
	if (control_is_active(r))
		return "active";
	if (r->state == CELERY_REQUEST_WAITS)
		return "scheduled";
	return r->state == CELERY_REQUEST_READY ? "reserved" : "ready";
}

static void control_list(struct celery_control *k, const char *state, struct buf *out)
{
	struct celery_request *r;
	const char *separator = "";
	bool scheduled = strcmp(state, "scheduled") == 0;
	buf_putc(out, '[');
	TAILQ_FOREACH (r, &k->o.requests->all, place) {
		if (strcmp(control_state(r), state) != 0)
			continue;
		buf_puts(out, separator);
		if (scheduled) {
			buf_puts(out, "{\"eta\": \"");
			celery_put_instant(out, r->m.eta_us);
			buf_puts(out, "\", \"priority\": 6, \"request\": ");
		}
		control_put_request(k, r, out);
		if (scheduled)
			buf_putc(out, '}');
		separator = ", ";
	}
	buf_putc(out, ']');
}

/* --- inspect -------------------------------------------------------------------------------------------- */

static void control_ping(struct celery_control *k, struct span arguments, struct buf *out)
{
	(void)k, (void)arguments;
	buf_puts(out, "{\"ok\": \"pong\"}");
}

static void control_active(struct celery_control *k, struct span arguments, struct buf *out)
{
	(void)arguments;
	control_list(k, "active", out);
}

static void control_reserved(struct celery_control *k, struct span arguments, struct buf *out)
{
	(void)arguments;
	control_list(k, "reserved", out);
}

static void control_scheduled(struct celery_control *k, struct span arguments, struct buf *out)
{
	(void)arguments;
	control_list(k, "scheduled", out);
}

static void control_revoked(struct celery_control *k, struct span arguments, struct buf *out)
{
	(void)arguments;
	celery_revoked_put(&k->o.requests->revoked_ids, out);
}

static void control_query_task(struct celery_control *k, struct span arguments, struct buf *out)
{
	struct celery_request *r;
	struct span ids = SPAN_LIT("[]"), key, id;
	const char *separator = "";
	json_pointer(arguments, SPAN_LIT("/ids"), &ids);
	buf_putc(out, '{');
	TAILQ_FOREACH (r, &k->o.requests->all, place) {
		CLEANUP(buf_releasep) struct buf quoted = BUF_INIT(8 * CELERY_ID_MAX);
		struct json_iter it;
		bool asked = false;
		json_quote(&quoted, span_of(r->m.id));
		json_iter_init(&it, ids);
		while (!asked && json_iter_next(&it, &key, &id))
			asked = span_eq(id, buf_span(&quoted));
		if (!asked)
			continue;
		buf_printf(out, "%s%s: [\"%s\", ", separator, quoted.ptr, control_state(r));
		control_put_request(k, r, out);
		buf_putc(out, ']');
		separator = ", ";
	}
	buf_putc(out, '}');
}

static int control_by_name(const void *a, const void *b)
{
	const struct task_definition *const *x = a, *const *y = b;
	size_t n = (*x)->name.len < (*y)->name.len ? (*x)->name.len : (*y)->name.len;
	int order = memcmp((*x)->name.ptr, (*y)->name.ptr, n);
	return order ? order
		     : (int)((*x)->name.len > (*y)->name.len) - (int)((*x)->name.len < (*y)->name.len);
}

/* With the one attribute that our router asks for; a worker of ours keeps every result unless the message
 * says otherwise. */
static void control_registered(struct celery_control *k, struct span arguments, struct buf *out)
{
	const struct registry *registry = k->o.requests->o.registry;
	size_t n = registry_count(registry);
	CLEANUP(freep) const struct task_definition **sorted = calloc(n + 1, sizeof(*sorted));
	struct span items = SPAN_NONE;
	json_pointer(arguments, SPAN_LIT("/taskinfoitems"), &items);
	bool ignore = items.ptr && memmem(items.ptr, items.len, "\"ignore_result\"", 15);
	buf_putc(out, '[');
	for (size_t i = 0; sorted && i < n; i++)
		sorted[i] = registry_task_at(registry, i);
	if (sorted)
		qsort(sorted, n, sizeof(*sorted), control_by_name);
	for (size_t i = 0; sorted && i < n; i++) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
		buf_append_span(&text, sorted[i]->name);
		if (ignore)
			buf_puts(&text, " [ignore_result=False]");
		buf_puts(out, i ? ", " : "");
		json_quote(out, buf_span(&text));
	}
	buf_putc(out, ']');
}

static void control_active_queues(struct celery_control *k, struct span arguments, struct buf *out)
{
	(void)arguments;
	buf_putc(out, '[');
	for (size_t i = 0; i < k->o.n_queues; i++) {
		const struct span name = span_of(k->o.queues[i]);
		buf_printf(out, "%s{\"name\": ", i ? ", " : "");
		json_quote(out, name);
		buf_puts(out, ", \"exchange\": {\"name\": ");
		json_quote(out, name);
		buf_puts(out, ", \"type\": \"direct\", \"durable\": true}, \"routing_key\": ");
		json_quote(out, name);
		buf_puts(out, ", \"durable\": true, \"exclusive\": false, \"auto_delete\": false, "
			      "\"no_ack\": false, "
			      "\"alias\": null, \"bindings\": []}");
	}
	buf_putc(out, ']');
}

static void control_put_usage(struct buf *out)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	buf_printf(out,
		   "{\"utime\": %lld.%06lld, \"stime\": %lld.%06lld, \"maxrss\": %ld, \"minflt\": %ld, "
		   "\"majflt\": %ld, "
		   "\"nvcsw\": %ld, \"nivcsw\": %ld}",
		   (long long)u.ru_utime.tv_sec, (long long)u.ru_utime.tv_usec, (long long)u.ru_stime.tv_sec,
		   (long long)u.ru_stime.tv_usec, u.ru_maxrss, u.ru_minflt, u.ru_majflt, u.ru_nvcsw,
		   u.ru_nivcsw);
}

static const char *control_broker_host(const struct redis_url *u)
{
	const char *host = u->sentinels.n ? u->sentinels.hosts[0] : u->host;
	return host ? host : u->path;
}

static void control_stats(struct celery_control *k, struct span arguments, struct buf *out)
{
	const struct celery_requests *q = k->o.requests;
	const struct redis_url *u = &k->o.c->broker;
	(void)arguments;
	buf_puts(out, "{\"total\": ");
	celery_requests_put_totals(q, out);
	buf_printf(out, ", \"pid\": %ld, \"clock\": \"%llu\", \"uptime\": %lld, ", (long)getpid(),
		   (unsigned long long)k->o.events->clock,
		   (long long)((clock_mono_ms() - k->began_ms) / 1000));
	buf_printf(out,
		   "\"pool\": {\"implementation\": \"task-backend-worker " PROJECT_VERSION
		   "\", \"max-concurrency\": %u, \"processes\": [%ld]}, \"broker\": {\"hostname\": ",
		   q->o.concurrency, (long)getpid());
	const struct redis_sentinels *sentinels = &u->sentinels;
	json_quote(out, span_of(control_broker_host(u)));
	buf_printf(
		out,
		", \"userid\": null, \"virtual_host\": \"%u\", \"port\": %u, \"ssl\": %s, \"transport\": "
		"\"%s\", "
		"\"connect_timeout\": %.1f, \"transport_options\": {}}, \"prefetch_count\": %u, \"rusage\": ",
		u->db, sentinels->n ? sentinels->ports[0] : u->port, u->tls ? "true" : "false",
		sentinels->n ? "sentinel" : "redis", k->o.c->connect_timeout_ms / 1000.0,
		q->o.concurrency * k->o.c->prefetch_multiplier);
	control_put_usage(out);
	buf_putc(out, '}');
}

/* What a producer must know to write what this worker reads, and to read what it writes. */
static void control_conf(struct celery_control *k, struct span arguments, struct buf *out)
{
	const struct celery_options *c = k->o.c;
	(void)arguments;
	buf_puts(out, "{\"broker_transport_options\": {\"sep\": ");
	json_quote(out, span_of(c->lists.separator));
	buf_puts(out, ", \"priority_steps\": [");
	for (size_t i = 0; i < c->lists.n_steps; i++)
		buf_printf(out, "%s%d", i ? ", " : "", c->lists.steps[i]);
	buf_printf(out,
		   "], \"visibility_timeout\": %u}, \"result_backend_transport_options\": "
		   "{\"global_keyprefix\": ",
		   c->visibility_timeout_ms / 1000);
	json_quote(out, span_of(c->result_prefix));
	buf_printf(
		out,
		"}, \"result_serializer\": \"json\", \"accept_content\": [\"json\"], \"task_acks_late\": %s, "
		"\"worker_prefetch_multiplier\": %u, \"worker_concurrency\": %u}",
		c->acks == CELERY_ACKS_LATE ? "true" : "false", c->prefetch_multiplier,
		k->o.requests->o.concurrency);
}

static void control_report(struct celery_control *k, struct span arguments, struct buf *out)
{
	(void)k, (void)arguments;
	buf_puts(out, "{\"ok\": \"\\nsoftware -> task-backend-worker:" PROJECT_VERSION
		      " (in C; as celery:5.7.0)\\ntransport:redis results:redis\\n\"}");
}

static void control_clock(struct celery_control *k, struct span arguments, struct buf *out)
{
	(void)arguments;
	buf_printf(out, "{\"clock\": %llu}", (unsigned long long)k->o.events->clock);
}

/* --- control -------------------------------------------------------------------------------------------- */

static void control_revoke_value(struct celery_control *k, struct span value, bool terminate, struct buf *ids)
{
	CLEANUP(buf_releasep) struct buf id = BUF_INIT(CELERY_ID_MAX);
	if (json_type_of(value) != JSON_STRING || json_unescape(value, &id) < 0 || !id.len)
		return;
	celery_requests_revoke(k->o.requests, buf_span(&id), terminate);
	buf_printf(ids, "%s%s", ids->len ? ", " : "", id.ptr);
}

/* What `hello` of another worker brings, or a revocation lists. */
static void control_each_id(struct celery_control *k, struct span list, bool terminate, struct buf *ids)
{
	struct json_iter it;
	struct span key, value;
	if (json_type_of(list) == JSON_STRING)
		control_revoke_value(k, list, terminate, ids);
	json_iter_init(&it, json_type_of(list) == JSON_ARRAY ? list : SPAN_LIT("[]"));
	while (json_iter_next(&it, &key, &value))
		control_revoke_value(k, value, terminate, ids);
}

static void control_revoke_all(struct celery_control *k, struct span arguments, bool terminate,
			       struct buf *out)
{
	CLEANUP(buf_releasep) struct buf ids = BUF_INIT(MESSAGE_MAX), text = BUF_INIT(MESSAGE_MAX);
	struct span list = SPAN_LIT("[]");
	json_pointer(arguments, SPAN_LIT("/task_id"), &list);
	control_each_id(k, list, terminate, &ids);
	log_info("tasks_revoked", LOG_SPAN("task_ids", text_front(buf_span(&ids), ARGS_SHOWN)),
		 LOG_BOOL("terminate", terminate));
	buf_printf(&text, terminate ? "terminate: %s" : "tasks %s flagged as revoked",
		   ids.ptr ? ids.ptr : "");
	buf_puts(out, "{\"ok\": ");
	json_quote(out, buf_span(&text));
	buf_putc(out, '}');
}

static void control_revoke(struct celery_control *k, struct span arguments, struct buf *out)
{
	struct span terminate = SPAN_NONE;
	json_pointer(arguments, SPAN_LIT("/terminate"), &terminate);
	control_revoke_all(k, arguments, terminate.ptr && json_type_of(terminate) == JSON_TRUE, out);
}

static void control_terminate(struct celery_control *k, struct span arguments, struct buf *out)
{
	control_revoke_all(k, arguments, true, out);
}

/* Another worker has come: it tells which tasks are revoked, and wants to know. */
static void control_hello(struct celery_control *k, struct span arguments, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf own = BUF_INIT(8 * NAME_MAX_BYTES);
	struct span from = SPAN_NONE, revoked = SPAN_LIT("[]"), key, value;
	struct json_iter it;
	json_quote(&own, span_of(k->o.hostname));
	json_pointer(arguments, SPAN_LIT("/from_node"), &from);
	if (from.ptr && span_eq(from, buf_span(&own)))
		return; /* itself */
	json_pointer(arguments, SPAN_LIT("/revoked"), &revoked);
	json_iter_init(&it, revoked);
	while (json_iter_next(&it, &key, &value)) {
		CLEANUP(buf_releasep) struct buf id = BUF_INIT(CELERY_ID_MAX);
		/* Older ones send {id: time}. */
		struct span one = key.ptr ? key : value;
		if (json_type_of(one) == JSON_STRING && json_unescape(one, &id) == 0)
			celery_revoked_add(&k->o.requests->revoked_ids, buf_span(&id));
	}
	buf_puts(out, "{\"revoked\": ");
	celery_revoked_put(&k->o.requests->revoked_ids, out);
	buf_printf(out, ", \"clock\": %llu}", (unsigned long long)++k->o.events->clock);
}

static void control_enable_events(struct celery_control *k, struct span arguments, struct buf *out)
{
	(void)arguments;
	buf_printf(out, "{\"ok\": \"task events %s\"}", k->o.events->tasks ? "already enabled" : "enabled");
	k->o.events->tasks = true;
}

static void control_disable_events(struct celery_control *k, struct span arguments, struct buf *out)
{
	(void)arguments;
	buf_printf(out, "{\"ok\": \"task events %s\"}", k->o.events->tasks ? "disabled" : "already disabled");
	k->o.events->tasks = false;
}

static void control_heartbeat(struct celery_control *k, struct span arguments, struct buf *out)
{
	(void)arguments;
	k->o.heartbeat(k->o.arg);
	buf_puts(out, "null");
}

static void control_shutdown(struct celery_control *k, struct span arguments, struct buf *out)
{
	(void)arguments, (void)out;
	log_warn("shutdown_asked", LOG_STR("by", "remote control"));
	k->o.shutdown(k->o.arg); /* Celery gives no answer either */
}

static void control_say(struct buf *out, const char *kind, const char *text)
{
	buf_printf(out, "{\"%s\": ", kind);
	json_quote(out, span_of(text));
	buf_putc(out, '}');
}

/* n of the pool's commands; 0: it is no number that could be one. */
static unsigned control_n(struct span arguments)
{
	char text[16];
	struct span n = SPAN_NONE;
	if (!json_pointer(arguments, SPAN_LIT("/n"), &n))
		return 1;
	span_copy(n, text, sizeof(text));
	long value = json_type_of(n) == JSON_NUMBER ? strtol(text, NULL, 10) : 0;
	return value > 0 && value <= WORKER_MAX_CONCURRENCY ? (unsigned)value : 0;
}

static void control_resize(struct celery_control *k, unsigned to)
{
	log_warn("pool_resized", LOG_INT("from", k->o.requests->o.concurrency), LOG_INT("to", to),
		 LOG_STR("by", "remote control"));
	celery_requests_set_concurrency(k->o.requests, to);
}

static void control_pool_grow(struct celery_control *k, struct span arguments, struct buf *out)
{
	unsigned now = k->o.requests->o.concurrency, n = control_n(arguments);
	if (n == 0 || now + n > WORKER_MAX_CONCURRENCY) {
		control_say(out, "error", "the pool has from 1 to 1024 places");
		return;
	}
	control_resize(k, now + n);
	control_say(out, "ok", "pool will grow");
}

static void control_pool_shrink(struct celery_control *k, struct span arguments, struct buf *out)
{
	unsigned now = k->o.requests->o.concurrency, n = control_n(arguments);
	if (n == 0 || n >= now) {
		control_say(out, "error", "the pool has from 1 to 1024 places");
		return;
	}
	control_resize(k, now - n);
	control_say(out, "ok", "pool will shrink");
}

static void control_autoscale(struct celery_control *k, struct span arguments, struct buf *out)
{
	(void)k, (void)arguments;
	control_say(out, "error", "ValueError('Autoscale not enabled')");
}

static void control_pool_restart(struct celery_control *k, struct span arguments, struct buf *out)
{
	(void)k, (void)arguments;
	control_say(out, "error", "ValueError('Pool restarts not enabled')");
}

/* The name of a task that is registered here; otherwise the answer says that it is none. */
static bool control_task(struct celery_control *k, struct span arguments, struct buf *name, struct buf *out)
{
	struct span task = SPAN_NONE;
	bool known = json_pointer(arguments, SPAN_LIT("/task_name"), &task) &&
		     json_type_of(task) == JSON_STRING && json_unescape(task, name) == 0 && name->len &&
		     registry_task(k->o.requests->o.registry, buf_span(name));
	if (!known)
		control_say(out, "error", "unknown task");
	return known;
}

static void control_changed(struct celery_control *k, int code, const char *ok, struct buf *out)
{
	control_say(out, code < 0 ? "error" : "ok", code < 0 ? strerror(-code) : ok);
	celery_requests_look_again(k->o.requests);
}

static void control_rate_limit(struct celery_control *k, struct span arguments, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(NAME_MAX_BYTES);
	struct span limit = SPAN_NONE;
	double rate;
	json_pointer(arguments, SPAN_LIT("/rate_limit"), &limit);
	if (!celery_rate_read(limit, &rate)) {
		control_say(out, "error",
			    "Invalid rate limit string: expected a number, or like 10/s, 10/m, 10/h");
		return;
	}
	if (!control_task(k, arguments, &name, out))
		return;
	log_warn("rate_limit_changed", LOG_STR("task", name.ptr), LOG_SPAN("rate_limit", limit),
		 LOG_STR("by", "remote control"));
	int code = celery_limits_set_rate(&k->o.requests->limits, name.ptr, rate, clock_mono_ms());
	control_changed(k, code,
			rate > 0 ? "new rate limit set successfully" : "rate limit disabled successfully",
			out);
}

static bool control_seconds(struct span arguments, const char *pointer, int64_t *ret_ms)
{
	char text[32], *end;
	struct span value = SPAN_NONE;
	*ret_ms = 0;
	if (!json_pointer(arguments, span_of(pointer), &value) || json_type_of(value) == JSON_NULL)
		return true;
	span_copy(value, text, sizeof(text));
	double seconds = strtod(text, &end);
	if (json_type_of(value) != JSON_NUMBER || *end || !(seconds >= 0) || seconds > 1e6)
		return false;
	*ret_ms = (int64_t)(seconds * 1000);
	return true;
}

static void control_time_limit(struct celery_control *k, struct span arguments, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(NAME_MAX_BYTES);
	int64_t hard, soft;
	if (!control_seconds(arguments, "/hard", &hard) || !control_seconds(arguments, "/soft", &soft)) {
		control_say(out, "error", "time limits are seconds");
		return;
	}
	if (!control_task(k, arguments, &name, out))
		return;
	log_warn("time_limits_changed", LOG_STR("task", name.ptr), LOG_INT("hard_ms", hard),
		 LOG_INT("soft_ms", soft), LOG_STR("by", "remote control"));
	control_changed(k, celery_limits_set_times(&k->o.requests->limits, name.ptr, hard, soft),
			"time limits set successfully", out);
}

static const struct control_method {
	const char *name, *alias;
	void (*run)(struct celery_control *k, struct span arguments, struct buf *out);
} methods[] = {
	{"ping", NULL, control_ping},
	{"stats", NULL, control_stats},
	{"active", "dump_active", control_active},
	{"reserved", "dump_reserved", control_reserved},
	{"scheduled", "dump_schedule", control_scheduled},
	{"revoked", "dump_revoked", control_revoked},
	{"registered", "dump_tasks", control_registered},
	{"active_queues", NULL, control_active_queues},
	{"query_task", NULL, control_query_task},
	{"conf", "dump_conf", control_conf},
	{"report", NULL, control_report},
	{"clock", NULL, control_clock},
	{"hello", NULL, control_hello},
	{"revoke", NULL, control_revoke},
	{"terminate", NULL, control_terminate},
	{"enable_events", NULL, control_enable_events},
	{"disable_events", NULL, control_disable_events},
	{"heartbeat", NULL, control_heartbeat},
	{"pool_grow", NULL, control_pool_grow},
	{"pool_shrink", NULL, control_pool_shrink},
	{"pool_restart", NULL, control_pool_restart},
	{"autoscale", NULL, control_autoscale},
	{"rate_limit", NULL, control_rate_limit},
	{"time_limit", NULL, control_time_limit},
	{"shutdown", NULL, control_shutdown},
};

static void control_run(struct celery_control *k, const char *name, struct span arguments, struct buf *out)
{
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		if (strcmp(name, methods[i].name) == 0 || text_eq(name, methods[i].alias)) {
			methods[i].run(k, arguments, out);
			return;
		}
	log_warn("control_command_unknown", LOG_STR("command", name));
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1024);
	buf_printf(&text, "task-backend-worker has no command %.64s", name);
	buf_puts(out, "{\"error\": ");
	json_quote(out, buf_span(&text));
	buf_putc(out, '}');
}

/* --- answers -------------------------------------------------------------------------------------------- */

/* An answer on its way to its queue, which a binding names. */
struct control_answer {
	struct celery_control *control;
	char key[NAME_MAX_BYTES];
	struct buf message;
};

static void control_answer_free(struct control_answer *a)
{
	buf_release(&a->message);
	free(a);
}

static void control_push(struct celery_control *k, struct span queue, struct span message)
{
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(4096);
	buf_puts(&list, k->o.c->broker_prefix);
	celery_queue_key(&k->o.c->lists, queue, 0, &list);
	const struct span words[] = {SPAN_LIT("LPUSH"), buf_span(&list), message};
	redis_command(k->o.broker, words, 3, 0, NULL, NULL);
}

static void control_on_table(void *arg, enum redis_outcome outcome, const struct redis_reply *reply,
			     const struct err *why)
{
	struct control_answer *a = arg;
	const char *sep = a->control->o.c->lists.separator;
	const struct redis_reply *item;
	size_t key = strlen(a->key), length = strlen(sep);
	(void)why;
	for (size_t i = 0; outcome == REDIS_ANSWERED && (item = redis_reply_at(reply, i)); i++) {
		struct span s = redis_reply_text(item);
		if (s.len <= key + length || memcmp(s.ptr, a->key, key) != 0 ||
		    memcmp(s.ptr + key, sep, length) != 0)
			continue;
		const char *from = s.ptr + key + length;
		const char *queue = memmem(from, s.len - key - length, sep, length);
		if (queue)
			control_push(a->control,
				     (struct span){queue + length, s.len - (size_t)(queue + length - s.ptr)},
				     buf_span(&a->message));
	}
	control_answer_free(a);
}

static void control_put_answer(struct celery_control *k, struct span value, struct span exchange,
			       struct span key, struct span ticket, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(ANSWER_MAX);
	char tag[CRYPTO_UUID];
	crypto_uuid4(tag);
	buf_putc(&body, '{');
	json_quote(&body, span_of(k->o.hostname));
	buf_puts(&body, ": ");
	buf_append_span(&body, value.len ? value : SPAN_LIT("null"));
	buf_putc(&body, '}');
	buf_puts(out, "{\"body\": \"");
	base64_encode(buf_span(&body), out);
	buf_puts(out, "\", \"content-encoding\": \"utf-8\", \"content-type\": \"application/json\", "
		      "\"headers\": {\"ticket\": ");
	buf_append_span(out, ticket.ptr ? ticket : SPAN_LIT("null"));
	buf_printf(out,
		   ", \"clock\": %llu}, \"properties\": {\"delivery_mode\": 1, \"delivery_info\": "
		   "{\"exchange\": ",
		   (unsigned long long)++k->o.events->clock);
	buf_append_span(out, exchange);
	buf_puts(out, ", \"routing_key\": ");
	buf_append_span(out, key);
	buf_printf(out, "}, \"priority\": 0, \"body_encoding\": \"base64\", \"delivery_tag\": \"%s\"}}", tag);
	if (body.error)
		buf_clear(out);
}

static void control_answer(struct celery_control *k, struct span value, struct span reply_to,
			   struct span ticket)
{
	static const struct span parts[] = {SPAN_INIT("/exchange"), SPAN_INIT("/routing_key")};
	CLEANUP(buf_releasep)
	struct buf exchange = BUF_INIT(NAME_MAX_BYTES), key = BUF_INIT(NAME_MAX_BYTES),
		   table = BUF_INIT(4096);
	struct span f[2];
	if (json_pointers(reply_to, parts, 2, f, NULL) < 0 || !f[0].ptr || !f[1].ptr ||
	    json_unescape(f[0], &exchange) < 0 || json_unescape(f[1], &key) < 0 || !key.len)
		return;
	struct control_answer *a = calloc(1, sizeof(*a));
	if (!a)
		return;
	a->control = k;
	buf_init(&a->message, 2 * ANSWER_MAX);
	span_copy(buf_span(&key), a->key, sizeof(a->key));
	control_put_answer(k, value, f[0], f[1], ticket, &a->message);
	if (exchange.len == 0) { /* the default exchange: the routing key is the queue */
		control_push(k, buf_span(&key), buf_span(&a->message));
		control_answer_free(a);
		return;
	}
	buf_printf(&table, "%s_kombu.binding.%s", k->o.c->broker_prefix, exchange.ptr);
	const struct span words[] = {SPAN_LIT("SMEMBERS"), buf_span(&table)};
	if (!redis_command(k->o.broker, words, 2, 0, control_on_table, a))
		return; /* it was called */
}

/* --- messages ------------------------------------------------------------------------------------------- */

static bool control_has_name(struct span list, const char *hostname)
{
	CLEANUP(buf_releasep) struct buf own = BUF_INIT(8 * NAME_MAX_BYTES);
	struct json_iter it;
	struct span key, value;
	json_quote(&own, span_of(hostname));
	if (json_type_of(list) == JSON_STRING)
		return span_eq(list, buf_span(&own));
	json_iter_init(&it, list);
	while (json_iter_next(&it, &key, &value))
		if (span_eq(value, buf_span(&own)))
			return true;
	return false;
}

static bool control_is_given(struct span value)
{
	return value.ptr && json_type_of(value) != JSON_NULL && !span_is(value, "[]") &&
	       !span_is(value, "\"\"");
}

static bool control_is_for(const struct celery_control *k, struct span destination, struct span pattern,
			   struct span matcher)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
	if (control_is_given(destination))
		return control_has_name(destination, k->o.hostname);
	if (!control_is_given(pattern) || !control_is_given(matcher))
		return true;
	if (!span_is(matcher, "\"glob\"") || json_unescape(pattern, &text) < 0) {
		log_warn("control_pattern_not_read", LOG_SPAN("matcher", matcher),
			 LOG_STR("effect", "a command was not taken; patterns of kind glob are"));
		return false;
	}
	return fnmatch(text.ptr, k->o.hostname, 0) == 0;
}

static void control_take(struct celery_control *k, struct span body)
{
	enum { METHOD, ARGUMENTS, DESTINATION, PATTERN, MATCHER, TICKET, REPLY_TO, N };
	static const struct span parts[N] = {SPAN_INIT("/method"),	SPAN_INIT("/arguments"),
					     SPAN_INIT("/destination"), SPAN_INIT("/pattern"),
					     SPAN_INIT("/matcher"),	SPAN_INIT("/ticket"),
					     SPAN_INIT("/reply_to")};
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(NAME_MAX_BYTES), value = BUF_INIT(ANSWER_MAX);
	struct span f[N];
	if (json_pointers(body, parts, N, f, NULL) < 0 || !f[METHOD].ptr ||
	    json_unescape(f[METHOD], &name) < 0 || !name.len ||
	    !control_is_for(k, f[DESTINATION], f[PATTERN], f[MATCHER]))
		return;
	struct span arguments = control_is_given(f[ARGUMENTS]) ? f[ARGUMENTS] : SPAN_LIT("{}");
	bool ends = strcmp(name.ptr, "shutdown") == 0;
	control_run(k, name.ptr, arguments, &value);
	if (value.error) {
		buf_clear(&value);
		buf_puts(&value, "{\"error\": \"the answer is too large\"}");
	}
	if (control_is_given(f[REPLY_TO]) && !ends)
		control_answer(k, buf_span(&value), f[REPLY_TO], f[TICKET]);
}

static void control_on_message(void *arg, struct span payload)
{
	static const struct span parts[] = {SPAN_INIT("/body"), SPAN_INIT("/properties/body_encoding"),
					    SPAN_INIT("/headers/clock")};
	struct celery_control *k = arg;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(MESSAGE_MAX), body = BUF_INIT(MESSAGE_MAX);
	struct span f[3];
	if (json_pointers(payload, parts, 3, f, NULL) < 0 || !f[0].ptr || json_unescape(f[0], &text) < 0)
		return;
	k->o.events->clock++; /* clients have no clock worth adjusting to */
	if (!span_is(f[1], "\"base64\""))
		control_take(k, buf_span(&text));
	else if (base64_decode(buf_span(&text), &body) == 0)
		control_take(k, buf_span(&body));
}

static void control_on_ready(void *arg)
{
	const struct celery_control *k = arg;
	log_debug("control_heard", LOG_STR("node", k->o.hostname));
}

static const struct redis_listener control_listener = {.ready = control_on_ready,
						       .message = control_on_message};

static void control_channel(const struct celery_options *c, struct buf *out)
{
	celery_put_fanout_prefix(c, out);
	buf_printf(out, "%s.pidbox", c->control_exchange);
}

int celery_control_new(const struct celery_control_options *o, struct celery_control **ret, struct err *e)
{
	CLEANUP(buf_releasep) struct buf channel = BUF_INIT(1024);
	struct celery_control *k = calloc(1, sizeof(*k));
	if (!k)
		return err_set(e, -ENOMEM, "out of memory");
	k->o = *o;
	k->began_ms = clock_mono_ms();
	control_channel(o->c, &channel);
	k->subscription = redis_subscribe(o->listener, buf_span(&channel), &control_listener, k);
	if (!k->subscription) {
		free(k);
		return err_set(e, -ENOMEM, "out of memory");
	}
	*ret = k;
	return 0;
}

struct celery_control *celery_control_free(struct celery_control *k)
{
	if (!k)
		return NULL;
	redis_unsubscribe(k->subscription);
	free(k);
	return NULL;
}
