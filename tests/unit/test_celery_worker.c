/* What a Celery worker reads and writes, without a server: messages, answers, canvases, revoked ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/json.h"
#include "tasks/celery/worker/answer.h"
#include "tasks/celery/worker/canvas.h"
#include "tasks/celery/worker/incoming.h"
#include "tasks/celery/worker/revoked.h"

#define SIZE 65536

/* --- messages ------------------------------------------------------------------------------------------- */

static void put_message(struct buf *out, const char *content_type, const char *headers, struct span body)
{
	buf_puts(out, "{\"body\": \"");
	base64_encode(body, out);
	buf_printf(out,
		   "\", \"content-type\": \"%s\", \"headers\": %s, \"properties\": {\"delivery_info\": "
		   "{\"exchange\": \"\", \"routing_key\": \"q\"}, \"priority\": 3, \"body_encoding\": "
		   "\"base64\"}}",
		   content_type, headers);
}

static int read_message(struct celery_incoming *m, struct buf *text, const char *headers, const char *body,
			struct err *e)
{
	buf_init(text, SIZE);
	put_message(text, "application/json", headers, span_of(body));
	*m = CELERY_INCOMING_INIT;
	return celery_incoming_read(m, buf_span(text), e);
}

#define HEADERS \
	"{\"task\": \"add\", \"id\": \"i-1\", \"retries\": 2, \"timelimit\": [1.5, 1], \"group\": \"g\", " \
	"\"group_index\": 0}"

static void protocol_2_is_read(void **state)
{
	struct celery_incoming m;
	struct buf text;
	struct err e;
	(void)state;
	assert_int_equal(read_message(&m, &text, HEADERS,
				      "[[1, 2.0], {\"k\": 9007199254740993}, {\"callbacks\": null, "
				      "\"chain\": [{\"task\": \"b\"}], "
				      "\"chord\": {\"task\": \"c\"}}]",
				      &e),
			 CELERY_INCOMING_GOOD);
	assert_string_equal(m.id, "i-1");
	assert_string_equal(m.task, "add");
	assert_true(span_is(m.args, "[1, 2.0]"));
	assert_true(span_is(m.kwargs, "{\"k\": 9007199254740993}"));
	assert_true(span_is(m.chain, "[{\"task\": \"b\"}]") && span_is(m.chord, "{\"task\": \"c\"}") &&
		    !m.callbacks.ptr);
	assert_int_equal(m.retries, 2);
	assert_int_equal(m.hard_ms, 1500);
	assert_int_equal(m.soft_ms, 1000);
	assert_true(span_is(m.group, "\"g\"") && span_is(m.group_index, "0") && !m.protocol1);
	celery_incoming_release(&m);
	buf_release(&text);
}

static void protocol_1_is_read(void **state)
{
	struct celery_incoming m;
	struct buf text;
	struct err e;
	(void)state;
	assert_int_equal(
		read_message(&m, &text, "{}",
			     "{\"task\": \"add\", \"id\": \"i\", \"args\": [1], \"kwargs\": {}, \"eta\": "
			     "\"1970-01-01T00:00:01.5\", \"expires\": \"1970-01-01T01:00:02+01:00\", "
			     "\"taskset\": \"g\", "
			     "\"callbacks\": [{\"task\": \"b\"}]}",
			     &e),
		CELERY_INCOMING_GOOD);
	assert_true(m.protocol1 && span_is(m.args, "[1]") && span_is(m.group, "\"g\""));
	assert_true(span_is(m.callbacks, "[{\"task\": \"b\"}]"));
	assert_int_equal(m.eta_us, 1500000);
	assert_int_equal(m.expires_us, 2000000);
	celery_incoming_release(&m);
	buf_release(&text);
}

static void values_of_kombus_types_are_plain_for_handlers(void **state)
{
	struct celery_incoming m;
	struct buf text;
	struct err e;
	(void)state;
	assert_int_equal(read_message(&m, &text, HEADERS,
				      "[[{\"__type__\": \"decimal\", \"__value__\": \"1.50\"}], {\"u\": "
				      "{\"__type__\": \"uuid\", "
				      "\"__value__\": {\"hex\": \"0123456789abcdef0123456789abcdef\"}}}, {}]",
				      &e),
			 CELERY_INCOMING_GOOD);
	assert_true(span_is(m.args, "[\"1.50\"]"));
	assert_null(memmem(m.kwargs.ptr, m.kwargs.len, "__type__", 8));
	celery_incoming_release(&m);
	buf_release(&text);
}

static void what_is_not_taken_says_why(void **state)
{
	static const struct {
		const char *headers, *body;
		int verdict;
	} rows[] = {
		{"{}", "[[], {}, {}]", CELERY_INCOMING_NO_TASK},
		{"{\"task\": \"add\"}", "[[], {}, {}]", CELERY_INCOMING_NO_TASK},
		{"{\"task\": \"add\", \"id\": \"i\"}", "not JSON", CELERY_INCOMING_INVALID},
		{"{\"task\": \"add\", \"id\": \"i\"}", "[[], [], {}]", CELERY_INCOMING_INVALID},
		{"{\"task\": \"add\", \"id\": \"i\"}", "[{}, {}, {}]", CELERY_INCOMING_INVALID},
		{"{\"task\": \"add\", \"id\": \"i\", \"eta\": \"soon\"}", "[[], {}, {}]",
		 CELERY_INCOMING_INVALID},
		{"{\"task\": \"add\", \"id\": \"i\", \"compression\": \"application/x-bz2\"}", "x",
		 CELERY_INCOMING_REFUSED},
		{"{\"task\": \"add\", \"id\": \"i\", \"compression\": \"zlib\"}", "no zlib",
		 CELERY_INCOMING_INVALID},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct celery_incoming m;
		struct buf text;
		struct err e = {""};
		assert_int_equal(read_message(&m, &text, rows[i].headers, rows[i].body, &e), rows[i].verdict);
		assert_true(e.text[0]);
		celery_incoming_release(&m);
		buf_release(&text);
	}
	static const char *const none[] = {"",	  "no message",	   "{}",
					   "[1]", "{\"body\": 1}", "{\"body\": \"x\"}"};
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		struct celery_incoming m = CELERY_INCOMING_INIT;
		struct err e = {""};
		assert_true(celery_incoming_read(&m, span_of(none[i]), &e) > 0 && e.text[0]);
		celery_incoming_release(&m);
	}
}

static void pickle_is_refused_and_its_id_known(void **state)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(SIZE);
	struct celery_incoming m = CELERY_INCOMING_INIT;
	struct err e;
	(void)state;
	put_message(&text, "application/x-python-serialize", HEADERS, SPAN_LIT("\x80"));
	assert_int_equal(celery_incoming_read(&m, buf_span(&text), &e), CELERY_INCOMING_REFUSED);
	assert_string_equal(m.id, "i-1");
	assert_string_equal(m.content, "content type application/x-python-serialize");
	celery_incoming_release(&m);
}

static void instants_are_pythons(void **state)
{
	int64_t us;
	(void)state;
	assert_true(celery_instant_read(SPAN_LIT("2026-11-28T18:00:00.123456+00:00"), &us));
	assert_int_equal(us % 1000000, 123456);
	assert_true(celery_instant_read(SPAN_LIT("1970-01-01T00:00:00Z"), &us) && us == 0);
	assert_true(celery_instant_read(SPAN_LIT("1970-01-01 00:00:00-0130"), &us) && us == 5400000000);
	static const char *const wrong[] = {"",
					    "now",
					    "2026-11-28",
					    "2026-13-28T18:00:00",
					    "2026-11-28T18:00:00+1",
					    "2026-11-28T18:00:00Zx"};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_false(celery_instant_read(span_of(wrong[i]), &us));
}

static void a_message_that_goes_back_says_so(void **state)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(SIZE);
	static const struct span parts[] = {
		SPAN_INIT("/headers/redelivered"), SPAN_INIT("/properties/delivery_info/redelivered"),
		SPAN_INIT("/headers/id"), SPAN_INIT("/properties/delivery_info/routing_key"),
		SPAN_INIT("/body")};
	struct span f[5];
	(void)state;
	const struct span message = SPAN_LIT(
		"{\"body\": \"b\", \"headers\": {\"id\": \"i\", \"redelivered\": false}, \"properties\": "
		"{\"delivery_info\": {\"exchange\": \"\", \"routing_key\": \"q\"}}}");
	assert_int_equal(celery_put_redelivered(message, &out), 0);
	assert_int_equal(json_pointers(buf_span(&out), parts, 5, f, NULL), 0);
	assert_true(span_is(f[0], "true") && span_is(f[1], "true") && span_is(f[2], "\"i\"") &&
		    span_is(f[3], "\"q\"") && span_is(f[4], "\"b\""));
}

static void answers_are_celerys(void **state)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(SIZE), exception = BUF_INIT(SIZE);
	(void)state;
	const struct celery_answer a = {.status = "SUCCESS",
					.result = SPAN_LIT("3"),
					.done_us = 1500000,
					.id = SPAN_LIT("i"),
					.group = SPAN_LIT("\"g\"")};
	celery_put_answer(&a, &out);
	assert_string_equal(out.ptr,
			    "{\"status\": \"SUCCESS\", \"result\": 3, \"traceback\": null, \"children\": [], "
			    "\"date_done\": "
			    "\"1970-01-01T00:00:01.500000+00:00\", \"group_id\": \"g\", \"task_id\": \"i\"}");
	celery_put_exception("ValueError", "builtins", SPAN_LIT("no \"way\""), &exception);
	assert_string_equal(exception.ptr, "{\"exc_type\": \"ValueError\", \"exc_message\": [\"no "
					   "\\\"way\\\"\"], \"exc_module\": \"builtins\"}");
}

/* --- canvases ------------------------------------------------------------------------------------------- */

struct applied {
	struct celery_options c;
	struct celery_sender sender;
	struct canvas v;
	struct err why;
	struct buf body;
};

static int apply(struct applied *a, const char *signature, const struct canvas_call *call)
{
	memset(a, 0, sizeof(*a));
	buf_init(&a->body, SIZE);
	celery_sender_init(&a->sender);
	canvas_init(&a->v, &a->c, &a->sender, "celery");
	return canvas_apply(&a->v, span_of(signature), call, &a->why);
}

static void done(struct applied *a)
{
	canvas_release(&a->v);
	buf_release(&a->body);
}

/* The value at a pointer of a message's body. */
static const char *body_at(struct applied *a, size_t i, const char *pointer, struct buf *out)
{
	struct span coded, value;
	buf_clear(&a->body);
	buf_clear(out);
	assert_true(i < a->v.n_messages);
	assert_true(json_pointer(buf_span(&a->v.messages[i].text), SPAN_LIT("/body"), &coded));
	assert_int_equal(base64_decode((struct span){coded.ptr + 1, coded.len - 2}, &a->body), 0);
	assert_int_equal(json_validate(buf_span(&a->body), NULL), 0);
	if (json_pointer(buf_span(&a->body), span_of(pointer), &value))
		buf_append_span(out, value);
	return out->len ? out->ptr : "";
}

static const char *header_at(struct applied *a, size_t i, const char *pointer, struct buf *out)
{
	struct span value;
	buf_clear(out);
	if (json_pointer(buf_span(&a->v.messages[i].text), span_of(pointer), &value))
		buf_append_span(out, value);
	return out->len ? out->ptr : "";
}

static void a_link_of_a_chain_gets_the_result_and_the_rest(void **state)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(SIZE);
	struct applied a;
	(void)state;
	const struct canvas_call call = {.args = SPAN_LIT("[3]"),
					 .chain = SPAN_LIT("[{\"task\": \"last\"}]"),
					 .root_id = SPAN_LIT("\"root\""),
					 .parent_id = SPAN_LIT("\"parent\"")};
	assert_int_equal(apply(&a,
			       "{\"task\": \"mul\", \"args\": [4], \"kwargs\": {\"k\": 1.0}, \"options\": "
			       "{\"task_id\": \"m\", \"queue\": "
			       "\"q2\", \"priority\": 6}, \"subtask_type\": null, \"immutable\": false}",
			       &call),
			 0);
	assert_int_equal(a.v.n_messages, 1);
	assert_string_equal(a.v.messages[0].queue.ptr, "q2");
	assert_int_equal(a.v.messages[0].priority, 6);
	assert_string_equal(body_at(&a, 0, "/0", &out), "[3, 4]");
	assert_string_equal(body_at(&a, 0, "/1", &out), "{\"k\": 1.0}");
	assert_string_equal(body_at(&a, 0, "/2/chain", &out), "[{\"task\": \"last\"}]");
	assert_string_equal(header_at(&a, 0, "/headers/root_id", &out), "\"root\"");
	assert_string_equal(header_at(&a, 0, "/headers/parent_id", &out), "\"parent\"");
	assert_string_equal(header_at(&a, 0, "/headers/id", &out), "\"m\"");
	assert_string_equal(a.v.children.ptr, "[[\"m\", null], null]");
	done(&a);
	assert_int_equal(apply(&a, "{\"task\": \"mul\", \"args\": [4], \"immutable\": true}", &call), 0);
	assert_string_equal(body_at(&a, 0, "/0", &out), "[4]");
	assert_string_equal(a.v.messages[0].queue.ptr, "celery");
	done(&a);
}

static void the_parts_of_a_chord_know_their_body_and_its_size_is_known_first(void **state)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(SIZE);
	struct applied a;
	(void)state;
	const struct canvas_call call = {.args = SPAN_LIT("[1]"),
					 .chain = SPAN_LIT("[{\"task\": \"after\"}]")};
	assert_int_equal(apply(&a,
			       "{\"task\": \"celery.chord\", \"kwargs\": {\"header\": {\"task\": "
			       "\"celery.group\", \"kwargs\": {\"tasks\": "
			       "[{\"task\": \"a\", \"options\": {\"task_id\": \"a\"}}, {\"task\": "
			       "\"celery.chain\", \"kwargs\": {\"tasks\": "
			       "[{\"task\": \"b\"}, {\"task\": \"c\", \"options\": {\"task_id\": "
			       "\"c\"}}]}}]}, \"options\": {\"task_id\": "
			       "\"g\"}}, \"body\": {\"task\": \"sum\", \"options\": {\"task_id\": \"s\"}}}, "
			       "\"subtask_type\": \"chord\"}",
			       &call),
			 0);
	assert_int_equal(a.v.n_sizes, 1);
	assert_string_equal(a.v.sizes[0].group, "g");
	assert_int_equal(a.v.sizes[0].n, 2);
	assert_int_equal(a.v.n_messages, 2);
	assert_string_equal(header_at(&a, 0, "/headers/group", &out), "\"g\"");
	assert_string_equal(header_at(&a, 0, "/headers/group_index", &out), "0");
	assert_string_equal(body_at(&a, 0, "/2/chord/options/task_id", &out), "\"s\"");
	assert_string_equal(body_at(&a, 0, "/2/chord/options/chain/0/task", &out), "\"after\"");
	assert_string_equal(body_at(&a, 0, "/2/chain", &out), "null");
	/* Of a chain its last one is the part. */
	assert_string_equal(header_at(&a, 1, "/headers/group", &out), "null");
	assert_string_equal(body_at(&a, 1, "/2/chord", &out), "null");
	assert_string_equal(body_at(&a, 1, "/2/chain/0/options/chord/options/task_id", &out), "\"s\"");
	assert_string_equal(body_at(&a, 1, "/2/chain/0/options/group_index", &out), "1");
	assert_string_equal(a.v.children.ptr, "[[\"s\", null], null]");
	done(&a);
}

static void canvases_that_are_not_taken_say_so(void **state)
{
	static const char *const rows[] = {
		"{}",
		"{\"task\": \"celery.chunks\", \"subtask_type\": \"chunks\"}",
		"{\"task\": \"celery.chord\", \"kwargs\": {}}",
	};
	struct applied a;
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct canvas_call call = {.args = SPAN_LIT("[1]")};
		assert_int_equal(apply(&a, rows[i], &call), CANVAS_E_NOT_TAKEN);
		assert_true(a.why.text[0]);
		done(&a);
	}
}

/* --- revoked ids ---------------------------------------------------------------------------------------- */

static void the_newest_revoked_ids_are_known(void **state)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(16u << 20);
	struct celery_revoked r = {0};
	char id[32];
	(void)state;
	assert_false(celery_revoked_has(&r, SPAN_LIT("x")));
	for (unsigned i = 0; i < CELERY_REVOKED_MAX + 10; i++) {
		snprintf(id, sizeof(id), "id-%u", i);
		assert_int_equal(celery_revoked_add(&r, span_of(id)), 0);
		assert_int_equal(celery_revoked_add(&r, span_of(id)), 0);
	}
	assert_int_equal(r.n, CELERY_REVOKED_MAX);
	assert_false(celery_revoked_has(&r, SPAN_LIT("id-9")));
	assert_true(celery_revoked_has(&r, SPAN_LIT("id-10")) && celery_revoked_has(&r, span_of(id)));
	celery_revoked_put(&r, &out);
	assert_int_equal(strncmp(out.ptr, "[\"id-10\", \"id-11\"", 17), 0);
	celery_revoked_release(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(protocol_2_is_read),
		cmocka_unit_test(protocol_1_is_read),
		cmocka_unit_test(values_of_kombus_types_are_plain_for_handlers),
		cmocka_unit_test(what_is_not_taken_says_why),
		cmocka_unit_test(pickle_is_refused_and_its_id_known),
		cmocka_unit_test(instants_are_pythons),
		cmocka_unit_test(a_message_that_goes_back_says_so),
		cmocka_unit_test(answers_are_celerys),
		cmocka_unit_test(a_link_of_a_chain_gets_the_result_and_the_rest),
		cmocka_unit_test(the_parts_of_a_chord_know_their_body_and_its_size_is_known_first),
		cmocka_unit_test(canvases_that_are_not_taken_say_so),
		cmocka_unit_test(the_newest_revoked_ids_are_known),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
