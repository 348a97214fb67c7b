/* Messages and results of Celery, against what was recorded from the real thing (tests/fixtures/celery). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/json.h"
#include "tasks/celery/celery.h"
#include "base/rabbit_url.h"
#include "tasks/celery/celery_message.h"
#include "tasks/celery/celery_meta.h"
#include "tasks/python_json.h"
#include "tasks/task_options.h"

static struct json_doc *fixture(const char *name)
{
	char path[512];
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20);
	struct json_doc *doc;
	struct err e = {""};
	snprintf(path, sizeof(path), "%s/tests/fixtures/celery/%s", getenv("SOURCE_ROOT"), name);
	assert_int_equal(file_read(path, 1u << 20, &text, &e), 0);
	assert_int_equal(json_doc_parse(buf_span(&text), &doc, &e), 0);
	return doc;
}

static const struct json_node *member(const struct json_doc *doc, const char *begin)
{
	for (const struct json_node *n = json_first(json_root(doc)); n; n = json_next(n))
		if (strncmp(json_key(n), begin, strlen(begin)) == 0)
			return n;
	fail_msg("the fixture has no %s", begin);
	return NULL;
}

/* --- messages ------------------------------------------------------------------------------------------- */

static bool differs_by_nature(const char *key)
{
	static const char *const keys[] = {"id",       "root_id",      "origin",  "correlation_id",
					   "reply_to", "delivery_tag", "expires", "x"};
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (strcmp(key, keys[i]) == 0)
			return true;
	return false;
}

static void assert_same(const struct json_node *ours, const struct json_node *real)
{
	CLEANUP(buf_releasep) struct buf a = BUF_INIT(1u << 20), b = BUF_INIT(1u << 20);
	for (const struct json_node *n = json_first(real); n; n = json_next(n)) {
		const struct json_node *m = json_get(ours, json_key(n));
		if (strcmp(json_key(n), "ignore_result") == 0) {
			/* null leaves it to the task's own setting, and nobody would ever be told */
			bool ignored = true;
			assert_true(json_bool(m, &ignored) && !ignored);
		} else if (!differs_by_nature(json_key(n)) || json_node_type(n) == JSON_NULL) {
			buf_clear(&a);
			buf_clear(&b);
			json_print(m, &a);
			json_print(n, &b);
			assert_string_equal(a.ptr, b.ptr);
		} else if (strcmp(json_key(n), "x") != 0) {
			assert_non_null(json_string(m));
			assert_int_equal(strchr("eo", json_key(n)[0]) ? 36 : strlen(json_string(m)), 36);
		}
	}
}

static void messages_equal_the_recorded_ones(void **state)
{
	static const struct {
		const char *begin, *args, *kwargs, *queue;
		int priority;
		unsigned expires_ms;
	} cases[] = {{"send_task(\"add\", args=[1,2], kwargs", "[1, 2]", "{\"k\": \"v\"}", "q1", 0, 0},
		     {"send_task(\"add\", args=[1,2], queue=\"q2\"", "[1, 2]", NULL, "q2", 5, 30000}};
	struct celery_sender sender;
	struct json_doc *doc = fixture("messages.json"), *ours;
	(void)state;
	celery_sender_init(&sender);
	for (size_t i = 0; i < 2; i++) {
		CLEANUP(buf_releasep) struct buf key = BUF_INIT(512), text = BUF_INIT(1u << 20);
		const struct json_node *real = member(doc, cases[i].begin),
				       *message = json_get(real, "message");
		struct task_call call = {.task = SPAN_LIT("add"),
					 .task_id = SPAN_LIT("f330837c-a97e-4bec-9696-a7d7efd28411"),
					 .args = span_of(cases[i].args),
					 .kwargs = span_of(cases[i].kwargs),
					 .priority = cases[i].priority,
					 .expires_ms = cases[i].expires_ms};
		celery_queue_key(&celery_lists_default, span_of(cases[i].queue), call.priority, &key);
		assert_string_equal(key.ptr, json_string(json_get(real, "queue")));
		assert_int_equal(celery_task_message(&sender, &call, span_of(cases[i].queue),
						     1795248104123456, NULL, &text),
				 0);
		assert_int_equal(json_doc_parse(buf_span(&text), &ours, NULL), 0);
		assert_same(json_get(json_root(ours), "headers"), json_get(message, "headers"));
		assert_same(json_get(json_root(ours), "properties"), json_get(message, "properties"));
		assert_string_equal(json_string(json_get(json_root(ours), "body")),
				    json_string(json_get(message, "body")));
		assert_int_equal(json_count(json_root(ours)), json_count(message));
		json_doc_free(ours);
	}
	json_doc_free(doc);
}

/* The ids within a body; the one that we have given stays. */
static void hide_ids(char *text)
{
	static const char given[] = "11111111-1111-4111-8111-111111111111";
	for (char *at = text; (at = strchr(at, '"'));) {
		char *end = strchr(++at, '"');
		if (!end)
			return;
		if (end - at == 36 && at[8] == '-' && at[23] == '-' && memcmp(at, given, 36) != 0)
			memset(at, '*', 36);
		at = end + 1;
	}
}

static void chains_equal_the_recorded_ones(void **state)
{
	static struct workflow_definition two = {
		.n_steps = 2,
		.steps = {{.task = SPAN_INIT("extract"), .kwargs = "{\"deep\": true}"},
			  {.task = SPAN_INIT("llm")}},
	};
	static struct workflow_definition three = {
		.n_steps = 3,
		.steps = {{.task = SPAN_INIT("extract"), .timeout_ms = 60000},
			  {.task = SPAN_INIT("llm"), .kwargs = "{\"prompt\": \"p\"}", .timeout_ms = 2500},
			  {.task = SPAN_INIT("store"), .input = STEP_INPUT_WORKFLOW}},
	};
	const struct {
		const char *name, *args, *queue;
		const struct workflow_definition *workflow;
		int priority;
		unsigned expires_ms;
	} cases[] = {{"two steps", "[{\"a\": 1}]", "celery", &two, 0, 0},
		     {"three steps", "[1, \"x\"]", "q", &three, 5, 30000}};
	struct celery_sender sender;
	struct json_doc *doc = fixture("chains.json"), *ours;
	(void)state;
	celery_sender_init(&sender);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct json_node *message = json_get(member(doc, cases[i].name), "message");
		const struct task_call call = {.task = SPAN_LIT("w"),
					       .workflow = true,
					       .args = span_of(cases[i].args),
					       .task_id = SPAN_LIT("11111111-1111-4111-8111-111111111111"),
					       .priority = cases[i].priority,
					       .expires_ms = cases[i].expires_ms};
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20);
		CLEANUP(buf_releasep) struct buf body = BUF_INIT(1u << 20);
		CLEANUP(buf_releasep) struct buf real = BUF_INIT(1u << 20);
		assert_int_equal(celery_chain_message(&sender, &call, cases[i].workflow,
						      span_of(cases[i].queue), 1795248104123456, NULL, &text),
				 0);
		assert_int_equal(json_doc_parse(buf_span(&text), &ours, NULL), 0);
		assert_same(json_get(json_root(ours), "headers"), json_get(message, "headers"));
		assert_same(json_get(json_root(ours), "properties"), json_get(message, "properties"));
		assert_int_equal(
			base64_decode(span_of(json_string(json_get(json_root(ours), "body"))), &body), 0);
		assert_int_equal(base64_decode(span_of(json_string(json_get(message, "body"))), &real), 0);
		hide_ids(body.ptr);
		hide_ids(real.ptr);
		assert_string_equal(body.ptr, real.ptr);
		json_doc_free(ours);
	}
	json_doc_free(doc);
}

static void values_keep_their_bytes(void **state)
{
	const struct task_call call = {.task = SPAN_LIT("t"),
				       .task_id = SPAN_LIT("i"),
				       .args = SPAN_LIT("[9007199254740993,1.0, 1e400]"),
				       .kwargs = SPAN_LIT("{\"\\u00e4\": -0}"),
				       .timeout_ms = 2500,
				       .expires_ms = 1};
	struct celery_sender sender;
	struct span f[3];
	const struct span pointers[] = {SPAN_LIT("/body"), SPAN_LIT("/headers/expires"),
					SPAN_LIT("/headers/timelimit")};
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20), body = BUF_INIT(1u << 20);
	(void)state;
	celery_sender_init(&sender);
	assert_int_equal(celery_task_message(&sender, &call, SPAN_LIT("q"), 1795248104999000, NULL, &text),
			 0);
	assert_int_equal(json_pointers(buf_span(&text), pointers, 3, f, NULL), 0);
	assert_int_equal(base64_decode((struct span){f[0].ptr + 1, f[0].len - 2}, &body), 0);
	assert_string_equal(body.ptr, "[[9007199254740993,1.0, 1e400], {\"\\u00e4\": -0}, {\"callbacks\": "
				      "null, \"errbacks\": null, "
				      "\"chain\": null, \"chord\": null}]");
	/* Python leaves out a fraction of zero */
	assert_true(span_is(f[1], "\"2026-11-21T08:01:45+00:00\""));
	assert_true(span_is(f[2], "[2.5, null]"));
}

static void representations(void **state)
{
	/* What Celery 5.7's saferepr gives, asked with the same limit. */
	static const struct {
		const char *json, *repr;
		size_t max;
	} cases[] = {{"[]", "[]", 100},
		     {"{}", "{}", 100},
		     {"[1, 2.0, 1e5, true, null]", "[1, 2.0, 100000.0, True, None]", 100},
		     {"{\"k\": \"v\"}", "{'k': 'v'}", 100},
		     {"[\"it's\"]", "['it\\'s']", 100},
		     {"[[[[1]]]]", "[[[[...]]]]", 100},
		     {"[{\"a\": {\"b\": {\"c\": 1}}}]", "[{'a': {'b': {...}}}]", 100},
		     {"[\"\\u00e4\\ud83d\\ude00\"]", "['\xc3\xa4\xf0\x9f\x98\x80']", 100},
		     {"[1, 2, 3]", "[1, 2, 3]", 9},
		     {"[1, 2, 3]", "[1, 2..., ...]", 5},
		     {"[[1, 2], [3, 4]]", "[[1, 2...], ...]", 6},
		     {"[\"one two three\"]", "['one...']", 8},
		     {"[\"abcdefghij\", 2]", "['abcd...', ...]", 5}};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
		assert_int_equal(celery_repr(span_of(cases[i].json), cases[i].max, &out), 0);
		assert_string_equal(out.ptr, cases[i].repr);
	}
}

static void control_messages(void **state)
{
	struct json_doc *doc = fixture("messages.json"), *ours, *body;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 16);
	CLEANUP(buf_releasep) struct buf decoded = BUF_INIT(1u << 16);
	CLEANUP(buf_releasep) struct buf a = BUF_INIT(4096);
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(4096);
	(void)state;
	assert_int_equal(
		celery_control_message("celery", "revoke",
				       SPAN_LIT("{\"task_id\": \"40db9bb2-3e00-40a3-abb5-3d44d3f84762\", "
						"\"terminate\": false, \"signal\": \"SIGTERM\"}"),
				       NULL, SPAN_NONE, NULL, &text),
		0);
	assert_int_equal(json_doc_parse(buf_span(&text), &ours, NULL), 0);
	assert_string_equal(
		json_string(json_get(json_get(json_get(json_root(ours), "properties"), "delivery_info"),
				     "exchange")),
		"celery.pidbox");
	assert_int_equal(base64_decode(span_of(json_string(json_get(json_root(ours), "body"))), &decoded), 0);
	assert_int_equal(json_doc_parse(buf_span(&decoded), &body, NULL), 0);
	json_print(json_root(body), &a);
	json_print(member(doc, "revoke"), &b);
	assert_string_equal(a.ptr, b.ptr);
	json_doc_free(body);
	json_doc_free(ours);
	json_doc_free(doc);
}

/* --- results -------------------------------------------------------------------------------------------- */

#define EXC(type, message) "{\"exc_type\": \"" type "\", \"exc_message\": " message ", \"exc_module\": \"m\"}"

static void a_message_of_any_length_is_told(void **state)
{
	(void)state;
	for (size_t n = 1u << 10; n <= 4u << 20; n *= 4) {
		struct celery_meta m = CELERY_META_INIT;
		struct task_result r;
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(8u << 20);
		buf_puts(&text,
			 "{\"status\": \"FAILURE\", \"result\": {\"exc_type\": \"E\", \"exc_message\": [\"");
		for (size_t i = 0; i < n; i += 2)
			buf_puts(&text, "\xc3\xa9");
		buf_puts(&text, "\"]}}");
		celery_meta_read(&m, buf_span(&text), SPAN_LIT("id"), &r);
		assert_int_equal(r.status, TASK_FAILED);
		assert_true(span_starts(r.error, SPAN_LIT("\xc3\xa9\xc3\xa9")));
		assert_true(r.error.len == n ||
			    memcmp(r.error.ptr + r.error.len - 3, "\xe2\x80\xa6", 3) == 0);
		celery_meta_release(&m);
	}
}

static void states(void **state)
{
	static const struct {
		const char *meta;
		enum task_status status;
		const char *result, *error, *detail;
		bool cancelled;
		unsigned attempts;
	} cases[] = {
		{"{\"status\": \"PENDING\", \"result\": null}", TASK_PENDING, NULL, NULL, NULL, false, 0},
		{"{\"status\": \"RECEIVED\", \"result\": null}", TASK_RUNNING, NULL, NULL, NULL, false, 1},
		{"{\"status\": \"STARTED\", \"result\": {\"pid\": 1}}", TASK_RUNNING, NULL, NULL, NULL, false,
		 1},
		{"{\"status\": \"RETRY\", \"retries\": 2, \"result\": " EXC("E", "[\"x\"]") "}", TASK_RUNNING,
		 NULL, NULL, NULL, false, 3},
		{"{\"status\": \"PROGRESS\", \"result\": {\"p\": 1}}", TASK_RUNNING, NULL, NULL, NULL, false,
		 1},
		{"{\"status\": \"SUCCESS\", \"result\": {\"n\": 9007199254740993, \"f\":1.0}}",
		 TASK_COMPLETED, "{\"n\": 9007199254740993, \"f\":1.0}", NULL, NULL, false, 1},
		{"{\"status\": \"SUCCESS\", \"result\": null}", TASK_COMPLETED, "null", NULL, NULL, false, 1},
		{"{\"status\": \"SUCCESS\"}", TASK_COMPLETED, "null", NULL, NULL, false, 1},
		{"{\"status\": \"SUCCESS\", \"retries\": 1, \"result\": \"SUCCESS\"}", TASK_COMPLETED,
		 "\"SUCCESS\"", NULL, NULL, false, 2},
		{"{\"status\": \"FAILURE\", \"traceback\": \"T\\nT\", \"result\": " EXC(
			 "ValueError", "[\"bad input\"]") "}",
		 TASK_FAILED, NULL, "bad input", "T\nT", false, 1},
		{"{\"status\": \"FAILURE\", \"result\": " EXC("ValueError", "\"old form\"") "}", TASK_FAILED,
		 NULL, "old form", "m.ValueError", false, 1},
		{"{\"status\": \"FAILURE\", \"result\": " EXC("KeyError", "[\"k\"]") "}", TASK_FAILED, NULL,
		 "KeyError: k", "m.KeyError", false, 1},
		{"{\"status\": \"FAILURE\", \"result\": " EXC("OSError", "[2, \"No such file\"]") "}",
		 TASK_FAILED, NULL, "[Errno 2] No such file", "m.OSError", false, 1},
		{"{\"status\": \"FAILURE\", \"result\": " EXC("TimeLimitExceeded", "[30]") "}", TASK_FAILED,
		 NULL, "timed out after 30 s", "m.TimeLimitExceeded", false, 1},
		{"{\"status\": \"FAILURE\", \"result\": " EXC("SoftTimeLimitExceeded", "[]") "}", TASK_FAILED,
		 NULL, "timed out", "m.SoftTimeLimitExceeded", false, 1},
		{"{\"status\": \"FAILURE\", \"result\": " EXC("Boom", "[]") "}", TASK_FAILED, NULL, "Boom",
		 "m.Boom", false, 1},
		{"{\"status\": \"FAILURE\", \"result\": " EXC("Boom", "[\"\"]") "}", TASK_FAILED, NULL,
		 "Boom", "m.Boom", false, 1},
		{"{\"status\": \"FAILURE\", \"result\": " EXC("NotRegistered", "[\"nope\"]") "}", TASK_FAILED,
		 NULL, "the task nope is not registered with the worker that received it", "m.NotRegistered",
		 false, 1},
		{"{\"status\": \"FAILURE\", \"result\": \"a text\"}", TASK_FAILED, NULL, "a text", NULL,
		 false, 1},
		{"{\"status\": \"REVOKED\", \"result\": " EXC("TaskRevokedError", "[\"revoked\"]") "}",
		 TASK_FAILED, NULL, "revoked", "m.TaskRevokedError", true, 1},
		{"{\"status\": \"REVOKED\", \"result\": " EXC("TaskRevokedError", "[\"terminated\"]") "}",
		 TASK_FAILED, NULL, "terminated", "m.TaskRevokedError", true, 1},
		{"{\"status\": \"REVOKED\", \"result\": " EXC("TaskRevokedError", "[\"expired\"]") "}",
		 TASK_FAILED, NULL, "expired", "m.TaskRevokedError", false, 1},
		{"{\"status\": \"FAILURE\", \"result\": " EXC("ValueError", "[\"a\", \"b\"]") "}",
		 TASK_FAILED, NULL, "('a', 'b')", "m.ValueError", false, 1},
		{"{\"status\": \"FAILURE\", \"result\": " EXC("CalledProcessError", "[1, [\"false\"]]") "}",
		 TASK_FAILED, NULL, "Command '['false']' returned non-zero exit status 1.",
		 "m.CalledProcessError", false, 1},
		{"{\"status\": \"FAILURE\", \"result\": " EXC(
			 "UnpickleableExceptionWrapper", "[\"m\", \"Custom\", [\"x\"], \"Custom('x')\"]") "}",
		 TASK_FAILED, NULL, "Custom('x')", "m.UnpickleableExceptionWrapper", false, 1},
		{"{\"status\": \"FAILURE\", \"traceback\": \"Traceback (most recent call last):\\n  "
		 "File\\nm.f.<locals>.E: told: 5\\n\", "
		 "\"result\": " EXC("f.<locals>.E", "[5]") "}",
		 TASK_FAILED, NULL, "told: 5",
		 "Traceback (most recent call last):\n  File\nm.f.<locals>.E: told: 5\n", false, 1}};
	struct celery_meta m = CELERY_META_INIT;
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct task_result r;
		assert_int_equal(celery_meta_read(&m, span_of(cases[i].meta), SPAN_LIT("id"), &r), 0);
		assert_int_equal(r.status, cases[i].status);
		assert_true(cases[i].result ? span_is(r.result, cases[i].result) : r.result.ptr == NULL);
		if (cases[i].error)
			assert_non_null(
				memmem(r.error.ptr, r.error.len, cases[i].error, strlen(cases[i].error)));
		else
			assert_null(r.error.ptr);
		assert_true(cases[i].detail ? span_is(r.error_detail, cases[i].detail)
					    : r.error_detail.ptr == NULL);
		assert_int_equal(r.cancelled, cases[i].cancelled);
		assert_int_equal(r.attempts, cases[i].attempts);
		assert_true(span_is(r.task_id, "id"));
	}
	celery_meta_release(&m);
}

/* Only a final state is an end, whatever stands beside it. */
static void what_cannot_be_read(void **state)
{
#define TEXT(s) SPAN_INIT(s)
	static const struct {
		struct span meta;
		int error;
		enum task_status status;
	} cases[] = {
		{TEXT("{\"status\": \"PROGRESS\", \"result\": {\"percent\": NaN}}"), 0, TASK_RUNNING},
		{TEXT("{\"result\": {\"status\": \"SUCCESS\", \"x\": Infinity}, \"status\": \"PROGRESS\"}"),
		 0, TASK_RUNNING},
		{TEXT("{\"status\": \"SUCCESS\", \"result\": NaN}"), TASK_E_UNREADABLE, TASK_RUNNING},
		{TEXT("{\"status\": \"FAILURE\", \"result\": [-Infinity]}"), 0, TASK_FAILED},
		{TEXT("\x80\x04\x95k\x00\x00\x00\x00\x00\x00\x00}\x94("
		      "\x8c\x06status\x94\x8c\x07STARTED\x94\x8c\x06result\x94"),
		 0, TASK_RUNNING},
		{TEXT("\x80\x04\x95k\x00\x00\x00\x00\x00\x00\x00}\x94("
		      "\x8c\x06status\x94\x8c\x07SUCCESS\x94\x8c\x06result\x94K\x03"),
		 TASK_E_UNREADABLE, TASK_RUNNING},
		{TEXT("children: []\nresult: |\n  \n  status: SUCCESS\nstatus: STARTED\ntask_id: x\n"), 0,
		 TASK_RUNNING},
		{TEXT("children: []\nresult: 3\nstatus: SUCCESS\ntask_id: x\n"), TASK_E_UNREADABLE,
		 TASK_RUNNING},
		{TEXT("\x86\xa6status\xa7SUCCESS\xa6result\x03"), TASK_E_UNREADABLE, TASK_RUNNING},
		{TEXT("x\x9c\x4b\xcb"), 0, TASK_RUNNING},
		{TEXT("{\"result\": 1}"), 0, TASK_RUNNING},
		{TEXT(""), 0, TASK_RUNNING},
		{TEXT("{\"status\": \"SUCC"), 0, TASK_RUNNING},
		{TEXT("\x06status"), 0, TASK_RUNNING}};
	struct celery_meta m = CELERY_META_INIT;
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct task_result r;
		assert_int_equal(celery_meta_read(&m, cases[i].meta, SPAN_LIT("id"), &r), cases[i].error);
		assert_int_equal(r.status, cases[i].status);
	}
	celery_meta_release(&m);
}

static void types_of_kombu(void **state)
{
#define WRAPPED(type, value) "{\"__type__\": \"" type "\", \"__value__\": " value "}"
	static const struct {
		const char *given, *expected;
	} cases[] = {
		{WRAPPED("datetime", "\"2024-01-02T03:04:05+00:00\""), "\"2024-01-02T03:04:05Z\""},
		{WRAPPED("datetime", "\"2024-01-02T03:04:05.5\""), "\"2024-01-02T03:04:05.5\""},
		{WRAPPED("date", "\"2024-01-02\""), "\"2024-01-02T00:00:00\""},
		{WRAPPED("time", "\"03:04:05\""), "\"03:04:05\""},
		{WRAPPED("decimal", "\"1.50\""), "\"1.50\""},
		{WRAPPED("uuid", "{\"hex\": \"0123456789abcdef0123456789abcdef\"}"),
		 "\"01234567-89ab-cdef-0123-456789abcdef\""},
		{WRAPPED("bytes", "\"te\\u0000xt\""), "\"te\\u0000xt\""},
		{WRAPPED("base64", "\"/w==\""), "\"/w==\""},
		{"[1.0, {\"a\": " WRAPPED("decimal", "\"1\"") ", \"b\": [" WRAPPED("time", "\"x\"") "]}]",
		 "[1.0, {\"a\": \"1\", \"b\": [\"x\"]}]"},
		{WRAPPED("mine", "1"), WRAPPED("mine", "1")},
		{"{\"__type__\": \"decimal\", \"__value__\": \"1\", \"more\": 2}",
		 "{\"__type__\": \"decimal\", \"__value__\": \"1\", \"more\": 2}"}};
	struct celery_meta m = CELERY_META_INIT;
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[1000];
		struct task_result r;
		snprintf(text, sizeof(text), "{\"status\": \"SUCCESS\", \"result\": %s}", cases[i].given);
		assert_int_equal(celery_meta_read(&m, span_of(text), SPAN_LIT("id"), &r), 0);
		assert_string_equal(m.result.ptr ? m.result.ptr : "", cases[i].expected);
		assert_true(span_is(r.result, cases[i].expected));
	}
	celery_meta_release(&m);
}

static void inputs_that_python_reads_otherwise(void **state)
{
	static const struct {
		const char *json;
		bool good;
	} cases[] = {{"[{\"__type__\": \"decimal\", \"__value__\": \"1\"}]", false},
		     {"[[{\"a\": {\"__value__\": 1, \"__type__\": 2}}]]", false},
		     {"{\"__type__\" : 1,\"__value__\":2}", false},
		     {"[{\"\\u005f_type__\": 1, \"__val\\u0075e__\": 2}]", false},
		     {"[{\"__type__\": 1, \"__value__\": 2, \"__type__\": 3}]", false},
		     {"[{\"__type__\": 1, \"__value__\": 2, \"x\": 3}]", true},
		     {"[{\"__type__\": 1}, {\"__value__\": 2}]", true},
		     {"[\"__type__\", \"__value__\", {\"x\": \"__type__\", \"y\": \"__value__\"}]", true},
		     {"[\"{\\\"__type__\\\": 1, \\\"__value__\\\": 2}\"]", true},
		     {"[]", true}};
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(100000);
	struct err e;
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(python_json_check(span_of(cases[i].json), true, &e) == 0, cases[i].good);
	assert_int_equal(python_json_check(span_of(cases[0].json), false, &e), 0);
	for (int more = 0; more < 2; more++) {
		buf_clear(&text);
		for (int i = 0; i < PYTHON_DIGITS_MAX + more; i++)
			buf_putc(&text, '7');
		assert_int_equal(python_json_check(buf_span(&text), true, &e) == 0, !more);
		buf_clear(&text);
		for (int i = 0; i < CELERY_LEVELS_MAX + more; i++)
			buf_putc(&text, '[');
		for (int i = 0; i < CELERY_LEVELS_MAX + more; i++)
			buf_putc(&text, ']');
		assert_int_equal(python_json_check(buf_span(&text), true, &e) == 0, !more);
	}
}

static void times(void **state)
{
	static const struct {
		const char *date;
		int64_t us;
	} cases[] = {{"\"2026-11-21T00:34:31.165943+00:00\"", 1795221271165943},
		     {"\"2026-11-21T00:34:31\"", 1795221271000000},
		     {"\"2026-11-21T02:34:31.5+02:00\"", 1795221271500000},
		     {"\"2026-11-20T19:04:31-05:30\"", 1795221271000000},
		     {"null", 0},
		     {"\"yesterday\"", 0}};
	struct celery_meta m = CELERY_META_INIT;
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[200];
		struct task_result r;
		snprintf(text, sizeof(text),
			 "{\"status\": \"SUCCESS\", \"name\": \"add\", \"date_done\": %s}", cases[i].date);
		celery_meta_read(&m, span_of(text), SPAN_LIT("id"), &r);
		assert_int_equal(r.completed_us, cases[i].us);
		assert_true(span_is(r.task_name, "add"));
	}
	celery_meta_release(&m);
}

/* --- settings ------------------------------------------------------------------------------------------- */

static void settings(void **state)
{
	static const struct {
		const char *key, *value, *complaint;
	} cases[] = {{"queue", "executor", NULL},
		     {"queue", "", "name"},
		     {"queue", "two words", "name"},
		     {"max_input", "1048576", NULL},
		     {"max_input", "64MiB", NULL},
		     {"max_input", "10KiB", NULL},
		     {"max_input", "-1", "bytes"},
		     {"max_input", "400MiB", "bytes"},
		     {"max_input", "64m", "bytes"},
		     {"max_input", "18446744073709551615KiB", "bytes"},
		     {"command_timeout", "250ms", NULL},
		     {"command_timeout", "2h", "duration"},
		     {"command_timeout", "soon", "duration"},
		     {"terminate", "true", NULL},
		     {"terminate", "yes", "true or false"},
		     {"control_exchange", "other", NULL},
		     {"broker", "x", "available: broker_url, result_backend, "},
#ifdef REDIS_HAS_TLS
		     {"broker_url", "rediss://:secret@h", NULL},
#else
		     {"broker_url", "rediss://:secret@h", "TLS"},
#endif
		     {"broker_url", "amqp://user:secret@h:5672//", NULL},
		     {"broker_url", "amqp://user:secret@h/%2Fa;amqp://[::1]:1/v", NULL},
		     {"broker_url", "amqps://user:secret@h/?ssl_ca_certs=/ca&ssl_certfile=/c&ssl_keyfile=/k",
		      NULL},
		     {"broker_url", "amqp://user:secret@h:0/", "port"},
		     {"broker_url", "amqp://user:secret@h/?ssl_ca_certs=/ca", "amqps"},
		     {"broker_url", "amqps://user:secret@h/?ssl_certfile=/c", "ssl_keyfile"},
		     {"broker_url", "amqps://user:secret@h/?ssl_cert_reqs=maybe", "CERT_REQUIRED"},
		     {"broker_url", "amqp://user:secret@h;http://h", "amqp://"},
		     {"broker_url", "redis://:secret@h/1", NULL},
		     {"result_backend", "rpc://", NULL},
		     {"result_backend", "db+postgresql://user:secret@h/db", NULL},
		     {"result_backend", "db+postgresql+psycopg2://user:secret@h/db", NULL},
		     {"result_backend", "db+mysql://user:secret@h/db", "redis://"},
		     {"result_backend", "redis://h/2", NULL},
		     {"health_interval", "1s", NULL},
		     {"connect_timeout", "1s", NULL}};
	const struct task_backend_setup setup = {.data_dir = "."};
	struct task_options *o;
	struct err e;
	(void)state;
	assert_int_equal(task_options_new(&celery_backend, &o, &e), 0);
	assert_true(task_options_check(o, &setup, &e) < 0);
	assert_non_null(strstr(e.text, "broker_url"));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int r = task_options_set(o, span_of(cases[i].key), span_of(cases[i].value), &e);
		assert_int_equal(r < 0, cases[i].complaint != NULL);
		if (r < 0) {
			assert_non_null(strstr(e.text, cases[i].complaint));
			assert_null(strstr(e.text, "secret"));
		}
	}
	assert_int_equal(task_options_check(o, &setup, &e), 0);
	task_options_free(o);
}

/* Each broker with each result store: what there is no way for is said before anything is connected. */
static void brokers_and_results(void **state)
{
	static const struct {
		const char *broker, *results, *complaint;
	} cases[] = {{"amqp://h", NULL, "result_backend is missing"},
		     {"redis://h", "rpc://", "needs amqp://"},
		     {"amqp://h", "redis://h", NULL},
		     {"amqp://h", "rpc://", NULL},
		     {"redis://h", NULL, NULL}};
	const struct task_backend_setup setup = {.data_dir = "."};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct task_options *o;
		struct err e = {""};
		assert_int_equal(task_options_new(&celery_backend, &o, &e), 0);
		assert_int_equal(task_options_set(o, SPAN_LIT("broker_url"), span_of(cases[i].broker), &e),
				 0);
		if (cases[i].results)
			assert_int_equal(task_options_set(o, SPAN_LIT("result_backend"),
							  span_of(cases[i].results), &e),
					 0);
		int r = task_options_check(o, &setup, &e);
		if (r < 0 && strstr(e.text, "this build has no")) /* no librabbitmq: said, too */
			assert_true(rabbit_url_is(span_of(cases[i].broker)));
		else if (cases[i].complaint)
			assert_non_null(strstr(e.text, cases[i].complaint));
		else
			assert_int_equal(r, 0);
		task_options_free(o);
	}
}

int main(void)
{
	crypto_setup();
	const struct CMUnitTest tests[] = {cmocka_unit_test(messages_equal_the_recorded_ones),
					   cmocka_unit_test(chains_equal_the_recorded_ones),
					   cmocka_unit_test(values_keep_their_bytes),
					   cmocka_unit_test(representations),
					   cmocka_unit_test(control_messages),
					   cmocka_unit_test(a_message_of_any_length_is_told),
					   cmocka_unit_test(states),
					   cmocka_unit_test(times),
					   cmocka_unit_test(what_cannot_be_read),
					   cmocka_unit_test(types_of_kombu),
					   cmocka_unit_test(inputs_that_python_reads_otherwise),
					   cmocka_unit_test(settings),
					   cmocka_unit_test(brokers_and_results)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
