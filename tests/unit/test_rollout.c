/* rollout: which bytes change, what is refused, and that growing and shrinking move people one way only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>

#include "flags/flags.h"
#include "rollout/rollout.h"

#define IDENTITIES 100000

#define VARIANTS(first, second) \
	"flags:\n- key: f # the flag\n  type: VARIANT_FLAG_TYPE\n  enabled: true\n  variants: [{key: on}, " \
	"{key: off}]\n" \
	"  rules:\n  - segment: everybody\n    distributions:\n    - {variant: " first \
	"}\n    - {variant: " second "}\n" \
	"segments: [{key: everybody, match_type: ALL_MATCH_TYPE}]\n"

/* As the router takes words and attachments, a little. */
static bool is_task(void *arg, struct span variant, struct span attachment)
{
	(void)arg;
	return !span_is(variant, "off") && !span_is(variant, "old") &&
	       !span_is(attachment, "{\"side\":\"legacy\"}");
}

static const struct rollout_sides sides = {.is_task = is_task};

static const char boolean[] = "flags:\n- key: f\n  type: BOOLEAN_FLAG_TYPE\n  enabled: false\n  rollouts:\n"
			      "  - threshold: {percentage: 0, value: true} # of everybody\n";

static void apply(const char *text, double percent, struct buf *out)
{
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	struct rollout_plan plan;
	struct err e = {""};
	if (rollout_open("t", span_of(text), "f", &sides, &d, &e) != 0 ||
	    rollout_set(d, NULL, percent, &plan, &e) != 0 || rollout_apply(d, &plan, out, &e) != 0)
		fail_msg("%s", e.text);
}

static void only_the_values_change(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(65536);
	apply(VARIANTS("on, rollout: 25", "off, rollout:  75.0"), 30.5, &out);
	assert_string_equal(out.ptr, VARIANTS("on, rollout: 30.5", "off, rollout:  69.5"));
}

/* Who is told task by a text; how many. */
static size_t ask_everybody(struct span text, enum flag_rules rules, bool task[IDENTITIES])
{
	struct flag_snapshot *s = NULL;
	struct err e = {""};
	size_t on = 0;
	if (flag_snapshot_parse_features("t", text, rules, &s, &e) != 0)
		fail_msg("%s", e.text);
	const struct flag *f = flag_find(s, SPAN_LIT("f"));
	for (size_t n = 0; n < IDENTITIES; n++) {
		char id[32];
		struct flag_result r;
		snprintf(id, sizeof(id), "user-%zu", n);
		flag_evaluate(s, f, span_of(id), NULL, 0, &r, NULL);
		task[n] = r.type == FLAG_BOOLEAN ? r.enabled
						 : r.match && is_task(NULL, r.variant, r.attachment);
		on += task[n];
	}
	flag_snapshot_unref(s);
	return on;
}

/* One step of the plan after the other, as a server sees it that takes one value at a time. */
static size_t step(struct buf *text, double percent, bool growing, enum flag_rules rules,
		   bool task[IDENTITIES])
{
	static bool now[IDENTITIES];
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	CLEANUP(buf_releasep) struct buf next = BUF_INIT(65536);
	struct rollout_plan plan = {.n = 0}, part;
	struct err e = {""};
	size_t on = 0;
	if (rollout_open("t", buf_span(text), "f", &sides, &d, &e) != 0 ||
	    rollout_set(d, NULL, percent, &plan, &e) != 0)
		fail_msg("%s", e.text);
	part = plan;
	for (part.n = 0; part.n <= plan.n; part.n++) {
		buf_clear(&next);
		assert_int_equal(rollout_apply(d, &part, &next, &e), 0);
		on = ask_everybody(buf_span(&next), rules, now);
		for (size_t n = 0; n < IDENTITIES; n++)
			if (growing ? task[n] && !now[n] : !task[n] && now[n])
				fail_msg("user-%zu moved the wrong way at %g %%, after %zu of %zu changes", n,
					 percent, part.n, plan.n);
		memcpy(task, now, sizeof(now));
	}
	buf_clear(text);
	buf_append_span(text, buf_span(&next));
	return on;
}

static void everybody_moves_one_way(const char *start, enum flag_rules rules)
{
	static const double steps[] = {0, 1, 5, 25, 50, 100, 50, 0};
	static bool task[IDENTITIES];
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(65536);
	double before = 0;
	buf_puts(&text, start);
	ask_everybody(buf_span(&text), rules, task);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		size_t on = step(&text, steps[i], steps[i] > before, rules, task);
		before = steps[i];
		assert_true(on >= (size_t)(steps[i] * 1000 * 0.9) &&
			    on <= (size_t)(steps[i] * 1000 * 1.1) + 1);
	}
}

static void growing_and_shrinking_move_one_way(void **state)
{
	(void)state;
	for (int v1 = 0; v1 < 2; v1++) {
		enum flag_rules rules = v1 ? FLAG_RULES_V1 : FLAG_RULES_V2;
		everybody_moves_one_way(VARIANTS("on, rollout: 0", "off, rollout: 100"), rules);
		everybody_moves_one_way(VARIANTS("off, rollout: 100", "on, rollout: 0"), rules);
		everybody_moves_one_way(boolean, rules);
	}
}

#define FOUR(a, b, c, d) \
	"flags:\n- key: f\n  type: VARIANT_FLAG_TYPE\n  enabled: true\n" \
	"  variants: [{key: on}, {key: celery}, {key: off}, {key: old}]\n" \
	"  rules:\n  - segment: default\n    distributions:\n    - {variant: " a "}\n    - {variant: " b \
	"}\n    - {variant: " c "}\n    - {variant: " d "}\n"

/* Every tenth up and down again, under both rules and between the values of one write. */
static void several_variants_of_a_side_keep_their_proportion(void **state)
{
	(void)state;
	static bool task[IDENTITIES];
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(65536);
	apply(FOUR("on, rollout: 10", "celery, rollout: 5", "off, rollout: 60", "old, rollout: 25"), 30,
	      &out);
	assert_string_equal(out.ptr, FOUR("on, rollout: 20", "celery, rollout: 10", "off, rollout: 49.4",
					  "old, rollout: 20.6"));
	static const char *const starts[] = {
		FOUR("on, rollout: 0.3", "celery, rollout: 0.2", "off, rollout: 66.2", "old, rollout: 33.3"),
		FOUR("off, rollout: 33.3", "old, rollout: 66.2", "celery, rollout: 0.2", "on, rollout: 0.3"),
	};
	static const double percents[] = {0.6, 1.1, 10.1, 33.4, 99.9, 66.6, 10, 0.6, 0.3};
	for (size_t s = 0; s < 4; s++) {
		double before = 0.5;
		buf_clear(&out);
		buf_puts(&out, starts[s / 2]);
		enum flag_rules rules = s % 2 ? FLAG_RULES_V1 : FLAG_RULES_V2;
		ask_everybody(buf_span(&out), rules, task);
		for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
			step(&out, percents[i], percents[i] > before, rules, task);
			before = percents[i];
		}
	}
}

/* v1 after a write that was cut: the shares make 125 %; the same command finishes it. */
static void a_half_done_write_can_be_finished(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(65536);
	apply(VARIANTS("on, rollout: 50", "off, rollout: 75"), 50, &out);
	assert_string_equal(out.ptr, VARIANTS("on, rollout: 50", "off, rollout: 50"));
}

static void what_would_mislead_is_refused(void **state)
{
	(void)state;
	static const struct {
		const char *text, *segment, *says;
		double percent;
	} cases[] = {
		{boolean, NULL, "finer", 0.5},
		{boolean, NULL, "0 to 100", 101},
		{boolean, "nobody", "no rule targets the segment \"nobody\"; rules target: everybody", 100},
		{boolean, NULL, "nearest are 7 and 8", 7.5},
		{VARIANTS("on, rollout: 25", "off, rollout: 75"), NULL, "nearest are 0.2 and 0.3", 0.25},
		{FOUR("on, rollout: 10", "off, rollout: 40", "celery, rollout: 10", "old, rollout: 40"), NULL,
		 "alternate", 30},
		{FOUR("off, rollout: 40", "on, rollout: 0", "old, rollout: 60", "off, rollout: 0"), NULL,
		 "alternate", 30},
		{"flags: [{key: f, type: VARIANT_FLAG_TYPE, enabled: true, variants: []}]", NULL, "no rules",
		 30},
		{VARIANTS("on, rollout: 100", "on, rollout: 0"), NULL, "no legacy", 30},
		{VARIANTS("on, rollout: 25", "off, rollout: 75"), "beta", "no rule", 30}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(rollout_closep) struct rollout_document *d = NULL;
		struct rollout_plan plan;
		struct err e = {""};
		assert_int_equal(rollout_open("t", span_of(cases[i].text), "f", &sides, &d, &e), 0);
		assert_int_equal(rollout_set(d, cases[i].segment, cases[i].percent, &plan, &e), -EINVAL);
		if (!strstr(e.text, cases[i].says))
			fail_msg("case %zu: %s", i, e.text);
	}
}

/* What is refused when it comes to the bytes. */
static void what_cannot_be_edited_safely_is_refused(void **state)
{
	(void)state;
	static const struct {
		const char *text, *says;
	} cases[] = {{"flags:\n- {key: f, type: BOOLEAN_FLAG_TYPE, enabled: false, rollouts: [{threshold: &t "
		      "{percentage: 5, value: true}}]}\n"
		      "- {key: g, type: BOOLEAN_FLAG_TYPE, enabled: false, rollouts: [{threshold: *t}]}\n",
		      "t:2: a value that has to change is shared"},
		     {"flags:\n- {key: g, type: BOOLEAN_FLAG_TYPE, enabled: false, rollouts: &r [{threshold: "
		      "{percentage: 5, value: true}}]}\n"
		      "- {key: f, type: BOOLEAN_FLAG_TYPE, enabled: false, rollouts: *r}\n",
		      "t:3: a value that has to change is shared"},
		     {"flags:\n- {key: f, type: BOOLEAN_FLAG_TYPE, enabled: false, rollouts: [{threshold: "
		      "{percentage: &p 5, value: true}}]}\n",
		      "t:2: \"percentage\" has to change, but is not a plain value"},
		     {"p: &p 5\nflags:\n- {key: f, type: BOOLEAN_FLAG_TYPE, enabled: false, rollouts: "
		      "[{threshold: {percentage: *p, value: true}}]}\n",
		      "t:3: \"percentage\" has to change, but is not a plain value"},
		     {"flags:\n- {key: f, type: BOOLEAN_FLAG_TYPE, enabled: false, rollouts: [{threshold: "
		      "{percentage: !!int 5, value: true}}]}\n",
		      "t:2: \"percentage\" has to change, but is not a plain value"},
		     {"flags:\n- {key: f, type: BOOLEAN_FLAG_TYPE, enabled: false, rollouts: [{threshold: "
		      "{value: true}}]}\n",
		      "t:2: the flag omits \"percentage\""}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(rollout_closep) struct rollout_document *d = NULL;
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(65536);
		struct rollout_plan plan;
		struct err e = {""};
		if (rollout_open("t", span_of(cases[i].text), "f", &sides, &d, &e) != 0)
			fail_msg("case %zu: %s", i, e.text);
		assert_int_equal(rollout_set(d, NULL, 30, &plan, &e), 0);
		assert_int_equal(rollout_apply(d, &plan, &out, &e), -EINVAL);
		if (!strstr(e.text, cases[i].says))
			fail_msg("case %zu: %s", i, e.text);
	}
}

/* A byte order mark, CR LF, comments, quotes, flow and block style, an anchor that is not touched, several
 * names of one thing. */
static void everything_else_stays(void **state)
{
	(void)state;
	static const char before[] =
		"\xEF\xBB\xBF# \xC3\xBC\r\nflags:\r\n- \"key\": 'f'   # one\r\n  type: VARIANT_FLAG_TYPE\r\n"
		"  enabled: true\r\n  name: &n \"x: 25\"\r\n  description: *n\r\n  variants: [{key: on}, "
		"{key: off, attachment: {a: 25}}]\r\n"
		"  rules:\r\n  - segment:\r\n      keys: [default]\r\n    distributions: [{variant: on, "
		"rollout: +25.0}, # two\r\n"
		"      {\"variant\": off, \"rollout\": 75}]\r\n\r\n# the end";
	static const char after[] =
		"\xEF\xBB\xBF# \xC3\xBC\r\nflags:\r\n- \"key\": 'f'   # one\r\n  type: VARIANT_FLAG_TYPE\r\n"
		"  enabled: true\r\n  name: &n \"x: 25\"\r\n  description: *n\r\n  variants: [{key: on}, "
		"{key: off, attachment: {a: 25}}]\r\n"
		"  rules:\r\n  - segment:\r\n      keys: [default]\r\n    distributions: [{variant: on, "
		"rollout: 100}, # two\r\n"
		"      {\"variant\": off, \"rollout\": 0}]\r\n\r\n# the end";
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(65536);
	apply(before, 100, &out);
	assert_string_equal(out.ptr, after);
}

/* What an attachment says of a side, as a mapping, as a text, and in a snapshot. */
static void attachments_say_the_side(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"flags: [{key: f, type: VARIANT_FLAG_TYPE, enabled: true, variants: [{key: a}, {key: b, "
		"attachment: {side: legacy}}],"
		" rules: [{segment: default, distributions: [{variant: a, rollout: 10}, {variant: b, "
		"rollout: 90}]}]}]",
		"flags: [{key: f, type: VARIANT_FLAG_TYPE, enabled: true, variants: [{key: a}, {key: b, "
		"attachment: '{\"side\":\"legacy\"}'}],"
		" rules: [{segment: default, distributions: [{variant: a, rollout: 10}, {variant: b, "
		"rollout: 90}]}]}]",
		"{\"flags\": [{\"key\": \"f\", \"type\": \"VARIANT_FLAG_TYPE\", \"enabled\": true, "
		"\"rules\": [{\"segments\": [{\"key\": \"e\","
		" \"constraints\": []}], \"distributions\": [{\"variantKey\": \"a\", \"variantAttachment\": "
		"\"null\", \"rollout\": 10},"
		" {\"variantKey\": \"b\", \"variantAttachment\": \"{\\\"side\\\":\\\"legacy\\\"}\", "
		"\"rollout\": 90}]}]}]}"};
	for (size_t i = 0; i < 3; i++) {
		CLEANUP(rollout_closep) struct rollout_document *d = NULL;
		struct rollout_line line;
		struct rollout_plan plan;
		assert_int_equal(rollout_open("t", span_of(texts[i]), "f", &sides, &d, NULL), 0);
		rollout_line(d, 0, &line);
		assert_true(line.everybody);
		assert_true(line.percent > 9.99 && line.percent < 10.01);
		assert_int_equal(rollout_set(d, NULL, 20, &plan, NULL), 0);
		assert_int_equal(plan.n, 2);
		assert_string_equal(plan.changes[0].variant, "a");
	}
}

static void back_means_everybody(void **state)
{
	(void)state;
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(65536);
	struct rollout_plan plan;
	const char *text =
		"flags:\n- key: f\n  type: BOOLEAN_FLAG_TYPE\n  enabled: true\n  rollouts:\n"
		"  - segment: {key: s, value: true}\n  - threshold: {percentage: 40, value: true}\n";
	assert_int_equal(rollout_open("t", span_of(text), "f", &sides, &d, NULL), 0);
	assert_int_equal(rollout_back(d, &plan, NULL), 0);
	assert_int_equal(rollout_apply(d, &plan, &out, NULL), 0);
	assert_string_equal(
		out.ptr,
		"flags:\n- key: f\n  type: BOOLEAN_FLAG_TYPE\n  enabled: false\n  rollouts:\n"
		"  - segment: {key: s, value: false}\n  - threshold: {percentage: 0, value: true}\n");
}

/* A resource of Flipt names segments and says nothing about them: their names do not either. */
static void who_a_segment_is_comes_from_the_snapshot(void **state)
{
	(void)state;
	static const struct {
		const char *constraints;
		int everybody;
	} cases[] = {{"[]", 0},
		     {"[{type: STRING_COMPARISON_TYPE, property: p, operator: eq, value: v}]", -EINVAL}};
	static const char flag[] =
		"{key: f, type: VARIANT_FLAG_TYPE, enabled: true, variants: [{key: on}, {key: off}], rules: "
		"[{segments: [everybody], distributions: [{variant: on, rollout: 5}, {variant: off, rollout: "
		"95}]}]}";
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(rollout_closep) struct rollout_document *d = NULL;
		CLEANUP(buf_releasep) struct buf served = BUF_INIT(65536);
		struct flag_snapshot *s = NULL;
		struct rollout_plan plan;
		struct rollout_line line;
		buf_printf(&served, "{flags: [%s], segments: [{key: everybody, constraints: %s}]}", flag,
			   cases[i].constraints);
		assert_int_equal(
			flag_snapshot_parse_features("t", buf_span(&served), FLAG_RULES_V2, &s, NULL), 0);
		assert_int_equal(rollout_open("t", span_of(flag), "f", &sides, &d, NULL), 0);
		rollout_know_segments(d, s);
		flag_snapshot_unref(s);
		rollout_line(d, 0, &line);
		assert_int_equal(line.everybody, cases[i].everybody == 0);
		assert_int_equal(rollout_set(d, NULL, 7, &plan, NULL), cases[i].everybody);
		assert_int_equal(rollout_set(d, "everybody", 7, &plan, NULL), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_the_values_change),
		cmocka_unit_test(growing_and_shrinking_move_one_way),
		cmocka_unit_test(several_variants_of_a_side_keep_their_proportion),
		cmocka_unit_test(a_half_done_write_can_be_finished),
		cmocka_unit_test(what_cannot_be_edited_safely_is_refused),
		cmocka_unit_test(everything_else_stays),
		cmocka_unit_test(attachments_say_the_side),
		cmocka_unit_test(what_would_mislead_is_refused),
		cmocka_unit_test(back_means_everybody),
		cmocka_unit_test(who_a_segment_is_comes_from_the_snapshot),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
