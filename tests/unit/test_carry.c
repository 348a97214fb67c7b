/* carry: used flags that a snapshot lost come from the one before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/crypto.h"
#include "base/file.h"
#include "flags/asked.h"
#include "flags/print.h"
#include "flags/source/carry.h"

static void lost_flags_are_carried(void **state)
{
	(void)state;
	static const char *const used[] = {"a", "b"};
	static const struct {
		const char *text, *old, *out;
		size_t count;
	} cases[] = {{"{\"flags\": [{\"key\":\"a\"}]}", "{\"flags\":[{\"key\":\"b\",\"x\":1}]}",
		      "{\"flags\": [{\"key\":\"a\"},{\"key\":\"b\",\"x\":1}]}", 1},
		     {"{\"flags\": [ ],\"d\":1}",
		      "{\"flags\":[{\"key\":\"b\"},{\"key\":\"a\"},{\"key\":\"c\"}]}",
		      "{\"flags\": [ {\"key\":\"a\"},{\"key\":\"b\"}],\"d\":1}", 2},
		     {"{\"flags\": [{\"key\":\"b\"}]}", "{\"flags\":[{\"key\":\"b\",\"x\":1}]}",
		      "{\"flags\": [{\"key\":\"b\"}]}", 0},
		     {"{}", "{\"flags\":[{\"key\":\"a\"}]}", "{\"flags\":[{\"key\":\"a\"}]}", 1},
		     {"{\"flags\":[]}", NULL, "{\"flags\":[]}", 0}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
		struct flag_carried r;
		assert_int_equal(
			carry_flags(span_of(cases[i].text), span_of(cases[i].old), used, 2, &out, &r), 0);
		assert_string_equal(out.ptr, cases[i].out);
		assert_int_equal(r.n, cases[i].count);
	}
}

static void what_is_no_json_is_refused(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
	struct flag_carried r;
	assert_int_equal(carry_flags(SPAN_LIT("{\"flags\":["), SPAN_NONE, NULL, 0, &out, &r), -EBADMSG);
	assert_int_equal(carry_flags(SPAN_LIT("{}"), SPAN_LIT("{"), NULL, 0, &out, &r), -EBADMSG);
}

/* --- printed and read again ----------------------------------------------------------------------------- */

#define ENTITIES 300
#define CONTEXT_MAX 32

struct persona {
	struct flag_context context[CONTEXT_MAX];
	char values[CONTEXT_MAX][FLAG_ASKED_VALUE_MAX];
	size_t n;
};

static void fulfil(void *arg, const struct flag_asked *asked)
{
	struct persona *p = arg;
	if (!asked->property.ptr || !asked->has_value || p->n == CONTEXT_MAX)
		return;
	memcpy(p->values[p->n], asked->value, sizeof(p->values[0]));
	p->context[p->n] = (struct flag_context){asked->property, span_of(p->values[p->n])};
	p->n++;
}

static void assert_same_answer(const struct flag_snapshot *a, const struct flag_snapshot *b,
			       const struct flag *f, const char *entity, const struct persona *p)
{
	struct flag_result x, y;
	const struct flag *other = flag_find(b, span_of(flag_key(f)));
	assert_non_null(other);
	flag_evaluate(a, f, span_of(entity), p->context, p->n, &x, NULL);
	flag_evaluate(b, other, span_of(entity), p->context, p->n, &y, NULL);
	if (x.type != y.type || x.reason != y.reason || x.match != y.match || x.enabled != y.enabled ||
	    x.by_percentage != y.by_percentage || x.bucket != y.bucket || x.segments != y.segments ||
	    !span_eq(x.variant, y.variant) || !span_eq(x.attachment, y.attachment))
		fail_msg("%s for %s", flag_key(f), entity);
}

static void compare_answers(const struct flag_snapshot *a, const struct flag_snapshot *b)
{
	assert_int_equal(flag_snapshot_count(a), flag_snapshot_count(b));
	for (size_t i = 0; i < flag_snapshot_count(a); i++) {
		const struct flag *f = flag_snapshot_at(a, i);
		struct persona of_segment = {.n = 0}, nobody = {.n = 0};
		flag_each_asked(f, fulfil, &of_segment);
		for (int j = 0; j < ENTITIES; j++) {
			char entity[32];
			snprintf(entity, sizeof(entity), j % 2 ? "user-%d" : "%d", j);
			assert_same_answer(a, b, f, entity, &nobody);
			assert_same_answer(a, b, f, entity, &of_segment);
			for (size_t k = 0; k < of_segment.n && j < 2; k++) {
				struct persona one = {.context = {of_segment.context[k]}, .n = 1};
				assert_same_answer(a, b, f, entity, &one);
			}
		}
	}
}

static void what_is_carried_answers_as_before(void **state)
{
	static const struct {
		const char *file;
		enum flag_rules rules;
	} documents[] = {{"tests/fixtures/flipt/v2/features.yml", FLAG_RULES_V2},
			 {"tests/fixtures/flipt/v1/features.yml", FLAG_RULES_V1},
			 {"tests/fixtures/flipt/flags.quickstart.yml", FLAG_RULES_V2}};
	(void)state;
	for (size_t i = 0; i < sizeof(documents) / sizeof(documents[0]); i++) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(FLAG_MAX_DOCUMENT);
		CLEANUP(buf_releasep) struct buf printed = BUF_INIT(FLAG_MAX_DOCUMENT);
		struct flag_snapshot *a = NULL, *b = NULL;
		const char *root = getenv("SOURCE_ROOT");
		char path[512];
		struct err e = {""};
		snprintf(path, sizeof(path), "%s/%s", root ? root : ".", documents[i].file);
		int r = file_read(path, FLAG_MAX_DOCUMENT, &text, &e);
		if (r == 0)
			r = flag_snapshot_parse_features(path, buf_span(&text), documents[i].rules, &a, &e);
		if (r == 0 && flag_snapshot_print(a, &printed) == 0)
			r = flag_snapshot_parse_json("printed", buf_span(&printed), documents[i].rules, &b,
						     &e);
		if (r < 0 || !b)
			fail_msg("%s", e.text);
		compare_answers(a, b);
		flag_snapshot_unref(a);
		flag_snapshot_unref(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lost_flags_are_carried),
		cmocka_unit_test(what_is_no_json_is_refused),
		cmocka_unit_test(what_is_carried_answers_as_before),
	};
	return crypto_setup() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
