/* `task:` of an operation: what it becomes on the task side. */
#include "config/config_reader.h"

#define DAY_MS 86400000ull

static void add_backend(const struct place *p, void *arg)
{
	struct task_mapping *t = arg;
	struct span name;
	if (!value_text(p, &name))
		return;
	for (size_t i = 0; i < t->n_backends; i++)
		if (span_eq(t->backends[i], name)) {
			place_mistake(p, "%.*s is listed twice", SPAN_ARG(name));
			return;
		}
	if (config_backend(config_of(p), name))
		t->backends[t->n_backends++] = name;
	else
		backend_mistake(p, name);
}

static void read_backend_list(const struct place *task, struct task_mapping *t)
{
	struct place one = place_member(task, "backend"), list = place_member(task, "backends");
	if (one.node && list.node)
		place_mistake(&list, "backend and backends are mutually exclusive");
	value_list(&list, OPERATION_MAX_BACKENDS, add_backend, t);
	if (t->n_backends)
		t->backend = t->backends[0];
}

static void check_backend(const struct place *task, const struct operation *op)
{
	const struct config *c = config_of(task);
	struct place p = place_member(task, "backend");
	if (op->task.backend.ptr && !config_backend(c, op->task.backend))
		backend_mistake(&p, op->task.backend);
	else if (!op->task.backend.ptr && !c->default_backend.ptr)
		place_mistake(task, "there is no backend for it: declare one under backends");
}

static void check_arguments(const struct place *task, const struct operation *op)
{
	struct place args = place_member(task, "args"), kwargs = place_member(task, "kwargs");
	struct place single = place_member(task, "single_input");
	if (args.node && args.node->kind == YAML_SCALAR)
		place_mistake(&args, "expected a list of arguments");
	if (kwargs.node && kwargs.node->kind != YAML_MAPPING)
		place_mistake(&kwargs, "expected a mapping of arguments by name");
	if (op->task.single_input &&
	    (!args.node || (args.node->kind == YAML_SEQUENCE && args.node->count != 1)))
		place_mistake(&single, "needs exactly one argument in args, which becomes the input");
}

/* Without a result there is nothing to answer with, or to be asked for. */
static void check_forgotten(const struct place *task, const struct operation *op)
{
	struct place response = place_member(task, "response"), async = place_member(task, "respond_async");
	if (op->task.fire_and_forget && response.node)
		place_mistake(&response, "fire_and_forget and response are mutually exclusive");
	if (op->task.fire_and_forget && op->task.respond_async)
		place_mistake(&async, "fire_and_forget and respond_async are mutually exclusive");
}

static void config_task_read_name(const struct place *task, struct operation *op)
{
	struct place name = place_member(task, "name"), workflow = place_member(task, "workflow");
	if (name.node && workflow.node)
		place_mistake(&workflow, "name and workflow are mutually exclusive");
	else if (!name.node && !workflow.node)
		place_mistake(task, "missing: name (of a task) or workflow");
	op->task.workflow = workflow.node != NULL;
	const struct place *p = workflow.node ? &workflow : &name;
	if (value_text(p, &op->task.task) && op->task.task.len > 127)
		place_mistake(p, "a name has at most 127 characters, this one %zu", op->task.task.len);
}

void read_task(const struct place *p, struct operation *op)
{
	static const struct field fields[] = {
		{"name", FIELD_OTHER, 0, 0, 0},
		{"workflow", FIELD_OTHER, 0, 0, 0},
		{"args", FIELD_OTHER, 0, 0, 0},
		{"kwargs", FIELD_OTHER, 0, 0, 0},
		{"response", FIELD_OTHER, 0, 0, 0},
		{"priority", FIELD_OTHER, 0, 0, 0},
		{"queue", FIELD_SPAN, offsetof(struct task_mapping, queue), 0, 0},
		{"backends", FIELD_OTHER, 0, 0, 0},
		{"backend", FIELD_SPAN, offsetof(struct task_mapping, backend), 0, 0},
		{"single_input", FIELD_BOOL, offsetof(struct task_mapping, single_input), 0, 0},
		{"idempotent", FIELD_BOOL, offsetof(struct task_mapping, idempotent), 0, 0},
		{"respond_async", FIELD_BOOL, offsetof(struct task_mapping, respond_async), 0, 0},
		{"fire_and_forget", FIELD_BOOL, offsetof(struct task_mapping, fire_and_forget), 0, 0},
		{"timeout", FIELD_DURATION, offsetof(struct task_mapping, timeout_ms), 10, 7 * DAY_MS},
		{"task_timeout", FIELD_DURATION, offsetof(struct task_mapping, task_timeout_ms), 10,
		 7 * DAY_MS},
		{"expires", FIELD_DURATION, offsetof(struct task_mapping, expires_ms), 10, 7 * DAY_MS}};
	if (!p->node)
		return;
	op->has_task = true;
	op->task.timeout_ms = 300000;
	if (!value_mapping(p))
		return;
	READ_FIELDS(p, fields, &op->task);
	read_backend_list(p, &op->task);
	config_task_read_name(p, op);
	struct place args = place_member(p, "args"), kwargs = place_member(p, "kwargs");
	struct place response = place_member(p, "response"), priority = place_member(p, "priority");
	uint64_t v;
	if (value_unsigned(&priority, 0, 9, &v))
		op->task.priority = (int)v;
	op->task.args = read_template(&args, TEMPLATE_REQUEST | TEMPLATE_CREDENTIAL);
	op->task.kwargs = read_template(&kwargs, TEMPLATE_REQUEST | TEMPLATE_CREDENTIAL);
	op->task.response = read_response(&response, TEMPLATE_REQUEST | TEMPLATE_RESULT);
	op->task.needs_body = (op->task.args && template_needs_body(op->task.args)) ||
			      (op->task.kwargs && template_needs_body(op->task.kwargs)) ||
			      (op->task.response && response_template_needs_body(op->task.response));
	check_arguments(p, op);
	check_forgotten(p, op);
	check_backend(p, op);
}
