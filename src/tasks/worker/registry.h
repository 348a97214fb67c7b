/*
 * Registry: which tasks and workflows a worker knows, and how each is run: the core tasks, and what is read
 * from YAML (config/tasks.yml, config/tasks.d/).
 *
 * Why:       what can be run is declared, checked as a whole and listed before anything is leased.
 * Ownership: the registry owns everything it hands out, until the last registry_free: one for who loaded it,
 *            one for each registry_ref.
 * Threads:   immutable once loaded and registered to; any thread may look up.
 * Errors:    -errno when the file cannot be read; -EBADMSG for mistakes in it, with one line "file:line: key:
 *            what is wrong" per mistake in `problems`, all at once.
 * Twice:     a task (or workflow) has one declaration; a second one is a mistake that names both places. Only
 *            a core task may be declared again, by a file, which then decides how it is run.
 * Limits:    REGISTRY_MAX_* below.
 */
#ifndef TASKS_WORKER_REGISTRY_H
#define TASKS_WORKER_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"
#include "tasks/worker/builtin.h"
#include "tasks/worker/secrets.h"
#include "tasks/workflow/workflow.h"

#define REGISTRY_MAX_FILE (1u << 20)
#define REGISTRY_MAX_TASKS 1024
#define REGISTRY_MAX_WORKFLOWS 256
#define REGISTRY_MAX_ARGV 64
#define REGISTRY_MAX_ENV 64
#define REGISTRY_MAX_FIELDS 32

#define REGISTRY_DEFAULT_QUEUE "default"
#define REGISTRY_DEFAULT_TIMEOUT_MS 300000u
#define REGISTRY_DEFAULT_ATTEMPTS 3 /* of an idempotent task */
#define REGISTRY_DEFAULT_OUTPUT (8u << 20)

enum handler_kind { HANDLER_BUILTIN, HANDLER_EXEC, HANDLER_HTTP };

/* What an `exec` handler reads: the call as JSON, one value of it as bytes, or a file that it names. */
enum exec_stdin { EXEC_STDIN_JSON, EXEC_STDIN_BASE64, EXEC_STDIN_TEXT, EXEC_STDIN_FILE };

struct exec_handler {
	/* NULL at the end; argv[0] is searched in PATH when it has no slash */
	char *argv[REGISTRY_MAX_ARGV + 1];
	char *env[REGISTRY_MAX_ENV + 2]; /* NAME=value, the whole environment but PATH (given unless set) */
	enum exec_stdin stdin_kind;
	struct span stdin_source; /* "args:/0/content" or "kwargs:/x"; for BASE64 and TEXT */
	/* where the call names a file in its place, below this folder; SPAN_NONE: it cannot. Folder "": not
	 * configured. */
	struct span file_source;
	const char *folder;
	bool stdout_text;  /* the output is text, which becomes a JSON string; else it must be JSON */
	size_t max_output; /* bytes */
};

struct http_handler_field {
	const char *name, *value;
};

struct http_handler {
	const char *url;
	struct http_handler_field fields[REGISTRY_MAX_FIELDS];
	size_t n_fields;
	const char *ca_file;
	const char *body;   /* JSON with {"$ref": "args:/0"}; NULL: {"args": […], "kwargs": {…}} */
	struct span result; /* JSON pointer into the answer; "" = all of it */
	const char *result_template; /* in its place: JSON with {"$ref": "answer:/…"}; or NULL */
	size_t max_output;
};

/* Where it is declared; file NULL: in the program. */
struct registry_place {
	const char *file;
	unsigned line;
};

struct task_definition {
	struct span name, queue;
	struct registry_place place;
	enum handler_kind kind;
	const struct builtin *builtin;
	struct exec_handler *exec;
	struct http_handler *http;
	bool idempotent;
	unsigned max_attempts;	/* 1 unless idempotent */
	unsigned timeout_ms;	/* of one attempt */
	struct secrets secrets; /* what must not be said of a failure, in neither text */
};

struct registry;

/* What a registry is made of: settings of a backend, or of a command line. */
struct registry_source {
	char *paths;	   /* files and folders, one a line (registry_files.h); NULL: only the core tasks */
	bool skip_broken;  /* serve what is right, instead of nothing */
	bool without_core; /* not the core tasks, but for those that a file declares */
};

/* The rows of a backend's settings that fill its `struct registry_source`. */
#define REGISTRY_SOURCE_SETTINGS(options, source) \
	{.key = "tasks", \
	 .path = true, \
	 .several = true, \
	 .set = task_setting_text, \
	 .offset = offsetof(options, source.paths)}, \
		{.key = "tasks_fail_fast", \
		 .set = registry_set_fail_fast, \
		 .offset = offsetof(options, source)}, \
	{ \
		.key = "core_tasks", .set = registry_set_core_tasks, .offset = offsetof(options, source) \
	}
int registry_set_fail_fast(void *source, struct span value, struct err *e);
int registry_set_core_tasks(void *source, struct span value, struct err *e);

/* Only the core tasks, on the default queue. */
int registry_core(struct registry **ret);
/* The core tasks, then what the files say. `${NAME}` and `${NAME:-default}` in argv, env, url, headers and
 * ca_file are taken from getenv_fn. With skip_broken what is wrong is left out, and so is a second
 * declaration: each of them is told in `problems`, counted and kept (registry_skipped); if no file at all can
 * be read it is an error even then. */
int registry_load(const struct registry_source *s, const char *(*getenv_fn)(const char *),
		  struct buf *problems, struct registry **ret);
/* Only the workflows of such files: their steps are run elsewhere, so that tasks are skipped, and steps may
 * name any. */
int registry_load_workflows(const struct registry_source *s, struct buf *problems, struct registry **ret);
/* How many tasks, workflows and files were left out (skip_broken), and the lines that say why: "" when none
 * were. */
unsigned registry_skipped(const struct registry *r, const char **ret_lines);
struct registry *registry_ref(struct registry *r);
struct registry *registry_free(struct registry *r); /* NULL is allowed; returns NULL */

/* Adds a task written in C by the program that runs the worker. -EEXIST, -ENOSPC, -ENOMEM. `b` and the text
 * of `queue` stay the caller's, unchanged. */
int registry_register(struct registry *r, const struct builtin *b, struct span queue);
/* How such a task is run: what a file would say. */
struct registry_manner {
	struct span queue; /* SPAN_NONE: default */
	bool idempotent;
	unsigned max_attempts; /* 0: 1, of an idempotent one 3 */
	unsigned timeout_ms;   /* 0: 5 minutes */
};
/* The same, in place of a core task of that name; the one of a file stays, and is -EEXIST. */
int registry_register_as(struct registry *r, const struct builtin *b, const struct registry_manner *manner);

struct task_backend_setup;
/* For options_check of a backend that runs workflows itself: -EINVAL with a sentence for the first call of a
 * workflow that is not for it. `fits` (NULL: all do) says whether its shape can be run there. */
int registry_check_calls(const struct registry *r, const struct task_backend_setup *setup,
			 bool (*fits)(const struct workflow_definition *w), const char *what, struct err *e);
/* Whether it is declared for the router to drive, or a step of it is for a backend that it names. */
bool registry_is_for_router(const struct workflow_definition *w);

const struct task_definition *registry_task(const struct registry *r, struct span name);
const struct workflow_definition *registry_workflow(const struct registry *r, struct span name);
/* Where it is declared; NULL when it is not known, or is the program's own. */
const struct registry_place *registry_place_of(const struct registry *r, struct span name, bool workflow);
size_t registry_count(const struct registry *r);
size_t registry_count_core(const struct registry *r); /* of these the ones that no file declares */
const struct task_definition *registry_task_at(const struct registry *r, size_t i);
size_t registry_workflow_count(const struct registry *r);
const struct workflow_definition *registry_workflow_at(const struct registry *r, size_t i);

/* Appends `unknown task "x"; did you mean "y"? known: a, b, c`, nearest names first, at most ten. */
int registry_describe_unknown(const struct registry *r, struct span name, bool workflow, struct buf *out);

#endif
