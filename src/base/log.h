/*
 * Logging: one event, one line, logfmt or JSON, on standard error.
 *
 * Why:       each failure is logged once, by the one who handles it; library code returns errors and does not
 *            log.
 * Threads:   any; a line is one write(2).
 * Limits:    LOG_LINE_MAX bytes a line; longer values are cut with "…".
 * Values:    sanitized (base/text.h): a line is UTF-8 without control characters, whatever a caller sent.
 *
 *   log_warn("flags_reload_failed", LOG_STR("file", path), LOG_STR("error", e.text));
 *   → ts=… level=warn event=flags_reload_failed file=config/flags.yml error="line 3: …"
 *
 * Never hand a secret to it: no Authorization values, tokens, URLs with user info, or bodies. What looks like
 * one in `error`, `why`, `detail`, `reason`, `cause`, `source`, `url` or `address`, which quote what others
 * said, is masked (text_put_masked).
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

#define LOG_LINE_MAX 4096

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_LOGFMT, LOG_JSON };

struct log_field {
	const char *key;
	enum { LOG_FIELD_SPAN, LOG_FIELD_INT, LOG_FIELD_BOOL } kind;
	struct span text;
	int64_t number;
};

#define LOG_STR(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_SPAN, .text = span_of(v)})
#define LOG_SPAN(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_SPAN, .text = (v)})
#define LOG_INT(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_INT, .number = (int64_t)(v)})
#define LOG_BOOL(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_BOOL, .number = (v)})

void log_setup(enum log_level least, enum log_format format);
/* debug info warn|warning error|critical, in any case; -EINVAL */
int log_level_parse(const char *text, enum log_level *ret);
int log_format_parse(const char *text, enum log_format *ret); /* logfmt|console json|structured; -EINVAL */
/* SIGUSR1: debug lines, too, until the next call brings back the level that was set up. Logs that at any
 * level. */
void log_toggle_debug(void);
bool log_enabled(enum log_level level);

/* The line with its newline, for writing elsewhere; returns its length. */
size_t log_line(enum log_level level, const char *event, const struct log_field *fields, size_t n,
		char out[LOG_LINE_MAX]);
void log_write(enum log_level level, const char *event, const struct log_field *fields, size_t n);

#define LOG_AT(level, event, ...) \
	do { \
		if (log_enabled(level)) { \
			const struct log_field fields_[] = {__VA_ARGS__}; \
			log_write((level), (event), fields_, sizeof(fields_) / sizeof(fields_[0])); \
		} \
	} while (0)
#define log_debug(event, ...) LOG_AT(LOG_DEBUG, event, __VA_ARGS__)
#define log_info(event, ...) LOG_AT(LOG_INFO, event, __VA_ARGS__)
#define log_warn(event, ...) LOG_AT(LOG_WARN, event, __VA_ARGS__)
#define log_error(event, ...) LOG_AT(LOG_ERROR, event, __VA_ARGS__)

#endif
