/* base/aging: which time age is judged by when the wall clock steps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/aging.h"

#define SECOND INT64_C(1000000)
#define DAY (86400 * SECOND)
#define NOW (INT64_C(20000) * DAY)

static void time_passes_as_the_wall_clock_says(void **state)
{
	(void)state;
	struct aging a;
	aging_begin_at(&a, "test", NOW - SECOND, NOW, 5 * SECOND);
	assert_int_equal(aging_now_at(&a, NOW + SECOND, 6 * SECOND), NOW + SECOND);
	assert_int_equal(aging_now_at(&a, NOW + 3 * DAY + SECOND, 3 * DAY + 6 * SECOND),
			 NOW + 3 * DAY + SECOND);
	assert_true(aging_settled(&a));
}

static void a_step_forward_counts_once_it_has_stood_for_a_day(void **state)
{
	(void)state;
	struct aging a;
	aging_begin_at(&a, "test", 0, NOW, 0);
	assert_int_equal(aging_now_at(&a, NOW + 60 * DAY, SECOND), NOW + SECOND);
	assert_int_equal(aging_now_at(&a, NOW + 4 * SECOND, 4 * SECOND), NOW + 4 * SECOND);
	/* Again; the time before does not count. */
	assert_int_equal(aging_now_at(&a, NOW + 60 * DAY, DAY), NOW + DAY);
	assert_int_equal(aging_now_at(&a, NOW + 61 * DAY - SECOND, 2 * DAY - SECOND), NOW + 2 * DAY - SECOND);
	/* A second step during the first. */
	assert_int_equal(aging_now_at(&a, NOW + 99 * DAY, 2 * DAY), NOW + 2 * DAY);
	assert_int_equal(aging_now_at(&a, NOW + 100 * DAY, 3 * DAY), NOW + 100 * DAY);
}

static void a_step_back_is_followed_and_coming_back_from_it_is_a_step_forward(void **state)
{
	(void)state;
	struct aging a;
	aging_begin_at(&a, "test", 0, NOW, 0);
	assert_int_equal(aging_now_at(&a, 0, SECOND), 0);
	assert_int_equal(aging_now_at(&a, NOW + 2 * SECOND, 2 * SECOND), SECOND);
	assert_false(aging_settled(&a));
	assert_int_equal(aging_now_at(&a, NOW + DAY + 2 * SECOND, DAY + 2 * SECOND), NOW + DAY + 2 * SECOND);
}

static void a_start_under_a_wrong_clock_goes_by_the_newest_data(void **state)
{
	(void)state;
	struct aging a;
	aging_begin_at(&a, "test", NOW, NOW + 60 * DAY, 0);
	assert_int_equal(aging_now_at(&a, NOW + 60 * DAY, SECOND), NOW + SECOND);
	assert_int_equal(aging_now_at(&a, NOW + 5 * SECOND, 5 * SECOND), NOW + 5 * SECOND);
	/* Data from a time to come says nothing. */
	aging_begin_at(&a, "test", NOW + 60 * DAY, NOW, 0);
	assert_int_equal(aging_now_at(&a, NOW + SECOND, SECOND), NOW + SECOND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(time_passes_as_the_wall_clock_says),
		cmocka_unit_test(a_step_forward_counts_once_it_has_stood_for_a_day),
		cmocka_unit_test(a_step_back_is_followed_and_coming_back_from_it_is_a_step_forward),
		cmocka_unit_test(a_start_under_a_wrong_clock_goes_by_the_newest_data),
	};
	return cmocka_run_group_tests_name("aging", tests, NULL, NULL);
}
