/* retired: a snapshot lives until its last reader has gone, and is freed by who keeps it here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/crypto.h"
#include "flags/source/retired.h"

#define TEXT \
	"{\"flags\": [{\"key\": \"f\", \"type\": \"BOOLEAN_FLAG_TYPE\", \"enabled\": true, \"rollouts\": " \
	"[]}]}"

static struct flag_snapshot *new_snapshot(void)
{
	struct flag_snapshot *s = NULL;
	struct err e;
	assert_int_equal(flag_snapshot_parse_json("test", SPAN_LIT(TEXT), FLAG_RULES_V2, &s, &e), 0);
	return s;
}

static void the_last_reader_frees_nothing(void **state)
{
	(void)state;
	struct loop *loop;
	struct retired *r;
	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(retired_new(loop, &r), 0);
	struct flag_snapshot *read[20];
	for (size_t i = 0; i < 20; i++) {
		read[i] = new_snapshot();
		assert_false(flag_snapshot_shared(read[i]));
		retired_add(r, flag_snapshot_ref(read[i]));
		assert_true(flag_snapshot_shared(read[i]));
	}
	retired_add(r, NULL);
	retired_add(r, new_snapshot()); /* nobody reads this one */
	assert_int_equal(retired_count(r), 21);
	while (retired_count(r) == 21)
		loop_run_once(loop);
	assert_int_equal(retired_count(r), 20);
	for (size_t i = 0; i < 20; i += 2)
		flag_snapshot_unref(read[i]);
	while (retired_count(r) == 20)
		loop_run_once(loop);
	assert_int_equal(retired_count(r), 10);
	for (size_t i = 1; i < 20; i += 2) {
		assert_true(flag_enabled(flag_find(read[i], SPAN_LIT("f"))));
		flag_snapshot_unref(read[i]);
	}
	retired_free(r); /* drops the rest */
	loop_free(loop);
}

int main(void)
{
	crypto_setup();
	const struct CMUnitTest tests[] = {cmocka_unit_test(the_last_reader_frees_nothing)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
