/* Workflows as declared: what is read, every kind of mistake, frozen and back, as a drawing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "support/workflow_yaml.h"

static void read_well(struct workflow_yaml *y, const char *text)
{
	assert_int_equal(workflow_yaml_read(y, span_of(text)), 0);
	assert_string_equal(y->problems.ptr ? y->problems.ptr : "", "");
}

/* "a b c": each step's name, its parents' numbers behind it. */
static void expect_steps(const struct workflow_definition *w, const char *expected)
{
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(1 << 16);
	buf_puts(&out, "");
	for (size_t i = 0; i < w->n_steps; i++) {
		buf_printf(&out, "%s%.*s(", i ? " " : "", SPAN_ARG(w->steps[i].name));
		for (size_t p = 0; p < w->n_steps; p++)
			if (w->steps[i].parents >> p & 1)
				buf_printf(&out, "%.*s", SPAN_ARG(w->steps[p].name));
		buf_putc(&out, ')');
	}
	assert_string_equal(out.ptr, expected);
}

static void a_sequence_in_its_three_spellings(void **state)
{
	(void)state;
	struct workflow_yaml y;
	read_well(&y, "name: w\n"
		      "steps:\n"
		      "  - a\n"
		      "  - [b, {n: 1.0, big: 9007199254740993}]\n"
		      "  - [c]\n"
		      "  - {name: last, task: d, input: workflow, timeout: 2s, kwargs: {x: y}}\n");
	expect_steps(&y.w, "a() b(a) c(b) last(c)");
	assert_true(workflow_is_sequence(&y.w));
	assert_string_equal(y.w.steps[1].kwargs, "{\"n\":1.0,\"big\":9007199254740993}");
	assert_int_equal(y.w.steps[3].input, STEP_INPUT_WORKFLOW);
	assert_int_equal(y.w.steps[3].timeout_ms, 2000);
	assert_true(span_is(y.w.queue, "default"));
	workflow_yaml_release(&y);
}

static void blocks_begin_together_and_what_follows_waits_for_all(void **state)
{
	(void)state;
	struct workflow_yaml y;
	read_well(&y, "name: w\n"
		      "steps:\n"
		      "  - a\n"
		      "  - parallel:\n"
		      "      - b\n"
		      "      - steps: [c, [d, {x: 1}]]\n"
		      "      - {task: e}\n"
		      "  - f\n"
		      "  - parallel: [{parallel: [g, h]}, i]\n"
		      "  - j\n");
	expect_steps(&y.w, "a() b(a) c(a) d(c) e(a) f(bde) g(f) h(f) i(f) j(ghi)");
	assert_false(workflow_is_sequence(&y.w));
	assert_int_equal(workflow_ancestors(&y.w, 3), 5); /* of d: a, c */
	workflow_yaml_release(&y);
}

static void parents_make_any_graph(void **state)
{
	(void)state;
	struct workflow_yaml y;
	read_well(&y, "name: w\n"
		      "description: any order\n"
		      "timeout_minutes: 3\n"
		      "execution: router\n"
		      "steps:\n"
		      "  - {task: d, parents: [b, c]}\n"
		      "  - {task: a, parents: []}\n"
		      "  - {task: b, parents: [a], backend: celery, queue: q, idempotent: true}\n"
		      "  - {task: c, parents: [a], timeout_minutes: 1}\n"
		      "  - e\n"
		      "result: {all: {$ref: 'step:d/x', default: {$ref: 'step:e'}}}\n");
	expect_steps(&y.w, "d(bc) a() b(a) c(a) e(c)");
	assert_int_equal(y.w.timeout_ms, 180000);
	assert_int_equal(y.w.steps[3].timeout_ms, 60000);
	assert_int_equal(y.w.execution, WORKFLOW_ROUTER);
	assert_true(span_is(y.w.description, "any order"));
	assert_true(span_is(y.w.steps[2].backend, "celery") && span_is(y.w.steps[2].queue, "q"));
	assert_true(y.w.steps[2].idempotent);
	assert_string_equal(y.w.result,
			    "{\"all\":{\"$ref\":\"step:d/x\",\"default\":{\"$ref\":\"step:e\"}}}");
	workflow_yaml_release(&y);
}

static void a_step_for_each_element(void **state)
{
	(void)state;
	struct workflow_yaml y;
	read_well(&y, "name: w\n"
		      "steps:\n"
		      "  - a\n"
		      "  - {task: b, for_each: {$ref: 'input:/list'}}\n"
		      "  - task: c\n"
		      "    for_each: {over: {$ref: 'step:b'}, max: 7, key: {$ref: 'item:/name'}}\n"
		      "    args: [{$ref: 'item:/x'}, {$ref: 'step:a'}]\n"
		      "    kwargs: {schema: {$ref: '#/definitions/x'}}\n");
	assert_string_equal(y.w.steps[1].over, "{\"$ref\":\"input:/list\"}");
	assert_int_equal(y.w.steps[1].max_items, WORKFLOW_DEFAULT_ITEMS);
	assert_string_equal(y.w.steps[1].args, "[{\"$ref\":\"item:\"}]");
	assert_int_equal(y.w.steps[2].max_items, 7);
	assert_string_equal(y.w.steps[2].key, "{\"$ref\":\"item:/name\"}");
	assert_int_equal(workflow_max_tasks(&y.w), 1 + WORKFLOW_DEFAULT_ITEMS + 7);
	workflow_yaml_release(&y);
}

struct mistake {
	const char *text, *told;
};

static const struct mistake mistakes[] = {
	{"name: w\nsteps:\n - a\n - {task: nothing}\n", "f:4: steps[1].task: unknown task \"nothing\"\n"},
	{"name: w\nsteps: [a, [x y]]\n", "f:2: steps[1][0]: unknown task \"x y\"\n"},
	{"name: w\nsteps: [long]\n", "f:2: steps[0]: unknown task \"long\"\n"},
	{"name: w\nsteps:\n - a\n - a\n", "f:4: steps[1]: two steps are named \"a\"\n"},
	{"name: w\nsteps:\n - a\n - {task: b, name: a}\n", "f:4: steps[1].name: two steps are named \"a\"\n"},
	{"name: w\nsteps:\n - {task: a, parents: [b]}\n - {task: b, parents: [c]}\n - {task: c, parents: "
	 "[a]}\n - {task: d}\n",
	 "f:3: steps[0].parents: the steps go in a circle: a → c → b → a\n"
	 "f:6: steps[3]: the step \"d\" is never reached: it comes after a circle\n"},
	{"name: w\nsteps:\n - {task: a, parents: [a]}\n",
	 "f:3: steps[0].parents: the steps go in a circle: a → a\n"},
	{"name: w\nsteps:\n - {task: a, parents: [b]}\n - {task: b}\n",
	 "f:3: steps[0].parents: the steps go in a circle: a → b → a\n"},
	{"name: w\nsteps:\n - {task: a, name: extract}\n - {task: b, parents: [extrct]}\n",
	 "f:4: steps[1].parents[0]: there is no step \"extrct\"; did you mean \"extract\"?\n"},
	{"name: w\nsteps: [a, {task: b, parents: [a, a]}]\n", "f:2: steps[1].parents[1]: is listed twice\n"},
	{"name: w\nsteps: [a, {task: b, parents: a}]\n",
	 "f:2: steps[1].parents: must be a list of names of steps; [] for a step that begins at once\n"},
	{"name: w\nsteps:\n - a\n - task: b\n   args:\n    - 1\n    - {x: [{$ref: 'step:c/y'}]}\n",
	 "f:7: steps[1].args[1].x[0].$ref: there is no step \"c\"\n"},
	{"name: w\nsteps: [{task: a, input: {$ref: 'step:a'}}]\n",
	 "f:2: steps[0].input.$ref: the step refers to its own result\n"},
	{"name: w\nsteps:\n - parallel:\n    - a\n    - {task: b, kwargs: {x: {$ref: 'step:a'}}}\n",
	 "f:5: steps[0].parallel[1].kwargs.x.$ref: the step \"a\" is not one that this step follows, so that "
	 "its "
	 "result may not be there; name it in parents\n"},
	{"name: w\nsteps: [[a, {x: {$ref: 'body:/x'}}]]\n",
	 "f:2: steps[0][1].x.$ref: \"body:/x\" is no reference that is known here: input:, args:, kwargs:, "
	 "step:<name>, item:\n"},
	{"name: w\nsteps: [[a, {x: {$ref: 'input:x'}}]]\n",
	 "f:2: steps[0][1].x.$ref: \"input:x\" has no JSON pointer behind the colon (\"\" or \"/…\")\n"},
	{"name: w\nsteps: [[a, {x: {$ref: 'step:'}}]]\n",
	 "f:2: steps[0][1].x.$ref: \"step:\" names no step\n"},
	{"name: w\nsteps: [[a, {x: {$ref: 'item:'}}]]\n",
	 "f:2: steps[0][1].x.$ref: item: is the element of a for_each, and this is none\n"},
	{"name: w\nsteps: [[a, {x: {$ref: 'input:', defalt: 1}}]]\n",
	 "f:2: steps[0][1].x.defalt: a reference has only \"default\" or \"optional\" beside it\n"},
	{"name: w\nsteps: [[a, {x: {$ref: 'input:/a', default: {$ref: 'step:q'}}}]]\n",
	 "f:2: steps[0][1].x.default.$ref: there is no step \"q\"\n"},
	{"name: w\nsteps: [a]\nresult: {$ref: 'step:b'}\n", "f:3: result.$ref: there is no step \"b\"\n"},
	{"name: w\nsteps: [{task: a, for_each: {over: 7}}]\n",
	 "f:2: steps[0].for_each.over: must be a reference to a list, like {$ref: \"input:/documents\"}, or "
	 "a list\n"},
	{"name: w\nsteps: [{task: a, for_each: {over: {$ref: 'input:/l'}, max: 257}}]\n",
	 "f:2: steps[0].for_each.max: expected a whole number from 1 to 256, not \"257\"\n"},
	{"name: w\nsteps: [{task: a, for_each: {over: {$ref: 'input:/l'}, key: {$ref: 'input:/l'}}}]\n",
	 "f:2: steps[0].for_each.key.$ref: a key is taken from the element: item:/…\n"},
	{"name: w\nsteps: [{task: a, for_each: {over: {$ref: 'input:/l'}, key: name}}]\n",
	 "f:2: steps[0].for_each.key: must be a reference, like {$ref: \"item:/name\"}\n"},
	{"name: w\nsteps: [{task: a, for_each: {over: {$ref: 'item:/l'}}}]\n",
	 "f:2: steps[0].for_each.over.$ref: item: is the element of a for_each, and this is none\n"},
	{"name: w\nsteps: [{task: a, timeout: 1s, timeout_minutes: 1}]\n",
	 "f:2: steps[0].timeout_minutes: timeout says it already\n"},
	{"name: w\nsteps: [{task: a, input: {}, args: []}]\n", "f:2: steps[0].args: input says it already\n"},
	{"name: w\nsteps: [{task: a, args: {}}]\n",
	 "f:2: steps[0].args: must be a list, of the positional arguments\n"},
	{"name: w\nsteps: [{task: a, kwargs: []}]\n", "f:2: steps[0].kwargs: must be a mapping\n"},
	{"name: w\nsteps: [{task: a, inptu: none}]\n",
	 "f:2: steps[0].inptu: unknown key; did you mean \"input\"?"},
	{"name: w\nsteps: [[a, {}, b]]\n", "f:2: steps[0]: must be [task] or [task, {kwargs}]; steps that "
					   "run beside each other are parallel: […]\n"},
	{"name: w\nsteps: [{parallel: [a], task: b}]\n",
	 "f:2: steps[0]: a block has no other key beside parallel\n"},
	{"name: w\nsteps: [{parallel: []}]\n", "f:2: steps[0].parallel: must be a list of 1 to 64 steps\n"},
	{"name: w\nsteps: []\n", "f:2: steps: must be a list of 1 to 64 steps\n"},
	{"name: w\nsteps:\n - ~\n", "f:2: steps[0]: empty\n"},
	{"name: w\n", "f:1: steps: is missing\n"},
	{"steps: [a]\n", "f:1: name: is missing\n"},
	{"name: w\nsteps: [{name: x}]\n", "f:2: steps[0].task: is missing\n"},
	{"name: w\nsteps: [a]\nexecution: elsewhere\n",
	 "f:3: execution: expected native or router, not \"elsewhere\"\n"},
};

static void every_mistake_is_told_with_its_line(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
		struct workflow_yaml y;
		assert_int_equal(workflow_yaml_read(&y, span_of(mistakes[i].text)), 0);
		if (!y.problems.ptr || strncmp(y.problems.ptr, mistakes[i].told, strlen(mistakes[i].told)))
			print_error("%s\n%s\n", mistakes[i].text, y.problems.ptr);
		assert_non_null(y.problems.ptr);
		assert_memory_equal(y.problems.ptr, mistakes[i].told, strlen(mistakes[i].told));
		assert_int_not_equal(y.mistakes, 0);
		workflow_yaml_release(&y);
	}
}

static void all_mistakes_come_at_once(void **state)
{
	(void)state;
	struct workflow_yaml y;
	assert_int_equal(workflow_yaml_read(&y, SPAN_LIT("name: w\n"
							 "steps:\n"
							 "  - nothing\n"
							 "  - {task: b, input: {$ref: 'step:q'}}\n"
							 "  - {task: c, parents: [d]}\n"
							 "  - {task: d, parents: [c]}\n")),
			 0);
	assert_string_equal(y.problems.ptr, "f:3: steps[0]: unknown task \"nothing\"\n"
					    "f:5: steps[2].parents: the steps go in a circle: c → d → c\n"
					    "f:4: steps[1].input.$ref: there is no step \"q\"\n");
	workflow_yaml_release(&y);
}

static void bounds_are_kept(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1 << 20);
	struct workflow_yaml y;
	buf_puts(&text, "name: w\nsteps:\n");
	for (int i = 0; i < WORKFLOW_MAX_STEPS; i++)
		buf_printf(&text, "  - {task: a, name: s%d}\n", i);
	read_well(&y, text.ptr);
	assert_int_equal(y.w.n_steps, WORKFLOW_MAX_STEPS);
	assert_true(workflow_is_sequence(&y.w));
	assert_int_equal(workflow_ancestors(&y.w, 63), UINT64_MAX >> 1);
	workflow_yaml_release(&y);
	buf_puts(&text, "  - b\n  - c\n");
	assert_int_equal(workflow_yaml_read(&y, buf_span(&text)), 0);
	assert_string_equal(y.problems.ptr, "f:67: steps[64]: more than 64 steps\n");
	workflow_yaml_release(&y);
	buf_clear(&text);
	buf_puts(&text, "name: w\nsteps:\n");
	for (int i = 0; i < 5; i++)
		buf_printf(&text,
			   "  - {task: a, name: s%d, for_each: {over: {$ref: 'input:/l'}, max: 256}}\n", i);
	assert_int_equal(workflow_yaml_read(&y, buf_span(&text)), 0);
	assert_string_equal(
		y.problems.ptr,
		"f:1: the workflow can become 1280 tasks (each for_each with its max), the limit is "
		"1024\n");
	workflow_yaml_release(&y);
	buf_clear(&text);
	buf_puts(&text, "name: w\nsteps: [");
	for (int i = 0; i < 10; i++)
		buf_puts(&text, "{parallel: [");
	buf_puts(&text, "a");
	for (int i = 0; i < 10; i++)
		buf_puts(&text, "]}");
	buf_puts(&text, "]\n");
	assert_int_equal(workflow_yaml_read(&y, buf_span(&text)), 0);
	assert_non_null(strstr(y.problems.ptr, "more than 8 blocks within each other"));
	workflow_yaml_release(&y);
}

/* --- frozen --------------------------------------------------------------------------------------------- */

static const char everything[] =
	"name: \"w \\\"x\\\" ü\"\n"
	"queue: q\n"
	"timeout: 90s\n"
	"execution: native\n"
	"steps:\n"
	"  - {task: a, input: workflow}\n"
	"  - parallel:\n"
	"      - {name: 'b/1', task: b, input: none, queue: q2, idempotent: true, timeout: 5s}\n"
	"      - {task: c, backend: celery, kwargs: {n: 9007199254740993}}\n"
	"  - task: d\n"
	"    for_each: {over: {$ref: 'step:b~11/l'}, max: 9, key: {$ref: 'item:/k'}}\n"
	"    args: [{$ref: 'item:', default: 1.0}, {$ref: 'input:/x'}]\n"
	"result: [{$ref: 'step:d'}]\n";

static void frozen_and_back_it_is_the_same(void **state)
{
	(void)state;
	struct workflow_yaml y;
	struct arena memory = ARENA_INIT(1 << 20);
	struct workflow_definition *back = NULL;
	CLEANUP(buf_releasep) struct buf one = BUF_INIT(1 << 16), two = BUF_INIT(1 << 16);
	struct err e = {""};
	read_well(&y, everything);
	assert_int_equal(workflow_to_json(&y.w, &one), 0);
	assert_int_equal(workflow_from_json(buf_span(&one), &memory, &back, &e), 0);
	assert_int_equal(workflow_to_json(back, &two), 0);
	assert_string_equal(one.ptr, two.ptr);
	assert_int_equal(back->n_steps, 4);
	assert_int_equal(back->steps[3].parents, 6);
	assert_true(span_is(back->steps[1].name, "b/1") && back->steps[1].idempotent);
	assert_string_equal(back->steps[2].kwargs, "{\"n\":9007199254740993}");
	assert_int_equal(back->steps[3].max_items, 9);
	assert_int_equal(back->timeout_ms, 90000);
	arena_release(&memory);
	workflow_yaml_release(&y);
}

static void what_is_no_frozen_workflow_is_refused(void **state)
{
	(void)state;
	static const char *const wrong[] = {
		"",
		"{}",
		"[1]",
		"{\"format\":2,\"steps\":[{\"name\":\"a\",\"task\":\"a\"}]}",
		"{\"format\":1,\"steps\":[]}",
		"{\"format\":1,\"steps\":[{\"name\":\"a\"}]}",
		"{\"format\":1,\"steps\":[{\"name\":\"a\",\"task\":\"a\",\"parents\":[0]}]}",
		"{\"format\":1,\"steps\":[{\"name\":\"a\",\"task\":\"a\",\"parents\":[1]}]}",
		"{\"format\":1,\"steps\":[{\"name\":\"a\",\"task\":\"a\",\"parents\":[-1]}]}",
		"{\"format\":1,\"steps\":[{\"name\":\"a\",\"task\":\"a\",\"parents\":[99999999999999999999]}]"
		"}",
		"{\"format\":1,\"steps\":[{\"name\":\"a\",\"task\":\"a\"},{\"name\":\"a\",\"task\":\"a\"}]}",
		"{\"format\":1,\"steps\":[{\"name\":\"a\",\"task\":\"a\",\"args\":{}}]}",
		"{\"format\":1,\"steps\":[{\"name\":\"a\",\"task\":\"a\",\"args\":[{\"$ref\":\"step:b\"}]}]}",
		"{\"format\":1,\"steps\":[{\"name\":\"a\",\"task\":\"a\",\"for_each\":{\"over\":[]}}]}",
		"{\"format\":1,\"steps\":[{\"name\":\"a\",\"task\":\"a\",\"for_each\":{\"over\":[],\"max\":"
		"257}}]}",
		"{\"format\":1,\"steps\":[{\"name\":7,\"task\":\"a\"}]}",
	};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct arena memory = ARENA_INIT(1 << 20);
		struct workflow_definition *back = NULL;
		struct err e = {""};
		assert_int_equal(workflow_from_json(span_of(wrong[i]), &memory, &back, &e), -EBADMSG);
		assert_true(e.text[0]);
		arena_release(&memory);
	}
}

/* --- drawn ---------------------------------------------------------------------------------------------- */

static void mermaid_takes_no_name_for_more_than_text(void **state)
{
	(void)state;
	struct workflow_yaml y;
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(1 << 16);
	read_well(&y, "name: w\n"
		      "steps:\n"
		      "  - {task: a, name: \"x\\\"];\\n<b>#\"}\n"
		      "  - {task: b, name: 'größe', for_each: {over: {$ref: 'input:/l'}, max: 3}}\n"
		      "  - {task: c, parents: ['größe']}\n");
	assert_int_equal(workflow_put_mermaid(&y.w, &out), 0);
	assert_string_equal(out.ptr, "flowchart TD\n"
				     "    s0[\"x#34;#93;#59;#10;#60;b#62;#35;<br/>task a\"]\n"
				     "    s1[[\"größe<br/>task b<br/>for each of input:/l, at most 3\"]]\n"
				     "    s2[\"c\"]\n"
				     "    s0 --> s1\n"
				     "    s1 --> s2\n");
	workflow_yaml_release(&y);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sequence_in_its_three_spellings),
		cmocka_unit_test(blocks_begin_together_and_what_follows_waits_for_all),
		cmocka_unit_test(parents_make_any_graph),
		cmocka_unit_test(a_step_for_each_element),
		cmocka_unit_test(every_mistake_is_told_with_its_line),
		cmocka_unit_test(all_mistakes_come_at_once),
		cmocka_unit_test(bounds_are_kept),
		cmocka_unit_test(frozen_and_back_it_is_the_same),
		cmocka_unit_test(what_is_no_frozen_workflow_is_refused),
		cmocka_unit_test(mermaid_takes_no_name_for_more_than_text),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
