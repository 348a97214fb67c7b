/* `migration-router evaluate`: single lines, and the sub-command as a program. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/crypto.h"
#include "base/file.h"
#include "programs/router/evaluate.h"
#include "support/scratch.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

#define FLAGS \
	"flags:\n" \
	"- {key: b, type: boolean, rollouts: [{segment: {key: s, value: true}}]}\n" \
	"- {key: v, enabled: true, variants: [{key: x, attachment: {a: [1, 2]}}], rules: [{segment: s, " \
	"distributions: [{variant: x, rollout: 100}]}]}\n" \
	"segments:\n" \
	"- {key: s, constraints: [{type: string, property: p, operator: contains, value: y}]}\n"

static struct flag_snapshot *flags(void)
{
	struct flag_snapshot *s = NULL;
	struct err e;
	if (flag_snapshot_parse_features("f", SPAN_LIT(FLAGS), FLAG_RULES_V2, &s, &e) < 0)
		fail_msg("%s", e.text);
	return s;
}

static void lines(void **state)
{
	static const struct {
		const char *in, *out; /* out: the answer, or the error without braces */
	} rows[] = {
		{"{\"flag\": \"b\", \"type\": \"boolean\", \"entity_id\": \"e\", \"context\": {\"p\": "
		 "\"x\\u0000y\"}}",
		 "{\"flag\": \"b\", \"type\": \"boolean\", \"entity_id\": \"e\", \"context\": {\"p\": "
		 "\"x\\u0000y\"}, "
		 "\"result\": {\"enabled\": true, \"reason\": \"MATCH_EVALUATION_REASON\", \"segment_keys\": "
		 "[\"s\"]}}"},
		{" { \"result\" : {\"enabled\": 1}, \"n\": 1.0, \"flag\":\"b\" } ",
		 "{\"n\": 1.0, \"flag\": \"b\", \"result\": {\"enabled\": false, \"reason\": "
		 "\"DEFAULT_EVALUATION_REASON\", \"segment_keys\": []}}"},
		{"{\"flag\": \"v\", \"context\": {\"p\": \"\\u0000y\", \"q\": null}}",
		 "{\"flag\": \"v\", \"context\": {\"p\": \"\\u0000y\", \"q\": null}, \"result\": {\"match\": "
		 "true, "
		 "\"variant_key\": \"x\", \"reason\": \"MATCH_EVALUATION_REASON\", \"segment_keys\": "
		 "[\"s\"], "
		 "\"attachment\": \"{\\\"a\\\":[1,2]}\"}}"},
		{"{\"flag\": \"no\\\"pe\"}",
		 "{\"flag\": \"no\\\"pe\", \"result\": {\"error\": \"flag \\\"no\\\"pe\\\" not found\"}}"},
		{"{\"flag\": \"b\", \"type\": \"variant\"}",
		 "{\"flag\": \"b\", \"type\": \"variant\", \"result\": {\"error\": \"flag \\\"b\\\" is a "
		 "boolean flag\"}}"},
		{"{\"flag\": \"v\", \"type\": \"boolean\"}",
		 "{\"flag\": \"v\", \"type\": \"boolean\", \"result\": {\"error\": \"flag \\\"v\\\" is a "
		 "variant flag\"}}"},
		{"[]", "must be an object"},
		{"{}", "flag: is missing"},
		{"{\"flag\": 1}", "flag: must be a string"},
		{"{\"flag\": \"b\", \"type\": \"odd\"}", "type: must be \"variant\" or \"boolean\""},
		{"{\"flag\": \"b\", \"entity_id\": 5}", "entity_id: must be a string"},
		{"{\"flag\": \"b\", \"context\": []}", "context: must be an object"},
		{"{\"flag\": \"b\", \"context\": {\"a\": 1}}", "context: values: must be a string"}};
	struct flag_snapshot *s = flags();
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct buf out = BUF_INIT(1 << 16);
		struct err e = {""};
		int r = evaluate_line(s, span_of(rows[i].in), &out, &e);
		bool wanted = rows[i].out[0] == '{';
		if (wanted != (r == 0) || strcmp(rows[i].out, wanted ? out.ptr : e.text) != 0)
			fail_msg("row %zu: %s %s", i, out.ptr, e.text);
		buf_release(&out);
	}
	flag_snapshot_unref(s);
}

static void context_has_a_limit(void **state)
{
	struct flag_snapshot *s = flags();
	struct buf in = BUF_INIT(1 << 20), out = BUF_INIT(1 << 20);
	struct err e;
	(void)state;
	buf_puts(&in, "{\"flag\": \"b\", \"context\": {\"p\": \"\"");
	for (int i = 1; i < EVALUATE_MAX_CONTEXT; i++)
		buf_printf(&in, ", \"k%d\": \"v\"", i);
	size_t n = in.len;
	buf_puts(&in, "}}");
	assert_int_equal(evaluate_line(s, buf_span(&in), &out, &e), 0);
	in.len = n;
	buf_puts(&in, ", \"more\": \"\"}}");
	assert_int_equal(evaluate_line(s, buf_span(&in), &out, &e), -EBADMSG);
	buf_release(&in);
	buf_release(&out);
	flag_snapshot_unref(s);
}

/* --- the program ---------------------------------------------------------------------------------------- */
static char folder[SCRATCH_MAX];

/* Runs the program that lies beside this one; returns its exit code and what it wrote. */
static int run(const char *arguments, const char *input, struct buf *out, struct buf *err)
{
	char self[SCRATCH_MAX] = "", command[2048], path[SCRATCH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	assert_true(n > 0);
	*strrchr(self, '/') = '\0';
	scratch_path(folder, "in", path);
	assert_int_equal(file_replace(path, span_of(input), 0600, NULL), 0);
	snprintf(command, sizeof(command), "cd '%s' && '%s/evaluate' < in > out 2> err %s", folder, self,
		 arguments);
	int status = system(command);
	assert_true(WIFEXITED(status));
	*out = *err = BUF_INIT(1 << 20);
	scratch_path(folder, "out", path);
	assert_int_equal(file_read(path, 1 << 20, out, NULL), 0);
	scratch_path(folder, "err", path);
	assert_int_equal(file_read(path, 1 << 20, err, NULL), 0);
	return WEXITSTATUS(status);
}

static void check_run(const char *arguments, const char *input, int code, const char *out_part,
		      const char *err_part)
{
	struct buf out, err;
	int got = run(arguments, input, &out, &err);
	if (got != code || !strstr(buf_span(&out).ptr, out_part) || !strstr(buf_span(&err).ptr, err_part))
		fail_msg("%s: %d\n%s\n%s", arguments, got, out.ptr, err.ptr);
	buf_release(&out);
	buf_release(&err);
}

static void program(void **state)
{
	(void)state;
	check_run("--features flags.yml", "{\"flag\": \"b\"}\n\n{\"flag\": \"v\"}", 0,
		  "{\"flag\": \"v\", \"result\"", "");
	check_run("--features=flags.yml --v1", "", 0, "", "");
	check_run("--features flags.yml", "{\"flag\": \"b\"}\r\n{\"flag\": 7}\n{\"flag\": \"v\"}\n", 2,
		  "{\"flag\": \"b\"", "evaluate: line 2: flag: must be a string\n");
	check_run("--features flags.yml", "{\"flag\": \"b\"}\n{\"flag\": \"b\"\n", 2, "",
		  "evaluate: line 2: ");
	check_run("--snapshot flags.yml", "", 1, "", "evaluate: flags.yml: ");
	check_run("--features none.yml", "", 1, "", "evaluate: none.yml: No such file");
	check_run("", "", 2, "", "give either --features or --snapshot");
	check_run("--features flags.yml --snapshot x", "", 2, "", "give either");
	check_run("--features flags.yml more", "", 2, "", "requests are read from standard input");
	check_run("--odd", "", 2, "", "usage: migration-router evaluate");
	check_run("--help", "", 0, "", "usage: migration-router evaluate");
	check_run("--features flags.yml > /dev/full", "{\"flag\": \"b\"}\n", 1, "", "cannot be written");
}

static int make_folder(void **state)
{
	char path[SCRATCH_MAX];
	(void)state;
	scratch_make(folder);
	scratch_path(folder, "flags.yml", path);
	return file_replace(path, SPAN_LIT(FLAGS), 0600, NULL);
}

static int remove_folder(void **state)
{
	(void)state;
	scratch_remove(folder);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines),
		cmocka_unit_test(context_has_a_limit),
		cmocka_unit_test_setup_teardown(program, make_folder, remove_folder),
	};
	return crypto_setup() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
