#include "base/log.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

static atomic_int least_level = LOG_INFO;
static atomic_int line_format = LOG_LOGFMT;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_setup(enum log_level least, enum log_format format)
{
	atomic_store(&least_level, (int)least);
	atomic_store(&line_format, (int)format);
}

bool log_enabled(enum log_level level)
{
	return (int)level >= atomic_load_explicit(&least_level, memory_order_relaxed);
}

int log_level_parse(const char *text, enum log_level *ret)
{
	for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++)
		if (strcmp(text, level_names[i]) == 0) {
			*ret = (enum log_level)i;
			return 0;
		}
	return -EINVAL;
}

int log_format_parse(const char *text, enum log_format *ret)
{
	if (strcmp(text, "logfmt") == 0)
		*ret = LOG_LOGFMT;
	else if (strcmp(text, "json") == 0)
		*ret = LOG_JSON;
	else
		return -EINVAL;
	return 0;
}

/* A line is built in a fixed array: a log call neither allocates nor fails. */
struct line {
	char text[LOG_LINE_MAX];
	size_t len;
};

#define LINE_TAIL 8 /* kept free for the closing quote, brace and newline */

static bool room(const struct line *l, size_t n)
{
	return l->len + n + LINE_TAIL < sizeof(l->text);
}

static void put(struct line *l, const char *s, size_t n)
{
	if (room(l, n)) {
		memcpy(l->text + l->len, s, n);
		l->len += n;
	}
}

static void puts_line(struct line *l, const char *s)
{
	put(l, s, strlen(s));
}

/* Both formats escape as JSON does, so that no value can start a new line or forge a field. */
static void put_escaped(struct line *l, struct span s)
{
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.ptr[i];
		char esc[8];
		size_t n = 1;
		esc[0] = (char)c;
		if (c == '"' || c == '\\') {
			esc[0] = '\\';
			esc[1] = (char)c;
			n = 2;
		} else if (c < 0x20 || c == 0x7f) {
			n = (size_t)snprintf(esc, sizeof(esc), "\\u%04x", c);
		}
		if (!room(l, n + 3)) {
			put(l, "\xe2\x80\xa6", 3);
			return;
		}
		put(l, esc, n);
	}
}

static bool needs_quotes(struct span s)
{
	if (s.len == 0)
		return true;
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.ptr[i];
		if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f)
			return true;
	}
	return false;
}

static void put_field(struct line *l, bool json, const struct log_field *f)
{
	char number[40];
	puts_line(l, json ? ",\"" : " ");
	puts_line(l, f->key);
	puts_line(l, json ? "\":" : "=");
	switch (f->kind) {
	case LOG_FIELD_INT:
		snprintf(number, sizeof(number), "%lld", (long long)f->number);
		puts_line(l, number);
		break;
	case LOG_FIELD_DOUBLE:
		snprintf(number, sizeof(number), "%.6g", f->real);
		puts_line(l, isfinite(f->real) ? number : "null");
		break;
	case LOG_FIELD_BOOL:
		puts_line(l, f->number ? "true" : "false");
		break;
	case LOG_FIELD_SPAN:
		if (json || needs_quotes(f->text)) {
			puts_line(l, "\"");
			put_escaped(l, f->text);
			l->text[l->len++] = '"'; /* from the kept tail */
		} else {
			put_escaped(l, f->text);
		}
		break;
	}
}

void log_write(enum log_level level, const char *event, const struct log_field *fields, size_t n)
{
	struct line l = {.len = 0};
	bool json = atomic_load_explicit(&line_format, memory_order_relaxed) == LOG_JSON;
	char ts[CLOCK_TEXT_MAX];
	clock_format(clock_wall_us(), ts);
	l.len = (size_t)snprintf(l.text, sizeof(l.text),
				 json ? "{\"ts\":\"%s\",\"level\":\"%s\",\"event\":\"%s\""
				      : "ts=%s level=%s event=%s",
				 ts, level_names[level], event);
	for (size_t i = 0; i < n; i++)
		if (room(&l, strlen(fields[i].key) + 48))
			put_field(&l, json, &fields[i]);
	if (json)
		l.text[l.len++] = '}';
	l.text[l.len++] = '\n';
	/* One write(2) per line, so that lines of threads and processes do not mix. Nothing sensible can be
	 * done when it fails. */
	ssize_t ignored = write(STDERR_FILENO, l.text, l.len);
	(void)ignored;
}
