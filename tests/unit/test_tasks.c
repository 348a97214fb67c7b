/* Core tasks, their numbers and texts, the registry's file, templates of calls, base64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/file.h"
#include "base/json.h"
#include "tasks/backends.h"
#include "tasks/number.h"
#include "tasks/python_text.h"
#include "tasks/worker/builtin.h"
#include "tasks/worker/call_template.h"
#include "tasks/worker/registry.h"

static bool never_stopped(void *arg, unsigned ms)
{
	*(unsigned *)arg = ms;
	return true;
}

static int run(const char *name, const char *args, const char *kwargs, struct buf *out, struct err *e)
{
	unsigned slept = 0;
	struct builtin_call call = {.sleep = never_stopped, .sleep_arg = &slept};
	const struct builtin *b = core_task_find(span_of(name));
	assert_non_null(b);
	int r = builtin_bind(b, span_of(args), span_of(kwargs), &call, e);
	if (r == 0)
		r = b->run(&call, out, e);
	if (r == 0)
		assert_int_equal(json_validate(buf_span(out), NULL), 0);
	return r;
}

static void core_tasks_answer_as_in_python(void **state)
{
	(void)state;
	static const struct {
		const char *name, *args, *kwargs, *result;
	} cases[] = {{"add_numbers", "[1, 2]", NULL, "3"},
		     {"add_numbers", "[]", "{\"b\": 2, \"a\": -5}", "-3"},
		     {"add_numbers", "[1]", "{\"b\": 2}", "3"},
		     {"add_numbers", "[9007199254740993, 0]", NULL, "9007199254740993"},
		     {"add_numbers", "[99999999999999999999999999, 1]", NULL, "100000000000000000000000000"},
		     {"add_numbers", "[100000000000000000000, -1]", NULL, "99999999999999999999"},
		     {"add_numbers", "[-7, 7]", NULL, "0"},
		     {"add_numbers", "[-0, -0]", NULL, "0"},
		     {"add_numbers", "[1.0, 2]", NULL, "3.0"},
		     {"add_numbers", "[0.1, 0.2]", NULL, "0.30000000000000004"},
		     {"add_numbers", "[1e16, 0]", NULL, "1e+16"},
		     {"add_numbers", "[1e15, 0]", NULL, "1000000000000000.0"},
		     {"add_numbers", "[1e-5, 0]", NULL, "1e-05"},
		     {"add_numbers", "[1.5e-7, 0]", NULL, "1.5e-07"},
		     {"add_numbers", "[0.0001, 0]", NULL, "0.0001"},
		     {"add_numbers", "[-1.5, 0]", NULL, "-1.5"},
		     {"concat_with_number", "[\"n\\u00e9 \", 5]", NULL, "\"n\xc3\xa9 5\""},
		     {"concat_with_number", "[\"x\", 1.50]", NULL, "\"x1.5\""},
		     {"concat_with_number", "[\"x\", 1e3]", NULL, "\"x1000.0\""},
		     {"format_result_message", "[42]", NULL, "\"Result is 42\""},
		     {"format_result_message", "[9007199254740993]", NULL, "\"Result is 9007199254740993\""},
		     {"echo", "[\"hi \\\"you\\\"\"]", NULL, "\"Echo: hi \\\"you\\\"\""},
		     {"echo", NULL, "{\"message\": \"\"}", "\"Echo: \""}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
		struct err e = {""};
		assert_int_equal(run(cases[i].name, cases[i].args, cases[i].kwargs, &out, &e), 0);
		assert_string_equal(out.ptr, cases[i].result);
	}
}

static void wrong_arguments_are_named(void **state)
{
	(void)state;
	static const struct {
		const char *name, *args, *kwargs, *error;
	} cases[] = {
		{"add_numbers", "[1]", NULL, "add_numbers() missing required argument: 'b'"},
		{"add_numbers", NULL, NULL, "add_numbers() missing required argument: 'a'"},
		{"add_numbers", "[1,2,3]", NULL,
		 "add_numbers() takes 2 positional arguments but 3 were given"},
		{"add_numbers", "[1,2]", "{\"c\":3}", "add_numbers() got an unexpected keyword argument 'c'"},
		{"add_numbers", "[1,2]", "{\"b\":3}", "add_numbers() got multiple values for argument 'b'"},
		{"add_numbers", "[1,\"2\"]", NULL,
		 "add_numbers() argument 'b' must be a number, not a string"},
		{"add_numbers", "[true,2]", NULL,
		 "add_numbers() argument 'a' must be a number, not a boolean"},
		{"add_numbers", "[1e308,1e308]", NULL,
		 "add_numbers() the sum of 'a' and 'b' is not a finite number"},
		{"echo", "[null]", NULL, "echo() argument 'message' must be a string, not null"},
		{"process_data", "[[1]]", NULL,
		 "process_data() argument 'data' must be an object, not an array"},
		{"simulate_work", "[-1]", NULL,
		 "simulate_work() argument 'duration' must be from 0 to 86400 seconds"},
		{"health_check", "[1]", NULL,
		 "health_check() takes 0 positional arguments but 1 were given"}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
		struct err e = {""};
		assert_true(run(cases[i].name, cases[i].args, cases[i].kwargs, &out, &e) < 0);
		assert_string_equal(e.text, cases[i].error);
	}
}

static void expect_at(const struct buf *json, const char *pointer, const char *value)
{
	struct span got;
	assert_true(json_pointer(buf_span(json), span_of(pointer), &got));
	if (!span_is(got, value))
		fail_msg("%s: expected %s, got %.*s", pointer, value, SPAN_ARG(got));
}

static void process_data_does_three_things(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
	struct err e = {""};
	struct span none;
	assert_int_equal(run("process_data", "[{\"a\": 1.0}]", NULL, &out, &e), 0);
	expect_at(&out, "/original", "{\"a\": 1.0}");
	expect_at(&out, "/operation", "\"validate\"");
	expect_at(&out, "/status", "\"completed\"");
	expect_at(&out, "/valid", "true");
	buf_clear(&out);
	assert_int_equal(run("process_data", "[{}]", NULL, &out, &e), 0);
	expect_at(&out, "/valid", "false");
	buf_clear(&out);
	assert_int_equal(run("process_data", "[{\"a\":1,\"b\":2}, \"count\"]", NULL, &out, &e), 0);
	expect_at(&out, "/count", "2");
	assert_false(json_pointer(buf_span(&out), SPAN_LIT("/valid"), &none));
	buf_clear(&out);
	assert_int_equal(run("process_data",
			     "[{\"s\":\"stra\\u00dfe "
			     "\\u00e9\",\"n\":1e3,\"t\":true,\"z\":null,\"l\":[1,\"a\",{\"k\":null}]}]",
			     "{\"operation\":\"transform\"}", &out, &e),
			 0);
	expect_at(&out, "/transformed/s", "\"STRASSE \xc3\x89\"");
	expect_at(&out, "/transformed/n", "\"1000.0\"");
	expect_at(&out, "/transformed/t", "\"TRUE\"");
	expect_at(&out, "/transformed/z", "\"NONE\"");
	expect_at(&out, "/transformed/l", "\"[1, 'A', {'K': NONE}]\"");
}

static void simulate_work_and_health_check_say_what_they_did(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
	struct err e = {""};
	assert_int_equal(run("simulate_work", NULL, NULL, &out, &e), 0);
	expect_at(&out, "/requested_duration", "1");
	expect_at(&out, "/status", "\"completed\"");
	buf_clear(&out);
	assert_int_equal(run("health_check", NULL, NULL, &out, &e), 0);
	expect_at(&out, "/status", "\"healthy\"");
	expect_at(&out, "/worker", "\"task-abstraction\"");
	expect_at(&out, "/message", "\"Worker is operational\"");
}

/* --- registry ------------------------------------------------------------------------------------------- */

static const char *environment(const char *name)
{
	return strcmp(name, "HOST") == 0 ? "example.org" : NULL;
}

static int load(const char *yaml, struct buf *problems, struct registry **ret)
{
	char path[] = "registry-XXXXXX"; /* where the test runs: in the build folder */
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, yaml, strlen(yaml)), strlen(yaml));
	close(fd);
	CLEANUP(buf_releasep) struct buf raw = BUF_INIT(1 << 16);
	int r = registry_load(&(struct registry_source){.paths = path}, environment, &raw, ret);
	unlink(path);
	/* Without the name, which chance made. */
	for (const char *at = raw.ptr; at && *at;) {
		const char *nl = strchr(at, '\n');
		if (strncmp(at, path, strlen(path)) == 0)
			at += strlen(path) + 1;
		buf_append(problems, at, (size_t)(nl - at) + 1);
		at = nl + 1;
	}
	return r;
}

static void the_registry_is_read(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1 << 16);
	struct registry *r = NULL;
	int code = load(
		"tasks:\n"
		"  - {name: a, builtin: echo, queue: q, idempotent: true, timeout: 2s}\n"
		"  - name: b\n"
		"    http: {url: 'https://${HOST}:${PORT:-99}/x', timeout: 1s, body: {x: {$ref: "
		"'args:/0'}}}\n"
		"    timeout: 90s\n"
		"workflows:\n"
		"  - {name: w, steps: [{task: b}, {name: again, task: b, kwargs: {n: 1.0}, input: none}]}\n",
		&problems, &r);
	assert_string_equal(problems.ptr ? problems.ptr : "", "");
	assert_int_equal(code, 0);
	const struct task_definition *a = registry_task(r, SPAN_LIT("a")),
				     *b = registry_task(r, SPAN_LIT("b"));
	assert_int_equal(a->max_attempts, 3);
	assert_int_equal(a->timeout_ms, 2000);
	assert_true(span_is(a->queue, "q"));
	assert_int_equal(b->max_attempts, 1);
	assert_int_equal(b->timeout_ms, 1000);
	assert_string_equal(b->http->url, "https://example.org:99/x");
	const struct workflow_definition *w = registry_workflow(r, SPAN_LIT("w"));
	assert_int_equal(w->n_steps, 2);
	assert_true(span_is(w->steps[0].name, "b"));
	assert_string_equal(w->steps[1].kwargs, "{\"n\":1.0}");
	registry_free(r);
}

static void all_mistakes_are_told_at_once(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1 << 16);
	struct registry *r = NULL;
	assert_int_equal(load("tasks:\n"
			      "  - {name: a, builtin: ecko}\n"
			      "  - {name: a, builtin: echo, max_attempts: 2, colour: red}\n"
			      "  - {name: c, exec: {argv: ls, timeout: soon, max_output: 1TB}}\n"
			      "  - {name: d, http: {url: 'http://u:p@h/', body: {$ref: 'body:/x'}}}\n"
			      "  - {name: e, http: {url: '${NOTHING}/'}, builtin: echo}\n"
			      "  - {builtin: echo}\n"
			      "workflows:\n"
			      "  - {name: w, steps: [{task: b, input: next}]}\n"
			      "extra: 1\n"
			      "wrkflows: []\n"
			      "x-anchors: [1]\n",
			      &problems, &r),
			 -EBADMSG);
	static const char *const expected[] = {
		"2: tasks[0].builtin: there is no built-in task of this name; available: add_numbers",
		"3: tasks[1].name: \"a\" is declared twice",
		"3: tasks[1].colour: unknown key; known here: name, queue",
		"3: tasks[1].max_attempts: may exceed 1 only if idempotent is true",
		"4: tasks[2].exec.argv: must be a list",
		"4: tasks[2].exec.timeout: expected a duration from 1ms to 7d (500ms, 5s, 2m, 1h, 7d), not "
		"\"soon\"\n",
		"4: tasks[2].exec.max_output: expected a size from 1 to 64MiB (bytes, or with KiB, MiB, "
		"GiB), not \"1TB\"\n",
		"5: tasks[3].http.url: must not contain a user or password",
		"5: tasks[3].http.body: unknown source \"body:/x\"",
		"6: tasks[4].http.url: the environment variable NOTHING is not set",
		"6: tasks[4]: needs exactly one of builtin, exec and http",
		"7: tasks[5].name: is missing",
		"9: workflows[0].steps[0].task: unknown task \"b\"; did you mean",
		"9: workflows[0].steps[0].input: expected previous, workflow or none, not \"next\"",
		"10: extra: unknown key; known here: tasks, workflows",
		"11: wrkflows: unknown key; did you mean \"workflows\"?"};
	size_t lines = 0;
	for (size_t i = 0; i < problems.len; i++)
		lines += problems.ptr[i] == '\n';
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		if (!strstr(problems.ptr, expected[i]))
			fail_msg("missing: %s\nin: %s", expected[i], problems.ptr);
	assert_int_equal(lines, sizeof(expected) / sizeof(expected[0]));
}

static void the_shipped_registry_is_valid(void **state)
{
	(void)state;
	char path[512];
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1 << 16);
	struct registry *r = NULL;
	snprintf(path, sizeof(path), "%s/config/tasks.yml", getenv("SOURCE_ROOT"));
	const struct registry_source source = {.paths = path};
	assert_int_equal(registry_load(&source, environment, &problems, &r), 0);
	assert_non_null(registry_workflow(r, SPAN_LIT("document-processing-v2")));
	registry_free(r);
}

/* --- templates, base64, backends ------------------------------------------------------------------------ */

static void templates_take_values_as_they_are(void **state)
{
	(void)state;
	static const struct {
		const char *template, *filled; /* filled NULL: -ENOENT */
	} cases[] = {{"{\"a\":{\"$ref\":\"args:/0\"},\"b\":[{\"$ref\":\"kwargs:/k/x\"}]}",
		      "{\"a\":1.0,\"b\":[\"v\"]}"},
		     {"{\"$ref\":\"args:\"}", "[1.0]"},
		     {"[{\"$ref\":\"task:id\"},{\"$ref\":\"task:name\"}]", "[\"i\",\"n\"]"},
		     {"{\"$ref\":\"args:/9\",\"default\":null}", "null"},
		     {"{\"$ref\":\"args:/9\"}", NULL}};
	struct handler_call call = {.task_id = SPAN_LIT("i"),
				    .name = SPAN_LIT("n"),
				    .args = SPAN_LIT("[1.0]"),
				    .kwargs = SPAN_LIT("{\"k\":{\"x\":\"v\"}}")};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
		struct err e = {""};
		int r = call_template_fill(span_of(cases[i].template), &call, &out, &e);
		assert_int_equal(r, cases[i].filled ? 0 : -ENOENT);
		if (cases[i].filled)
			assert_string_equal(out.ptr, cases[i].filled);
	}
}

static void base64_both_ways(void **state)
{
	(void)state;
	/* RFC 4648 §10 */
	static const char *const pairs[][2] = {{"", ""},
					       {"f", "Zg=="},
					       {"fo", "Zm8="},
					       {"foo", "Zm9v"},
					       {"foob", "Zm9vYg=="},
					       {"fooba", "Zm9vYmE="},
					       {"foobar", "Zm9vYmFy"}};
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(64), back = BUF_INIT(64);
		assert_int_equal(base64_encode(span_of(pairs[i][0]), &text), 0);
		assert_string_equal(text.ptr ? text.ptr : "", pairs[i][1]);
		assert_int_equal(base64_decode(span_of(pairs[i][1]), &back), 0);
		assert_true(span_is(buf_span(&back), pairs[i][0]));
	}
	static const char *const bad[] = {
		"Z", "Zg", "Zg=", "Zg===", "Z===", "====", "Zg==Zg==", "Zm9v!", "Zm 9v", "Zg=a"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CLEANUP(buf_releasep) struct buf back = BUF_INIT(64);
		assert_int_equal(base64_decode(span_of(bad[i]), &back), -EINVAL);
	}
}

static void an_unknown_backend_lists_those_there_are(void **state)
{
	(void)state;
	struct err e = {""};
	assert_non_null(task_backend_find(SPAN_LIT("embedded")));
	assert_null(task_backend_find(SPAN_LIT("ingest")));
	assert_false(task_backend_is_name(SPAN_LIT("ingest")));
	assert_true(task_backend_not_found(SPAN_LIT("ingest"), &e) < 0);
	assert_non_null(strstr(e.text, "there is no backend \"ingest\"; available: embedded"));
}

static void a_result_as_json(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
	struct task_result r = {.task_id = SPAN_LIT("i"),
				.task_name = SPAN_LIT("n"),
				.status = TASK_COMPLETED,
				.result = SPAN_LIT("1.0"),
				.started_us = 1000000,
				.completed_us = 2500000};
	assert_int_equal(task_result_to_json(&r, &out), 0);
	assert_string_equal(
		out.ptr,
		"{\"task_id\":\"i\",\"task_name\":\"n\",\"status\":\"completed\",\"result\":1.0,\"error\":"
		"null,"
		"\"started_at\":\"1970-01-01T00:00:01.000Z\",\"completed_at\":\"1970-01-01T00:00:02.500Z\"}");
	buf_clear(&out);
	r = (struct task_result){.task_id = SPAN_LIT("i"),
				 .task_name = SPAN_LIT("n"),
				 .status = TASK_FAILED,
				 .error = SPAN_LIT("a \"b\"")};
	assert_int_equal(task_result_to_json(&r, &out), 0);
	assert_string_equal(out.ptr, "{\"task_id\":\"i\",\"task_name\":\"n\",\"status\":\"failed\","
				     "\"result\":null,\"error\":\"a \\\"b\\\"\","
				     "\"started_at\":null,\"completed_at\":null}");
	buf_clear(&out);
	r = (struct task_result){.task_id = SPAN_LIT("i"), .status = TASK_PENDING};
	assert_int_equal(task_result_to_json(&r, &out), 0);
	assert_string_equal(out.ptr,
			    "{\"task_id\":\"i\",\"task_name\":null,\"status\":\"pending\",\"result\":"
			    "null,\"error\":null,\"started_at\":null,\"completed_at\":null}");
}

#define FRAMES "Traceback (most recent call last):\n  File \"x.py\", line 1, in <module>\n    f()\n    ^^^\n"

static void the_message_of_a_traceback(void **state)
{
	(void)state;
	static const struct {
		const char *text, *message; /* NULL: none */
	} cases[] = {{FRAMES "ValueError: the disk is purple\n", "the disk is purple"},
		     {FRAMES "package.mod.Error2: two\n  lines\n\n", "two\n  lines"},
		     {FRAMES "KeyError: 'inner'\n\nDuring handling of the above exception, another exception "
			     "occurred:\n\n" FRAMES "OSError: outer\n",
		      "outer"},
		     {"starting\n" FRAMES "KeyError: 'k'\n", "KeyError: 'k'"},
		     {FRAMES "ValueError: ValueError: twice\n", "ValueError: twice"},
		     {FRAMES "ValueError\n", "ValueError"},
		     {FRAMES, NULL},
		     {"the disk is purple\n", NULL},
		     {"said: Traceback (most recent call last):\nno\n", NULL},
		     {"", NULL}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct span m = python_raised(span_of(cases[i].text));
		if (cases[i].message ? !span_is(m, cases[i].message) : m.ptr != NULL)
			fail_msg("case %zu: \"%.*s\"", i, SPAN_ARG(m));
	}
}

/* The task's own message stays, on whichever backend it ran; but for its secrets, and without the detail. */
static void callers_are_told_the_message_and_no_secret(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
		{"the model is away", "the model is away"},
		{"two\nlines \xc3\xbc", "two\nlines \xc3\xbc"},
		{"429 Client Error for url: https://u:S3CRET@h/v1?key=S3CRET",
		 "429 Client Error for url: https://***@h/v1?key=***"},
		{"OperationalError: postgresql://app:S3CRET@db:5432/x",
		 "OperationalError: postgresql://***@db:5432/x"},
		{"Error connecting to redis://:S3CRET@10.0.0.1:6379/0",
		 "Error connecting to redis://***@10.0.0.1:6379/0"},
		{"headers={'Authorization': 'Bearer S3CRET'}", "headers={'Authorization': 'Bearer ***'}"},
		{"", ""}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct task_result r = {.task_id = SPAN_LIT("1"),
					      .task_name = SPAN_LIT("t"),
					      .status = TASK_FAILED,
					      .error = span_of(cases[i][0]),
					      .error_detail = SPAN_LIT("S3CRET")};
		struct task_result told;
		CLEANUP(buf_releasep) struct buf room = BUF_INIT(1000), json = BUF_INIT(1000);
		assert_int_equal(task_result_for_callers(&r, &room, &told), 0);
		assert_true(span_is(told.error, cases[i][1]));
		assert_null(told.error_detail.ptr);
		assert_int_equal(task_result_to_json(&told, &json), 0);
		assert_null(strstr(json.ptr, "S3CRET"));
	}
	const struct task_result fine = {.status = TASK_COMPLETED, .result = SPAN_LIT("1")};
	struct task_result told;
	struct buf none = BUF_INIT(0);
	assert_int_equal(task_result_for_callers(&fine, &none, &told), 0);
	assert_null(told.error.ptr);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(callers_are_told_the_message_and_no_secret),
		cmocka_unit_test(core_tasks_answer_as_in_python),
		cmocka_unit_test(wrong_arguments_are_named),
		cmocka_unit_test(process_data_does_three_things),
		cmocka_unit_test(simulate_work_and_health_check_say_what_they_did),
		cmocka_unit_test(the_registry_is_read),
		cmocka_unit_test(all_mistakes_are_told_at_once),
		cmocka_unit_test(the_shipped_registry_is_valid),
		cmocka_unit_test(templates_take_values_as_they_are),
		cmocka_unit_test(base64_both_ways),
		cmocka_unit_test(the_message_of_a_traceback),
		cmocka_unit_test(an_unknown_backend_lists_those_there_are),
		cmocka_unit_test(a_result_as_json),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
