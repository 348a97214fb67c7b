/* What the Hatchet worker reads and says, without an engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "tasks/hatchet/worker/attempt.h"
#include "tasks/hatchet/worker/catalog.h"
#include "tasks/hatchet/worker/wire.h"

static void a_later_attempt_may_begin_only_if_no_earlier_one_can_have(void **state)
{
	(void)state;
	static const struct {
		const char *rows; /* the newest first */
		int attempt, expected;
		bool begun;
	} cases[] = {
		{"", 1, -EAGAIN, false},
		{"{\"eventType\":\"QUEUED\",\"retryCount\":1}", 1, -EAGAIN, false},
		{"{\"eventType\":\"FAILED\",\"retryCount\":0},{\"eventType\":\"ASSIGNED\",\"retryCount\":0}",
		 1, 0, false},
		{"{\"eventType\":\"REASSIGNED\",\"retryCount\":0},{\"eventType\":\"SENT_TO_WORKER\","
		 "\"retryCount\":0}",
		 1, 0, true},
		{"{\"eventType\":\"TIMED_OUT\",\"retryCount\":0},{\"eventType\":\"STARTED\",\"retryCount\":"
		 "0}",
		 1, 0, true},
		{"{\"eventType\":\"FAILED\",\"retryCount\":0},{\"eventType\":\"STARTED\",\"retryCount\":0}",
		 1, 0, false},
		/* the one in between was not to be reached: that says nothing of the one before it */
		{"{\"eventType\":\"FAILED\",\"retryCount\":1},{\"eventType\":\"REASSIGNED\",\"retryCount\":0}"
		 ","
		 "{\"eventType\":\"SENT_TO_WORKER\",\"retryCount\":0}",
		 2, 0, true},
		{"{\"eventType\":\"RETRIED_BY_USER\",\"retryCount\":0},{\"eventType\":\"STARTED\","
		 "\"retryCount\":0}",
		 1, 0, false},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(buf_releasep) struct buf body = BUF_INIT(4096);
		bool begun = false;
		buf_printf(&body, "{\"rows\":[%s]}", cases[i].rows);
		int r = hatchet_read_history(buf_span(&body), cases[i].attempt, &begun);
		if (r != cases[i].expected || begun != cases[i].begun)
			fail_msg("%zu: %d, %d", i, r, begun);
	}
	bool begun;
	assert_int_equal(hatchet_read_history(SPAN_LIT("<html>"), 1, &begun), -EBADMSG);
	assert_int_equal(hatchet_read_history(SPAN_LIT("{\"rows\":null}"), 1, &begun), -EBADMSG);
}

static void results_are_told_as_the_engine_keeps_them(void **state)
{
	(void)state;
	static const struct {
		const char *result, *expected; /* NULL: not told */
	} cases[] = {{"3", "{\"t\":3}"},
		     {"null", "{\"t\":null}"},
		     {"[1]", "{\"t\":[1]}"},
		     {"{\"a\":1}", "{\"a\":1}"},
		     {"{}", "{}"},
		     {"{\"t\":1}", "{\"t\":{\"t\":1}}"},
		     {"{\"t\":1,\"u\":2}", "{\"t\":1,\"u\":2}"},
		     {"1e400", NULL},
		     {"12345678901234567890", NULL},
		     {"\"\xff\"", NULL}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
		struct err e = {""};
		int r = hatchet_put_output(SPAN_LIT("t"), span_of(cases[i].result), &out, &e);
		if (!cases[i].expected) {
			assert_true(r < 0 && e.text[0]);
			continue;
		}
		assert_int_equal(r, 0);
		assert_string_equal(out.ptr, cases[i].expected);
	}
}

static void calls_are_read_by_the_convention(void **state)
{
	(void)state;
	struct hatchet_call c;
	struct err e = {""};
	assert_int_equal(hatchet_call_read(SPAN_LIT("{\"input\":{\"args\":[1],\"kwargs\":{\"a\":2}}}"),
					   SPAN_LIT("{\"x_migration_shadow\":\"1\",\"task_id\":\"ab\"}"), &c,
					   &e),
			 0);
	assert_true(span_is(c.args, "[1]") && span_is(c.kwargs, "{\"a\":2}") && c.shadow);
	assert_string_equal(c.task_id, "ab");
	assert_int_equal(hatchet_call_read(SPAN_LIT("{\"input\":{}}"), SPAN_NONE, &c, &e), 0);
	assert_true(span_is(c.args, "[]") && span_is(c.kwargs, "{}"));
	assert_int_equal(hatchet_call_read(SPAN_LIT("{\"input\":{\"args\":{}}}"), SPAN_NONE, &c, &e),
			 -EINVAL);
	assert_int_equal(hatchet_call_read(SPAN_LIT("nothing"), SPAN_NONE, &c, &e), -EINVAL);
}

static void bytes_that_are_no_message_are_said_to_be_none(void **state)
{
	(void)state;
	struct hatchet_action a;
	char id[HATCHET_WORKER_ID_MAX] = "";
	assert_int_equal(hatchet_wire_read_action(SPAN_LIT("\x0a\xff\xff"), &a), -EBADMSG);
	hatchet_action_release(&a);
	assert_int_equal(hatchet_wire_read_action(SPAN_LIT(""), &a), 0); /* all fields are optional */
	assert_string_equal(a.task_run_id, "");
	hatchet_action_release(&a);
	assert_int_equal(hatchet_wire_read_register(SPAN_LIT(""), id), -EBADMSG);
	assert_int_equal(hatchet_wire_read_register(SPAN_LIT("\x12\x02id"), id), 0);
	assert_string_equal(id, "id");
}

static void a_catalog_has_what_the_engine_takes(void **state)
{
	(void)state;
	struct registry *r = NULL;
	struct hatchet_catalog *c = NULL;
	struct err e = {""};
	const char *const queues[] = {"default"}, *const others[] = {"nobody's"};
	assert_int_equal(registry_core(&r), 0);
	assert_int_equal(hatchet_catalog_new(r, others, 1, &c, &e), -EINVAL);
	assert_int_equal(hatchet_catalog_new(r, queues, 1, &c, &e), 0);
	registry_free(r);
	const struct hatchet_entry *n = hatchet_catalog_find(c, "add_numbers_workflow:add_numbers");
	assert_non_null(n);
	assert_string_equal(c->workflows[n->workflow].name, "add_numbers_workflow");
	assert_null(hatchet_catalog_find(c, "add_numbers"));
	hatchet_catalog_free(c);
	CLEANUP(buf_releasep) struct buf name = BUF_INIT(100);
	hatchet_put_worker_name(SPAN_LIT("w@host/a b.c-d_e"), &name);
	assert_string_equal(name.ptr, "w-host-a-b.c-d_e");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_later_attempt_may_begin_only_if_no_earlier_one_can_have),
		cmocka_unit_test(results_are_told_as_the_engine_keeps_them),
		cmocka_unit_test(calls_are_read_by_the_convention),
		cmocka_unit_test(bytes_that_are_no_message_are_said_to_be_none),
		cmocka_unit_test(a_catalog_has_what_the_engine_takes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
