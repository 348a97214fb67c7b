/* metrics: words, histogram, series, outcome store (sums, retention, clock jumps). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/db.h"
#include "base/text.h"
#include "outcomes/histogram.h"
#include "outcomes/recorded.h"
#include "outcomes/series.h"
#include "support/outcome_place.h"

#define MINUTE_US 60000000LL

static void words_and_back(void **state)
{
	(void)state;
	for (int i = 0; i < REASON_COUNT; i++)
		assert_int_equal(outcome_reason_parse(span_of(outcome_reason_text((enum outcome_reason)i))),
				 i);
	for (int i = 0; i < OUTCOME_RESULT_COUNT; i++)
		assert_int_equal(outcome_result_parse(span_of(outcome_result_text((enum outcome_result)i))),
				 i);
	assert_string_equal(outcome_reason_text(REASON_BREAKER_OPEN), "breaker_open");
	assert_string_equal(outcome_reason_text(REASON_INPUT_TOO_LARGE), "input_too_large");
	assert_string_equal(outcome_result_text(OUTCOME_CANCELLED), "cancelled");
	assert_string_equal(outcome_role_text(OUTCOME_SHADOW), "shadow");
	assert_string_equal(outcome_side_text(OUTCOME_TASK), "task");
	assert_string_equal(outcome_reason_text(REASON_COUNT), "?");
	assert_int_equal(outcome_side_parse(SPAN_LIT("tas")), -1);
}

static void long_ids_stay_apart(void **state)
{
	(void)state;
	char a[64], b[64], id[300];
	for (size_t n = 1; n < sizeof(id); n++) {
		memset(id, 'x', n);
		outcome_id((struct span){id, n}, a, sizeof(a));
		id[n - 1] = 'y';
		outcome_id((struct span){id, n}, b, sizeof(b));
		assert_string_not_equal(a, b);
		id[n - 1] = '\0';
		assert_true(n > 63 ? recorded_may_be_cut(span_of(a)) : strlen(a) == n);
	}
	outcome_id(SPAN_LIT("a\x9b"), a, sizeof(a));
	assert_string_equal(a, "a\\x9b");
	for (size_t shift = 0; shift < 4; shift++) { /* cut in front of a character, wherever that is */
		memset(id, 'x', shift);
		for (size_t i = shift; i + 4 < 260; i += 4)
			memcpy(id + i, "\xf0\x9f\x98\x80", 4);
		outcome_id((struct span){id, 256 + shift}, a, sizeof(a));
		assert_int_equal(text_is_plain(span_of(a)), 1);
		assert_true(recorded_may_be_cut(span_of(a)));
	}
}

static void histogram_buckets_are_narrow_and_meet(void **state)
{
	(void)state;
	for (unsigned b = 0; b + 1 < HISTOGRAM_BUCKETS; b++) {
		int64_t low = histogram_lowest(b), high = histogram_highest(b);
		assert_int_equal(histogram_bucket(low), b);
		assert_int_equal(histogram_bucket(high), b);
		assert_int_equal(histogram_bucket(high + 1), b + 1);
		assert_true((double)(high - low) <= 0.032 * (double)low);
	}
	assert_int_equal(histogram_bucket(-5), 0);
	assert_int_equal(histogram_bucket(INT64_MAX), HISTOGRAM_BUCKETS - 1);
	assert_int_equal(histogram_bucket(1LL << 40), HISTOGRAM_BUCKETS - 1);
	assert_int_equal(histogram_bucket((1LL << 40) - 1), HISTOGRAM_BUCKETS - 1);
}

static void histogram_survives_storage_and_tells_quantiles(void **state)
{
	(void)state;
	static struct histogram h, back;
	static struct histogram_sum sum;
	memset(&sum, 0, sizeof(sum));
	histogram_init(&h);
	histogram_init(&back);
	for (int64_t v = 1; v <= 100000; v++)
		histogram_add(&h, v);
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(1 << 16);
	assert_int_equal(histogram_encode(&h, &b), 0);
	assert_int_equal(histogram_decode(&back, buf_span(&b)), 0);
	assert_memory_equal(h.counts, back.counts, sizeof(h.counts));
	assert_int_equal(histogram_sum_decode(&sum, buf_span(&b)), 0);
	assert_int_equal(sum.total, 100000);
	static const double quantiles[] = {0.001, 0.5, 0.95, 0.99, 1};
	for (size_t i = 0; i < 5; i++) {
		double exact = quantiles[i] * 100000,
		       got = (double)histogram_sum_quantile(&sum, quantiles[i]);
		assert_true(got >= exact * 0.984 && got <= exact * 1.016);
	}
	memset(&sum, 0, sizeof(sum));
	assert_int_equal(histogram_sum_quantile(&sum, 0.5), -1);
	histogram_sum_add(&sum, 7);
	assert_int_equal(histogram_sum_quantile(&sum, 0.5), 7);
	assert_int_equal(histogram_sum_quantile(&sum, 0.99), 7);
}

static void damaged_histograms_are_refused(void **state)
{
	(void)state;
	static struct histogram h;
	histogram_init(&h);
	static const struct span bad[] = {
		{"\x01", 1},			     /* a pair cut short */
		{"\x01\x80", 2},		     /* a number cut short */
		{"\xff\xff\x03\x01", 4},	     /* beyond the last bucket */
		{"\x00\xff\xff\xff\xff\xff\x01", 7}, /* a count above 32 bits */
		{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01", 13},
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(histogram_decode(&h, bad[i]), -EBADMSG);
	assert_int_equal(histogram_decode(&h, SPAN_LIT("")), 0);
}

static struct outcome outcome_of(const char *service, const char *operation, int64_t time_us)
{
	struct outcome o = {.time_us = time_us, .latency_us = 1000, .answered = true, .http_status = 200};
	span_copy(span_of(service), o.service, sizeof(o.service));
	span_copy(span_of(operation), o.operation, sizeof(o.operation));
	return o;
}

static void series_have_a_limit(void **state)
{
	(void)state;
	struct series_table *t;
	assert_int_equal(series_table_new(&t), 0);
	struct outcome first = outcome_of("s", "o0", 0);
	struct series *x = series_of(t, &first);
	assert_ptr_equal(series_of(t, &first), x);
	for (int i = 1; i < SERIES_MAX; i++) {
		struct outcome o = outcome_of("s", "", 0);
		snprintf(o.operation, sizeof(o.operation), "o%d", i);
		assert_string_equal(series_of(t, &o)->operation, o.operation);
	}
	struct outcome late = outcome_of("s", "late", 0);
	assert_string_equal(series_of(t, &late)->operation, SERIES_OTHER);
	assert_string_equal(series_of(t, &late)->service, "s");
	assert_ptr_equal(series_of(t, &first), x);
	for (int i = 0; i < 2 * SERIES_MAX; i++) {
		struct outcome o = outcome_of("", "late", 0);
		snprintf(o.service, sizeof(o.service), "s%d", i);
		assert_non_null(series_of(t, &o));
	}
	struct outcome later = outcome_of("later", "late", 0);
	assert_string_equal(series_of(t, &later)->service, SERIES_OTHER);
	size_t n = 0;
	for (struct series *s = series_first(t); s; s = s->next)
		n++;
	assert_true(n <= 2 * SERIES_MAX + 1);
	series_table_free(t);
}

/* --- the store ------------------------------------------------------------------------------------------ */

static void write_some(struct place *p, int64_t time_us, int64_t now_us, size_t n)
{
	static struct outcome outcomes[1000];
	static struct series *series[1000];
	struct err e = {""};
	for (size_t i = 0; i < n; i++) {
		outcomes[i] = outcome_of("prompt", "prompt.answer", time_us);
		memset(outcomes[i].request_id, 'r', 60);
		series[i] = series_of(p->series, &outcomes[i]);
	}
	struct outcome_batch b = {.outcomes = outcomes, .series = series, .count = n, .now_us = now_us};
	if (outcome_store_write(p->store, &b, &e) < 0)
		fail_msg("%s", e.text);
}

static int64_t ask(struct place *p, const char *sql)
{
	CLEANUP(db_closep) struct db *db = NULL;
	struct err e = {""};
	int64_t n = -1;
	if (db_open(&(struct db_options){.path = p->file, .read_only = true}, &db, &e) < 0 ||
	    db_query_int64(db, sql, &n, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(db_integrity_check(db, &e), 0);
	return n;
}

static void sums_agree_with_rows_over_restarts_and_jumping_clocks(void **state)
{
	struct place *p = *state;
	int64_t t = 29000000 * MINUTE_US;
	write_some(p, t, t, 10);
	write_some(p, t + MINUTE_US, t + MINUTE_US, 5);
	write_some(p, t - 500 * MINUTE_US, t - 500 * MINUTE_US, 7); /* the clock jumps back … */
	/* … and to a minute that is closed by now */
	write_some(p, t, t, 3);
	write_some(p, -MINUTE_US / 2, 0, 2); /* before 1970 */
	p->store = outcome_store_close(p->store);
	assert_int_equal(outcome_store_open(p->file, p->series, &p->store, NULL), 0);
	write_some(p, t, t, 4);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), 31);
	assert_int_equal(ask(p, "SELECT count FROM rollups WHERE minute = 29000000"), 17);
	assert_int_equal(ask(p, "SELECT count FROM rollups WHERE minute = 29000001"), 5);
	assert_int_equal(ask(p, "SELECT count FROM rollups WHERE minute = 28999500"), 7);
	assert_int_equal(ask(p, "SELECT count FROM rollups WHERE minute = -1"), 2);
	assert_int_equal(ask(p, "SELECT count(*) FROM series"), 1);
	assert_int_equal(ask(p, "SELECT count(*) FROM attempts WHERE result = 'success' AND side = 'legacy'"),
			 31);
}

static void retain(struct place *p, int64_t rows_before, int64_t rollups_before, uint64_t max_bytes,
		   int64_t now)
{
	struct outcome_limits l = {rows_before, rollups_before, max_bytes, now, false};
	struct err e = {""};
	int r;
	do {
		r = outcome_store_retain(p->store, &l, &e);
		if (r < 0)
			fail_msg("%s", e.text);
	} while (r > 0);
}

static void retention_by_age(void **state)
{
	struct place *p = *state;
	int64_t t = 29000000 * MINUTE_US;
	for (int i = 0; i < 10; i++)
		write_some(p, t + i * MINUTE_US, t + i * MINUTE_US, 100);
	retain(p, t + 4 * MINUTE_US, t + 2 * MINUTE_US, 0, t + 10 * MINUTE_US);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), 600);
	assert_int_equal(ask(p, "SELECT min(minute) FROM rollups"), 29000002);
	retain(p, t + 40 * MINUTE_US, t + 2 * MINUTE_US, 0, t + 50 * MINUTE_US);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), 0);
	/* Ids go on, or the marks would lie. */
	p->store = outcome_store_close(p->store);
	assert_int_equal(outcome_store_open(p->file, p->series, &p->store, NULL), 0);
	write_some(p, t + 60 * MINUTE_US, t + 60 * MINUTE_US, 10);
	retain(p, t + 55 * MINUTE_US, 0, 0, t + 60 * MINUTE_US);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), 10);
	assert_true(ask(p, "SELECT min(id) FROM outcomes") > 900);
}

static void a_wrong_clock_deletes_no_young_rows(void **state)
{
	struct place *p = *state;
	int64_t t = 29000000 * MINUTE_US, day = 1440 * MINUTE_US;
	write_some(p, t, t, 10);
	write_some(p, t + 400 * day, t + 400 * day, 10); /* a year ahead for a moment */
	write_some(p, 0, 0, 10);			 /* then 1970 */
	write_some(p, t + MINUTE_US, t + MINUTE_US, 10);
	retain(p, t - 7 * day, 0, 0, t + MINUTE_US);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), 40);
	/* The mark of the year ahead was put right: age goes on to delete. */
	write_some(p, t + 9 * day, t + 9 * day, 10);
	retain(p, t + 2 * day, 0, 0, t + 9 * day);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), 10);
}

/* The clock stands before all that was written: it is wrong, and putting marks right by it would age
 * everything. */
static void a_clock_behind_everything_puts_no_mark_right(void **state)
{
	struct place *p = *state;
	int64_t t = 29000000 * MINUTE_US, day = 1440 * MINUTE_US;
	write_some(p, t, t, 10);
	write_some(p, t + day, t + day, 10);
	retain(p, -7 * day, 0, 0, 0);
	retain(p, t - 6 * day, 0, 0, t + day);
	assert_int_equal(ask(p, "SELECT count(*) FROM outcomes"), 20);
	int64_t newest_us;
	assert_int_equal(outcome_store_newest(p->store, &newest_us, NULL), 0);
	assert_int_equal(newest_us, t + day);
}

static void retention_by_size(void **state)
{
	struct place *p = *state;
	int64_t t = 29000000 * MINUTE_US;
	for (int i = 0; i < 60; i++)
		write_some(p, t, t, 1000);
	int64_t before = ask(p, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size");
	assert_true(before > 4000000);
	retain(p, INT64_MIN, INT64_MIN, 2000000, t);
	int64_t used = ask(
		p,
		"SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_page_size,"
		" pragma_freelist_count");
	assert_true(used <= 2000000 && used > 1000000);
	assert_int_equal(ask(p, "SELECT max(id) FROM outcomes"), 60000); /* the oldest went */
	assert_int_equal(ask(p, "SELECT sum(count) FROM rollups"), 60000);
	int64_t after = ask(p, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size");
	assert_true(after < before * 3 / 4); /* given back to the file system */
}

static void old_minutes_become_hours(void **state)
{
	struct place *p = *state;
	int64_t hour = 28999980, t = hour * MINUTE_US, day = 1440 * MINUTE_US;
	assert_int_equal(hour % 60, 0);
	for (int i = 0; i < 70; i++)
		write_some(p, t + i * MINUTE_US, t + i * MINUTE_US, 2);
	write_some(p, t + 3 * day, t + 3 * day, 5);
	retain(p, INT64_MIN, INT64_MIN, 0, t + day);
	assert_int_equal(ask(p, "SELECT count(*) FROM rollups"), 71);
	retain(p, INT64_MIN, INT64_MIN, 0, t + 3 * day);
	assert_int_equal(ask(p, "SELECT count(*) FROM rollups"), 3);
	assert_int_equal(ask(p, "SELECT count FROM rollups WHERE minute = 28999980"), 120);
	assert_int_equal(ask(p, "SELECT count FROM rollups WHERE minute = 28999980 + 60"), 20);
	write_some(p, t + 5 * MINUTE_US, t + 3 * day, 1); /* late for its hour: still counted once */
	write_some(p, t, t + 3 * day, 1);
	retain(p, INT64_MIN, INT64_MIN, 0, t + 3 * day);
	assert_int_equal(ask(p, "SELECT sum(count) FROM rollups"), 147);
	assert_int_equal(ask(p, "SELECT until FROM folded"), 28999980 + 120);
}

static void drops_are_kept_per_minute(void **state)
{
	struct place *p = *state;
	const struct outcome_drops drops[] = {{10, 5}, {11, 7}};
	struct outcome_batch b = {.drops = drops, .drop_count = 2};
	assert_int_equal(outcome_store_write(p->store, &b, NULL), 0);
	assert_int_equal(outcome_store_write(p->store, &b, NULL), 0);
	assert_int_equal(ask(p, "SELECT count FROM drops WHERE minute = 11"), 14);
	assert_int_equal(ask(p, "SELECT sum(count) FROM drops"), 24);
}

#define WITH_STORE(f) cmocka_unit_test_setup_teardown(f, open_place, close_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words_and_back),
		cmocka_unit_test(long_ids_stay_apart),
		cmocka_unit_test(histogram_buckets_are_narrow_and_meet),
		cmocka_unit_test(histogram_survives_storage_and_tells_quantiles),
		cmocka_unit_test(damaged_histograms_are_refused),
		cmocka_unit_test(series_have_a_limit),
		WITH_STORE(sums_agree_with_rows_over_restarts_and_jumping_clocks),
		WITH_STORE(retention_by_age),
		WITH_STORE(a_wrong_clock_deletes_no_young_rows),
		WITH_STORE(a_clock_behind_everything_puts_no_mark_right),
		WITH_STORE(retention_by_size),
		WITH_STORE(old_minutes_become_hours),
		WITH_STORE(drops_are_kept_per_minute),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
