/* base: buf, span, clock, ring, loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <unistd.h>

#include "base/backoff.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/loop.h"
#include "base/ring.h"
#include "base/span.h"

static void buf_keeps_its_limit(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(10);
	assert_int_equal(buf_puts(&b, "12345"), 0);
	assert_int_equal(buf_puts(&b, "678901"), -EFBIG);
	assert_string_equal(b.ptr, "12345");
	assert_int_equal(b.error, -EFBIG);
	assert_int_equal(buf_puts(&b, "67890"), 0);
	buf_consume(&b, 3);
	assert_string_equal(b.ptr, "4567890");
}

static void span_copy_never_cuts_a_character(void **state)
{
	(void)state;
	char out[4];
	span_copy(SPAN_LIT("a\xc3\xa9\xc3\xa9"), out, sizeof(out));
	assert_string_equal(out, "a\xc3\xa9");
	span_copy(SPAN_LIT("\xe2\x82\xac\xe2\x82\xac"), out, 3);
	assert_string_equal(out, "");
}

static void durations(void **state)
{
	(void)state;
	int64_t ms;
	assert_int_equal(clock_parse_duration("90s", &ms), 0);
	assert_int_equal(ms, 90000);
	assert_int_equal(clock_parse_duration("500ms", &ms), 0);
	assert_int_equal(ms, 500);
	assert_int_equal(clock_parse_duration("7d", &ms), 0);
	assert_int_equal(ms, 7 * 86400000LL);
	assert_int_equal(clock_parse_duration("2", &ms), 0);
	assert_int_equal(ms, 2000);
	static const char *const bad[] = {"", "s", "-1s", "1.5s", "1w", "9223372036854775807d", " 1s", "1 s"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(clock_parse_duration(bad[i], &ms), -EINVAL);
}

static void err_prefix_goes_in_front(void **state)
{
	(void)state;
	struct err e;
	assert_int_equal(err_set(&e, -5, "line %d", 3), -5);
	assert_int_equal(err_prefix(&e, -5, "file %s", "x"), -5);
	assert_string_equal(e.text, "file x: line 3");
}

static void ring_drops_and_counts_when_full(void **state)
{
	(void)state;
	struct ring *r;
	assert_int_equal(ring_new(4, sizeof(int), &r), 0);
	for (int i = 0; i < 6; i++) {
		int *slot = ring_reserve(r);
		if (slot) {
			*slot = i;
			ring_commit(r);
		}
	}
	assert_int_equal(ring_dropped(r), 2);
	for (int i = 0; i < 4; i++) {
		const int *got = ring_peek(r);
		assert_non_null(got);
		assert_int_equal(*got, i);
		ring_release(r);
	}
	assert_null(ring_peek(r));
	ring_free(r);
}

struct seen {
	struct loop *loop;
	struct loop_work work;
	struct loop_timer *timer;
	struct loop_watch *watch;
	int fd, deferred, read;
};

static void pauses_double_up_to_a_limit_and_are_spread(void **state)
{
	(void)state;
	unsigned whole = 500, least = 30000, most = 0;
	for (unsigned failures = 1; failures < 40; failures++) {
		for (int i = 0; i < 100; i++) {
			unsigned ms = backoff_ms(500, 30000, failures);
			assert_true(ms >= whole / 2 && ms <= whole);
		}
		whole = whole < 15000 ? whole * 2 : 30000;
	}
	for (int i = 0; i < 1000; i++) { /* 1,000 times the same half has a chance of 2^-999 */
		unsigned ms = backoff_ms(500, 30000, UINT_MAX);
		least = ms < least ? ms : least;
		most = ms > most ? ms : most;
	}
	assert_true(least < 22500 && most > 22500);
	assert_int_equal(backoff_ms(1, 1, 7), 1);
}

static void on_deferred(struct loop_work *w)
{
	struct seen *s = (struct seen *)((char *)w - offsetof(struct seen, work));
	if (++s->deferred < 3)
		loop_defer(s->loop, w); /* must come again without an event */
	else
		assert_int_equal(write(s->fd, "x", 1), 1);
}

static void on_readable(void *arg, unsigned events)
{
	struct seen *s = arg;
	assert_true(events & LOOP_READ);
	s->read++;
	s->watch = loop_watch_free(s->watch);
	loop_timer_start(s->timer, 1);
}

static void on_time(void *arg)
{
	struct seen *s = arg;
	s->timer = loop_timer_free(s->timer);
	loop_stop(s->loop);
}

static void loop_runs_work_descriptors_and_timers(void **state)
{
	(void)state;
	struct seen s = {.work = {.fn = on_deferred}};
	int fds[2];
	assert_int_equal(pipe(fds), 0);
	s.fd = fds[1];
	assert_int_equal(loop_new(&s.loop), 0);
	assert_int_equal(loop_timer_new(s.loop, on_time, &s, &s.timer), 0);
	assert_int_equal(loop_watch_new(s.loop, fds[0], LOOP_READ, on_readable, &s, &s.watch), 0);
	loop_post(s.loop, &s.work);
	assert_int_equal(loop_run(s.loop), 0);
	assert_int_equal(s.deferred, 3);
	assert_int_equal(s.read, 1);
	loop_free(s.loop);
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buf_keeps_its_limit),
		cmocka_unit_test(span_copy_never_cuts_a_character),
		cmocka_unit_test(durations),
		cmocka_unit_test(err_prefix_goes_in_front),
		cmocka_unit_test(ring_drops_and_counts_when_full),
		cmocka_unit_test(pauses_double_up_to_a_limit_and_are_spread),
		cmocka_unit_test(loop_runs_work_descriptors_and_timers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
