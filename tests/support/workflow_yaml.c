#include "support/workflow_yaml.h"

#include <errno.h>

static bool is_known(void *arg, struct span task, struct buf *why)
{
	(void)arg;
	if (task.len == 1 || span_is(task, "echo"))
		return true;
	buf_printf(why, "unknown task \"%.*s\"", SPAN_ARG(task));
	return false;
}

int workflow_yaml_read(struct workflow_yaml *y, struct span text)
{
	const struct workflow_tasks tasks = {.known = is_known, .queue = SPAN_LIT("default")};
	struct err e = {""};
	*y = (struct workflow_yaml){.memory = ARENA_INIT(64u << 20), .problems = BUF_INIT(1u << 20)};
	int r = yaml_parse("f", text, &y->doc, &e);
	if (r < 0)
		return r;
	struct place_reader reader = {
		.name = "f", .folder = "", .memory = &y->memory, .problems = &y->problems};
	struct place root = place_root(&reader, yaml_root(y->doc));
	workflow_read(&root, &tasks, &y->w);
	y->mistakes = reader.mistakes;
	return reader.out_of_memory ? -ENOMEM : 0;
}

void workflow_yaml_release(struct workflow_yaml *y)
{
	arena_release(&y->memory);
	buf_release(&y->problems);
	yaml_free(y->doc);
}
