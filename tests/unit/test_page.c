/* page: the HTML writer, views, assets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/gzip.h"
#include "page/html.h"
#include "page/page.h"
#include "page/page_assets.h"

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
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
