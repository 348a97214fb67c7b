#include "programs/worker/worker_registry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "tasks/worker/registry_files.h"

#define PROBLEMS_MAX (1u << 20)

static const char *worker_registry_getenv(const char *name)
{
	return getenv(name);
}

/* --- where it comes from -------------------------------------------------------------------------------- */

int worker_registry_add_path(struct worker_registry *w, const char *path)
{
	char *longer = NULL;
	const char *before = w->source.paths ? w->source.paths : "";
	if (asprintf(&longer, "%s%s%s", before, *before ? "\n" : "", path) < 0)
		return -ENOMEM;
	free(w->source.paths);
	w->source.paths = longer;
	return 0;
}

bool worker_registry_set_fail_fast(struct worker_registry *w, const char *value)
{
	struct err e;
	w->fail_fast_is_set = registry_set_fail_fast(&w->source, span_of(value), &e) == 0;
	return w->fail_fast_is_set;
}

bool worker_registry_set_core(struct worker_registry *w, const char *value)
{
	struct err e;
	w->core_is_set = registry_set_core_tasks(&w->source, span_of(value), &e) == 0;
	return w->core_is_set;
}

static int worker_registry_take_one(struct worker_registry *w, const struct backend_setting *s, bool paths)
{
	struct err e = {""};
	int r = 0;
	if (span_is(s->key, "tasks") && paths) {
		w->source.paths = span_dup(s->value);
		return w->source.paths ? 0 : -ENOMEM;
	}
	if (span_is(s->key, "tasks_fail_fast") && !w->fail_fast_is_set)
		r = registry_set_fail_fast(&w->source, s->value, &e);
	else if (span_is(s->key, "core_tasks") && !w->core_is_set)
		r = registry_set_core_tasks(&w->source, s->value, &e);
	if (r < 0)
		fprintf(stderr, "%.*s: %s\n", SPAN_ARG(s->key), e.text);
	return r;
}

int worker_registry_take(struct worker_registry *w, const struct backend_config *b)
{
	bool paths = !w->source.paths;
	int r = 0;
	for (size_t i = 0; i < b->n_settings && r == 0; i++)
		r = worker_registry_take_one(w, &b->settings[i], paths);
	return r;
}

/* --- reading it ----------------------------------------------------------------------------------------- */

static void worker_registry_log(enum log_level level, const char *event, const struct buf *problems)
{
	const char *at = problems->len ? problems->ptr : "";
	while (*at) {
		size_t n = strcspn(at, "\n");
		const struct span line = {at, n};
		if (n)
			LOG_AT(level, event, LOG_SPAN("problem", line));
		at += n + (at[n] == '\n');
	}
}

int worker_registry_load(struct worker_registry *w)
{
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(PROBLEMS_MAX);
	const char *lines;
	int r = registry_load(&w->source, worker_registry_getenv, &problems, &w->now);
	if (problems.len)
		fputs(problems.ptr, stderr);
	unsigned skipped = r < 0 ? 0 : registry_skipped(w->now, &lines);
	if (skipped)
		fprintf(stderr, "task-backend-worker: warning: %u left out (fail-fast is false)\n", skipped);
	return r;
}

struct registry *worker_registry_read(struct worker_registry *w)
{
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(PROBLEMS_MAX);
	struct registry *fresh = NULL;
	const char *lines;
	int r = registry_load(&w->source, worker_registry_getenv, &problems, &fresh);
	if (r < 0) {
		worker_registry_log(LOG_ERROR, "reload_refused", &problems);
		w->stale_us = w->stale_us ? w->stale_us : clock_wall_us();
		return NULL;
	}
	worker_registry_log(LOG_WARN, registry_skipped(fresh, &lines) ? "task_left_out" : "tasks_warning",
			    &problems);
	return fresh;
}

void worker_registry_tell(const struct worker_registry *w)
{
	const char *lines;
	unsigned n = registry_skipped(w->now, &lines);
	if (n)
		log_error("tasks_left_out", LOG_INT("n", n), LOG_STR("tasks_file", w->source.paths));
}

void worker_registry_put(struct worker_registry *w, struct registry *fresh)
{
	const char *lines;
	registry_free(w->now);
	w->now = fresh;
	w->stale_us = 0;
	worker_registry_tell(w);
	log_info("reloaded", LOG_STR("tasks_file", w->source.paths ? w->source.paths : "(core tasks)"),
		 LOG_INT("tasks", registry_count(fresh) - registry_count_core(fresh)),
		 LOG_INT("core_tasks", registry_count_core(fresh)),
		 LOG_INT("workflows", registry_workflow_count(fresh)),
		 LOG_INT("left_out", registry_skipped(fresh, &lines)));
}

void worker_registry_release(struct worker_registry *w)
{
	w->now = registry_free(w->now);
	free(w->source.paths);
	w->source.paths = NULL;
}

/* --- telling it ----------------------------------------------------------------------------------------- */

static const char *worker_registry_kind(const struct task_definition *t)
{
	if (t->kind == HANDLER_EXEC)
		return "exec";
	return t->kind == HANDLER_HTTP ? "http" : "builtin";
}

static void worker_registry_print_place(const struct registry_place *p)
{
	if (p)
		printf(" from=%s:%u\n", p->file, p->line);
	else
		printf(" from=core\n");
}

void worker_registry_list(const struct worker_registry *w)
{
	const struct registry *r = w->now;
	const char *lines;
	for (size_t i = 0; i < registry_count(r); i++) {
		const struct task_definition *t = registry_task_at(r, i);
		printf("task %.*s queue=%.*s handler=%s timeout=%ums max_attempts=%u", SPAN_ARG(t->name),
		       SPAN_ARG(t->queue), worker_registry_kind(t), t->timeout_ms, t->max_attempts);
		worker_registry_print_place(registry_place_of(r, t->name, false));
	}
	for (size_t i = 0; i < registry_workflow_count(r); i++) {
		const struct workflow_definition *f = registry_workflow_at(r, i);
		printf("workflow %.*s queue=%.*s steps=", SPAN_ARG(f->name), SPAN_ARG(f->queue));
		for (size_t s = 0; s < f->n_steps; s++)
			printf("%s%.*s", s ? "," : "", SPAN_ARG(f->steps[s].name));
		worker_registry_print_place(registry_place_of(r, f->name, true));
	}
	unsigned skipped = registry_skipped(r, &lines);
	if (skipped)
		printf("LEFT OUT %u:\n%s", skipped, lines);
}
