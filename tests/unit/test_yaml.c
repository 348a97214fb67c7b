/* yaml: places, aliases, merge keys, limits, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "base/yaml.h"

DEFINE_CLEANUP(struct yaml_doc *, yaml_free)

static struct yaml_doc *parsed(const char *text)
{
	struct yaml_doc *doc = NULL;
	struct err e = {""};
	if (yaml_parse("t.yml", span_of(text), &doc, &e) != 0)
		fail_msg("%s", e.text);
	return doc;
}

static void to_json(void **state)
{
	(void)state;
	static const struct {
		const char *yaml, *json;
	} cases[] = {{"", "null"},
		     {"# only a comment\n", "null"},
		     {"---\n", "null"},
		     {"a: 1\nb: [x, 'y', \"z\\n\"]\nc: {d: ~, e: , f: Null}\n",
		      "{\"a\":1,\"b\":[\"x\",\"y\",\"z\\u000a\"],\"c\":{\"d\":null,\"e\":null,\"f\":null}}"},
		     {"[true, True, FALSE, yes, no, on, 'true']",
		      "[true,true,false,\"yes\",\"no\",\"on\",\"true\"]"},
		     {"[9007199254740993, 1.0, -0, 1e3, 05, +1, .5, 5., 0x1F, 1_000, .inf, -, '1']",
		      "[9007199254740993,1.0,-0,1e3,\"05\",\"+1\",\".5\",\"5.\",\"0x1F\",\"1_000\",\".inf\","
		      "\"-\",\"1\"]"},
		     {"!!str 5", "\"5\""},
		     {"!!int '5'", "5"},
		     {"a: |\n  two\n  lines\nb: >-\n  one\n  line\n",
		      "{\"a\":\"two\\u000alines\\u000a\",\"b\":\"one line\"}"},
		     {"\"\\\"\\\\/\"", "\"\\\"\\\\/\""},
		     {"\xEF\xBB\xBF"
		      "a: 1",
		      "{\"a\":1}"},
		     {"a: &x {k: 1}\nb: *x\nc: [*x, *x]",
		      "{\"a\":{\"k\":1},\"b\":{\"k\":1},\"c\":[{\"k\":1},{\"k\":1}]}"},
		     {"a: &x 1\nb: *x\nc: &x 2\nd: *x", "{\"a\":1,\"b\":1,\"c\":2,\"d\":2}"},
		     {"a: &x {k: 1, l: 2}\nb: {<<: *x, l: 3, m: 4}",
		      "{\"a\":{\"k\":1,\"l\":2},\"b\":{\"l\":3,\"m\":4,\"k\":1}}"},
		     {"a: &x {k: 1}\nb: &y {k: 2, n: 3}\nc: {<<: [*x, *y], o: 4}",
		      "{\"a\":{\"k\":1},\"b\":{\"k\":2,\"n\":3},\"c\":{\"o\":4,\"k\":1,\"n\":3}}"},
		     {"a: {'<<': 1}", "{\"a\":{\"<<\":1}}"},
		     {"a: &x {}\nb: {<<: *x}", "{\"a\":{},\"b\":{}}"},
		     {"k: &k name\n*k : v", "{\"k\":\"name\",\"name\":\"v\"}"},
		     {"{\"json\": [1, {\"x\": \"\\u00e9\"}]}", "{\"json\":[1,{\"x\":\"\xc3\xa9\"}]}"}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(yaml_freep) struct yaml_doc *doc = parsed(cases[i].yaml);
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
		assert_int_equal(yaml_to_json(yaml_root(doc), &out), 0);
		assert_string_equal(out.ptr, cases[i].json);
	}
}

static void mistakes_name_their_place(void **state)
{
	(void)state;
	static const struct {
		const char *yaml;
		int code;
		const char *text;
	} cases[] = {
		{"a: 1\nb: 2\na: 3\n", -EBADMSG, "t.yml:3:1: the key \"a\" was already given on line 1"},
		{"a: {b: 1, 'b': 2}", -EBADMSG, "t.yml:1:11: the key \"b\" was already given on line 1"},
		{"a: 1\n---\nb: 2\n", -EBADMSG, "t.yml:2:1: a second document; a file holds only one"},
		{"a: *x\n", -EBADMSG, "t.yml:1:4: an alias with no anchor before it: *x"},
		{"a: &x [1, *x]\n", -EBADMSG, "t.yml:1:11: an alias to a node that contains it"},
		{"? [a, b]\n: 1\n", -EBADMSG, "t.yml:1:3: a key must be a scalar"},
		{"a: !secret 1\n", -EBADMSG, "t.yml:1:4: the tag !secret is not supported here"},
		{"a: !!set {x}\n", -EBADMSG,
		 "t.yml:1:4: the tag tag:yaml.org,2002:set is not supported here"},
		{"a: \"x\\0y\"\n", -EBADMSG, "t.yml:1:4: a NUL character in a string"},
		{"a: {<<: 1}\n", -EBADMSG, "t.yml:1:9: << merges mappings: expected one, or a list of them"},
		{"x: &x {}\na: {<<: *x, <<: *x}\n", -EBADMSG,
		 "t.yml:2:13: the key \"<<\" was already given on line 2"},
		{"a: 1\n  b: 2\n", -EBADMSG, "t.yml:2:4: mapping values are not allowed in this context"},
		{"a: [1,\nb: 2\n", -EBADMSG,
		 "t.yml:3:1: did not find expected ',' or ']' (while parsing a flow sequence that began on "
		 "line 1)"},
		{"a: 1\nb: \xff\n", -EBADMSG, "t.yml:2:4: invalid leading UTF-8 octet"},
		{"a: 1\nb: \x01\n", -EBADMSG, "t.yml:2:4: control characters are not allowed"},
		{"a: \tb\n\t- c\n", -EBADMSG,
		 "t.yml:2:1: found a tab character that violates indentation (while scanning a plain scalar "
		 "that began on "
		 "line 1)"}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct yaml_doc *doc = NULL;
		struct err e = {""};
		assert_int_equal(yaml_parse("t.yml", span_of(cases[i].yaml), &doc, &e), cases[i].code);
		assert_string_equal(e.text, cases[i].text);
		assert_null(doc);
	}
}

/* The bytes between start and end are what stands in the text, also behind characters of several bytes. */
static void places_are_bytes(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"k\xc3\xa4se: caf\xc3\xa9\nw: \"\xe2\x82\xac \xf0\x9f\x98\x80\"\nlast: 25.5 # \xe2\x82\xac\n",
		("\xEF\xBB\xBFk\xc3\xa4se: caf\xc3\xa9\r\n"
		 "w: \"\xe2\x82\xac \xf0\x9f\x98\x80\"\r\nlast: 25.5\r\n"),
		"{k\xc3\xa4se: caf\xc3\xa9, w: \"\xe2\x82\xac \xf0\x9f\x98\x80\", last: 25.5}",
	};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		CLEANUP(yaml_freep) struct yaml_doc *doc = parsed(texts[i]);
		static const struct {
			const char *key, *raw;
		} expected[] = {{"k\xc3\xa4se", "caf\xc3\xa9"},
				{"w", "\"\xe2\x82\xac \xf0\x9f\x98\x80\""},
				{"last", "25.5"}};
		for (size_t j = 0; j < 3; j++) {
			const struct yaml_node *n = yaml_get(yaml_root(doc), expected[j].key);
			assert_non_null(n);
			struct span raw = {texts[i] + n->start, n->end - n->start};
			assert_true(span_is(raw, expected[j].raw));
			struct span key = {texts[i] + n->key->start, n->key->end - n->key->start};
			assert_true(span_is(key, expected[j].key));
		}
	}
	CLEANUP(yaml_freep) struct yaml_doc *doc = parsed("a: &x 5\nb: *x\nc:\n  - 'q'\n");
	const struct yaml_node *b = yaml_get(yaml_root(doc), "b"), *c = yaml_get(yaml_root(doc), "c");
	assert_int_equal(b->line, 2);
	assert_int_equal(b->start, 11);
	assert_int_equal(b->end, 13);
	assert_int_equal(c->first->line, 4);
	assert_int_equal(c->first->column, 5);
}

static void values(void **state)
{
	(void)state;
	CLEANUP(yaml_freep)
	struct yaml_doc *doc = parsed("i: -42\nq: '42'\nbig: 9223372036854775808\nd: 12.5\nb: true\nn: ~\ns: "
				      "text\nl: []\nf: .5\ninf: 1e999\n");
	const struct yaml_node *root = yaml_root(doc);
	int64_t i;
	double d;
	bool b;
	struct span s;
	assert_true(yaml_int(yaml_get(root, "i"), &i));
	assert_int_equal(i, -42);
	assert_false(yaml_int(yaml_get(root, "q"), &i));
	assert_false(yaml_int(yaml_get(root, "big"), &i));
	assert_false(yaml_int(yaml_get(root, "d"), &i));
	assert_true(yaml_double(yaml_get(root, "d"), &d) && d == 12.5);
	assert_true(yaml_double(yaml_get(root, "f"), &d) && d == 0.5);
	assert_true(yaml_double(yaml_get(root, "i"), &d) && d == -42);
	assert_false(yaml_double(yaml_get(root, "inf"), &d));
	assert_false(yaml_double(yaml_get(root, "q"), &d));
	assert_true(yaml_bool(yaml_get(root, "b"), &b) && b);
	assert_false(yaml_bool(yaml_get(root, "s"), &b));
	assert_true(yaml_is_null(yaml_get(root, "n")));
	assert_false(yaml_string(yaml_get(root, "n"), &s));
	assert_false(yaml_string(yaml_get(root, "l"), &s));
	assert_true(yaml_string(yaml_get(root, "i"), &s) && span_is(s, "-42"));
	assert_null(yaml_get(root, "absent"));
	assert_null(yaml_get(NULL, "x"));
	assert_null(yaml_get(yaml_get(root, "s"), "x"));
	assert_false(yaml_int(NULL, &i));
	assert_int_equal(root->count, 10);
	assert_string_equal(yaml_name(doc), "t.yml");
}

static int parse_code(const char *text, struct err *e)
{
	struct yaml_doc *doc = NULL;
	int code = yaml_parse("t.yml", span_of(text), &doc, e);
	yaml_free(doc);
	return code;
}

static void depth_is_limited(void **state)
{
	(void)state;
	char text[2 * YAML_MAX_DEPTH + 8] = "";
	struct err e;
	memset(text, '[', YAML_MAX_DEPTH);
	memset(text + YAML_MAX_DEPTH, ']', YAML_MAX_DEPTH);
	assert_int_equal(parse_code(text, &e), 0);
	memset(text, '[', YAML_MAX_DEPTH + 1);
	memset(text + YAML_MAX_DEPTH + 1, ']', YAML_MAX_DEPTH + 1);
	assert_int_equal(parse_code(text, &e), -EFBIG);
	assert_string_equal(e.text, "t.yml:1:65: nested deeper than 64 levels");

	/* Aliases nest without the text being nested. */
	CLEANUP(buf_releasep) struct buf chain = BUF_INIT(1 << 16);
	buf_puts(&chain, "a0: &a0 [x]\n");
	for (int i = 1; i < 70; i++)
		buf_printf(&chain, "a%d: &a%d [*a%d]\n", i, i, i - 1);
	assert_int_equal(parse_code(chain.ptr, &e), -EFBIG);
	assert_string_equal(e.text, "t.yml:63:12: nested deeper than 64 levels, aliases expanded");
}

/* "Billion laughs": each level holds the one below nine times. */
static void expansion_is_limited(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf bomb = BUF_INIT(1 << 16);
	struct err e;
	buf_puts(&bomb, "a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
	for (int i = 1; i < 12; i++) {
		buf_printf(&bomb, "a%d: &a%d [", i, i);
		for (int j = 0; j < 9; j++)
			buf_printf(&bomb, "%s*a%d", j ? ", " : "", i - 1);
		buf_puts(&bomb, "]\n");
	}
	assert_int_equal(parse_code(bomb.ptr, &e), -EFBIG);
	assert_non_null(strstr(e.text, "more than 4000000 nodes, aliases expanded"));

	/* The same by merging: a mapping of 1000 members into 5000 others. */
	buf_clear(&bomb);
	bomb.max = 1 << 20;
	buf_puts(&bomb, "m: &m {");
	for (int i = 0; i < 1000; i++)
		buf_printf(&bomb, "k%d: 1, ", i);
	buf_puts(&bomb, "}\nl:\n");
	for (int i = 0; i < 5000; i++)
		buf_puts(&bomb, "- {<<: *m}\n");
	assert_int_equal(parse_code(bomb.ptr, &e), -EFBIG);

	buf_clear(&bomb);
	for (int i = 0; i <= YAML_MAX_ANCHORS; i++)
		buf_printf(&bomb, "- &a%d x\n", i);
	assert_int_equal(parse_code(bomb.ptr, &e), -EFBIG);
	assert_string_equal(e.text, "t.yml:4097:3: more than 4096 anchors");
}

static void many_keys(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(4 << 20);
	for (int i = 0; i < 50000; i++)
		buf_printf(&text, "k%d: %d\n", i, i);
	size_t good = text.len;
	CLEANUP(yaml_freep) struct yaml_doc *doc = parsed(text.ptr);
	assert_int_equal(yaml_root(doc)->count, 50000);
	struct span last;
	assert_true(yaml_string(yaml_get(yaml_root(doc), "k49999"), &last) && span_is(last, "49999"));
	buf_puts(&text, "k7: again\n");
	struct err e;
	assert_int_equal(parse_code(text.ptr, &e), -EBADMSG);
	assert_string_equal(e.text, "t.yml:50001:1: the key \"k7\" was already given on line 8");
	assert_true(text.len > good);
}

static void several_documents(void **state)
{
	struct yaml_doc *doc = NULL;
	struct err e;
	(void)state;
	assert_int_equal(yaml_parse_all("t.yml", SPAN_LIT("a: &x 1\n---\nb: 2\n---\n"), &doc, &e), 0);
	const struct yaml_node *first = yaml_root(doc), *second = first->next;
	assert_non_null(yaml_get(first, "a"));
	assert_non_null(yaml_get(second, "b"));
	assert_int_equal(second->line, 3);
	assert_true(yaml_is_null(second->next));
	assert_null(second->next->next);
	yaml_free(doc);
	/* An anchor is its own document's. */
	assert_int_equal(yaml_parse_all("t.yml", SPAN_LIT("a: &x 1\n---\nb: *x\n"), &doc, &e), 0);
	assert_non_null(strstr(yaml_fault(yaml_root(doc)->next), "t.yml:3:4: an alias with no anchor"));
	yaml_free(doc);
}

/* What is odd is the fault of its element, and what stands before and behind it is read. */
static void a_fault_stays_with_its_element(void **state)
{
	static const struct {
		const char *element, *fault;
	} cases[] = {{"!secret x", "t.yml:2:4: the tag !secret is not supported here"},
		     {"!set {a: b}", "t.yml:2:4: the tag !set is not supported here"},
		     {"{k: *x}", "t.yml:2:8: an alias with no anchor before it: *x"},
		     {"&x [*x]", "t.yml:2:8: an alias to a node that contains it"},
		     {"{[a, b]: 1}", "t.yml:2:5: a key must be a scalar"},
		     {"{? {a: b} : 1}", "t.yml:2:7: a key must be a scalar"},
		     {"{!secret k: 1}", "t.yml:2:5: the tag !secret is not supported here"},
		     {"\"x\\0y\"", "t.yml:2:4: a NUL character in a string"},
		     {"x\xffy", "t.yml:2:4: bytes that are not UTF-8, or control characters"},
		     {"\"\xe9\"", "t.yml:2:4: bytes that are not UTF-8, or control characters"},
		     {"{k\x01: 1}", "t.yml:2:5: bytes that are not UTF-8, or control characters"},
		     {"{<<: 1}", "t.yml:2:9: << merges mappings: expected one, or a list of them"},
		     {"{k: 1, k: 2}", "t.yml:2:11: the key \"k\" was already given on line 2"}};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
		CLEANUP(yaml_freep) struct yaml_doc *doc = NULL;
		struct err e = {""};
		buf_printf(&text, "a: 1\nb: %s\nc: last\n", cases[i].element);
		assert_int_equal(yaml_parse_all("t.yml", buf_span(&text), &doc, &e), 0);
		const struct yaml_node *root = yaml_root(doc), *last = yaml_get(root, "c");
		assert_null(root->fault);
		assert_null(yaml_fault(yaml_get(root, "a")));
		assert_non_null(yaml_fault(yaml_get(root, "b")));
		assert_string_equal(yaml_fault(yaml_get(root, "b")), cases[i].fault);
		assert_null(yaml_fault(last));
		assert_memory_equal(text.ptr + last->start, "last", last->end - last->start);
	}
}

static void depth_is_the_fault_of_what_is_too_deep(void **state)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
	CLEANUP(yaml_freep) struct yaml_doc *doc = NULL;
	struct err e = {""};
	(void)state;
	buf_puts(&text, "a: ");
	for (int i = 0; i < 300; i++)
		buf_putc(&text, '[');
	for (int i = 0; i < 300; i++)
		buf_putc(&text, ']');
	buf_puts(&text, "\n# \xff is nobody's value\nb: last\n");
	assert_int_equal(yaml_parse_all("t.yml", buf_span(&text), &doc, &e), 0);
	assert_string_equal(yaml_fault(yaml_get(yaml_root(doc), "a")),
			    "t.yml:1:67: nested deeper than 64 levels");
	assert_null(yaml_fault(yaml_get(yaml_root(doc), "b")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(several_documents),
		cmocka_unit_test(a_fault_stays_with_its_element),
		cmocka_unit_test(depth_is_the_fault_of_what_is_too_deep),
		cmocka_unit_test(to_json),
		cmocka_unit_test(mistakes_name_their_place),
		cmocka_unit_test(places_are_bytes),
		cmocka_unit_test(values),
		cmocka_unit_test(depth_is_limited),
		cmocka_unit_test(expansion_is_limited),
		cmocka_unit_test(many_keys),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
