/* Secrets of a task: which values are ones, in which forms they are found, and what stays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "base/span.h"
#include "tasks/worker/secrets.h"

static void hides(const char *name, const char *value, const char *text, const char *expected)
{
	struct secrets s = {0};
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(1 << 20);
	secrets_take(&s, span_of(name), span_of(value));
	assert_false(s.failed);
	assert_int_equal(secrets_put_hidden(&s, span_of(text), false, &out), 0);
	assert_string_equal(buf_span(&out).ptr, expected);
	secrets_release(&s);
}

static void in_whichever_form(void **state)
{
	static const char value[] = "p\"a\\s/s w\xc3\xb6rd+7&";
	(void)state;
	static const char *const forms[] = {
		"p\"a\\s/s w\xc3\xb6rd+7&",		 /* as it is */
		"p\\\"a\\\\s/s w\\u00f6rd+7&",		 /* JSON */
		"p\\\"a\\\\s\\/s w\\u00F6rd+7&",	 /* JSON of others */
		"p\\\\\\\"a\\\\\\\\s/s w\\\\u00f6rd+7&", /* JSON in JSON */
		"p\"a\\\\s/s w\\xf6rd+7&",		 /* Python's ascii() */
		"p\"a\\\\s/s w\\xc3\\xb6rd+7&",		 /* Python's bytes */
		"p%22a%5Cs%2Fs%20w%C3%B6rd%2B7%26",	 /* encodeURIComponent */
		"p%22a%5cs/s+w%c3%b6rd%2b7%26",		 /* a form, in small letters, / left */
		"p&quot;a\\s/s w\xc3\xb6rd+7&amp;",	 /* HTML */
		"7022615c732f732077c3b672642b3726",	 /* hexadecimal */
		"P\"A\\S/S W\xc3\xb6RD+7&",		 /* upper() */
	};
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(1024);
		buf_printf(&text, "[%s]", forms[i]);
		hides("TOK", value, text.ptr, "[***]");
	}
}

static void as_shells_pages_and_databases_say_it(void **state)
{
	static const char value[] = "it's \"p\\\xc3\xb6&7z";
	(void)state;
	static const char *const forms[] = {
		"it&#39;s &#34;p\\&#246;&#38;7z",	 /* numbers */
		"it&#x27;s &#x22;p&#x5C;&#xF6;&#x26;7z", /* hexadecimal */
		"it'\\''s \"p\\\xc3\xb6&7z",		 /* set -x */
		"it'\"'\"'s \"p\\\xc3\xb6&7z",		 /* Python's shlex */
		"it\\'s\\ \\\"p\\\\\xc3\xb6\\&7z",	 /* printf %q */
		"it''s \"p\\\xc3\xb6&7z",		 /* SQL */
		"it's \"\"p\\\xc3\xb6&7z",		 /* CSV */
		"it's \"p\\\\\\303\\266&7z",		 /* octal */
		"\\u0069t's \"p\\u005c\\u00f6&7z",	 /* whatever could be escaped */
		"it&#39;s \\&quot;p\\\\\\u00f6&amp;7z",	 /* JSON in a page */
		"it%27s%20%5C%22p%5C%5C%5Cu00f6%267z",	 /* JSON in a URL */
		"it%27s+%5c%22p%5c%5c%5cu00f6%267z",	 /* JSON in a form */
	};
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(1024);
		buf_printf(&text, "[%s]", forms[i]);
		hides("TOK", value, text.ptr, "[***]");
	}
	hides("TOK", "a&#38;&amp;''b7", "[a&#38;&amp;''b7]", "[***]"); /* what looks like one */
}

/* Where one escape ends and the next begins is not told by the text alone. */
static void escapes_side_by_side(void **state)
{
	(void)state;
	static const char value[] = "a\\\n%\\\xc3\xa9\"%25z-9";
	hides("TOK", value, "a\\\\\\n%\\\\\\u00e9\\\"%25z-9", "***");		      /* JSON */
	hides("TOK", value, "a\\\\\\\\\\\\n%\\\\\\\\\\\\u00e9\\\\\\\"%25z-9", "***"); /* in JSON */
	hides("TOK", value, "a%5C%0A%25%5C%C3%A9%22%2525z-9", "***");
	hides("TOK", value, "a%255C%250A%2525%255C%25C3%25A9%2522%252525z-9", "***"); /* encoded twice */
}

static void base64_wherever_it_begins(void **state)
{
	(void)state;
	/* of x:Sw0rdfish-9, ab:Sw0rdfish-9, abc:Sw0rdfish-9!, and for URLs */
	hides("TOK", "Sw0rdfish-9", "U3cwcmRmaXNoLTk=", "***k=");
	hides("TOK", "Sw0rdfish-9", "eDpTdzByZGZpc2gtOQ==", "eDp***Q==");
	hides("TOK", "Sw0rdfish-9", "eDpTdzBy\nZGZpc2gt\nOQ==", "eDp***Q=="); /* in lines */
	hides("TOK", "Sw0rdfish-9", "YWJjOlN3MHJkZmlzaC05IQ==", "YWJjOl***IQ==");
	hides("TOK", "\xfb\xff\xfe\xfb\xff\xfe\xfb\xff\xfe", "-__--__--__-", "***");
	hides("TOK", "\xfb\xff\xfe\xfb\xff\xfe\xfb\xff\xfe", "%2B//%2B%2B//%2B%2B//%2B", "***");
}

static void parts_that_are_secrets_by_themselves(void **state)
{
	(void)state;
	hides("DATABASE_URL", "postgres://app:hunter2@db.internal:5432/orders",
	      "cannot reach db.internal:5432 as app, password hunter2, for orders: "
	      "postgres://app:hunter2@db.internal:5432/orders",
	      "cannot reach db.internal:5432 as app, password ***, for orders: "
	      "postgres://***@db.internal:5432/orders");
	hides("HOOK", "https://hooks.example/T0/B0/secret",
	      "POST https://hooks.example/T0/B0/secret: 404 /T0/B0/secret, secret",
	      "POST https://hooks.example/***: 404 /***, ***");
	hides("Authorization", "Bearer abc.def", "no abc.def here", "no *** here");
	hides("Authorization",
	      "Basic dXNlcjpodW50ZXIyMg==", "user with hunter22, dXNlcjpodW50ZXIyMg==", "user with ***, ***");
	hides("X", "host=db user=app password=hunter2", "the password hunter2 of db is wrong",
	      "the password *** of db is wrong");
	hides("Cookie", "theme=dark; session=q7q7q7q7", "session q7q7q7q7", "session ***");
	hides("CREDENTIALS", "{\"type\": \"account\", \"private_key\": \"a\\nb-3-c-4-d\"}",
	      "key a\nb-3-c-4-d", "key ***");
	hides("KEY", "-----BEGIN KEY-----\nMIIBVQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n",
	      "line 2: hkiG9w0BAQEFAASC", "line 2: ***");
}

static void short_and_everyday_values_leave_the_text_whole(void **state)
{
	(void)state;
	hides("FLAG", "1", "exit code 1 of 11", "exit code 1 of 11");
	hides("TOKEN", "abc", "abc", "abc");
	hides("PIN", "4711", "4711, 14711, x4711, (4711)\\n4711", "***, 14711, x4711, (***)\\n***");
	hides("PASSWORD", "4711", "14711", "1***");
	hides("MODE", "production", "not in production", "not in production");
	hides("PATH", "/usr/bin:/bin", "no x in /usr/bin:/bin", "no x in /usr/bin:/bin");
	hides("LC_ALL", "de_DE.UTF-8", "locale de_DE.UTF-8", "locale de_DE.UTF-8");
	hides("ENDPOINT", "http://models.internal:9000", "cannot reach http://models.internal:9000",
	      "cannot reach http://models.internal:9000");
}

static void secrets_that_overlap(void **state)
{
	struct secrets s = {0};
	(void)state;
	secrets_take(&s, SPAN_LIT("A"), SPAN_LIT("abcd1234"));
	secrets_take(&s, SPAN_LIT("B"), SPAN_LIT("1234wxyz"));
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(100);
	secrets_put_hidden(&s, SPAN_LIT("<abcd1234wxyz>"), false, &out);
	assert_string_equal(out.ptr, "<***>");
	secrets_release(&s);
}

/* Whatever was cut off: neither the beginning nor the end of a secret is left. */
static void what_is_cut_has_no_half_of_one(void **state)
{
	static const char value[] = "Sw0rdfish-and-more";
	struct secrets s = {0};
	(void)state;
	secrets_take(&s, SPAN_LIT("TOK"), SPAN_LIT("Sw0rdfish-and-more"));
	for (size_t n = SECRETS_MIN; n < sizeof(value) - 1; n++) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(100), out = BUF_INIT(100);
		buf_printf(&text, "it was %.*s", (int)n, value);
		secrets_put_hidden(&s, buf_span(&text), true, &out);
		assert_string_equal(out.ptr, "it was ***");
		struct span end = {value + sizeof(value) - 1 - n, n};
		assert_int_equal(secrets_skip_end(&s, end).len, 0);
	}
	assert_int_equal(secrets_skip_end(&s, SPAN_LIT("nothing of it")).len, strlen("nothing of it"));
	secrets_release(&s);
}

/* Texts that are hard for a matcher cost no more than others. */
static void backslashes_without_end(void **state)
{
	struct secrets s = {0};
	(void)state;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1 << 20), out = BUF_INIT(1 << 20);
	secrets_take(&s, SPAN_LIT("TOK"), SPAN_LIT("\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\x"));
	for (size_t i = 0; i < 16384; i++)
		buf_putc(&text, '\\');
	assert_int_equal(secrets_put_hidden(&s, buf_span(&text), false, &out), 0);
	assert_int_equal(out.len, text.len);
	secrets_release(&s);
}

static void urls_that_are_called(void **state)
{
	struct secrets s = {0};
	(void)state;
	secrets_take_url(&s, SPAN_LIT("https://api.example/v1/chat/completions?key=a%20b-77&alt=json"));
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(1000);
	secrets_put_hidden(
		&s,
		SPAN_LIT("api.example: no completions as json for a b-77, a%20b-77, at /v1/chat/completions"),
		false, &out);
	assert_string_equal(out.ptr, "api.example: no completions as json for ***, ***, at /***");
	secrets_release(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_whichever_form),
		cmocka_unit_test(as_shells_pages_and_databases_say_it),
		cmocka_unit_test(escapes_side_by_side),
		cmocka_unit_test(base64_wherever_it_begins),
		cmocka_unit_test(parts_that_are_secrets_by_themselves),
		cmocka_unit_test(short_and_everyday_values_leave_the_text_whole),
		cmocka_unit_test(secrets_that_overlap),
		cmocka_unit_test(what_is_cut_has_no_half_of_one),
		cmocka_unit_test(backslashes_without_end),
		cmocka_unit_test(urls_that_are_called),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
