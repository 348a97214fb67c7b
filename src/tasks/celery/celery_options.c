#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tasks/celery/celery_internal.h"

static int set_url(struct redis_url *u, bool *has, struct span value, struct err *e)
{
	redis_url_release(u);
	*has = false;
	int r = redis_url_parse(value, u, e);
	*has = r == 0;
	return r;
}

/* The last of several counts, of whatever kind. */
static int set_broker(void *options, struct span value, struct err *e)
{
	struct celery_options *o = options;
	o->broker_kind = rabbit_url_is(value) ? CELERY_BROKER_AMQP : CELERY_BROKER_REDIS;
	if (o->broker_kind == CELERY_BROKER_AMQP) {
		rabbit_url_release(&o->amqp);
		int r = rabbit_url_parse(value, &o->amqp, e);
		o->has_broker = r == 0;
		return r;
	}
	return set_url(&o->broker, &o->has_broker, value, e);
}

/* "db+postgresql+psycopg2://…" is the same to us: the driver is Python's. */
static bool postgres_url(struct span value, struct span *ret_rest)
{
	static const struct span schemes[] = {SPAN_INIT("db+postgresql"), SPAN_INIT("database+postgresql"),
					      SPAN_INIT("postgresql")};
	const char *sign = value.len ? memmem(value.ptr, value.len, "://", 3) : NULL;
	for (size_t i = 0; sign && i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		const char *end = value.ptr + schemes[i].len;
		if (span_starts(value, schemes[i]) && (end == sign || *end == '+')) {
			*ret_rest = (struct span){sign, (size_t)(value.ptr + value.len - sign)};
			return true;
		}
	}
	return false;
}

static int set_postgres(struct celery_options *o, struct span rest, struct err *e)
{
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(8192);
	o->results_kind = CELERY_RESULTS_POSTGRES;
	o->has_results = false;
	if (buf_puts(&url, "postgresql") < 0 || buf_append_span(&url, rest) < 0)
		return err_set(e, -EINVAL, "the URL is too long");
	int r = task_setting_text(&o->postgres, buf_span(&url), e);
	o->has_results = r == 0;
	return r;
}

static int set_results(void *options, struct span value, struct err *e)
{
	struct celery_options *o = options;
	struct span rest;
	if (span_is(value, "rpc://") || span_is(value, "rpc")) {
		o->results_kind = CELERY_RESULTS_RPC;
		o->has_results = true;
		return 0;
	}
	if (postgres_url(value, &rest))
		return set_postgres(o, rest, e);
	o->results_kind = CELERY_RESULTS_REDIS;
	return set_url(&o->results, &o->has_results, value, e);
}

/* Names become parts of keys, channels and JSON. */
static int set_name(void *field, struct span value, struct err *e)
{
	bool good = value.len > 0 && value.len <= 200;
	for (size_t i = 0; good && i < value.len; i++)
		good = (unsigned char)value.ptr[i] > ' ' && value.ptr[i] != '"' && value.ptr[i] != '\\';
	if (!good)
		return err_set(e, -EINVAL,
			       "expected a name of 1 to 200 characters without blanks and quotes");
	return task_setting_text(field, value, e);
}

static int set_prefix(void *field, struct span value, struct err *e)
{
	bool good = value.len < CELERY_PREFIX_MAX;
	for (size_t i = 0; good && i < value.len; i++)
		good = (unsigned char)value.ptr[i] > ' ' && (unsigned char)value.ptr[i] < 0x7f;
	if (!good)
		return err_set(e, -EINVAL, "expected a string of at most %d ASCII characters without blanks",
			       CELERY_PREFIX_MAX - 1);
	span_copy(value, field, CELERY_PREFIX_MAX);
	return 0;
}

/* Celery puts a _ after the prefix of results that ends in none of these (celery/backends/base.py, 5.5
 * and newer). */
static int set_result_prefix(void *field, struct span value, struct err *e)
{
	int r = set_prefix(field, value, e);
	if (r == 0 && value.len && !strchr(":_-.", value.ptr[value.len - 1]))
		strcat(field, "_");
	return r;
}

static int set_duration(void *field, struct span value, struct err *e)
{
	return task_setting_duration(field, value, 1, 3600000, e);
}

static int set_size(void *field, struct span value, struct err *e)
{
	return task_setting_size(field, value, CELERY_MAX_INPUT, e);
}

/* Of any characters, as kombu takes it; YAML's "\x06\x16" stands for the default. */
static int set_separator(void *field, struct span value, struct err *e)
{
	struct celery_lists *l = field;
	if (value.len < 1 || value.len > CELERY_SEPARATOR_MAX || memchr(value.ptr, '\0', value.len))
		return err_set(e, -EINVAL, "expected a string of 1 to %d bytes", CELERY_SEPARATOR_MAX);
	span_copy(value, l->separator, sizeof(l->separator));
	return 0;
}

/* One step of the list; *at moves past it and its comma. */
static bool read_step(const char **at, int *ret)
{
	char *end;
	*at += strspn(*at, " ");
	if (**at < '0' || **at > '9')
		return false;
	long step = strtol(*at, &end, 10);
	end += strspn(end, " ");
	bool last = !*end;
	if (step > 255 || (!last && (*end != ',' || !end[1])))
		return false;
	*at = end + (last ? 0 : 1);
	*ret = (int)step;
	return true;
}

static int set_steps(void *field, struct span value, struct err *e)
{
	struct celery_lists *l = field;
	CLEANUP(freep) char *text = span_dup(value);
	const char *at = text;
	size_t n = 0;
	bool good = at && *at;
	for (; good && *at; n++)
		good = n < CELERY_STEPS_MAX && read_step(&at, &l->steps[n]) &&
		       (n == 0 || l->steps[n] > l->steps[n - 1]);
	if (!good)
		return err_set(e, -EINVAL,
			       "expected ascending numbers from 0 to 255, at most %d, such as [0, 3, 6, 9]",
			       CELERY_STEPS_MAX);
	l->n_steps = n;
	return 0;
}

/* true, false, or the prefix itself, as in broker_transport_options. */
static int set_fanout_prefix(void *options, struct span value, struct err *e)
{
	struct celery_options *o = options;
	o->has_fanout_prefix = true;
	if (span_is(value, "false") || span_is(value, "true"))
		value = span_is(value, "true") ? SPAN_LIT(CELERY_FANOUT_PREFIX) : SPAN_LIT("");
	return set_prefix(o->fanout_prefix, value, e);
}

static int set_fanout_patterns(void *options, struct span value, struct err *e)
{
	struct celery_options *o = options;
	bool patterns = true;
	int r = task_setting_bool(&patterns, value, e);
	o->fanout_plain = !patterns;
	return r;
}

void celery_put_fanout_prefix(const struct celery_options *o, struct buf *out)
{
	buf_puts(out, o->broker_prefix);
	for (const char *at = o->fanout_prefix; *at;) {
		bool db = strncmp(at, "{db}", 4) == 0;
		if (db)
			buf_printf(out, "%u", o->broker.db);
		else
			buf_putc(out, *at);
		at += db ? 4 : 1;
	}
}

/* --- of the worker -------------------------------------------------------------------------------------- */

static int set_acks(void *field, struct span value, struct err *e)
{
	enum celery_acks *acks = field;
	if (span_is(value, "idempotent"))
		*acks = CELERY_ACKS_IDEMPOTENT;
	else if (span_is(value, "true"))
		*acks = CELERY_ACKS_LATE;
	else if (span_is(value, "false"))
		*acks = CELERY_ACKS_EARLY;
	else
		return err_set(e, -EINVAL, "expected idempotent, true or false");
	return 0;
}

static int set_count(struct span value, unsigned min, unsigned max, unsigned *ret, struct err *e)
{
	char text[16] = "", *end = text;
	span_copy(value, text, sizeof(text));
	errno = 0;
	unsigned long v = *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : 0;
	if (errno || end == text || *end || v < min || v > max || value.len >= sizeof(text))
		return err_set(e, -EINVAL, "expected a number from %u to %u", min, max);
	*ret = (unsigned)v;
	return 0;
}

static int set_multiplier(void *field, struct span value, struct err *e)
{
	return set_count(value, 1, 1000, field, e);
}

static int set_max_retries(void *field, struct span value, struct err *e)
{
	struct celery_retries *r = field;
	r->is_set = true;
	return set_count(value, 0, 1000, &r->max, e);
}

static int set_retry_delay(void *field, struct span value, struct err *e)
{
	struct celery_retries *r = field;
	r->delay_is_set = true;
	return task_setting_duration(&r->delay_ms, value, 0, 7u * 86400000, e);
}

static int set_long_duration(void *field, struct span value, struct err *e)
{
	return task_setting_duration(field, value, 1000, 30u * 86400000, e);
}

static int set_limit(void *field, struct span value, struct err *e)
{
	return task_setting_duration(field, value, 1, 7u * 86400000, e);
}

static int set_result_expires(void *options, struct span value, struct err *e)
{
	struct celery_options *o = options;
	o->never_expires = span_is(value, "never");
	return o->never_expires ? 0 : set_long_duration(&o->result_expires_ms, value, e);
}

/* Celery's database_table_names and database_table_schemas. */
static int set_table(void *field, struct span value, struct err *e)
{
	size_t dots = 0;
	bool good = value.len && value.len <= 127 && value.ptr[0] != '.' && value.ptr[value.len - 1] != '.';
	for (size_t i = 0; good && i < value.len; i++) {
		char c = value.ptr[i];
		dots += c == '.';
		good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		       c == '_' || c == '.';
	}
	if (!good || dots > 1)
		return err_set(e, -EINVAL,
			       "expected a table, or schema.table, of letters, digits and _, such as "
			       "celery_taskmeta");
	return task_setting_text(field, value, e);
}

static int set_poll(void *field, struct span value, struct err *e)
{
	return task_setting_duration(field, value, 10, 60000, e);
}

#define FIELD(name) .offset = offsetof(struct celery_options, name)
const struct task_setting celery_settings[] = {
	{.key = "broker_url", .set = set_broker, .variables = {"CELERY_BROKER_URL"}},
	{.key = "result_backend", .set = set_results, .variables = {"CELERY_RESULT_BACKEND"}},
	{.key = "master_name", .set = set_name, FIELD(master_name)},
	{.key = "result_table", .set = set_table, FIELD(result_table)},
	{.key = "result_poll_interval", .set = set_poll, FIELD(result_poll_ms)},
	{.key = "broker_key_prefix", .set = set_prefix, FIELD(broker_prefix)},
	{.key = "result_key_prefix", .set = set_result_prefix, FIELD(result_prefix)},
	{.key = "sep", .set = set_separator, FIELD(lists)},
	{.key = "priority_steps", .set = set_steps, FIELD(lists)},
	{.key = "fanout_prefix", .set = set_fanout_prefix},
	{.key = "fanout_patterns", .set = set_fanout_patterns},
	{.key = "queue", .set = set_name, FIELD(queue)},
	{.key = "workflows",
	 .path = true,
	 .several = true,
	 .set = task_setting_text,
	 FIELD(workflows_source.paths)},
	{.key = "max_input", .set = set_size, FIELD(max_input)},
	{.key = "connect_timeout", .set = set_duration, FIELD(connect_timeout_ms)},
	{.key = "command_timeout", .set = set_duration, FIELD(command_timeout_ms)},
	{.key = "health_interval", .set = set_duration, FIELD(health_interval_ms)},
	{.key = "terminate", .set = task_setting_bool, FIELD(terminate)},
	{.key = "control_exchange", .set = set_name, FIELD(control_exchange)},
	REGISTRY_SOURCE_SETTINGS(struct celery_options, source),
	{.key = "acks_late", .set = set_acks, FIELD(acks)},
	{.key = "prefetch_multiplier", .set = set_multiplier, FIELD(prefetch_multiplier)},
	{.key = "visibility_timeout", .set = set_long_duration, FIELD(visibility_timeout_ms)},
	{.key = "result_expires", .set = set_result_expires},
	{.key = "track_started", .set = task_setting_bool, FIELD(track_started)},
	{.key = "task_events", .set = task_setting_bool, FIELD(task_events)},
	{.key = "task_time_limit", .set = set_limit, FIELD(task_time_limit_ms)},
	{.key = "task_soft_time_limit", .set = set_limit, FIELD(task_soft_time_limit_ms)},
	{.key = "max_retries", .set = set_max_retries, FIELD(retries)},
	{.key = "retry_delay", .set = set_retry_delay, FIELD(retries)},
	{.key = NULL},
};

static int load_workflows(struct celery_options *o, const struct task_backend_setup *setup, struct err *e)
{
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1u << 20);
	int r = registry_load_workflows(&o->workflows_source, &problems, &o->workflows);
	if (r < 0)
		return task_setup_mistakes(setup, r, "workflows", buf_span(&problems), e);
	return registry_check_calls(
		o->workflows, setup,
		o->results_kind == CELERY_RESULTS_RPC ? celery_can_chain : celery_can_chord,
		o->results_kind == CELERY_RESULTS_RPC ? "a sequence, and rpc:// counts no chords"
						      : CELERY_SHAPE,
		e);
}

static int set_master(struct redis_url *u, const char *key, const char *name, struct err *e)
{
	struct err why = {.text = ""};
	int r = redis_url_set_master(u, name, &why);
	return r < 0 ? err_set(e, r, "%s: %s", key, why.text) : 0;
}

int celery_options_check(struct task_options *base, const struct task_backend_setup *setup, struct err *e)
{
	struct celery_options *o = (struct celery_options *)base;
	int r = 0;
	if (!o->has_broker)
		return err_set(e, -EINVAL, "broker_url is missing (CELERY_BROKER_URL, or in the file)");
	if (o->broker_kind == CELERY_BROKER_AMQP && !o->has_results)
		return err_set(
			e, -EINVAL,
			"result_backend is missing: RabbitMQ keeps no results; rpc://, db+postgresql://… "
			"or redis://…, as the workers have it");
	if (o->results_kind == CELERY_RESULTS_RPC && o->broker_kind != CELERY_BROKER_AMQP)
		return err_set(e, -EINVAL, "result_backend rpc:// needs amqp:// as broker_url");
	r = set_master(&o->broker, "broker_url", o->master_name, e);
	if (r == 0)
		r = set_master(&o->results, "result_backend", o->master_name, e);
	if (r == 0 && !o->queue)
		r = set_name(&o->queue, SPAN_LIT(CELERY_DEFAULT_QUEUE), e);
	if (r == 0 && !o->control_exchange)
		r = set_name(&o->control_exchange, SPAN_LIT("celery"), e);
	if (r == 0 && o->workflows_source.paths)
		r = load_workflows(o, setup, e);
	if (!o->lists.separator[0])
		strcpy(o->lists.separator, celery_lists_default.separator);
	if (o->lists.n_steps == 0) {
		memcpy(o->lists.steps, celery_lists_default.steps, sizeof(o->lists.steps));
		o->lists.n_steps = celery_lists_default.n_steps;
	}
	if (!o->has_fanout_prefix)
		strcpy(o->fanout_prefix, CELERY_FANOUT_PREFIX);
	o->prefetch_multiplier = o->prefetch_multiplier ? o->prefetch_multiplier : 4;
	o->visibility_timeout_ms = o->visibility_timeout_ms ? o->visibility_timeout_ms : 3600000;
	if (!o->result_expires_ms && !o->never_expires)
		o->result_expires_ms = 86400000;
	o->retries.max = o->retries.is_set ? o->retries.max : 3;
	o->retries.delay_ms = o->retries.delay_is_set ? o->retries.delay_ms : 180000;
	o->result_poll_ms = o->result_poll_ms ? o->result_poll_ms : 100;
	o->max_input = o->max_input ? o->max_input : 64u << 20;
	o->connect_timeout_ms = o->connect_timeout_ms ? o->connect_timeout_ms : 3000;
	o->command_timeout_ms = o->command_timeout_ms ? o->command_timeout_ms : 10000;
	o->health_interval_ms = o->health_interval_ms ? o->health_interval_ms : 5000;
	return r;
}

void celery_options_release(struct task_options *base)
{
	struct celery_options *o = (struct celery_options *)base;
	redis_url_release(&o->broker);
	redis_url_release(&o->results);
	free(o->master_name);
	rabbit_url_release(&o->amqp);
	free(o->postgres);
	free(o->result_table);
	free(o->queue);
	free(o->control_exchange);
	free(o->workflows_source.paths);
	free(o->source.paths);
	registry_free(o->workflows);
}
