/* router/http/sessions: browsers that have shown a token. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "router/http/sessions.h"

static int setup(void **state)
{
	return crypto_setup() < 0 ? -1 : sessions_new((struct sessions **)state);
}

static int teardown(void **state)
{
	*state = sessions_free(*state);
	return 0;
}

static void hash_of(const char *token, char hash[CRYPTO_SHA256_HEX])
{
	crypto_sha256_hex(span_of(token), hash);
}

static void begin(struct sessions *s, const char *token, int64_t now_ms, char cookie[SESSIONS_COOKIE])
{
	char hash[CRYPTO_SHA256_HEX];
	hash_of(token, hash);
	sessions_begin(s, hash, now_ms, 1000, cookie);
}

static bool is_open(struct sessions *s, const char *cookie, int64_t now_ms)
{
	struct session found;
	return sessions_find(s, span_of(cookie), now_ms, &found);
}

static void a_session_is_known_by_its_cookie_alone(void **state)
{
	char cookie[SESSIONS_COOKIE], other[SESSIONS_COOKIE], hash[CRYPTO_SHA256_HEX];
	struct session found, second;
	begin(*state, "a", 0, cookie);
	begin(*state, "a", 0, other);
	hash_of("a", hash);
	assert_int_equal(strlen(cookie), SESSIONS_COOKIE - 1);
	assert_string_not_equal(cookie, other);
	assert_true(sessions_find(*state, span_of(cookie), 0, &found));
	assert_true(sessions_find(*state, span_of(other), 0, &second));
	assert_string_equal(found.token, hash);
	assert_string_not_equal(found.form, second.form);
	cookie[5] = cookie[5] == 'a' ? 'b' : 'a';
	assert_false(is_open(*state, cookie, 0));
	assert_false(is_open(*state, "", 0));
	assert_false(is_open(*state, hash, 0)); /* what is kept opens nothing */
}

static void it_ends_with_its_time_and_when_it_is_told_to(void **state)
{
	char cookie[SESSIONS_COOKIE], other[SESSIONS_COOKIE];
	begin(*state, "a", 0, cookie);
	begin(*state, "a", 500, other);
	assert_true(is_open(*state, cookie, 999));
	assert_false(is_open(*state, cookie, 1000)); /* using it does not prolong it */
	assert_true(is_open(*state, other, 1000));
	sessions_end(*state, span_of(other));
	assert_false(is_open(*state, other, 1000));
}

static void one_token_displaces_only_its_own(void **state)
{
	char mine[SESSIONS_COOKIE], first[SESSIONS_COOKIE], last[SESSIONS_COOKIE];
	begin(*state, "mine", 0, mine);
	begin(*state, "theirs", 1, first);
	for (int i = 0; i < 1000; i++)
		begin(*state, "theirs", 2 + i % 2, last);
	assert_true(is_open(*state, mine, 3));
	assert_true(is_open(*state, last, 3));
	assert_false(is_open(*state, first, 3));
}

static void when_all_is_full_the_one_not_used_for_longest_makes_room(void **state)
{
	char used[SESSIONS_COOKIE], unused[SESSIONS_COOKIE], more[SESSIONS_COOKIE];
	char token[16];
	begin(*state, "used", 0, used);
	begin(*state, "unused", 1, unused);
	for (int i = 2; i < SESSIONS_MAX; i++) {
		snprintf(token, sizeof(token), "%d", i);
		begin(*state, token, i, more);
	}
	assert_true(is_open(*state, used, 300));
	begin(*state, "one more", 301, more);
	assert_true(is_open(*state, used, 302));
	assert_true(is_open(*state, more, 302));
	assert_false(is_open(*state, unused, 302));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_session_is_known_by_its_cookie_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(it_ends_with_its_time_and_when_it_is_told_to, setup,
						teardown),
		cmocka_unit_test_setup_teardown(one_token_displaces_only_its_own, setup, teardown),
		cmocka_unit_test_setup_teardown(when_all_is_full_the_one_not_used_for_longest_makes_room,
						setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
