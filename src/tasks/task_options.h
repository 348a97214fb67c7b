/*
 * A backend as configured: settings by name, checked before anything is connected, then shared by the clients
 * of all loops.
 *
 * Why:       a program fills every backend in the same way and knows none of them: which settings there are,
 *            which of them are paths, and which variables of the environment stand for them is part of the
 *            backend's row.
 * Order:     new, set, check, start, then clients; free when they are gone.
 * Ownership: the options copy what they need of settings and setup.
 * Threads:   one thread until start; then read-only, and any.
 * Errors:    -errno with a sentence that holds no secret.
 */
#ifndef TASKS_TASK_OPTIONS_H
#define TASKS_TASK_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/span.h"
#include "tasks/task_backend.h"

#define TASK_SETTING_VARIABLES 2
#define TASK_SETTINGS_MAX 64 /* of one backend */

/* The options of every backend start with this. */
struct task_options {
	const struct task_backend *backend;
};

struct task_setting {
	const char *key;
	bool path;    /* of a file or folder: relative to the file that says it, not to the working folder */
	bool several; /* a path: a list of them may be given, which is set as a line for each */
	/* in use for it; the first that is set wins over a file */
	const char *variables[TASK_SETTING_VARIABLES];
	/* Reads the text; the last of several counts. -EINVAL (or -errno of a file) with what was
	 * expected. */
	int (*set)(void *field, struct span value, struct err *e);
	size_t offset; /* of the field in the backend's options; 0: all of them */
};

/* What a program tells every backend beside its settings. */
struct task_backend_setup {
	const char *data_dir;			    /* where files of its own go by default */
	const char *(*getenv_fn)(const char *name); /* for ${NAME} in files that settings name */
	bool only_looking;			    /* nothing is made that is not there */
	const struct task_probe *calls;		    /* what it will be asked to run */
	size_t n_calls;
	bool state_shared;	     /* replicas of the program share what later calls must find */
	struct span default_backend; /* of calls that name none; SPAN_NONE: not known */
	/* The other backends of the program, by name, for one that is over them; NULL: there is none of that
	 * name. Their options are checked when this one's are, and started when it is; they and `other_arg`
	 * outlive it. NULL: who asks does not know. */
	const struct task_options *(*other)(const void *arg, struct span name);
	const void *other_arg;
	/* where mistakes in files that settings name go, a line each with its place; NULL: the first is in
	 * `e` */
	struct buf *problems;
};

int task_options_new(const struct task_backend *backend, struct task_options **ret, struct err *e);
int task_options_set(struct task_options *o, struct span key, struct span value, struct err *e);
/* Once after all settings: fills in defaults, says what is missing or does not go together. Connects to
 * nothing. An error without a sentence has been told to setup->problems. */
int task_options_check(struct task_options *o, const struct task_backend_setup *setup, struct err *e);
/* Begins what all clients share. A backend that is down is not an error. */
int task_options_start(struct task_options *o, struct err *e);
struct task_options *task_options_free(struct task_options *o); /* NULL is allowed; returns NULL */

/* NULL when the backend has no such setting. */
const struct task_setting *task_setting_find(const struct task_backend *backend, struct span key);

/* For options_check, after a file that a setting names could not be read: all its mistakes (lines) to
 * setup->problems, with e->text left empty; or the first of them to `e`. Returns `code`. */
int task_setup_mistakes(const struct task_backend_setup *setup, int code, const char *setting,
			struct span lines, struct err *e);

/* For the functions of rows, written and checked as everywhere: durations (ms, an unsigned field), sizes
 * (bytes, a size_t). */
int task_setting_duration(void *field, struct span value, unsigned min_ms, unsigned max_ms, struct err *e);
int task_setting_size(void *field, struct span value, size_t max, struct err *e);

/* For rows: keeps the text in a `char *`, which the backend frees. */
int task_setting_text(void *field, struct span value, struct err *e);
/* … of a base URL of http or https, without the slashes at its end */
int task_setting_url(void *field, struct span value, struct err *e);
int task_setting_bool(void *field, struct span value, struct err *e);

#endif
