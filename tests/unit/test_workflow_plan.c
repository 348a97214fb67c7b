/* A workflow's plan: what begins when, with what; how the whole ends; going on after a crash; frozen ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "support/workflow_yaml.h"
#include "tasks/workflow/workflow_plan.h"

#define RESULTS_MAX 600

/* A driver without anything to drive: it writes down what begins, and keeps the results. */
struct driver {
	struct workflow_yaml y;
	struct arena memory;
	const struct workflow_definition *w;
	struct workflow_plan *plan;
	struct workflow_source source;
	struct buf begun; /* "name[item] args kwargs\n" */
	struct {
		unsigned step, item;
		char *result;
	} results[RESULTS_MAX];
	size_t n_results;
	int refuse; /* what begin returns, after that many */
	unsigned refuse_after;
	bool blind; /* results cannot be had */
};

static int result_of(void *arg, unsigned step, unsigned item, struct span *ret, struct err *e)
{
	struct driver *d = arg;
	if (d->blind)
		return err_set(e, -ENOENT, "the disk is away");
	for (size_t i = 0; i < d->n_results; i++)
		if (d->results[i].step == step && d->results[i].item == item) {
			*ret = span_of(d->results[i].result);
			return 0;
		}
	fail_msg("a result was asked for that is not there: %u %u", step, item);
	return -ENOENT;
}

static int begin(void *arg, const struct workflow_begin *b)
{
	struct driver *d = arg;
	if (d->refuse && d->refuse_after-- == 0)
		return d->refuse;
	buf_printf(&d->begun, "%.*s", SPAN_ARG(b->definition->name));
	if (b->definition->over)
		buf_printf(&d->begun, "[%u/%u]", b->item, b->n_items);
	if (b->key.ptr)
		buf_printf(&d->begun, "%.*s", SPAN_ARG(b->key));
	buf_printf(&d->begun, " %.*s %.*s\n", SPAN_ARG(b->args), SPAN_ARG(b->kwargs));
	return 0;
}

/* Through JSON: what the plan gets is always the frozen form. */
static void driver_start(struct driver *d, const char *yaml, const char *args, const char *kwargs)
{
	CLEANUP(buf_releasep) struct buf json = BUF_INIT(1 << 20);
	struct workflow_definition *w = NULL;
	struct err e = {""};
	memset(d, 0, sizeof(*d));
	assert_int_equal(workflow_yaml_read(&d->y, span_of(yaml)), 0);
	assert_string_equal(d->y.problems.ptr ? d->y.problems.ptr : "", "");
	assert_int_equal(workflow_to_json(&d->y.w, &json), 0);
	d->memory = ARENA_INIT(1 << 20);
	assert_int_equal(workflow_from_json(buf_span(&json), &d->memory, &w, &e), 0);
	d->w = w;
	d->plan = workflow_plan_new(d->w);
	assert_non_null(d->plan);
	d->begun = BUF_INIT(1 << 22);
	d->source = (struct workflow_source){
		.args = span_of(args), .kwargs = span_of(kwargs), .arg = d, .result = result_of};
}

static void driver_release(struct driver *d)
{
	for (size_t i = 0; i < d->n_results; i++)
		free(d->results[i].result);
	workflow_plan_free(d->plan);
	buf_release(&d->begun);
	arena_release(&d->memory);
	workflow_yaml_release(&d->y);
}

/* What begins now. */
static void expect_next(struct driver *d, const char *expected)
{
	struct err e = {""};
	buf_clear(&d->begun);
	assert_int_equal(workflow_plan_next(d->plan, &d->source, begin, d, &e), 0);
	assert_string_equal(d->begun.ptr ? d->begun.ptr : "", expected);
}

static unsigned step_of(const struct driver *d, const char *name)
{
	size_t i = workflow_find_step(d->w, span_of(name));
	assert_true(i < d->w->n_steps);
	return (unsigned)i;
}

static void completed(struct driver *d, const char *step, unsigned item, const char *result)
{
	const struct workflow_end end = {.step = step_of(d, step), .item = item};
	assert_true(d->n_results < RESULTS_MAX);
	d->results[d->n_results].step = end.step;
	d->results[d->n_results].item = item;
	d->results[d->n_results++].result = strdup(result);
	assert_int_equal(workflow_plan_ended(d->plan, &end), 0);
}

static void failed(struct driver *d, const char *step, unsigned item, const char *error)
{
	const struct workflow_end end = {.step = step_of(d, step),
					 .item = item,
					 .kind = WORKFLOW_END_FAILED,
					 .error = span_of(error),
					 .detail = SPAN_LIT("where")};
	assert_int_equal(workflow_plan_ended(d->plan, &end), 0);
}

static void expect_result(struct driver *d, const char *expected)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(1 << 22);
	struct err e = {""};
	expect_next(d, "");
	assert_int_equal(workflow_plan_state(d->plan), WORKFLOW_COMPLETED);
	assert_int_equal(workflow_plan_result(d->plan, &d->source, &out, &e), 0);
	assert_int_equal(json_validate(buf_span(&out), &e), 0);
	assert_string_equal(out.ptr, expected);
}

static void expect_error(struct driver *d, const char *expected)
{
	assert_int_equal(workflow_plan_state(d->plan), WORKFLOW_FAILED);
	struct workflow_failure f = workflow_plan_error(d->plan);
	CLEANUP(freep) char *text = span_dup(f.error);
	assert_string_equal(text, expected);
	expect_next(d, "");
}

/* --- order and values ----------------------------------------------------------------------------------- */

static void a_sequence_hands_each_result_on(void **state)
{
	(void)state;
	struct driver d;
	driver_start(
		&d,
		"name: w\nsteps: [a, [b, {x: 1.0}], {task: c, input: workflow, kwargs: {k: mine}}, {task: d, "
		"input: none}]\n",
		"[9007199254740993, {\"a\": 1}]", "{\"k\": 2, \"l\": 3}");
	expect_next(&d, "a [9007199254740993, {\"a\": 1}] {\"k\":2,\"l\":3}\n");
	expect_next(&d, "");
	completed(&d, "a", 0, "1e400");
	expect_next(&d, "b [1e400] {\"x\":1.0}\n");
	completed(&d, "b", 0, "null");
	expect_next(&d, "c [9007199254740993, {\"a\": 1}] {\"l\":3,\"k\":\"mine\"}\n");
	completed(&d, "c", 0, "[]");
	expect_next(&d, "d [] {}\n");
	assert_int_equal(workflow_plan_state(d.plan), WORKFLOW_GOES_ON);
	completed(&d, "d", 0, "-0.0");
	expect_result(&d, "{\"a\":1e400,\"b\":null,\"c\":[],\"d\":-0.0}");
	driver_release(&d);
}

/* A worker may take the first of two keys that are equal: the caller's would stand. */
static void a_caller_replaces_no_argument_by_another_spelling(void **state)
{
	(void)state;
	struct driver d;
	driver_start(&d, "name: w\nsteps: [[a, {tenant: mine}]]\n", "[]",
		     "{\"\\u0074enant\": \"theirs\", \"\\u0074o\": 1}");
	expect_next(&d, "a [] {\"\\u0074o\":1,\"tenant\":\"mine\"}\n");
	driver_release(&d);
}

static void a_graph_begins_what_has_all_its_parents(void **state)
{
	(void)state;
	struct driver d;
	driver_start(
		&d,
		"name: w\nsteps:\n"
		"  - {task: d, parents: [c, b], kwargs: {x: {$ref: 'step:a/n'}}}\n"
		"  - {task: a, parents: []}\n"
		"  - {task: b, parents: [a]}\n"
		"  - {task: c, parents: [a], input: {one: {$ref: 'step:a/n'}, two: [{$ref: 'input:/q'}]}}\n"
		"  - {task: e, parents: []}\n",
		NULL, "{\"q\": 7}");
	expect_next(&d, "a [] {\"q\":7}\ne [] {\"q\":7}\n");
	completed(&d, "a", 0, "{\"n\": 1.50}");
	expect_next(&d, "b [{\"n\": 1.50}] {}\nc [{\"one\":1.50,\"two\":[7]}] {}\n");
	completed(&d, "c", 0, "\"C\"");
	expect_next(&d, "");
	completed(&d, "b", 0, "\"B\"");
	expect_next(&d, "d [[\"B\",\"C\"]] {\"x\":1.50}\n");
	completed(&d, "d", 0, "4");
	expect_next(&d, "");
	assert_int_equal(workflow_plan_state(d.plan), WORKFLOW_GOES_ON);
	completed(&d, "e", 0, "5");
	expect_result(&d, "{\"d\":4,\"a\":{\"n\": 1.50},\"b\":\"B\",\"c\":\"C\",\"e\":5}");
	driver_release(&d);
}

static void references_find_values_or_their_defaults(void **state)
{
	(void)state;
	struct driver d;
	driver_start(&d,
		     "name: w\nsteps:\n"
		     "  - {task: a, name: 'x/y~z'}\n"
		     "  - task: b\n"
		     "    args: [{$ref: 'step:x~1y~0z/v'}, {$ref: 'args:/1'}, {$ref: 'kwargs:/k'}, {$ref: "
		     "'input:/k'},"
		     " {$ref: 'input:/no', default: {$ref: 'kwargs:/no', default: [d]}}, {$ref: '#/x'},"
		     " {$ref: 'step:x~1y~0z/null', default: 1}, {$ref: 'input:/no', optional: true}]\n"
		     "    kwargs: {a: {$ref: 'input:/no', optional: true}, b: 1,"
		     " c: {$ref: 'input:/k', optional: true}, d: {$ref: 'args:/7', optional: true}}\n",
		     "[{\"k\": \"first\"}, \"second\"]", "{\"k\": \"kw\"}");
	expect_next(&d, "x/y~z [{\"k\": \"first\"}, \"second\"] {\"k\":\"kw\"}\n");
	completed(&d, "x/y~z", 0, "{\"v\": 1, \"null\": null}");
	expect_next(&d, "b [1,\"second\",\"kw\",\"first\",[\"d\"],{\"$ref\":\"#/x\"},null,null] "
			"{\"b\":1,\"c\":\"first\"}\n");
	driver_release(&d);
}

static void a_value_that_is_not_there_fails_the_whole(void **state)
{
	(void)state;
	struct driver d;
	driver_start(&d, "name: w\nsteps: [a, {task: b, input: {x: {$ref: 'step:a/x'}}}]\n", "[]", "{}");
	expect_next(&d, "a [] {}\n");
	completed(&d, "a", 0, "{\"y\": 1}");
	expect_next(&d, "");
	expect_error(&d, "step \"b\": there is nothing at step:a/x");
	driver_release(&d);
}

static void the_result_is_as_declared(void **state)
{
	(void)state;
	struct driver d;
	driver_start(
		&d,
		"name: w\nsteps: [a, b]\nresult: {processed: {$ref: 'step:b/r'}, for: {$ref: 'input:/id'}}\n",
		"[{\"id\": 12345678901234567890}]", NULL);
	expect_next(&d, "a [{\"id\": 12345678901234567890}] {}\n");
	completed(&d, "a", 0, "1");
	expect_next(&d, "b [1] {}\n");
	completed(&d, "b", 0, "{\"r\": [1.0]}");
	expect_result(&d, "{\"processed\":[1.0],\"for\":12345678901234567890}");
	driver_release(&d);
	driver_start(&d, "name: w\nsteps: [a]\nresult: {$ref: 'step:a/r'}\n", "[]", NULL);
	expect_next(&d, "a [] {}\n");
	completed(&d, "a", 0, "{}");
	expect_next(&d, "");
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(1000);
	struct err e = {""};
	assert_int_equal(workflow_plan_result(d.plan, &d.source, &out, &e), -ENOENT);
	assert_string_equal(e.text, "the workflow's result: there is nothing at step:a/r");
	struct buf small = BUF_INIT(3);
	assert_int_equal(workflow_plan_result(d.plan, &d.source, &small, &e), -ENOENT);
	driver_release(&d);
}

/* --- for_each ------------------------------------------------------------------------------------------- */

#define PROMPTS \
	"name: w\nsteps:\n" \
	"  - a\n" \
	"  - task: b\n" \
	"    for_each: {over: {$ref: 'input:/outputs'}, max: 3, key: {$ref: 'item:/name'}}\n" \
	"    args: [{$ref: 'step:a'}]\n" \
	"    kwargs: {prompt: {$ref: 'item:/prompt'}}\n" \
	"  - c\n"

static void one_task_for_each_element_and_the_results_by_key(void **state)
{
	(void)state;
	struct driver d;
	driver_start(&d, PROMPTS,
		     "[{\"outputs\": [{\"name\": \"x\", \"prompt\": 1.0}, {\"name\": \"\\u0079\", "
		     "\"prompt\": 2}]}]",
		     NULL);
	expect_next(
		&d,
		"a [{\"outputs\": [{\"name\": \"x\", \"prompt\": 1.0}, {\"name\": \"\\u0079\", \"prompt\": "
		"2}]}] {}\n");
	completed(&d, "a", 0, "\"text\"");
	expect_next(&d, "b[0/2]\"x\" [\"text\"] {\"prompt\":1.0}\nb[1/2]\"y\" [\"text\"] {\"prompt\":2}\n");
	completed(&d, "b", 1, "\"Y\"");
	expect_next(&d, "");
	completed(&d, "b", 0, "\"X\"");
	expect_next(&d, "c [{\"x\":\"X\",\"y\":\"Y\"}] {}\n");
	completed(&d, "c", 0, "0");
	expect_result(&d, "{\"a\":\"text\",\"b\":{\"x\":\"X\",\"y\":\"Y\"},\"c\":0}");
	driver_release(&d);
}

static void for_each_over_nothing_is_completed_at_once(void **state)
{
	(void)state;
	struct driver d;
	driver_start(&d,
		     "name: w\nsteps: [{task: a, for_each: {over: {$ref: 'input:/l'}}}, {task: b, for_each: "
		     "{over: "
		     "{$ref: 'step:a'}}}, c]\n",
		     "[{\"l\": []}]", NULL);
	expect_next(&d, "c [[]] {}\n");
	completed(&d, "c", 0, "1");
	expect_result(&d, "{\"a\":[],\"b\":[],\"c\":1}");
	driver_release(&d);
}

static void for_each_has_bounds(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
		{"[{\"outputs\": [{\"name\": \"1\"}, {\"name\": \"2\"}, {\"name\": \"3\"}, {\"name\": "
		 "\"4\"}]}]",
		 "step \"b\": for_each has 4 items, the limit is 3"},
		{"[{\"outputs\": {}}]", "step \"b\": what for_each goes over is no list"},
		{"[{}]", "step \"b\": there is nothing at input:/outputs"},
		{"[{\"outputs\": [{\"name\": \"a\", \"prompt\": 1}, {\"name\": \"\\u0061\", \"prompt\": "
		 "2}]}]",
		 "step \"b\": two items have the key \"a\""},
		{"[{\"outputs\": [{\"name\": 7}]}]", "step \"b\": a key of for_each is no string"},
		{"[{\"outputs\": [{\"prompt\": 7}]}]", "step \"b\": there is nothing at item:/name"},
		{"[{\"outputs\": [{\"name\": \"7\"}]}]",
		 "step \"b\", item 0: there is nothing at item:/prompt"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct driver d;
		struct err e = {""};
		driver_start(&d, PROMPTS, cases[i][0], NULL);
		assert_int_equal(workflow_plan_next(d.plan, &d.source, begin, &d, &e), 0);
		completed(&d, "a", 0, "1");
		expect_next(&d, "");
		expect_error(&d, cases[i][1]);
		driver_release(&d);
	}
}

static void the_largest_for_each_is_run(void **state)
{
	(void)state;
	struct driver d;
	CLEANUP(buf_releasep) struct buf args = BUF_INIT(1 << 20), out = BUF_INIT(1 << 20);
	struct err e = {""};
	buf_puts(&args, "[[0");
	for (int i = 1; i < WORKFLOW_MAX_ITEMS; i++)
		buf_printf(&args, ",%d", i);
	buf_puts(&args, "]]");
	driver_start(&d, "name: w\nsteps: [{task: a, for_each: {over: {$ref: 'input:'}, max: 256}}]\n",
		     args.ptr, NULL);
	assert_int_equal(workflow_plan_next(d.plan, &d.source, begin, &d, &e), 0);
	for (unsigned i = WORKFLOW_MAX_ITEMS; i-- > 0;)
		completed(&d, "a", i, "1");
	expect_next(&d, "");
	assert_int_equal(workflow_plan_state(d.plan), WORKFLOW_COMPLETED);
	assert_int_equal(workflow_plan_result(d.plan, &d.source, &out, &e), 0);
	assert_int_equal(out.len, strlen("{\"a\":[]}") + 2 * WORKFLOW_MAX_ITEMS - 1);
	driver_release(&d);
}

/* --- ends ----------------------------------------------------------------------------------------------- */

static void a_failed_step_ends_the_whole_and_nothing_new_begins(void **state)
{
	(void)state;
	struct driver d;
	driver_start(&d, "name: w\nsteps: [a, {parallel: [{steps: [b, c]}, d, e]}, f]\n", "[]", NULL);
	expect_next(&d, "a [] {}\n");
	completed(&d, "a", 0, "1");
	expect_next(&d, "b [1] {}\nd [1] {}\ne [1] {}\n");
	completed(&d, "b", 0, "2");
	failed(&d, "d", 0, "no space left");
	expect_error(&d, "step \"d\": no space left");
	assert_true(span_is(workflow_plan_error(d.plan).detail, "where"));
	unsigned step = 0, item = 0;
	assert_true(workflow_plan_open(d.plan, &step, &item));
	assert_int_equal(step, step_of(&d, "e"));
	item++;
	assert_false(workflow_plan_open(d.plan, &step, &item));
	failed(&d, "e", 0, "later");
	expect_error(&d, "step \"d\": no space left");
	step = item = 0;
	assert_false(workflow_plan_open(d.plan, &step, &item));
	driver_release(&d);
}

static void ends_are_told_in_words(void **state)
{
	(void)state;
	static const struct {
		enum workflow_end_kind kind;
		const char *error, *told;
	} cases[] = {
		{WORKFLOW_END_CANCELLED, NULL, "step \"a\", item 1: cancelled"},
		{WORKFLOW_END_TIMED_OUT, NULL, "step \"a\", item 1: timed out"},
		{WORKFLOW_END_TIMED_OUT, "timed out after 5 ms", "step \"a\", item 1: timed out after 5 ms"},
		{WORKFLOW_END_FAILED, NULL, "step \"a\", item 1: failed"}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct driver d;
		driver_start(&d, "name: w\nsteps: [{task: a, for_each: {$ref: 'input:'}}]\n", "[[1, 2]]",
			     NULL);
		expect_next(&d, "a[0/2] [1] {}\na[1/2] [2] {}\n");
		const struct workflow_end end = {
			.item = 1, .kind = cases[i].kind, .error = span_of(cases[i].error)};
		assert_int_equal(workflow_plan_ended(d.plan, &end), 0);
		expect_error(&d, cases[i].told);
		assert_int_equal(workflow_plan_error(d.plan).cancelled,
				 cases[i].kind == WORKFLOW_END_CANCELLED);
		assert_int_equal(workflow_plan_error(d.plan).timed_out,
				 cases[i].kind == WORKFLOW_END_TIMED_OUT);
		driver_release(&d);
	}
}

static void stopped_from_outside_nothing_begins(void **state)
{
	(void)state;
	struct driver d;
	driver_start(&d, "name: w\nsteps: [a, b]\n", "[]", NULL);
	expect_next(&d, "a [] {}\n");
	workflow_plan_stop(d.plan, WORKFLOW_END_CANCELLED, SPAN_NONE);
	completed(&d, "a", 0, "1");
	expect_error(&d, "cancelled");
	workflow_plan_stop(d.plan, WORKFLOW_END_TIMED_OUT, SPAN_LIT("late"));
	expect_error(&d, "cancelled");
	driver_release(&d);
}

static void nothing_is_told_twice_or_of_what_is_not_there(void **state)
{
	(void)state;
	struct driver d;
	driver_start(&d, "name: w\nsteps: [a, b]\n", "[]", NULL);
	expect_next(&d, "a [] {}\n");
	completed(&d, "a", 0, "1");
	failed(&d, "a", 0, "late");
	expect_next(&d, "b [1] {}\n");
	struct workflow_end end = {.step = 2};
	assert_int_equal(workflow_plan_ended(d.plan, &end), -EINVAL);
	end = (struct workflow_end){.step = 1, .item = 1};
	assert_int_equal(workflow_plan_ended(d.plan, &end), -EINVAL);
	assert_int_equal(workflow_plan_begun(d.plan, 0, 1), -EINVAL);
	assert_int_equal(workflow_plan_begun(d.plan, 64, 0), -EINVAL);
	driver_release(&d);
}

/* --- going on ------------------------------------------------------------------------------------------- */

static void what_did_not_begin_is_given_again(void **state)
{
	(void)state;
	struct driver d;
	struct err e = {""};
	driver_start(&d, "name: w\nsteps: [{parallel: [a, b, {task: c, for_each: {over: [1, 2]}}]}]\n", "[]",
		     NULL);
	d.refuse = -EIO;
	d.refuse_after = 3;
	assert_int_equal(workflow_plan_next(d.plan, &d.source, begin, &d, &e), -EIO);
	assert_int_equal(workflow_plan_state(d.plan), WORKFLOW_GOES_ON);
	d.refuse = 0;
	expect_next(&d, "c[1/2] [2] {}\n");
	driver_release(&d);
}

static void a_source_that_fails_ends_nothing(void **state)
{
	(void)state;
	struct driver d;
	struct err e = {""};
	driver_start(&d, "name: w\nsteps: [a, b]\n", "[]", NULL);
	expect_next(&d, "a [] {}\n");
	completed(&d, "a", 0, "1");
	d.blind = true;
	assert_true(workflow_plan_next(d.plan, &d.source, begin, &d, &e) < 0);
	assert_string_equal(e.text, "the disk is away");
	assert_int_equal(workflow_plan_state(d.plan), WORKFLOW_GOES_ON);
	d.blind = false;
	expect_next(&d, "b [1] {}\n");
	driver_release(&d);
}

/* Another process that is told what is known comes to the same, at whatever moment. */
static void another_process_goes_on(void **state)
{
	(void)state;
	for (unsigned known = 0; known < 8; known++) {
		struct driver d;
		driver_start(&d, PROMPTS,
			     "[{\"outputs\": [{\"name\": \"x\", \"prompt\": 1}, {\"name\": \"y\", "
			     "\"prompt\": 2}]}]",
			     NULL);
		completed(&d, "a", 0, "0");
		if (known & 1)
			assert_int_equal(workflow_plan_begun(d.plan, 1, 0), 0);
		if (known & 2)
			assert_int_equal(workflow_plan_begun(d.plan, 1, 1), 0);
		if (known & 4)
			completed(&d, "b", 1, "\"Y\"");
		char expected[200];
		snprintf(expected, sizeof(expected), "%s%s",
			 known & 1 ? "" : "b[0/2]\"x\" [0] {\"prompt\":1}\n",
			 known & 6 ? "" : "b[1/2]\"y\" [0] {\"prompt\":2}\n");
		expect_next(&d, expected);
		completed(&d, "b", 0, "\"X\"");
		if (!(known & 4))
			completed(&d, "b", 1, "\"Y\"");
		expect_next(&d, "c [{\"x\":\"X\",\"y\":\"Y\"}] {}\n");
		driver_release(&d);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sequence_hands_each_result_on),
		cmocka_unit_test(a_caller_replaces_no_argument_by_another_spelling),
		cmocka_unit_test(a_graph_begins_what_has_all_its_parents),
		cmocka_unit_test(references_find_values_or_their_defaults),
		cmocka_unit_test(a_value_that_is_not_there_fails_the_whole),
		cmocka_unit_test(the_result_is_as_declared),
		cmocka_unit_test(one_task_for_each_element_and_the_results_by_key),
		cmocka_unit_test(for_each_over_nothing_is_completed_at_once),
		cmocka_unit_test(for_each_has_bounds),
		cmocka_unit_test(the_largest_for_each_is_run),
		cmocka_unit_test(a_failed_step_ends_the_whole_and_nothing_new_begins),
		cmocka_unit_test(ends_are_told_in_words),
		cmocka_unit_test(stopped_from_outside_nothing_begins),
		cmocka_unit_test(nothing_is_told_twice_or_of_what_is_not_there),
		cmocka_unit_test(what_did_not_begin_is_given_again),
		cmocka_unit_test(a_source_that_fails_ends_nothing),
		cmocka_unit_test(another_process_goes_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
