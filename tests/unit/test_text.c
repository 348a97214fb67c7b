/* base: text. What comes from outside is plain before it is written down, and secrets are masked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/text.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void plain_text_stays(void **state)
{
	(void)state;
	static const char *const texts[] = {"",		 "abc",
					    "a\\b\\x9b", "J\xc3\xbcrgen \xe6\xbc\xa2 \xf0\x9f\x90\x98",
					    "\xc2\xa0",	 "\xef\xbb\xbf"};
	for (size_t i = 0; i < COUNT(texts); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(100);
		assert_true(text_is_plain(span_of(texts[i])));
		assert_int_equal(text_put_plain(&out, span_of(texts[i])), 0);
		assert_true(span_eq(buf_span(&out), span_of(texts[i])));
	}
}

static void bytes_of_callers_become_plain(void **state)
{
	(void)state;
	static const struct {
		struct span in;
		const char *out;
	} cases[] = {
		{SPAN_INIT("\x9b\x33\x31m\xff"), "\\x9b31m\\xff"},	  /* CSI as one byte */
		{SPAN_INIT("\xc2\x9b\x33\x31m"), "\\u009b31m"},		  /* CSI as a character */
		{SPAN_INIT("\x1b[31m\a\b"), "\\u001b[31m\\u0007\\u0008"}, /* CSI as two */
		{SPAN_INIT("a\0b\r\nc\td\x7f"), "a\\u0000b\\u000d\\u000ac\\u0009d\\u007f"},
		{SPAN_INIT("\xc0\x80\xed\xa0\x80"), "\\xc0\\x80\\xed\\xa0\\x80"}, /* overlong, surrogate */
		{SPAN_INIT("\xf4\x90\x80\x80\xe2\x82"), "\\xf4\\x90\\x80\\x80\\xe2\\x82"},
		{SPAN_INIT("\xe2\x80\xae"
			   "gpj.exe\xe2\x80\xa8"),
		 "\\u202egpj.exe\\u2028"}};
	for (size_t i = 0; i < COUNT(cases); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(100);
		assert_false(text_is_plain(cases[i].in));
		assert_int_equal(text_put_plain(&out, cases[i].in), 0);
		assert_string_equal(out.ptr, cases[i].out);
		assert_true(text_is_plain(buf_span(&out)));
	}
}

static void every_byte_and_every_pair_becomes_plain(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 65536; i++) {
		const char pair[] = {(char)(i >> 8), (char)i, 'x'};
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(100);
		assert_int_equal(text_put_plain(&out, (struct span){pair, 3}), 0);
		assert_true(text_is_plain(buf_span(&out)));
	}
}

static void long_text_is_cut_at_a_character(void **state)
{
	(void)state;
	static const struct {
		const char *in;
		size_t max;
		const char *out;
	} cases[] = {{"abcdef", 6, "abcdef"},
		     {"abcdefg", 6, "abc\xe2\x80\xa6"},
		     {"\xc3\xa9\xc3\xa9\xc3\xa9", 6, "\xc3\xa9\xc3\xa9\xc3\xa9"},
		     {"\xc3\xa9\xc3\xa9\xc3\xa9", 5, "\xc3\xa9\xe2\x80\xa6"},
		     {"ab\x1b[31m", 9, "ab\xe2\x80\xa6"},
		     {"abc", 2, ""},
		     {"\xff\xff", 7, "\\xff\xe2\x80\xa6"}};
	for (size_t i = 0; i < COUNT(cases); i++) {
		char copy[64];
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(100);
		assert_int_equal(text_put_cut(&out, span_of(cases[i].in), cases[i].max), 0);
		assert_string_equal(out.ptr, cases[i].out);
		text_copy(span_of(cases[i].in), copy, cases[i].max + 1);
		assert_string_equal(copy, cases[i].out);
	}
}

static void secrets_are_masked(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
		{"https://h.example/a?key=S3CRET&n=1: HTTP 429",
		 "https://h.example/a?key=***&n=*** HTTP 429"},
		{"https://bob:S3CRET@h.example/a", "https://***@h.example/a"},
		{"redis://:S3/CR@ET@h:6379/0", "redis://***@h:6379/0"},
		{"redis://S3CRET@h", "redis://***@h"},
		{"Max retries exceeded with url: /v1/x?api_key=S3CRET (Caused by",
		 "Max retries exceeded with url: /v1/x?api_key=*** (Caused by"},
		{"for url: https://h/p?a=S3CRET#access_token=S3CRET&x",
		 "for url: https://h/p?a=***#access_token=***&x"},
		{"Authorization: Bearer S3CRET-abc.def", "Authorization: Bearer ***"},
		{"{'Authorization': 'Bearer S3CRETabc'}", "{'Authorization': 'Bearer ***'}"},
		{"{\"api_key\": \"S3CRET-7\", \"n\": 1}", "{\"api_key\": \"***\", \"n\": 1}"},
		{"sent Bearer S3CRETabcdef to it", "sent Bearer *** to it"},
		{"password=S3CRET host=db", "password=*** host=db"},
		{"PGPASSWORD=S3CRET psql", "PGPASSWORD=*** psql"},
		{"--client-secret=S3CRET", "--client-secret=***"},
		{"Cookie: session=S3CRET; theme=S3CRET", "Cookie: ***"},
		{"bob:S3CRET@db.example:5432 refused", "***@db.example:5432 refused"},
		{"token eyJhbGciOi.S3CRET.S3CRETS3CRET", "token ***"},
		{"X-Api-Key: S3CRET-123", "X-Api-Key: ***"},
		{"amqp://guest:S3CRET@mq//", "amqp://***@mq//"},
		/* What is none stays. */
		{"connect to 127.0.0.1:5432 failed: Connection refused",
		 "connect to 127.0.0.1:5432 failed: Connection refused"},
		{"http://127.0.0.1:8080/a/b: not reached", "http://127.0.0.1:8080/a/b: not reached"},
		{"http://[::1]:8080/a@b", "http://[::1]:8080/a@b"},
		{"KeyError: 'container_name'", "KeyError: 'container_name'"},
		{"what? no=way: why", "what? no=way: why"},
		{"unexpected token: <", "unexpected token: <"},
		{"Bearer authentication is missing", "Bearer authentication is missing"},
		{"[Errno 2] No such file or directory: '/tmp/x'",
		 "[Errno 2] No such file or directory: '/tmp/x'"},
		{"", ""}};
	for (size_t i = 0; i < COUNT(cases); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(1000);
		assert_int_equal(text_put_masked(&out, span_of(cases[i][0])), 0);
		assert_string_equal(out.ptr ? out.ptr : "", cases[i][1]);
	}
}

static void masking_takes_any_text(void **state)
{
	(void)state;
	static const char alphabet[] = "ab:/?#=&@.' \"Bearer key=token: \n\xc3\xa9\xff";
	srand(7);
	for (unsigned round = 0; round < 20000; round++) {
		size_t n = (size_t)(rand() % 40);
		CLEANUP(freep) char *text = malloc(n + 1); /* exact, for ASan */
		for (size_t i = 0; i < n; i++)
			text[i] = alphabet[(size_t)rand() % (sizeof(alphabet) - 1)];
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(1000);
		assert_int_equal(text_put_masked(&out, (struct span){text, n}), 0);
	}
	CLEANUP(buf_releasep) struct buf large = BUF_INIT(2u << 20), out = BUF_INIT(2u << 20);
	for (unsigned i = 0; i < 200000; i++)
		buf_puts(&large, "a.b");
	assert_int_equal(text_put_masked(&out, buf_span(&large)), 0);
	assert_true(out.len <= TEXT_MASKED_MAX + 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(plain_text_stays),
					   cmocka_unit_test(bytes_of_callers_become_plain),
					   cmocka_unit_test(every_byte_and_every_pair_becomes_plain),
					   cmocka_unit_test(long_text_is_cut_at_a_character),
					   cmocka_unit_test(secrets_are_masked),
					   cmocka_unit_test(masking_takes_any_text)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
