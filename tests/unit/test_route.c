/* route: what matches which operation, and above all what does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "base/cleanup.h"
#include "config/config.h"
#include "operation/plain_path.h"
#include "operation/route.h"

DEFINE_CLEANUP(struct route_table *, route_table_free)

/* clang-format off */
#define OPERATION(n, m, p) {.name = SPAN_INIT(n), .method = SPAN_INIT(m), .path = SPAN_INIT(p)}
/* clang-format on */

static const struct operation operations[] = {
	OPERATION("param", "GET", "/v1/{id}"),
	OPERATION("literal", "GET", "/v1/health"),
	OPERATION("two", "GET", "/v1/{id}/{part}"),
	OPERATION("left", "GET", "/v1/x/{part}"),
	OPERATION("right", "GET", "/v1/{id}/y"),
	OPERATION("run", "POST", "/v1/api/container/run"),
	OPERATION("root", "GET", "/"),
	OPERATION("slash", "GET", "/dir/"),
	OPERATION("escaped", "GET", "/caf%c3%A9/a:b"),
	OPERATION("remove", "DELETE", "/v1/{id}"),
};

static struct route_table *table(void)
{
	struct route_table *t = NULL;
	struct err e = {""};
	if (route_table_new(operations, sizeof(operations) / sizeof(operations[0]), &t, &e) != 0)
		fail_msg("%s", e.text);
	return t;
}

static void matches(void **state)
{
	(void)state;
	CLEANUP(route_table_freep) struct route_table *t = table();
	static const struct {
		const char *method, *target, *operation, *parameters;
	} cases[] = {
		{"POST", "/v1/api/container/run", "run", ""},
		{"POST", "/v1/api/container/run?a=/x//..", "run", ""},
		{"GET", "/v1/health", "literal", ""},
		{"GET", "/v1/he%61lth", "literal", ""},
		{"GET", "/%761/%7E", "param", "id=%7E "},
		{"GET", "/v1/x%20y", "param", "id=x%20y "},
		{"GET", "/v1/healthy", "param", "id=healthy "},
		{"DELETE", "/v1/health", "remove", "id=health "},
		{"GET", "/v1/x/y", "left", "part=y "},
		{"GET", "/v1/z/y", "right", "id=z "},
		{"GET", "/v1/z/q", "two", "id=z part=q "},
		{"GET", "/", "root", ""},
		{"GET", "/?", "root", ""},
		{"GET", "/dir/", "slash", ""},
		{"GET", "/caf%C3%a9/a:b", "escaped", ""},
		{"GET", "/v1/...", "param", "id=... "},
		/* Everything below belongs to no operation. */
		{"GET", "/v1/api/container/run", NULL, NULL},
		{"post", "/v1/api/container/run", NULL, NULL},
		{"HEAD", "/v1/health", NULL, NULL},
		{"POST", "/V1/api/container/run", NULL, NULL},
		{"POST", "/v1/api/container/run/", NULL, NULL},
		{"POST", "//v1/api/container/run", NULL, NULL},
		{"POST", "/v1//api/container/run", NULL, NULL},
		{"POST", "/v1/./api/container/run", NULL, NULL},
		{"POST", "/v1/api/x/../container/run", NULL, NULL},
		{"POST", "/v1%2Fapi/container/run", NULL, NULL},
		{"POST", "http://host/v1/api/container/run", NULL, NULL},
		{"POST", "/v1/api/container/run#f", NULL, NULL},
		{"POST", "/v1/api/container/run;a=b", NULL, NULL},
		{"GET", "/v1/..", NULL, NULL},
		{"GET", "/v1/.", NULL, NULL},
		{"GET", "/v1/%2e%2E", NULL, NULL},
		{"GET", "/v1/.%2e", NULL, NULL},
		{"GET", "/v1/", NULL, NULL},
		{"GET", "/v1", NULL, NULL},
		{"GET", "/v1/a%2Fb", NULL, NULL},
		{"GET", "/v1/a%2fb", NULL, NULL},
		{"GET", "/v1/a%00b", NULL, NULL},
		{"GET", "/v1/a%", NULL, NULL},
		{"GET", "/v1/a%4", NULL, NULL},
		{"GET", "/v1/a%zz", NULL, NULL},
		{"GET", "/v1/a b", NULL, NULL},
		{"GET", "/v1/a\tb", NULL, NULL},
		{"GET", "/v1/\xc3\xa9", NULL, NULL},
		{"GET", "/v1/a\\b", NULL, NULL},
		{"GET", "/dir", NULL, NULL},
		{"GET", "/caf\xc3\xa9/a:b", NULL, NULL},
		{"GET", "/caf%C3%A9/a%3Ab", NULL, NULL},
		{"OPTIONS", "*", NULL, NULL},
		{"CONNECT", "host:80", NULL, NULL},
		{"GET", "", NULL, NULL},
		{"GET", "?", NULL, NULL},
		{"GET", "/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2", NULL, NULL},
		{"GET", "/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3/4", NULL, NULL},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct route_match m;
		bool found = route_match(t, span_of(cases[i].method), span_of(cases[i].target), &m);
		if (found != (cases[i].operation != NULL))
			fail_msg("%s %s: %s", cases[i].method, cases[i].target,
				 found ? "matched" : "did not match");
		if (!found) {
			assert_null(m.operation);
			continue;
		}
		assert_true(span_is(m.operation->name, cases[i].operation));
		CLEANUP(buf_releasep) struct buf seen = BUF_INIT(1024);
		buf_puts(&seen, "");
		for (size_t p = 0; p < m.n_parameters; p++)
			buf_printf(&seen, "%.*s=%.*s ", SPAN_ARG(m.parameters[p].name),
				   SPAN_ARG(m.parameters[p].value));
		assert_string_equal(seen.ptr, cases[i].parameters);
	}
}

static void parameters_are_decoded(void **state)
{
	(void)state;
	CLEANUP(route_table_freep) struct route_table *t = table();
	struct route_match m;
	assert_true(route_match(t, SPAN_LIT("GET"), SPAN_LIT("/v1/a%20+%C3%A9?id=x"), &m));
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(6);
	assert_true(route_parameter(&m, SPAN_LIT("id"), &out));
	assert_string_equal(out.ptr, "a +\xc3\xa9");
	assert_false(route_parameter(&m, SPAN_LIT("part"), &out));
	out.max = 3;
	buf_clear(&out);
	assert_false(route_parameter(&m, SPAN_LIT("id"), &out));
}

static void query_parameters(void **state)
{
	(void)state;
	static const struct {
		const char *target, *name, *value;
	} cases[] = {
		{"/p?a=1&b=2", "a", "1"},
		{"/p?a=1&b=2", "b", "2"},
		{"/p?b=2&a=1&a=3", "a", "1"},
		{"/p?container_name=a%2Fb+c%2B", "container_name", "a/b c+"},
		{"/p?%61=x", "a", "x"},
		{"/p?a+b=x", "a b", "x"},
		{"/p?a", "a", ""},
		{"/p?a=", "a", ""},
		{"/p?a=b=c", "a", "b=c"},
		{"/p?&&a=1", "a", "1"},
		{"/p?a=%zz%4", "a", "%zz%4"},
		{"/p?x?a=1", "x?a", "1"},
		{"/p?aa=1", "a", NULL},
		{"/p?a=1", "aa", NULL},
		{"/p?a=1", "A", NULL},
		{"/p?", "a", NULL},
		{"/p", "p", NULL},
		{"", "a", NULL},
		/* beyond the buffer */
		{"/p?a=12345678901234567890123456789012345678901234567890", "a", NULL},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(32);
		bool found = route_query(span_of(cases[i].target), span_of(cases[i].name), &out);
		assert_int_equal(found, cases[i].value != NULL);
		if (found)
			assert_true(span_is(buf_span(&out), cases[i].value));
	}
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(3);
	struct span target = SPAN_LIT("/p?a=1&b=x&a=&a=1234&a=2");
	size_t at = 0;
	assert_true(route_query_next(target, SPAN_LIT("a"), &at, &out) && span_is(buf_span(&out), "1"));
	assert_true(route_query_next(target, SPAN_LIT("a"), &at, &out) && span_is(buf_span(&out), ""));
	assert_true(route_query_next(target, SPAN_LIT("a"), &at, &out) && out.error && out.len == 0);
	assert_true(route_query_next(target, SPAN_LIT("a"), &at, &out) && span_is(buf_span(&out), "2"));
	assert_int_equal(out.error, 0);
	assert_false(route_query_next(target, SPAN_LIT("a"), &at, &out));
	assert_false(route_query_next(target, SPAN_LIT("a"), &at, &out));
}

static void parameters_that_nobody_knows_or_given_twice_are_told(void **state)
{
	(void)state;
	static const char *const names[] = {"service", "operation"};
	static const struct {
		const char *target, *sentence;
	} cases[] = {{"/p", NULL},
		     {"/p?", NULL},
		     {"/p?&operation=a&&service=", NULL},
		     {"/p?o%70eration=a", NULL},
		     {"/p?operation=a&operation=b", "operation is given twice"},
		     {"/p?operation=a&o%70eration=a", "operation is given twice"},
		     {"/p?service=a&bogus=1", "unknown parameter \"bogus\""},
		     {"/p?Service=a", "unknown parameter \"Service\""},
		     {"/p?=a", "unknown parameter \"\""}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err e = {""};
		int r = route_query_check(span_of(cases[i].target), names, 2, &e);
		assert_int_equal(r < 0, cases[i].sentence != NULL);
		assert_string_equal(e.text, cases[i].sentence ? cases[i].sentence : "");
	}
}

static void bad_templates(void **state)
{
	(void)state;
	static const struct {
		const char *path, *text;
	} cases[] = {{"", "a path begins with \"/\""},
		     {"v1", "a path begins with \"/\""},
		     {"/a?b=1", "a path has no \"?\" or \"#\": query parameters are not matched"},
		     {"/a#b", "a path has no \"?\" or \"#\": query parameters are not matched"},
		     {"/a//b", "an empty segment (\"//\") never matches"},
		     {"/a/../b", "the segment \"..\" never matches"},
		     {"/a/%2e", "the segment \"%2e\" never matches"},
		     {"/a b", "the segment \"a b\" never matches"},
		     {"/a%2Fb", "the segment \"a%2Fb\" never matches"},
		     {"/a%", "the segment \"a%\" never matches"},
		     {"/{}", "the parameter {} must be named with letters, digits and \"_\""},
		     {"/{a-b}", "the parameter {a-b} must be named with letters, digits and \"_\""},
		     {"/x{a}", "a parameter must be a whole segment: {name}, not \"x{a}\""},
		     {"/{a}/{b}/{a}", "the parameter {a} is listed twice"},
		     {"/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}", "more than 8 parameters"},
		     {"/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3",
		      "more than 32 segments"}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err e = {""};
		assert_int_equal(route_template_check(span_of(cases[i].path), &e), -EINVAL);
		assert_string_equal(e.text, cases[i].text);
	}
	assert_int_equal(route_template_check(SPAN_LIT("/"), NULL), 0);
	assert_int_equal(route_template_check(SPAN_LIT("/a/{b_1}/c.d~e-f/"), NULL), 0);
}

static void doubles_are_refused(void **state)
{
	(void)state;
	static const struct operation pairs[][2] = {
		{OPERATION("one", "GET", "/a/{x}"), OPERATION("two", "GET", "/a/{y}")},
		{OPERATION("one", "GET", "/a/b%c3"), OPERATION("two", "GET", "/%61/b%C3")}};
	for (size_t i = 0; i < 2; i++) {
		struct route_table *t = NULL;
		struct err e = {""};
		assert_int_equal(route_table_new(pairs[i], 2, &t, &e), -EEXIST);
		assert_string_equal(e.text, "the operations \"one\" and \"two\" match the same requests");
		assert_null(t);
	}
	static const struct operation apart[] = {OPERATION("one", "GET", "/a/{x}"),
						 OPERATION("two", "PUT", "/a/{y}"),
						 OPERATION("three", "GET", "/{a}/x")};
	struct route_table *t = NULL;
	assert_int_equal(route_table_new(apart, 3, &t, NULL), 0);
	route_table_free(t);
	assert_int_equal(route_table_new(NULL, 0, &t, NULL), 0);
	struct route_match m;
	assert_false(route_match(t, SPAN_LIT("GET"), SPAN_LIT("/a"), &m));
	route_table_free(t);
}

/* What a server that tidies up makes of it; NULL: it stands so already. */
static void paths_as_others_read_them(void **state)
{
	(void)state;
	static const struct {
		struct span target;
		const char *plain;
	} cases[] = {{SPAN_INIT("/a/b"), NULL},
		     {SPAN_INIT("/a/b?x=//"), NULL},
		     {SPAN_INIT("/"), NULL},
		     {SPAN_INIT("//a/b"), "/a/b"},
		     {SPAN_INIT("/a//b"), "/a/b"},
		     {SPAN_INIT("/a/b/"), "/a/b"},
		     {SPAN_INIT("/a/./b"), "/a/b"},
		     {SPAN_INIT("/x/../a/b"), "/a/b"},
		     {SPAN_INIT("/../a/b"), "/a/b"},
		     {SPAN_INIT("/a%2fb"), "/a/b"},
		     {SPAN_INIT("/a%252Fb"), "/a/b"},
		     {SPAN_INIT("/%61/b"), "/a/b"},
		     {SPAN_INIT("/a\\b"), "/a/b"},
		     {SPAN_INIT("/a/b;v=1"), "/a/b"},
		     {SPAN_INIT("/a;v=1/b"), "/a/b"},
		     {SPAN_INIT("/a/b#x"), "/a/b"},
		     {SPAN_INIT("/a/b%00x"), "/a/b"},
		     {SPAN_INIT("/a/b%3fx"), "/a/b"},
		     {SPAN_INIT("http://h/a/b?c"), "/a/b"},
		     {SPAN_INIT("http://h"), "/"},
		     {SPAN_INIT("*"), "/*"},
		     {SPAN_INIT("/a/%"), NULL},
		     {SPAN_INIT("/a/%2"), NULL}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
		bool odd = plain_path(cases[i].target, &out);
		if (odd != (cases[i].plain != NULL) || (odd && !span_is(buf_span(&out), cases[i].plain)))
			fail_msg("%s: %.*s", cases[i].target.ptr, (int)out.len, out.ptr);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(matches),
		cmocka_unit_test(parameters_are_decoded),
		cmocka_unit_test(query_parameters),
		cmocka_unit_test(parameters_that_nobody_knows_or_given_twice_are_told),
		cmocka_unit_test(bad_templates),
		cmocka_unit_test(doubles_are_refused),
		cmocka_unit_test(paths_as_others_read_them)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
