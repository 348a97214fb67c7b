/* rollout: which bytes change, what is refused, and that growing and shrinking move people one way only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>

#include "flags/flags.h"
#include "flags/rollout.h"

#define IDENTITIES 100000

#define VARIANTS(first, second) \
	"flags:\n- key: f # the flag\n  type: VARIANT_FLAG_TYPE\n  enabled: true\n  variants: [{key: on}, {key: off}]\n" \
	"  rules:\n  - segment: everybody\n    distributions:\n    - {variant: " first "}\n    - {variant: " second "}\n" \
	"segments: [{key: everybody, match_type: ALL_MATCH_TYPE}]\n"

static const char boolean[] = "flags:\n- key: f\n  type: BOOLEAN_FLAG_TYPE\n  enabled: false\n  rollouts:\n"
			      "  - threshold: {percentage: 0, value: true} # of everybody\n";

static void apply(const char *text, double percent, struct buf *out)
{
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	struct rollout_plan plan;
	struct err e = {""};
	if (rollout_open("t", span_of(text), "f", &d, &e) != 0 || rollout_set(d, NULL, percent, &plan, &e) != 0 ||
	    rollout_apply(d, &plan, out, &e) != 0)
		fail_msg("%s", e.text);
}

static void only_the_values_change(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(65536);
	apply(VARIANTS("on, rollout: 25", "off, rollout:  75.0"), 30.5, &out);
	assert_string_equal(out.ptr, VARIANTS("on, rollout: 30.5", "off, rollout:  69.5"));
}

static void everybody_moves_one_way(const char *start, enum flag_rules rules)
{
	static const double steps[] = {0, 1, 5, 25, 50, 100, 50, 0};
	static bool task[IDENTITIES];
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(65536);
	buf_puts(&text, start);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		CLEANUP(buf_releasep) struct buf next = BUF_INIT(65536);
		struct flag_snapshot *s = NULL;
		struct err e = {""};
		size_t on = 0;
		apply(text.ptr, steps[i], &next);
		if (flag_snapshot_parse_features("t", buf_span(&next), rules, &s, &e) != 0)
			fail_msg("%s", e.text);
		const struct flag *f = flag_find(s, SPAN_LIT("f"));
		for (size_t n = 0; n < IDENTITIES; n++) {
			char id[32];
			struct flag_result r;
			snprintf(id, sizeof(id), "user-%zu", n);
			flag_evaluate(s, f, span_of(id), NULL, 0, &r, NULL);
			bool is = r.type == FLAG_BOOLEAN ? r.enabled : r.match && span_is(r.variant, "on");
			if (i > 0 && steps[i] > steps[i - 1])
				assert_false(task[n] && !is);
			else if (i > 0)
				assert_false(!task[n] && is);
			task[n] = is;
			on += is;
		}
		assert_in_range(on, (size_t)(steps[i] * 1000 * 0.9), (size_t)(steps[i] * 1000 * 1.1) + 1);
		flag_snapshot_unref(s);
		buf_clear(&text);
		buf_append_span(&text, buf_span(&next));
	}
}

static void growing_and_shrinking_move_one_way(void **state)
{
	(void)state;
	for (int v1 = 0; v1 < 2; v1++) {
		everybody_moves_one_way(VARIANTS("on, rollout: 0", "off, rollout: 100"), v1 ? FLAG_RULES_V1 : FLAG_RULES_V2);
		everybody_moves_one_way(VARIANTS("off, rollout: 100", "on, rollout: 0"), v1 ? FLAG_RULES_V1 : FLAG_RULES_V2);
		everybody_moves_one_way(boolean, v1 ? FLAG_RULES_V1 : FLAG_RULES_V2);
	}
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
		{boolean, "nobody", "no rollout", 100},
		{VARIANTS("on, rollout: 25", "off, rollout: 75"), NULL, "finer", 0.25},
		{VARIANTS("on, rollout: 25", "off, rollout: 70"), NULL, "not 100", 30},
		{VARIANTS("on, rollout: 25", "other, rollout: 75"), NULL, "several task", 30},
		{VARIANTS("on, rollout: 100", "on, rollout: 0"), NULL, "no legacy", 30},
		{VARIANTS("on, rollout: 25", "off, rollout: 75"), "beta", "no rule", 30},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(rollout_closep) struct rollout_document *d = NULL;
		struct rollout_plan plan;
		struct err e = {""};
		assert_int_equal(rollout_open("t", span_of(cases[i].text), "f", &d, &e), 0);
		assert_int_equal(rollout_set(d, cases[i].segment, cases[i].percent, &plan, &e), -EINVAL);
		if (!strstr(e.text, cases[i].says))
			fail_msg("case %zu: %s", i, e.text);
	}
}

static void back_means_everybody(void **state)
{
	(void)state;
	CLEANUP(rollout_closep) struct rollout_document *d = NULL;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(65536);
	struct rollout_plan plan;
	const char *text = "flags:\n- key: f\n  type: BOOLEAN_FLAG_TYPE\n  enabled: true\n  rollouts:\n"
			   "  - segment: {key: s, value: true}\n  - threshold: {percentage: 40, value: true}\n";
	assert_int_equal(rollout_open("t", span_of(text), "f", &d, NULL), 0);
	assert_int_equal(rollout_back(d, &plan, NULL), 0);
	assert_int_equal(rollout_apply(d, &plan, &out, NULL), 0);
	assert_string_equal(out.ptr, "flags:\n- key: f\n  type: BOOLEAN_FLAG_TYPE\n  enabled: false\n  rollouts:\n"
				     "  - segment: {key: s, value: false}\n  - threshold: {percentage: 0, value: true}\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_the_values_change),
		cmocka_unit_test(growing_and_shrinking_move_one_way),
		cmocka_unit_test(what_would_mislead_is_refused),
		cmocka_unit_test(back_means_everybody),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
