/* The guard's statistic: every promise of it is computed exactly, by going through all that can happen. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "guard/guard_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct guard_question breach = {1.1, GUARD_ABOVE, GUARD_PRIOR_HARM};
static const struct guard_question safe = {2, GUARD_BELOW, GUARD_PRIOR_HARM};
static const struct guard_question more = {1.05, GUARD_ABOVE, GUARD_PRIOR_SHARE};
static const struct guard_question fewer = {1 / 1.05, GUARD_BELOW, GUARD_PRIOR_SHARE};

#define ALPHA 0.01

static void assert_close(double a, double b, double within)
{
	if (!(fabs(a - b) <= within))
		fail_msg("%.17g is not %.17g", a, b);
}

/* The mean of the evidence over all 2^n ways of n entities, each with a share of its own. */
static double mean_evidence(const struct guard_question *q, double odds, const double *shares, unsigned n)
{
	double mean = 0;
	for (unsigned way = 0; way < 1u << n; way++) {
		struct guard_test t = {{0}};
		double probability = 1;
		for (unsigned i = 0; i < n; i++) {
			bool task = way >> i & 1;
			double p = guard_test_share(odds, shares[i]);
			probability *= task ? p : 1 - p;
			assert_true(guard_test_add(&t, q, task, shares[i]));
		}
		mean += probability * exp(guard_test_evidence(&t, q));
	}
	return mean;
}

static void evidence_is_one_on_average_at_the_bound_while_the_share_changes(void **state)
{
	(void)state;
	static const double shares[] = {0.05, 0.05, 0.1, 0.25, 0.001, 0.5, 0.5, 0.75, 0.99, 0.3, 0.02, 0.6};
	const struct guard_question *all[] = {&breach, &safe, &more, &fewer};
	for (unsigned i = 0; i < 4; i++)
		for (unsigned n = 1; n <= 12; n += 11)
			assert_close(mean_evidence(all[i], all[i]->bound, shares, n), 1, 1e-11);
}

static void evidence_shrinks_on_average_within_the_bound(void **state)
{
	(void)state;
	static const double shares[] = {0.05, 0.1, 0.25, 0.5, 0.5, 0.75, 0.3, 0.02, 0.6, 0.4};
	double last = 1;
	static const double better[] = {1.05, 1, 0.8, 0.3};
	for (unsigned i = 0; i < 4; i++) {
		double mean = mean_evidence(&breach, better[i], shares, 10);
		assert_true(mean < last);
		last = mean;
	}
	static const double worse[] = {2.2, 3, 10};
	last = 1;
	for (unsigned i = 0; i < 3; i++) {
		double mean = mean_evidence(&safe, worse[i], shares, 10);
		assert_true(mean < last);
		last = mean;
	}
}

/* With one share, all that counts of n entities is how many were on the task side: the probability that the
 * evidence has ever reached 1/alpha, by going through all (n, k). `ret_median`: by when half have; 0: not. */
static double ever_reached(const struct guard_question *q, double odds, double share, double alpha,
			   unsigned entities, unsigned *ret_median)
{
	struct guard_test task = {{0}}, legacy = {{0}};
	guard_test_add(&task, q, true, share);
	guard_test_add(&legacy, q, false, share);
	double p = guard_test_share(odds, share), reached = 0;
	double *now = calloc(entities + 2, sizeof(*now));
	assert_non_null(now);
	now[0] = 1;
	*ret_median = 0;
	for (unsigned n = 1; n <= entities; n++) {
		for (unsigned k = n; k > 0; k--)
			now[k] = now[k] * (1 - p) + now[k - 1] * p;
		now[0] *= 1 - p;
		for (unsigned k = 0; k <= n; k++) {
			struct guard_test t;
			if (now[k] < 1e-13)
				continue;
			for (unsigned i = 0; i < GUARD_TEST_POINTS; i++)
				t.log_evidence[i] =
					k * task.log_evidence[i] + (n - k) * legacy.log_evidence[i];
			if (guard_test_evidence(&t, q) < -log(alpha))
				continue;
			reached += now[k];
			now[k] = 0;
		}
		if (!*ret_median && reached >= 0.5)
			*ret_median = n;
	}
	free(now);
	return reached;
}

static void looked_at_after_each_entity_it_is_wrong_as_rarely_as_alpha_says(void **state)
{
	(void)state;
	unsigned ignored;
	static const double shares[] = {0.01, 0.05, 0.25, 0.5, 0.9};
	for (unsigned i = 0; i < 5; i++) {
		double at_bound = ever_reached(&breach, breach.bound, shares[i], ALPHA, 600, &ignored);
		double equal = ever_reached(&breach, 1, shares[i], ALPHA, 600, &ignored);
		assert_true(at_bound <= ALPHA && at_bound > ALPHA / 10); /* a test that cannot cry is none */
		assert_true(equal < at_bound);
		assert_true(ever_reached(&safe, safe.bound, shares[i], ALPHA, 600, &ignored) <= ALPHA);
		double wrong = ever_reached(&more, 1, shares[i], ALPHA / 2, 600, &ignored) +
			       ever_reached(&fewer, 1, shares[i], ALPHA / 2, 600, &ignored);
		assert_true(wrong <= ALPHA);
	}
}

/* The oracle knows the odds: Wald's test of w against the bound. */
static unsigned oracle_median(double odds, double share)
{
	double p = guard_test_share(odds, share), q = guard_test_share(breach.bound, share), reached = 0;
	enum { ENTITIES = 1200 };
	static double now[ENTITIES + 2];
	memset(now, 0, sizeof(now));
	now[0] = 1;
	for (unsigned n = 1; n <= ENTITIES; n++) {
		for (unsigned k = n; k > 0; k--)
			now[k] = now[k] * (1 - p) + now[k - 1] * p;
		now[0] *= 1 - p;
		for (unsigned k = 0; k <= n; k++)
			if (k * log(p / q) + (n - k) * log((1 - p) / (1 - q)) >= -log(ALPHA)) {
				reached += now[k];
				now[k] = 0;
			}
		if (reached >= 0.5)
			return n;
	}
	return 0;
}

static void a_breach_takes_at_most_1_6_times_the_entities_of_the_oracle(void **state)
{
	(void)state;
	static const double odds[] = {2, 5, 10, 100}, shares[] = {0.05, 0.25, 0.5};
	for (unsigned i = 0; i < 4; i++)
		for (unsigned j = 0; j < 3; j++) {
			unsigned median, oracle = oracle_median(odds[i], shares[j]);
			ever_reached(&breach, odds[i], shares[j], 0.8 * ALPHA, 900, &median);
			assert_true(median > 0 && oracle > 0);
			if ((double)median > 1.6 * oracle)
				fail_msg("odds %g, share %g: %u entities, the oracle %u", odds[i], shares[j],
					 median, oracle);
		}
}

static void known_values(void **state)
{
	(void)state;
	struct guard_test t = {{0}};
	assert_close(guard_test_evidence(&t, &breach), 0, 1e-12);
	assert_close(guard_test_share(1, 0.05), 0.05, 1e-15);
	assert_close(guard_test_share(2, 0.5), 2.0 / 3, 1e-15);
	assert_close(guard_test_share(100, 0.01), 1 / 1.99, 1e-15);
	/* One entity on the task side: each point is p(w)/p(w0); the last is w = 1.1 e^6.9 at a share of a
	 * half. */
	static const struct guard_question q = {1, GUARD_ABOVE, GUARD_PRIOR_HARM};
	assert_true(guard_test_add(&t, &q, true, 0.5));
	double w = exp(6.9);
	assert_close(t.log_evidence[GUARD_TEST_POINTS - 1], log(w / (w + 1) / 0.5), 1e-12);
	assert_true(guard_test_add(&t, &q, false, 0.5));
	assert_close(t.log_evidence[GUARD_TEST_POINTS - 1], log(w / (w + 1) / (w + 1) / 0.25), 1e-12);
}

static void what_no_percentage_decided_says_nothing(void **state)
{
	(void)state;
	struct guard_test t = {{0}}, fresh = {{0}};
	static const double none[] = {0, 1, -0.1, 1.1, NAN, INFINITY};
	for (unsigned i = 0; i < 6; i++)
		assert_false(guard_test_add(&t, &breach, true, none[i]));
	assert_memory_equal(&t, &fresh, sizeof(t));
}

static void a_million_entities_are_finite(void **state)
{
	(void)state;
	struct guard_test t = {{0}};
	for (unsigned i = 0; i < 1000000; i++)
		guard_test_add(&t, &breach, true, 0.001);
	double sure = guard_test_evidence(&t, &breach);
	assert_true(isfinite(sure) && sure > 1e6);
	memset(&t, 0, sizeof(t));
	for (unsigned i = 0; i < 1000000; i++)
		guard_test_add(&t, &breach, false, 0.999);
	assert_true(isfinite(guard_test_evidence(&t, &breach)) && guard_test_evidence(&t, &breach) < -1e4);
}

static void growth_tells_how_many_are_missing(void **state)
{
	(void)state;
	assert_true(guard_test_growth(&safe, 1, 0.25) > 0);
	assert_true(guard_test_growth(&safe, 2.5, 0.25) <= 0);
	assert_true(guard_test_growth(&safe, 1, 0.25) > guard_test_growth(&safe, 1, 0.05));
	/* At the right point it is the divergence of the two: share a half, odds 1 against 2. */
	assert_close(guard_test_growth(&safe, 1, 0.5),
		     0.5 * log(0.5 / (2.0 / 3)) + 0.5 * log(0.5 / (1.0 / 3)), 0.002);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_values),
		cmocka_unit_test(what_no_percentage_decided_says_nothing),
		cmocka_unit_test(a_million_entities_are_finite),
		cmocka_unit_test(growth_tells_how_many_are_missing),
		cmocka_unit_test(evidence_is_one_on_average_at_the_bound_while_the_share_changes),
		cmocka_unit_test(evidence_shrinks_on_average_within_the_bound),
		cmocka_unit_test(looked_at_after_each_entity_it_is_wrong_as_rarely_as_alpha_says),
		cmocka_unit_test(a_breach_takes_at_most_1_6_times_the_entities_of_the_oracle),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
