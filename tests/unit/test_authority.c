/* authority: a host is what the whole text says, or nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "router/http/authority.h"

static void hosts(void **state)
{
	(void)state;
	static const struct {
		const char *text, *host; /* NULL: none */
	} cases[] = {
		{"localhost", "localhost"},
		{"LocalHost:80", "localhost"},
		{"localhost.:80", "localhost"},
		{" localhost:1\t", "localhost"},
		{"a-b_c.example:65535", "a-b_c.example"},
		{"127.0.0.1:9900", "127.0.0.1"},
		{"[::1]", "::1"},
		{"[::FFFF:127.0.0.1]:1", "::ffff:127.0.0.1"},
		{"localhost:0", "localhost"},
		{"", NULL},
		{":80", NULL},
		{".", NULL},
		{"localhost..", NULL},
		{"a..b", NULL},
		{".a", NULL},
		{"localhost:evil", NULL},
		{"localhost:", NULL},
		{"localhost:80:80", NULL},
		{"localhost:80evil", NULL},
		{"localhost:+80", NULL},
		{"localhost: 80", NULL},
		{"localhost:65536", NULL},
		{"localhost:000080", NULL},
		{"localhost:99999999999999999999", NULL},
		{"localhost@evil.example", NULL},
		{"user@localhost", NULL},
		{"user:1@localhost", NULL},
		{"localhost:80@evil.example", NULL},
		{"localhost, evil.example", NULL},
		{"localhost evil.example", NULL},
		{"localhost/evil", NULL},
		{"localhost\\evil", NULL},
		{"localhost?x", NULL},
		{"localhost#x", NULL},
		{"local%68ost", NULL},
		{"localhost%00.evil", NULL},
		{"http://localhost", NULL},
		{"caf\xc3\xa9.example", NULL},
		{"::1", NULL},
		{"::1:80", NULL},
		{"[::1", NULL},
		{"::1]", NULL},
		{"[::1]evil", NULL},
		{"[::1].evil.example:80", NULL},
		{"[::1]:evil", NULL},
		{"[localhost]", NULL},
		{"[127.0.0.1]", NULL},
		{"[::1%25lo]", NULL},
		{"[]", NULL},
		{"[::1][::1]", NULL},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char host[AUTHORITY_HOST_MAX] = "?";
		bool found = authority_host(span_of(cases[i].text), host);
		if (found != (cases[i].host != NULL) || (found && strcmp(host, cases[i].host) != 0))
			fail_msg("\"%s\": %s", cases[i].text, found ? host : "none");
	}
}

static void a_name_that_is_too_long_is_none(void **state)
{
	(void)state;
	char text[AUTHORITY_HOST_MAX + 1], host[AUTHORITY_HOST_MAX];
	memset(text, 'a', sizeof(text));
	assert_true(authority_host((struct span){text, AUTHORITY_HOST_MAX - 1}, host));
	assert_int_equal(strlen(host), AUTHORITY_HOST_MAX - 1);
	assert_false(authority_host((struct span){text, AUTHORITY_HOST_MAX}, host));
	assert_false(authority_host(SPAN_NONE, host));
}

static void targets(void **state)
{
	(void)state;
	static const char *const cases[][2] = {{"/a", NULL},
					       {"/http://b/", NULL},
					       {"*", NULL},
					       {"http://b", "b"},
					       {"http://b/c", "b"},
					       {"HTTP://b:1?x=/", "b:1"},
					       {"http://u@b/", "u@b"},
					       {"http://b#/x", "b"},
					       {"http:///x", ""},
					       {"http://[::1]:1/", "[::1]:1"},
					       {"", NULL}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct span a = authority_of_target(span_of(cases[i][0]));
		if ((a.ptr != NULL) != (cases[i][1] != NULL) || (a.ptr && !span_is(a, cases[i][1])))
			fail_msg("%s: %.*s", cases[i][0], SPAN_ARG(a));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hosts),
		cmocka_unit_test(a_name_that_is_too_long_is_none),
		cmocka_unit_test(targets),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
