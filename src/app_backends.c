/*
 * Backends of the application: from the configuration's settings to what each backend's client_new takes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app_status.h"
#include "base/clock.h"
#include "base/log.h"
#include "tasks/backends.h"
#include "tasks/embedded.h"
#include "tasks/hatchet.h"

/* The tasks file tells the queue of each task; without one every call goes to the default queue. */
static int load_tasks(struct app *a, const struct backend_config *b, struct err *e)
{
	struct span path = backend_setting(b, "tasks");
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1u << 20);
	if (!path.ptr)
		return 0;
	CLEANUP(freep) char *file = span_dup(path);
	int r = file ? registry_load(file, app_getenv, &problems, &a->registry) : -ENOMEM;
	if (r < 0) {
		app_log_problems("tasks_refused", &problems);
		return err_set(e, r, "%.*s: %.*s", SPAN_ARG(path), (int)strcspn(problems.len ? problems.ptr : "unreadable", "\n"),
			       problems.len ? problems.ptr : "unreadable");
	}
	return 0;
}

/* Puts before a mistake in the i-th setting where it stands. */
static int setting_mistake(const struct app *a, const struct backend_config *b, size_t i, int r, struct err *e)
{
	if (b->settings[i].line)
		return err_prefix(e, r, "%s:%u: %.*s", a->config->path, b->settings[i].line, SPAN_ARG(b->settings[i].key));
	return err_prefix(e, r, "%.*s, from the environment", SPAN_ARG(b->settings[i].key));
}

/* For backends that do not read their settings one by one: refuses what is not in `known` (ends with NULL). */
static int only_settings(const struct app *a, const struct backend_config *b, const char *const *known, struct err *e)
{
	for (size_t i = 0; i < b->n_settings; i++) {
		CLEANUP(buf_releasep) struct buf list = BUF_INIT(1024);
		bool found = false;
		for (size_t k = 0; known[k] && !found; k++) {
			found = span_is(b->settings[i].key, known[k]);
			buf_printf(&list, "%s%s", k ? ", " : "", known[k]);
		}
		if (!found)
			return setting_mistake(a, b, i, err_set(e, -EINVAL, "no such setting; there are %s", list.ptr ? list.ptr : "none"), e);
	}
	return 0;
}

static int start_embedded(struct app *a, const struct backend_config *b, struct err *e)
{
	static const char *const known[] = {"database", "tasks", NULL};
	int r = only_settings(a, b, known, e);
	if (r < 0 || (r = load_tasks(a, b, e)) < 0)
		return r;
	struct span database = backend_setting(b, "database");
	CLEANUP(freep) char *path = NULL;
	if (asprintf(&path, "%.*s%s", SPAN_ARG(database.ptr ? database : span_of(a->config->data_dir)),
		     database.ptr ? "" : "/tasks.db") < 0) {
		path = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	struct embedded_options o = {.database = path, .tasks = a->registry, .must_exist = a->only_looking};
	return embedded_store_start(&o, &a->embedded, e);
}

static int start_celery(struct app *a, const struct backend_config *b, struct err *e)
{
	if (celery_options_new(&a->celery) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < b->n_settings; i++) {
		int r = celery_options_set(a->celery, b->settings[i].key, b->settings[i].value, e);
		if (r < 0)
			return setting_mistake(a, b, i, r, e);
	}
	return celery_options_check(a->celery, e);
}

static int start_temporal(struct app *a, const struct backend_config *b, struct err *e)
{
	if (temporal_options_new(&a->temporal) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < b->n_settings; i++) {
		int r = temporal_options_set(a->temporal, b->settings[i].key, b->settings[i].value, e);
		if (r < 0)
			return setting_mistake(a, b, i, r, e);
	}
	return temporal_options_check(a->temporal, e);
}

/* Operations that name hatchet, or no backend where hatchet is the default: their workflows must have a worker. */
static void put_hatchet_workflows(const struct config *c, struct buf *out)
{
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			const struct operation *op = &c->services[i].operations[j];
			struct span backend = op->task.backend.ptr ? op->task.backend : c->default_backend;
			if (!op->has_task || !span_is(backend, "hatchet"))
				continue;
			buf_printf(out, "%s%.*s%s", out->len ? "," : "", SPAN_ARG(op->task.task),
				   op->task.workflow ? "" : "_workflow");
		}
}

static int start_hatchet(struct app *a, const struct backend_config *b, struct err *e)
{
	static const char *const known[] = {"token", "token_file", "server_url", "ca_file", NULL};
	CLEANUP(buf_releasep) struct buf workflows = BUF_INIT(1u << 20);
	int r = only_settings(a, b, known, e);
	if (r < 0)
		return r;
	put_hatchet_workflows(a->config, &workflows);
	struct hatchet_options o = {
		.token = backend_setting(b, "token"),
		.token_file = backend_setting(b, "token_file"),
		.server_url = backend_setting(b, "server_url"),
		.ca_file = backend_setting(b, "ca_file"),
		.workflows = buf_span(&workflows),
	};
	return hatchet_settings_new(&o, &a->hatchet, e);
}

/* What client_new takes. */
static int start_backend(struct app *a, const struct backend_config *b, const void **ret_options, struct err *e)
{
	int r = 0;
	if (span_is(b->name, "embedded")) {
		r = start_embedded(a, b, e);
		*ret_options = a->embedded;
	} else if (span_is(b->name, "celery")) {
		r = start_celery(a, b, e);
		*ret_options = a->celery;
	} else if (span_is(b->name, "temporal")) {
		r = start_temporal(a, b, e);
		*ret_options = a->temporal;
	} else if (span_is(b->name, "hatchet")) {
		r = start_hatchet(a, b, e);
		*ret_options = a->hatchet;
	}
	return r;
}

int app_backends_start(struct app *a, struct err *e)
{
	for (size_t i = 0; i < a->config->n_backends; i++) {
		const struct backend_config *b = &a->config->backends[i];
		const struct task_backend *backend = task_backend_find(b->name, e);
		if (!backend)
			return err_prefix(e, -EINVAL, "%s:%u", a->config->path, b->line);
		const void *options = NULL;
		int r = start_backend(a, b, &options, e);
		if (r < 0)
			return err_prefix(e, r, "backend %.*s", SPAN_ARG(b->name));
		struct plane_backend *p = &a->env.backends[a->env.n_backends++];
		*p = (struct plane_backend){.name = b->name, .backend = backend, .options = options};
		span_copy(b->name, p->name_text, sizeof(p->name_text)); /* outlives this configuration */
		p->name = span_of(p->name_text);
	}
	return 0;
}

void app_backends_stop(struct app *a)
{
	a->embedded = embedded_store_stop(a->embedded);
	a->registry = registry_free(a->registry);
	a->celery = celery_options_free(a->celery);
	a->temporal = temporal_options_free(a->temporal);
	a->hatchet = hatchet_settings_free(a->hatchet);
}
