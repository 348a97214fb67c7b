/* head_check and layout_check: pure, over heads written as text. The shapes themselves run against a real
 * listener in test_listener; here the framing that is read out of a clean head, and the places where a
 * check could be off by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "router/http/head_check.h"
#include "router/http/layout_check.h"

/* A head as the library leaves it: separators overwritten by NULs. `f` gets its fields. */
struct parsed {
	char bytes[1024];
	struct http_field fields[16];
	struct http_request r;
	size_t size;
};

static struct span until(char **at, const char *end, size_t skip)
{
	char *from = *at, *to = strstr(from, end);
	assert_non_null(to);
	memset(to, 0, strlen(end));
	*at = to + skip;
	return (struct span){from, (size_t)(to - from)};
}

static void parse(struct parsed *p, const char *text)
{
	memset(p, 0, sizeof(*p));
	snprintf(p->bytes, sizeof(p->bytes), "%s", text);
	char *at = p->bytes;
	p->size = strlen(text);
	p->r.method = until(&at, " ", 1);
	p->r.target = until(&at, " ", 1);
	p->r.version = until(&at, "\r\n", 2);
	p->r.fields = p->fields;
	while (at[0] != '\r') {
		struct http_field *f = &p->fields[p->r.n_fields++];
		f->name = until(&at, ":", 1);
		while (*at == ' ' || *at == '\t')
			at++;
		f->value = until(&at, "\r\n", 2);
	}
}

static void framing_is_read(void **state)
{
	(void)state;
	static const struct {
		const char *head;
		bool chunked, body, expects;
		int64_t length;
	} cases[] = {
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", false, false, false, -1},
		{"GET / HTTP/1.0\r\n\r\n", false, false, false, -1},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", false, false, false, 0},
		{"POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 12\r\n\r\n", false, true, false, 12},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 000012\r\n\r\n", false, true, false, 12},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999999999\r\n\r\n", false, true,
		 false, 999999999999999999},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", true, true, false, -1},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n", false,
		 true, true, 1},
		{"POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", false, true, false,
		 1},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: x\r\nExpect: "
		 "100-continue\r\n\r\n",
		 false, true, false, 1}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct parsed p;
		const char *why = NULL;
		parse(&p, cases[i].head);
		if (head_check(&p.r, &why))
			fail_msg("%s: %s", cases[i].head, why);
		assert_int_equal(p.r.chunked, cases[i].chunked);
		assert_int_equal(p.r.has_body, cases[i].body);
		assert_int_equal(p.r.expects_continue, cases[i].expects);
		assert_int_equal(p.r.content_length, cases[i].length);
	}
}

static void every_byte_of_names_values_and_targets_is_judged(void **state)
{
	(void)state;
	for (int c = 0; c < 256; c++) {
		char name[] = "X-a-A", value[] = "v-v", target[] = "/t-t";
		const char *why;
		struct http_field fields[] = {{SPAN_LIT("Host"), SPAN_LIT("a")},
					      {SPAN_LIT(name), SPAN_LIT(value)}};
		struct http_request r = {.method = SPAN_LIT("GET"),
					 .target = SPAN_LIT(target),
					 .version = SPAN_LIT("HTTP/1.1"),
					 .fields = fields,
					 .n_fields = 2};
		bool alphanumeric =
			(c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
		name[2] = (char)c;
		bool token = alphanumeric || (c > 0 && c < 0x80 && strchr("!#$%&'*+-.^_`|~", c));
		assert_int_equal(head_check(&r, &why), token ? 0 : 400);
		name[2] = 'a';
		value[1] = (char)c;
		bool text = c == '\t' || (c >= 0x20 && c != 0x7f);
		assert_int_equal(head_check(&r, &why), text ? 0 : 400);
		value[1] = '-';
		target[2] = (char)c;
		assert_int_equal(head_check(&r, &why), c > 0x20 && c != 0x7f ? 0 : 400);
	}
}

static void refusals_have_a_status_and_a_reason(void **state)
{
	(void)state;
	static const struct {
		const char *head;
		int status;
		const char *why;
	} cases[] = {
		{"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "HTTP/1.0 and HTTP/1.1"},
		{"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "HTTP/1.0 and HTTP/1.1"},
		{"GET / http/1.1\r\nHost: a\r\n\r\n", 505, "HTTP/1.0 and HTTP/1.1"},
		{"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501, "CONNECT"},
		{"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"},
		{"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target"},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000000000\r\n\r\n", 400,
		 "Content-Length"},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400,
		 "both"},
		{"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c, WebSocket\r\n\r\n", 501, "websocket"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct parsed p;
		const char *why = NULL;
		parse(&p, cases[i].head);
		assert_int_equal(head_check(&p.r, &why), cases[i].status);
		assert_non_null(strstr(why, cases[i].why));
	}
}

static void a_clean_layout_has_no_gaps(void **state)
{
	(void)state;
	static const char *const heads[] = {
		"GET / HTTP/1.0\r\n\r\n",
		"GET /a?b HTTP/1.1\r\nHost: a\r\nX-A:\r\nX-B: \t c \r\n\r\n",
	};
	for (size_t i = 0; i < 2; i++) {
		struct parsed p;
		parse(&p, heads[i]);
		assert_null(layout_check(&p.r, p.size, false));
		assert_non_null(layout_check(&p.r, p.size + 1, false));
		assert_non_null(layout_check(&p.r, p.size - 1, false));
	}
	struct parsed p;
	parse(&p, heads[1]);
	for (size_t i = 0; i < p.r.n_fields; i++) { /* bytes that belong to no field */
		if (p.fields[i].value.len) {
			p.fields[i].value.len--;
			assert_non_null(layout_check(&p.r, p.size, false));
			p.fields[i].value.len++;
		}
		p.fields[i].name.len--;
		assert_non_null(layout_check(&p.r, p.size, false));
		p.fields[i].name.len++;
	}
	assert_null(layout_check(&p.r, p.size, false));
	p.r.target.len--;
	assert_non_null(layout_check(&p.r, p.size, false));
}

static void blanks_that_the_library_dropped_are_no_gap(void **state)
{
	(void)state;
	struct parsed p;
	parse(&p, "GET / HTTP/1.1\r\nHost: a \t \r\nX-A: b \r\nX-B: c\r\n\r\n");
	for (size_t i = 0; i < 2; i++) { /* as libmicrohttpd 1.0.1 leaves them */
		struct span *v = &p.fields[i].value;
		char *end = p.bytes + (v->ptr + v->len - p.bytes);
		memcpy(end, "\r\n", 2);
		*v = span_trim(*v);
		p.bytes[v->ptr + v->len - p.bytes] = 0;
	}
	assert_null(layout_check(&p.r, p.size, true));
	assert_non_null(layout_check(&p.r, p.size, false));
	assert_non_null(layout_check(&p.r, p.size + 1, true));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(framing_is_read),
		cmocka_unit_test(every_byte_of_names_values_and_targets_is_judged),
		cmocka_unit_test(refusals_have_a_status_and_a_reason),
		cmocka_unit_test(a_clean_layout_has_no_gaps),
		cmocka_unit_test(blanks_that_the_library_dropped_are_no_gap),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
