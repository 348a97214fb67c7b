/* base/metric_text: the two formats of /metrics, and which one somebody asks for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/metric_text.h"

static void write_all(struct buf *b, bool open_metrics)
{
	static const double bounds[] = {0.0001, 1, 0};
	static const uint64_t counts[] = {1, 2, 3};
	struct metric_text m = {.out = b, .open_metrics = open_metrics};
	metric_begin(&m, "x_total", METRIC_COUNTER, "a \"b\" \\ c\nd");
	metric_count(&m, UINT64_MAX, METRIC_LABELS({"l", SPAN_LIT("q\"b\\n\n\xff.")}));
	metric_begin(&m, "y", METRIC_GAUGE, "y");
	metric_value(&m, NAN, METRIC_NO_LABELS);
	metric_value(&m, 24.8, METRIC_LABELS({"a", SPAN_LIT("1")}, {"b", SPAN_LIT("2")}));
	metric_begin(&m, "z_info", METRIC_INFO, "z");
	metric_count(&m, 1, METRIC_NO_LABELS);
	metric_begin(&m, "h_seconds", METRIC_HISTOGRAM, "h");
	metric_histogram(&m, bounds, counts, 3, 2.5, METRIC_LABELS({"a", SPAN_LIT("1")}));
	metric_end(&m);
}

static void prometheus_text_is_as_its_format_says(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(65536);
	write_all(&b, false);
	assert_string_equal(b.ptr, "# HELP x_total a \"b\" \\\\ c\\nd\n"
				   "# TYPE x_total counter\n"
				   "x_total{l=\"q\\\"b\\\\n\\n\xef\xbf\xbd.\"} 18446744073709551615\n"
				   "# HELP y y\n# TYPE y gauge\n"
				   "y NaN\n"
				   "y{a=\"1\",b=\"2\"} 24.8\n"
				   "# HELP z_info z\n# TYPE z_info gauge\n"
				   "z_info 1\n"
				   "# HELP h_seconds h\n# TYPE h_seconds histogram\n"
				   "h_seconds_bucket{a=\"1\",le=\"0.0001\"} 1\n"
				   "h_seconds_bucket{a=\"1\",le=\"1.0\"} 3\n"
				   "h_seconds_bucket{a=\"1\",le=\"+Inf\"} 6\n"
				   "h_seconds_sum{a=\"1\"} 2.5\n"
				   "h_seconds_count{a=\"1\"} 6\n");
}

static void openmetrics_names_the_family_and_ends(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf b = BUF_INIT(65536);
	write_all(&b, true);
	assert_non_null(strstr(b.ptr, "# HELP x a \\\"b\\\" \\\\ c\\nd\n# TYPE x counter\nx_total{"));
	assert_non_null(strstr(b.ptr, "# TYPE z info\nz_info 1\n"));
	assert_non_null(strstr(b.ptr, "le=\"1.0\"} 3\n"));
	assert_string_equal(b.ptr + b.len - 6, "# EOF\n");
}

static void openmetrics_is_for_who_prefers_it(void **state)
{
	(void)state;
	static const struct {
		const char *accept;
		bool open;
	} cases[] = {
		{"", false},
		{"*/*", false},
		{"text/plain", false},
		{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false},
		{"application/openmetrics-text", true},
		{"application/openmetrics-text; version=1.0.0; q=0", false},
		{"text/plain;q=0.5, Application/OpenMetrics-Text;version=1.0.0;q=0.4", false},
		/* Prometheus 2.42's own */
		{"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;"
		 "q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
		 true},
		{",;,q=1;;", false},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (metric_accepts_open(span_of(cases[i].accept)) != cases[i].open)
			fail_msg("%s", cases[i].accept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prometheus_text_is_as_its_format_says),
		cmocka_unit_test(openmetrics_names_the_family_and_ends),
		cmocka_unit_test(openmetrics_is_for_who_prefers_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
