/* Numbers, instants, white space and single constraints, as Go and Flipt take them (protocols/flipt.md,
 * "Constraints"). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <math.h>

#include "base/checksum.h"
#include "base/arena.h"
#include "flags/constraint.h"
#include "flags/number.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void numbers_accepted(void **state)
{
	static const struct {
		const char *text;
		double value;
	} rows[] = {
		{"+5", 5},
		{"05", 5},
		{".1", 0.1},
		{"5.", 5},
		{"1E3", 1000},
		{"1e-1", 0.1},
		{"1_000", 1000},
		{"1_0.0_1e0_2", 1001},
		{"0x10p0", 16},
		{"0X1P4", 16},
		{"0x_1p4", 16},
		{"0x1_0p0", 16},
		{"0x.8p1", 1},
		{"0x1.fffffffffffffp1023", 1.7976931348623157e308},
		{"inf", INFINITY},
		{"-Infinity", -INFINITY},
		{"+INF", INFINITY},
		{"-0", 0},
		{"0e999999999999", 0},
		{"1e-400", 0},
		{"2e-324", 0},
		{"4e-324", 5e-324},
		{"0.000000000000000000000000000000000001e36", 1},
		{"9007199254740993", 9007199254740992.0},
		{"9007199254740993.00000000000000000000001", 9007199254740994.0},
		{"0.1000000000000000055511151231257827", 0.1},
		{"0.30000000000000004", 0.1 + 0.2},
		{"1.7976931348623157e308", 1.7976931348623157e308},
		{"123456789012345e22", 123456789012345e22},
		{"1e22", 1e22},
		{"1e23", 1e23},
	};
	double v;
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		if (!number_parse(span_of(rows[i].text), &v) || v != rows[i].value)
			fail_msg("%s: %.17g", rows[i].text, v);
	}
	assert_true(number_parse(SPAN_LIT("nAn"), &v) && isnan(v));
}

static void numbers_refused(void **state)
{
	static const char *const rows[] = {
		"",	  " 5",	    "5 ",      "1,5",	 "0x10",     "0x",
		"0xp1",	  "1__0",   "_5",      "5_",	 "1_e5",     "1e_5",
		"1e5_",	  "+nan",   "-NaN",    "infi",	 "e5",	     "5e",
		"1e+",	  "--5",    "+",       ".",	 "0b101",    "0o5",
		"1.2.3",  "5abc",   "1e400",   "-1e400", "0x1p2000", "1.7976931348623159e308",
		"0x1p_5", "0x1_p5", "\xd9\xa5"};
	double v;
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		if (number_parse(span_of(rows[i]), &v))
			fail_msg("%s was taken as %.17g", rows[i], v);
	}
	assert_false(number_parse((struct span){"1e3\0", 4}, &v));
}

/* More digits than are kept still round to the right side. */
static void numbers_of_many_digits(void **state)
{
	char text[3000];
	double v;
	(void)state;
	memset(text, '0', sizeof(text));
	memcpy(text, "9007199254740993.", 17);
	assert_true(number_parse((struct span){text, 2999}, &v));
	assert_true(v == 9007199254740992.0); /* a tie: to even */
	text[2900] = '1';
	assert_true(number_parse((struct span){text, 2999}, &v));
	assert_true(v == 9007199254740994.0);
	memset(text, '9', sizeof(text));
	assert_false(number_parse((struct span){text, sizeof(text)}, &v));
	memcpy(text, "0.", 2);
	assert_true(number_parse((struct span){text, sizeof(text)}, &v) && v == 1.0);
}

static void instants(void **state)
{
	static const struct {
		const char *text;
		int64_t seconds;
		int32_t nanos;
	} rows[] = {
		{"1970-01-01", 0, 0},
		{"2024-02-29", 1709164800, 0},
		{"2024-02-29T12:00:00Z", 1709208000, 0},
		{"2024-02-29T5:00:00Z", 1709182800, 0},
		{"2024-02-29T12:00:00,5Z", 1709208000, 500000000},
		{"2024-02-29T12:00:00.4999999999Z", 1709208000, 499999999},
		{"2024-02-29T14:30:00+02:30", 1709208000, 0},
		{"2024-02-29T12:00:00-00:00", 1709208000, 0},
		{"2024-02-29T12:00:00+24:60", 1709118000, 0},
		{"1969-12-31T23:59:59Z", -1, 0},
		{"0000-01-01", -62167219200, 0},
		{"0000-03-01", -62162035200, 0},
		{"0001-01-01T00:00:00Z", -62135596800, 0},
		{"9999-12-31T23:59:59.999999999Z", 253402300799, 999999999},
		{"2000-03-01", 951868800, 0},
		{"1900-03-01", -2203891200, 0},
	};
	static const char *const refused[] = {
		"",
		"2024-02-30",
		"2023-02-29",
		"1900-02-29",
		"2024-13-01",
		"2024-00-10",
		"2024-01-00",
		"2024-2-29",
		"20240301",
		"10000-01-01",
		"-2024-01-01",
		"2024-03-01 ",
		" 2024-03-01",
		"2024-02-29T12:00:00",
		"2024-02-29 12:00:00Z",
		"2024-02-29t12:00:00z",
		"2024-02-29T12:00:00z",
		"2024-02-29T12:00Z",
		"2024-02-29T12:00:60Z",
		"2024-02-29T24:00:00Z",
		"2024-02-29T05:0:00Z",
		"2024-02-29T12:00:00.Z",
		"2024-02-29T12:00:00+0200",
		"2024-02-29T12:00:00+2:00",
		"2024-02-29T12:00:00+02",
		"2024-02-29T12:00:00+25:00",
		"2024-02-29T12:00:00+00:61",
		"2024-02-29T12:00:00Zx",
		"2024-02-29T",
		"yesterday",
	};
	struct instant v;
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		if (!instant_parse(span_of(rows[i].text), &v) || v.seconds != rows[i].seconds ||
		    v.nanos != rows[i].nanos)
			fail_msg("%s: %lld", rows[i].text, (long long)v.seconds);
	}
	for (size_t i = 0; i < COUNT(refused); i++) {
		if (instant_parse(span_of(refused[i]), &v))
			fail_msg("%s was taken", refused[i]);
	}
}

static void white_space(void **state)
{
	static const struct {
		const char *text, *trimmed;
	} rows[] = {
		{"", ""},
		{" a b ", "a b"},
		{"\t\n\v\f\r", ""},
		{"\xc2\x85\xc2\xa0x\xe1\x9a\x80", "x"},
		{"\xe2\x80\x80\xe2\x80\x8ax\xe2\x80\xa8\xe2\x80\xa9", "x"},
		{"\xe2\x80\xaf\xe2\x81\x9fx\xe3\x80\x80", "x"},
		{"\xe2\x80\x8bx", "\xe2\x80\x8bx"}, /* U+200B is no space */
		{"x\xef\xbb\xbf", "x\xef\xbb\xbf"}, /* nor is U+FEFF */
		{"\xc3\xa9\x85", "\xc3\xa9\x85"},   /* nor a stray byte */
		{"\xe2\x80", "\xe2\x80"},
	};
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		if (!span_is(constraint_trim(span_of(rows[i].text)), rows[i].trimmed))
			fail_msg("row %zu", i);
	}
}

static void names(void **state)
{
	enum constraint_type type;
	enum constraint_op op;
	(void)state;
	assert_true(constraint_type_parse(SPAN_LIT("STRING_COMPARISON_TYPE"), &type) &&
		    type == CONSTRAINT_STRING);
	assert_true(constraint_type_parse(SPAN_LIT("ENTITY_ID_CONSTRAINT_COMPARISON_TYPE"), &type) &&
		    type == CONSTRAINT_ENTITY_ID);
	assert_true(constraint_type_parse(SPAN_LIT("number"), &type) && type == CONSTRAINT_NUMBER);
	assert_false(constraint_type_parse(SPAN_LIT("UNKNOWN_COMPARISON_TYPE"), &type));
	assert_true(constraint_op_parse(SPAN_LIT("isnotoneof"), &op) && op == OP_IS_NOT_ONE_OF);
	assert_true(constraint_op_parse(SPAN_LIT("EQ_COMPARISON_OPERATOR"), &op) && op == OP_EQ);
	assert_true(constraint_op_parse(SPAN_LIT("IS_ONE_OF_COMPARISON_OPERATOR"), &op) &&
		    op == OP_IS_ONE_OF);
	assert_false(constraint_op_parse(SPAN_LIT("EQ"), &op));
	assert_false(constraint_op_parse(SPAN_LIT("unknown"), &op));
	assert_false(constraint_op_parse(SPAN_LIT("is_one_of"), &op));
	assert_false(constraint_op_fits(CONSTRAINT_STRING, OP_GT));
	assert_false(constraint_op_fits(CONSTRAINT_BOOLEAN, OP_EQ));
	assert_false(constraint_op_fits(CONSTRAINT_DATETIME, OP_IS_ONE_OF));
	assert_true(constraint_op_fits(CONSTRAINT_NUMBER, OP_IS_ONE_OF));
}

static void constraints(void **state)
{
	static const struct {
		enum constraint_type type;
		enum constraint_op op;
		const char *value, *v;
		bool matches, malformed;
	} rows[] = {{CONSTRAINT_STRING, OP_NEQ, "a", "b", true, false},
		    {CONSTRAINT_STRING, OP_NEQ, "a", "", false, false}, /* nothing matches "" */
		    {CONSTRAINT_STRING, OP_IS_NOT_ONE_OF, "[\"a\"]", "", false, false},
		    {CONSTRAINT_STRING, OP_PREFIX, "a", " ab", true, false}, /* trims */
		    {CONSTRAINT_STRING, OP_EQ, "ab", " ab", false, false},   /* does not */
		    {CONSTRAINT_STRING, OP_SUFFIX, "abc", "bc", false, false},
		    {CONSTRAINT_STRING, OP_EMPTY, "", "\xc2\xa0", true, false},
		    {CONSTRAINT_STRING, OP_IS_ONE_OF, " [\"z\", \"x\\u0041\", \"a\"] ", "xA", true, false},
		    {CONSTRAINT_STRING, OP_IS_ONE_OF, "null", "x", false, false},
		    {CONSTRAINT_STRING, OP_IS_NOT_ONE_OF, "null", "x", true, false},
		    {CONSTRAINT_STRING, OP_IS_NOT_ONE_OF, "[1]", "x", false, true},
		    {CONSTRAINT_STRING, OP_IS_NOT_ONE_OF, "{}", "x", false, true},
		    {CONSTRAINT_STRING, OP_IS_NOT_ONE_OF, "[\"a\"] x", "x", false, true},
		    /* no such operator: not malformed either */
		    {CONSTRAINT_STRING, OP_GT, "1", "2", false, false},
		    {CONSTRAINT_NUMBER, OP_NEQ, "5", "nan", true, false},
		    {CONSTRAINT_NUMBER, OP_IS_NOT_ONE_OF, "[5]", "nan", true, false},
		    {CONSTRAINT_NUMBER, OP_IS_ONE_OF, "[7, 1e3, -1]", "1000", true, false},
		    {CONSTRAINT_NUMBER, OP_IS_ONE_OF, "[\"7\"]", "7", false, true},
		    {CONSTRAINT_NUMBER, OP_IS_ONE_OF, "[1e400]", "7", false, true},
		    {CONSTRAINT_NUMBER, OP_GTE, "inf", "inf", true, false},
		    {CONSTRAINT_NUMBER, OP_EQ, "x", "1", false, true},
		    {CONSTRAINT_NUMBER, OP_PRESENT, "x", "1", true, false},
		    {CONSTRAINT_NUMBER, OP_LT, "5", "4,9", false, false},
		    {CONSTRAINT_BOOLEAN, OP_TRUE, "false", "T", true, false},
		    {CONSTRAINT_BOOLEAN, OP_TRUE, "", "tRUE", false, false},
		    {CONSTRAINT_BOOLEAN, OP_FALSE, "", "no", false, false},
		    {CONSTRAINT_DATETIME, OP_LT, "2024-03-01", "2024-02-29T23:00:00-01:00", false, false},
		    {CONSTRAINT_DATETIME, OP_EQ, "2024-03-01", "2024-02-29T23:00:00-01:00", true, false},
		    {CONSTRAINT_DATETIME, OP_NEQ, "2024-03-01", "soon", false, false},
		    {CONSTRAINT_DATETIME, OP_NEQ, "soon", "2024-03-01", false, true},
		    {CONSTRAINT_ENTITY_ID, OP_CONTAINS, "", "x", true, false},
		    {CONSTRAINT_OTHER, OP_EQ, "x", "x", false, true}};
	struct arena a = ARENA_INIT(1 << 20);
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct constraint c;
		assert_int_equal(constraint_compile(&a, rows[i].type, rows[i].op, SPAN_LIT("p"),
						    span_of(rows[i].value), &c),
				 0);
		if (c.malformed != rows[i].malformed ||
		    constraint_match(&c, span_of(rows[i].v)) != rows[i].matches)
			fail_msg("row %zu: %s %s", i, constraint_op_text(rows[i].op), rows[i].value);
	}
	arena_release(&a);
}

static void checksum(void **state)
{
	(void)state;
	assert_int_equal(checksum_crc32(CHECKSUM_CRC32_START, SPAN_LIT("123456789")), 0xCBF43926);
	uint32_t part = checksum_crc32(CHECKSUM_CRC32_START, SPAN_LIT("task_abstraction_enabled"));
	assert_int_equal(checksum_crc32(part, SPAN_NONE), part);
	/* flipt.md: the bucket of task_abstraction_enabled/user-1; the threshold hash of
	 * hatchet_backend_enabled/user-2. */
	assert_int_equal(checksum_crc32(part, SPAN_LIT("user-1")) % 1000, 302);
	assert_int_equal(checksum_crc32(0, SPAN_LIT("user-2hatchet_backend_enabled")) % 100, 0);
}

static void arena_has_a_limit(void **state)
{
	struct arena a = ARENA_INIT(200000);
	struct span s;
	(void)state;
	assert_non_null(arena_alloc(&a, 100000, 1));
	assert_null(arena_alloc(&a, 100001, 1));
	assert_null(arena_alloc(&a, SIZE_MAX / 2, 4));
	assert_int_equal(arena_copy(&a, SPAN_LIT("ab\0c"), &s), 0);
	assert_int_equal(s.len, 4);
	assert_int_equal(s.ptr[4], '\0');
	arena_release(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(numbers_accepted),
					   cmocka_unit_test(numbers_refused),
					   cmocka_unit_test(numbers_of_many_digits),
					   cmocka_unit_test(instants),
					   cmocka_unit_test(white_space),
					   cmocka_unit_test(names),
					   cmocka_unit_test(constraints),
					   cmocka_unit_test(checksum),
					   cmocka_unit_test(arena_has_a_limit)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
