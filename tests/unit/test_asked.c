/* asked: which properties the segments of a flag ask for, and a value that makes a difference, judged by
 * the evaluation itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "flags/asked.h"

#define CONSTRAINT(type, operator, value) \
	"flags: [{key: f, type: BOOLEAN_FLAG_TYPE, enabled: false, rollouts: [{segment: {key: s, value: " \
	"true}}]}]\n" \
	"segments: [{key: s, match_type: ALL_MATCH_TYPE, constraints: [{type: " type \
	"_COMPARISON_TYPE, property: p, operator: " \
	operator", value: '" value "'}]}]\n"

static void note(void *arg, const struct flag_asked *asked)
{
	*(struct flag_asked *)arg = *asked;
}

static bool answer(const struct flag_snapshot *s, const char *value)
{
	const struct flag_context context = {SPAN_LIT("p"), span_of(value)};
	struct flag_result r;
	flag_evaluate(s, flag_find(s, SPAN_LIT("f")), SPAN_LIT("u"), &context, 1, &r, NULL);
	return r.enabled;
}

static void a_value_makes_the_difference(void **state)
{
	(void)state;
	static const char *const texts[] = {CONSTRAINT("STRING", "eq", "gold"),
					    CONSTRAINT("STRING", "neq", "gold"),
					    CONSTRAINT("STRING", "empty", ""),
					    CONSTRAINT("STRING", "notempty", ""),
					    CONSTRAINT("STRING", "prefix", "go"),
					    CONSTRAINT("STRING", "suffix", "ld"),
					    CONSTRAINT("STRING", "contains", "ol"),
					    CONSTRAINT("STRING", "notcontains", "ol"),
					    CONSTRAINT("STRING", "isoneof", "[\"gold\", \"silver\"]"),
					    CONSTRAINT("STRING", "isnotoneof", "[\"gold\"]"),
					    CONSTRAINT("NUMBER", "eq", "7"),
					    CONSTRAINT("NUMBER", "neq", "7"),
					    CONSTRAINT("NUMBER", "lt", "-3"),
					    CONSTRAINT("NUMBER", "lte", "7"),
					    CONSTRAINT("NUMBER", "gt", "1e9"),
					    CONSTRAINT("NUMBER", "gte", "7.5"),
					    CONSTRAINT("NUMBER", "present", ""),
					    CONSTRAINT("NUMBER", "notpresent", ""),
					    CONSTRAINT("NUMBER", "isoneof", "[3, 4]"),
					    CONSTRAINT("NUMBER", "isnotoneof", "[3, 4]"),
					    CONSTRAINT("BOOLEAN", "true", ""),
					    CONSTRAINT("BOOLEAN", "false", ""),
					    CONSTRAINT("DATETIME", "eq", "2026-01-31"),
					    CONSTRAINT("DATETIME", "neq", "2026-01-31T08:00:00Z"),
					    CONSTRAINT("DATETIME", "lt", "2026-01-31"),
					    CONSTRAINT("DATETIME", "gt", "2026-01-31")};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct flag_snapshot *s = NULL;
		struct flag_asked asked = {.has_value = false};
		struct err e = {""};
		if (flag_snapshot_parse_features("t", span_of(texts[i]), FLAG_RULES_V2, &s, &e) != 0)
			fail_msg("%s", e.text);
		flag_each_asked(flag_find(s, SPAN_LIT("f")), note, &asked);
		if (!asked.has_value || !span_is(asked.property, "p") || !span_is(asked.segment, "s"))
			fail_msg("case %zu: no value", i);
		if (answer(s, "") != asked.holds_without || answer(s, asked.value) == asked.holds_without)
			fail_msg("case %zu: \"%s\" makes no difference", i, asked.value);
		flag_snapshot_unref(s);
	}
}

static void count(void *arg, const struct flag_asked *asked)
{
	size_t *n = arg;
	assert_int_equal(asked->property.ptr == NULL, *n == 1); /* the entity's id has no name */
	++*n;
}

static void every_constraint_of_every_rule_is_told(void **state)
{
	(void)state;
	static const char text[] =
		"flags: [{key: f, type: VARIANT_FLAG_TYPE, enabled: true, variants: [{key: a}], rules: ["
		"{segment: {keys: [one, two], operator: AND_SEGMENT_OPERATOR}, distributions: [{variant: a, "
		"rollout: 100}]},"
		"{segment: everybody, distributions: []}]}]\n"
		"segments: [{key: everybody, match_type: ALL_MATCH_TYPE},"
		" {key: one, match_type: ALL_MATCH_TYPE, constraints: [{type: STRING_COMPARISON_TYPE, "
		"property: a, operator: eq, value: x},"
		" {type: ENTITY_ID_COMPARISON_TYPE, property: entity, operator: eq, value: x}]},"
		" {key: two, match_type: ANY_MATCH_TYPE, constraints: [{type: STRING_COMPARISON_TYPE, "
		"property: b, operator: eq, value: x}]}]\n";
	struct flag_snapshot *s = NULL;
	struct err e = {""};
	size_t n = 0;
	if (flag_snapshot_parse_features("t", span_of(text), FLAG_RULES_V2, &s, &e) != 0)
		fail_msg("%s", e.text);
	flag_each_asked(flag_find(s, SPAN_LIT("f")), count, &n);
	assert_int_equal(n, 3);
	flag_snapshot_unref(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_value_makes_the_difference),
		cmocka_unit_test(every_constraint_of_every_rule_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
