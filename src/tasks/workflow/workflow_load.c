/*
 * Reads a workflow from YAML: first its steps, in their order, then what is only known when all of them are
 * (parents that stand behind, references, circles).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/nearest.h"
#include "tasks/task_backend.h"
#include "tasks/workflow/workflow.h"
#include "tasks/workflow/workflow_check.h"
#include "tasks/workflow/workflow_template.h"

#define MAX_TIMEOUT_MINUTES (WORKFLOW_MAX_TIMEOUT_MS / 60000)

static void workflow_load_name(const struct place *p, struct span *ret)
{
	struct span s;
	if (!p->node)
		return;
	if (!yaml_string(p->node, &s) || s.len == 0 || s.len >= TASK_NAME_MAX)
		place_mistake(p, "must be a string of 1 to %d characters", TASK_NAME_MAX - 1);
	else
		*ret = s;
}

/* A place that outlives the function that made it. Without memory the one that is there, which was said. */
static const struct place *workflow_load_keep(const struct place *p)
{
	struct place *kept = place_memory(p->reader, sizeof(*kept));
	if (kept)
		*kept = *p;
	return kept;
}

/* --- times ---------------------------------------------------------------------------------------------- */

/* `timeout`, or `timeout_minutes`, as other declarations have it. */
static void workflow_load_timeout(const struct place *p, unsigned *ms)
{
	struct place timeout = place_member(p, "timeout"), minutes = place_member(p, "timeout_minutes");
	uint64_t n;
	if (timeout.node && minutes.node)
		place_mistake(&minutes, "timeout says it already");
	if (value_duration(&timeout, 1, WORKFLOW_MAX_TIMEOUT_MS, &n))
		*ms = (unsigned)n;
	else if (!timeout.node && value_unsigned(&minutes, 1, MAX_TIMEOUT_MINUTES, &n))
		*ms = (unsigned)(n * 60000);
}

/* --- a step's own keys ---------------------------------------------------------------------------------- */

static const char *workflow_load_json(const struct place *p, const char *before, const char *after)
{
	CLEANUP(buf_releasep) struct buf json = BUF_INIT(WORKFLOW_MAX_FROZEN);
	buf_puts(&json, before);
	int r = yaml_to_json(p->node, &json);
	buf_puts(&json, after);
	if (r < 0 || json.error) {
		place_mistake(p, "is too large");
		return NULL;
	}
	return place_text(p->reader, buf_span(&json));
}

/* Steps that the router drives may run where nobody here can look: its check asks their backends. */
static void workflow_load_task(const struct workflow_reading *r, const struct place *p, bool elsewhere,
			       struct workflow_step *s)
{
	const struct workflow_tasks *tasks = r->tasks;
	CLEANUP(buf_releasep) struct buf why = BUF_INIT(1u << 16);
	workflow_load_name(p, &s->task);
	elsewhere |= r->w->execution == WORKFLOW_ROUTER;
	if (s->task.ptr && !elsewhere && tasks->known && !tasks->known(tasks->arg, s->task, &why))
		place_mistake(p, "%.*s", SPAN_ARG(buf_span(&why)));
}

static void workflow_load_kwargs(const struct place *p, struct workflow_step *s)
{
	if (!p->node)
		return;
	if (p->node->kind != YAML_MAPPING)
		place_mistake(p, "must be a mapping");
	else
		s->kwargs = workflow_load_json(p, "", "");
}

/* As enum step_input, or a template for the one argument. */
static void workflow_load_input(const struct place *p, struct workflow_step *s)
{
	static const char *const inputs[] = {"previous", "workflow", "none"};
	size_t which;
	if (p->node && p->node->kind != YAML_SCALAR) {
		s->input = STEP_INPUT_TEMPLATE;
		s->args = workflow_load_json(p, "[", "]");
	} else if (value_choice(p, inputs, 3, &which)) {
		s->input = (enum step_input)which;
	}
}

static void workflow_load_args(const struct place *p, const struct place *input, struct workflow_step *s)
{
	if (!p->node)
		return;
	if (input->node)
		place_mistake(p, "input says it already");
	if (p->node->kind != YAML_SEQUENCE) {
		place_mistake(p, "must be a list, of the positional arguments");
		return;
	}
	s->input = STEP_INPUT_TEMPLATE;
	s->args = workflow_load_json(p, "", "");
}

static bool workflow_load_is_reference(const struct yaml_node *n)
{
	return n->kind == YAML_MAPPING && yaml_get(n, "$ref");
}

/* for_each: {$ref: …} or {over: {$ref: …}, max: N, key: {$ref: "item:/name"}} */
static void workflow_load_for_each(const struct place *p, struct workflow_step *s)
{
	static const struct field fields[] = {
		{"over", FIELD_OTHER, 0, 0, 0},
		{"key", FIELD_OTHER, 0, 0, 0},
		{"max", FIELD_UNSIGNED, offsetof(struct workflow_step, max_items), 1, WORKFLOW_MAX_ITEMS}};
	struct place over = place_member(p, "over"), key = place_member(p, "key");
	if (!p->node)
		return;
	s->max_items = WORKFLOW_DEFAULT_ITEMS;
	if (workflow_load_is_reference(p->node)) {
		s->over = workflow_load_json(p, "", "");
		return;
	}
	if (!value_mapping(p))
		return;
	READ_FIELDS(p, fields, s);
	if (!over.node || (over.node->kind != YAML_SEQUENCE && !workflow_load_is_reference(over.node)))
		place_mistake(&over,
			      "must be a reference to a list, like {$ref: \"input:/documents\"}, or a list");
	else
		s->over = workflow_load_json(&over, "", "");
	if (key.node && !workflow_load_is_reference(key.node))
		place_mistake(&key, "must be a reference, like {$ref: \"item:/name\"}");
	else if (key.node)
		s->key = workflow_load_json(&key, "", "");
}

/* --- a step --------------------------------------------------------------------------------------------- */

/* Adds an empty step; NULL when there are too many, which is said once. */
static struct workflow_step *workflow_load_add(struct workflow_reading *r, const struct place *p,
					       uint64_t after)
{
	struct workflow_definition *w = r->w;
	if (w->n_steps == WORKFLOW_MAX_STEPS) {
		if (!r->too_many)
			place_mistake(p, "more than %d steps", WORKFLOW_MAX_STEPS);
		r->too_many = true;
		return NULL;
	}
	const struct place *kept = workflow_load_keep(p);
	if (!kept)
		return NULL;
	struct workflow_step *s = &w->steps[w->n_steps];
	s->parents = after;
	s->name = SPAN_LIT("");
	r->places[w->n_steps++] = kept;
	return s;
}

/* Its name is its task's unless said. */
static void workflow_load_step_name(struct workflow_reading *r, const struct place *at,
				    struct workflow_step *s)
{
	workflow_load_name(at, &s->name);
	if (!s->name.len)
		s->name = s->task.ptr ? s->task : SPAN_LIT("");
	for (const struct workflow_step *other = r->w->steps; other < s; other++)
		if (s->name.len && span_eq(other->name, s->name))
			place_mistake(at, "two steps are named \"%.*s\"", SPAN_ARG(s->name));
}

static void workflow_load_step_mapping(struct workflow_reading *r, const struct place *p,
				       struct workflow_step *s)
{
	static const struct field fields[] = {
		{"name", FIELD_OTHER, 0, 0, 0},
		{"task", FIELD_OTHER, 0, 0, 0},
		{"description", FIELD_OTHER, 0, 0, 0},
		{"parents", FIELD_OTHER, 0, 0, 0},
		{"input", FIELD_OTHER, 0, 0, 0},
		{"args", FIELD_OTHER, 0, 0, 0},
		{"kwargs", FIELD_OTHER, 0, 0, 0},
		{"for_each", FIELD_OTHER, 0, 0, 0},
		{"queue", FIELD_OTHER, 0, 0, 0},
		{"backend", FIELD_OTHER, 0, 0, 0},
		{"idempotent", FIELD_BOOL, offsetof(struct workflow_step, idempotent), 0, 0},
		{"timeout", FIELD_OTHER, 0, 0, 0},
		{"timeout_minutes", FIELD_OTHER, 0, 0, 0}};
	struct place name = place_member(p, "name"), task = place_member(p, "task");
	struct place input = place_member(p, "input"), args = place_member(p, "args");
	struct place kwargs = place_member(p, "kwargs"), for_each = place_member(p, "for_each");
	struct place queue = place_member(p, "queue"), backend = place_member(p, "backend");
	READ_FIELDS(p, fields, s);
	if (!task.node)
		place_mistake(&task, "is missing");
	workflow_load_task(r, &task, backend.node != NULL, s);
	workflow_load_kwargs(&kwargs, s);
	workflow_load_input(&input, s);
	workflow_load_args(&args, &input, s);
	workflow_load_for_each(&for_each, s);
	if (s->over && !input.node && !args.node) {
		s->input = STEP_INPUT_TEMPLATE;
		s->args = "[{\"$ref\":\"item:\"}]";
	}
	workflow_load_name(&queue, &s->queue);
	workflow_load_name(&backend, &s->backend);
	workflow_load_timeout(p, &s->timeout_ms);
	workflow_load_step_name(r, &name, s);
}

/* [name] or [name, {kwargs}] */
static void workflow_load_step_pair(struct workflow_reading *r, const struct place *p,
				    struct workflow_step *s)
{
	if (p->node->count < 1 || p->node->count > 2) {
		place_mistake(p, "must be [task] or [task, {kwargs}]; steps that run beside each other are "
				 "parallel: […]");
		return;
	}
	struct place task = place_element(p, p->node->first, 0);
	workflow_load_task(r, &task, false, s);
	workflow_load_step_name(r, &task, s);
	if (p->node->first->next) {
		struct place kwargs = place_element(p, p->node->first->next, 1);
		workflow_load_kwargs(&kwargs, s);
	}
}

static uint64_t workflow_load_step(struct workflow_reading *r, const struct place *p, uint64_t after)
{
	size_t number = r->w->n_steps;
	struct workflow_step *s = workflow_load_add(r, p, after);
	if (!s)
		return after;
	if (p->node->kind == YAML_MAPPING) {
		workflow_load_step_mapping(r, p, s);
	} else if (p->node->kind == YAML_SEQUENCE) {
		workflow_load_step_pair(r, p, s);
	} else {
		workflow_load_task(r, p, false, s);
		workflow_load_step_name(r, p, s);
	}
	return UINT64_C(1) << number;
}

/* --- lists of steps ------------------------------------------------------------------------------------- */

static uint64_t workflow_load_list(struct workflow_reading *r, const struct place *p, uint64_t after,
				   bool beside, unsigned depth);

/* One element: a step, or a block of them. Returns the steps that what stands behind it follows. */
static uint64_t workflow_load_element(struct workflow_reading *r, const struct place *p, uint64_t after,
				      unsigned depth)
{
	bool mapping = p->node && p->node->kind == YAML_MAPPING;
	const struct yaml_node *parallel = mapping ? yaml_get(p->node, "parallel") : NULL;
	const struct yaml_node *steps = mapping && !parallel ? yaml_get(p->node, "steps") : NULL;
	if (!p->node) {
		place_mistake(p, "empty");
		return after;
	}
	if (!parallel && !steps)
		return workflow_load_step(r, p, after);
	const char *name = parallel ? "parallel" : "steps";
	if (p->node->count > 1)
		place_mistake(p, "a block has no other key beside %s", name);
	const struct place *block = workflow_load_keep(p);
	struct place list = block ? place_member(block, name) : *p;
	const struct place *kept = block ? workflow_load_keep(&list) : NULL;
	return kept ? workflow_load_list(r, kept, after, parallel != NULL, depth + 1) : after;
}

/* `beside`: all of them follow what stands before the list; else each what stands before it. */
static uint64_t workflow_load_list(struct workflow_reading *r, const struct place *p, uint64_t after,
				   bool beside, unsigned depth)
{
	uint64_t last = beside ? 0 : after;
	size_t i = 0;
	if (!p->node || p->node->kind != YAML_SEQUENCE || !p->node->count) {
		place_mistake(p, "must be a list of 1 to %d steps", WORKFLOW_MAX_STEPS);
		return after;
	}
	if (depth > WORKFLOW_MAX_NESTING) {
		place_mistake(p, "more than %d blocks within each other", WORKFLOW_MAX_NESTING);
		return after;
	}
	for (const struct yaml_node *n = p->node->first; n && !r->too_many; n = n->next) {
		struct place element = place_element(p, n, i++);
		if (beside)
			last |= workflow_load_element(r, &element, after, depth);
		else
			last = workflow_load_element(r, &element, last, depth);
	}
	return last;
}

/* --- parents -------------------------------------------------------------------------------------------- */

static void workflow_load_unknown_step(const struct workflow_definition *w, const struct place *p,
				       struct span name)
{
	const char *known[WORKFLOW_MAX_STEPS];
	char copies[WORKFLOW_MAX_STEPS][TASK_NAME_MAX];
	for (size_t i = 0; i < w->n_steps; i++) {
		span_copy(w->steps[i].name, copies[i], sizeof(copies[i]));
		known[i] = copies[i];
	}
	const char *near = nearest_word(name, known, w->n_steps);
	if (near)
		place_mistake(p, "there is no step \"%.*s\"; did you mean \"%s\"?", SPAN_ARG(name), near);
	else
		place_mistake(p, "there is no step \"%.*s\"", SPAN_ARG(name));
}

static void workflow_load_parent(const struct place *p, struct workflow_definition *w, uint64_t *set)
{
	struct span name = SPAN_NONE;
	workflow_load_name(p, &name);
	if (!name.ptr)
		return;
	size_t i = workflow_find_step(w, name);
	if (i == w->n_steps)
		workflow_load_unknown_step(w, p, name);
	else if (*set >> i & 1)
		place_mistake(p, "is listed twice");
	else
		*set |= UINT64_C(1) << i;
}

static void workflow_load_parents(struct workflow_reading *r, size_t step)
{
	if (r->places[step]->node->kind != YAML_MAPPING)
		return;
	struct place p = place_member(r->places[step], "parents");
	uint64_t set = 0;
	size_t i = 0;
	if (!p.node)
		return;
	if (p.node->kind != YAML_SEQUENCE) {
		place_mistake(&p, "must be a list of names of steps; [] for a step that begins at once");
		return;
	}
	for (const struct yaml_node *n = p.node->first; n; n = n->next) {
		struct place parent = place_element(&p, n, i++);
		workflow_load_parent(&parent, r->w, &set);
	}
	r->w->steps[step].parents = set;
}

/* --- the whole ------------------------------------------------------------------------------------------ */

static void workflow_load_description(const struct place *p, struct span *ret)
{
	if (value_text(p, ret) && ret->len > WORKFLOW_MAX_DESCRIPTION)
		place_mistake(p, "is longer than %d bytes", WORKFLOW_MAX_DESCRIPTION);
}

static void workflow_load_head(const struct place *p, const struct workflow_tasks *tasks,
			       struct workflow_definition *w)
{
	static const struct field fields[] = {
		{"name", FIELD_OTHER, 0, 0, 0},	       {"queue", FIELD_OTHER, 0, 0, 0},
		{"description", FIELD_OTHER, 0, 0, 0}, {"steps", FIELD_OTHER, 0, 0, 0},
		{"execution", FIELD_OTHER, 0, 0, 0},   {"result", FIELD_OTHER, 0, 0, 0},
		{"timeout", FIELD_OTHER, 0, 0, 0},     {"timeout_minutes", FIELD_OTHER, 0, 0, 0}};
	static const char *const executions[] = {"native", "router"};
	struct place name = place_member(p, "name"), queue = place_member(p, "queue");
	struct place description = place_member(p, "description"), execution = place_member(p, "execution");
	struct place result = place_member(p, "result");
	size_t which;
	READ_FIELDS(p, fields, w);
	w->name = SPAN_LIT("");
	w->queue = tasks->queue;
	if (!name.node)
		place_mistake(&name, "is missing");
	workflow_load_name(&name, &w->name);
	workflow_load_name(&queue, &w->queue);
	workflow_load_description(&description, &w->description);
	workflow_load_timeout(p, &w->timeout_ms);
	if (value_choice(&execution, executions, 2, &which))
		w->execution = which ? WORKFLOW_ROUTER : WORKFLOW_NATIVE;
	if (result.node)
		w->result = workflow_load_json(&result, "", "");
}

void workflow_read(const struct place *p, const struct workflow_tasks *tasks, struct workflow_definition *w)
{
	if (!value_mapping(p))
		return;
	struct workflow_reading *r = calloc(1, sizeof(*r));
	if (!r) {
		p->reader->out_of_memory = true;
		return;
	}
	struct place steps = place_member(p, "steps");
	r->w = w;
	r->tasks = tasks;
	r->place = p;
	workflow_load_head(p, tasks, w);
	if (!steps.node)
		place_mistake(&steps, "is missing");
	else
		workflow_load_list(r, &steps, 0, false, 0);
	for (size_t i = 0; i < w->n_steps; i++)
		workflow_load_parents(r, i);
	workflow_check(r);
	free(r);
}
