/*
 * What is wrong with a workflow that has been read as a whole. Only for this folder.
 */
#ifndef TASKS_WORKFLOW_WORKFLOW_CHECK_H
#define TASKS_WORKFLOW_WORKFLOW_CHECK_H

#include "tasks/workflow/workflow.h"

/* A workflow on its way from YAML. */
struct workflow_reading {
	struct workflow_definition *w;
	const struct workflow_tasks *tasks;
	const struct place *place;			/* of the workflow */
	const struct place *places[WORKFLOW_MAX_STEPS]; /* of its steps */
	bool too_many;					/* steps; was said */
};

/* Tells every circle, unreachable step, wrong reference and passed bound. */
void workflow_check(const struct workflow_reading *r);

/* Appends a circle that this step is on, "a → b → a"; false if there is none. */
bool workflow_put_circle(const struct workflow_definition *w, size_t step, struct buf *out);

#endif
