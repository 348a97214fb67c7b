#include "page/html.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "outcomes/report.h"

static const char *html_reference(char c)
{
	switch (c) {
	case '&':
		return "&amp;";
	case '<':
		return "&lt;";
	case '>':
		return "&gt;";
	case '"':
		return "&quot;";
	case '\'':
		return "&#39;";
	default:
		return NULL;
	}
}

void html_text(struct buf *out, struct span text)
{
	char piece[TEXT_PIECE_MAX];
	for (size_t n; (n = text_piece(&text, piece)) > 0;) {
		const char *reference = n == 1 ? html_reference(piece[0]) : NULL;
		if (reference)
			buf_puts(out, reference);
		else
			buf_append(out, piece, n);
	}
}

void html_query(struct buf *out, struct span value)
{
	buf_put_segment(out, value);
}

/* --- formats -------------------------------------------------------------------------------------------- */

/* One conversion: "%" … its letter, as printf has it. */
struct html_spec {
	char text[24];
	bool star;	/* the precision is an argument */
	unsigned longs; /* 'l's; 'z' is as one */
	char letter;
};

/* Returns what follows it. */
static const char *html_parse_spec(const char *p, struct html_spec *spec)
{
	size_t n = strspn(p + 1, "-+ #0123456789.*lz") + 2;
	*spec = (struct html_spec){.letter = p[n - 1]};
	if (n >= sizeof(spec->text) || !spec->letter || !strchr("sdiuxfgc%", spec->letter))
		return NULL;
	if (memchr(p, '*', n) && !strchr("sfg", spec->letter))
		return NULL;
	memcpy(spec->text, p, n);
	for (size_t i = 1; i + 1 < n; i++) {
		spec->longs += p[i] == 'l' || p[i] == 'z';
		spec->star = spec->star || p[i] == '*';
	}
	return p + n;
}

static void html_put_text(struct buf *out, const struct html_spec *spec, va_list *ap)
{
	const char *dot = strchr(spec->text, '.');
	int most = dot ? (int)strtol(dot + 1, NULL, 10) : -1;
	if (spec->star)
		most = va_arg(*ap, int);
	const char *text = va_arg(*ap, const char *);
	if (!text)
		return;
	html_text(out, (struct span){text, most < 0 ? strlen(text) : strnlen(text, (size_t)most)});
}

/* The formats are this program's own and were checked by the compiler where they are written. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static void html_put_number(struct buf *out, const struct html_spec *spec, va_list *ap)
{
	bool is_signed = spec->letter == 'd' || spec->letter == 'i';
	int precision = spec->star ? va_arg(*ap, int) : 0;
	if (spec->star)
		buf_printf(out, spec->text, precision, va_arg(*ap, double));
	else if (spec->letter == 'f' || spec->letter == 'g')
		buf_printf(out, spec->text, va_arg(*ap, double));
	else if (spec->longs >= 2 && is_signed)
		buf_printf(out, spec->text, va_arg(*ap, long long));
	else if (spec->longs >= 2)
		buf_printf(out, spec->text, va_arg(*ap, unsigned long long));
	else if (spec->longs && is_signed)
		buf_printf(out, spec->text, va_arg(*ap, long));
	else if (spec->longs)
		buf_printf(out, spec->text, va_arg(*ap, unsigned long));
	else if (is_signed)
		buf_printf(out, spec->text, va_arg(*ap, int));
	else
		buf_printf(out, spec->text, va_arg(*ap, unsigned));
}
#pragma GCC diagnostic pop

static void html_put(struct buf *out, const struct html_spec *spec, va_list *ap)
{
	char one[1];
	switch (spec->letter) {
	case '%':
		buf_putc(out, '%');
		break;
	case 's':
		html_put_text(out, spec, ap);
		break;
	case 'c':
		one[0] = (char)va_arg(*ap, int);
		html_text(out, (struct span){one, 1});
		break;
	default:
		html_put_number(out, spec, ap);
	}
}

void html(struct buf *out, const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	while (*format) {
		size_t n = strcspn(format, "%");
		struct html_spec spec;
		buf_append(out, format, n);
		format += n;
		if (!*format)
			break;
		format = html_parse_spec(format, &spec);
		if (!format) { /* a mistake of ours: half a page is none */
			out->error = out->error ? out->error : -EINVAL;
			break;
		}
		html_put(out, &spec, &ap);
	}
	va_end(ap);
}

/* --- figures -------------------------------------------------------------------------------------------- */

void html_count(struct buf *out, uint64_t n)
{
	char digits[24];
	int length = snprintf(digits, sizeof(digits), "%" PRIu64, n);
	for (int i = 0; i < length; i++) {
		if (i > 0 && (length - i) % 3 == 0)
			buf_putc(out, ',');
		buf_putc(out, digits[i]);
	}
}

void html_percent(struct buf *out, double share)
{
	html(out, "%.1f %%", report_percent(share));
}

void html_latency(struct buf *out, int64_t us)
{
	if (us < 0)
		html(out, "–");
	else if (us < 1000)
		html(out, "%lld µs", (long long)us);
	else if (us < 10000)
		html(out, "%.1f ms", (double)us / 1e3);
	else if (us < 1000000)
		html(out, "%.0f ms", (double)us / 1e3);
	else if (us < 100000000)
		html(out, "%.1f s", (double)us / 1e6);
	else
		html(out, "%.0f s", (double)us / 1e6);
}

void html_time(struct buf *out, int64_t wall_us, int64_t now_us)
{
	char text[CLOCK_TEXT_MAX], now[CLOCK_TEXT_MAX];
	if (wall_us <= 0) {
		html(out, "never");
		return;
	}
	clock_format(wall_us, text); /* 2026-01-31T08:15:00.123Z */
	clock_format(now_us, now);
	bool today = strncmp(text, now, 10) == 0;
	html(out, "<time datetime=\"%s\">%.*s%s%.*s UTC</time>", text, today ? 0 : 10, text, today ? "" : " ",
	     8, text + 11);
}

void html_duration(struct buf *out, int64_t us)
{
	int64_t s = us > 0 ? us / 1000000 : 0;
	if (s < 120)
		html(out, "%lld s", (long long)s);
	else if (s < 7200)
		html(out, "%lld min", (long long)(s / 60));
	else if (s < 172800)
		html(out, "%lld h", (long long)(s / 3600));
	else
		html(out, "%lld days", (long long)(s / 86400));
}
