/*
 * Workflows as declared: steps, what each follows, and what each is given. Read from YAML, checked as a
 * whole, and frozen to JSON, so that one that runs is not changed by the next reload.
 *
 * Why:       one declaration means the same wherever it runs: by embedded workers, as single tasks driven by
 *            the router, or by an engine's own workflows (design, "Workflows").
 * Shape:     a directed graph without circles. Steps stand in the order of the file; parents are bits of that
 *            order, and may stand behind.
 * Ownership: texts are the arena's or the document's that the definition was read with, and live as long.
 * Threads:   immutable once read.
 * Errors:    of a file: one line "file:line: key: what is wrong" for each mistake, all at once.
 * Limits:    WORKFLOW_MAX_* below.
 *
 * Values that a step is given are templates: JSON in which {"$ref": "…"} stands for a value, as raw text:
 *   input:/a/b       value in the workflow's input: in its first positional argument, or, where it was called
 *                    without any, in its keyword arguments
 *   args:/0/a        value in the workflow's positional arguments, kwargs:/a in its keyword arguments
 *   step:<name>/a    value in the result of a step that this one follows, directly or not; a '/' or '~' in
 *                    its name as in JSON pointers: ~1, ~0. That of a for_each is the list of its items'
 *                    results, or with `key` an object of them
 *   item:/a          value in the element that this item of a for_each is for
 * A value that is not there takes "default", which may be a template itself; with "optional": true it is left
 * out of its object (null in a list); else the workflow fails. A "$ref" with '#' or "://" in it is JSON
 * Schema's: it stays what it is.
 */
#ifndef TASKS_WORKFLOW_WORKFLOW_H
#define TASKS_WORKFLOW_WORKFLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/places.h"
#include "base/span.h"

#define WORKFLOW_MAX_STEPS 64	       /* a set of steps is a uint64_t */
#define WORKFLOW_MAX_ITEMS 256	       /* of one for_each */
#define WORKFLOW_DEFAULT_ITEMS 64      /* of a for_each without `max` */
#define WORKFLOW_MAX_TASKS 1024	       /* of one workflow: its steps, a for_each with its `max` */
#define WORKFLOW_MAX_NESTING 8	       /* of parallel blocks */
#define WORKFLOW_MAX_FROZEN (1u << 20) /* bytes of a definition as JSON */
#define WORKFLOW_MAX_TIMEOUT_MS (7 * 86400000ull)
#define WORKFLOW_MAX_DESCRIPTION 1000 /* bytes */

/* What a step gets as positional arguments. Its keyword arguments are its `kwargs`; before them the
 * workflow's own where it gets the workflow's own positional ones. */
enum step_input {
	/* the result of the step that it follows; of several, one list of their results in the order of the
	 * steps; the workflow's own arguments where it follows none */
	STEP_INPUT_PREVIOUS,
	STEP_INPUT_WORKFLOW, /* the workflow's own arguments */
	STEP_INPUT_NONE,
	STEP_INPUT_TEMPLATE /* `args` */
};

struct workflow_step {
	struct span name; /* key in the workflow's result; the task's name unless said */
	struct span task;
	const char *kwargs; /* a template, a JSON object; or NULL */
	enum step_input input;
	unsigned timeout_ms; /* of one attempt of each of its tasks; 0: the task's */
	const char *args;    /* STEP_INPUT_TEMPLATE: a template, a JSON array; else NULL */
	uint64_t parents;    /* the steps that it directly follows; 0: it begins with the workflow */
	struct span queue;   /* SPAN_NONE: the task's own */
	struct span backend; /* execution: router; SPAN_NONE: the operation's */
	bool idempotent; /* may run again when its outcome is unknown, also where its task does not say so */
	/* for_each: the step is one task for each element of a list. NULL: it is a single one. */
	const char *over;   /* a template that gives a JSON array */
	const char *key;    /* a template over item: that gives a string; or NULL: the results are a list */
	unsigned max_items; /* more elements: the workflow fails before one of them begins */
};

/* Who drives the steps. */
enum workflow_execution {
	WORKFLOW_UNSAID,
	WORKFLOW_NATIVE, /* the backend itself */
	WORKFLOW_ROUTER	 /* the router, as single tasks */
};

struct workflow_definition {
	struct span name, queue, description; /* description: SPAN_NONE when there is none */
	enum workflow_execution execution;
	struct workflow_step steps[WORKFLOW_MAX_STEPS];
	size_t n_steps;
	unsigned timeout_ms; /* of the whole, from its first step on; 0: none said */
	/* a template over input: and step:; NULL: {"<step>": its result, …} in the order of the steps */
	const char *result;
};

/* --- reading -------------------------------------------------------------------------------------------- */

/* Who knows the tasks that steps name. */
struct workflow_tasks {
	void *arg;
	/* Whether the task is known; appends a sentence to `why` when not. NULL: tasks are someone else's. */
	bool (*known)(void *arg, struct span task, struct buf *why);
	struct span queue; /* of a workflow that names none */
};

/* Reads one workflow, a mapping, into the zeroed `w`; mistakes go to the reader of `p`, whose arena holds
 * what is made. `w->name` is "" when it has none. Whether the name is taken is the caller's to see. */
void workflow_read(const struct place *p, const struct workflow_tasks *tasks, struct workflow_definition *w);

/* --- looking -------------------------------------------------------------------------------------------- */

/* Whether it is a plain sequence of what all engines have had: each step one task that follows the one before
 * it, given the previous result, the workflow's arguments or none, and constants. */
bool workflow_is_sequence(const struct workflow_definition *w);
/* Whether a template takes anything from somewhere; else it is constant. */
bool workflow_template_refers(const char *json);
/* Every step that this one follows, directly or not. */
uint64_t workflow_ancestors(const struct workflow_definition *w, size_t step);
/* How many tasks it can become at most. */
size_t workflow_max_tasks(const struct workflow_definition *w);
/* Its number, or n_steps. */
size_t workflow_find_step(const struct workflow_definition *w, struct span name);
/* Appends Mermaid's flowchart of it; every name is escaped. */
int workflow_put_mermaid(const struct workflow_definition *w, struct buf *out);

/* --- frozen --------------------------------------------------------------------------------------------- */

/* Appends the definition as one JSON object, for whoever must go on with it later. Errors: buf's. */
int workflow_to_json(const struct workflow_definition *w, struct buf *out);
/* Reads it back into `memory`. What it reads is checked as a file is: -EBADMSG with a sentence, -ENOMEM. */
int workflow_from_json(struct span json, struct arena *memory, struct workflow_definition **ret,
		       struct err *e);

#endif
