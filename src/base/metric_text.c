#include "base/metric_text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define OPEN_METRICS "application/openmetrics-text"

/* --- which of the two ----------------------------------------------------------------------------------- */

static struct span metric_trim(struct span s)
{
	while (s.len && (*s.ptr == ' ' || *s.ptr == '\t'))
		s = (struct span){s.ptr + 1, s.len - 1};
	while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
		s.len--;
	return s;
}

/* What is before the next `separator`, which is skipped. */
static struct span metric_cut(struct span *rest, char separator)
{
	const char *at = memchr(rest->ptr, separator, rest->len);
	struct span s = {rest->ptr, at ? (size_t)(at - rest->ptr) : rest->len};
	size_t taken = s.len + (at ? 1 : 0);
	*rest = (struct span){rest->ptr + taken, rest->len - taken};
	return metric_trim(s);
}

/* "q=0.5"; thousandths. */
static int metric_quality(struct span parameter)
{
	char number[8];
	if (parameter.len < 3 || (parameter.ptr[0] | 0x20) != 'q' || parameter.ptr[1] != '=')
		return -1;
	span_copy((struct span){parameter.ptr + 2, parameter.len - 2}, number, sizeof(number));
	double q = strtod(number, NULL);
	return q >= 0 && q <= 1 ? (int)(q * 1000) : 0;
}

bool metric_accepts_open(struct span accept)
{
	int open = 0, text = 0;
	while (accept.len) {
		struct span range = metric_cut(&accept, ',');
		struct span type = metric_cut(&range, ';');
		int quality = 1000;
		while (range.len) {
			int q = metric_quality(metric_cut(&range, ';'));
			quality = q >= 0 ? q : quality;
		}
		if (span_is_nocase(type, OPEN_METRICS))
			open = quality > open ? quality : open;
		else if (span_is_nocase(type, "text/plain"))
			text = quality > text ? quality : text;
	}
	return open > 0 && open >= text;
}

/* --- writing -------------------------------------------------------------------------------------------- */

static size_t metric_plain(struct span s, size_t from)
{
	size_t n = from;
	while (n < s.len && (signed char)s.ptr[n] >= ' ' && s.ptr[n] != '\\' && s.ptr[n] != '"')
		n++;
	return n - from;
}

static void metric_escape(struct buf *b, struct span s, bool quotes)
{
	for (size_t i = 0; i < s.len;) {
		size_t plain = metric_plain(s, i);
		if (plain) {
			buf_append(b, s.ptr + i, plain);
			i += plain;
			continue;
		}
		size_t n = utf8_sequence(s.ptr + i, s.ptr + s.len);
		if (n == 0) {
			buf_puts(b, "\xef\xbf\xbd");
			i++;
			continue;
		}
		if (s.ptr[i] == '\n')
			buf_puts(b, "\\n");
		else if (s.ptr[i] == '\\' || (quotes && s.ptr[i] == '"'))
			buf_printf(b, "\\%c", s.ptr[i]);
		else
			buf_append(b, s.ptr + i, n);
		i += n;
	}
}

/* OpenMetrics names the family, whose samples have the suffix. */
static struct span metric_family(const struct metric_text *m, enum metric_type type)
{
	struct span name = span_of(m->name);
	const char *suffix = "";
	if (m->open_metrics && type == METRIC_COUNTER)
		suffix = "_total";
	else if (m->open_metrics && type == METRIC_INFO)
		suffix = "_info";
	size_t n = strlen(suffix);
	if (name.len > n && memcmp(name.ptr + name.len - n, suffix, n) == 0)
		name.len -= n;
	return name;
}

void metric_begin(struct metric_text *m, const char *name, enum metric_type type, const char *help)
{
	static const char *const types[] = {[METRIC_COUNTER] = "counter",
					    [METRIC_GAUGE] = "gauge",
					    [METRIC_HISTOGRAM] = "histogram",
					    [METRIC_INFO] = "info"};
	m->name = name;
	struct span family = metric_family(m, type);
	const char *word = type == METRIC_INFO && !m->open_metrics ? "gauge" : types[type];
	buf_printf(m->out, "# HELP %.*s ", SPAN_ARG(family));
	metric_escape(m->out, span_of(help), m->open_metrics);
	buf_printf(m->out, "\n# TYPE %.*s %s\n", SPAN_ARG(family), word);
}

static void metric_put_labels(struct buf *b, const struct metric_label *labels, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		buf_puts(b, i ? "," : "");
		buf_puts(b, labels[i].name);
		buf_puts(b, "=\"");
		metric_escape(b, labels[i].value, true);
		buf_putc(b, '"');
	}
}

static void metric_put_name(struct metric_text *m, const struct metric_label *labels, size_t n)
{
	buf_puts(m->out, m->name);
	if (n) {
		buf_putc(m->out, '{');
		metric_put_labels(m->out, labels, n);
		buf_putc(m->out, '}');
	}
	buf_putc(m->out, ' ');
}

/* As short as it can be without becoming another number; a point in whole numbers, so that both formats
 * write a bucket's bound alike. */
static void metric_put_number(struct buf *b, double value, bool point)
{
	char text[40];
	if (isnan(value) || isinf(value)) {
		if (isnan(value))
			buf_puts(b, "NaN");
		else
			buf_puts(b, value > 0 ? "+Inf" : "-Inf");
		return;
	}
	for (int digits = 6; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, value);
		if (strtod(text, NULL) == value)
			break;
	}
	buf_puts(b, text);
	if (point && !strpbrk(text, ".e"))
		buf_puts(b, ".0");
}

void metric_count(struct metric_text *m, uint64_t value, const struct metric_label *labels, size_t n)
{
	metric_put_name(m, labels, n);
	buf_printf(m->out, "%" PRIu64 "\n", value);
}

void metric_value(struct metric_text *m, double value, const struct metric_label *labels, size_t n)
{
	metric_put_name(m, labels, n);
	metric_put_number(m->out, value, false);
	buf_putc(m->out, '\n');
}

void metric_histogram(struct metric_text *m, const double *bounds, const uint64_t *counts, size_t n_buckets,
		      double sum, const struct metric_label *labels, size_t n)
{
	CLEANUP(buf_releasep) struct buf set = BUF_INIT(65536);
	uint64_t total = 0;
	metric_put_labels(&set, labels, n);
	buf_puts(&set, n ? "," : "");
	struct span with = buf_span(&set), alone = {with.ptr, with.len ? with.len - 1 : 0};
	for (size_t i = 0; i < n_buckets; i++) {
		total += counts[i];
		buf_printf(m->out, "%s_bucket{%.*sle=\"", m->name, SPAN_ARG(with));
		metric_put_number(m->out, i + 1 < n_buckets ? bounds[i] : INFINITY, true);
		buf_printf(m->out, "\"} %" PRIu64 "\n", total);
	}
	buf_printf(m->out, "%s_sum{%.*s} ", m->name, SPAN_ARG(alone));
	metric_put_number(m->out, sum, false);
	buf_printf(m->out, "\n%s_count{%.*s} %" PRIu64 "\n", m->name, SPAN_ARG(alone), total);
	if (set.error && !m->out->error)
		m->out->error = set.error;
}

void metric_end(struct metric_text *m)
{
	if (m->open_metrics)
		buf_puts(m->out, "# EOF\n");
}
