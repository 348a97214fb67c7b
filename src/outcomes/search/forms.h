/* Small things that the text, JSON and CSV of what was found are made of. All append; buf's errors stay in
 * it. */
#ifndef OUTCOMES_SEARCH_FORMS_H
#define OUTCOMES_SEARCH_FORMS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

#define FORM_TIME_MAX 24
#define FORM_LATENCY_MAX 24

/* 2026-01-31 08:15:00, UTC; "-" for 0. Returns out. */
const char *form_time(int64_t us, char out[FORM_TIME_MAX]);
/* 850 us, 4.2 ms, 381 ms, 2.4 s. Returns out. */
const char *form_latency(int64_t us, char out[FORM_LATENCY_MAX]);
/* A paragraph of plain text, broken at blanks so that no line is wider than `width`, each line behind
 * `indent` blanks; what has no blanks is broken anywhere. */
void form_paragraph(struct buf *out, const char *text, unsigned indent, unsigned width);
/* A cell of exactly `width` columns, what is longer cut with … */
void form_cell(struct buf *out, const char *text, unsigned width);

/* The same without blanks behind it. */
void form_cut(struct buf *out, const char *text, unsigned width);

/* ,"name":"text" or ,"name":null for "". The first member of an object is the caller's. */
void form_json_text(struct buf *out, const char *name, const char *text);
void form_json_time(struct buf *out, const char *name, int64_t us); /* RFC 3339; null for 0 */
void form_json_number(struct buf *out, const char *name, int64_t number);
/* RFC 4180; a leading = + - or @ gets a quote in front, since spreadsheets would run it. */
void form_csv_text(struct buf *out, const char *text);
void form_csv_time(struct buf *out, int64_t us);

#endif
