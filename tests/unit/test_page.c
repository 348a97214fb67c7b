/* page: the HTML writer, views, assets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/db.h"
#include "base/gzip.h"
#include "outcomes/report.h"
#include "page/html.h"
#include "page/page.h"
#include "page/page_assets.h"
#include "standing/standing.h"
#include "support/outcome_place.h"

/* Sanitizers multiply it. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS_TIME 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define COUNTS_TIME 0
#endif
#endif
#ifndef COUNTS_TIME
#define COUNTS_TIME 1
#endif

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define SAYS(out, text) assert_string_equal((out).ptr, text)

static void arguments_are_text(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
	html(&out, "<a title=\"%s\">%s</a>", "\" onclick='x'", "<script>&</script>");
	SAYS(out, "<a title=\"&quot; onclick=&#39;x&#39;\">&lt;script&gt;&amp;&lt;/script&gt;</a>");
	buf_clear(&out);
	html(&out, "%.*s|%c|%s", 2, "<bc", '<', "");
	SAYS(out, "&lt;b|&lt;|");
	buf_clear(&out);
	/* neither valid nor harmless: a lone byte, an escape, a change of direction */
	html(&out, "%s", "\xff\x1b[2J\xe2\x80\xae");
	SAYS(out, "\\xff\\u001b[2J\\u202e");
}

static void numbers_are_printfs(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
	html(&out, "%d %u %ld %lld %llu %zu %zd %.1f %5d|%-4d|%02x %%", -1, 2U, -3L, -4LL, 5ULL, (size_t)6,
	     (ptrdiff_t)-7, 8.25, 9, 10, 11);
	SAYS(out, "-1 2 -3 -4 5 6 -7 8.2     9|10  |0b %");
	assert_int_equal(out.error, 0);
	buf_clear(&out);
	html(&out, "%.*f|%.4g|%.3s", 2, 1.5, 25.0, "abcd");
	SAYS(out, "1.50|25|abc");
}

static void a_format_that_is_none_spoils_the_page(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
	const char *volatile format = "a %p b"; /* the compiler would say so, too */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	html(&out, format, NULL);
#pragma GCC diagnostic pop
	assert_int_equal(out.error, -EINVAL);
}

static void figures(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
	static const uint64_t counts[] = {0, 999, 1000, 1234567, UINT64_MAX};
	for (size_t i = 0; i < COUNT(counts); i++)
		html_count(&out, counts[i]), buf_putc(&out, ' ');
	SAYS(out, "0 999 1,000 1,234,567 18,446,744,073,709,551,615 ");
	buf_clear(&out);
	static const double shares[] = {0, 0.0001, 0.248, 0.9999, 1};
	for (size_t i = 0; i < COUNT(shares); i++)
		html_percent(&out, shares[i]), buf_putc(&out, '|');
	SAYS(out, "0.0 %|0.1 %|24.8 %|99.9 %|100.0 %|");
	buf_clear(&out);
	static const int64_t latencies[] = {-1, 0, 999, 1000, 9949, 381000, 2400000, 120000000};
	for (size_t i = 0; i < COUNT(latencies); i++)
		html_latency(&out, latencies[i]), buf_putc(&out, '|');
	SAYS(out, "–|0 µs|999 µs|1.0 ms|9.9 ms|381 ms|2.4 s|120 s|");
	buf_clear(&out);
	const int64_t noon = 1769860800LL * 1000000; /* 2026-01-31T12:00:00Z */
	html_time(&out, noon, noon + 1);
	html_time(&out, noon, noon + 86400LL * 1000000);
	html_time(&out, 0, noon);
	SAYS(out, "<time datetime=\"2026-01-31T12:00:00.000Z\">12:00:00 UTC</time>"
		  "<time datetime=\"2026-01-31T12:00:00.000Z\">2026-01-31 12:00:00 UTC</time>never");
}

/* --- views ---------------------------------------------------------------------------------------------- */

static void views(void **state)
{
	(void)state;
	const int64_t now = 1769860800LL * 1000000;
	struct page_view v;
	struct err e = {""};
	assert_int_equal(page_view_parse(SPAN_LIT("/"), now, &v, &e), 0);
	assert_string_equal(v.path, "/");
	assert_true(v.since_us == now - 86400LL * 1000000 && v.until_us == 0);
	assert_int_equal(page_view_parse(SPAN_LIT("/?since=all&org=a%26b%22"), now, &v, &e), 0);
	assert_true(v.since_us == 0);
	assert_string_equal(v.org, "a&b\"");
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
	page_link2(&out, &v, "/requests", "since", "1h", "user", "u 1");
	SAYS(out, "/requests?since=1h&amp;org=a%26b%22&amp;user=u%201");
	buf_clear(&out);
	page_link(&out, &v, "/", "org", "");
	SAYS(out, "/?since=all");
}

static void what_is_no_view_is_refused_by_name(void **state)
{
	(void)state;
	static const struct {
		const char *target, *says;
	} cases[] = {
		{"/?sinse=1h", "sinse"},
		{"/?since=1h&since=2h", "since"},
		{"/?since=yesterday", "since: \"yesterday\" is neither"},
		{"/?since=1h&until=2h", "until: before since"},
		{"/?service=%00", "service: longer than 31 bytes, or with a NUL"},
		{"/?service=01234567890123456789012345678901", "service: longer than 31 bytes"},
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct page_view v;
		struct err e = {""};
		assert_int_equal(page_view_parse(span_of(cases[i].target), 1769860800000000, &v, &e), 400);
		assert_non_null(strstr(e.text, cases[i].says));
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(PAGE_MAX);
		const struct page_source source = {.path = "/nowhere/outcomes.db",
						   .now_us = 1769860800000000};
		assert_int_equal(page_make(&source, span_of(cases[i].target), &out), 400);
		assert_non_null(strstr(out.ptr, "This cannot be shown"));
		assert_non_null(strstr(out.ptr, "</html>"));
	}
}

/* --- assets --------------------------------------------------------------------------------------------- */

static void assets_are_within_the_program(void **state)
{
	(void)state;
	static const char *const names[] = {"page.css", "page.js", "chart.min.js", "ok.svg", "stop.svg"};
	for (size_t i = 0; i < COUNT(names); i++) {
		CLEANUP(buf_releasep) struct buf path = BUF_INIT(256), plain = BUF_INIT(4u << 20);
		buf_printf(&path, PAGE_ASSETS "%s", names[i]);
		const struct page_asset *a = page_asset(buf_span(&path));
		assert_non_null(a);
		assert_int_equal(gzip_decode((struct span){(const char *)a->gzip, a->gzip_size}, &plain), 0);
		assert_int_equal(plain.len, a->size);
	}
	assert_null(page_asset(SPAN_LIT("/_page/")));
	assert_null(page_asset(SPAN_LIT("/_page/../page.css")));
	assert_null(page_asset(SPAN_LIT("page.css")));
}

/* --- a year of data ------------------------------------------------------------------------------------- */

#define YEAR_OPERATIONS 10
#define YEAR_SERIES (2 * YEAR_OPERATIONS)
#define HOUR_US (3600LL * 1000000)
#define NOW_US (1769860800LL * 1000000) /* 2026-01-31T12:00:00Z */

static void run(struct db *db, const char *sql)
{
	struct err e;
	if (db_exec(db, sql, &e) < 0)
		fail_msg("%s", e.text);
}

static void fill_series(struct db *db)
{
	static const char *const kinds[2] = {"'legacy','','primary','flag','success',1",
					     "'task','embedded','primary','flag','failure',1"};
	char sql[256];
	for (int i = 0; i < YEAR_SERIES; i++) {
		snprintf(sql, sizeof(sql), "INSERT INTO series VALUES (%d,'app','operation_%d',%s)", i + 1,
			 i / 2, kinds[i % 2]);
		run(db, sql);
	}
}

/* A row of an hour for each series, as folding leaves them; 24 hours a day, 365 days. */
static void fill_year(const char *path)
{
	struct db *db;
	struct db_stmt *q;
	struct err e;
	CLEANUP(buf_releasep) struct buf encoded = BUF_INIT(4096);
	struct histogram h;
	histogram_init(&h);
	for (int i = 0; i < 60; i++)
		histogram_add(&h, 20000 + i * i * 97);
	assert_int_equal(histogram_encode(&h, &encoded), 0);
	const struct db_options o = {.path = path, .application_id = OUTCOME_STORE_APPLICATION};
	assert_int_equal(db_open(&o, &db, &e), 0);
	run(db, "PRAGMA synchronous=OFF; BEGIN");
	fill_series(db);
	assert_int_equal(db_prepare(db, "INSERT INTO rollups VALUES (?,?,60,3600000,?)", &q, &e), 0);
	int64_t last = NOW_US / HOUR_US;
	for (int64_t hour = last - 365 * 24; hour <= last; hour++)
		for (int series = 1; series <= YEAR_SERIES; series++) {
			db_bind_int64(q, 1, hour * 60);
			db_bind_int64(q, 2, series);
			db_bind_blob(q, 3, buf_span(&encoded));
			assert_int_equal(db_run(q, &e), 0);
		}
	char sql[128];
	snprintf(sql, sizeof(sql), "UPDATE folded SET until = %lld; COMMIT", (long long)((last - 48) * 60));
	run(db, sql);
	db_stmt_free(q);
	db_close(db);
}

/* What the recorder does when it has nothing else to do. */
static void sum_days(struct outcome_store *s)
{
	const struct outcome_limits limits = {.now_us = NOW_US};
	struct err e;
	int r;
	while ((r = outcome_store_retain(s, &limits, &e)) > 0)
		;
	assert_int_equal(r, 0);
}

static void read_year(const char *path, bool days, struct buf *out)
{
	const struct report_options o = {
		.path = path, .since_us = NOW_US - 300 * 24 * HOUR_US, .no_points = days};
	struct report *r;
	struct err e;
	assert_int_equal(report_make(&o, &r, &e), 0);
	r->made_us = 0;
	free(r->points);
	r->points = NULL;
	r->point_count = 0;
	r->point_us = 0;
	assert_int_equal(report_to_json(r, out), 0);
	report_free(r);
}

static void same_by_day_and_by_hour(const char *path)
{
	CLEANUP(buf_releasep) struct buf hours = BUF_INIT(4u << 20), days = BUF_INIT(4u << 20);
	read_year(path, false, &hours);
	read_year(path, true, &days);
	assert_string_equal(hours.ptr, days.ptr);
}

static int64_t days_summed(struct outcome_store *s)
{
	struct err e;
	int64_t n;
	assert_int_equal(db_query_int64(outcome_store_db(s), "SELECT count(*) FROM summed_days", &n, &e), 0);
	return n;
}

static void sums_of_days_are_those_of_their_hours(struct outcome_store *s, const char *path)
{
	sum_days(s);
	int64_t n = days_summed(s);
	assert_int_equal(n, 362); /* not the first one, nor the last two and today */
	same_by_day_and_by_hour(path);
	/* whoever writes into a summed day */
	run(outcome_store_db(s),
	    "UPDATE rollups SET count = count + 1 WHERE minute = 29400000 / 1440 * 1440");
	run(outcome_store_db(s),
	    "INSERT OR REPLACE INTO rollups SELECT minute, series, 9, latency_us, histogram"
	    " FROM rollups WHERE minute = 29300000 / 1440 * 1440 AND series = 1");
	run(outcome_store_db(s), "DELETE FROM rollups WHERE minute = 29200000 / 1440 * 1440");
	assert_int_equal(days_summed(s), n - 3);
	same_by_day_and_by_hour(path);
}

static int64_t cpu_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* others on this machine do not count */
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static struct standing *standing_of_year(void)
{
	struct standing_facts *f;
	struct standing *s;
	assert_int_equal(standing_facts_new(YEAR_OPERATIONS, &f), 0);
	f->n_operations = YEAR_OPERATIONS;
	for (int i = 0; i < YEAR_OPERATIONS; i++) {
		snprintf(f->operations[i].service, sizeof(f->operations[i].service), "app");
		snprintf(f->operations[i].operation, sizeof(f->operations[i].operation), "operation_%d", i);
		f->operations[i].set = 50;
	}
	f->time_us = NOW_US;
	assert_int_equal(standing_make(f, NULL, NULL, NOW_US, &s), 0);
	return s;
}

/* Also where nothing can be shown, and not in a span that is real. */
static void every_page_says_what_was_made_up(void **state)
{
	static const char *const targets[] = {
		"/", "/errors", "/organizations", "/requests", "/requests?id=a", "/differences", "/move"};
	struct place *place = *state;
	struct err e = {""};
	const struct demo_history mark = {NOW_US - 7 * 86400000000, NOW_US - 3600000000};
	const struct page_source source = {.path = place->file, .now_us = NOW_US};
	for (int marked = 0; marked < 2; marked++) {
		for (size_t i = 0; i < COUNT(targets); i++) {
			CLEANUP(buf_releasep) struct buf out = BUF_INIT(PAGE_MAX);
			page_make(&source, span_of(targets[i]), &out);
			buf_terminate(&out);
			assert_int_equal(strstr(out.ptr, "are made up (--demo-history)") != NULL, marked);
		}
		assert_int_equal(demo_history_write(outcome_store_db(place->store), &mark, &e), 0);
	}
	CLEANUP(buf_releasep) struct buf real = BUF_INIT(PAGE_MAX);
	page_make(&source, SPAN_LIT("/?since=15m"), &real);
	buf_terminate(&real);
	assert_null(strstr(real.ptr, "made up"));
}

static void drawn_within_100_ms(const char *path)
{
	static const char *const targets[] = {"/", "/?since=7d", "/?since=30d", "/?since=365d",
					      "/?since=all"};
	struct standing *standing = standing_of_year();
	const struct page_source source = {.path = path, .standing = standing, .now_us = NOW_US};
	for (size_t i = 0; i < COUNT(targets); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(PAGE_MAX);
		int64_t begin = cpu_us();
		assert_int_equal(page_make(&source, span_of(targets[i]), &out), 200);
		int64_t took = cpu_us() - begin;
		print_message("%s: %lld us, %zu bytes\n", targets[i], (long long)took, out.len);
		assert_int_equal(out.error, 0);
		assert_non_null(strstr(out.ptr, "operation_9"));
		assert_true(!COUNTS_TIME || took < 100000);
	}
	standing_free(standing);
}

static void a_page_is_drawn_within_100_ms_from_a_year_of_data(void **state)
{
	struct place *place = *state;
	fill_year(place->file);
	sums_of_days_are_those_of_their_hours(place->store, place->file);
	drawn_within_100_ms(place->file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arguments_are_text),
		cmocka_unit_test(numbers_are_printfs),
		cmocka_unit_test(a_format_that_is_none_spoils_the_page),
		cmocka_unit_test(figures),
		cmocka_unit_test(views),
		cmocka_unit_test(what_is_no_view_is_refused_by_name),
		cmocka_unit_test(assets_are_within_the_program),
		cmocka_unit_test_setup_teardown(every_page_says_what_was_made_up, open_place, close_place),
		cmocka_unit_test_setup_teardown(a_page_is_drawn_within_100_ms_from_a_year_of_data, open_place,
						close_place),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
