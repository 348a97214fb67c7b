/* router: problem. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/json.h"
#include "router/problem.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void bodies(void **state)
{
	(void)state;
	const struct problem_member members[] = {
		{"task_id", SPAN_LIT("t\"1"), false},
		{"attempts", SPAN_LIT("[1,2]"), true},
		{"worker", SPAN_NONE, false},
	};
	const struct {
		struct problem problem;
		const char *json;
	} cases[] = {
		{{.status = 504}, "{\"type\":\"about:blank\",\"title\":\"Gateway Timeout\",\"status\":504}"},
		{{.status = 502,
		  .type = "https://example.org/refused",
		  .title = "Refused",
		  .detail = SPAN_LIT("it said \"no\"\n"),
		  .instance = SPAN_LIT("6f1e-_.~")},
		 "{\"type\":\"https://example.org/refused\",\"title\":\"Refused\",\"status\":502,"
		 "\"detail\":\"it said \\\"no\\\"\\n\",\"instance\":\"6f1e-_.~\"}"},
		{{.status = 504,
		  .instance = SPAN_LIT("a b/\"\xff:\\"),
		  .members = members,
		  .n_members = COUNT(members)},
		 "{\"type\":\"about:blank\",\"title\":\"Gateway "
		 "Timeout\",\"status\":504,\"instance\":\"a%20b%2F%22%FF%3A%5C\","
		 "\"task_id\":\"t\\\"1\",\"attempts\":[1,2],\"worker\":null}"},
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(1000), small = BUF_INIT(20);
		assert_int_equal(problem_render(&cases[i].problem, &out), 0);
		assert_string_equal(out.ptr, cases[i].json);
		assert_int_equal(json_validate(buf_span(&out), NULL), 0);
		assert_int_equal(problem_render(&cases[i].problem, &small), -EFBIG);
	}
}

static void every_text_leaves_a_whole_document(void **state)
{
	(void)state;
	static char large[1 << 20];
	static const char *const fillers[] = {"x", "\xc3\xa9", "\"\\\n", "\xff", "\x1b", "\xf0\x9f\x98\x80"};
	static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 65 << 10, 200000, 1 << 20};
	for (size_t f = 0; f < COUNT(fillers); f++) {
		for (size_t i = 0; i < sizeof(large); i++)
			large[i] = fillers[f][i % strlen(fillers[f])];
		large[10] = '\0'; /* does not end it */
		for (size_t s = 0; s < COUNT(sizes); s++) {
			struct span text = {large, sizes[s]}, detail, status;
			const struct problem_member member = {"task_id", text, false};
			struct problem p = {.status = 500,
					    .detail = text,
					    .instance = text,
					    .members = &member,
					    .n_members = 1};
			CLEANUP(buf_releasep) struct buf out = BUF_INIT(PROBLEM_MAX);
			CLEANUP(buf_releasep) struct buf said = BUF_INIT(1 << 20);
			assert_int_equal(problem_render(&p, &out), 0);
			assert_int_equal(json_validate(buf_span(&out), NULL), 0);
			assert_true(json_pointer(buf_span(&out), SPAN_LIT("/status"), &status) &&
				    span_is(status, "500"));
			assert_true(json_pointer(buf_span(&out), SPAN_LIT("/detail"), &detail));
			assert_int_equal(json_unescape(detail, &said), 0);
			if (sizes[s] > PROBLEM_TEXT_MAX)
				assert_string_equal(said.ptr + said.len - 3, "\xe2\x80\xa6");
			else
				assert_true(sizes[s] < 11 || memchr(said.ptr, '\0', said.len));
		}
	}
}

static void what_does_not_fit_leaves_nothing_behind(void **state)
{
	(void)state;
	const struct problem p = {
		.status = 500, .detail = SPAN_LIT("a detail of some length"), .instance = SPAN_LIT("id")};
	bool short_one = false, whole = false;
	for (size_t max = 0; max < 200; max++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(max);
		if (problem_render(&p, &out) != 0) {
			assert_int_equal(out.len, 0);
			continue;
		}
		assert_int_equal(json_validate(buf_span(&out), NULL), 0);
		*(json_pointer(buf_span(&out), SPAN_LIT("/detail"), &(struct span){0}) ? &whole
										       : &short_one) = true;
	}
	assert_true(short_one && whole);
}

static void titles(void **state)
{
	(void)state;
	assert_string_equal(problem_title(413), "Content Too Large");
	assert_string_equal(problem_title(508), "Loop Detected");
	assert_string_equal(problem_title(418), "Client Error");
	assert_string_equal(problem_title(599), "Server Error");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bodies),
		cmocka_unit_test(every_text_leaves_a_whole_document),
		cmocka_unit_test(what_does_not_fit_leaves_nothing_behind),
		cmocka_unit_test(titles),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
