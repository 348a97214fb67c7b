/* A workflow read from YAML text, for tests: its file is called "f". */
#ifndef SUPPORT_WORKFLOW_YAML_H
#define SUPPORT_WORKFLOW_YAML_H

#include "tasks/workflow/workflow.h"

struct workflow_yaml {
	struct yaml_doc *doc;
	struct arena memory;
	struct buf problems;
	unsigned mistakes;
	struct workflow_definition w;
};

/* Tasks of one letter, and `echo`, are known. 0, or <0 when it is no YAML. To be released in any case. */
int workflow_yaml_read(struct workflow_yaml *y, struct span text);
void workflow_yaml_release(struct workflow_yaml *y);

#endif
