#include "tasks/workflow/workflow_check.h"

#include "tasks/workflow/workflow_template.h"

/* --- circles -------------------------------------------------------------------------------------------- */

/* The nearest way from the step back to itself, breadth first along its parents. */
bool workflow_put_circle(const struct workflow_definition *w, size_t step, struct buf *out)
{
	size_t child[WORKFLOW_MAX_STEPS], queue[WORKFLOW_MAX_STEPS];
	uint64_t seen = 0;
	size_t head = 0, tail = 0;
	queue[tail++] = step;
	while (head < tail) {
		size_t at = queue[head++];
		if (w->steps[at].parents >> step & 1) {
			buf_printf(out, "%.*s", SPAN_ARG(w->steps[step].name));
			for (; at != step; at = child[at])
				buf_printf(out, " → %.*s", SPAN_ARG(w->steps[at].name));
			buf_printf(out, " → %.*s", SPAN_ARG(w->steps[step].name));
			return true;
		}
		for (size_t i = 0; i < w->n_steps; i++) {
			if (!(w->steps[at].parents >> i & 1) || (seen >> i & 1))
				continue;
			seen |= UINT64_C(1) << i;
			child[i] = at;
			queue[tail++] = i;
		}
	}
	return false;
}

/* Once for each circle, at its first step; and what comes after one is never reached. */
static void check_circles(const struct workflow_reading *r)
{
	const struct workflow_definition *w = r->w;
	uint64_t above[WORKFLOW_MAX_STEPS], on_circle = 0, told = 0;
	for (size_t i = 0; i < w->n_steps; i++) {
		above[i] = workflow_ancestors(w, i);
		on_circle |= above[i] & (UINT64_C(1) << i);
	}
	for (size_t i = 0; i < w->n_steps; i++) {
		struct place parents = place_member(r->places[i], "parents");
		CLEANUP(buf_releasep) struct buf circle = BUF_INIT(1u << 16);
		if (!(on_circle >> i & 1) && (above[i] & on_circle))
			place_mistake(r->places[i],
				      "the step \"%.*s\" is never reached: it comes after a circle",
				      SPAN_ARG(w->steps[i].name));
		if (!(on_circle >> i & 1) || (told >> i & 1))
			continue;
		for (size_t j = i; j < w->n_steps; j++)
			if ((above[i] >> j & 1) && (above[j] >> i & 1))
				told |= UINT64_C(1) << j;
		workflow_put_circle(w, i, &circle);
		place_mistake(parents.node ? &parents : r->places[i], "the steps go in a circle: %.*s",
			      SPAN_ARG(buf_span(&circle)));
	}
}

/* --- references ----------------------------------------------------------------------------------------- */

/* Who refers, and to what it may. */
struct referring {
	const struct workflow_definition *w;
	size_t step;	/* n_steps: the workflow's result */
	uint64_t above; /* the steps that it may refer to */
	bool item, only_item;
};

static void check_reference_to_step(const struct place *p, const struct referring *by,
				    const struct workflow_reference *ref)
{
	size_t i = 0;
	while (i < by->w->n_steps && !workflow_reference_is(ref, by->w->steps[i].name))
		i++;
	if (i == by->w->n_steps)
		place_mistake(p, "there is no step \"%.*s\"", SPAN_ARG(ref->step));
	else if (i == by->step)
		place_mistake(p, "the step refers to its own result");
	else if (!(by->above >> i & 1))
		place_mistake(p,
			      "the step \"%.*s\" is not one that this step follows, so that its result "
			      "may not be there; name it in parents",
			      SPAN_ARG(by->w->steps[i].name));
}

static void check_reference(const struct place *p, const struct referring *by, struct span text)
{
	struct workflow_reference ref;
	const char *wrong = workflow_reference_read(text, &ref);
	struct shown shown = place_shown(p->node);
	if (wrong)
		place_mistake(p, "%s %s", shown.text, wrong);
	else if (ref.kind == REFERENCE_ITEM && !by->item)
		place_mistake(p, "item: is the element of a for_each, and this is none");
	else if (ref.kind != REFERENCE_ITEM && ref.kind != REFERENCE_CONSTANT && by->only_item)
		place_mistake(p, "a key is taken from the element: item:/…");
	else if (ref.kind == REFERENCE_STEP)
		check_reference_to_step(p, by, &ref);
}

static bool is_schema_reference(struct span text)
{
	struct workflow_reference ref;
	return workflow_reference_read(text, &ref) == NULL && ref.kind == REFERENCE_CONSTANT;
}

static void check_optional(const struct place *p)
{
	bool optional;
	value_bool(p, &optional);
}

static void check_template(const struct place *p, const struct referring *by)
{
	struct span text;
	size_t i = 0;
	if (!p->node || p->node->kind == YAML_SCALAR)
		return;
	const struct yaml_node *ref = p->node->kind == YAML_MAPPING ? yaml_get(p->node, "$ref") : NULL;
	bool is = ref && ref->kind == YAML_SCALAR && yaml_string(ref, &text) && !is_schema_reference(text);
	if (is) {
		struct place at = place_member(p, "$ref");
		check_reference(&at, by, text);
	}
	for (const struct yaml_node *n = p->node->first; n; n = n->next) {
		struct place child =
			p->node->kind == YAML_MAPPING ? place_item(p, n) : place_element(p, n, i++);
		if (is && span_is(n->key->text, "optional"))
			check_optional(&child);
		else if (is && !span_is(n->key->text, "$ref") && !span_is(n->key->text, "default"))
			place_mistake(&child, "a reference has only \"default\" or \"optional\" beside it");
		else
			check_template(&child, by);
	}
}

static void check_step_references(const struct workflow_reading *r, size_t i)
{
	static const char *const keys[] = {"input", "args", "kwargs"};
	const struct place *step = r->places[i];
	struct referring by = {r->w, i, workflow_ancestors(r->w, i), r->w->steps[i].over != NULL, false};
	if (step->node->kind == YAML_SEQUENCE && step->node->count == 2) {
		struct place kwargs = place_element(step, step->node->first->next, 1);
		check_template(&kwargs, &by);
	}
	if (step->node->kind != YAML_MAPPING)
		return;
	for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
		struct place p = place_member(step, keys[k]);
		check_template(&p, &by);
	}
	struct place for_each = place_member(step, "for_each");
	bool whole = for_each.node && for_each.node->kind == YAML_MAPPING && yaml_get(for_each.node, "$ref");
	struct place over = whole ? for_each : place_member(&for_each, "over");
	struct place key = place_member(&for_each, "key");
	by.item = false;
	check_template(&over, &by);
	by.item = by.only_item = true;
	check_template(&key, &by);
}

/* --- all of it ------------------------------------------------------------------------------------------ */

void workflow_check(const struct workflow_reading *r)
{
	const struct workflow_definition *w = r->w;
	struct place result = place_member(r->place, "result");
	struct referring whole = {w, w->n_steps, UINT64_MAX, false, false};
	check_circles(r);
	for (size_t i = 0; i < w->n_steps; i++)
		check_step_references(r, i);
	check_template(&result, &whole);
	size_t n = workflow_max_tasks(w);
	if (n > WORKFLOW_MAX_TASKS)
		place_mistake(r->place,
			      "the workflow can become %zu tasks (each for_each with its max), the limit "
			      "is %d",
			      n, WORKFLOW_MAX_TASKS);
}
