/* carry: used flags that a snapshot lost come from the one before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "flags/carry.h"

static void lost_flags_are_carried(void **state)
{
	(void)state;
	static const char *const used[] = {"a", "b"};
	static const struct {
		const char *text, *old, *out;
		size_t count;
	} cases[] = {
		{"{\"flags\": [{\"key\":\"a\"}]}", "{\"flags\":[{\"key\":\"b\",\"x\":1}]}",
		 "{\"flags\": [{\"key\":\"a\"},{\"key\":\"b\",\"x\":1}]}", 1},
		{"{\"flags\": [ ],\"d\":1}", "{\"flags\":[{\"key\":\"b\"},{\"key\":\"a\"},{\"key\":\"c\"}]}",
		 "{\"flags\": [ {\"key\":\"a\"},{\"key\":\"b\"}],\"d\":1}", 2},
		{"{\"flags\": [{\"key\":\"b\"}]}", "{\"flags\":[{\"key\":\"b\",\"x\":1}]}", "{\"flags\": [{\"key\":\"b\"}]}", 0},
		{"{}", "{\"flags\":[{\"key\":\"a\"}]}", "{\"flags\":[{\"key\":\"a\"}]}", 1},
		{"{\"flags\":[]}", NULL, "{\"flags\":[]}", 0},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
		struct carry_result r;
		assert_int_equal(carry_flags(span_of(cases[i].text), span_of(cases[i].old), used, 2, &out, &r), 0);
		assert_string_equal(out.ptr, cases[i].out);
		assert_int_equal(r.count, cases[i].count);
	}
}

static void what_is_no_json_is_refused(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
	struct carry_result r;
	assert_int_equal(carry_flags(SPAN_LIT("{\"flags\":["), SPAN_NONE, NULL, 0, &out, &r), -EBADMSG);
	assert_int_equal(carry_flags(SPAN_LIT("{}"), SPAN_LIT("{"), NULL, 0, &out, &r), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lost_flags_are_carried),
		cmocka_unit_test(what_is_no_json_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
