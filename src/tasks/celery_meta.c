#include "tasks/celery_meta.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/json.h"
#include "tasks/python_text.h"

enum { STATUS, RESULT, TRACEBACK, DATE_DONE, RETRIES, NAME, EXC_TYPE, EXC_MESSAGE, EXC_MODULE, N_FIELDS };

static const struct span pointers[N_FIELDS] = {
	SPAN_INIT("/status"),	   SPAN_INIT("/result"), SPAN_INIT("/traceback"),
	SPAN_INIT("/date_done"),   SPAN_INIT("/retries"), SPAN_INIT("/name"),
	SPAN_INIT("/result/exc_type"), SPAN_INIT("/result/exc_message"), SPAN_INIT("/result/exc_module"),
};

void celery_meta_release(struct celery_meta *m)
{
	buf_release(&m->name);
	buf_release(&m->error);
	buf_release(&m->detail);
}

/* datetime.isoformat: with or without a fraction and an offset; without one it is UTC. 0 when it is something else. */
static int64_t instant(struct span value)
{
	char text[48];
	struct tm tm = {.tm_isdst = 0};
	if (json_type_of(value) != JSON_STRING || value.len < 2)
		return 0;
	span_copy((struct span){value.ptr + 1, value.len - 2}, text, sizeof(text));
	char *at = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (!at)
		return 0;
	int64_t us = (int64_t)timegm(&tm) * 1000000;
	if (*at == '.') {
		int64_t unit = 100000;
		for (at++; *at >= '0' && *at <= '9'; at++, unit /= 10)
			us += (*at - '0') * unit;
	}
	int hours, minutes;
	if ((*at == '+' || *at == '-') && sscanf(at + 1, "%2d:%2d", &hours, &minutes) == 2)
		us += (*at == '+' ? -1 : 1) * (hours * 60 + minutes) * 60000000ll;
	return us;
}

static unsigned attempts(struct span retries)
{
	char text[12];
	span_copy(json_type_of(retries) == JSON_NUMBER ? retries : SPAN_LIT("0"), text, sizeof(text));
	int n = atoi(text);
	return n > 0 ? (unsigned)n + 1 : 1;
}

/* One argument of the exception's, when there is exactly one; else SPAN_NONE. */
static struct span sole(struct span list, size_t *ret_n)
{
	struct json_iter it;
	struct span key, item, first = SPAN_NONE;
	*ret_n = 0;
	json_iter_init(&it, list);
	while (json_iter_next(&it, &key, &item))
		if ((*ret_n)++ == 0)
			first = item;
	return *ret_n == 1 ? first : SPAN_NONE;
}

/* Text as it is, as much as there is room for; other values as Python's str() has them. */
static void put_str(struct span value, struct buf *out)
{
	if (json_type_of(value) == JSON_STRING)
		json_unescape_front(value, out);
	else
		python_str(value, out);
}

/* The message as Python's str() has it. The type is put in front where the message alone would not tell people much. */
static void put_message(struct span type, struct span message, struct buf *out)
{
	size_t n = 1;
	struct span one = json_type_of(message) == JSON_ARRAY ? sole(message, &n) : message;
	bool plain = json_type_of(one) == JSON_STRING && one.len > 2 && !span_is(type, "KeyError");
	if (!plain) {
		buf_append_span(out, type);
		if (n == 0 || !message.ptr || span_is(one, "\"\""))
			return;
		buf_puts(out, type.len ? ": " : "");
	}
	put_str(one.ptr ? one : message, out);
}

static void put_not_registered(struct span message, struct buf *out)
{
	size_t n;
	struct span one = json_type_of(message) == JSON_ARRAY ? sole(message, &n) : message;
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(4096);
	python_str(one, &name);
	/* Celery's message is the bare name, or the repr of the exception's arguments. */
	buf_printf(out, "the task %.*s is not registered with the worker that received it", SPAN_ARG(buf_span(&name)));
}

/* The pool killed it, or asked it to end (soft), at the time limit of the call. */
static void put_timed_out(struct span message, struct buf *out)
{
	size_t n = 0;
	struct span seconds = json_type_of(message) == JSON_ARRAY ? sole(message, &n) : message;
	buf_puts(out, "timed out");
	if (json_type_of(seconds) == JSON_NUMBER)
		buf_printf(out, " after %.*s s", SPAN_ARG(seconds));
}

static void read_failure(struct celery_meta *m, const struct span *f, bool revoked, struct task_result *r)
{
	CLEANUP(buf_releasep) struct buf type = BUF_INIT(4096);
	if (f[EXC_TYPE].ptr)
		python_str(f[EXC_TYPE], &type);
	if (!f[EXC_TYPE].ptr)
		put_str(f[RESULT].ptr ? f[RESULT] : SPAN_LIT("null"), &m->error);
	else if (span_is(buf_span(&type), "NotRegistered"))
		put_not_registered(f[EXC_MESSAGE], &m->error);
	else if (span_is(buf_span(&type), "TimeLimitExceeded") || span_is(buf_span(&type), "SoftTimeLimitExceeded"))
		put_timed_out(f[EXC_MESSAGE], &m->error);
	else
		put_message(buf_span(&type), f[EXC_MESSAGE], &m->error);
	if (m->error.len == 0)
		buf_puts(&m->error, revoked ? "revoked" : "the task failed without a message");
	r->error = buf_span(&m->error);
	r->cancelled = revoked && !span_is(r->error, "expired");
	if (json_type_of(f[TRACEBACK]) == JSON_STRING && f[TRACEBACK].len > 2) {
		json_unescape_front(f[TRACEBACK], &m->detail);
	} else if (type.len) {
		if (json_type_of(f[EXC_MODULE]) == JSON_STRING) {
			json_unescape(f[EXC_MODULE], &m->detail);
			buf_putc(&m->detail, '.');
		}
		buf_append_span(&m->detail, buf_span(&type));
	}
	if (m->detail.len)
		r->error_detail = buf_span(&m->detail);
}

static void unreadable(struct celery_meta *m, const char *why, struct task_result *r)
{
	r->status = TASK_FAILED;
	buf_printf(&m->error, "the task has ended, but its result cannot be read (is result_serializer json?): %s", why);
	r->error = buf_span(&m->error);
}

void celery_meta_read(struct celery_meta *m, struct span text, struct span id, struct task_result *ret)
{
	struct span f[N_FIELDS];
	struct err e;
	buf_clear(&m->name);
	buf_clear(&m->error);
	buf_clear(&m->detail);
	*ret = (struct task_result){.task_id = id, .status = TASK_RUNNING, .attempts = 1};
	if (json_pointers(text, pointers, N_FIELDS, f, &e) < 0) {
		unreadable(m, e.text, ret);
		return;
	}
	if (json_type_of(f[STATUS]) != JSON_STRING) {
		unreadable(m, "it has no status", ret);
		return;
	}
	if (json_type_of(f[NAME]) == JSON_STRING && json_unescape(f[NAME], &m->name) == 0)
		ret->task_name = buf_span(&m->name);
	ret->attempts = attempts(f[RETRIES]);
	if (span_is(f[STATUS], "\"PENDING\"")) {
		ret->status = TASK_PENDING;
		ret->attempts = 0;
	} else if (span_is(f[STATUS], "\"SUCCESS\"")) {
		ret->status = TASK_COMPLETED;
		ret->result = f[RESULT].ptr ? f[RESULT] : SPAN_LIT("null");
		ret->completed_us = instant(f[DATE_DONE]);
	} else if (span_is(f[STATUS], "\"FAILURE\"") || span_is(f[STATUS], "\"REVOKED\"")) {
		ret->status = TASK_FAILED;
		ret->completed_us = instant(f[DATE_DONE]);
		read_failure(m, f, span_is(f[STATUS], "\"REVOKED\""), ret);
	}
}
