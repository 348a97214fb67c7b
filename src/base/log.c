#include "base/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"

static atomic_int least_level = LOG_INFO;
static atomic_int set_level = LOG_INFO; /* as set up: what toggling comes back to */
static atomic_int line_format = LOG_LOGFMT;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_setup(enum log_level least, enum log_format format)
{
	atomic_store(&set_level, (int)least);
	atomic_store(&least_level, (int)least);
	atomic_store(&line_format, (int)format);
}

bool log_enabled(enum log_level level)
{
	return (int)level >= atomic_load_explicit(&least_level, memory_order_relaxed);
}

int log_level_parse(const char *text, enum log_level *ret)
{
	/* The last two are Python's; all in any case, as there. */
	static const struct {
		const char *name;
		enum log_level level;
	} names[] = {{"debug", LOG_DEBUG}, {"info", LOG_INFO},	  {"warn", LOG_WARN},
		     {"error", LOG_ERROR}, {"warning", LOG_WARN}, {"critical", LOG_ERROR}};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcasecmp(text, names[i].name) == 0) {
			*ret = names[i].level;
			return 0;
		}
	return -EINVAL;
}

int log_format_parse(const char *text, enum log_format *ret)
{
	if (strcmp(text, "logfmt") == 0 || strcmp(text, "console") == 0)
		*ret = LOG_LOGFMT;
	else if (strcmp(text, "json") == 0 || strcmp(text, "structured") == 0)
		*ret = LOG_JSON;
	else
		return -EINVAL;
	return 0;
}

/* A line is built in a fixed array: a log call does not fail. */
struct log_text {
	char text[LOG_LINE_MAX];
	size_t len;
};

#define LINE_TAIL 8 /* kept free for the closing quote, brace and newline */

static bool log_room(const struct log_text *l, size_t n)
{
	return l->len + n + LINE_TAIL < sizeof(l->text);
}

static void log_put(struct log_text *l, const char *s, size_t n)
{
	if (log_room(l, n)) {
		memcpy(l->text + l->len, s, n);
		l->len += n;
	}
}

static void puts_line(struct log_text *l, const char *s)
{
	log_put(l, s, strlen(s));
}

/* Values come from anywhere: they are sanitized (base/text.h) first. Then both formats escape as JSON does,
 * so that no value can end its string or forge a field. */
static void put_escaped(struct log_text *l, bool lines, struct span s)
{
	char piece[TEXT_PIECE_MAX], escaped[TEXT_PIECE_MAX + 1];
	while (s.len) {
		const char first = *s.ptr;
		size_t length = 0, n = text_piece(&s, piece);
		if (lines && (first == '\n' || first == '\t')) { /* once: a traceback is read by people */
			piece[0] = first == '\n' ? 'n' : 't';
			n = 1;
			escaped[length++] = '\\';
		} else if (piece[0] == '"' || piece[0] == '\\') {
			escaped[length++] = '\\';
		}
		memcpy(escaped + length, piece, n);
		length += n;
		if (!log_room(l, length + 3)) {
			log_put(l, "\xe2\x80\xa6", 3);
			return;
		}
		log_put(l, escaped, length);
	}
}

static bool needs_quotes(struct span s)
{
	if (s.len == 0 || !text_is_plain(s))
		return true;
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.ptr[i];
		if (c == ' ' || c == '"' || c == '=' || c == '\\')
			return true;
	}
	return false;
}

/* `lines`: it may have several. */
static void log_put_text(struct log_text *l, bool json, bool lines, struct span text)
{
	if (json || needs_quotes(text)) {
		puts_line(l, "\"");
		put_escaped(l, lines, text);
		l->text[l->len++] = '"'; /* from the kept tail */
	} else {
		put_escaped(l, lines, text);
	}
}

/* Sentences about what went wrong quote what others said; and addresses may hold credentials. */
static bool may_quote(const char *key)
{
	static const char *const keys[] = {"error",  "why", "detail",  "reason",
					   "source", "url", "address", "cause"};
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (strcmp(key, keys[i]) == 0)
			return true;
	return false;
}

static void put_masked(struct log_text *l, bool json, bool lines, struct span text)
{
	CLEANUP(buf_releasep) struct buf masked = BUF_INIT(4 * LOG_LINE_MAX);
	/* more has no room in the line anyway */
	text.len = text.len < LOG_LINE_MAX ? text.len : LOG_LINE_MAX;
	text_put_masked(&masked, text);
	log_put_text(l, json, lines, masked.error ? SPAN_LIT("***") : buf_span(&masked));
}

static void put_field(struct log_text *l, bool json, const struct log_field *f)
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
	case LOG_FIELD_BOOL:
		puts_line(l, f->number ? "true" : "false");
		break;
	case LOG_FIELD_SPAN:
		if (may_quote(f->key))
			put_masked(l, json, strcmp(f->key, "error") == 0 || strcmp(f->key, "detail") == 0,
				   f->text);
		else
			log_put_text(l, json, false, f->text);
		break;
	}
}

static void put_line(struct log_text *l, enum log_level level, const char *event,
		     const struct log_field *fields, size_t n)
{
	bool json = atomic_load_explicit(&line_format, memory_order_relaxed) == LOG_JSON;
	char ts[CLOCK_TEXT_MAX];
	clock_format(clock_wall_us(), ts);
	l->len = (size_t)snprintf(l->text, sizeof(l->text),
				  json ? "{\"ts\":\"%s\",\"level\":\"%s\",\"event\":\"%s\""
				       : "ts=%s level=%s event=%s",
				  ts, level_names[level], event);
	for (size_t i = 0; i < n; i++)
		if (log_room(l, strlen(fields[i].key) + 48))
			put_field(l, json, &fields[i]);
	if (json)
		l->text[l->len++] = '}';
	l->text[l->len++] = '\n';
}

size_t log_line(enum log_level level, const char *event, const struct log_field *fields, size_t n,
		char out[LOG_LINE_MAX])
{
	struct log_text l = {.len = 0};
	put_line(&l, level, event, fields, n);
	memcpy(out, l.text, l.len);
	return l.len;
}

void log_write(enum log_level level, const char *event, const struct log_field *fields, size_t n)
{
	struct log_text l = {.len = 0};
	put_line(&l, level, event, fields, n);
	/* One write(2) per line, so that lines of threads and processes do not mix. Nothing sensible can be
	 * done when it fails. */
	ssize_t ignored = write(STDERR_FILENO, l.text, l.len);
	(void)ignored;
}

void log_toggle_debug(void)
{
	int usual = atomic_load(&set_level);
	bool more = atomic_load(&least_level) != LOG_DEBUG;
	atomic_store(&least_level, more ? LOG_DEBUG : usual);
	const struct log_field level = LOG_STR("level", level_names[more ? LOG_DEBUG : usual]);
	log_write(LOG_INFO, "log_level", &level, 1);
}
