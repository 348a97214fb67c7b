/* base: json, both halves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/text.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* A copy without anything behind it, so that the address sanitizer sees a read too far. */
struct tight {
	char *bytes;
	struct span text;
};

static struct tight tighten(struct span s)
{
	char *bytes = malloc(s.len ? s.len : 1);
	assert_non_null(bytes);
	if (s.len)
		memcpy(bytes, s.ptr, s.len);
	return (struct tight){bytes, {bytes, s.len}};
}

static void repeat(struct buf *b, const char *text, size_t n)
{
	while (n-- > 0)
		assert_int_equal(buf_puts(b, text), 0);
}

/* SPAN_LIT where only a constant may stand. */
/* clang-format off */
#define CASE(s) {(s), sizeof(s) - 1}
#define NONE {NULL, 0}
/* clang-format on */

static const struct span valid[] = {CASE("null"),
				    CASE("true"),
				    CASE("false"),
				    CASE("0"),
				    CASE("-0"),
				    CASE("-1"),
				    CASE("42"),
				    CASE("1.0"),
				    CASE("0.1"),
				    CASE("-0.0e-0"),
				    CASE("1e5"),
				    CASE("1E+5"),
				    CASE("1e-05"),
				    CASE("1e400"),
				    CASE("123456789012345678901234567890"),
				    CASE("0e0"),
				    CASE("[]"),
				    CASE("{}"),
				    CASE(" [ ] "),
				    CASE("\t{\r\n}\t"),
				    CASE("[[],[[]]]"),
				    CASE("[1,2,3]"),
				    CASE("[null,true,false,1,\"a\",{},[]]"),
				    CASE("{\"a\":1}"),
				    CASE("{\"a\":1,\"a\":2}"),
				    CASE("{\"\":0}"),
				    CASE("{\"a\" : {\"b\" : [ 1 , 2 ] } }"),
				    CASE("\"\""),
				    CASE("\"plain\""),
				    CASE("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""),
				    CASE("\"\\u0000\""),
				    CASE("\"\\uD83D\\uDE00\""),
				    CASE("\"\\uD800\""),
				    CASE("\"\\uDC00\\uD800\""),
				    CASE("\"\\uabCD\""),
				    CASE("\"\x7f\""),
				    CASE("\"\xc3\xa9\""),
				    CASE("\"\xe2\x82\xac\""),
				    CASE("\"\xf0\x9f\x98\x80\""),
				    CASE("\"\xed\x9f\xbf\""),
				    CASE("\"\xee\x80\x80\""),
				    CASE("\"\xef\xbf\xbf\""),
				    CASE("\"\xf4\x8f\xbf\xbf\""),
				    CASE("\"\xf0\x90\x80\x80\""),
				    CASE("\"\xe0\xa0\x80\""),
				    CASE("\"\xc2\x80\""),
				    CASE("\"1234567\\n\""),
				    CASE("\"12345678901234567890\xc3\xa9 and on\""),
				    CASE("[\"a\\\\\",\"b\"]"),
				    CASE("[\"]\",\"}\"]"),
				    CASE("\"//\"")};

static const struct span invalid[] = {CASE(""),
				      CASE(" "),
				      CASE("nul"),
				      CASE("nulls"),
				      CASE("True"),
				      CASE("NaN"),
				      CASE("Infinity"),
				      CASE("-Infinity"),
				      CASE("+1"),
				      CASE("-"),
				      CASE("01"),
				      CASE("-01"),
				      CASE("1."),
				      CASE(".5"),
				      CASE("-.5"),
				      CASE("1.e1"),
				      CASE("1e"),
				      CASE("1e+"),
				      CASE("1e1.0"),
				      CASE("0x10"),
				      CASE("1 2"),
				      CASE("1,"),
				      CASE("--1"),
				      CASE("1_000"),
				      CASE("["),
				      CASE("]"),
				      CASE("{"),
				      CASE("}"),
				      CASE("[1"),
				      CASE("[1,"),
				      CASE("[1,]"),
				      CASE("[,1]"),
				      CASE("[,]"),
				      CASE("[1 2]"),
				      CASE("[1}"),
				      CASE("{]"),
				      CASE("[}"),
				      CASE("[]]"),
				      CASE("{}}"),
				      CASE("[][]"),
				      CASE("{\"a\"}"),
				      CASE("{\"a\":}"),
				      CASE("{\"a\":1,}"),
				      CASE("{,}"),
				      CASE("{a:1}"),
				      CASE("{1:1}"),
				      CASE("{'a':1}"),
				      CASE("{\"a\" 1}"),
				      CASE("{\"a\":1 \"b\":2}"),
				      CASE("{\"a\"::1}"),
				      CASE("{\"a\":1"),
				      CASE("{\"a\":"),
				      CASE("{\"a"),
				      CASE("{\"a\":1,,\"b\":2}"),
				      CASE("{null:1}"),
				      CASE("'a'"),
				      CASE("\""),
				      CASE("\"a"),
				      CASE("\"\\\""),
				      CASE("\"\\"),
				      CASE("\"\\x41\""),
				      CASE("\"\\a\""),
				      CASE("\"\\U0041\""),
				      CASE("\"\\u\""),
				      CASE("\"\\u12\""),
				      CASE("\"\\u12G4\""),
				      CASE("\"\\u123"),
				      CASE("\"\\\0\""),
				      CASE("\"\n\""),
				      CASE("\"\t\""),
				      CASE("\"a\0b\""),
				      CASE("\"\x1f\""),
				      CASE("\"1234567\x01\""),
				      CASE("\"\x80\""),
				      CASE("\"\xc0\x80\""),
				      CASE("\"\xc1\xbf\""),
				      CASE("\"\xc3\""),
				      CASE("\"\xc3(\""),
				      CASE("\"\xe0\x80\x80\""),
				      CASE("\"\xe0\x9f\xbf\""),
				      CASE("\"\xe2\x82\""),
				      CASE("\"\xed\xa0\x80\""),
				      CASE("\"\xed\xbf\xbf\""),
				      CASE("\"\xf0\x80\x80\x80\""),
				      CASE("\"\xf0\x8f\xbf\xbf\""),
				      CASE("\"\xf4\x90\x80\x80\""),
				      CASE("\"\xf5\x80\x80\x80\""),
				      CASE("\"\xff\""),
				      CASE("\"\xfe\""),
				      CASE("\"\xf0\x9f\x98"),
				      CASE("\xef\xbb\xbf[]"),
				      CASE("\xff\xfe[\0]\0"),
				      CASE("\xc3\xa9"),
				      CASE("/**/1"),
				      CASE("1//"),
				      CASE("[1]#"),
				      CASE("\f[]"),
				      CASE("\v1"),
				      CASE("\xc2\xa0[]"),
				      CASE("[]\0"),
				      CASE("\0"),
				      CASE("undefined"),
				      CASE("\"a\"b"),
				      CASE("\"a\"\"b\""),
				      CASE("[\"a\":1]"),
				      CASE("[1:2]"),
				      CASE("<null>"),
				      CASE("*")};

static void validates_as_rfc_8259_says(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(valid); i++) {
		struct tight t = tighten(valid[i]);
		struct err e = {""};
		if (json_validate(t.text, &e) != 0)
			fail_msg("valid case %zu refused: %.*s: %s", i, SPAN_ARG(valid[i]), e.text);
		struct json_doc *doc = NULL;
		assert_int_equal(json_doc_parse(t.text, &doc, &e), 0);
		json_doc_free(doc);
		free(t.bytes);
	}
	for (size_t i = 0; i < COUNT(invalid); i++) {
		struct tight t = tighten(invalid[i]);
		struct err e = {""};
		if (json_validate(t.text, &e) != -EBADMSG)
			fail_msg("invalid case %zu accepted: %.*s", i, SPAN_ARG(invalid[i]));
		assert_memory_equal(e.text, "JSON, line ", 11);
		struct json_doc *doc = NULL;
		assert_int_equal(json_doc_parse(t.text, &doc, NULL), -EBADMSG);
		assert_null(doc);
		free(t.bytes);
	}
	assert_int_equal(json_validate(SPAN_NONE, NULL), -EBADMSG);
}

static void every_cut_of_a_document_is_invalid(void **state)
{
	(void)state;
	static const char text[] = "{\"a\\u00e9\":[1.5e+3,true,null,\"\xe2\x82\xac long enough to "
				   "skip\"],\"b\":{\"c\":\"\\n\"}}";
	for (size_t n = 0; n < sizeof(text) - 1; n++) {
		struct tight t = tighten((struct span){text, n});
		assert_int_equal(json_validate(t.text, NULL), -EBADMSG);
		free(t.bytes);
	}
	assert_int_equal(json_validate(SPAN_LIT(text), NULL), 0);
}

static void a_stopping_byte_is_found_at_every_offset(void **state)
{
	(void)state;
	static const char *const stops[] = {"\x01", "\x1f", "\x80", "\xff"};
	for (size_t at = 0; at < 40; at++) {
		for (size_t i = 0; i < COUNT(stops); i++) {
			CLEANUP(buf_releasep) struct buf b = BUF_INIT(1000);
			buf_putc(&b, '"');
			repeat(&b, "x", at);
			buf_puts(&b, stops[i]);
			repeat(&b, "!", 20);
			buf_putc(&b, '"');
			assert_int_equal(json_validate(buf_span(&b), NULL), -EBADMSG);
		}
		CLEANUP(buf_releasep) struct buf b = BUF_INIT(1000);
		buf_puts(&b, "[\"");
		repeat(&b, "\x7f", at);
		buf_puts(&b, "\\\"\",1]");
		struct span value;
		assert_true(json_pointer(buf_span(&b), SPAN_LIT("/1"), &value));
		assert_true(span_is(value, "1"));
	}
}

static void errors_name_line_and_column(void **state)
{
	(void)state;
	static const struct {
		struct span text;
		const char *message;
	} cases[] = {{CASE("{\"a\": tru}"), "JSON, line 1, column 7: not a JSON value"},
		     {CASE("{\n  \"a\": 1,\n  \"\xc3\xa9\": 01\n}"),
		      "JSON, line 3, column 9: a number must not begin with 0"},
		     {CASE("[1,\n2\n"), "JSON, line 3, column 1: expected ',' or ']'"},
		     {CASE("[] x"), "JSON, line 1, column 4: unexpected text after the value"},
		     {CASE(""), "JSON, line 1, column 1: expected a value, but the text ends"},
		     {CASE("\"a\\q\""), "JSON, line 1, column 3: unknown escape in a string"}};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct err e;
		assert_int_equal(json_validate(cases[i].text, &e), -EBADMSG);
		assert_string_equal(e.text, cases[i].message);
	}
}

static void depth_is_limited(void **state)
{
	(void)state;
	for (int over = 0; over < 2; over++) {
		CLEANUP(buf_releasep) struct buf b = BUF_INIT(100000);
		repeat(&b, "[", JSON_MAX_DEPTH + (size_t)over);
		repeat(&b, "]", JSON_MAX_DEPTH + (size_t)over);
		assert_int_equal(json_validate(buf_span(&b), NULL), over ? -EBADMSG : 0);
		assert_true(json_python_takes(buf_span(&b)));
	}
	for (int over = 0; over < 2; over++) {
		CLEANUP(buf_releasep) struct buf b = BUF_INIT(100000);
		struct json_doc *doc = NULL;
		repeat(&b, "[", JSON_DOC_MAX_DEPTH + (size_t)over);
		repeat(&b, "]", JSON_DOC_MAX_DEPTH + (size_t)over);
		assert_int_equal(json_doc_parse(buf_span(&b), &doc, NULL), over ? -EBADMSG : 0);
		json_doc_free(doc);
	}
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(1000000);
	repeat(&b, "[", 500000);
	struct err e;
	assert_int_equal(json_validate(buf_span(&b), &e), -EBADMSG);
	assert_non_null(strstr(e.text, "nested too deeply"));
}

static void what_pythons_json_takes(void **state)
{
	static const struct {
		struct span text;
		bool taken;
	} cases[] = {{SPAN_INIT("[NaN, Infinity, -Infinity]"), true},
		     {SPAN_INIT("\xEF\xBB\xBF{\"a\": 1}"), true},
		     {SPAN_INIT("{\0\"\0"), true},
		     {SPAN_INIT("\xFF\xFE{\0}\0"), true},
		     {SPAN_INIT("[nan]"), false},
		     {SPAN_INIT("[1,]"), false},
		     {SPAN_INIT("\xEF\xBB\xBF"), false},
		     {SPAN_INIT("[+Infinity]"), false},
		     {SPAN_INIT("[\"\xFF\"]"), false},
		     {SPAN_INIT(""), false}};
	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_int_equal(json_python_takes(cases[i].text), cases[i].taken);
		assert_int_equal(json_validate(cases[i].text, NULL), -EBADMSG);
	}
}

/* The example of RFC 6901 §5, and what it leaves open. */
#define RFC6901 \
	"{\"foo\":[\"bar\", " \
	"\"baz\"],\"\":0,\"a/b\":1,\"c%d\":2,\"e^f\":3,\"g|h\":4,\"i\\\\j\":5,\"k\\\"l\":6,\" " \
	"\":7,\"m~n\":8}"

static void pointers_find_values(void **state)
{
	(void)state;
	static const struct {
		const char *text, *pointer, *value; /* NULL: none */
	} cases[] = {{RFC6901, "", RFC6901},
		     {RFC6901, "/foo", "[\"bar\", \"baz\"]"},
		     {RFC6901, "/foo/0", "\"bar\""},
		     {RFC6901, "/foo/1", "\"baz\""},
		     {RFC6901, "/foo/2", NULL},
		     {RFC6901, "/foo/01", NULL},
		     {RFC6901, "/foo/+1", NULL},
		     {RFC6901, "/foo/-", NULL},
		     {RFC6901, "/foo/", NULL},
		     {RFC6901, "/foo/18446744073709551616", NULL},
		     {RFC6901, "/foo/18446744073709551617", NULL},
		     {RFC6901, "/", "0"},
		     {RFC6901, "/a~1b", "1"},
		     {RFC6901, "/a/b", NULL},
		     {RFC6901, "/c%d", "2"},
		     {RFC6901, "/e^f", "3"},
		     {RFC6901, "/g|h", "4"},
		     {RFC6901, "/i\\j", "5"},
		     {RFC6901, "/k\"l", "6"},
		     {RFC6901, "/ ", "7"},
		     {RFC6901, "/m~0n", "8"},
		     {RFC6901, "/m~n", NULL},
		     {RFC6901, "/m~2n", NULL},
		     {RFC6901, "foo", NULL},
		     {RFC6901, "//foo", NULL},
		     {" 9007199254740993 ", "", "9007199254740993"},
		     {"{\"a\":1.0}", "/a", "1.0"},
		     {"{\"a\": [ 1 , {\"b\" : null } ] }", "/a/1/b", "null"},
		     {"{\"a\":1,\"a\":2}", "/a", "2"},
		     {"{\"a\":{\"b\":1},\"a\":{\"c\":2}}", "/a/b", NULL},
		     {"{\"a\":{\"b\":1},\"a\":3}", "/a/b", NULL},
		     {"{\"a\":{\"b\":1},\"\\u0061\":{\"b\":2}}", "/a/b", "2"},
		     {"{\"\\u00e9\":1}", "/\xc3\xa9", "1"},
		     {"{\"\xc3\xa9\":1}", "/\xc3\xa9", "1"},
		     {"{\"\\ud83d\\ude00\":1}", "/\xf0\x9f\x98\x80", "1"},
		     {"{\"\\u007e\\/\":1}", "/~0~1", "1"},
		     {"{\"~1\":1,\"/\":2}", "/~1", "2"},
		     {"{\"~1\":1,\"/\":2}", "/~01", "1"},
		     {"{\"\\n\":1}", "/\n", "1"},
		     {"{\"a\\u0000\":1}", "/a", NULL},
		     {"{\"0\":1}", "/0", "1"},
		     {"[[[7]]]", "/0/0/0", "7"},
		     {"[1,[2,3],4]", "/1", "[2,3]"},
		     {"[]", "/0", NULL},
		     {"{}", "/a", NULL},
		     {"\"a\"", "/a", NULL},
		     {"{\"a\":\"{\\\"b\\\":1}\"}", "/a/b", NULL}};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct span value;
		bool found = json_pointer(span_of(cases[i].text), span_of(cases[i].pointer), &value);
		if (found != (cases[i].value != NULL) || (found && !span_is(value, cases[i].value)))
			fail_msg("%s at '%s' gave %.*s", cases[i].text, cases[i].pointer, SPAN_ARG(value));
	}
	struct span value;
	assert_false(json_pointer(SPAN_LIT("[1"), SPAN_LIT(""), &value));
	assert_false(json_pointer(SPAN_LIT("[1]"), SPAN_NONE, &value));
}

static void pointer_syntax(void **state)
{
	(void)state;
	static const char *const good[] = {"", "/", "/a", "/a/b", "/~0~1", "//", "/0"};
	static const char *const bad[] = {"a", "a/b", "/~", "/~2", "/a~", "~0", " /a"};
	for (size_t i = 0; i < COUNT(good); i++)
		assert_true(json_pointer_valid(span_of(good[i])));
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_false(json_pointer_valid(span_of(bad[i])));
	assert_false(json_pointer_valid(SPAN_NONE));
}

static void several_pointers_in_one_pass(void **state)
{
	(void)state;
	static const char text[] = "{\"a\":{\"b\":[1,{\"c\":2}],\"d\":\"x\"},\"e\":[],\"a2\":true}";
	static const struct {
		const char *pointer, *value;
	} cases[] = {{"/a/b/1/c", "2"}, {"/a/b", "[1,{\"c\":2}]"}, {"/a/d", "\"x\""},  {"/e", "[]"},
		     {"/a2", "true"},	{"/a/b/1", "{\"c\":2}"},   {"/nothing", NULL}, {"", text},
		     {"/a/b/1/c", "2"}, {"/a/b/1/c/d", NULL}};
	struct span pointers[200], values[200];
	for (size_t i = 0; i < 200; i++)
		pointers[i] = span_of(cases[i % COUNT(cases)].pointer);
	for (size_t n = 0; n <= 200; n += 40) {
		assert_int_equal(json_pointers(SPAN_LIT(text), pointers, n, values, NULL), 0);
		for (size_t i = 0; i < n; i++) {
			const char *expected = cases[i % COUNT(cases)].value;
			assert_int_equal(values[i].ptr == NULL, expected == NULL);
			assert_true(!expected || span_is(values[i], expected));
		}
	}
	/* What was found before a mistake is not handed out. */
	assert_int_equal(json_pointers(SPAN_LIT("{\"e\":1,\"a\":}"), pointers, 10, values, NULL), -EBADMSG);
	for (size_t i = 0; i < 10; i++)
		assert_null(values[i].ptr);
}

static void half_a_string_is_never_left_behind(void **state)
{
	(void)state;
	for (size_t max = 0; max < 12; max++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(max);
		int r = json_quote(&out, SPAN_LIT("a\n\xc3\xa9\xffz"));
		assert_true(r == 0 ? json_validate(buf_span(&out), NULL) == 0 : out.len == 0);
	}
	for (size_t max = 3; max < 12; max++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(max);
		assert_int_equal(json_unescape_front(SPAN_LIT("\"a\\u00e9\\u0000bcd\\u20ac\""), &out), 0);
		assert_true(text_front(buf_span(&out), out.len).len == out.len && out.len <= max);
		if (max < 10)
			assert_memory_equal(out.ptr + out.len - 3, "\xe2\x80\xa6", 3);
		else
			assert_memory_equal(out.ptr, "a\xc3\xa9\0bcd\xe2\x82\xac", 10);
	}
}

static void quoting_and_unescaping(void **state)
{
	(void)state;
	static const struct {
		struct span text, quoted;
	} cases[] = {
		{CASE(""), CASE("\"\"")},
		{CASE("plain text, longer than a word"), CASE("\"plain text, longer than a word\"")},
		{CASE("a\"b\\c/d"), CASE("\"a\\\"b\\\\c/d\"")},
		{CASE("\b\f\n\r\t\x01\x1f\x7f"), CASE("\"\\b\\f\\n\\r\\t\\u0001\\u001f\\u007f\"")},
		{CASE("\xc2\x80\xc2\x9b[31m\xc2\x9f\xc2\xa0"), CASE("\"\\u0080\\u009b[31m\\u009f\xc2\xa0\"")},
		{CASE("a\0b"), CASE("\"a\\u0000b\"")},
		{CASE("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
		 CASE("\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"")},
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		CLEANUP(buf_releasep) struct buf quoted = BUF_INIT(1000), back = BUF_INIT(1000);
		assert_int_equal(json_quote(&quoted, cases[i].text), 0);
		assert_true(span_eq(buf_span(&quoted), cases[i].quoted));
		assert_int_equal(json_unescape(buf_span(&quoted), &back), 0);
		assert_true(span_eq(buf_span(&back), cases[i].text));
	}
	static const struct {
		struct span quoted, text; /* NONE: refused */
	} escapes[] = {{CASE("\"\\/\\u0041\\uD83D\\uDE00\""), CASE("/A\xf0\x9f\x98\x80")},
		       {CASE("\"\\uD800\""), CASE("\xef\xbf\xbd")},
		       {CASE("\"\\uDC00x\""), CASE("\xef\xbf\xbdx")},
		       {CASE("\"\\uD800\\u0041\""), CASE("\xef\xbf\xbd"
							 "A")},
		       {CASE("\"\\uD800\\uD83D\\uDE00\""), CASE("\xef\xbf\xbd\xf0\x9f\x98\x80")},
		       {CASE("\"\\q\""), NONE},
		       {CASE("\"\\u12\""), NONE},
		       {CASE("1"), NONE},
		       {CASE("\""), NONE},
		       {CASE("null"), NONE},
		       {CASE(""), NONE},
		       {CASE("\"\\\""), NONE}};
	for (size_t i = 0; i < COUNT(escapes); i++) {
		CLEANUP(buf_releasep) struct buf back = BUF_INIT(1000);
		assert_int_equal(json_unescape(escapes[i].quoted, &back), escapes[i].text.ptr ? 0 : -EINVAL);
		assert_true(!escapes[i].text.ptr || span_eq(buf_span(&back), escapes[i].text));
	}
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(1000), small = BUF_INIT(4);
	assert_int_equal(json_quote(&out, SPAN_LIT("a\xff\xc3(\xed\xa0\x80")), 0);
	assert_string_equal(out.ptr, "\"a\xef\xbf\xbd\xef\xbf\xbd(\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
	assert_int_equal(json_quote(&small, SPAN_LIT("abc")), -EFBIG);
	assert_int_equal(json_unescape(SPAN_LIT("\"abcde\""), &small), -EFBIG);
}

static void iteration(void **state)
{
	(void)state;
	static const struct {
		const char *text, *seen;
	} cases[] = {{"[]", ""},
		     {" {} ", ""},
		     {"[ ]", ""},
		     {"[1, \"a,]\" ,[2,[3]], {\"x\":\"}\"} ]", "1;\"a,]\";[2,[3]];{\"x\":\"}\"};"},
		     {"{\"a\": 1 ,\"b\\\"\\\\\":[true,\"\\\\\"] , \"a\":null}",
		      "\"a\"=1;\"b\\\"\\\\\"=[true,\"\\\\\"];\"a\"=null;"},
		     {"12", ""},
		     {"\"[1]\"", ""}};
	for (size_t i = 0; i < COUNT(cases); i++) {
		CLEANUP(buf_releasep) struct buf seen = BUF_INIT(1000);
		struct tight t = tighten(span_trim(span_of(cases[i].text)));
		struct json_iter it;
		struct span key, value;
		json_iter_init(&it, t.text);
		while (json_iter_next(&it, &key, &value)) {
			buf_append_span(&seen, key);
			buf_puts(&seen, key.ptr ? "=" : "");
			buf_append_span(&seen, value);
			buf_putc(&seen, ';');
		}
		assert_false(json_iter_next(&it, &key, &value));
		assert_true(span_is(buf_span(&seen), cases[i].seen));
		free(t.bytes);
	}
}

static void types(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		enum json_type type;
	} cases[] = {{"null", JSON_NULL}, {"true", JSON_TRUE},	 {"false", JSON_FALSE}, {"-1", JSON_NUMBER},
		     {"0", JSON_NUMBER},  {"\"\"", JSON_STRING}, {"[]", JSON_ARRAY},	{"{}", JSON_OBJECT}};
	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_int_equal(json_type_of(span_of(cases[i].text)), cases[i].type);
		struct json_doc *doc;
		assert_int_equal(json_doc_parse(span_of(cases[i].text), &doc, NULL), 0);
		assert_int_equal(json_node_type(json_root(doc)), cases[i].type);
		json_doc_free(doc);
	}
	assert_int_equal(json_type_of(SPAN_NONE), JSON_NULL);
}

static void equality_by_meaning(void **state)
{
	(void)state;
	static const struct {
		const char *a, *b;
		int equal;
	} cases[] = {{"1", "1.0", 1},
		     {"1", "10e-1", 1},
		     {"1", "0.1E+1", 1},
		     {"100", "1e2", 1},
		     {"0", "-0.00e9", 1},
		     {"-1", "1", 0},
		     {"1", "2", 0},
		     {"10", "1", 0},
		     {"0.001", "1e-3", 1},
		     {"0.0010", "0.1e-2", 1},
		     {"12.50", "125e-1", 1},
		     {"0", "1", 0},
		     {"9007199254740993", "9007199254740992", 0},
		     {"9007199254740993", "9007199254740993.0", 1},
		     {"1.5", "15", 0},
		     {"1e99999999999999999999", "1e99999999999999999999", 1},
		     {"101", "1.01e2", 1},
		     {"101", "11", 0},
		     {"1.05", "1.5", 0},
		     {"\"a\"", "\"\\u0061\"", 1},
		     {"\"a\"", "\"A\"", 0},
		     {"\"\\/\"", "\"/\"", 1},
		     {"\"\"", "\"\"", 1},
		     {"\"1\"", "1", 0},
		     {"null", "null", 1},
		     {"null", "false", 0},
		     {"true", "true", 1},
		     {"true", "false", 0},
		     {"[]", "[ ]", 1},
		     {"[1,2]", "[1.0, 2]", 1},
		     {"[1,2]", "[2,1]", 0},
		     {"[1]", "[1,2]", 0},
		     {"[1,2]", "[1]", 0},
		     {"[]", "{}", 0},
		     {"{\"a\":1,\"b\":[2]}", "{ \"b\" : [2.0] , \"\\u0061\" : 1 }", 1},
		     {"{\"a\":1}", "{\"a\":1,\"b\":2}", 0},
		     {"{\"a\":1,\"b\":2}", "{\"a\":1}", 0},
		     {"{\"a\":1,\"a\":2}", "{\"a\":2}", 1},
		     {"{\"a\":1,\"a\":2}", "{\"a\":1}", 0},
		     {"{\"a\":null}", "{}", 0},
		     {"{}", "{}", 1},
		     {"{\"a\":{\"b\":1}}", "{\"a\":{\"b\":2}}", 0}};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct span a = span_of(cases[i].a), b = span_of(cases[i].b);
		if (json_equal(a, b) != cases[i].equal || json_equal(b, a) != cases[i].equal)
			fail_msg("%s and %s", cases[i].a, cases[i].b);
	}
}

static void documents(void **state)
{
	(void)state;
	static const char text[] = "{\"s\":\"a\\u00e9\",\"n\":1.5,\"t\":true,\"l\":[1,[],{\"S\":2}],\"s\":"
				   "\"last\",\"big\":1e400,\"z\":null}";
	struct json_doc *doc;
	assert_int_equal(json_doc_parse(SPAN_LIT(text), &doc, NULL), 0);
	const struct json_node *root = json_root(doc);
	double number = 0;
	bool truth = false;
	assert_string_equal(json_string(json_get(root, "s")), "last");
	assert_string_equal(json_string(json_first(root)), "a\xc3\xa9");
	assert_string_equal(json_key(json_first(root)), "s");
	assert_null(json_get(root, "S"));
	assert_true(json_number(json_get(root, "n"), &number));
	assert_true(number == 1.5);
	assert_false(json_number(json_get(root, "big"), &number));
	assert_false(json_number(json_get(root, "s"), &number));
	assert_true(json_bool(json_get(root, "t"), &truth));
	assert_true(truth);
	assert_false(json_bool(json_get(root, "n"), &truth));
	assert_int_equal(json_count(json_get(root, "l")), 3);
	assert_int_equal(json_count(root), 7);
	assert_true(json_number(json_get(json_at(json_get(root, "l"), 2), "S"), &number));
	assert_null(json_at(json_get(root, "l"), 3));
	assert_null(json_at(root, 0));
	assert_null(json_key(json_at(json_get(root, "l"), 0)));
	assert_null(json_get(json_get(json_get(root, "x"), "y"), "z"));
	assert_null(json_string(NULL));
	assert_int_equal(json_node_type(json_get(root, "x")), JSON_NULL);
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(1000);
	assert_int_equal(json_print(json_get(root, "l"), &out), 0);
	assert_int_equal(json_print(NULL, &out), 0);
	assert_string_equal(out.ptr, "[1,[],{\"S\":2}]null");
	assert_null(json_doc_free(doc));
	assert_null(json_root(NULL));
}

static void documents_mend_what_cjson_cannot_hold(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(10000);
	buf_puts(&b, "{\"nul\":\"a\\u0000b\",\"slash\":\"\\\\u0000\",\"lone\":\"\\uDC00|\\ud800|"
		     "\\uD83D\\uDE00\",\"k\\u0000x\":1,\"long\":-1");
	repeat(&b, "0", 100);
	buf_puts(&b, ".5e-100,\"over\":");
	repeat(&b, "9", 400);
	buf_puts(&b, "}");
	struct json_doc *doc;
	struct err e = {""};
	assert_int_equal(json_doc_parse(buf_span(&b), &doc, &e), 0);
	const struct json_node *root = json_root(doc);
	assert_string_equal(json_string(json_get(root, "nul")), "a\xef\xbf\xbd"
								"b");
	assert_string_equal(json_string(json_get(root, "slash")), "\\u0000");
	assert_string_equal(json_string(json_get(root, "lone")),
			    "\xef\xbf\xbd|\xef\xbf\xbd|\xf0\x9f\x98\x80");
	assert_null(json_get(root, "k"));
	assert_non_null(json_get(root, "k\xef\xbf\xbdx"));
	double number = 0;
	assert_true(json_number(json_get(root, "long"), &number));
	assert_true(number == -1.0);
	assert_false(json_number(json_get(root, "over"), &number));
	assert_int_equal(json_node_type(json_get(root, "over")), JSON_NUMBER);
	json_doc_free(doc);
}

static void documents_have_a_limit(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(64u << 20);
	buf_puts(&b, "[0");
	assert_int_equal(buf_reserve(&b, 2 * JSON_DOC_MAX_VALUES), 0);
	repeat(&b, ",0", JSON_DOC_MAX_VALUES);
	buf_puts(&b, "]");
	struct json_doc *doc = NULL;
	struct err e;
	assert_int_equal(json_validate(buf_span(&b), NULL), 0);
	assert_int_equal(json_doc_parse(buf_span(&b), &doc, &e), -EFBIG);
	assert_non_null(strstr(e.text, "4000000 values"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(validates_as_rfc_8259_says),
					   cmocka_unit_test(every_cut_of_a_document_is_invalid),
					   cmocka_unit_test(a_stopping_byte_is_found_at_every_offset),
					   cmocka_unit_test(errors_name_line_and_column),
					   cmocka_unit_test(depth_is_limited),
					   cmocka_unit_test(what_pythons_json_takes),
					   cmocka_unit_test(pointers_find_values),
					   cmocka_unit_test(pointer_syntax),
					   cmocka_unit_test(several_pointers_in_one_pass),
					   cmocka_unit_test(quoting_and_unescaping),
					   cmocka_unit_test(half_a_string_is_never_left_behind),
					   cmocka_unit_test(iteration),
					   cmocka_unit_test(types),
					   cmocka_unit_test(equality_by_meaning),
					   cmocka_unit_test(documents),
					   cmocka_unit_test(documents_mend_what_cjson_cannot_hold),
					   cmocka_unit_test(documents_have_a_limit)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
