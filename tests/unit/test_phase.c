/* phases: where a flag stands, and what is missing for its next step. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "move/phase.h"

#define SECOND_US 1000000LL

static struct rollout_step percent(double p)
{
	return (struct rollout_step){.percent = p, .differences_below = -1};
}

static struct rollout_step segment(const char *name)
{
	return (struct rollout_step){.segment = span_of(name), .percent = 100, .differences_below = -1};
}

/* 0 %, beta, 5 %, gold, 50 %, 100 % */
static struct rollout_steps usual(void)
{
	return (struct rollout_steps){.steps = {percent(0), segment("beta"), percent(5), segment("gold"),
						percent(50), percent(100)},
				      .n = 6};
}

static int stands(double everybody, double beta, double gold)
{
	struct rollout_steps s = usual();
	struct phase_state state = {.everybody = everybody, .segments = {[1] = beta, [3] = gold}};
	return phase_stands(&s, &state);
}

static void a_flag_stands_on_the_last_step_that_it_shows(void **state)
{
	(void)state;
	assert_int_equal(stands(0, 0, 0), 0);
	assert_int_equal(stands(0, 100, 0), 1);
	assert_int_equal(stands(5, 100, 0), 2);
	assert_int_equal(stands(5, 100, 100), 3);
	assert_int_equal(stands(50, 100, 100), 4);
	assert_int_equal(stands(100, 100, 100), 5);
	assert_int_equal(stands(100, 0, 0), 5); /* includes every segment */
}

static void between_its_steps_it_stands_nowhere(void **state)
{
	(void)state;
	struct rollout_steps s = usual();
	assert_int_equal(stands(5, 0, 0), PHASE_NOWHERE);
	assert_int_equal(stands(4.9, 100, 0), PHASE_NOWHERE);
	assert_int_equal(stands(0, 50, 0), PHASE_NOWHERE);
	assert_int_equal(stands(0, 100, 100), PHASE_NOWHERE);
	assert_int_equal(stands(50, 100, 0), PHASE_NOWHERE);
	struct phase_state off = {.disabled = true};
	assert_int_equal(phase_stands(&s, &off), PHASE_NOWHERE);
}

static enum phase_verdict judged(struct rollout_step step, struct phase_evidence e, const char *why)
{
	struct rollout_steps s = {.steps = {percent(0), step, percent(100)}, .n = 3};
	char said[PHASE_WHY_MAX];
	snprintf(e.why, sizeof(e.why), "as found");
	enum phase_verdict v = phase_judge(&s, 1, &e, said);
	assert_non_null(strstr(said, why));
	return v;
}

static void everything_that_is_required_must_be_there(void **state)
{
	(void)state;
	struct rollout_step step = percent(5);
	struct phase_evidence all = {.since_us = 0,
				     .now_us = 3600 * SECOND_US,
				     .safe = true,
				     .differences_known = true,
				     .differences = 0.5,
				     .person = true};
	step.hold_ms = 3600000;
	step.safe = step.manual = true;
	step.differences_below = 1;
	assert_int_equal(judged(step, all, "as found"), PHASE_GO);
	struct phase_evidence e = all;
	e.now_us--;
	assert_int_equal(judged(step, e, "5 % has held for"), PHASE_WAIT);
	e = all;
	e.now_us = -5; /* a clock that was set back */
	assert_int_equal(judged(step, e, "5 % has held for 0 seconds of 1 hour"), PHASE_WAIT);
	e = all;
	e.safe = false;
	assert_int_equal(judged(step, e, "as found"), PHASE_WAIT);
	e = all;
	e.differences = 1;
	assert_int_equal(
		judged(step, e, "up to 1 % of the answers may differ (0 of 0 did), below 1 % is required"),
		PHASE_WAIT);
	e.differences_known = false;
	assert_int_equal(judged(step, e, "nothing has been compared"), PHASE_WAIT);
	e = all;
	e.person = false;
	assert_int_equal(judged(step, e, "--yes"), PHASE_WAIT);
}

static void nothing_gets_past_a_breach(void **state)
{
	(void)state;
	struct phase_evidence e = {.now_us = 3600 * SECOND_US, .safe = true, .person = true, .breach = true};
	assert_int_equal(judged(percent(5), e, "as found"), PHASE_BREACH);
	e.breach = false;
	e.unreadable = true;
	assert_int_equal(judged(percent(5), e, "as found"), PHASE_WAIT);
	e.unreadable = false;
	assert_int_equal(judged(percent(5), e, "as found"), PHASE_GO);
}

static void nobody_is_no_evidence_to_wait_for(void **state)
{
	(void)state;
	struct rollout_steps s = {.steps = {percent(0), percent(100)}, .n = 2};
	struct phase_evidence e = {.now_us = 1};
	char why[PHASE_WHY_MAX];
	s.steps[0].safe = true;
	assert_int_equal(phase_judge(&s, 0, &e, why), PHASE_GO);
	assert_false(phase_has_task(&s, 0));
	assert_true(phase_has_task(&s, 1));
}

static void stages(void **state)
{
	(void)state;
	assert_int_equal(phase_stage(0, false, 0, false), STAGE_OFF);
	assert_int_equal(phase_stage(0, false, 10, true), STAGE_SHADOW);
	assert_int_equal(phase_stage(0, true, 10, false), STAGE_ROLLING);
	assert_int_equal(phase_stage(0.1, false, 0, true), STAGE_ROLLING);
	assert_int_equal(phase_stage(99.9, false, 0, true), STAGE_ROLLING);
	assert_int_equal(phase_stage(100, false, 0, false), STAGE_COMPLETE);
	assert_int_equal(phase_stage(100, true, 0, true), STAGE_DRAINED);
	assert_string_equal(phase_stage_text(STAGE_DRAINED), "drained");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_flag_stands_on_the_last_step_that_it_shows),
		cmocka_unit_test(between_its_steps_it_stands_nowhere),
		cmocka_unit_test(everything_that_is_required_must_be_there),
		cmocka_unit_test(nothing_gets_past_a_breach),
		cmocka_unit_test(nobody_is_no_evidence_to_wait_for),
		cmocka_unit_test(stages),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
