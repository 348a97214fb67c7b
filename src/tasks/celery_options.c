#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "tasks/celery_internal.h"

int celery_options_new(struct celery_options **ret)
{
	struct celery_options *o = calloc(1, sizeof(*o));
	if (!o)
		return -ENOMEM;
	o->max_input = 64u << 20;
	o->connect_timeout_ms = 3000;
	o->command_timeout_ms = 10000;
	o->health_interval_ms = 5000;
	return (*ret = o, 0);
}

struct celery_options *celery_options_free(struct celery_options *o)
{
	if (!o)
		return NULL;
	redis_url_release(&o->broker);
	redis_url_release(&o->results);
	free(o->queue);
	free(o->control_exchange);
	free(o);
	return NULL;
}

static int set_url(struct redis_url *u, bool *has, struct span value, struct err *e)
{
	redis_url_release(u);
	*has = false;
	int r = redis_url_parse(value, u, e);
	*has = r == 0;
	return r;
}

/* Names become parts of keys, channels and JSON. */
static int set_name(char **to, struct span value, struct err *e)
{
	bool good = value.len > 0 && value.len <= 200;
	for (size_t i = 0; good && i < value.len; i++)
		good = (unsigned char)value.ptr[i] > ' ' && value.ptr[i] != '"' && value.ptr[i] != '\\';
	if (!good)
		return err_set(e, -EINVAL, "expected a name of 1 to 200 characters without blanks and quotes");
	free(*to);
	*to = span_dup(value);
	return *to ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int set_prefix(char to[CELERY_PREFIX_MAX], struct span value, struct err *e)
{
	bool good = value.len < CELERY_PREFIX_MAX;
	for (size_t i = 0; good && i < value.len; i++)
		good = (unsigned char)value.ptr[i] > ' ' && (unsigned char)value.ptr[i] < 0x7f;
	if (!good)
		return err_set(e, -EINVAL, "expected a text of at most %d ASCII characters without blanks", CELERY_PREFIX_MAX - 1);
	span_copy(value, to, CELERY_PREFIX_MAX);
	return 0;
}

/* Celery puts a _ behind the prefix of results that ends in none of these (celery/backends/base.py, 5.5 and newer). */
static int set_result_prefix(struct celery_options *o, struct span value, struct err *e)
{
	int r = set_prefix(o->result_prefix, value, e);
	if (r == 0 && value.len && !strchr(":_-.", value.ptr[value.len - 1]))
		strcat(o->result_prefix, "_");
	return r;
}

static int set_duration(unsigned *to, struct span value, struct err *e)
{
	CLEANUP(freep) char *text = span_dup(value);
	int64_t ms;
	if (!text || clock_parse_duration(text, &ms) < 0 || ms < 1 || ms > 3600000)
		return err_set(e, -EINVAL, "expected a duration from 1ms to 1h");
	*to = (unsigned)ms;
	return 0;
}

static int set_size(size_t *to, struct span value, struct err *e)
{
	CLEANUP(freep) char *text = span_dup(value);
	char *end = NULL;
	unsigned long n = text ? strtoul(text, &end, 10) : 0;
	if (end && (*end == 'k' || *end == 'K'))
		n = n > CELERY_MAX_INPUT ? n : n << 10, end++;
	else if (end && (*end == 'm' || *end == 'M'))
		n = n > CELERY_MAX_INPUT ? n : n << 20, end++;
	if (!end || end == text || *end || text[0] == '-' || n < 1 || n > CELERY_MAX_INPUT)
		return err_set(e, -EINVAL, "expected a number of bytes (or 64m) up to %u", CELERY_MAX_INPUT);
	*to = n;
	return 0;
}

static int set_switch(bool *to, struct span value, struct err *e)
{
	if (!span_is(value, "true") && !span_is(value, "false"))
		return err_set(e, -EINVAL, "expected true or false");
	*to = span_is(value, "true");
	return 0;
}

int celery_options_set(struct celery_options *o, struct span key, struct span value, struct err *e)
{
	int r;
	if (span_is(key, "broker_url"))
		r = set_url(&o->broker, &o->has_broker, value, e);
	else if (span_is(key, "result_backend"))
		r = set_url(&o->results, &o->has_results, value, e);
	else if (span_is(key, "queue"))
		r = set_name(&o->queue, value, e);
	else if (span_is(key, "control_exchange"))
		r = set_name(&o->control_exchange, value, e);
	else if (span_is(key, "broker_key_prefix"))
		r = set_prefix(o->broker_prefix, value, e);
	else if (span_is(key, "result_key_prefix"))
		r = set_result_prefix(o, value, e);
	else if (span_is(key, "max_input"))
		r = set_size(&o->max_input, value, e);
	else if (span_is(key, "connect_timeout"))
		r = set_duration(&o->connect_timeout_ms, value, e);
	else if (span_is(key, "command_timeout"))
		r = set_duration(&o->command_timeout_ms, value, e);
	else if (span_is(key, "health_interval"))
		r = set_duration(&o->health_interval_ms, value, e);
	else if (span_is(key, "terminate"))
		r = set_switch(&o->terminate, value, e);
	else
		return err_set(e, -EINVAL, "there is no such setting; there are broker_url, result_backend, broker_key_prefix, "
					   "result_key_prefix, queue, max_input, connect_timeout, command_timeout, health_interval, "
					   "terminate and control_exchange");
	return r;
}

int celery_options_check(struct celery_options *o, struct err *e)
{
	int r = 0;
	if (!o->has_broker)
		return err_set(e, -EINVAL, "broker_url is missing (CELERY_BROKER_URL, or in the file)");
	if (!o->queue)
		r = set_name(&o->queue, SPAN_LIT("celery"), e);
	if (r == 0 && !o->control_exchange)
		r = set_name(&o->control_exchange, SPAN_LIT("celery"), e);
	return r;
}
