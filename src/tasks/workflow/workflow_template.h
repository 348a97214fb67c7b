/*
 * Templates of workflows (see workflow.h): checked in YAML, filled as JSON. Only for this folder.
 *
 * Threads: any; no state.
 */
#ifndef TASKS_WORKFLOW_WORKFLOW_TEMPLATE_H
#define TASKS_WORKFLOW_WORKFLOW_TEMPLATE_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

#define WORKFLOW_MAX_REFERENCE 1024 /* bytes */

enum workflow_reference_kind {
	REFERENCE_INPUT,
	REFERENCE_ARGS,
	REFERENCE_KWARGS,
	REFERENCE_STEP,
	REFERENCE_ITEM,
	REFERENCE_CONSTANT /* JSON Schema's */
};

struct workflow_reference {
	enum workflow_reference_kind kind;
	struct span step;    /* as in JSON pointers: with ~0 and ~1 */
	struct span pointer; /* "" or "/…" */
};

/* NULL, or what is wrong with the text. */
const char *workflow_reference_read(struct span text, struct workflow_reference *ret);
/* Whether it means the step of this name. */
bool workflow_reference_is(const struct workflow_reference *r, struct span step);

/* Where a template takes its values from. */
struct workflow_values {
	struct span args, kwargs; /* raw JSON */
	struct span item;	  /* SPAN_NONE outside of a for_each */
	void *arg;
	/* The result of the step, good until the next call. 0, or <0 with a sentence. */
	int (*step)(void *arg, const struct workflow_reference *r, struct span *ret, struct err *e);
};

/* Appends the template with its values: 0; -ENOENT with a sentence that names the reference that gives
 * nothing; buf's errors; those of `step`. */
int workflow_template_fill(struct span json, const struct workflow_values *v, struct buf *out, struct err *e);
/* Calls fn for each reference in it; stops when that does not return 0, with what it returned. */
int workflow_template_each(struct span json,
			   int (*fn)(void *arg, struct span text, const struct workflow_reference *r),
			   void *arg);

#endif
