/* operation: idempotency keys, as callers write them and as they are kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "operation/idempotency.h"

static enum idempotency_key find(const char *value, struct idempotency_key_text *ret)
{
	const struct http_field fields[] = {
		{SPAN_LIT("Host"), SPAN_LIT("x")},
		{SPAN_LIT("idempotency-key"), span_of(value)},
	};
	return idempotency_key_find(fields, 2, ret);
}

static void keys_are_structured_field_strings(void **state)
{
	(void)state;
	static const struct {
		const char *value, *key; /* NULL: malformed */
	} cases[] = {
		{"\"8e03978e-40d5\"", "8e03978e-40d5"},
		{"  \"a b\" ", "a b"},
		{"\"a\\\"b\\\\c\"", "a\"b\\c"},
		{"\"a\";x=1; y", "a"},
		{"\"a\" ;x", "a"},
		{"\"~ !\"", "~ !"},
		{"", NULL},
		{"8e03978e-40d5", NULL},
		{"\"\"", NULL},
		{"\"", NULL},
		{"\"a", NULL},
		{"a\"", NULL},
		{"\"a\\b\"", NULL},
		{"\"a\\", NULL},
		{"\"a\\\"", NULL},
		{"\"a\" b", NULL},
		{"\"a\", \"b\"", NULL},
		{"\"a\";", NULL},
		{"\"a\tb\"", NULL},
		{"\"caf\xc3\xa9\"", NULL},
		{"'a'", NULL},
		{":YQ==:", NULL},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct idempotency_key_text t;
		enum idempotency_key e = find(cases[i].value, &t);
		if (e != (cases[i].key ? IDEMPOTENCY_KEY_FOUND : IDEMPOTENCY_KEY_MALFORMED))
			fail_msg("%s: %d", cases[i].value, e);
		if (cases[i].key)
			assert_string_equal(t.text, cases[i].key);
	}
}

static void a_key_has_a_limit(void **state)
{
	(void)state;
	struct idempotency_key_text t;
	char value[IDEMPOTENCY_KEY_MAX + 4];
	for (int n = IDEMPOTENCY_KEY_MAX; n <= IDEMPOTENCY_KEY_MAX + 1; n++) {
		snprintf(value, sizeof(value), "\"%0*d\"", n, 0);
		assert_int_equal(find(value, &t), n == IDEMPOTENCY_KEY_MAX ? IDEMPOTENCY_KEY_FOUND
									   : IDEMPOTENCY_KEY_MALFORMED);
	}
	assert_int_equal(strlen(t.text), IDEMPOTENCY_KEY_MAX);
}

static void none_and_two(void **state)
{
	(void)state;
	struct idempotency_key_text t;
	const struct http_field fields[] = {
		{SPAN_LIT("Idempotency-Key"), SPAN_LIT("\"a\"")},
		{SPAN_LIT("Host"), SPAN_LIT("x")},
		{SPAN_LIT("IDEMPOTENCY-KEY"), SPAN_LIT("\"a\"")},
	};
	assert_int_equal(idempotency_key_find(fields + 1, 1, &t), IDEMPOTENCY_KEY_NONE);
	assert_int_equal(idempotency_key_find(fields, 2, &t), IDEMPOTENCY_KEY_FOUND);
	assert_int_equal(idempotency_key_find(fields, 3, &t), IDEMPOTENCY_KEY_MALFORMED);
}

/* No two of these are the same, however their parts are cut. */
static void digests_tell_all_parts_apart(void **state)
{
	(void)state;
	static const char *const parts[][4] = {
		{"s", "op", "owner", "key"}, {"so", "p", "owner", "key"}, {"s", "opo", "wner", "key"},
		{"s", "op", "ownerk", "ey"}, {"s", "op", "owner", "Key"}, {"s", "op", "", "ownerkey"},
	};
	char digests[6][CRYPTO_SHA256_HEX], again[CRYPTO_SHA256_HEX];
	for (int i = 0; i < 6; i++) {
		idempotency_digest(span_of(parts[i][0]), span_of(parts[i][1]), span_of(parts[i][2]),
				   span_of(parts[i][3]), digests[i]);
		for (int j = 0; j < i; j++)
			assert_string_not_equal(digests[i], digests[j]);
	}
	idempotency_digest(SPAN_LIT("s"), SPAN_LIT("op"), SPAN_LIT("owner"), SPAN_LIT("key"), again);
	assert_string_equal(again, digests[0]);
	char a[CRYPTO_SHA256_HEX], b[CRYPTO_SHA256_HEX], x[CRYPTO_ID_HEX], y[CRYPTO_ID_HEX];
	idempotency_fingerprint(SPAN_LIT("POST"), SPAN_LIT("/a"), SPAN_LIT("b"), a);
	idempotency_fingerprint(SPAN_LIT("POST"), SPAN_LIT("/ab"), SPAN_LIT(""), b);
	assert_string_not_equal(a, b);
	idempotency_task_id(digests[0], a, x);
	idempotency_task_id(digests[0], b, y);
	assert_string_not_equal(x, y);
	idempotency_task_id(digests[0], a, y);
	assert_string_equal(x, y);
	assert_int_equal(strlen(x), 32);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_structured_field_strings),
		cmocka_unit_test(a_key_has_a_limit),
		cmocka_unit_test(none_and_two),
		cmocka_unit_test(digests_tell_all_parts_apart),
	};
	return cmocka_run_group_tests_name("idempotency", tests, NULL, NULL);
}
