/*
 * The core registry, answering as the existing Python workers do (core-tasks.md).
 */
#include "tasks/worker/builtin.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/json.h"
#include "tasks/number.h"
#include "tasks/python_text.h"

static double unix_seconds(void)
{
	return (double)clock_wall_us() / 1e6;
}

static int run_add_numbers(const struct builtin_call *call, struct buf *out, struct err *e)
{
	int r = number_add(call->values[0], call->values[1], out);
	return r == -ERANGE ? err_set(e, r, "add_numbers() the sum of 'a' and 'b' is not a finite number")
			    : r;
}

static int run_concat(const struct builtin_call *call, struct buf *out, struct err *e)
{
	(void)e;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(out->max);
	json_unescape(call->values[0], &text);
	number_text(call->values[1], &text);
	return text.error ? text.error : json_quote(out, buf_span(&text));
}

static int run_format(const struct builtin_call *call, struct buf *out, struct err *e)
{
	(void)e;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(out->max);
	buf_puts(&text, "Result is ");
	number_text(call->values[0], &text);
	return text.error ? text.error : json_quote(out, buf_span(&text));
}

static int put_transformed(struct span data, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(out->max), upper = BUF_INIT(out->max);
	struct json_iter it;
	struct span key, value;
	const char *separator = "";
	buf_puts(out, ",\"transformed\":{");
	json_iter_init(&it, data);
	while (json_iter_next(&it, &key, &value)) {
		buf_clear(&text);
		buf_clear(&upper);
		python_str(value, &text);
		python_upper(buf_span(&text), &upper);
		if (text.error || upper.error)
			return text.error ? text.error : upper.error;
		buf_printf(out, "%s%.*s:", separator, SPAN_ARG(key));
		json_quote(out, buf_span(&upper));
		separator = ",";
	}
	return buf_putc(out, '}');
}

static size_t count_members(struct span data)
{
	struct json_iter it;
	struct span key, value;
	size_t n = 0;
	json_iter_init(&it, data);
	while (json_iter_next(&it, &key, &value))
		n++;
	return n;
}

static int run_process_data(const struct builtin_call *call, struct buf *out, struct err *e)
{
	(void)e;
	struct span data = call->values[0], operation = call->values[1];
	buf_puts(out, "{\"original\":");
	buf_append_span(out, data);
	buf_puts(out, ",\"operation\":");
	buf_append_span(out, operation);
	buf_puts(out, ",\"processed_at\":");
	number_repr(unix_seconds(), out);
	buf_puts(out, ",\"status\":\"completed\"");
	if (span_is(operation, "\"validate\""))
		buf_printf(out, ",\"valid\":%s", count_members(data) ? "true" : "false");
	else if (span_is(operation, "\"transform\""))
		put_transformed(data, out);
	else if (span_is(operation, "\"count\""))
		buf_printf(out, ",\"count\":%zu", count_members(data));
	buf_putc(out, '}');
	return out->error;
}

static int run_health_check(const struct builtin_call *call, struct buf *out, struct err *e)
{
	(void)call, (void)e;
	buf_puts(out, "{\"status\":\"healthy\",\"timestamp\":");
	number_repr(unix_seconds(), out);
	buf_puts(out, ",\"worker\":\"task-abstraction\",\"message\":\"Worker is operational\"}");
	return out->error;
}

static int run_echo(const struct builtin_call *call, struct buf *out, struct err *e)
{
	(void)e;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(out->max);
	buf_puts(&text, "Echo: ");
	json_unescape(call->values[0], &text);
	return text.error ? text.error : json_quote(out, buf_span(&text));
}

static int run_simulate_work(const struct builtin_call *call, struct buf *out, struct err *e)
{
	CLEANUP(freep) char *text = span_dup(call->values[0]);
	if (!text)
		return -ENOMEM;
	double seconds = strtod(text, NULL);
	if (!(seconds >= 0 && seconds <= 86400))
		return err_set(e, -EINVAL,
			       "simulate_work() argument 'duration' must be from 0 to 86400 seconds");
	double begin = unix_seconds();
	int64_t from = clock_mono_us();
	if (!call->sleep(call->sleep_arg, (unsigned)ceil(seconds * 1000)))
		return err_set(e, -ECANCELED, "simulate_work() was stopped");
	buf_puts(out, "{\"requested_duration\":");
	number_text(call->values[0], out);
	buf_puts(out, ",\"actual_duration\":");
	number_repr((double)(clock_mono_us() - from) / 1e6, out);
	buf_puts(out, ",\"start_time\":");
	number_repr(begin, out);
	buf_puts(out, ",\"end_time\":");
	number_repr(unix_seconds(), out);
	buf_puts(out, ",\"status\":\"completed\"}");
	return out->error;
}

const struct builtin core_tasks[] = {
	{"add_numbers",
	 {{"a", BUILTIN_NUMBER, NULL}, {"b", BUILTIN_NUMBER, NULL}},
	 2,
	 run_add_numbers,
	 NULL,
	 NULL},
	{"concat_with_number",
	 {{"base_string", BUILTIN_STRING, NULL}, {"number", BUILTIN_NUMBER, NULL}},
	 2,
	 run_concat,
	 NULL,
	 NULL},
	{"format_result_message", {{"number", BUILTIN_NUMBER, NULL}}, 1, run_format, NULL, NULL},
	{"process_data",
	 {{"data", BUILTIN_OBJECT, NULL}, {"operation", BUILTIN_STRING, "\"validate\""}},
	 2,
	 run_process_data,
	 NULL,
	 NULL},
	{"health_check", {{NULL, BUILTIN_ANY, NULL}}, 0, run_health_check, NULL, NULL},
	{"echo", {{"message", BUILTIN_STRING, NULL}}, 1, run_echo, NULL, NULL},
	{"simulate_work", {{"duration", BUILTIN_NUMBER, "1"}}, 1, run_simulate_work, NULL, NULL}};
const size_t n_core_tasks = sizeof(core_tasks) / sizeof(core_tasks[0]);

const struct builtin *core_task_find(struct span name)
{
	for (size_t i = 0; i < n_core_tasks; i++)
		if (span_is(name, core_tasks[i].name))
			return &core_tasks[i];
	return NULL;
}
