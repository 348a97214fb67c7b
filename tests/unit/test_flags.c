/* Features files and snapshots: what is refused and where, what is warned of, and what an answer tells
 * besides itself. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/crypto.h"
#include "base/file.h"
#include "flags/flags.h"
#include "flags/print.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct flag_snapshot *features(const char *text, enum flag_rules rules)
{
	struct flag_snapshot *s = NULL;
	struct err e;
	if (flag_snapshot_parse_features("f.yml", span_of(text), rules, &s, &e) < 0)
		fail_msg("%s", e.text);
	return s;
}

static struct flag_result ask(const struct flag_snapshot *s, const char *key, const char *entity,
			      const struct flag_trace *trace)
{
	struct flag_result r;
	const struct flag *f = flag_find(s, span_of(key));
	assert_non_null(f);
	flag_evaluate(s, f, span_of(entity), NULL, 0, &r, trace);
	return r;
}

/* --- mistakes ------------------------------------------------------------------------------------------- */
static bool tells(const struct flag_snapshot *s, const char *sentence)
{
	for (size_t i = 0; i < flag_snapshot_warnings(s); i++)
		if (flag_snapshot_warning_is_mistake(s, i) && strstr(flag_snapshot_warning(s, i), sentence))
			return true;
	return false;
}

static void what_is_no_document_is_refused_whole(void **state)
{
	static const struct {
		const char *text, *error;
	} rows[] = {{"", "f.yml:1: a features file is a mapping"},
		    {"- a\n", "f.yml:1: a features file is a mapping"},
		    {"flags: {}\n", "f.yml:1: flags: must be a list"},
		    {"flags: [\n", "f.yml:"},
		    {"flags:\n- key: a\n  enabled: \"tr", "f.yml:"}};
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct flag_snapshot *s = NULL;
		struct err e;
		assert_int_equal(
			flag_snapshot_parse_features("f.yml", span_of(rows[i].text), FLAG_RULES_V2, &s, &e),
			-EBADMSG);
		assert_null(s);
		if (!strstr(e.text, rows[i].error))
			fail_msg("row %zu: %s", i, e.text);
	}
}

/* Each is a mistake with its line, and no other flag's. */
static void features_mistakes(void **state)
{
	static const struct {
		const char *text, *error;
	} rows[] = {
		{"flags:\n- x\n", "f.yml:2: flags[0]: must be a mapping"},
		{"flags:\n- name: x\n", "f.yml:2: flags[0]: key: is missing"},
		{"flags:\n- key: ''\n", "f.yml:2: flags[0]: key: must not be empty"},
		{"flags:\n- key: a\n- key: b\n- key: a\n",
		 "f.yml:4: flags: key: flag \"a\" is declared twice"},
		{"flags:\n- key: a\n  type: ODD\n", "f.yml:3: flag \"a\": type: \"ODD\" is not known"},
		{"flags:\n- key: a\n  enabled: 1\n", "f.yml:3: flag \"a\": enabled: must be true or false"},
		{"flags:\n- key: a\n  rules:\n  - distributions: []\n",
		 "f.yml:4: flag \"a\", rule 1: segment: needs a key or keys"},
		{"flags:\n- key: a\n  rules:\n  - segment: beta\n",
		 "f.yml:4: flag \"a\", rule 1: segment: segment \"beta\" is not declared"},
		{"flags:\n- key: a\n  variants:\n  - key: x\n  rules:\n  - segment: default\n    "
		 "distributions:\n"
		 "    - variant: y\n      rollout: 1\n",
		 "f.yml:8: flag \"a\", rule 1: variant: the flag has no variant \"y\""},
		{"flags:\n- key: a\n  variants:\n  - key: x\n  rules:\n  - segment: default\n    "
		 "distributions:\n"
		 "    - variant: x\n      rollout: much\n",
		 "f.yml:9: flag \"a\", rule 1: rollout: must be a number"},
		{"flags:\n- key: a\n  variants:\n  - key: x\n  rules:\n  - segment: default\n    "
		 "distributions:\n"
		 "    - variant: x\n      rollout: .nan\n",
		 "f.yml:9: flag \"a\", rule 1: rollout: must be a number"},
		{"flags:\n- key: a\n  type: BOOLEAN_FLAG_TYPE\n  rollouts:\n  - description: x\n",
		 "f.yml:5: flag \"a\", rollout 1: needs a segment or a threshold"},
		{"flags:\n- key: a\n  type: BOOLEAN_FLAG_TYPE\n  rollouts:\n  - threshold: {percentage: "
		 "ten}\n",
		 "f.yml:5: flag \"a\", rollout 1: percentage: must be a number"},
		{"flags:\n- key: a\n  type: BOOLEAN\n",
		 "f.yml:3: flag \"a\": type: \"BOOLEAN\" is not known"},
		{"flags:\n- key: a\n  type: BOOLEAN_FLAG_TYPE\n  rolouts: []\n",
		 "f.yml:4: flag \"a\": rolouts: unknown key"},
		{"flags:\n- key: a\n  type: BOOLEAN_FLAG_TYPE\n  rules: [{segment: x}]\n",
		 "f.yml:4: flag \"a\": rules: a boolean flag has rollouts, no rules"},
		{"flags:\n- key: a\n  rollouts: [{threshold: {percentage: 5, value: true}}]\n",
		 "f.yml:3: flag \"a\": rollouts: only a flag with"},
		{"flags:\n- key: a\n  variants:\n  - key: x\n  rules:\n  - segment: default\n    "
		 "distributions:\n"
		 "    - variant: x\n      rollout: 101\n",
		 "f.yml:9: flag \"a\", rule 1: rollout: must be from 0 to 100"},
		{"flags:\n- key: a\n  variants:\n  - key: x\n  rules:\n  - segment: default\n    "
		 "distributions:\n"
		 "    - variant: x\n      rollout: -0.5\n",
		 "f.yml:9: flag \"a\", rule 1: rollout: must be from 0 to 100"},
		{"flags:\n- key: a\n  type: boolean\n  rollouts:\n  - threshold: {percentage: 5, valu: "
		 "true}\n",
		 "f.yml:5: flag \"a\", rollout 1: valu: unknown key"},
		{"flags:\n- key: a\n  rules:\n  - segment: {keyes: [x]}\n",
		 "f.yml:4: flag \"a\", rule 1: keyes: unknown key"},
		{"version: \"99.0\"\n", "f.yml:1: version: \"99.0\" is not a known version of this format"},
		{"flgas: []\n", "f.yml:1: flgas: unknown key"},
		{"segments:\n- key: a\n  constraints:\n  - {type: string, property: p, operator: eq, valeu: "
		 "x}\n",
		 "f.yml:4: segment \"a\", constraint 1: valeu: unknown key"},
		{"segments:\n- key: a\n  constraints:\n  - {type: string, property: p, operator: eq, value: "
		 "[x]}\n",
		 "f.yml:4: segment \"a\", constraint 1: value: only isoneof and isnotoneof take a list"},
		{"segments:\n- key: a\n  constraints:\n  - {type: number, property: p, operator: isoneof, "
		 "value: [1, x]}\n",
		 "f.yml:4: segment \"a\", constraint 1: value: a set of numbers holds something else"},
		{"segments:\n- key: a\n- key: a\n", "segments: key: segment \"a\" is declared twice"},
		{"segments:\n- key: a\n  match_type: SOME\n",
		 "f.yml:3: segment \"a\": match_type: \"SOME\" is not known"},
		{"segments:\n- key: a\n  constraints:\n  - {type: string, property: p, operator: like, "
		 "value: x}\n",
		 "f.yml:4: segment \"a\", constraint 1: operator: is not a known operator"},
		{"segments:\n- key: a\n  constraints:\n  - {type: string, property: p, operator: gt, value: "
		 "x}\n",
		 "f.yml:4: segment \"a\", constraint 1: operator: does not apply to this type"},
		{"segments:\n- key: a\n  constraints:\n  - {type: odd, property: p, operator: eq, value: "
		 "x}\n",
		 "f.yml:4: segment \"a\", constraint 1: type: is not a known constraint type"},
		{"segments:\n- key: a\n  constraints:\n  - {type: string, operator: eq, value: x}\n",
		 "f.yml:4: segment \"a\", constraint 1: property: is missing"}};
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		char text[2048];
		snprintf(text, sizeof(text), "%s%s", rows[i].text,
			 strstr(rows[i].text, "flags:")
				 ? "- {key: whole, enabled: true, type: boolean}\n"
				 : "flags:\n- {key: whole, enabled: true, type: boolean}\n");
		struct flag_snapshot *s = features(text, FLAG_RULES_V2);
		if (!tells(s, rows[i].error) || flag_snapshot_mistakes(s) == 0)
			fail_msg("row %zu: %s", i, flag_snapshot_warning(s, 0));
		assert_true(ask(s, "whole", "x", NULL).enabled);
		const struct flag *a = flag_find(s, SPAN_LIT("a"));
		assert_true(!a || flag_broken(a));
		flag_snapshot_unref(s);
	}
}

static void what_is_no_snapshot_is_refused_whole(void **state)
{
	static const struct {
		const char *text, *error;
	} rows[] = {{"", "s.json: "},
		    {"[]", "s.json: snapshot: must be an object"},
		    {"{\"code\":5, \"message\":\"namespace not found\"}", "s.json: flags: is missing"},
		    {"{\"flags\":{}}", "s.json: flags: must be an array"},
		    {"{\"flags\":[{\"key\":\"a\"", "s.json: "}};
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct flag_snapshot *s = NULL;
		struct err e;
		assert_int_equal(
			flag_snapshot_parse_json("s.json", span_of(rows[i].text), FLAG_RULES_V2, &s, &e),
			-EBADMSG);
		assert_null(s);
		if (!strstr(e.text, rows[i].error))
			fail_msg("row %zu: %s", i, e.text);
	}
}

#define BOOLEAN(rollout) "{\"key\":\"a\",\"type\":\"BOOLEAN_FLAG_TYPE\",\"rollouts\":[" rollout "]}"
#define SEGMENT(more) BOOLEAN("{\"segment\":{\"value\":true,\"segments\":[{" more "}]}}")
#define CONSTRAINT(more) SEGMENT("\"key\":\"s\",\"constraints\":[{" more "}]")

/* The fault of one flag, or of a segment it asks for, is its own: the other one changes. */
static void one_odd_flag_freezes_no_other(void **state)
{
	static const struct {
		const char *flag, *error;
	} rows[] = {
		{"{}", "s.json: flags[0]: has no key"},
		{"{\"key\":1}", "s.json: flags[0]: must be a string"},
		{"{\"key\":\"\"}", "s.json: flags[0]: has an empty key"},
		{"7", "s.json: flags[0]: has no key"},
		{"{\"key\":\"a\"},{\"key\":\"a\"}", "s.json: flag \"a\" occurs twice"},
		{"{\"key\":\"a\",\"type\":\"X\"}", "s.json: flag \"a\": has an unknown type"},
		{"{\"key\":\"a\",\"type\":2}", "s.json: flag \"a\": has an unknown type"},
		{"{\"key\":\"a\",\"enabled\":\"yes\"}", "s.json: flag \"a\": must be true or false"},
		{"{\"key\":\"a\",\"rules\":7}", "s.json: flag \"a\": must be an array"},
		{"{\"key\":\"a\",\"rules\":[{\"distributions\":[{\"rollout\":\"1\"}]}]}",
		 "s.json: flag \"a\", rule 1: must be a number"},
		{"{\"key\":\"a\",\"rules\":[{\"distributions\":[{\"rollout\":1e39}]}]}",
		 "s.json: flag \"a\", rule 1: is out of range"},
		{BOOLEAN("{}"), "s.json: flag \"a\", rollout 1: has neither a segment nor a threshold"},
		{BOOLEAN("{\"type\":\"TIME_ROLLOUT_TYPE\",\"threshold\":{\"percentage\":5}}"),
		 "s.json: flag \"a\", rollout 1: has the unknown word \"TIME_ROLLOUT_TYPE\""},
		{BOOLEAN("{\"threshold\":{\"percentage\":\"NaN\"}}"),
		 "s.json: flag \"a\", rollout 1: must be a number"},
		{SEGMENT("\"matchType\":\"ALL_SEGMENT_MATCH_TYPE\""),
		 "s.json: flag \"a\", rollout 1: has a segment without a key"},
		{SEGMENT("\"key\":\"s\",\"matchType\":\"NONE_SEGMENT_MATCH_TYPE\""),
		 "has the unknown word \"NONE_SEGMENT_MATCH_TYPE\""},
		{CONSTRAINT("\"type\":\"VERSION_CONSTRAINT_COMPARISON_TYPE\",\"operator\":\"eq\""),
		 "has a constraint of an unknown type"},
		{CONSTRAINT("\"type\":\"STRING_CONSTRAINT_COMPARISON_TYPE\",\"operator\":\"matches\""),
		 "has a constraint with an unknown operator"},
		{CONSTRAINT("\"type\":\"STRING_CONSTRAINT_COMPARISON_TYPE\",\"operator\":\"eq\",\"value\":5"),
		 "must be a string"}};
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		char text[2048];
		struct flag_snapshot *s = NULL;
		struct err e;
		snprintf(text, sizeof(text),
			 "{\"flags\":[%s,{\"key\":\"whole\",\"type\":\"BOOLEAN_FLAG_TYPE\",\"enabled\":true}]"
			 "}",
			 rows[i].flag);
		if (flag_snapshot_parse_json("s.json", span_of(text), FLAG_RULES_V2, &s, &e) < 0)
			fail_msg("row %zu: %s", i, e.text);
		assert_true(ask(s, "whole", "x", NULL).enabled);
		if (!tells(s, rows[i].error))
			fail_msg("row %zu: %s", i, flag_snapshot_warning(s, 0));
		const struct flag *a = flag_find(s, SPAN_LIT("a"));
		assert_true(!a || (flag_broken(a) && strstr(flag_broken(a), rows[i].error)));
		flag_snapshot_unref(s);
	}
}

/* Carried to disk and back: still broken, for the same reason, and without its percentages. */
static void what_is_set_aside_stays_so_on_disk(void **state)
{
	struct flag_snapshot *s = features("flags:\n- {key: a, type: boolean, enabled: true, rolouts: []}\n- "
					   "{key: b, type: boolean, enabled: true}\n",
					   FLAG_RULES_V2),
			     *again = NULL;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1 << 20);
	struct err e;
	(void)state;
	assert_int_equal(flag_snapshot_print(s, &text), 0);
	assert_int_equal(flag_snapshot_parse_json("saved", buf_span(&text), FLAG_RULES_V2, &again, &e), 0);
	const struct flag *a = flag_find(again, SPAN_LIT("a"));
	assert_string_equal(flag_broken(a), flag_broken(flag_find(s, SPAN_LIT("a"))));
	assert_false(ask(again, "a", "x", NULL).enabled);
	assert_true(ask(again, "b", "x", NULL).enabled);
	flag_snapshot_unref(s);
	flag_snapshot_unref(again);
}

/* A segment's fault is that of those who ask for it. */
static void an_odd_segment_concerns_only_those_who_ask_for_it(void **state)
{
	static const char text[] =
		"segments:\n"
		"- {key: odd, constraints: [{type: version, property: p, operator: eq, value: x}]}\n"
		"- {key: twice}\n- {key: twice}\n- {name: without a key}\n- {key: fine}\n"
		"flags:\n"
		"- {key: asks, type: boolean, rollouts: [{segment: {key: odd, value: true}}]}\n"
		"- {key: doubts, type: boolean, rollouts: [{segment: {key: twice, value: true}}]}\n"
		"- {key: other, type: boolean, rollouts: [{segment: {key: fine, value: true}}]}\n";
	struct flag_snapshot *s = features(text, FLAG_RULES_V2);
	(void)state;
	assert_non_null(strstr(flag_broken(flag_find(s, SPAN_LIT("asks"))),
			       "f.yml:2: segment \"odd\", constraint 1: type"));
	assert_non_null(strstr(flag_broken(flag_find(s, SPAN_LIT("doubts"))), "is declared twice"));
	assert_null(flag_broken(flag_find(s, SPAN_LIT("other"))));
	assert_true(ask(s, "other", "x", NULL).enabled);
	assert_true(tells(s, "f.yml:5: segments[3]: key: is missing"));
	flag_snapshot_unref(s);
}

/* Which value counts is unknown of that flag alone. */
static void a_key_given_twice_concerns_only_its_flag(void **state)
{
	static const char text[] = "flags:\n- {key: odd, type: boolean, enabled: true, enabled: false}\n"
				   "- {key: other, type: boolean, enabled: true}\n";
	struct flag_snapshot *s = features(text, FLAG_RULES_V2);
	(void)state;
	assert_non_null(strstr(flag_broken(flag_find(s, SPAN_LIT("odd"))),
			       "the key \"enabled\" was already given on line 2"));
	assert_null(flag_broken(flag_find(s, SPAN_LIT("other"))));
	flag_snapshot_unref(s);
}

/* Flipt 2.11 writes every set of format 1.6 as a list. */
static void documents_of_one_file_count_by_their_namespace(void **state)
{
	static const char text[] =
		"---\nnamespace: default\n"
		"segments: [{key: early}]\n"
		"flags:\n- {key: a, type: boolean, enabled: true}\n"
		"- {key: too_early, type: boolean, rollouts: [{segment: {key: late, value: true}}]}\n"
		"---\nnamespace: {key: other, name: Other}\n"
		"flags: [{key: a, type: boolean, enabled: false}, {key: b, type: boolean, enabled: true}]\n"
		"---\n" /* no namespace: default */
		"segments: [{key: late}]\n"
		"flags:\n- {key: c, type: boolean, rollouts: [{segment: {key: early, value: true}}]}\n---\n";
	struct flag_snapshot *s = features(text, FLAG_RULES_V2);
	struct err e;
	(void)state;
	assert_int_equal(flag_snapshot_count(s), 3);
	assert_true(ask(s, "a", "x", NULL).enabled && ask(s, "c", "x", NULL).enabled);
	assert_null(flag_find(s, SPAN_LIT("b")));
	assert_non_null(strstr(flag_broken(flag_find(s, SPAN_LIT("too_early"))), "f.yml:6: "));
	flag_snapshot_unref(s);
	assert_int_equal(
		flag_snapshot_parse_namespace("f.yml", span_of(text), "other", FLAG_RULES_V2, &s, &e), 0);
	assert_int_equal(flag_snapshot_count(s), 2);
	assert_false(ask(s, "a", "x", NULL).enabled);
	flag_snapshot_unref(s);
	assert_int_equal(
		flag_snapshot_parse_namespace("f.yml", span_of(text), "nobodys", FLAG_RULES_V2, &s, &e), 0);
	assert_int_equal(flag_snapshot_count(s), 0);
	assert_true(tells(s, "f.yml:1: no document belongs to the namespace \"nobodys\""));
	flag_snapshot_unref(s);
	s = features("namespace: lonely\nflags: [{key: a, enabled: true}]\n", FLAG_RULES_V2);
	assert_non_null(flag_find(s, SPAN_LIT("a")));
	assert_non_null(strstr(flag_snapshot_warning(s, 0), "\"lonely\" is used"));
	flag_snapshot_unref(s);
	assert_int_equal(flag_snapshot_parse_features("f.yml", SPAN_LIT("flags: []\n---\n- x\n"),
						      FLAG_RULES_V2, &s, &e),
			 -EBADMSG);
	assert_non_null(strstr(e.text, "f.yml:3: a features file is a mapping"));
}

static void sets_may_be_lists(void **state)
{
	static const struct {
		const char *list, *quoted, *in, *out;
	} rows[] = {{"type: string, property: p, operator: isoneof, value: [a, b]",
		     "type: string, property: p, operator: isoneof, value: '[\"a\",\"b\"]'", "b", "c"},
		    {"type: STRING_COMPARISON_TYPE, property: p, operator: isnotoneof, value: [\"x\\\"y\", "
		     "true, null]",
		     "type: STRING_COMPARISON_TYPE, property: p, operator: isnotoneof, value: "
		     "'[\"x\\\"y\",\"true\",\"\"]'",
		     "other", "true"},
		    {"type: NUMBER_COMPARISON_TYPE, property: p, operator: isoneof, value: [18, 2.5]",
		     "type: NUMBER_COMPARISON_TYPE, property: p, operator: isoneof, value: '[18,2.5]'",
		     "2.50", "3"},
		    {"type: string, property: p, operator: isoneof, value: [\"18\"]",
		     "type: string, property: p, operator: isoneof, value: '[\"18\"]'", "18", "18.0"},
		    {"type: string, property: p, operator: isoneof, value: []",
		     "type: string, property: p, operator: isoneof, value: '[]'", NULL, "a"}};
	(void)state;
	for (size_t i = 0; i < COUNT(rows) * 2; i++) {
		const char *constraint = i % 2 ? rows[i / 2].quoted : rows[i / 2].list;
		char text[1024];
		struct flag_result r;
		snprintf(text, sizeof(text),
			 "version: \"1.6\"\nsegments: [{key: s, constraints: [{%s}]}]\n"
			 "flags: [{key: f, type: boolean, rollouts: [{segment: {key: s, value: true}}]}]\n",
			 constraint);
		struct flag_snapshot *s = features(text, FLAG_RULES_V2);
		assert_int_equal(flag_snapshot_mistakes(s), 0);
		const char *values[] = {rows[i / 2].in, rows[i / 2].out};
		for (size_t j = 0; j < 2; j++) {
			if (!values[j])
				continue;
			struct flag_context context = {SPAN_LIT("p"), span_of(values[j])};
			flag_evaluate(s, flag_find(s, SPAN_LIT("f")), SPAN_LIT("e"), &context, 1, &r, NULL);
			assert_int_equal(r.enabled, j == 0);
		}
		flag_snapshot_unref(s);
	}
}

static void too_many_segments_in_a_rule(void **state)
{
	struct buf text = BUF_INIT(1 << 20);
	struct flag_snapshot *s = NULL;
	struct err e;
	(void)state;
	buf_puts(&text, "segments:\n");
	for (int i = 0; i <= FLAG_MAX_SEGMENTS_PER_RULE; i++)
		buf_printf(&text, "- key: s%d\n", i);
	buf_puts(&text, "flags:\n- key: a\n  enabled: true\n  rules:\n  - segment:\n      keys:\n");
	for (int i = 0; i < FLAG_MAX_SEGMENTS_PER_RULE; i++)
		buf_printf(&text, "      - s%d\n", i);
	buf_puts(&text, "      - s0\n"); /* twice the same counts once */
	assert_int_equal(flag_snapshot_parse_features("f", buf_span(&text), FLAG_RULES_V2, &s, &e), 0);
	assert_int_equal(ask(s, "a", "x", NULL).segments, FLAG_MAX_SEGMENTS_PER_RULE);
	flag_snapshot_unref(s);
	buf_printf(&text, "      - s%d\n", FLAG_MAX_SEGMENTS_PER_RULE);
	buf_puts(&text, "- {key: b, type: boolean, enabled: true}\n");
	assert_int_equal(flag_snapshot_parse_features("f", buf_span(&text), FLAG_RULES_V2, &s, &e), 0);
	assert_non_null(strstr(flag_broken(flag_find(s, SPAN_LIT("a"))), "too many segments"));
	assert_true(ask(s, "b", "x", NULL).enabled);
	flag_snapshot_unref(s);
	buf_release(&text);
}

/* --- warnings ------------------------------------------------------------------------------------------- */
static void warnings(void **state)
{
	static const char text[] =
		"flags:\n"			     /* 1 */
		"- key: t\n"			     /* 2 */
		"  type: BOOLEAN_FLAG_TYPE\n"	     /* 3 */
		"  name: x\n"			     /* 4 */
		"  rollouts:\n"			     /* 5 */
		"  - threshold: {percentage: 0.5}\n" /* 6 */
		"  - threshold: {percentage: 150}\n" /* 7 */
		"  - threshold: {percentage: 25}\n"  /* 8 */
		"- key: v\n"			     /* 9 */
		"  variants: [{key: a}, {key: b}]\n" /* 10 */
		"  rules:\n"			     /* 11 */
		"  - segment: default\n"	     /* 12 */
		"    distributions: [{variant: a, rollout: 33.33}, {variant: b, rollout: 66.67}]\n"
		"  - segment: default\n" /* 14 */
		/* 18 */
		"    distributions: [{variant: a, rollout: 33.3}]\n"
		"segments:\n"
		"- key: bad\n"
		"  constraints: [{type: number, property: n, operator: eq, value: x}]\n";
	static const char *const expected[] = {
		"f.yml:18: segment \"bad\", constraint 1: the value is not a number; Flipt drops the whole "
		"segment",
		"f.yml:6: flag \"t\", rollout 1: a threshold of 0.5 % acts as 1 %: Flipt compares whole "
		"percents",
		"f.yml:7: flag \"t\", rollout 2: a threshold of 150 % acts as 100 %",
		"f.yml:12: segment \"default\" is not declared; treated as everybody",
		"f.yml:12: flag \"v\", rule 1: variant \"a\" has 33.33 %, but Flipt works in steps of 0.1 %",
		"f.yml:12: flag \"v\", rule 1: variant \"b\" has 66.67 %, but Flipt works in steps of 0.1 %",
		"f.yml:14: flag \"v\", rule 2: the distributions add up to 33.3 %; under the rules of v2.11 "
		"they are scaled to 100 %"};
	struct flag_snapshot *s = features(text, FLAG_RULES_V2);
	(void)state;
	for (size_t i = 0; i < COUNT(expected); i++) {
		assert_true(i < flag_snapshot_warnings(s));
		assert_string_equal(flag_snapshot_warning(s, i), expected[i]);
	}
	assert_int_equal(flag_snapshot_warnings(s), COUNT(expected));
	assert_null(flag_snapshot_warning(s, COUNT(expected)));
	flag_snapshot_unref(s);
}

/* {on: 20} alone: 2.8 and older leave 80 % without a variant, 2.9 and newer give it to everybody. A malformed
 * constraint takes its segment out of an AND from 2.10 on; before, it merely does not match. */
static void each_version_acts_by_its_own_rules(void **state)
{
	static const char text[] =
		"flags:\n"
		"- {key: part, enabled: true, variants: [{key: on}],\n"
		"   rules: [{segment: default, distributions: [{variant: on, rollout: 20}]}]}\n"
		"- {key: both, enabled: true, variants: [{key: on}],\n"
		"   rules: [{segment: {keys: [all, bad], operator: AND_SEGMENT_OPERATOR}, distributions: "
		"[{variant: on, rollout: 100}]}]}\n"
		"segments: [{key: all}, {key: bad, constraints: [{type: number, property: n, operator: eq, "
		"value: x}]}]\n";
	static const struct {
		enum flag_rules rules;
		bool scaled, drops;
		const char *warning;
	} rows[] = {
		{FLAG_RULES_V1, false, false, "under the rules of v1 the rest up to 100 % gets no variant"},
		{FLAG_RULES_V2_0, false, false,
		 "under the rules of v2.0 the rest up to 100 % gets no variant"},
		{FLAG_RULES_V2_9, true, false, "under the rules of v2.9 they are scaled to 100 %"},
		{FLAG_RULES_V2_11, true, true, "under the rules of v2.11 they are scaled to 100 %"},
	};
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct flag_snapshot *s = features(text, rows[i].rules);
		size_t on = 0, warned = 0;
		for (int n = 0; n < 1000; n++) {
			char entity[16];
			snprintf(entity, sizeof(entity), "user-%d", n);
			on += ask(s, "part", entity, NULL).match;
		}
		assert_true(rows[i].scaled ? on == 1000 : on > 150 && on < 250);
		assert_int_equal(ask(s, "both", "x", NULL).match, rows[i].drops);
		for (size_t w = 0; w < flag_snapshot_warnings(s); w++)
			warned += strstr(flag_snapshot_warning(s, w), rows[i].warning) != NULL;
		assert_int_equal(warned, 1);
		flag_snapshot_unref(s);
	}
}

static void a_servers_version_says_whose_rules_count(void **state)
{
	static const struct {
		unsigned major, minor;
		enum flag_rules rules;
	} rows[] = {{1, 61, FLAG_RULES_V1},    {2, 0, FLAG_RULES_V2_0},	  {2, 8, FLAG_RULES_V2_0},
		    {2, 9, FLAG_RULES_V2_9},   {2, 10, FLAG_RULES_V2_11}, {2, 11, FLAG_RULES_V2_11},
		    {2, 40, FLAG_RULES_V2_11}, {3, 0, FLAG_RULES_V2_11}};
	enum flag_rules parsed;
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		assert_int_equal(flag_rules_of_server(rows[i].major, rows[i].minor), rows[i].rules);
	for (enum flag_rules r = 0; r < FLAG_RULES_COUNT; r++)
		assert_true(flag_rules_parse(span_of(flag_rules_text(r)), &parsed) && parsed == r);
	assert_true(flag_rules_parse(SPAN_LIT("v2"), &parsed) && parsed == FLAG_RULES_V2_11);
	assert_false(flag_rules_parse(SPAN_LIT("v3"), &parsed));
}

/* Known, but not for its type: it never matches, as for the server. */
static void an_operator_of_another_type_never_matches(void **state)
{
	static const char text[] = "{\"digest\":\"0123\",\"flags\":[" SEGMENT(
		"\"key\":\"s\",\"matchType\":\"ANY_SEGMENT_MATCH_TYPE\",\"constraints\":["
		"{\"type\":\"NUMBER_CONSTRAINT_COMPARISON_TYPE\",\"property\":\"p\",\"operator\":\"prefix\","
		"\"value\":\"x\"}]") "]}";
	struct flag_snapshot *s = NULL;
	struct err e;
	(void)state;
	assert_int_equal(flag_snapshot_parse_json("s.json", span_of(text), FLAG_RULES_V2, &s, &e), 0);
	assert_int_equal(flag_snapshot_warnings(s), 1);
	assert_int_equal(flag_snapshot_mistakes(s), 0);
	assert_non_null(strstr(flag_snapshot_warning(s, 0), "\"prefix\" is not known for this type"));
	assert_false(ask(s, "a", "x", NULL).enabled);
	assert_string_equal(flag_snapshot_digest(s), "0123");
	flag_snapshot_unref(s);
}

/* --- answers -------------------------------------------------------------------------------------------- */
static void quickstart(void **state)
{
	char path[512];
	struct buf text = BUF_INIT(1 << 20);
	struct flag_snapshot *s = NULL;
	struct err e;
	struct flag_context beta = {SPAN_LIT("organization_id"), SPAN_LIT("beta_org")};
	struct flag_result r;
	(void)state;
	snprintf(path, sizeof(path), "%s/tests/fixtures/flipt/flags.quickstart.yml", getenv("SOURCE_ROOT"));
	assert_int_equal(file_read(path, 1 << 20, &text, &e), 0);
	if (flag_snapshot_parse_features("flags.quickstart.yml", buf_span(&text), FLAG_RULES_V2, &s, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(flag_snapshot_warnings(s), 1);
	assert_non_null(strstr(flag_snapshot_warning(s, 0), "segment \"default\" is not declared"));

	r = ask(s, "task_abstraction_enabled", "user-1", NULL);
	assert_true(r.match && r.by_percentage);
	assert_int_equal(r.bucket, 302);
	assert_true(span_is(r.variant, "0"));
	assert_string_equal(r.segment_keys[0], "default");

	flag_evaluate(s, flag_find(s, SPAN_LIT("task_abstraction_enabled")), SPAN_LIT("user-1"), &beta, 1, &r,
		      NULL);
	assert_true(r.match && !r.by_percentage);
	assert_true(span_is(r.variant, "100"));
	assert_string_equal(r.segment_keys[0], "beta_users");
	int with_25 = 0;
	for (int i = 0; i < 10000; i++) {
		char entity[32];
		snprintf(entity, sizeof(entity), "user-%d", i);
		with_25 += span_is(ask(s, "task_abstraction_enabled", entity, NULL).variant, "25");
	}
	assert_true(with_25 >= 2350 && with_25 <= 2650);
	flag_snapshot_unref(s);
	buf_release(&text);
}

/* flags.h, by_percentage: whether the constant entity of a request without identity was hashed into a
 * side. */
static void by_percentage(void **state)
{
	static const char text[] =
		"segments:\n"
		"- {key: all}\n"
		"- {key: none, constraints: [{type: string, property: p, operator: notempty, value: x}]}\n";
	static const struct {
		const char *body;
		bool v2, v1;
	} rows[] = {{"type: boolean, rollouts: []", false, false},
		    {"type: boolean, rollouts: [{threshold: {percentage: 0, value: true}}]", false, false},
		    {"type: boolean, rollouts: [{threshold: {percentage: 100, value: true}}]", false, false},
		    {"type: boolean, rollouts: [{threshold: {percentage: 99.5, value: true}}]", false, false},
		    {"type: boolean, rollouts: [{threshold: {percentage: 150, value: true}}]", false, false},
		    {"type: boolean, rollouts: [{threshold: {percentage: -1, value: true}}]", false, false},
		    {"type: boolean, rollouts: [{threshold: {percentage: 99, value: true}}]", true, true},
		    {"type: boolean, rollouts: [{threshold: {percentage: 0.5, value: true}}]", true, true},
		    {"type: boolean, rollouts: [{segment: {key: all, value: true}}, {threshold: {percentage: "
		     "50}}]",
		     false, false},
		    {"type: boolean, rollouts: [{segment: {key: none, value: true}}, {threshold: "
		     "{percentage: 50}}]",
		     true, true},
		    /* 1 % was asked and (for this entity) said no; the segment behind it decided only because
		 * of that. */
		    {"type: boolean, rollouts: [{threshold: {percentage: 1}}, {segment: {key: all, value: "
		     "true}}]",
		     true, true},
		    {"type: boolean, rollouts: [{threshold: {percentage: 0}}, {segment: {key: all, value: "
		     "true}}]",
		     false, false},
		    {"rules: []", false, false},
		    {"enabled: false, rules: [{segment: all, distributions: [{variant: a, rollout: 50}, "
		     "{variant: b, rollout: "
		     "50}]}]",
		     false, false},
		    {"enabled: true, rules: [{segment: all, distributions: []}]", false, false},
		    {"enabled: true, rules: [{segment: all, distributions: [{variant: a, rollout: 100}]}]",
		     false, false},
		    {"enabled: true, rules: [{segment: all, distributions: [{variant: a, rollout: 0}, "
		     "{variant: b, rollout: "
		     "100}]}]",
		     false, false},
		    {"enabled: true, rules: [{segment: all, distributions: [{variant: a, rollout: 75}, "
		     "{variant: b, rollout: "
		     "25}]}]",
		     true, true},
		    /* v2 makes the only share the whole, v1 lets the other half fall through. */
		    {"enabled: true, rules: [{segment: all, distributions: [{variant: a, rollout: 50}]}]",
		     false, true},
		    {"enabled: true, rules: [{segment: all, distributions: [{variant: a, rollout: 50}, "
		     "{variant: a, rollout: "
		     "50}]}]",
		     false, false},
		    /* Less than a bucket is no share. */
		    {"enabled: true, rules: [{segment: all, distributions: [{variant: a, rollout: 0.05}, "
		     "{variant: b, "
		     "rollout: 100}]}]",
		     false, false},
		    {"enabled: true, rules: [{segment: none, distributions: [{variant: a, rollout: 50}, "
		     "{variant: b, "
		     "rollout: 50}]}, {segment: all, distributions: [{variant: b, rollout: 100}]}]",
		     false, false}};
	(void)state;
	for (size_t i = 0; i < 2 * COUNT(rows); i++) {
		struct buf b = BUF_INIT(1 << 16);
		enum flag_rules rules = i % 2 ? FLAG_RULES_V1 : FLAG_RULES_V2;
		buf_puts(&b, text);
		buf_printf(&b, "flags:\n- {key: f, variants: [{key: a}, {key: b}], %s}\n", rows[i / 2].body);
		struct flag_snapshot *s = features(b.ptr, rules);
		struct flag_result r = ask(s, "f", "anonymous", NULL);
		if (r.by_percentage != (i % 2 ? rows[i / 2].v1 : rows[i / 2].v2))
			fail_msg("row %zu, %s: %s", i / 2, i % 2 ? "v1" : "v2", rows[i / 2].body);
		flag_snapshot_unref(s);
		buf_release(&b);
	}
}

static void last_context_entry_counts(void **state)
{
	struct flag_snapshot *s =
		features("segments:\n- {key: s, constraints: [{type: string, property: p, operator: eq, "
			 "value: x}]}\nflags:\n- {key: f, type: boolean, rollouts: [{segment: {key: s, "
			 "value: true}}]}\n",
			 FLAG_RULES_V2);
	struct flag_context c[] = {{SPAN_LIT("p"), SPAN_LIT("x")}, {SPAN_LIT("p"), SPAN_LIT("y")}};
	struct flag_result r;
	(void)state;
	flag_evaluate(s, flag_find(s, SPAN_LIT("f")), SPAN_LIT("e"), c, 2, &r, NULL);
	assert_false(r.enabled);
	flag_evaluate(s, flag_find(s, SPAN_LIT("f")), SPAN_LIT("e"), c, 1, &r, NULL);
	assert_true(r.enabled);
	flag_snapshot_unref(s);
}

static void looking_up_and_sharing(void **state)
{
	struct buf b = BUF_INIT(1 << 20);
	(void)state;
	buf_puts(&b, "flags:\n");
	for (int i = 0; i < 1000; i++)
		buf_printf(&b, "- {key: flag-%d, type: boolean, enabled: %s}\n", i, i % 2 ? "true" : "false");
	struct flag_snapshot *s = features(b.ptr, FLAG_RULES_V1);
	assert_int_equal(flag_snapshot_count(s), 1000);
	for (int i = 0; i < 1000; i++) {
		char key[32];
		snprintf(key, sizeof(key), "flag-%d", i);
		const struct flag *f = flag_find(s, span_of(key));
		assert_ptr_equal(f, flag_snapshot_at(s, (size_t)i));
		assert_string_equal(flag_key(f), key);
		assert_int_equal(flag_enabled(f), i % 2);
		assert_int_equal(flag_type_of(f), FLAG_BOOLEAN);
	}
	assert_null(flag_find(s, SPAN_LIT("flag-1000")));
	assert_null(flag_find(s, SPAN_NONE));
	assert_null(flag_snapshot_at(s, 1000));
	assert_int_equal(flag_snapshot_rules(s), FLAG_RULES_V1);
	char digest[CRYPTO_SHA256_HEX];
	crypto_sha256_hex(buf_span(&b), digest);
	assert_string_equal(flag_snapshot_digest(s), digest);
	const struct flag_snapshot *other = flag_snapshot_ref(s);
	assert_null(flag_snapshot_unref(s));
	assert_int_equal(flag_snapshot_count(other), 1000);
	flag_snapshot_unref(other);
	assert_null(flag_snapshot_unref(NULL));
	buf_release(&b);
	s = features("flags: []\n", FLAG_RULES_V2);
	assert_null(flag_find(s, SPAN_LIT("x")));
	flag_snapshot_unref(s);
}

/* --- explaining ----------------------------------------------------------------------------------------- */
static void collect(void *arg, unsigned depth, const char *sentence)
{
	buf_printf(arg, "%*s%s\n", (int)depth * 2, "", sentence);
}

static void trace(void **state)
{
	static const char text[] =
		"flags:\n"
		"- key: v\n"
		"  enabled: true\n"
		"  variants: [{key: 'off'}, {key: 'on'}]\n"
		"  rules:\n"
		"  - segment: beta\n"
		"    distributions: [{variant: 'on', rollout: 100}]\n"
		"  - segment: default\n"
		"    distributions: [{variant: 'off', rollout: 75}, {variant: 'on', rollout: 25}]\n"
		"- key: b\n"
		"  type: BOOLEAN_FLAG_TYPE\n"
		"  rollouts: [{threshold: {percentage: 10, value: true}}]\n"
		"segments:\n"
		"- key: beta\n"
		"  constraints: [{type: string, property: organization_id, operator: eq, value: beta_org}]\n";
	struct buf out = BUF_INIT(1 << 16);
	struct flag_trace t = {collect, &out};
	struct flag_snapshot *s = features(text, FLAG_RULES_V2);
	(void)state;
	ask(s, "v", "user-1", &t);
	assert_string_equal(
		out.ptr,
		"flag \"v\": variant, enabled\n"
		"  rule 1: one of 1 segment must match\n"
		"    segment \"beta\" does not match: organization_id \"\" eq \"beta_org\" does not hold\n"
		"    0 of 1 match: the rule does not apply\n"
		"  rule 2: one of 1 segment must match\n"
		"    segment \"default\" matches: it is declared nowhere, which means everybody\n"
		"    1 of 1 match: the rule applies\n"
		"    bucket 256 of 1000 (from the flag's key and the entity id)\n"
		"      0 to 749: variant \"off\" (75 %) ← this one\n"
		"      750 to 999: variant \"on\" (25 %)\n");
	buf_clear(&out);
	ask(s, "b", "user-1", &t);
	assert_string_equal(
		out.ptr,
		"flag \"b\": boolean, disabled\n"
		"  rollout 1: threshold 10 %; this entity's number from 0 to 99 is 66: it does not apply\n"
		"  no rollout matched: the flag's own value, false\n");
	flag_snapshot_unref(s);
	buf_release(&out);
}

/* --- shares --------------------------------------------------------------------------------------------- */

struct said {
	double task, sum; /* true, or a variant other than "0"; everything */
	bool by_percentage;
};

static void add_share(void *arg, double share, const struct flag_result *r)
{
	struct said *s = arg;
	s->sum += share;
	s->by_percentage |= r->by_percentage;
	if (r->type == FLAG_BOOLEAN ? r->enabled : r->variant.len && !span_is(r->variant, "0"))
		s->task += share;
}

static const char split_flags[] =
	"segments:\n"
	"- {key: beta, match_type: ALL_MATCH_TYPE, constraints: [{type: string, property: plan, operator: eq,"
	" value: beta}]}\n"
	"- {key: all, match_type: ALL_MATCH_TYPE}\n"
	"flags:\n"
	"- {key: quarter, name: q, type: BOOLEAN_FLAG_TYPE, enabled: false,"
	" rollouts: [{threshold: {percentage: 25, value: true}}]}\n"
	"- {key: steps, name: s, type: BOOLEAN_FLAG_TYPE, enabled: true, rollouts: [{threshold: {percentage: "
	"10,"
	" value: true}}, {segment: {key: beta, value: true}}, {threshold: {percentage: 40, value: false}},"
	" {threshold: {percentage: 30, value: true}}]}\n"
	"- {key: finer, name: f, type: BOOLEAN_FLAG_TYPE, enabled: false,"
	" rollouts: [{threshold: {percentage: 2.5, value: true}}]}\n"
	"- {key: variants, name: v, type: VARIANT_FLAG_TYPE, enabled: true, variants: [{key: \"25\"}, {key:"
	" \"0\"}], rules: [{segment: beta, distributions: [{variant: \"25\", rollout: 100}]}, {segment: all,"
	" distributions: [{variant: \"0\", rollout: 94.5}, {variant: \"25\", rollout: 5.5}]}]}\n"
	"- {key: on, name: o, type: BOOLEAN_FLAG_TYPE, enabled: true}\n";

static struct said shares_of(const struct flag_snapshot *s, const char *key, const char *plan)
{
	struct said said = {0};
	struct flag_context context = {SPAN_LIT("plan"), span_of(plan)};
	const struct flag *f = flag_find(s, span_of(key));
	assert_non_null(f);
	flag_each_share(s, f, SPAN_LIT("anybody"), &context, 1, add_share, &said);
	return said;
}

/* What the shares say is what happens to many. */
static double frequency(const struct flag_snapshot *s, const char *key, const char *plan)
{
	struct flag_context context = {SPAN_LIT("plan"), span_of(plan)};
	unsigned task = 0;
	for (unsigned i = 0; i < 100000; i++) {
		char entity[16];
		struct flag_result r;
		int n = snprintf(entity, sizeof(entity), "user-%u", i);
		flag_evaluate(s, flag_find(s, span_of(key)), (struct span){entity, (size_t)n}, &context, 1,
			      &r, NULL);
		task += r.type == FLAG_BOOLEAN ? r.enabled : r.variant.len && !span_is(r.variant, "0");
	}
	return task / 100000.0;
}

static void a_share_is_what_chance_alone_decides(void **state)
{
	static const struct {
		const char *key, *plan;
		double task;
		bool by_percentage;
	} rows[] = {{"quarter", "", 0.25, true},   {"steps", "", 0.1 + 0.6, true},
		    {"steps", "beta", 1, true},	   {"finer", "", 0.03, true},
		    {"variants", "", 0.055, true}, {"variants", "beta", 1, false},
		    {"on", "", 1, false}};
	(void)state;
	struct flag_snapshot *s = features(split_flags, FLAG_RULES_V2);
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct said said = shares_of(s, rows[i].key, rows[i].plan);
		assert_true(fabs(said.task - rows[i].task) < 1e-12);
		assert_true(fabs(said.sum - 1) < 1e-12);
		assert_int_equal(said.by_percentage, rows[i].by_percentage);
		assert_true(fabs(frequency(s, rows[i].key, rows[i].plan) - said.task) < 0.006);
	}
	flag_snapshot_unref(s);
}

static uint64_t digest_after(const char *from, const char *to, const char *key)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(8192);
	const char *at = strstr(split_flags, from);
	assert_non_null(at);
	assert_int_equal(buf_append(&text, split_flags, (size_t)(at - split_flags)), 0);
	assert_int_equal(buf_printf(&text, "%s%s", to, at + strlen(from)), 0);
	struct flag_snapshot *s = features(text.ptr, FLAG_RULES_V2);
	uint64_t digest = flag_digest(flag_find(s, span_of(key)));
	flag_snapshot_unref(s);
	return digest;
}

static void a_digest_changes_with_what_the_flag_says_and_with_nothing_else(void **state)
{
	static const struct {
		const char *from, *to, *key;
		bool changes;
	} rows[] = {{"percentage: 25", "percentage: 26", "quarter", true},
		    {"percentage: 25", "percentage: 26", "steps", false},
		    {"percentage: 25", "percentage: 25.0", "quarter", false},
		    {"value: beta}", "value: gamma}", "steps", true}, /* a segment it asks for */
		    {"value: beta}", "value: gamma}", "variants", true},
		    {"value: beta}", "value: gamma}", "quarter", false},
		    {"rollout: 94.5}, {variant: \"25\", rollout: 5.5",
		     "rollout: 94, }, {variant: \"25\", "
		     "rollout: 6",
		     "variants", true},
		    {"name: q", "name: another", "quarter", false},
		    {"enabled: true}", "enabled: false}", "on", true}};
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		uint64_t before = digest_after("flags:", "flags:", rows[i].key);
		bool changed = before != digest_after(rows[i].from, rows[i].to, rows[i].key);
		if (changed != rows[i].changes)
			fail_msg("row %zu", i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(features_mistakes),
		cmocka_unit_test(what_is_no_document_is_refused_whole),
		cmocka_unit_test(what_is_no_snapshot_is_refused_whole),
		cmocka_unit_test(one_odd_flag_freezes_no_other),
		cmocka_unit_test(what_is_set_aside_stays_so_on_disk),
		cmocka_unit_test(an_odd_segment_concerns_only_those_who_ask_for_it),
		cmocka_unit_test(a_key_given_twice_concerns_only_its_flag),
		cmocka_unit_test(documents_of_one_file_count_by_their_namespace),
		cmocka_unit_test(sets_may_be_lists),
		cmocka_unit_test(too_many_segments_in_a_rule),
		cmocka_unit_test(warnings),
		cmocka_unit_test(each_version_acts_by_its_own_rules),
		cmocka_unit_test(a_servers_version_says_whose_rules_count),
		cmocka_unit_test(an_operator_of_another_type_never_matches),
		cmocka_unit_test(quickstart),
		cmocka_unit_test(by_percentage),
		cmocka_unit_test(last_context_entry_counts),
		cmocka_unit_test(looking_up_and_sharing),
		cmocka_unit_test(trace),
		cmocka_unit_test(a_share_is_what_chance_alone_decides),
		cmocka_unit_test(a_digest_changes_with_what_the_flag_says_and_with_nothing_else),
	};
	return crypto_setup() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
