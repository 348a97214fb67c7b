/* router: auth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "operation/auth.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* SHA-256 of "secret", of "abc", of "" (FIPS 180-4's examples for the latter two). */
#define HASH_SECRET "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
#define HASH_ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define HASH_NOTHING "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static char known[][CRYPTO_SHA256_HEX] = {HASH_SECRET, HASH_ABC};

static enum auth_result check_values(enum auth_kind kind, const char *first, const char *second,
				     struct auth_fingerprint *f)
{
	struct auth a = {.kind = kind, .hashes = known, .n_hashes = COUNT(known)};
	struct http_field fields[] = {
		{SPAN_LIT("Host"), SPAN_LIT("x")},
		{SPAN_LIT("authorization"), span_of(first)},
		{SPAN_LIT("Authorization"), span_of(second)},
	};
	return auth_check(&a, fields, 1 + (first != NULL) + (second != NULL), f);
}

static void bearer_tokens(void **state)
{
	(void)state;
	static const struct {
		const char *value;
		enum auth_result result;
	} cases[] = {
		{"Bearer secret", AUTH_ACCEPTED},
		{"bearer secret", AUTH_ACCEPTED},
		{"BEARER   abc", AUTH_ACCEPTED},
		{"Bearer Secret", AUTH_WRONG},
		{"Bearer secre", AUTH_WRONG},
		{"Bearer secret=", AUTH_WRONG},
		{"Bearer " HASH_SECRET, AUTH_WRONG},
		{"Bearer", AUTH_MALFORMED},
		{"Bearer ", AUTH_MALFORMED},
		{"Bearer ==", AUTH_MALFORMED},
		{"Bearer se=cret", AUTH_MALFORMED},
		{"Bearer secret ", AUTH_MALFORMED},
		{"Bearer secret,abc", AUTH_MALFORMED},
		{"Bearer secret abc", AUTH_MALFORMED},
		{"Bearer \"secret\"", AUTH_MALFORMED},
		{"Bearer s\xc3\xa9", AUTH_MALFORMED},
		{"Bearer\tsecret", AUTH_MISSING},
		{"Bearersecret", AUTH_MISSING},
		{"Basic c2VjcmV0", AUTH_MISSING},
		{"secret", AUTH_MISSING},
		{"", AUTH_MISSING},
		{NULL, AUTH_MISSING},
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct auth_fingerprint f;
		if (check_values(AUTH_BEARER, cases[i].value, NULL, &f) != cases[i].result)
			fail_msg("%s", cases[i].value ? cases[i].value : "(none)");
		assert_int_equal(strlen(f.hex), cases[i].value ? 64 : 0);
		assert_int_equal(check_values(AUTH_NONE, cases[i].value, NULL, &f), AUTH_ACCEPTED);
		assert_int_not_equal(check_values(AUTH_UNSET, cases[i].value, NULL, &f), AUTH_ACCEPTED);
	}
}

static void a_repeated_field_is_refused(void **state)
{
	(void)state;
	struct auth_fingerprint f;
	assert_int_equal(check_values(AUTH_BEARER, "Bearer secret", "Bearer secret", &f), AUTH_MALFORMED);
	assert_string_equal(f.hex, "");
	assert_int_equal(check_values(AUTH_NONE, "Bearer secret", "Bearer abc", &f), AUTH_MALFORMED);
}

static void answers_as_rfc_6750_says(void **state)
{
	(void)state;
	assert_int_equal(auth_status(AUTH_ACCEPTED), 200);
	assert_int_equal(auth_status(AUTH_MISSING), 401);
	assert_int_equal(auth_status(AUTH_MALFORMED), 400);
	assert_int_equal(auth_status(AUTH_WRONG), 401);
	assert_null(auth_challenge(AUTH_ACCEPTED).ptr);
	assert_true(span_is(auth_challenge(AUTH_MISSING), "Bearer realm=\"migration-router\""));
	assert_true(span_is(auth_challenge(AUTH_MALFORMED),
			    "Bearer realm=\"migration-router\", error=\"invalid_request\""));
	assert_true(span_is(auth_challenge(AUTH_WRONG),
			    "Bearer realm=\"migration-router\", error=\"invalid_token\""));
}

static void owners_differ(void **state)
{
	(void)state;
	struct auth_fingerprint f[4];
	check_values(AUTH_BEARER, "Bearer secret", NULL, &f[0]);
	check_values(AUTH_BEARER, "Bearer abc", NULL, &f[1]);
	check_values(AUTH_NONE, NULL, NULL, &f[2]);
	check_values(AUTH_NONE, "Basic YTpi", NULL, &f[3]);
	assert_string_equal(f[0].hex, HASH_SECRET);
	const struct span organizations[] = {SPAN_NONE, SPAN_LIT(""), SPAN_LIT("org-1"), SPAN_LIT("org-2")};
	char owners[16][CRYPTO_SHA256_HEX], again[CRYPTO_SHA256_HEX];
	for (size_t i = 0; i < 16; i++) {
		auth_owner(&f[i / 4], organizations[i % 4], owners[i]);
		auth_owner(&f[i / 4], organizations[i % 4], again);
		assert_string_equal(owners[i], again);
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(owners[i], owners[j]);
	}
	struct auth_fingerprint other_case;
	check_values(AUTH_BEARER, "BEARER  secret", NULL, &other_case);
	auth_owner(&other_case, organizations[2], again);
	assert_string_equal(again, owners[2]);
}

/* Of each line: the hash, or that it is none; never what stands there, which may be a token. */
static void the_list_of_hashes(void **state)
{
	(void)state;
	static const struct {
		int r;
		unsigned line;
		const char *hash;
	} expected[] = {{1, 3, HASH_NOTHING}, {1, 4, HASH_ABC},	   {-EBADMSG, 6, NULL}, {-EBADMSG, 7, NULL},
			{-EBADMSG, 8, NULL},  {1, 9, HASH_SECRET}, {0, 9, NULL}};
	struct span text =
		SPAN_LIT("# callers\n\n  " HASH_NOTHING "  # nobody\r\n"
			 "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD\n\t\n"
			 "my-secret-token\n" HASH_ABC "0\n" HASH_ABC " " HASH_SECRET "\n" HASH_SECRET);
	unsigned line = 0;
	for (size_t i = 0; i < COUNT(expected); i++) {
		char hash[CRYPTO_SHA256_HEX];
		assert_int_equal(auth_next_hash(&text, &line, hash), expected[i].r);
		assert_int_equal(line, expected[i].line);
		if (expected[i].hash)
			assert_string_equal(hash, expected[i].hash);
	}
}

/* --- asking an endpoint --------------------------------------------------------------------------------- */

static void credentials_to_ask_with(void **state)
{
	(void)state;
	const struct http_field fields[] = {
		{SPAN_LIT("Cookie"), SPAN_LIT("theme=dark; session=a=b;  id=7; id=7; id2=8; two=1; two=2")},
		{SPAN_LIT("x-api-key"), SPAN_LIT("k")},
		{SPAN_LIT("X-Twice"), SPAN_LIT("1")},
		{SPAN_LIT("X-Twice"), SPAN_LIT("1")},
	};
	static const struct {
		struct auth_credential credential;
		enum auth_found found;
		const char *value;
	} cases[] = {
		{{true, SPAN_INIT("session")}, AUTH_FOUND, "a=b"},
		{{true, SPAN_INIT("theme")}, AUTH_FOUND, "dark"},
		{{true, SPAN_INIT("id")}, AUTH_FOUND, "7"},
		{{true, SPAN_INIT("i")}, AUTH_ABSENT, ""},
		{{true, SPAN_INIT("Session")}, AUTH_ABSENT, ""},
		{{true, SPAN_INIT("two")}, AUTH_AMBIGUOUS, NULL},
		{{false, SPAN_INIT("X-API-Key")}, AUTH_FOUND, "k"},
		{{false, SPAN_INIT("X-Twice")}, AUTH_AMBIGUOUS, NULL},
		{{false, SPAN_INIT("Other")}, AUTH_ABSENT, ""},
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct span value;
		enum auth_found found =
			auth_credential_find(&cases[i].credential, fields, COUNT(fields), &value);
		assert_int_equal(found, cases[i].found);
		if (found == AUTH_FOUND)
			assert_true(span_is(value, cases[i].value));
	}
}

static struct auth_fingerprint ask_as(const char *authorization, const char *cookie,
				      enum auth_result expected)
{
	struct auth a = {.kind = AUTH_CHECK,
			 .credentials = {{false, SPAN_LIT("Authorization")}, {false, SPAN_LIT("Cookie")}},
			 .n_credentials = 2};
	struct auth_fingerprint f;
	struct http_field fields[2];
	size_t n = 0;
	if (authorization)
		fields[n++] = (struct http_field){SPAN_LIT("Authorization"), span_of(authorization)};
	if (cookie)
		fields[n++] = (struct http_field){SPAN_LIT("cookie"), span_of(cookie)};
	assert_int_equal(auth_check(&a, fields, n, &f), expected);
	return f;
}

static void who_asks_is_told_apart_by_all_its_credentials(void **state)
{
	(void)state;
	static const char *const values[][2] = {{"a", "b"},  {"b", "a"}, {"a", NULL},
						{NULL, "a"}, {"a", ""},	 {"ab", NULL}};
	struct auth_fingerprint f[COUNT(values)];
	for (size_t i = 0; i < COUNT(values); i++) {
		f[i] = ask_as(values[i][0], values[i][1], AUTH_ASK);
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(f[i].hex, f[j].hex);
	}
	assert_string_equal(ask_as("a", "b", AUTH_ASK).hex, f[0].hex);
	assert_string_equal(ask_as(NULL, NULL, AUTH_ASK).hex, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(credentials_to_ask_with),
		cmocka_unit_test(who_asks_is_told_apart_by_all_its_credentials),
		cmocka_unit_test(bearer_tokens),
		cmocka_unit_test(a_repeated_field_is_refused),
		cmocka_unit_test(answers_as_rfc_6750_says),
		cmocka_unit_test(owners_differ),
		cmocka_unit_test(the_list_of_hashes),
	};
	return crypto_setup() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
