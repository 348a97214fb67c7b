#include "tasks/celery/worker/incoming.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/base64.h"
#include "base/gzip.h"
#include "base/json.h"
#include "tasks/python_json.h"

/* Of the envelope, in the order of `pointers`. */
enum envelope {
	AT_BODY,
	AT_CONTENT_TYPE,
	AT_BODY_ENCODING,
	AT_COMPRESSION,
	AT_PRIORITY,
	AT_REPLY_TO,
	AT_CORRELATION_ID,
	AT_EXCHANGE,
	AT_ROUTING_KEY,
	AT_REDELIVERED,
	AT_HEADERS,
	N_ENVELOPE
};

static const struct span pointers[] = {
	[AT_BODY] = SPAN_INIT("/body"),
	[AT_CONTENT_TYPE] = SPAN_INIT("/content-type"),
	[AT_BODY_ENCODING] = SPAN_INIT("/properties/body_encoding"),
	[AT_COMPRESSION] = SPAN_INIT("/headers/compression"),
	[AT_PRIORITY] = SPAN_INIT("/properties/priority"),
	[AT_REPLY_TO] = SPAN_INIT("/properties/reply_to"),
	[AT_CORRELATION_ID] = SPAN_INIT("/properties/correlation_id"),
	[AT_EXCHANGE] = SPAN_INIT("/properties/delivery_info/exchange"),
	[AT_ROUTING_KEY] = SPAN_INIT("/properties/delivery_info/routing_key"),
	[AT_REDELIVERED] = SPAN_INIT("/headers/redelivered"),
	[AT_HEADERS] = SPAN_INIT("/headers"),
};

/* What says how a task is to be run: the headers of protocol 2, members of the body in protocol 1. */
enum field {
	OF_TASK,
	OF_ID,
	OF_RETRIES,
	OF_ETA,
	OF_EXPIRES,
	OF_TIMELIMIT,
	OF_ROOT_ID,
	OF_PARENT_ID,
	OF_GROUP,
	OF_GROUP_INDEX,
	OF_ORIGIN,
	OF_SHADOW,
	OF_ARGSREPR,
	OF_KWARGSREPR,
	OF_IGNORE_RESULT,
	OF_STAMPED_HEADERS,
	OF_STAMPS,
	OF_MIGRATION_SHADOW,
	OF_TRACEPARENT,
	OF_TRACESTATE,
	N_FIELDS
};

static const struct span field_names[N_FIELDS] = {
	[OF_TASK] = SPAN_INIT("/task"),
	[OF_ID] = SPAN_INIT("/id"),
	[OF_RETRIES] = SPAN_INIT("/retries"),
	[OF_ETA] = SPAN_INIT("/eta"),
	[OF_EXPIRES] = SPAN_INIT("/expires"),
	[OF_TIMELIMIT] = SPAN_INIT("/timelimit"),
	[OF_ROOT_ID] = SPAN_INIT("/root_id"),
	[OF_PARENT_ID] = SPAN_INIT("/parent_id"),
	[OF_GROUP] = SPAN_INIT("/group"),
	[OF_GROUP_INDEX] = SPAN_INIT("/group_index"),
	[OF_ORIGIN] = SPAN_INIT("/origin"),
	[OF_SHADOW] = SPAN_INIT("/shadow"),
	[OF_ARGSREPR] = SPAN_INIT("/argsrepr"),
	[OF_KWARGSREPR] = SPAN_INIT("/kwargsrepr"),
	[OF_IGNORE_RESULT] = SPAN_INIT("/ignore_result"),
	[OF_STAMPED_HEADERS] = SPAN_INIT("/stamped_headers"),
	[OF_STAMPS] = SPAN_INIT("/stamps"),
	[OF_MIGRATION_SHADOW] = SPAN_INIT("/x_migration_shadow"),
	[OF_TRACEPARENT] = SPAN_INIT("/traceparent"),
	[OF_TRACESTATE] = SPAN_INIT("/tracestate"),
};

void celery_incoming_release(struct celery_incoming *m)
{
	buf_release(&m->body);
	buf_release(&m->unwrapped);
}

static bool is_null(struct span value)
{
	return !value.ptr || json_type_of(value) == JSON_NULL;
}

static struct span unless_null(struct span value)
{
	return is_null(value) ? SPAN_NONE : value;
}

static bool is_true(struct span value)
{
	return value.ptr && json_type_of(value) == JSON_TRUE;
}

/* A short string, unescaped; false: it is none, or longer. */
static bool short_text(struct span value, char *out, size_t size)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(size - 1);
	if (!value.ptr || json_unescape(value, &text) < 0 || memchr(text.ptr ? text.ptr : "", '\0', text.len))
		return false;
	span_copy(buf_span(&text), out, size);
	return true;
}

/* --- times ---------------------------------------------------------------------------------------------- */

static bool digits(struct span *s, int n, int *ret)
{
	*ret = 0;
	if (s->len < (size_t)n)
		return false;
	for (int i = 0; i < n; i++) {
		if (s->ptr[i] < '0' || s->ptr[i] > '9')
			return false;
		*ret = *ret * 10 + (s->ptr[i] - '0');
	}
	s->ptr += n;
	s->len -= (size_t)n;
	return true;
}

static bool letter(struct span *s, const char *any)
{
	if (!s->len || !strchr(any, s->ptr[0]))
		return false;
	s->ptr++;
	s->len--;
	return true;
}

static int64_t fraction_us(struct span *s)
{
	int64_t us = 0;
	int n = 0;
	if (!letter(s, ".,"))
		return 0;
	for (; s->len && s->ptr[0] >= '0' && s->ptr[0] <= '9'; n++, s->ptr++, s->len--)
		if (n < 6)
			us = us * 10 + (s->ptr[0] - '0');
	for (; n < 6; n++)
		us *= 10;
	return us;
}

static bool offset_s(struct span *s, int64_t *ret)
{
	int hours = 0, minutes = 0;
	*ret = 0;
	if (!s->len || letter(s, "Zz"))
		return s->len == 0;
	bool west = s->ptr[0] == '-';
	if (!letter(s, "+-") || !digits(s, 2, &hours))
		return false;
	letter(s, ":");
	if (s->len && !digits(s, 2, &minutes))
		return false;
	*ret = (hours * 3600 + minutes * 60) * (west ? -1 : 1);
	return s->len == 0;
}

bool celery_instant_read(struct span text, int64_t *ret_us)
{
	struct tm tm = {0};
	int64_t us = 0, offset = 0;
	struct span s = text;
	bool good = digits(&s, 4, &tm.tm_year) && letter(&s, "-") && digits(&s, 2, &tm.tm_mon) &&
		    letter(&s, "-") && digits(&s, 2, &tm.tm_mday) && letter(&s, "T ") &&
		    digits(&s, 2, &tm.tm_hour) && letter(&s, ":") && digits(&s, 2, &tm.tm_min) &&
		    letter(&s, ":") && digits(&s, 2, &tm.tm_sec);
	if (good) {
		us = fraction_us(&s);
		good = offset_s(&s, &offset);
	}
	if (!good || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 ||
	    tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	*ret_us = ((int64_t)timegm(&tm) - offset) * 1000000 + us;
	return true;
}

int celery_put_instant(struct buf *out, int64_t us)
{
	time_t s = (time_t)(us / 1000000);
	struct tm tm;
	char text[32];
	gmtime_r(&s, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	buf_puts(out, text);
	if (us % 1000000)
		buf_printf(out, ".%06d", (int)(us % 1000000));
	return buf_puts(out, "+00:00");
}

/* null is none; false: it is something else than an instant. */
static bool read_instant(struct span value, int64_t *ret)
{
	char text[64];
	*ret = 0;
	if (is_null(value))
		return true;
	return short_text(value, text, sizeof(text)) && celery_instant_read(span_of(text), ret);
}

static bool read_number(struct span value, double *ret)
{
	char text[64];
	if (!value.ptr || json_type_of(value) != JSON_NUMBER || value.len >= sizeof(text))
		return false;
	span_copy(value, text, sizeof(text));
	*ret = strtod(text, NULL);
	return isfinite(*ret);
}

/* [hard, soft] in seconds. */
static void read_limits(struct celery_incoming *m, struct span value)
{
	struct json_iter it;
	struct span key, item;
	int64_t *const places[] = {&m->hard_ms, &m->soft_ms};
	double seconds;
	json_iter_init(&it, value.ptr ? value : SPAN_LIT("[]"));
	for (size_t i = 0; i < 2 && json_iter_next(&it, &key, &item); i++)
		if (read_number(item, &seconds) && seconds > 0 && seconds < 1e9)
			*places[i] = (int64_t)(seconds * 1000) + (seconds < 0.001);
}

/* --- the body ------------------------------------------------------------------------------------------- */

static int refuse(struct celery_incoming *m, const char *what, struct span value, struct err *e)
{
	char text[64] = "none";
	if (value.ptr)
		short_text(value, text, sizeof(text));
	snprintf(m->content, sizeof(m->content), "%s %s", what, text);
	return err_set(e, CELERY_INCOMING_REFUSED, "%s is not taken, only JSON", m->content);
}

/* kombu's names for zlib, which is what it calls gzip, too. */
static bool is_zlib(struct span compression)
{
	return span_is(compression, "\"application/x-gzip\"") || span_is(compression, "\"gzip\"") ||
	       span_is(compression, "\"zlib\"") || span_is(compression, "\"application/zlib\"");
}

static int decode_body(struct celery_incoming *m, const struct span *f, struct err *e)
{
	CLEANUP(buf_releasep)
	struct buf coded = BUF_INIT(CELERY_BODY_MAX), packed = BUF_INIT(CELERY_BODY_MAX);
	struct span compression = unless_null(f[AT_COMPRESSION]), body = f[AT_BODY];
	int r = 0;
	if (json_type_of(body) != JSON_STRING)
		return err_set(e, CELERY_INCOMING_NO_MESSAGE, "the envelope has no body");
	if (compression.ptr && !is_zlib(compression))
		return refuse(m, "compression", compression, e);
	bool is_base64 = span_is(f[AT_BODY_ENCODING], "\"base64\"");
	/* base64 has nothing to unescape but its slashes, which nobody escapes. */
	struct span inside = {body.ptr + 1, body.len - 2};
	if (!is_base64 || memchr(inside.ptr, '\\', inside.len)) {
		r = json_unescape(body, is_base64 ? &coded : &packed);
		inside = buf_span(&coded);
	}
	if (r == 0 && is_base64)
		r = base64_decode(inside, &packed);
	if (r == 0 && compression.ptr) {
		r = gzip_decode(buf_span(&packed), &m->body);
	} else if (r == 0) {
		m->body = packed;
		packed = BUF_INIT(CELERY_BODY_MAX);
	}
	if (r == -ENOMEM)
		return err_set(e, r, "out of memory");
	return r < 0 ? err_set(e, CELERY_INCOMING_INVALID, "its body cannot be decoded") : 0;
}

/* Values of kombu's types are what Celery 5.2 wrote for handlers that are not Python. */
static struct span unwrap(struct celery_incoming *m, struct span value)
{
	size_t before = m->unwrapped.len;
	if (!memmem(value.ptr, value.len, "\"__type__\"", 10) || python_json_unwrap(value, &m->unwrapped) < 0)
		return value;
	return (struct span){m->unwrapped.ptr + before, m->unwrapped.len - before};
}

static int take_arguments(struct celery_incoming *m, struct err *e)
{
	if (!m->args.ptr)
		m->args = SPAN_LIT("[]");
	if (!m->kwargs.ptr)
		m->kwargs = SPAN_LIT("{}");
	if (json_type_of(m->kwargs) != JSON_OBJECT)
		return err_set(e, CELERY_INCOMING_INVALID, "Task keyword arguments must be a mapping");
	if (json_type_of(m->args) != JSON_ARRAY)
		return err_set(e, CELERY_INCOMING_INVALID, "Task positional arguments must be a sequence");
	/* Room for both at once: the first span stays where it is. */
	if (buf_reserve(&m->unwrapped, 2 * (m->args.len + m->kwargs.len) + 64) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	m->args = unwrap(m, m->args);
	m->kwargs = unwrap(m, m->kwargs);
	return 0;
}

#define BODY_PARTS 6

/* The first four are args, kwargs, callbacks and errbacks in both protocols. 0 or a verdict. */
static int read_parts(struct celery_incoming *m, const struct span *parts, struct span f[BODY_PARTS],
		      struct err *e)
{
	if (json_pointers(buf_span(&m->body), parts, BODY_PARTS, f, NULL) < 0)
		return err_set(e, CELERY_INCOMING_INVALID, "its body is not valid JSON");
	m->args = unless_null(f[0]);
	m->kwargs = unless_null(f[1]);
	m->callbacks = unless_null(f[2]);
	m->errbacks = unless_null(f[3]);
	return 0;
}

/* [args, kwargs, {"callbacks": …}] */
static int read_body2(struct celery_incoming *m, struct err *e)
{
	static const struct span parts[] = {SPAN_INIT("/0"),	       SPAN_INIT("/1"),
					    SPAN_INIT("/2/callbacks"), SPAN_INIT("/2/errbacks"),
					    SPAN_INIT("/2/chain"),     SPAN_INIT("/2/chord")};
	struct span f[BODY_PARTS];
	int r = read_parts(m, parts, f, e);
	if (r != 0)
		return r;
	m->chain = unless_null(f[4]);
	m->chord = unless_null(f[5]);
	return take_arguments(m, e);
}

static int read_body1(struct celery_incoming *m, struct err *e)
{
	static const struct span parts[] = {SPAN_INIT("/args"),	     SPAN_INIT("/kwargs"),
					    SPAN_INIT("/callbacks"), SPAN_INIT("/errbacks"),
					    SPAN_INIT("/chord"),     SPAN_INIT("/taskset")};
	struct span f[BODY_PARTS];
	int r = read_parts(m, parts, f, e);
	if (r != 0)
		return r;
	m->chord = unless_null(f[4]);
	if (!m->group.ptr)
		m->group = unless_null(f[5]);
	return take_arguments(m, e);
}

/* --- all of it ------------------------------------------------------------------------------------------ */

static int read_fields(struct celery_incoming *m, const struct span *f, struct err *e)
{
	double retries = 0;
	if (!short_text(f[OF_ID], m->id, sizeof(m->id)) || !m->id[0])
		return err_set(e, CELERY_INCOMING_NO_TASK,
			       "the message has no task id, or one of more than %d bytes", CELERY_ID_MAX - 1);
	m->retries =
		read_number(f[OF_RETRIES], &retries) && retries > 0 && retries < 1e6 ? (unsigned)retries : 0;
	m->root_id = unless_null(f[OF_ROOT_ID]);
	m->parent_id = unless_null(f[OF_PARENT_ID]);
	m->group = unless_null(f[OF_GROUP]);
	m->group_index = unless_null(f[OF_GROUP_INDEX]);
	m->origin = unless_null(f[OF_ORIGIN]);
	m->shadow_name = unless_null(f[OF_SHADOW]);
	m->argsrepr = unless_null(f[OF_ARGSREPR]);
	m->kwargsrepr = unless_null(f[OF_KWARGSREPR]);
	m->timelimit = unless_null(f[OF_TIMELIMIT]);
	m->stamped_headers = unless_null(f[OF_STAMPED_HEADERS]);
	m->stamps = unless_null(f[OF_STAMPS]);
	m->ignore_result = unless_null(f[OF_IGNORE_RESULT]);
	m->ignores_result = is_true(f[OF_IGNORE_RESULT]);
	m->shadow = is_true(f[OF_MIGRATION_SHADOW]);
	if (!short_text(f[OF_TRACEPARENT], m->traceparent, sizeof(m->traceparent)) ||
	    !short_text(f[OF_TRACESTATE], m->tracestate, sizeof(m->tracestate)))
		m->tracestate[0] = '\0';
	read_limits(m, m->timelimit);
	if (!read_instant(f[OF_ETA], &m->eta_us))
		return err_set(e, CELERY_INCOMING_INVALID, "invalid ETA value %.*s", SPAN_ARG(f[OF_ETA]));
	if (!read_instant(f[OF_EXPIRES], &m->expires_us))
		return err_set(e, CELERY_INCOMING_INVALID, "invalid expires value %.*s",
			       SPAN_ARG(f[OF_EXPIRES]));
	return 0;
}

static void read_envelope(struct celery_incoming *m, const struct span *f)
{
	m->priority = unless_null(f[AT_PRIORITY]);
	m->reply_to = unless_null(f[AT_REPLY_TO]);
	m->correlation_id = unless_null(f[AT_CORRELATION_ID]);
	m->exchange = unless_null(f[AT_EXCHANGE]);
	m->routing_key = unless_null(f[AT_ROUTING_KEY]);
	m->redelivered = is_true(f[AT_REDELIVERED]);
	m->headers = f[AT_HEADERS];
}

/* Of both protocols at once the headers count (Celery's hybrid). */
static void merge(struct span *fields, const struct span *headers)
{
	for (size_t i = 0; i < N_FIELDS; i++)
		if (headers[i].ptr)
			fields[i] = headers[i];
}

int celery_incoming_read(struct celery_incoming *m, struct span text, struct err *e)
{
	struct span f[N_ENVELOPE], headers[N_FIELDS], fields[N_FIELDS] = {{0}};
	if (json_pointers(text, pointers, N_ENVELOPE, f, NULL) < 0 || !f[AT_BODY].ptr)
		return err_set(e, CELERY_INCOMING_NO_MESSAGE, "no message of kombu's");
	read_envelope(m, f);
	json_pointers(f[AT_HEADERS].ptr ? f[AT_HEADERS] : SPAN_LIT("{}"), field_names, N_FIELDS, headers,
		      NULL);
	/* Whose it is, for whoever waits for the result of what is refused below. */
	short_text(headers[OF_ID], m->id, sizeof(m->id));
	short_text(headers[OF_TASK], m->task, sizeof(m->task));
	if (!span_is_nocase(f[AT_CONTENT_TYPE], "\"application/json\""))
		return refuse(m, "content type", f[AT_CONTENT_TYPE], e);
	int r = decode_body(m, f, e);
	if (r)
		return r;
	m->protocol1 = json_type_of(span_strip(buf_span(&m->body))) == JSON_OBJECT;
	if (m->protocol1 && json_pointers(buf_span(&m->body), field_names, N_FIELDS, fields, NULL) < 0)
		return err_set(e, CELERY_INCOMING_INVALID, "its body is not valid JSON");
	merge(fields, headers);
	if (!short_text(fields[OF_TASK], m->task, sizeof(m->task)) || !m->task[0])
		return err_set(e, CELERY_INCOMING_NO_TASK, "the message names no task");
	r = read_fields(m, fields, e);
	if (r)
		return r;
	return m->protocol1 ? read_body1(m, e) : read_body2(m, e);
}

/* --- messages that change ------------------------------------------------------------------------------- */

int celery_put_with_member(struct span object, const char *key, struct span value, struct buf *out)
{
	struct json_iter it;
	struct span k, v;
	const size_t length = strlen(key);
	buf_printf(out, "{\"%s\": ", key);
	buf_append_span(out, value);
	json_iter_init(&it, object);
	while (json_iter_next(&it, &k, &v)) {
		if (k.len == length + 2 && memcmp(k.ptr + 1, key, length) == 0)
			continue;
		buf_puts(out, ", ");
		buf_append_span(out, k);
		buf_puts(out, ": ");
		buf_append_span(out, v);
	}
	return buf_putc(out, '}');
}

int celery_put_redelivered(struct span message, struct buf *out)
{
	static const struct span parts[] = {SPAN_INIT("/headers"), SPAN_INIT("/properties"),
					    SPAN_INIT("/properties/delivery_info")};
	CLEANUP(buf_releasep)
	struct buf headers = BUF_INIT(message.len + 64), info = BUF_INIT(message.len + 64),
		   properties = BUF_INIT(message.len + 128), with_headers = BUF_INIT(message.len + 128);
	struct span f[3];
	if (json_pointers(message, parts, 3, f, NULL) < 0 || json_type_of(f[0]) != JSON_OBJECT ||
	    json_type_of(f[1]) != JSON_OBJECT || json_type_of(f[2]) != JSON_OBJECT)
		return buf_append_span(out, message);
	celery_put_with_member(f[0], "redelivered", SPAN_LIT("true"), &headers);
	celery_put_with_member(f[2], "redelivered", SPAN_LIT("true"), &info);
	celery_put_with_member(f[1], "delivery_info", buf_span(&info), &properties);
	celery_put_with_member(message, "headers", buf_span(&headers), &with_headers);
	if (headers.error || info.error || properties.error || with_headers.error)
		return -ENOMEM;
	return celery_put_with_member(buf_span(&with_headers), "properties", buf_span(&properties), out);
}
