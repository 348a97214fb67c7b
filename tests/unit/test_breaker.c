/* breaker: the states of a backend's circuit breaker, with the time given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "router/breaker.h"
#include "router/request/hold.h"

#define MS INT64_C(1000)
#define T0 (INT64_C(1000000) * MS)

static const struct breaker_config usual = {
	.failures = 3, .silence_ms = 500, .open_for_ms = 5000, .probes = 2};

static struct breaker *b;
static int64_t now;

static int setup(void **state)
{
	(void)state;
	now = T0;
	assert_int_equal(breaker_new(SPAN_LIT("celery"), &b), 0);
	breaker_configure(b, &usual, now);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	b = breaker_free(b);
	return 0;
}

static struct breaker_status status_now(void)
{
	struct breaker_status s;
	breaker_status(b, now, &s);
	return s;
}

static struct breaker_pass submit(void)
{
	struct breaker_pass p;
	assert_int_equal(breaker_begin(b, now, &p), BREAKER_GO);
	return p;
}

static enum breaker_word word(void)
{
	struct breaker_pass p;
	return breaker_begin(b, now, &p);
}

static void end(struct breaker_pass *p, enum breaker_end how)
{
	breaker_end(b, p, how, now, "no reply");
}

static void submit_and(enum breaker_end how)
{
	struct breaker_pass p = submit();
	end(&p, how);
}

/* What is held asks all the time; the last word that it got. */
static enum breaker_word held_for(int64_t ms)
{
	enum breaker_word last = word();
	for (int64_t end_us = now + ms * MS; now < end_us && last == BREAKER_HOLD; last = word())
		now += BREAKER_ASK_MS * MS;
	return last;
}

static void open_by_failures(void)
{
	for (unsigned i = 0; i < usual.failures; i++)
		submit_and(BREAKER_FAILED);
	assert_int_equal(status_now().state, BREAKER_OPEN);
}

static void test_consecutive_failures_open_it(void **state)
{
	(void)state;
	submit_and(BREAKER_FAILED);
	submit_and(BREAKER_FAILED);
	submit_and(BREAKER_ACCEPTED); /* not one after the other */
	submit_and(BREAKER_FAILED);
	submit_and(BREAKER_FAILED);
	assert_int_equal(status_now().state, BREAKER_CLOSED);
	assert_false(breaker_is_shut(b, now));
	submit_and(BREAKER_FAILED);
	struct breaker_status s = status_now();
	assert_int_equal(s.state, BREAKER_OPEN);
	assert_string_equal(s.why, "3 consecutive submissions failed, the last: no reply");
	assert_true(breaker_is_shut(b, now));
	assert_int_equal(word(), BREAKER_NO);
	assert_int_equal(status_now().turned_away, 1);
}

static void test_what_says_nothing_of_the_backend_is_not_counted(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++)
		submit_and(BREAKER_UNJUDGED);
	assert_int_equal(status_now().state, BREAKER_CLOSED);
	submit_and(BREAKER_FAILED);
	submit_and(BREAKER_FAILED);
	submit_and(BREAKER_UNJUDGED); /* nor does it excuse */
	submit_and(BREAKER_FAILED);
	assert_int_equal(status_now().state, BREAKER_OPEN);
}

static void test_after_a_while_probes_go_a_few_at_a_time(void **state)
{
	(void)state;
	open_by_failures();
	now += 4999 * MS;
	assert_int_equal(word(), BREAKER_NO);
	now += MS;
	assert_false(breaker_is_shut(b, now));
	assert_int_equal(status_now().state, BREAKER_HALF_OPEN);
	struct breaker_pass first = submit(), second = submit();
	assert_true(status_now().probing);
	assert_true(breaker_is_shut(b, now));
	assert_int_equal(word(), BREAKER_NO);
	end(&first, BREAKER_ACCEPTED);
	assert_int_equal(status_now().state, BREAKER_HALF_OPEN);
	end(&second, BREAKER_ACCEPTED);
	struct breaker_status s = status_now();
	assert_int_equal(s.state, BREAKER_CLOSED);
	assert_string_equal(s.why, "");
	assert_int_equal(s.transitions[BREAKER_OPEN], 1);
	assert_int_equal(s.transitions[BREAKER_HALF_OPEN], 1);
	assert_int_equal(s.transitions[BREAKER_CLOSED], 1);
}

static void test_a_probe_that_fails_opens_it_again(void **state)
{
	(void)state;
	open_by_failures();
	now += 5000 * MS;
	struct breaker_pass first = submit(), second = submit();
	end(&first, BREAKER_ACCEPTED);
	end(&second, BREAKER_FAILED);
	assert_int_equal(status_now().state, BREAKER_OPEN);
	assert_string_equal(status_now().why, "1 probe failed, the last: no reply");
	now += 4999 * MS;
	assert_int_equal(word(), BREAKER_NO);
	now += MS;
	submit_and(BREAKER_ACCEPTED);
}

static void test_a_probe_that_was_never_sent_gives_its_place_back(void **state)
{
	(void)state;
	open_by_failures();
	now += 5000 * MS;
	for (int i = 0; i < 10; i++)
		submit_and(BREAKER_UNJUDGED);
	submit_and(BREAKER_ACCEPTED);
	submit_and(BREAKER_ACCEPTED);
	assert_int_equal(status_now().state, BREAKER_CLOSED);
}

/* The promise: a frozen backend costs no more than `failures` callers their time. */
static void test_without_an_answer_no_more_than_failures_begin(void **state)
{
	(void)state;
	struct breaker_pass waiting[3];
	for (int i = 0; i < 3; i++)
		waiting[i] = submit();
	assert_int_equal(held_for(470), BREAKER_HOLD);
	assert_int_equal(status_now().state, BREAKER_CLOSED);
	assert_int_equal(held_for(30), BREAKER_NO);
	assert_non_null(strstr(status_now().why, "3 submissions have had no answer for 4"));
	now += 60000 * MS; /* those three are its probes: no others go */
	assert_int_equal(word(), BREAKER_NO);
	assert_true(breaker_is_shut(b, now));
	end(&waiting[0], BREAKER_FAILED);
	end(&waiting[1], BREAKER_UNJUDGED);
	assert_int_equal(word(), BREAKER_NO);
	end(&waiting[2], BREAKER_FAILED);
	now += 4999 * MS;
	assert_int_equal(word(), BREAKER_NO);
	now += MS;
	submit_and(BREAKER_ACCEPTED);
}

static void submit_taking(int64_t ms)
{
	struct breaker_pass p = submit();
	now += ms * MS;
	end(&p, BREAKER_ACCEPTED);
	now += 10 * MS; /* nothing is fresh any more */
}

/* One that answers within a millisecond is not waited for like one that takes a while. */
static void test_silence_is_measured_by_its_slowest_answers(void **state)
{
	(void)state;
	static const struct {
		int64_t took_ms, patience_ms;
	} table[] = {{1, 500}, {200, 800}, {400, 1600}, {10000, 3000}};
	struct breaker_config patient = usual;
	patient.silence_ms = 3000;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct breaker_pass waiting[3];
		teardown(NULL);
		setup(NULL);
		breaker_configure(b, &patient, now);
		submit_taking(table[i].took_ms);
		submit_taking(1);
		for (int k = 0; k < 3; k++)
			waiting[k] = submit();
		assert_int_equal(held_for(table[i].patience_ms - 30), BREAKER_HOLD);
		assert_int_equal(held_for(30), BREAKER_NO);
		end(&waiting[0], BREAKER_ACCEPTED);
	}
	for (int i = 0; i < 3; i++) { /* what was slow is forgotten */
		now += 60000 * MS;
		submit_taking(1);
	}
	for (int k = 0; k < 3; k++)
		submit();
	assert_int_equal(held_for(470), BREAKER_HOLD);
	assert_int_equal(held_for(30), BREAKER_NO);
}

/* A process that stood still has answers waiting in its sockets. */
static void test_who_stood_still_has_seen_no_silence(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++)
		submit();
	assert_int_equal(word(), BREAKER_HOLD);
	now += 5000 * MS;
	assert_int_equal(word(), BREAKER_HOLD);
	now += 5000 * MS;
	assert_int_equal(word(), BREAKER_HOLD);
	assert_int_equal(held_for(500), BREAKER_NO);
}

static void test_failures_and_those_that_wait_count_together(void **state)
{
	(void)state;
	submit_and(BREAKER_FAILED);
	submit_and(BREAKER_FAILED);
	struct breaker_pass last = submit();
	assert_int_equal(word(), BREAKER_HOLD);
	end(&last, BREAKER_ACCEPTED);
	assert_int_equal(word(), BREAKER_GO);
}

static void test_an_answer_lets_those_go_that_were_held(void **state)
{
	(void)state;
	struct breaker_pass waiting[3];
	for (int i = 0; i < 3; i++)
		waiting[i] = submit();
	assert_int_equal(word(), BREAKER_HOLD);
	now += 4 * MS;
	end(&waiting[1], BREAKER_ACCEPTED);
	for (int i = 0; i < 100; i++) /* those who come together are not counted one by one */
		submit();
	now += 4 * MS;
	assert_int_equal(status_now().unanswered, 0);
	for (int i = 0; i < 3; i++)
		waiting[i] = submit();
	assert_int_equal(word(), BREAKER_HOLD);
}

static void test_a_silent_backend_that_answers_is_closed_at_once(void **state)
{
	(void)state;
	struct breaker_pass waiting[3];
	for (int i = 0; i < 3; i++)
		waiting[i] = submit();
	assert_int_equal(held_for(500), BREAKER_NO);
	end(&waiting[0], BREAKER_ACCEPTED);
	assert_int_equal(status_now().state, BREAKER_CLOSED);
	end(&waiting[1], BREAKER_FAILED); /* of before */
	assert_int_equal(status_now().failed, 0);
	submit_and(BREAKER_ACCEPTED);
}

static void test_tasks_that_nobody_ends_open_it_and_only_a_result_closes_it(void **state)
{
	(void)state;
	struct breaker_pass p;
	for (int i = 0; i < 3; i++) {
		p = submit();
		end(&p, BREAKER_ACCEPTED);
		assert_true(p.live);
		end(&p, BREAKER_NO_RESULT);
	}
	assert_int_equal(status_now().state, BREAKER_OPEN);
	now += 5000 * MS;
	struct breaker_pass first = submit(), second = submit();
	end(&first, BREAKER_ACCEPTED);
	end(&second, BREAKER_ACCEPTED);
	assert_int_equal(status_now().state, BREAKER_HALF_OPEN);
	assert_int_equal(word(), BREAKER_NO); /* both are still under way */
	end(&first, BREAKER_RESULT);
	end(&second, BREAKER_RESULT);
	assert_int_equal(status_now().state, BREAKER_CLOSED);
}

static void test_one_result_between_says_that_tasks_are_run(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++) {
		struct breaker_pass slow = submit(), other = submit();
		end(&slow, BREAKER_ACCEPTED);
		end(&other, BREAKER_ACCEPTED);
		end(&slow, BREAKER_NO_RESULT);
		end(&other, BREAKER_RESULT);
	}
	assert_int_equal(status_now().state, BREAKER_CLOSED);
}

/* One slow operation does not take the backend from the others, however many requests it has. */
static void test_a_slow_operation_beside_others_is_not_counted(void **state)
{
	(void)state;
	struct breaker_pass slow[50];
	for (int i = 0; i < 50; i++) {
		slow[i] = submit();
		end(&slow[i], BREAKER_ACCEPTED);
	}
	now += 10000 * MS;
	struct breaker_pass other = submit();
	end(&other, BREAKER_ACCEPTED);
	end(&other, BREAKER_RESULT);
	now += 10000 * MS;
	for (int i = 0; i < 50; i++)
		end(&slow[i], BREAKER_NO_RESULT);
	assert_int_equal(status_now().state, BREAKER_CLOSED);
	for (int i = 0; i < 3; i++) {
		slow[i] = submit();
		end(&slow[i], BREAKER_ACCEPTED);
	}
	now += 10000 * MS;
	for (int i = 0; i < 3; i++)
		end(&slow[i], BREAKER_NO_RESULT);
	assert_int_equal(status_now().state, BREAKER_OPEN);
}

static void test_a_caller_that_leaves_is_not_counted(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++) {
		struct breaker_pass p = submit();
		end(&p, BREAKER_ACCEPTED);
		end(&p, BREAKER_UNJUDGED);
	}
	assert_int_equal(status_now().state, BREAKER_CLOSED);
	assert_int_equal(status_now().without_result, 0);
}

static void test_an_unawaited_task_ends_with_its_acceptance(void **state)
{
	(void)state;
	struct breaker_pass p = submit();
	p.unawaited = true;
	end(&p, BREAKER_ACCEPTED);
	assert_false(p.live);
	end(&p, BREAKER_NO_RESULT);
	assert_int_equal(status_now().without_result, 0);
}

static void test_what_is_known_opens_it_at_once_and_for_as_long(void **state)
{
	(void)state;
	breaker_know(b, "no worker is there", now);
	breaker_know(b, "no worker is there", now);
	struct breaker_status s = status_now();
	assert_int_equal(s.state, BREAKER_OPEN);
	assert_int_equal(s.transitions[BREAKER_OPEN], 1);
	now += 3600000 * MS;
	assert_int_equal(word(), BREAKER_NO);
	struct breaker_pass pinned;
	breaker_begin_unasked(b, now, &pinned);
	end(&pinned, BREAKER_ACCEPTED); /* a queue takes it, nobody runs it */
	assert_int_equal(word(), BREAKER_NO);
	breaker_know(b, NULL, now);
	assert_int_equal(status_now().state, BREAKER_HALF_OPEN);
	submit_and(BREAKER_ACCEPTED);
	submit_and(BREAKER_ACCEPTED);
	assert_int_equal(status_now().state, BREAKER_CLOSED);
	breaker_know(b, NULL, now);
	assert_int_equal(status_now().state, BREAKER_CLOSED);
}

static void test_pins_do_not_ask_and_are_heard(void **state)
{
	(void)state;
	struct breaker_pass pinned;
	open_by_failures();
	breaker_begin_unasked(b, now, &pinned);
	end(&pinned, BREAKER_ACCEPTED);
	assert_int_equal(status_now().state, BREAKER_HALF_OPEN); /* before its time: it was seen to answer */
	submit_and(BREAKER_ACCEPTED);
}

static void test_shadows_take_nobodys_place(void **state)
{
	(void)state;
	struct breaker_pass shadows[20];
	for (int i = 0; i < 20; i++)
		assert_int_equal(breaker_begin_shadow(b, now, &shadows[i]), BREAKER_GO);
	submit_and(BREAKER_UNJUDGED);
	for (int i = 0; i < 3; i++)
		end(&shadows[i], BREAKER_FAILED);
	assert_int_equal(status_now().state, BREAKER_OPEN);
	assert_int_equal(breaker_begin_shadow(b, now, &shadows[0]), BREAKER_NO);
	now += 5000 * MS;
	for (int i = 0; i < 2; i++)
		assert_int_equal(breaker_begin_shadow(b, now, &shadows[i]), BREAKER_GO);
	assert_int_equal(breaker_begin_shadow(b, now, &shadows[2]), BREAKER_NO);
	end(&shadows[0], BREAKER_ACCEPTED);
	end(&shadows[1], BREAKER_ACCEPTED);
	assert_int_equal(status_now().state, BREAKER_CLOSED);
}

static void test_off_is_off(void **state)
{
	(void)state;
	struct breaker_config off = usual;
	off.off = true;
	open_by_failures();
	breaker_configure(b, &off, now);
	assert_int_equal(status_now().state, BREAKER_CLOSED);
	breaker_know(b, "gone", now);
	for (int i = 0; i < 20; i++)
		submit_and(BREAKER_FAILED);
	assert_int_equal(status_now().state, BREAKER_CLOSED);
	assert_true(status_now().off);
}

static void test_a_reload_shortens_what_is_left(void **state)
{
	(void)state;
	struct breaker_config sooner = usual;
	sooner.open_for_ms = 100;
	open_by_failures();
	breaker_configure(b, &sooner, now);
	now += 100 * MS;
	submit_and(BREAKER_ACCEPTED);
}

static void test_the_view_has_what_is_shut(void **state)
{
	(void)state;
	struct breaker_view view = {.n = 0};
	breaker_look(b, now, &view);
	assert_false(breaker_view_has(&view, SPAN_LIT("celery")));
	assert_false(breaker_view_has(NULL, SPAN_LIT("celery")));
	open_by_failures();
	breaker_look(b, now, &view);
	assert_true(breaker_view_has(&view, SPAN_LIT("celery")));
	assert_false(breaker_view_has(&view, SPAN_LIT("hatchet")));
}

/* --- places in flight, of a backend -------------------------------------------------------------------- */

static void test_a_backend_has_no_more_in_flight_than_it_may(void **state)
{
	(void)state;
	struct plane_backend backend = {.name = SPAN_LIT("celery")};
	for (int i = 0; i < 100; i++) /* without a limit */
		assert_true(hold_take_place(&backend, i % 2));
	atomic_store(&backend.in_flight, 0);
	atomic_store(&backend.max_in_flight, 4);
	assert_true(hold_take_place(&backend, true) && hold_take_place(&backend, true));
	assert_false(hold_take_place(&backend, true)); /* half is for those that somebody waits for */
	assert_true(hold_take_place(&backend, false) && hold_take_place(&backend, false));
	assert_false(hold_take_place(&backend, false));
	assert_int_equal(atomic_load(&backend.full), 2);
	hold_give_place(&backend);
	assert_false(hold_take_place(&backend, true));
	assert_true(hold_take_place(&backend, false));
	assert_int_equal(atomic_load(&backend.in_flight), 4);
}

/* --- threads -------------------------------------------------------------------------------------------- */

static void *hammer(void *arg)
{
	unsigned *most = arg;
	for (int i = 0; i < 20000; i++) {
		struct breaker_pass p;
		if (breaker_begin(b, T0, &p) != BREAKER_GO)
			continue;
		struct breaker_status s;
		breaker_status(b, T0, &s);
		*most = s.unanswered > *most ? s.unanswered : *most;
		breaker_end(b, &p, i % 7 ? BREAKER_ACCEPTED : BREAKER_UNJUDGED, T0, NULL);
		breaker_end(b, &p, BREAKER_RESULT, T0, NULL);
		breaker_is_shut(b, T0);
	}
	return NULL;
}

static void test_planes_share_it(void **state)
{
	(void)state;
	enum { N = 4 };
	pthread_t threads[N];
	unsigned most[N] = {0};
	for (int i = 0; i < N; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, hammer, &most[i]), 0);
	for (int i = 0; i < N; i++) {
		pthread_join(threads[i], NULL);
		assert_true(most[i] <= usual.failures);
	}
	assert_int_equal(status_now().state, BREAKER_CLOSED);
	assert_int_equal(status_now().unanswered, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_consecutive_failures_open_it),
		TEST(test_what_says_nothing_of_the_backend_is_not_counted),
		TEST(test_after_a_while_probes_go_a_few_at_a_time),
		TEST(test_a_probe_that_fails_opens_it_again),
		TEST(test_a_probe_that_was_never_sent_gives_its_place_back),
		TEST(test_without_an_answer_no_more_than_failures_begin),
		TEST(test_silence_is_measured_by_its_slowest_answers),
		TEST(test_who_stood_still_has_seen_no_silence),
		TEST(test_failures_and_those_that_wait_count_together),
		TEST(test_an_answer_lets_those_go_that_were_held),
		TEST(test_a_silent_backend_that_answers_is_closed_at_once),
		TEST(test_tasks_that_nobody_ends_open_it_and_only_a_result_closes_it),
		TEST(test_one_result_between_says_that_tasks_are_run),
		TEST(test_a_slow_operation_beside_others_is_not_counted),
		TEST(test_a_caller_that_leaves_is_not_counted),
		TEST(test_an_unawaited_task_ends_with_its_acceptance),
		TEST(test_what_is_known_opens_it_at_once_and_for_as_long),
		TEST(test_pins_do_not_ask_and_are_heard),
		TEST(test_shadows_take_nobodys_place),
		TEST(test_off_is_off),
		TEST(test_a_reload_shortens_what_is_left),
		TEST(test_the_view_has_what_is_shut),
		TEST(test_a_backend_has_no_more_in_flight_than_it_may),
		TEST(test_planes_share_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
