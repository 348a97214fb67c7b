/* router: problem. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

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
		{{.status = 504, .instance = SPAN_LIT("a b/\"\xff:\\"), .members = members, .n_members = COUNT(members)},
		 "{\"type\":\"about:blank\",\"title\":\"Gateway Timeout\",\"status\":504,\"instance\":\"a%20b%2F%22%FF%3A%5C\","
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
		cmocka_unit_test(titles),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
