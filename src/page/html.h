/*
 * HTML writer: appends to a buffer, and escapes whatever is not the program's own text.
 *
 * Why:       a page shows what strangers sent: organizations, request ids, error texts. Here a format is the
 *            markup and every argument is text, so that to escape cannot be forgotten.
 * Escaped:   arguments of %s become plain (base/text.h: valid UTF-8, no controls, nothing that turns the
 *            direction of the text), with & < > " ' as references: fit for content and for values in quotes,
 *            never for the name of an element or an attribute, and never inside <script> or <style>.
 * Ownership: the buffer is the caller's; its first error stays in it and is looked at once, in the end.
 * Threads:   any; no state but the buffer.
 */
#ifndef PAGE_HTML_H
#define PAGE_HTML_H

#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

/* The format is markup; of conversions there are %s, %.*s, %c, %d, %u, %ld, %lu, %lld, %llu, %zu, %zd, %f
 * and %g with flags, widths and precisions (.* with s, f and g alone), and %%. */
void html(struct buf *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
void html_text(struct buf *out, struct span text);
/* As one value of a URL's query, within an attribute in quotes. */
void html_query(struct buf *out, struct span value);

/* --- figures, the same everywhere ----------------------------------------------------------------------- */
void html_count(struct buf *out, uint64_t n); /* 1,171 */
/* 0 … 1 as 24.8 %, never 100.0 or 0.0 unless it is (report_percent). */
void html_percent(struct buf *out, double share);
/* 850 µs, 4.2 ms, 381 ms, 2.4 s; – for what is not known (-1). */
void html_latency(struct buf *out, int64_t us);
/* <time> in UTC, which the page's script shows in the reader's zone: with the date unless it is today's
 * (`now_us`). 0: "never". */
void html_time(struct buf *out, int64_t wall_us, int64_t now_us);
/* "12 s", "5 min", "3 h", "4 days": of a span that need not be exact. */
void html_duration(struct buf *out, int64_t us);

#endif
