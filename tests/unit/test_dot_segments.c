/* dot_segments: what leads above its root for any reader is found, and nothing else is taken for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "legacy/dot_segments.h"

static void expect(const char *const *paths, bool climbs)
{
	for (; *paths; paths++)
		if (dot_segments_climb(span_of(*paths)) != climbs)
			fail_msg("%s %s", *paths, climbs ? "passes" : "is refused");
}

static void what_may_climb_for_any_reader(void **state)
{
	(void)state;
	static const char *const paths[] = {
		/* plain, counted */
		"/..", "/../x", "/a/../../x", "/./../x", "//../x", "/a//../../x", "..", "/a/../b/../..",
		/* encoded once, twice, often; in part */
		"/%2e%2e/x", "/.%2e/x", "/%2E./x", "/%252e%252e/x", "/%252e./x", "/%25252e%25252e/x",
		"/.%252e/x", "/%25%32%65%25%32%65/x", "/%252525252525252525252e./x",
		/* wherever a disguised one stands: not every reader sees what it undoes */
		"/a/%2e%2e/x", "/a/b/.%2e/x", "/a%2fb/%2e%2e/%2e%2e/x", "/a%2f..%2fx", "/a/..%2fx",
		"/a/..;/x", "/a\\..\\x",
		/* backslashes */
		"/..\\x", "/..%5cx", "/..%5Cx", "/..%255cx", "/a\\..", "\\..",
		/* overlong, %u and likenesses */
		"/%c0%ae%c0%ae/x", "/.%c0%ae/x", "/%c0%2e%c0%2e/x", "/%e0%80%ae%e0%80%ae/x",
		"/%f0%80%80%ae./x", "/%f8%80%80%80%ae./x", "/%fc%80%80%80%80%ae./x", "/..%c0%afx",
		"/..%c1%9cx", "/..%e0%80%afx", "/%25c0%25ae%25c0%25ae/x", "/%u002e%u002e/x",
		"/%uff0e%uff0e/x", "/..%u2215x", "/..%u005cx", "/%ef%bc%8e%ef%bc%8e/x", "/\xef\xbc\x8e./x",
		"/..%ef%bc%8fx", "/%e2%80%a5/x", "/%e2%80%a4%e2%80%a4/x",
		/* cut, trimmed, dropped */
		"/..;/x", "/..;a=b/x", "/%2e%2e%3b/x", "/..%3bx/y", "/..#x", "/..%23x", "/..%00", "/..%00x/y",
		"/..%3fx/y", "/..%20/x", "/%20../x", "/..+/x", "/.+./x", "/..%09", "/..%0a", "/.%00./x",
		"/.%0d%0a./x", "/. ./x", "/..%20./x", "/..%20.%20/x", "/..%ff/x", "/.%ff./x", "/..:x/y",
		"/..::$INDEX_ALLOCATION/x", "/..%3a%3a$DATA", "/..,x/y",
		/* what undoes nothing for some: no name stands before it */
		"/%20/../x", "/%2e/../x", "/;x/../y", "/%00/../x", "/%2f/../x", "/%ff/../x", "/.;x/../y",
		NULL};
	expect(paths, true);
}

static void what_is_honest_passes(void **state)
{
	(void)state;
	static const char *const paths[] = {"",
					    "/",
					    "/a",
					    "/a/",
					    "//",
					    "/a//b",
					    "/./a",
					    "/.",
					    "/a/.",
					    "/a/../b",
					    "/a/b/../../c",
					    "/a/..",
					    "/a/b/..",
					    "/a..b",
					    "/v1..2/x",
					    "/...",
					    "/....",
					    "/.../x",
					    "/..a",
					    "/a..",
					    "/..hidden/x",
					    "/.well-known/x",
					    "/.git",
					    "/a%20b",
					    "/%20",
					    "/a%2fb",
					    "/a%2Fb/c",
					    "/a%5cb",
					    "/x;v=1/y",
					    "/x;a=../y",
					    "/;x",
					    "/a%00b",
					    "/%00",
					    "/caf%c3%a9",
					    "/caf\xc3\xa9/..",
					    "/%e3%83%86%e3%82%b9%e3%83%88/../x",
					    "/%ff%fe",
					    "/100%",
					    "/%zz/..",
					    "/..%",
					    "/%2",
					    "/a%25b",
					    "/a%2525b/..",
					    "/x:y/z",
					    "/12:30",
					    "/a+b",
					    "/c++",
					    "/+1",
					    "/1.2.3",
					    "/a.b/c.d",
					    "/a.+b",
					    "/..é",
					    "/*",
					    "*",
					    "/http://example.test/a",
					    "/%E2%80%A6/x",
					    "/a%2e",
					    "/a%2eb",
					    "/%2ehidden",
					    "/v1%2e%2e2",
					    NULL};
	expect(paths, false);
}

static void a_long_path_is_looked_through_in_one_piece(void **state)
{
	(void)state;
	static char path[3 * 20000 + 4];
	for (size_t i = 0; i < 20000; i++)
		memcpy(path + 3 * i, i ? "%25" : "/aa", 3);
	memcpy(path + 3 * 20000, "/%2e", 4);
	assert_false(dot_segments_climb((struct span){path, sizeof(path)}));
	memset(path, 'a', sizeof(path));
	path[0] = '/';
	path[1] = '%';
	for (size_t i = 2; i + 1 < sizeof(path); i += 2)
		memcpy(path + i, "25", 2); /* escapes within escapes, of which nobody knows the end */
	assert_true(dot_segments_climb((struct span){path, sizeof(path)}));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_may_climb_for_any_reader),
		cmocka_unit_test(what_is_honest_passes),
		cmocka_unit_test(a_long_path_is_looked_through_in_one_piece),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
