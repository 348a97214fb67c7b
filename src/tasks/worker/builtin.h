/*
 * Tasks written in C: their signature, the binding of a call's arguments to it, and the core registry.
 *
 * Why:       positional and keyword arguments both work, and a missing, extra or wrong one is named, the same
 *            for each task.
 * Threads:   run is called on a thread of its own; it keeps nothing between calls.
 * Errors:    run: 0 and a JSON value in `out`, or <0 with a sentence that becomes the task's error.
 */
#ifndef TASKS_WORKER_BUILTIN_H
#define TASKS_WORKER_BUILTIN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

#define BUILTIN_MAX_PARAMS 8

enum builtin_type { BUILTIN_ANY, BUILTIN_NUMBER, BUILTIN_STRING, BUILTIN_OBJECT };

struct builtin_param {
	const char *name;
	enum builtin_type type;
	const char *fallback; /* JSON text; NULL: the argument must be given */
};

struct builtin_call {
	struct span values[BUILTIN_MAX_PARAMS]; /* raw JSON, one per parameter, of its type */
	struct span args, kwargs, task_id;	/* raw, for run_raw */
	/* Sleeps unless the task is being stopped; false then. */
	bool (*sleep)(void *arg, unsigned ms);
	void *sleep_arg;
};

struct builtin {
	const char *name;
	struct builtin_param params[BUILTIN_MAX_PARAMS];
	size_t n_params;
	int (*run)(const struct builtin_call *call, struct buf *out, struct err *e);
	/* in place of params and run: gets the call as it is */
	int (*run_raw)(void *arg, const struct builtin_call *call, struct buf *out, struct err *e);
	void *arg;
};

/* Fills call->values. `args` is a valid JSON array, `kwargs` a valid JSON object (SPAN_NONE: empty). -EINVAL,
 * with a sentence that names the argument. */
int builtin_bind(const struct builtin *b, struct span args, struct span kwargs, struct builtin_call *call,
		 struct err *e);

/* The core registry (core-tasks.md): add_numbers, concat_with_number, … */
extern const struct builtin core_tasks[];
extern const size_t n_core_tasks;
const struct builtin *core_task_find(struct span name);

#endif
