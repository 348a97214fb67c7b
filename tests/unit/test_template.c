/* router: template. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/json.h"
#include "operation/template.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define ALL (TEMPLATE_REQUEST | TEMPLATE_RESULT | TEMPLATE_ERROR)

static struct span get_header(void *arg, struct span name)
{
	(void)arg;
	if (span_is_nocase(name, "x-request-id"))
		return SPAN_LIT("r\"1");
	return span_is_nocase(name, "x-empty") ? SPAN_LIT("") : SPAN_NONE;
}

static bool get_query(void *arg, struct span name, struct buf *decoded)
{
	(void)arg;
	return span_is(name, "q") && buf_puts(decoded, "a b") == 0;
}

static bool get_path(void *arg, struct span name, struct buf *decoded)
{
	(void)arg;
	return span_is(name, "name") && buf_puts(decoded, "x/\xff") == 0;
}

static struct template_source source(void)
{
	return (struct template_source){
		.body = SPAN_LIT(" {\"a\":{\"b\": 9007199254740993},\"f\":1.0,\"n\":null,\"l\":[1, "
				 "2],\"s\":\"\\u00e9\"} "),
		.header = get_header,
		.query = get_query,
		.path = get_path,
		.user = SPAN_LIT("u1"),
		.organization = SPAN_NONE,
		.uuid = SPAN_LIT("0-1-2"),
		.request_id = SPAN_LIT("id"),
		.result = SPAN_LIT("{\"success\":false,\"data\":{\"x\":1},\"text\":\"line\\n\\u00e9\","
				   "\"code\":404,\"error\":null}"),
		.task_id = SPAN_LIT("t1"),
		.task_status = SPAN_LIT("completed"),
		.error_status = 502,
		.error_title = SPAN_LIT("Bad Gateway"),
		.error_detail = SPAN_LIT("it said \"no\""),
	};
}

static struct template *compile(const char *yaml, unsigned allowed, int expected, struct err *e)
{
	struct yaml_doc *doc = NULL;
	struct template *t = NULL;
	assert_int_equal(yaml_parse("t.yml", span_of(yaml), &doc, e), 0);
	assert_int_equal(template_compile(yaml_root(doc), allowed, &t, e), expected);
	yaml_free(doc); /* a template does not borrow from it */
	assert_int_equal(t != NULL, expected == 0);
	return t;
}

static void renders(void **state)
{
	(void)state;
	static const struct {
		const char *yaml, *json;
	} cases[] = {
		{"{}", "{}"},
		{"[]", "[]"},
		{"", "null"},
		{"plain", "\"plain\""},
		{"{a: 1, b: [true, ~, \"x\"], 'c\"': 1.50}",
		 "{\"a\":1,\"b\":[true,null,\"x\"],\"c\\\"\":1.50}"},
		{"{$ref: 'body:'}",
		 "{\"a\":{\"b\": 9007199254740993},\"f\":1.0,\"n\":null,\"l\":[1, 2],\"s\":\"\\u00e9\"}"},
		{"{$ref: 'body:/a/b'}", "9007199254740993"},
		{"{$ref: 'body:/none'}", "null"},
		{"{$ref: 'body:/none', default: 7}", "7"},
		{"{$ref: 'body:/none', default: {$ref: 'query:none', default: {$ref: 'query:q'}}}",
		 "\"a b\""},
		{"{$ref: 'body:/none', default: {x: {$ref: 'body:/f'}}}", "{\"x\":1.0}"},
		{"{$ref: 'body:/n', default: 7}", "null"},
		{"[{$ref: 'body:/f'}, {$ref: 'body:/none'}, {$ref: 'body:/l'}]", "[1.0,null,[1, 2]]"},
		{"{a: {$ref: 'body:/none'}, b: {$ref: 'body:/s'}, c: {$ref: 'body:/none'}}",
		 "{\"b\":\"\\u00e9\"}"},
		{"{a: 1, b: {$ref: 'body:/none'}, c: 2}", "{\"a\":1,\"c\":2}"},
		{"{a: {b: {$ref: 'body:/none'}}}", "{\"a\":{}}"},
		{"{$ref: 'header:X-Request-ID'}", "\"r\\\"1\""},
		{"{a: {$ref: 'header:x-empty'}, b: {$ref: 'header:x-none'}}", "{\"a\":\"\"}"},
		{"{$ref: 'path:name'}", "\"x/\xef\xbf\xbd\""},
		{"{u: {$ref: 'identity:user'}, o: {$ref: 'identity:organization'}}", "{\"u\":\"u1\"}"},
		{"[{$ref: uuid}, {$ref: uuid}, {$ref: 'request:id'}]", "[\"0-1-2\",\"0-1-2\",\"id\"]"},
		{"[{$ref: 'result:/data'}, {$ref: 'task:id'}, {$ref: 'task:status'}, {$ref: 'task:error'}]",
		 "[{\"x\":1},\"t1\",\"completed\",null]"},
		{"{error: {$ref: 'error:detail'}, name: {$ref: 'error:title'}, code: {$ref: 'error:status'}, "
		 "payload: ~}",
		 "{\"error\":\"it said \\\"no\\\"\",\"name\":\"Bad "
		 "Gateway\",\"code\":502,\"payload\":null}"}};
	struct template_source s = source();
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct template *t = compile(cases[i].yaml, ALL, 0, NULL);
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(10000);
		assert_int_equal(template_render(t, &s, &out), 0);
		assert_string_equal(out.ptr, cases[i].json);
		assert_int_equal(json_validate(buf_span(&out), NULL), 0);
		assert_int_equal(template_needs_body(t), strstr(cases[i].yaml, "body:") != NULL);
		template_free(t);
	}
	assert_null(template_free(NULL));
	assert_false(template_needs_body(NULL));
}

static void renders_without_any_source(void **state)
{
	(void)state;
	struct template_source empty = {.body = SPAN_NONE};
	struct template *t = compile("[{$ref: 'body:'}, {$ref: 'body:/a'}, {$ref: 'query:q'}, {$ref: "
				     "'path:p'}, {$ref: 'header:h'},"
				     " {$ref: 'result:'}, {$ref: 'error:status'}, {$ref: uuid}]",
				     ALL, 0, NULL);
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(1000);
	assert_int_equal(template_render(t, &empty, &out), 0);
	assert_string_equal(out.ptr, "[null,null,null,null,null,null,null,null]");
	empty.body = SPAN_LIT("");
	empty.result = SPAN_LIT("{not json");
	buf_clear(&out);
	assert_int_equal(template_render(t, &empty, &out), 0);
	template_free(t);
	t = compile("{$ref: 'body:'}", ALL, 0, NULL);
	buf_clear(&out);
	assert_int_equal(template_render(t, &empty, &out), 0);
	assert_string_equal(out.ptr, "null");
	template_free(t);
}

static void rendering_keeps_the_limit(void **state)
{
	(void)state;
	struct template_source s = source();
	struct template *t =
		compile("{a: {$ref: 'body:/none'}, b: [{$ref: 'body:'}, {$ref: 'body:'}, {$ref: 'query:q'}]}",
			ALL, 0, NULL);
	CLEANUP(buf_releasep) struct buf whole = BUF_INIT(10000);
	assert_int_equal(template_render(t, &s, &whole), 0);
	for (size_t limit = 0; limit < whole.len; limit++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(limit);
		assert_int_equal(template_render(t, &s, &out), -EFBIG);
	}
	template_free(t);
}

static void mistakes_are_named(void **state)
{
	(void)state;
	static const struct {
		const char *yaml;
		unsigned allowed;
		const char *message; /* how it begins */
	} cases[] = {{"a: 1\nb: {$ref: 'bodi:/a'}", ALL,
		      "line 2: $ref: unknown reference 'bodi:/a'; allowed here: body:/pointer header:Name"},
		     {"{$ref: 'result:/a'}", TEMPLATE_REQUEST,
		      "line 1: $ref: there is no such value here: 'result:/a'; allowed here: body:"},
		     {"{$ref: 'body:/a'}", TEMPLATE_RESULT | TEMPLATE_ERROR,
		      "line 1: $ref: there is no such value here:"},
		     {"{$ref: 'error:title'}", TEMPLATE_RESULT, "line 1: $ref: there is no such value here:"},
		     {"{$ref: 'body:a'}", ALL, "line 1: $ref: 'a' is not a JSON pointer"},
		     {"{$ref: 'result:/~2'}", ALL, "line 1: $ref: '/~2' is not a JSON pointer"},
		     {"{$ref: 'header:a b'}", ALL, "line 1: $ref: 'a b' is not a field name"},
		     {"{$ref: 'header:'}", ALL, "line 1: $ref: '' is not a field name"},
		     {"{$ref: 'query:'}", ALL, "line 1: $ref: 'query:' needs a name"},
		     {"{$ref: 'uuid:4'}", ALL, "line 1: $ref: unknown reference 'uuid:4'"},
		     {"{$ref: 'identity:group'}", ALL, "line 1: $ref: unknown reference"},
		     {"{$ref: [1]}", ALL, "line 1: $ref: a reference is a string"},
		     {"{$ref: ~}", ALL, "line 1: $ref: a reference is a string"},
		     {"x:\n  $ref: uuid\n  defualt: 1", ALL,
		      "line 3: defualt: only \"default\" is allowed next to \"$ref\""},
		     {"x: {$ref: uuid, default: {$ref: no}}", ALL, "line 1: $ref: unknown reference 'no'"}};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct err e = {""};
		compile(cases[i].yaml, cases[i].allowed, -EBADMSG, &e);
		if (strncmp(e.text, cases[i].message, strlen(cases[i].message)) != 0)
			fail_msg("%s: %s", cases[i].yaml, e.text);
	}
}

static void pointers_are_limited(void **state)
{
	(void)state;
	for (int n = 128; n <= 129; n++) {
		CLEANUP(buf_releasep) struct buf yaml = BUF_INIT(100000);
		struct err e = {""};
		for (int i = 0; i < n; i++)
			buf_printf(&yaml, "- {$ref: 'body:/k%d'}\n- {$ref: 'body:/k0'}\n", i);
		template_free(compile(yaml.ptr, ALL, n > 128 ? -EBADMSG : 0, &e));
		assert_int_equal(strstr(e.text, "more than 128 pointers") != NULL, n > 128);
	}
}

/* --- response templates --------------------------------------------------------------------------------- */
static struct response_template *compile_response(const char *yaml, unsigned allowed, int expected,
						  struct err *e)
{
	struct yaml_doc *doc = NULL;
	struct response_template *t = NULL;
	assert_int_equal(yaml_parse("t.yml", span_of(yaml), &doc, e), 0);
	assert_int_equal(response_template_compile(yaml_root(doc), allowed, &t, e), expected);
	yaml_free(doc);
	assert_int_equal(t != NULL, expected == 0);
	return t;
}

static void the_first_choice_that_holds(void **state)
{
	(void)state;
	static const struct {
		const char *yaml;
		int status; /* 0: none holds */
		const char *content_type, *body;
	} cases[] = {
		{"- when: {ref: 'result:/success', equals: true}\n  body: {$ref: 'result:/data'}\n"
		 "- {status: 500, body: {error: {$ref: 'result:/text'}}}",
		 500, "application/json", "{\"error\":\"line\\n\\u00e9\"}"},
		{"- when: {ref: 'result:/success', equals: false}\n  body: {$ref: 'result:/data'}\n- "
		 "{status: 501}",
		 200, "application/json", "{\"x\":1}"},
		{"when: {ref: 'result:/success', equals: true}", 0, NULL, ""},
		{"when: {ref: 'result:/success', equals: 'false'}", 0, NULL, ""},
		{"when: {ref: 'result:/none', equals: ~}", 0, NULL, ""},
		{"{when: {ref: 'result:/error', equals: ~}, status: 201}", 201, NULL, ""},
		{"{when: {ref: 'result:/data', equals: {x: 1.0}}, status: 201}", 201, NULL, ""},
		{"{when: {ref: 'result:/code', equals: 404.0}, status: 404}", 404, NULL, ""},
		{"{when: {ref: 'task:status', equals: completed}, status: 201}", 201, NULL, ""},
		{"{when: {ref: 'result:/text', equals: \"line\\n\\u00e9\"}, status: 201}", 201, NULL, ""},
		{"{when: {ref: 'result:/none', exists: false}, status: 201}", 201, NULL, ""},
		{"{when: {ref: 'result:/none', exists: true}, status: 201}", 0, NULL, ""},
		{"{when: {ref: 'result:/error', exists: true}, status: 201}", 201, NULL, ""},
		{"{raw: {$ref: 'result:/text'}, content_type: text/plain}", 200, "text/plain",
		 "line\n\xc3\xa9"},
		{"{raw: {$ref: 'result:/data'}}", 200, "application/json", "{\"x\":1}"},
		{"{raw: {$ref: 'result:/none'}}", 200, "application/json", ""},
		{"{raw: {$ref: 'result:/none', default: {$ref: 'task:id'}}}", 200, "application/json", "t1"},
		{"{raw: 'as it is'}", 200, "application/json", "as it is"},
		{"{body: {$ref: 'result:/none'}}", 200, "application/json", "null"},
		{"{status: {$ref: 'result:/code'}}", 404, NULL, ""},
		{"{status: {$ref: 'result:/none', default: 410}}", 410, NULL, ""},
		{"{status: {$ref: 'result:/data'}}", 500, NULL, ""},
		{"{status: {$ref: 'task:id'}}", 500, NULL, ""},
		{"{status: 204}", 204, NULL, ""},
		{"{status: {$ref: 'result:/none', default: 204}, body: 1}", 204, NULL, ""},
		{"{}", 200, NULL, ""}};
	struct template_source s = source();
	s.error_status = 0;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct response_template *t = compile_response(cases[i].yaml, TEMPLATE_RESULT, 0, NULL);
		CLEANUP(buf_releasep) struct buf body = BUF_INIT(10000);
		struct rendered_response r;
		int expected = cases[i].status ? 0 : TEMPLATE_E_NO_CHOICE;
		if (response_template_render(t, &s, &r, &body) != expected)
			fail_msg("%s", cases[i].yaml);
		if (cases[i].status) {
			assert_int_equal(r.status, cases[i].status);
			assert_true(span_eq(r.content_type, span_of(cases[i].content_type)));
		}
		assert_true(span_is(buf_span(&body), cases[i].body));
		response_template_free(t);
	}
	assert_null(response_template_free(NULL));
}

static void an_error_keeps_its_status(void **state)
{
	(void)state;
	struct template_source s = source();
	static const struct {
		const char *yaml;
		int status;
	} cases[] = {{"{body: {error: {$ref: 'error:detail'}}}", 502},
		     {"{status: {$ref: 'error:status'}, body: {error: {$ref: 'error:detail'}}}", 502},
		     {"{status: 500, body: {error: {$ref: 'error:detail'}}}", 500}};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct response_template *t = compile_response(cases[i].yaml, TEMPLATE_ERROR, 0, NULL);
		CLEANUP(buf_releasep) struct buf body = BUF_INIT(10000);
		struct rendered_response r;
		assert_int_equal(response_template_render(t, &s, &r, &body), 0);
		assert_int_equal(r.status, cases[i].status);
		assert_string_equal(body.ptr, "{\"error\":\"it said \\\"no\\\"\"}");
		assert_false(response_template_needs_body(t));
		response_template_free(t);
	}
}

static void headers_come_with_the_choice(void **state)
{
	(void)state;
	struct template_source s = source();
	struct response_template *t = compile_response(
		"{headers: {X-A: 'one', Cache-Control: no-store}, body: {$ref: 'body:/f'}}", ALL, 0, NULL);
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(10000), small = BUF_INIT(2);
	struct rendered_response r;
	assert_int_equal(response_template_render(t, &s, &r, &body), 0);
	assert_int_equal(r.n_headers, 2);
	assert_true(span_is(r.headers[0].name, "X-A") && span_is(r.headers[0].value, "one"));
	assert_true(span_is(r.headers[1].name, "Cache-Control") && span_is(r.headers[1].value, "no-store"));
	assert_string_equal(body.ptr, "1.0");
	assert_true(response_template_needs_body(t));
	assert_int_equal(response_template_render(t, &s, &r, &small), -EFBIG);
	response_template_free(t);
}

static void mistakes_in_responses_are_named(void **state)
{
	(void)state;
	static const struct {
		const char *yaml, *message;
	} cases[] = {
		{"", "template: a response template needs"},
		{"[]", "line 1: a response template needs"},
		{"text", "line 1: a response is a mapping"},
		{"- status: 200\n- status: 500", "line 2: is never reached"},
		{"statsu: 200", "line 1: statsu: unknown key (known: when status"},
		{"status: 100", "line 1: status: must be a status from 200 to 599"},
		{"status: 600", "line 1: status: must be"},
		{"status: OK", "line 1: status: must be"},
		{"status: {$ref: 'no:'}", "line 1: $ref: unknown reference"},
		{"{status: 204, body: 1}", "line 1: an answer with status 204 has no body"},
		{"{body: 1, raw: 2}", "line 1: \"body\" and \"raw\" are mutually exclusive"},
		{"when: 1", "line 1: when: is written"},
		{"when: {ref: 'result:/a'}", "line 1: when: needs \"ref\" and one of"},
		{"when: {equals: 1}", "line 1: when: needs"},
		{"when: {ref: 'result:/a', equals: 1, exists: true}", "line 1: when: needs"},
		{"when: {ref: 'result:/a', exists: 3}", "line 1: exists: must be true or false"},
		{"when: {ref: 'result:/a', equal: 3}", "line 1: equal: unknown key (known: ref"},
		{"when: {ref: 'body:/a', equals: 3}", "line 1: ref: there is no such value here"},
		{"content_type: json", "line 1: content_type: must be a media type"},
		{"content_type: \"text/plain\\r\\nX: 1\"", "line 1: content_type: must be a media type"},
		{"headers: [a]", "line 1: headers: must be a mapping"},
		{"headers:\n  'a b': x", "line 2: a b: is not a field name"},
		{"headers: {X-A: \"a\\r\\nX-B: b\"}", "line 1: X-A: must have no control characters"},
		{"headers: {X-A: ' a'}", "line 1: X-A: must have no control characters, and no blanks"},
		{"headers: {content-length: 3}", "line 1: content-length: is made by the router"},
		{"headers: {Transfer-Encoding: chunked}", "line 1: Transfer-Encoding: is made by the router"},
		{"headers: {Connection: close}", "line 1: Connection: is made by the router"},
		{"headers: {Content-Type: a/b}", "line 1: Content-Type: is set by \"content_type\""},
		{"body: {a: {$ref: 'result:x'}}", "line 1: $ref: 'x' is not a JSON pointer"}};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct err e = {""};
		compile_response(cases[i].yaml, TEMPLATE_RESULT, -EBADMSG, &e);
		if (strncmp(e.text, cases[i].message, strlen(cases[i].message)) != 0)
			fail_msg("%s: %s", cases[i].yaml, e.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(renders),
		cmocka_unit_test(renders_without_any_source),
		cmocka_unit_test(rendering_keeps_the_limit),
		cmocka_unit_test(mistakes_are_named),
		cmocka_unit_test(pointers_are_limited),
		cmocka_unit_test(the_first_choice_that_holds),
		cmocka_unit_test(an_error_keeps_its_status),
		cmocka_unit_test(headers_come_with_the_choice),
		cmocka_unit_test(mistakes_in_responses_are_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
