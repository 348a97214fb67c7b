#include "tasks/hatchet/hatchet_run.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "tasks/python_text.h"

/* --- single values -------------------------------------------------------------------------------------- */

static struct span unquoted(struct span value)
{
	if (value.len >= 2 && value.ptr[0] == '"')
		return (struct span){value.ptr + 1, value.len - 2};
	return value;
}

bool hatchet_status_read(struct span text, enum task_status *ret, bool *ret_cancelled)
{
	static const struct {
		const char *native;
		enum task_status status;
	} states[] = {{"QUEUED", TASK_PENDING},
		      {"RUNNING", TASK_RUNNING},
		      {"COMPLETED", TASK_COMPLETED},
		      {"FAILED", TASK_FAILED},
		      {"CANCELLED", TASK_FAILED}};
	struct span s = unquoted(span_strip(text));
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		if (span_is(s, states[i].native)) {
			*ret = states[i].status;
			*ret_cancelled = span_is(s, "CANCELLED");
			return true;
		}
	}
	return false;
}

int64_t hatchet_time_read(struct span quoted)
{
	char text[40];
	struct tm tm = {0};
	int used = 0, micros = 0;
	span_copy(unquoted(quoted), text, sizeof(text));
	if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
		   &tm.tm_min, &tm.tm_sec, &used) != 6 ||
	    tm.tm_year < 1970)
		return 0;
	const char *rest = text + used;
	if (*rest == '.') {
		rest++;
		for (int scale = 100000; *rest >= '0' && *rest <= '9'; rest++, scale /= 10)
			micros += (*rest - '0') * scale; /* beyond microseconds scale is 0 */
	}
	if (strcmp(rest, "Z") != 0)
		return 0;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	return (int64_t)timegm(&tm) * 1000000 + micros;
}

static unsigned number_read(struct span value)
{
	char text[16];
	unsigned n = 0;
	span_copy(value, text, sizeof(text));
	return sscanf(text, "%u", &n) == 1 ? n : 0;
}

/* --- errors --------------------------------------------------------------------------------------------- */

static struct span before(struct span s, const char *mark)
{
	const char *at = memmem(s.ptr, s.len, mark, strlen(mark));
	return at ? (struct span){s.ptr, (size_t)(at - s.ptr)} : s;
}

void hatchet_error_split(struct span message, struct buf *text, size_t *ret_message, size_t *ret_detail)
{
	struct span whole = span_strip(before(message, "{\"__hatchet_error_metadata__\""));
	struct span head = span_strip(before(whole, "\nTraceback (most recent call last):"));
	bool python = head.len < whole.len;
	size_t start = text->len;
	/* The SDK writes "Class: message" only where it adds the traceback; any other text is the message. */
	size_t skip = python ? python_class_length(head) : 0;
	for (size_t i = skip; i < head.len; i++) {
		/* It escapes line ends by a backslash in front of them. */
		if (python && head.ptr[i] == '\\' && i + 1 < head.len && head.ptr[i + 1] == '\n')
			continue;
		buf_putc(text, head.ptr[i]);
	}
	*ret_message = text->len - start;
	start = text->len;
	if (python)
		buf_append_span(text, whole);
	*ret_detail = text->len - start;
}

bool hatchet_events_read(struct span body, struct buf *text)
{
	struct json_doc *doc = NULL;
	bool found = false;
	if (json_doc_parse(body, &doc, NULL) < 0)
		return false;
	for (const struct json_node *row = json_first(json_get(json_root(doc), "rows")); row && !found;
	     row = json_next(row)) {
		const char *type = json_string(json_get(row, "eventType")),
			   *message = json_string(json_get(row, "message"));
		if (!type)
			continue;
		found = strcmp(type, "TIMED_OUT") == 0 || strcmp(type, "SCHEDULING_TIMED_OUT") == 0;
		if (found)
			buf_puts(text, type[0] == 'T' ? "timed out" : "timed out waiting for a worker");
		if (found && message && *message)
			buf_printf(text, ": %s", message);
	}
	json_doc_free(doc);
	return found;
}

/* --- runs ----------------------------------------------------------------------------------------------- */

enum { RUN_STATUS, RUN_CREATED, RUN_STARTED, RUN_FINISHED, RUN_ERROR, TASKS, DECLARED, WORKFLOW, RUN_PARTS };
enum {
	TASK_ACTION,
	TASK_STATE,
	TASK_OUTPUT,
	TASK_ERROR,
	TASK_ATTEMPT,
	TASK_RETRIES,
	TASK_RUN,
	TASK_STARTED,
	TASK_PARTS
};

static const struct span run_pointers[RUN_PARTS] = {
	SPAN_INIT("/run/status"),	    SPAN_INIT("/run/metadata/createdAt"), SPAN_INIT("/run/startedAt"),
	SPAN_INIT("/run/finishedAt"),	    SPAN_INIT("/run/errorMessage"),	  SPAN_INIT("/tasks"),
	SPAN_INIT("/workflowConfig/Tasks"), SPAN_INIT("/workflowConfig/Name")};
static const struct span task_pointers[TASK_PARTS] = {
	SPAN_INIT("/actionId"),	      SPAN_INIT("/status"),   SPAN_INIT("/output"),
	SPAN_INIT("/errorMessage"),   SPAN_INIT("/attempt"),  SPAN_INIT("/retryCount"),
	SPAN_INIT("/taskExternalId"), SPAN_INIT("/startedAt")};

/* What of a run's result has to be put together is in a buffer that grows: its pieces, until all are
 * there. */
struct run_piece {
	size_t at, len;
	bool there;
};
struct draft {
	struct buf *text;
	struct hatchet_run *run;
	struct span part[RUN_PARTS];
	struct span workflow; /* its name, unquoted */
	size_t n_tasks;
	struct run_piece name, result, error, detail;
};

static size_t hatchet_run_count(struct span array)
{
	struct json_iter it;
	struct span key, item;
	size_t n = 0;
	for (json_iter_init(&it, array); json_iter_next(&it, &key, &item);)
		n++;
	return n;
}

static bool task_parts(struct span task, struct span part[TASK_PARTS])
{
	return json_pointers(task, task_pointers, TASK_PARTS, part, NULL) == 0;
}

/* `<workflow>:<task>` → `<task>`. */
static struct span task_of(struct span action, struct span workflow)
{
	struct span a = unquoted(action);
	if (a.len > workflow.len && span_starts(a, workflow) && a.ptr[workflow.len] == ':')
		return (struct span){a.ptr + workflow.len + 1, a.len - workflow.len - 1};
	return a;
}

/* The convention: workflow `<t>_workflow` with the one task `<t>`. */
static bool is_convention(const struct draft *d, struct span task)
{
	return d->workflow.len == task.len + sizeof("_workflow") - 1 && span_starts(d->workflow, task);
}

static void hatchet_run_put_name(struct draft *d, struct span name)
{
	d->name = (struct run_piece){d->text->len, name.len, true};
	buf_append_span(d->text, name);
}

/* One task: its output. A worker of the convention must return an object; a plain value it hands over
 * under the task's name. */
static void take_single(struct draft *d, struct span part[TASK_PARTS])
{
	struct span task = task_of(part[TASK_ACTION], d->workflow), output = part[TASK_OUTPUT];
	bool convention = is_convention(d, task);
	if (convention && json_type_of(output) == JSON_OBJECT && hatchet_run_count(output) == 1) {
		struct json_iter it;
		struct span key, value;
		json_iter_init(&it, output);
		if (json_iter_next(&it, &key, &value) && span_eq(unquoted(key), task))
			output = value;
	}
	hatchet_run_put_name(d, convention ? task : d->workflow);
	d->run->result.result = output.ptr ? output : SPAN_LIT("null");
}

static bool find_task(struct span tasks, struct span action, struct span part[TASK_PARTS])
{
	struct json_iter it;
	struct span key, task;
	for (json_iter_init(&it, tasks); json_iter_next(&it, &key, &task);)
		if (task_parts(task, part) && span_eq(part[TASK_ACTION], action))
			return true;
	return false;
}

static void hatchet_run_put_member(struct draft *d, struct span part[TASK_PARTS], bool *first)
{
	buf_putc(d->text, *first ? '{' : ',');
	buf_putc(d->text, '"');
	buf_append_span(d->text, task_of(part[TASK_ACTION], d->workflow)); /* raw, escapes and all */
	buf_puts(d->text, "\":");
	buf_append_span(d->text, part[TASK_OUTPUT].ptr ? part[TASK_OUTPUT] : SPAN_LIT("null"));
	*first = false;
}

/* {"<task>": output, …} in the order in which they are declared: run.output is one leaf's only. */
static void take_outputs(struct draft *d)
{
	struct json_iter it;
	struct span key, item, action, part[TASK_PARTS];
	bool first = true;
	hatchet_run_put_name(d, d->workflow);
	d->result = (struct run_piece){d->text->len, 0, true};
	for (json_iter_init(&it, d->part[DECLARED]); json_iter_next(&it, &key, &item);)
		if (json_pointer(item, SPAN_LIT("/Action"), &action) &&
		    find_task(d->part[TASKS], action, part))
			hatchet_run_put_member(d, part, &first);
	if (first) /* an engine that does not tell the declaration */
		for (json_iter_init(&it, d->part[TASKS]); json_iter_next(&it, &key, &item);)
			if (task_parts(item, part))
				hatchet_run_put_member(d, part, &first);
	buf_puts(d->text, first ? "{}" : "}");
	d->result.len = d->text->len - d->result.at;
}

static void take_error(struct draft *d, struct span quoted)
{
	CLEANUP(buf_releasep) struct buf message = BUF_INIT(d->text->max);
	size_t length, detail;
	if (json_type_of(quoted) != JSON_STRING || json_unescape(quoted, &message) < 0)
		return;
	size_t at = d->text->len;
	hatchet_error_split(buf_span(&message), d->text, &length, &detail);
	d->error = (struct run_piece){at, length, length > 0};
	d->detail = (struct run_piece){at + length, detail, detail > 0};
}

/* The task that failed tells more than the run; those after it are cancelled. */
static void hatchet_run_take_failure(struct draft *d)
{
	struct json_iter it;
	struct span key, task, part[TASK_PARTS];
	for (json_iter_init(&it, d->part[TASKS]); json_iter_next(&it, &key, &task);) {
		if (!task_parts(task, part) || !span_is(unquoted(part[TASK_STATE]), "FAILED"))
			continue;
		d->run->failed_task = unquoted(part[TASK_RUN]);
		if (!d->error.there)
			take_error(d, part[TASK_ERROR]);
	}
	if (!d->error.there)
		take_error(d, d->part[RUN_ERROR]);
	d->run->unexplained = !d->error.there && d->run->failed_task.len > 0;
	if (!d->error.there) {
		static const char said_nothing[] = "the task failed without a message";
		d->error = (struct run_piece){d->text->len, sizeof(said_nothing) - 1, true};
		buf_puts(d->text, said_nothing);
	}
}

/* Tries that its one task has left by the declaration. */
static bool tries_left(const struct draft *d, struct span part[TASK_PARTS])
{
	struct span retries;
	return d->n_tasks == 1 && json_pointer(d->part[DECLARED], SPAN_LIT("/0/Retries"), &retries) &&
	       number_read(part[TASK_RETRIES]) < number_read(retries);
}

/* Tries that were begun: the engine counts the one that it waits for, and one that never came to it. */
static unsigned tries(struct span part[TASK_PARTS])
{
	enum task_status state = TASK_PENDING;
	bool cancelled;
	unsigned n = number_read(part[TASK_ATTEMPT]);
	hatchet_status_read(part[TASK_STATE], &state, &cancelled);
	bool begun = state == TASK_RUNNING || state == TASK_COMPLETED ||
		     (state == TASK_FAILED && hatchet_time_read(part[TASK_STARTED]));
	return begun || n == 0 ? n : n - 1;
}

/* The engine has not reached a worker, and tries another: ten times in all. */
static bool undelivered(struct span part[TASK_PARTS])
{
	static const struct span said = SPAN_INIT("\"Could not send task to worker");
	return span_starts(part[TASK_ERROR], said) && number_read(part[TASK_RETRIES]) < 10;
}

static void look_at_tasks(struct draft *d)
{
	struct task_result *t = &d->run->result;
	struct json_iter it;
	struct span key, task, part[TASK_PARTS];
	enum task_status state;
	bool cancelled;
	for (json_iter_init(&it, d->part[TASKS]); json_iter_next(&it, &key, &task);) {
		if (!task_parts(task, part))
			continue;
		if (tries(part) > t->attempts)
			t->attempts = tries(part);
		if (hatchet_status_read(part[TASK_STATE], &state, &cancelled) &&
		    (state == TASK_PENDING || state == TASK_RUNNING))
			d->run->ended = false;
		if (t->status == TASK_FAILED && !t->cancelled && undelivered(part))
			d->run->ended = false;
		if (t->status == TASK_FAILED && !t->cancelled && tries_left(d, part))
			d->run->may_retry = true;
		if (d->n_tasks == 1)
			take_single(d, part);
	}
	if (d->n_tasks != 1)
		take_outputs(d);
}

static struct span piece_span(const struct draft *d, struct run_piece p)
{
	return p.there ? (struct span){buf_span(d->text).ptr + p.at, p.len} : SPAN_NONE;
}

static void hatchet_run_finish(struct draft *d)
{
	struct task_result *t = &d->run->result;
	t->task_name = piece_span(d, d->name);
	if (d->result.there)
		t->result = piece_span(d, d->result);
	if (t->status != TASK_COMPLETED)
		t->result = SPAN_NONE;
	t->error = piece_span(d, d->error);
	t->error_detail = piece_span(d, d->detail);
	t->submitted_us = hatchet_time_read(d->part[RUN_CREATED]);
	t->started_us = hatchet_time_read(d->part[RUN_STARTED]);
	t->completed_us = hatchet_time_read(d->part[RUN_FINISHED]);
}

int hatchet_run_read(struct span body, struct buf *text, struct hatchet_run *ret)
{
	struct draft d = {.text = text, .run = ret};
	*ret = (struct hatchet_run){0};
	buf_clear(text);
	if (json_pointers(body, run_pointers, RUN_PARTS, d.part, NULL) < 0 ||
	    !hatchet_status_read(d.part[RUN_STATUS], &ret->result.status, &ret->result.cancelled))
		return -EBADMSG;
	ret->ended = ret->result.status == TASK_COMPLETED || ret->result.status == TASK_FAILED;
	d.workflow = unquoted(d.part[WORKFLOW]);
	d.n_tasks = hatchet_run_count(d.part[DECLARED].ptr ? d.part[DECLARED] : d.part[TASKS]);
	look_at_tasks(&d);
	if (ret->result.cancelled) {
		d.error = (struct run_piece){text->len, sizeof("cancelled") - 1, true};
		buf_puts(text, "cancelled");
	} else if (ret->result.status == TASK_FAILED) {
		hatchet_run_take_failure(&d);
	}
	hatchet_run_finish(&d);
	return text->error;
}
