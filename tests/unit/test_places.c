/* The reader of YAML files: every kind of value, every mistake with its place, nothing said twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/nearest.h"
#include "base/places.h"
#include "base/url.h"

struct values {
	struct span span;
	const char *text, *path, *file, *url, *own;
	bool flag;
	unsigned number, duration_ms;
	uint64_t size;
	size_t size_t_;
};

static bool read_own(const struct place *p, void *to)
{
	struct span s;
	if (!value_text(p, &s) || !span_is(s, "mine")) {
		place_mistake(p, "expected mine");
		return false;
	}
	*(const char **)to = s.ptr;
	return true;
}

static const struct field fields[] = {
	{"span", FIELD_SPAN, offsetof(struct values, span), 0, 0},
	{"text", FIELD_TEXT, offsetof(struct values, text), 0, 0},
	{"path", FIELD_PATH, offsetof(struct values, path), 0, 0},
	{"file", FIELD_FILE, offsetof(struct values, file), 0, 0},
	{"url", FIELD_URL, offsetof(struct values, url), 0, 0},
	{"own", FIELD_OWN, offsetof(struct values, own), 0, 0},
	{"flag", FIELD_BOOL, offsetof(struct values, flag), 0, 0},
	{"number", FIELD_UNSIGNED, offsetof(struct values, number), 1, 64},
	{"size", FIELD_SIZE, offsetof(struct values, size), 1, 1ull << 40},
	{"size_t", FIELD_SIZE_T, offsetof(struct values, size_t_), 1024, 1 << 20},
	{"duration", FIELD_DURATION, offsetof(struct values, duration_ms), 10, 60000},
	{"other", FIELD_OTHER, 0, 0, 0},
};

/* A text, read by the table above (or by `read`); what is said of it stands in `problems`. */
struct reading {
	struct yaml_doc *doc;
	struct arena memory;
	struct buf problems;
	struct place_reader reader;
	struct place root;
};

static void open_text(struct reading *r, const char *text)
{
	struct err e = {""};
	*r = (struct reading){.memory = ARENA_INIT(1 << 20), .problems = BUF_INIT(1 << 16)};
	if (yaml_parse("f.yml", span_of(text), &r->doc, &e) < 0)
		fail_msg("%s", e.text);
	r->reader = (struct place_reader){.name = "f.yml",
					  .folder = "conf/",
					  .memory = &r->memory,
					  .problems = &r->problems,
					  .own = read_own};
	r->root = place_root(&r->reader, yaml_root(r->doc));
}

static void close_text(struct reading *r)
{
	buf_release(&r->problems);
	arena_release(&r->memory);
	yaml_free(r->doc);
}

static void every_kind_of_value_is_read(void **state)
{
	(void)state;
	struct reading r;
	struct values v = {.number = 7};
	open_text(&r,
		  "span: a b\ntext: t\npath: x/y\nfile: /dev/null\nurl: HTTPS://Host:1/p\nown: mine\nflag: "
		  "true\n"
		  "size: 3GiB\nsize_t: 2048\nduration: 2s\nnumber:\nother: {whatever: 1}\nx-anchors: [1]\n");
	READ_FIELDS(&r.root, fields, &v);
	assert_string_equal(buf_span(&r.problems).ptr, "");
	assert_int_equal(r.reader.mistakes, 0);
	assert_true(span_is(v.span, "a b"));
	assert_string_equal(v.text, "t");
	assert_string_equal(v.path, "conf/x/y");
	assert_string_equal(v.file, "/dev/null");
	assert_string_equal(v.url, "https://Host:1/p");
	assert_string_equal(v.own, "mine");
	assert_true(v.flag);
	assert_int_equal(v.size, 3ull << 30);
	assert_int_equal(v.size_t_, 2048);
	assert_int_equal(v.duration_ms, 2000);
	assert_int_equal(v.number, 7); /* a key without a value is no key: the default stays */
	close_text(&r);
}

static void a_mistake_names_file_line_and_key(void **state)
{
	(void)state;
	static const struct {
		const char *text, *said;
	} cases[] = {
		{"text: {a: b}\n", "f.yml:1: text: expected a string, not a mapping\n"},
		{"flag: yes\n", "f.yml:1: flag: expected true or false, not \"yes\"\n"},
		{"\nnumber: 65\n", "f.yml:2: number: expected a whole number from 1 to 64, not \"65\"\n"},
		{"number: -1\n", "f.yml:1: number: expected a whole number from 1 to 64, not \"-1\"\n"},
		{"size: 1m\n",
		 "f.yml:1: size: expected a size from 1 to 1TiB (bytes, or with KiB, MiB, GiB), "
		 "not \"1m\"\n"},
		{"size_t: [1]\n", "f.yml:1: size_t: expected a size from 1KiB to 1MiB (bytes, or with KiB, "
				  "MiB, GiB), not a list\n"},
		{"duration: 5ms\n", "f.yml:1: duration: expected a duration from 10ms to 1m (500ms, 5s, 2m, "
				    "1h, 7d), not \"5ms\"\n"},
		{"duration: \"9\\n9\"\n", "f.yml:1: duration: expected a duration from 10ms to 1m (500ms, "
					  "5s, 2m, 1h, 7d), not \"9 9\"\n"},
		{"file: nowhere\n", "f.yml:1: file: conf/nowhere: No such file or directory\n"},
		{"own: yours\n", "f.yml:1: own: expected mine\n"},
		{"- 1\n", "f.yml:1: expected a mapping, not a list\n"},
		/* of a URL nothing is repeated */
		{"url: http://u:secret@h\n",
		 "f.yml:1: url: user names and passwords are not allowed in this URL\n"},
		/* the line of the key, also where it has no value */
		{"text: a\nnumer:\n", "f.yml:2: numer: unknown key; did you mean \"number\"?\n"},
		{"x: 1\n", "f.yml:1: x: unknown key; known here: span, text, path, file, url, own, flag, "
			   "number, size, size_t, duration, other\n"},
		/* all of them, and in the order of the file */
		{"flag: 1\nnumber: a\n",
		 "f.yml:1: flag: expected true or false, not \"1\"\n"
		 "f.yml:2: number: expected a whole number from 1 to 64, not \"a\"\n"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct reading r;
		struct values v = {.number = 7};
		open_text(&r, cases[i].text);
		READ_FIELDS(&r.root, fields, &v);
		assert_string_equal(buf_span(&r.problems).ptr, cases[i].said);
		assert_true(r.reader.mistakes > 0);
		assert_int_equal(v.number, 7); /* a wrong value leaves what was there */
		close_text(&r);
	}
}

static void count_element(const struct place *p, void *arg)
{
	struct span s;
	*(unsigned *)arg += value_text(p, &s);
}

static void the_way_to_a_place_is_its_whole_key(void **state)
{
	(void)state;
	struct reading r;
	unsigned n = 0;
	open_text(&r, "a:\n  - b:\n      c: [x, {}, ~]\n  - one\n");
	struct place a = place_member(&r.root, "a"), first = place_element(&a, a.node->first, 0);
	struct place b = place_member(&first, "b"), c = place_member(&b, "c"), none = place_member(&b, "d");
	value_list(&c, 3, count_element, &n);
	assert_int_equal(n, 1);
	value_list(&c, 2, count_element, &n);
	place_mistake(&none, "missing");
	place_warning(&a, "odd");
	place_warning(&a, "odd"); /* what several inherit is read for each, and said once */
	assert_int_equal(r.reader.mistakes, 4);
	assert_string_equal(r.problems.ptr, "f.yml:3: a[0].b.c[1]: expected a string, not a mapping\n"
					    "f.yml:3: a[0].b.c[2]: empty\n"
					    "f.yml:3: a[0].b.c: at most 2, not 3\n"
					    "f.yml:2: a[0].b.d: missing\n"
					    "warning: f.yml:1: a: odd\n");
	/* a single value stands for a list of one */
	struct place second = place_element(&a, a.node->first->next, 1);
	value_list(&second, 2, count_element, &n);
	assert_int_equal(n, 2);
	close_text(&r);
}

static void a_wrong_choice_is_told_the_nearest(void **state)
{
	(void)state;
	static const char *const names[] = {"legacy", "submit", "ask"};
	struct reading r;
	size_t which = 9;
	open_text(&r, "a: submitt\nb: red\nc: ask\n");
	struct place a = place_member(&r.root, "a"), b = place_member(&r.root, "b"),
		     c = place_member(&r.root, "c");
	assert_false(value_choice(&a, names, 3, &which) || value_choice(&b, names, 3, &which));
	assert_int_equal(which, 9);
	assert_true(value_choice(&c, names, 3, &which) && which == 2);
	assert_string_equal(
		r.problems.ptr,
		"f.yml:1: a: expected legacy, submit or ask, not \"submitt\"; did you mean \"submit\"?\n"
		"f.yml:2: b: expected legacy, submit or ask, not \"red\"\n");
	close_text(&r);
}

static void memory_that_is_out_is_remembered(void **state)
{
	(void)state;
	struct reading r;
	open_text(&r, "a: 1\n");
	r.memory = ARENA_INIT(64);
	assert_non_null(place_memory(&r.reader, 16));
	assert_null(place_memory(&r.reader, 100));
	assert_null(place_text(&r.reader,
			       SPAN_LIT("a text of more bytes than are left in this small arena of 64")));
	assert_true(r.reader.out_of_memory);
	close_text(&r);
}

static void words_are_near_within_a_quarter(void **state)
{
	(void)state;
	static const char *const known[] = {"timeout", "name", "max_connections"};
	char longest[NEAREST_MAX + 2];
	memset(longest, 'a', sizeof(longest));
	assert_string_equal(nearest_word(SPAN_LIT("timeuot"), known, 3), "timeout");
	assert_string_equal(nearest_word(SPAN_LIT("max_conection"), known, 3), "max_connections");
	assert_null(nearest_word(SPAN_LIT("colour"), known, 3));
	assert_null(nearest_word((struct span){longest, sizeof(longest)}, known, 3));
	assert_int_equal(nearest_edits(SPAN_LIT("kitten"), SPAN_LIT("sitting")), 3);
	assert_int_equal(nearest_edits(SPAN_LIT(""), SPAN_LIT("abc")), 3);
}

static void a_url_is_checked_one_way(void **state)
{
	(void)state;
	static const struct {
		const char *url;
		bool base, whole;
	} cases[] = {{"http://h", true, true},		{"HTTPS://h:443/a/b", true, true},
		     {"http://[::1]:80", true, true},	{"http://h/?a=1", false, true},
		     {"http://h?a@b", false, true}, /* no user: the host ends before */
		     {"http://h/#f", false, true},	{"http://u@h", false, false},
		     {"http://u:p@h/?x", false, false}, {"http://h:0", false, false},
		     {"http://h:65536", false, false},	{"http://[::1", false, false},
		     {"http://", false, false},		{"http:///x", false, false},
		     {"http://a b", false, false},	{"http://h/\xc3\xa4", false, false},
		     {"ftp://h", false, false},		{"", false, false}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct span url = span_of(cases[i].url);
		if (!url_mistake(url, URL_BASE) != cases[i].base ||
		    !url_mistake(url, URL_WHOLE) != cases[i].whole)
			fail_msg("%s", cases[i].url);
	}
	assert_true(span_is(url_user_info(SPAN_LIT("http://u:p@h/x@y")), "u:p"));
	assert_null(url_user_info(SPAN_LIT("http://h/x@y")).ptr);
	assert_true(span_is(url_behind_host(SPAN_LIT("https://h:1/a?b")), "/a?b"));
	assert_true(span_is(url_behind_host(SPAN_LIT("http://h?b")), "?b"));
	assert_int_equal(url_behind_host(SPAN_LIT("http://h")).len, 0);
	assert_true(span_is(url_without_slash(SPAN_LIT("http://h//")), "http://h"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_of_value_is_read),
		cmocka_unit_test(a_mistake_names_file_line_and_key),
		cmocka_unit_test(the_way_to_a_place_is_its_whole_key),
		cmocka_unit_test(a_wrong_choice_is_told_the_nearest),
		cmocka_unit_test(memory_that_is_out_is_remembered),
		cmocka_unit_test(words_are_near_within_a_quarter),
		cmocka_unit_test(a_url_is_checked_one_way),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
