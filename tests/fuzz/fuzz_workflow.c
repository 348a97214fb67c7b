/* Workflows: what is read without a mistake freezes and thaws to the same, and its plan comes to an end, each
 * task having begun at most once, with valid JSON. The input is YAML, and, behind a line "---8<---", JSON
 * that serves as the workflow's input, as every result, and as a frozen workflow. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "support/workflow_yaml.h"
#include "tasks/workflow/workflow_plan.h"

#define DIVIDER "\n---8<---\n"

static void check(bool holds)
{
	if (!holds)
		abort();
}

struct run {
	const struct workflow_definition *w;
	struct workflow_plan *plan;
	struct span json;
	struct {
		unsigned step, item;
	} open[WORKFLOW_MAX_TASKS];
	size_t n_open, begun;
	unsigned char seen[WORKFLOW_MAX_STEPS][WORKFLOW_MAX_ITEMS];
};

static int get_result(void *arg, unsigned step, unsigned item, struct span *ret, struct err *e)
{
	struct run *r = arg;
	(void)e;
	check(step < r->w->n_steps && r->seen[step][item] == 2);
	*ret = r->json;
	return 0;
}

static int on_begin(void *arg, const struct workflow_begin *b)
{
	struct run *r = arg;
	check(json_validate(b->args, NULL) == 0 && json_type_of(b->args) == JSON_ARRAY);
	check(json_validate(b->kwargs, NULL) == 0 && json_type_of(b->kwargs) == JSON_OBJECT);
	check(!b->key.ptr || json_type_of(b->key) == JSON_STRING);
	check(b->step < r->w->n_steps && b->item < WORKFLOW_MAX_ITEMS && r->seen[b->step][b->item] == 0);
	r->seen[b->step][b->item] = 1;
	check(++r->begun <= workflow_max_tasks(r->w));
	r->open[r->n_open].step = b->step;
	r->open[r->n_open++].item = b->item;
	return 0;
}

static void run_plan(const struct workflow_definition *w, struct span json)
{
	struct run *r = calloc(1, sizeof(*r));
	CLEANUP(buf_releasep) struct buf args = BUF_INIT(1u << 20), out = BUF_INIT(1u << 20);
	struct err e = {""};
	check(r != NULL);
	buf_printf(&args, "[%.*s]", SPAN_ARG(json));
	const struct workflow_source s = {.args = buf_span(&args), .arg = r, .result = get_result};
	r->w = w;
	r->json = json;
	r->plan = workflow_plan_new(w);
	check(r->plan != NULL);
	while (workflow_plan_state(r->plan) == WORKFLOW_GOES_ON) {
		int code = workflow_plan_next(r->plan, &s, on_begin, r, &e);
		if (code < 0)
			break; /* a size */
		check((workflow_plan_state(r->plan) != WORKFLOW_GOES_ON) || r->n_open > 0);
		if (r->n_open) {
			const struct workflow_end end = {.step = r->open[--r->n_open].step,
							 .item = r->open[r->n_open].item};
			r->seen[end.step][end.item] = 2;
			check(workflow_plan_ended(r->plan, &end) == 0);
		}
	}
	if (workflow_plan_state(r->plan) == WORKFLOW_COMPLETED &&
	    workflow_plan_result(r->plan, &s, &out, &e) == 0)
		check(json_validate(buf_span(&out), &e) == 0);
	if (workflow_plan_state(r->plan) == WORKFLOW_FAILED)
		check(workflow_plan_error(r->plan).error.len > 0);
	workflow_plan_free(r->plan);
	free(r);
}

static void freeze_and_run(const struct workflow_definition *w, struct span json)
{
	CLEANUP(buf_releasep)
	struct buf one = BUF_INIT(WORKFLOW_MAX_FROZEN), two = BUF_INIT(WORKFLOW_MAX_FROZEN);
	struct arena memory = ARENA_INIT(64u << 20);
	struct workflow_definition *back = NULL;
	struct err e = {""};
	if (workflow_to_json(w, &one) == 0) {
		check(workflow_from_json(buf_span(&one), &memory, &back, &e) == 0);
		check(workflow_to_json(back, &two) == 0 && span_eq(buf_span(&one), buf_span(&two)));
		run_plan(back, json);
	}
	arena_release(&memory);
}

static void thaw(struct span json)
{
	CLEANUP(buf_releasep) struct buf drawn = BUF_INIT(1u << 20);
	struct arena memory = ARENA_INIT(64u << 20);
	struct workflow_definition *w = NULL;
	struct err e = {""};
	int r = workflow_from_json(json, &memory, &w, &e);
	check(r == 0 || e.text[0]);
	if (r == 0) {
		run_plan(w, SPAN_LIT("[1.0]"));
		workflow_put_mermaid(w, &drawn);
	}
	arena_release(&memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span yaml = {(const char *)data, size},
		    json = SPAN_LIT("{\"l\":[{\"k\":\"a\"},{\"k\":\"b\"}]}");
	const char *divider = size ? memmem(data, size, DIVIDER, strlen(DIVIDER)) : NULL;
	if (size > 65536)
		return 0;
	if (divider) {
		yaml.len = (size_t)(divider - yaml.ptr);
		struct span rest = {divider + strlen(DIVIDER), size - yaml.len - strlen(DIVIDER)};
		thaw(rest);
		if (json_validate(rest, NULL) == 0)
			json = rest;
	}
	struct workflow_yaml y;
	if (workflow_yaml_read(&y, yaml) == 0) {
		check((y.mistakes > 0) == (y.problems.len > 0));
		if (y.mistakes == 0)
			freeze_and_run(&y.w, json);
	}
	workflow_yaml_release(&y);
	return 0;
}
