/* compare: where two answers differ, what is forgiven, what of a sample is kept, and what is noise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "compare/compare.h"
#include "compare/compare_noise.h"
#include "compare/compare_redact.h"
#include "compare/compare_tree.h"
#include "compare/compare_value.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct compare_result result;

static struct compare_answer answer(const char *body)
{
	return (struct compare_answer){.status = 200, .body = span_of(body)};
}

static const char *told(void)
{
	static char text[20000];
	text[0] = '\0';
	if (result.verdict == COMPARE_NOT_COMPARED)
		snprintf(text, sizeof(text), "not compared: %s", compare_why_text(result.why));
	for (uint32_t i = 0; i < result.n && result.verdict == COMPARE_DIFFERING; i++) {
		const struct compare_difference *d = &result.differences[i];
		size_t n = strlen(text);
		snprintf(text + n, sizeof(text) - n, "%s%s %s", n ? ", " : "", d->path,
			 compare_kind_text(d->kind));
		n = strlen(text);
		if (d->count > 1)
			snprintf(text + n, sizeof(text) - n, " x%u", d->count);
	}
	return text;
}

static const char *compared(const char *left, const char *right, const struct compare_options *o)
{
	static const struct compare_options none;
	struct compare_answer a = answer(left), b = answer(right);
	compare_answers(&a, &b, o ? o : &none, &result);
	return told();
}

/* With one rule. */
static const char *ruled(const char *left, const char *right, const char *pattern, struct compare_rule rule)
{
	assert_null(compare_pattern_parse(span_of(pattern), &rule.pattern));
	struct compare_options o = {.rules = &rule, .n_rules = 1};
	const char *text = compared(left, right, &o);
	compare_pattern_release(&rule.pattern);
	return text;
}

static void json_is_compared_by_place(void **state)
{
	(void)state;
	static const struct {
		const char *left, *right, *told;
	} cases[] = {
		{"{\"a\":1,\"b\":[true,null]}", " {\"b\" : [true, null], \"a\":1.0}\n", ""},
		{"{\"a\":1}", "{\"a\":2}", "body:/a value"},
		{"{\"n\":9007199254740993}", "{\"n\":9007199254740992}", "body:/n value"},
		{"{\"n\":0.1000000000000000000001}", "{\"n\":0.1}", "body:/n value"},
		{"[1e400]", "[10e399]", ""},
		{"{\"a\":\"\\u00e9\"}", "{\"a\":\"\xc3\xa9\"}", ""},
		{"{\"\\u0061\":1}", "{\"a\":1}", ""},
		{"{\"a\":1,\"a\":2}", "{\"a\":2}", ""},
		{"{\"a\":1}", "{\"a\":\"1\"}", "body:/a type"},
		{"{\"a\":true}", "{\"a\":false}", "body:/a value"},
		{"{\"a\":null}", "{}", "body:/a missing"},
		{"{}", "{\"x\":{\"y\":1}}", "body:/x extra"},
		{"{\"i\":[{\"p\":1,\"q\":1},{\"p\":2,\"q\":1}]}",
		 "{\"i\":[{\"p\":9,\"q\":1},{\"p\":8,\"q\":2}]}", "body:/i/*/p value x2, body:/i/*/q value"},
		{"[1,2,3]", "[1]", "body:/* missing x2"},
		{"[]", "{}", "body: type"},
		{"{\"a/b\":1,\"c~d\":1}", "{\"a/b\":2,\"c~d\":2}", "body:/a~1b value, body:/c~0d value"},
		{"plain", "plain", ""},
		{"plain", "other", "body: bytes"},
		{"plain", "{}", "body: type"},
		{"", "{}", "body: bytes"},
		{"{\"a\":1", "{\"a\":1} ", "body: type"},
	};
	for (size_t i = 0; i < COUNT(cases); i++)
		assert_string_equal(compared(cases[i].left, cases[i].right, NULL), cases[i].told);
}

static void a_text_that_looks_like_a_number_is_a_text(void **state)
{
	(void)state;
	static const struct compare_options none;
	struct compare_answer a = answer("1.0"), b = answer("1");
	a.content_type = b.content_type = SPAN_LIT("text/plain");
	compare_answers(&a, &b, &none, &result);
	assert_string_equal(told(), "body: bytes");
	a.content_type = SPAN_LIT("text/html"); /* as old services label their JSON */
	a.body = SPAN_LIT("{\"a\": 1}");
	b.content_type = SPAN_LIT("application/problem+json; charset=utf-8");
	b.body = SPAN_LIT("{\"a\":1}");
	compare_answers(&a, &b, &none, &result);
	assert_string_equal(told(), "");
}

static void status_and_chosen_fields(void **state)
{
	(void)state;
	const char *const names[] = {"X-Version", "Content-Type"};
	struct compare_options o = {.fields = names, .n_fields = 2};
	struct http_field left[] = {{SPAN_LIT("x-version"), SPAN_LIT("1")},
				    {SPAN_LIT("Date"), SPAN_LIT("a")},
				    {SPAN_LIT("X-Version"), SPAN_LIT("2")}};
	struct http_field right[] = {{SPAN_LIT("X-VERSION"), SPAN_LIT("1")},
				     {SPAN_LIT("Content-Type"), SPAN_LIT("a/b")},
				     {SPAN_LIT("Date"), SPAN_LIT("b")}};
	struct compare_answer a = {.status = 200, .fields = left, .n_fields = 3},
			      b = {.status = 404, .fields = right, .n_fields = 3};
	compare_answers(&a, &b, &o, &result);
	assert_string_equal(told(), "status value, header:x-version missing, header:content-type extra");
	struct compare_rule rules[2] = {{.ignore = true}, {.ignore = true}};
	assert_null(compare_pattern_parse(SPAN_LIT("status"), &rules[0].pattern));
	assert_null(compare_pattern_parse(SPAN_LIT("header:X-version"), &rules[1].pattern));
	o.rules = rules;
	o.n_rules = 2;
	compare_answers(&a, &b, &o, &result);
	assert_string_equal(told(), "header:content-type extra");
	compare_pattern_release(&rules[0].pattern);
	compare_pattern_release(&rules[1].pattern);
}

static void ignored_places(void **state)
{
	(void)state;
	struct compare_rule ignore = {.ignore = true};
	const char *left =
		"{\"id\":1,\"a\":[{\"at\":1,\"v\":1},{\"at\":2,\"v\":1}],\"m\":{\"x\":{\"at\":5}}}";
	const char *right =
		"{\"id\":2,\"a\":[{\"at\":3,\"v\":1},{\"at\":4,\"v\":1}],\"m\":{\"x\":{\"at\":6}}}";
	static const struct {
		const char *pattern, *told;
	} cases[] = {
		{"body:", ""},
		{"body:/**", ""},
		{"body:/id", "body:/a/*/at value x2, body:/m/x/at value"},
		{"body:/a/*/at", "body:/id value, body:/m/x/at value"},
		{"body:/a/1/at", "body:/a/*/at value, body:/id value, body:/m/x/at value"},
		{"body:/**/at", "body:/id value"},
		{"body:/m", "body:/a/*/at value x2, body:/id value"},
		{"body:/nowhere", "body:/a/*/at value x2, body:/id value, body:/m/x/at value"},
	};
	for (size_t i = 0; i < COUNT(cases); i++)
		assert_string_equal(ruled(left, right, cases[i].pattern, ignore), cases[i].told);
	assert_string_equal(ruled("{\"a\":1}", "{}", "body:/a", ignore), "");
	assert_string_equal(ruled("text", "other", "body:", ignore), "");
	assert_string_equal(ruled("text", "other", "body:/a", ignore), "body: bytes");
}

static void patterns_that_are_none_are_told(void **state)
{
	(void)state;
	struct compare_pattern p;
	static const char *const bad[] = {"", "/a", "bodies:/a", "body:a", "body:/a~2", "body:/~", "header:"};
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_non_null(compare_pattern_parse(span_of(bad[i]), &p));
	char deep[300] = "body:";
	for (int i = 0; i <= COMPARE_STEPS_MAX; i++)
		strcat(deep, "/a");
	assert_non_null(compare_pattern_parse(span_of(deep), &p));
	deep[5 + 2 * COMPARE_STEPS_MAX] = '\0';
	assert_null(compare_pattern_parse(span_of(deep), &p));
	assert_true(compare_pattern_covers(&p, deep));
	compare_pattern_release(&p);
}

static void a_pattern_covers_written_paths(void **state)
{
	(void)state;
	static const struct {
		const char *pattern, *path;
		bool covers;
	} cases[] = {
		{"body:/a", "body:/a", true},	      {"body:/a", "body:/a/b/*", true},
		{"body:/a", "body:/b", false},	      {"body:/a/*/c", "body:/a/*/c", true},
		{"body:/a/0/c", "body:/a/*/c", true}, {"body:/a~1b", "body:/a~1b", true},
		{"body:", "body:/x", true},	      {"body:/**/c", "body:/a/b/c/d", true},
		{"status", "status", true},	      {"header:X-A", "header:x-a", true},
		{"status", "body:", false},	      {"body:/a/b", "body:/a", false},
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct compare_pattern p;
		assert_null(compare_pattern_parse(span_of(cases[i].pattern), &p));
		assert_int_equal(compare_pattern_covers(&p, cases[i].path), cases[i].covers);
		compare_pattern_release(&p);
	}
}

static void numbers_within_a_tolerance(void **state)
{
	(void)state;
	struct compare_rule near = {.tolerance = 0.1}, share = {.relative = 0.01};
	assert_string_equal(ruled("[0.2]", "[0.3]", "body:/*", near), "");
	assert_string_equal(ruled("[0.2]", "[0.301]", "body:/*", near), "body:/* value");
	assert_string_equal(ruled("[100]", "[101]", "body:/*", share), "");
	assert_string_equal(ruled("[-100]", "[-102]", "body:/*", share), "body:/* value");
	assert_string_equal(ruled("[1]", "[\"1\"]", "body:/*", near), "body:/* type");
	assert_string_equal(ruled("[0.2]", "[0.3]", "body:/a", near), "body:/* value");
	/* A tolerance that these numbers cannot be told apart by forgives nothing. */
	assert_string_equal(ruled("[9007199254740993]", "[9007199254740992]", "body:/*", near),
			    "body:/* value");
	near.tolerance = 1;
	assert_string_equal(ruled("[9007199254740993]", "[9007199254740991]", "body:/*", near),
			    "body:/* value");
	assert_string_equal(ruled("[123456789012345678901234567890]", "[123456789012345678901234567891]",
				  "body:/*", near),
			    "body:/* value");
	assert_string_equal(ruled("[1e400]", "[1e401]", "body:/*", near), "body:/* value");
}

static void strings_folded_and_alike(void **state)
{
	(void)state;
	struct compare_rule letters = {.fold_case = true}, space = {.fold_space = true},
			    alike = {.similarity = 0.8};
	assert_string_equal(ruled("[\"Paid\"]", "[\"PAID\"]", "body:/*", letters), "");
	assert_string_equal(ruled("[\"Paid\"]", "[\"PAID \"]", "body:/*", letters), "body:/* value");
	assert_string_equal(ruled("[\" a  b\\n\"]", "[\"a\\tb\"]", "body:/*", space), "");
	assert_string_equal(ruled("[\"ab\"]", "[\"a b\"]", "body:/*", space), "body:/* value");
	const char *said = "[\"The invoice is due on the first of May and amounts to 300 euros.\"]";
	const char *near = "[\"The invoice is due on the first of May, and amounts to 300 euros\"]";
	const char *far = "[\"I could not find an amount in the document that you have sent me.\"]";
	assert_string_equal(ruled(said, near, "body:/*", alike), "");
	assert_string_equal(ruled(said, far, "body:/*", alike), "body:/* text");
	assert_true(compare_text_similarity(SPAN_LIT(""), SPAN_LIT("")) == 1);
	assert_true(compare_text_similarity(SPAN_LIT("abc"), SPAN_LIT("xyz")) == 0);
	assert_true(compare_text_similarity(SPAN_LIT("\xe6\xbc\xa2\xe5\xad\x97"),
					    SPAN_LIT("\xe6\xbc\xa2\xe5\xad\x97")) == 1);
}

static void arrays_in_any_order(void **state)
{
	(void)state;
	struct compare_rule any = {.unordered = true}, key = {.unordered = true, .key = (char *)"/id"};
	assert_string_equal(ruled("[1,2,2,3]", "[3,2,1.0,2]", "body:", any), "");
	assert_string_equal(ruled("[1,2,2]", "[2,1,1]", "body:", any), "body:/* value");
	assert_string_equal(ruled("[{\"a\":1,\"b\":[2]},7]", "[7,{\"b\":[2],\"a\":1}]", "body:", any), "");
	assert_string_equal(ruled("[{\"a\":1},{\"a\":2}]", "[{\"a\":2},{\"a\":3}]", "body:", any),
			    "body:/*/a value");
	assert_string_equal(ruled("[1,2]", "[2]", "body:", any), "body:/* missing");
	assert_string_equal(ruled("[1,2]", "[2,1]", "body:/a", any), "body:/* value x2");
	const char *left = "[{\"id\":\"a\",\"v\":1},{\"id\":\"b\",\"v\":2},{\"id\":\"c\",\"v\":3}]";
	const char *right = "[{\"id\":\"c\",\"v\":3},{\"id\":\"b\",\"v\":9},{\"id\":\"d\",\"v\":4}]";
	assert_string_equal(ruled(left, right, "body:", key), "body:/*/v value, body:/* missing x2");
	assert_int_equal(result.differences[1].count, 2); /* one is gone, one is new: one path */
	assert_string_equal(ruled("[{\"v\":1},{\"v\":2}]", "[{\"v\":1},{\"v\":3}]", "body:", key),
			    "body:/*/v value"); /* without their key: in order */
}

static void other_rules_hold_within_arrays_in_any_order(void **state)
{
	(void)state;
	struct compare_rule rules[3] = {{.unordered = true}, {.ignore = true}, {.tolerance = 0.5}};
	assert_null(compare_pattern_parse(SPAN_LIT("body:/i"), &rules[0].pattern));
	assert_null(compare_pattern_parse(SPAN_LIT("body:/i/*/at"), &rules[1].pattern));
	assert_null(compare_pattern_parse(SPAN_LIT("body:/i/*/n"), &rules[2].pattern));
	struct compare_options o = {.rules = rules, .n_rules = 3};
	const char *left = "{\"i\":[{\"k\":1,\"at\":1,\"n\":1},{\"k\":2,\"at\":2,\"n\":2}]}";
	const char *right = "{\"i\":[{\"k\":2,\"at\":8,\"n\":2.4},{\"k\":1,\"n\":1}]}";
	assert_string_equal(compared(left, right, &o), "");
	for (size_t i = 0; i < COUNT(rules); i++)
		compare_pattern_release(&rules[i].pattern);
}

static void names_that_are_data_are_one_path(void **state)
{
	(void)state;
	struct compare_rule map = {.map = true};
	assert_string_equal(ruled("{\"u\":{\"ann\":{\"n\":1},\"bob\":{\"n\":1}}}",
				  "{\"u\":{\"ann\":{\"n\":2},\"bob\":{\"n\":2}}}", "body:/u", map),
			    "body:/u/*/n value x2");
}

static char *repeated(const char *front, const char *piece, size_t n, const char *end)
{
	char *text = malloc(strlen(front) + strlen(piece) * n + strlen(end) + 1), *at = stpcpy(text, front);
	for (size_t i = 0; i < n; i++)
		at = stpcpy(at, piece);
	stpcpy(at, end);
	return text;
}

static void what_is_beyond_a_limit_is_not_compared(void **state)
{
	(void)state;
	CLEANUP(freep) char *deep = repeated("", "[", COMPARE_DEPTH_MAX + 1, "");
	CLEANUP(freep) char *deep_text = repeated(deep, "]", COMPARE_DEPTH_MAX + 1, "");
	assert_string_equal(compared(deep_text, "[]", NULL), "not compared: depth");
	deep_text[strlen(deep_text) - 1] = '\0'; /* one level less is fine */
	assert_string_equal(compared(deep_text + 1, "[]", NULL), "body:/* missing");
	CLEANUP(freep) char *many = repeated("[", "1,", COMPARE_VALUES_MAX, "1]");
	assert_string_equal(compared(many, "[]", NULL), "not compared: values");
	CLEANUP(freep) char *large = repeated("\"", "0123456789abcdef", COMPARE_BODY_MAX / 16, "\"");
	assert_string_equal(compared(large, "[]", NULL), "not compared: size");
}

/* Arrays in any order within each other: each level looks at all beneath it. It ends, and says so. */
static void the_work_has_a_bound(void **state)
{
	(void)state;
	CLEANUP(freep) char *open = repeated("", "[1,[2,", 48, "");
	CLEANUP(freep) char *some = repeated(open, "3,", 180000, "3");
	CLEANUP(freep) char *others = repeated(open, "3,", 180000, "4");
	CLEANUP(freep) char *left = repeated(some, "]]", 48, "");
	CLEANUP(freep) char *right = repeated(others, "]]", 48, "");
	struct compare_rule any = {.unordered = true};
	assert_string_equal(ruled(left, right, "body:/**", any), "not compared: work");
	assert_int_equal(strncmp(ruled(left, right, "body:/a", any), "body:/*/*", 9), 0);
}

static void so_many_places_and_no_more(void **state)
{
	(void)state;
	char left[4000] = "{", right[4000] = "{";
	for (int i = 0; i < COMPARE_DIFFERENCES_MAX + 5; i++) {
		sprintf(left + strlen(left), "%s\"k%02d\":1", i ? "," : "", i);
		sprintf(right + strlen(right), "%s\"k%02d\":2", i ? "," : "", i);
	}
	strcat(left, "}");
	strcat(right, "}");
	compared(left, right, NULL);
	assert_int_equal(result.n, COMPARE_DIFFERENCES_MAX);
	assert_true(result.more);
	assert_int_equal(result.verdict, COMPARE_DIFFERING);
}

static void a_long_name_is_cut_and_plain(void **state)
{
	(void)state;
	CLEANUP(freep) char *left = repeated("{\"\\u001b[31m", "\xc3\xa9", 300, "\":1}");
	compared(left, "{}", NULL);
	const char *path = result.differences[0].path;
	assert_int_equal(result.n, 1);
	assert_true(strlen(path) < COMPARE_PATH_SIZE);
	assert_memory_equal(path, "body:/\\u001b[31m\xc3\xa9", 16);
	assert_string_equal(path + strlen(path) - 3, "\xe2\x80\xa6");
}

/* --- samples ------------------------------------------------------------------------------------------- */

static const char *redacted(const char *text, const char *pattern, size_t limit)
{
	static char copy[4000];
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(limit);
	struct compare_pattern p = {0};
	struct compare_redaction r = {.patterns = &p, .n_patterns = pattern != NULL};
	if (pattern)
		assert_null(compare_pattern_parse(span_of(pattern), &p));
	assert_int_equal(compare_redact_json(span_of(text), &r, NULL, NULL, 0, &out), 0);
	compare_pattern_release(&p);
	span_copy(buf_span(&out), copy, sizeof(copy));
	return copy;
}

static void secrets_are_not_in_samples(void **state)
{
	(void)state;
	static const struct {
		const char *text, *pattern, *redacted;
	} cases[] = {
		{"{ \"a\" : 1.0, \"b\":[true] }", NULL, "{\"a\":1.0,\"b\":[true]}"},
		{"{\"accessToken\":{\"v\":\"x\"},\"n\":9007199254740993}", NULL,
		 "{\"accessToken\":\"***\",\"n\":9007199254740993}"},
		{"{\"Authorization\":\"x\",\"DB_PASSWORD\":1,\"clientSecret\":[1]}", NULL,
		 "{\"Authorization\":\"***\",\"DB_PASSWORD\":\"***\",\"clientSecret\":\"***\"}"},
		{"{\"to\\u006ben\":\"x\"}", NULL, "{\"token\":\"***\"}"},
		{"[{\"ssn\":\"1\",\"v\":1},{\"ssn\":\"2\"}]", "body:/*/ssn",
		 "[{\"ssn\":\"***\",\"v\":1},{\"ssn\":\"***\"}]"},
		{"{\"a\":{\"b\":{\"ssn\":1}}}", "body:/**/ssn", "{\"a\":{\"b\":{\"ssn\":\"***\"}}}"},
		{"{\"a\":1}", "body:", "\"***\""},
		{"{\"u\":\"https://u:pw@h/?sig=abc\"}", NULL, "{\"u\":\"https://***@h/?sig=***\"}"},
	};
	for (size_t i = 0; i < COUNT(cases); i++)
		assert_string_equal(redacted(cases[i].text, cases[i].pattern, 1000), cases[i].redacted);
	/* JSON within a string. */
	assert_null(
		strstr(redacted("{\"r\":\"{\\\"password\\\": \\\"hunter2\\\"}\"}", NULL, 1000), "hunter2"));
}

static void a_sample_is_cut(void **state)
{
	(void)state;
	assert_string_equal(redacted("{\"a\":\"0123456789\",\"b\":1}", NULL, 12), "{\"a\":\xe2\x80\xa6");
	assert_string_equal(redacted("[1,2,3]", NULL, 10), "[1,2,3]");
}

static void what_lies_in_a_redacted_place_is_known(void **state)
{
	(void)state;
	const char *text = "{\"token\":{\"x\":5},\"n\":7}";
	struct span places[] = {{strchr(text, '5'), 1}, {strchr(text, '7'), 1}, SPAN_NONE};
	bool secret[3];
	static const struct compare_redaction none;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(5); /* looked for beyond the cut, too */
	assert_int_equal(compare_redact_json(span_of(text), &none, places, secret, 3, &out), 0);
	assert_true(secret[0]);
	assert_false(secret[1]);
	assert_false(secret[2]);
}

static void values_for_people(void **state)
{
	(void)state;
	static const struct {
		const char *raw, *told;
	} cases[] = {{"1.50", "1.50"},
		     {"{\"a\":1}", "{\xe2\x80\xa6}"},
		     {"[1]", "[\xe2\x80\xa6]"},
		     {"\"a\\u001bb\"", "\"a\\u001bb\""},
		     {"\"0123456789012345678901\"", "\"0123456789012345\xe2\x80\xa6"},
		     {"\"Bearer abcdef0123456789\"", "\"Bearer ***\""}};
	for (size_t i = 0; i < COUNT(cases); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(1000);
		assert_int_equal(compare_redact_value(span_of(cases[i].raw), 20, &out), 0);
		assert_string_equal(out.ptr, cases[i].told);
	}
}

/* --- noise --------------------------------------------------------------------------------------------- */

static void noise_needs_a_sample(void **state)
{
	(void)state;
	struct compare_counts c = {.differing = 50, .compared = 50};
	assert_false(compare_beyond_noise(&c, 1));
	c.noise_samples = 20; /* and none differed */
	assert_true(compare_beyond_noise(&c, 1));
	c.noisy = 20;
	assert_false(compare_beyond_noise(&c, 1));
	c = (struct compare_counts){.differing = 1, .compared = 50, .noise_samples = 20};
	assert_false(compare_beyond_noise(&c, 1));
	assert_true(compare_noise_evidence(&(struct compare_counts){0}) == 0);
}

static double drawn(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (double)(*state >> 11) / 9007199254740992.0;
}

/* 4000 paths that differ as often on both sides, looked at after every pair: at most 1 % are ever called
 * beyond noise. And where there is a difference, it is found. */
static unsigned beyond(double rate, double noise, unsigned runs)
{
	uint64_t state = 1;
	unsigned n = 0;
	for (unsigned run = 0; run < runs; run++) {
		struct compare_counts c = {0};
		bool found = false;
		for (unsigned i = 0; i < 600 && !found; i++) {
			if (drawn(&state) < 0.2) {
				c.noise_samples++;
				c.noisy += drawn(&state) < noise;
			} else {
				c.compared++;
				c.differing += drawn(&state) < rate;
			}
			found = compare_beyond_noise(&c, 1);
		}
		n += found;
	}
	return n;
}

static void looking_often_makes_no_difference(void **state)
{
	(void)state;
	assert_in_range(beyond(0.3, 0.3, 4000), 0, 40);
	assert_in_range(beyond(0.02, 0.02, 4000), 0, 40);
	assert_in_range(beyond(0.3, 0.6, 1000), 0, 1);
	assert_in_range(beyond(0.5, 0.1, 1000), 990, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(json_is_compared_by_place),
		cmocka_unit_test(a_text_that_looks_like_a_number_is_a_text),
		cmocka_unit_test(status_and_chosen_fields),
		cmocka_unit_test(ignored_places),
		cmocka_unit_test(patterns_that_are_none_are_told),
		cmocka_unit_test(a_pattern_covers_written_paths),
		cmocka_unit_test(numbers_within_a_tolerance),
		cmocka_unit_test(strings_folded_and_alike),
		cmocka_unit_test(arrays_in_any_order),
		cmocka_unit_test(other_rules_hold_within_arrays_in_any_order),
		cmocka_unit_test(names_that_are_data_are_one_path),
		cmocka_unit_test(what_is_beyond_a_limit_is_not_compared),
		cmocka_unit_test(the_work_has_a_bound),
		cmocka_unit_test(so_many_places_and_no_more),
		cmocka_unit_test(a_long_name_is_cut_and_plain),
		cmocka_unit_test(secrets_are_not_in_samples),
		cmocka_unit_test(a_sample_is_cut),
		cmocka_unit_test(what_lies_in_a_redacted_place_is_known),
		cmocka_unit_test(values_for_people),
		cmocka_unit_test(noise_needs_a_sample),
		cmocka_unit_test(looking_often_makes_no_difference),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
