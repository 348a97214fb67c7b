/* base: log. A line is UTF-8 without control characters, whatever a caller sent, and holds no secrets that
 * others quoted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/json.h"
#include "base/log.h"
#include "base/text.h"

/* What a log call wrote, without the line end. */
struct line {
	char text[2 * LOG_LINE_MAX];
	size_t len;
};

static void logged(enum log_format format, const struct log_field *fields, size_t n, struct line *ret)
{
	int fds[2], kept = dup(STDERR_FILENO);
	assert_int_equal(pipe(fds), 0);
	assert_true(dup2(fds[1], STDERR_FILENO) >= 0);
	log_setup(LOG_INFO, format);
	log_write(LOG_WARN, "happened", fields, n);
	assert_true(dup2(kept, STDERR_FILENO) >= 0);
	close(kept);
	close(fds[1]);
	ssize_t got = read(fds[0], ret->text, sizeof(ret->text) - 1);
	close(fds[0]);
	assert_true(got > 0 && ret->text[got - 1] == '\n');
	ret->len = (size_t)got - 1;
	ret->text[ret->len] = '\0';
}

static void assert_line(enum log_format format, const struct line *l)
{
	struct span s = {l->text, l->len};
	assert_true(text_is_plain(s));
	if (format == LOG_JSON)
		assert_int_equal(json_validate(s, NULL), 0);
}

static void callers_bytes_keep_lines_whole(void **state)
{
	(void)state;
	static const struct span values[] = {SPAN_INIT("\x9b\x33\x31m\xff"),
					     SPAN_INIT("a\nb level=error"),
					     SPAN_INIT("\xc2\x9b\x33\x31m"),
					     SPAN_INIT("\x1b]0;title\a"),
					     SPAN_INIT("\"} {\""),
					     SPAN_INIT("nul\0nul"),
					     SPAN_INIT("\\"),
					     SPAN_INIT("\xe2\x80\xae"
						       "abc")};
	static const char *const shown[] = {
		"\\x9b31m\\xff", "a\\u000ab level=error", "\\u009b31m", "\\u001b]0;title\\u0007",
		"\"} {\"",	 "nul\\u0000nul",	  "\\",		"\\u202eabc"};
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		const struct log_field fields[] = {LOG_SPAN("request_id", values[i]),
						   LOG_SPAN("error", values[i])};
		struct line l;
		logged(LOG_LOGFMT, fields, 2, &l);
		assert_line(LOG_LOGFMT, &l);
		logged(LOG_JSON, fields, 2, &l);
		assert_line(LOG_JSON, &l);
		struct span id;
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(100);
		assert_true(json_pointer((struct span){l.text, l.len}, SPAN_LIT("/request_id"), &id));
		assert_int_equal(json_unescape(id, &text), 0);
		assert_string_equal(text.ptr, shown[i]); /* plain also once it has been read */
	}
}

static void long_values_are_cut_and_stay_json(void **state)
{
	(void)state;
	static char large[3 * LOG_LINE_MAX];
	for (size_t i = 0; i < sizeof(large); i++)
		large[i] = "\"\xff\x1b\\"[i % 4];
	const struct log_field fields[] = {LOG_SPAN("a", ((struct span){large, sizeof(large)})),
					   LOG_STR("b", "c")};
	for (int format = LOG_LOGFMT; format <= LOG_JSON; format++) {
		struct line l;
		logged((enum log_format)format, fields, 2, &l);
		assert_line((enum log_format)format, &l);
		assert_non_null(strstr(l.text, "\xe2\x80\xa6"));
	}
}

static void sentences_about_errors_hold_no_secrets(void **state)
{
	(void)state;
	static const char *const keys[] = {"error", "why",    "detail", "reason",
					   "cause", "source", "url",	"address"};
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const struct log_field field =
			LOG_STR(keys[i], "https://bob:S3CRET@h/?key=S3CRET: Bearer S3CRET-1234567");
		struct line l;
		logged(LOG_JSON, &field, 1, &l);
		assert_null(strstr(l.text, "S3CRET"));
		assert_non_null(strstr(l.text, "https://***@h/?key=***"));
	}
}

/* A traceback is read by people: its line ends are escaped once, and end no line of the log. */
static void lines_of_an_error_are_escaped_once(void **state)
{
	(void)state;
	const struct log_field fields[] = {LOG_STR("detail", "Traceback:\n\tFile \"x\"\x1b\r\n"),
					   LOG_STR("id", "a\nb")};
	for (int format = LOG_LOGFMT; format <= LOG_JSON; format++) {
		struct line l;
		logged((enum log_format)format, fields, 2, &l);
		assert_line((enum log_format)format, &l);
		assert_non_null(strstr(l.text, "\"Traceback:\\n\\tFile \\\"x\\\"\\\\u001b\\\\u000d\\n\""));
		assert_non_null(strstr(l.text, "\"a\\\\u000ab\""));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(callers_bytes_keep_lines_whole),
		cmocka_unit_test(long_values_are_cut_and_stay_json),
		cmocka_unit_test(sentences_about_errors_hold_no_secrets),
		cmocka_unit_test(lines_of_an_error_are_escaped_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
