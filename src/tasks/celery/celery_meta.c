#include "tasks/celery/celery_meta.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "tasks/python_json.h"
#include "tasks/python_text.h"

enum { STATUS, RESULT, TRACEBACK, DATE_DONE, RETRIES, NAME, EXC_TYPE, EXC_MESSAGE, EXC_MODULE, N_FIELDS };

static const struct span pointers[N_FIELDS] = {
	SPAN_INIT("/status"),		SPAN_INIT("/result"),
	SPAN_INIT("/traceback"),	SPAN_INIT("/date_done"),
	SPAN_INIT("/retries"),		SPAN_INIT("/name"),
	SPAN_INIT("/result/exc_type"),	SPAN_INIT("/result/exc_message"),
	SPAN_INIT("/result/exc_module")};

void celery_meta_release(struct celery_meta *m)
{
	buf_release(&m->name);
	buf_release(&m->error);
	buf_release(&m->detail);
	buf_release(&m->result);
}

/* datetime.isoformat: with or without a fraction and an offset; without one it is UTC. 0 when it is
 * something else. */
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

/* The classes that Python makes of errno. */
static bool is_os_error(struct span type)
{
	static const char *const names[] = {"OSError",
					    "IOError",
					    "FileNotFoundError",
					    "FileExistsError",
					    "PermissionError",
					    "TimeoutError",
					    "ConnectionError",
					    "ConnectionRefusedError",
					    "ConnectionResetError",
					    "ConnectionAbortedError",
					    "BrokenPipeError",
					    "BlockingIOError",
					    "ChildProcessError",
					    "InterruptedError",
					    "IsADirectoryError",
					    "NotADirectoryError",
					    "ProcessLookupError",
					    "gaierror",
					    "herror"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (span_is(type, names[i]))
			return true;
	return false;
}

/* str() of an exception with several arguments: of those that print otherwise what they print, else a
 * tuple. */
static void put_arguments(struct span type, struct span list, struct buf *out)
{
	struct json_iter it;
	struct span key, item[4] = {SPAN_NONE, SPAN_NONE, SPAN_NONE, SPAN_NONE}, one;
	size_t n = 0;
	for (json_iter_init(&it, list); json_iter_next(&it, &key, &one); n++)
		if (n < 4)
			item[n] = one;
	if (n == 4 && span_is(type, "UnpickleableExceptionWrapper")) {
		python_str(item[3], out); /* the repr of what was raised */
	} else if (n == 2 && is_os_error(type) && json_type_of(item[0]) == JSON_NUMBER) {
		buf_printf(out, "[Errno %.*s] ", SPAN_ARG(item[0]));
		python_str(item[1], out);
	} else if (n == 2 && span_is(type, "CalledProcessError") && json_type_of(item[0]) == JSON_NUMBER) {
		buf_puts(out, "Command '");
		python_str(item[1], out);
		buf_printf(out, "' returned non-zero exit status %.*s.", SPAN_ARG(item[0]));
	} else {
		python_tuple(list, out);
	}
}

/* The message as Python's str() has it. The type is put in front where the message alone would not tell
 * people much. */
static void put_message(struct span type, struct span message, struct buf *out)
{
	size_t n = 1;
	struct span one = json_type_of(message) == JSON_ARRAY ? sole(message, &n) : message;
	if (n > 1) {
		put_arguments(type, message, out);
		return;
	}
	bool plain = json_type_of(one) == JSON_STRING && one.len > 2 && !span_is(type, "KeyError");
	if (!plain) {
		buf_append_span(out, type);
		if (n == 0 || !message.ptr || span_is(one, "\"\""))
			return;
		buf_puts(out, type.len ? ": " : "");
	}
	put_str(one.ptr ? one : message, out);
}

/* What the exception's own str() said stands at the end of the traceback; its arguments alone do not give it.
 * false: there is none, or it is no more than the class. */
static bool put_raised(struct span type, struct span traceback, struct buf *out)
{
	struct span raised = python_raised(traceback);
	const struct span wrapped = SPAN_LIT("UnpickleableExceptionWrapper");
	if (!raised.len || raised.len > out->max || span_eq(type, wrapped) || span_is(type, "KeyError"))
		return false;
	return buf_append_span(out, raised) == 0;
}

static void put_not_registered(struct span message, struct buf *out)
{
	size_t n;
	struct span one = json_type_of(message) == JSON_ARRAY ? sole(message, &n) : message;
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(4096);
	python_str(one, &name);
	/* Celery's message is the bare name, or the repr of the exception's arguments. */
	buf_printf(out, "the task %.*s is not registered with the worker that received it",
		   SPAN_ARG(buf_span(&name)));
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
	CLEANUP(buf_releasep) struct buf type = BUF_INIT(4096), traceback = BUF_INIT(4u << 20);
	if (f[EXC_TYPE].ptr)
		python_str(f[EXC_TYPE], &type);
	if (json_type_of(f[TRACEBACK]) == JSON_STRING && json_unescape(f[TRACEBACK], &traceback) < 0)
		buf_clear(&traceback); /* too long: its end is not there */
	if (!f[EXC_TYPE].ptr)
		put_str(f[RESULT].ptr ? f[RESULT] : SPAN_LIT("null"), &m->error);
	else if (span_is(buf_span(&type), "NotRegistered"))
		put_not_registered(f[EXC_MESSAGE], &m->error);
	else if (span_is(buf_span(&type), "TimeLimitExceeded") ||
		 span_is(buf_span(&type), "SoftTimeLimitExceeded"))
		put_timed_out(f[EXC_MESSAGE], &m->error);
	else if (!put_raised(buf_span(&type), buf_span(&traceback), &m->error))
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

/* --- what is no JSON ------------------------------------------------------------------------------------ */

/* Of an object whose values cannot be read; brackets and quotes are enough to find its members. */
static struct span state_in_object(struct span text)
{
	struct json_iter it;
	struct span key, value, state = SPAN_NONE;
	json_iter_init(&it, span_trim(text));
	while (json_iter_next(&it, &key, &value))
		if (span_is(key, "\"status\"") && value.len > 2 && value.ptr[0] == '"')
			state = (struct span){value.ptr + 1, value.len - 2};
	return state;
}

/* The word after the first `mark`. */
static struct span word_behind(struct span text, struct span mark)
{
	const char *at = text.len ? memmem(text.ptr, text.len, mark.ptr, mark.len) : NULL,
		   *end = text.ptr + text.len;
	if (!at)
		return SPAN_NONE;
	at += mark.len;
	for (int skip = 0; skip < 6 && at < end && !(*at >= 'A' && *at <= 'Z'); skip++)
		at++;
	const char *last = at;
	while (last < end && ((*last >= 'A' && *last <= 'Z') || *last == '_'))
		last++;
	return (struct span){at, (size_t)(last - at)};
}

/* Celery writes the status first, before anything of the application's own; YAML sorts, and indents what
 * is within other values. */
static struct span state_of(struct span text)
{
	static const struct span marks[] = {SPAN_INIT("\x06status"), SPAN_INIT("\xa6status"),
					    SPAN_INIT("\nstatus: ")};
	struct span first = span_trim(text), state = SPAN_NONE;
	if (first.len && first.ptr[0] == '{')
		return state_in_object(first);
	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]) && !state.len; i++)
		state = word_behind(text, marks[i]);
	return state;
}

static int read_unreadable(struct celery_meta *m, struct span text, struct task_result *r)
{
	struct span state = state_of(text);
	if (span_is(state, "SUCCESS"))
		return TASK_E_UNREADABLE;
	if (!span_is(state, "FAILURE") && !span_is(state, "REVOKED"))
		return 0;
	r->status = TASK_FAILED;
	r->cancelled = span_is(state, "REVOKED");
	buf_puts(&m->error,
		 r->cancelled ? "revoked"
			      : "the task failed; its message cannot be read (is result_serializer json?)");
	r->error = buf_span(&m->error);
	return m->error.error;
}

static int read_result(struct celery_meta *m, struct span result, struct task_result *r)
{
	r->result = result.ptr ? result : SPAN_LIT("null");
	if (!memmem(r->result.ptr, r->result.len, "\"__value__\"", 11))
		return 0;
	int e = python_json_unwrap(r->result, &m->result);
	r->result = buf_span(&m->result);
	return e;
}

int celery_meta_read(struct celery_meta *m, struct span text, struct span id, struct task_result *ret)
{
	struct span f[N_FIELDS];
	struct err e;
	int error = 0;
	buf_clear(&m->name);
	buf_clear(&m->error);
	buf_clear(&m->detail);
	buf_clear(&m->result);
	*ret = (struct task_result){.task_id = id, .status = TASK_RUNNING, .attempts = 1};
	if (json_pointers(text, pointers, N_FIELDS, f, &e) < 0 || json_type_of(f[STATUS]) != JSON_STRING)
		return read_unreadable(m, text, ret);
	if (json_type_of(f[NAME]) == JSON_STRING && json_unescape(f[NAME], &m->name) == 0)
		ret->task_name = buf_span(&m->name);
	ret->attempts = attempts(f[RETRIES]);
	if (span_is(f[STATUS], "\"PENDING\"")) {
		ret->status = TASK_PENDING;
		ret->attempts = 0;
	} else if (span_is(f[STATUS], "\"SUCCESS\"")) {
		ret->status = TASK_COMPLETED;
		error = read_result(m, f[RESULT], ret);
		ret->completed_us = instant(f[DATE_DONE]);
	} else if (span_is(f[STATUS], "\"FAILURE\"") || span_is(f[STATUS], "\"REVOKED\"")) {
		ret->status = TASK_FAILED;
		ret->completed_us = instant(f[DATE_DONE]);
		read_failure(m, f, span_is(f[STATUS], "\"REVOKED\""), ret);
	}
	return error;
}
