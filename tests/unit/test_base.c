/* base: buf, span, clock, ring, loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#endif

#include "base/backoff.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/digits.h"
#include "base/err.h"
#include "base/hash.h"
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

static void memory_is_cleared_whatever_it_held(void **state)
{
	(void)state;
	static unsigned char all[20 * 4096];
	for (size_t n = 0; n < 80; n++) {
		size_t from = n * 97, length = n % 3 ? 16384 + n * 641 : n * 100;
		for (size_t i = 0; i < sizeof(all); i++) /* pages of zeros, too, and some with one odd byte */
			all[i] = i / 4096 % 3 ? 0 : (unsigned char)(i * 7 + 1);
		all[n * 1021 % sizeof(all)] = all[sizeof(all) - 1] = all[0] = 1;
		unsigned char before = from ? all[from - 1] : 0, after = all[from + length];
		void *(*volatile clear)(void *, int, size_t) = memset; /* the compiler's own is not meant */
		assert_ptr_equal(clear(all + from, 0, length), all + from);
		for (size_t i = 0; i < length; i++)
			assert_int_equal(all[from + i], 0);
		assert_true(from == 0 || all[from - 1] == before);
		assert_int_equal(all[from + length], after);
		clear(all + from, 0xab, length);
		for (size_t i = 0; i < length; i++)
			assert_int_equal(all[from + i], 0xab);
	}
}

static size_t resident_pages(const unsigned char *at, size_t n)
{
	uint64_t page;
	size_t found = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	for (size_t i = 0; i < n; i++) {
		off_t where = (off_t)((uintptr_t)(at + i * 4096) / 4096 * sizeof(page));
		assert_int_equal(pread(fd, &page, sizeof(page), where), sizeof(page));
		found += page >> 56 & 1; /* "exclusively mapped": not the shared page of zeros */
	}
	close(fd);
	return found;
}

/* What libmicrohttpd clears of a connection is most of the time untouched, and takes no memory then. */
static void clearing_untouched_memory_makes_none_of_it_resident(void **state)
{
	(void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__) || defined(SANITIZED)
	skip(); /* they have a memset of their own */
#endif
	enum { PAGES = 64 };
	if (sysconf(_SC_PAGESIZE) != 4096)
		skip();
	unsigned char *m =
		mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(m, MAP_FAILED);
	madvise(m, PAGES * 4096, MADV_NOHUGEPAGE);
	void *(*volatile clear)(void *, int, size_t) = memset;
	m[5 * 4096] = 1;
	clear(m, 0, PAGES * 4096);
	assert_int_equal(m[5 * 4096], 0);
	assert_int_equal(resident_pages(m, PAGES), 1);
	munmap(m, PAGES * 4096);
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

/* Stored in files and shared between processes of two versions: they stay what they are. */
static void hashes_are_those_of_everybody(void **state)
{
	(void)state;
	assert_int_equal(hash32(HASH32_START, SPAN_LIT("")), 0x811c9dc5u);
	assert_int_equal(hash32(HASH32_START, SPAN_LIT("a")), 0xe40c292cu);
	assert_int_equal(hash32(hash32(HASH32_START, SPAN_LIT("foo")), SPAN_LIT("bar")), 0xbf9cf968u);
	assert_true(hash64_span(HASH64_START, SPAN_LIT("a")) == UINT64_C(0xaf63dc4c8601ec8c));
	assert_true(hash64(hash64(HASH64_START, "foo", 3), "bar", 3) == UINT64_C(0x85944171f73967e8));
	assert_true(hash64_number(HASH64_START, 0x61) == hash64(HASH64_START, "a\0\0\0\0\0\0\0", 8));
}

static void digits_are_read_to_their_limit(void **state)
{
	static const struct {
		const char *text;
		uint64_t max;
		bool good;
	} cases[] = {{"0", 0, true},
		     {"1", 0, false},
		     {"255", 255, true},
		     {"256", 255, false},
		     {"007", 7, true},
		     {"", 9, false},
		     {"-1", 9, false},
		     {"1 ", 9, false},
		     {"18446744073709551615", UINT64_MAX, true},
		     {"18446744073709551616", UINT64_MAX, false}};
	uint64_t v = 0;
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (digits_read(span_of(cases[i].text), cases[i].max, &v) != cases[i].good)
			fail_msg("%s to %llu", cases[i].text, (unsigned long long)cases[i].max);
	assert_true(digits_read(SPAN_LIT("18446744073709551615"), UINT64_MAX, &v) && v == UINT64_MAX);
	const char *hex = "c3A4g";
	uint32_t n;
	assert_int_equal(hex_byte(hex, hex + 4), 0xc3);
	assert_int_equal(hex_byte(hex, hex + 1), -1);
	assert_int_equal(hex_byte(hex + 3, hex + 5), -1);
	assert_true(hex_read(hex, hex + 4, 4, &n) && n == 0xc3a4);
	assert_int_equal(hex_digit('@'), -1);
	assert_int_equal(hex_digit('G'), -1);
}

static void a_written_sha256_is_read_in_either_case(void **state)
{
	char text[] = "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff",
	     out[CRYPTO_SHA256_HEX];
	(void)state;
	assert_true(crypto_sha256_read(span_of(text), out));
	assert_string_equal(out, "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
	assert_false(crypto_sha256_read((struct span){text, 63}, out));
	text[5] = 'g';
	assert_false(crypto_sha256_read(span_of(text), out));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_is_cleared_whatever_it_held),
		cmocka_unit_test(clearing_untouched_memory_makes_none_of_it_resident),
		cmocka_unit_test(buf_keeps_its_limit),
		cmocka_unit_test(span_copy_never_cuts_a_character),
		cmocka_unit_test(durations),
		cmocka_unit_test(hashes_are_those_of_everybody),
		cmocka_unit_test(digits_are_read_to_their_limit),
		cmocka_unit_test(a_written_sha256_is_read_in_either_case),
		cmocka_unit_test(err_prefix_goes_in_front),
		cmocka_unit_test(ring_drops_and_counts_when_full),
		cmocka_unit_test(pauses_double_up_to_a_limit_and_are_spread),
		cmocka_unit_test(loop_runs_work_descriptors_and_timers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
