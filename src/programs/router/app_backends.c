/*
 * Backends of the application: from the configuration's settings to the options that clients are made of.
 * Every backend is filled in the same way; which there are is the table's business (tasks/backends.h).
 */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "programs/router/app_internal.h"
#include "tasks/backends.h"
#include "tasks/task_options.h"

static size_t app_backends_count_operations(const struct config *c)
{
	size_t n = 0;
	for (size_t i = 0; i < c->n_services; i++)
		n += c->services[i].n_operations;
	return n;
}

/* What operations will ask this backend to run: those that name it, or none where it is the default. */
static size_t put_calls(const struct config *c, struct span backend, struct task_probe *calls)
{
	size_t n = 0;
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++) {
			const struct operation *op = &c->services[i].operations[j];
			const struct task_mapping *t = &op->task;
			if (op->has_task && task_mapping_names(t, c->default_backend, backend))
				calls[n++] = task_mapping_probe(t);
		}
	return n;
}

/* Where the setting stands, and what is wrong with it. */
static void put_problem(const struct config *c, const struct backend_config *b,
			const struct backend_setting *s, const struct err *why, struct buf *problems)
{
	if (s->variable)
		buf_printf(problems, "environment: %s: %s\n", s->variable, why->text);
	else
		buf_printf(problems, "%s:%u: backends.%.*s.%.*s: %s\n", c->path, s->line, SPAN_ARG(b->name),
			   SPAN_ARG(s->key), why->text);
}

static int set_all(const struct config *c, const struct backend_config *b, struct task_options *o,
		   struct buf *problems)
{
	struct err e;
	int worst = 0;
	for (size_t i = 0; i < b->n_settings; i++) {
		int r = task_options_set(o, b->settings[i].key, b->settings[i].value, &e);
		if (r < 0)
			put_problem(c, b, &b->settings[i], &e, problems);
		worst = r < 0 ? r : worst;
	}
	return worst;
}

static const struct task_options *app_backends_other(const void *arg, struct span name)
{
	const struct app *a = arg;
	for (size_t i = 0; i < a->env.n_backends; i++)
		if (span_eq(a->env.backends[i].name, name))
			return a->env.backends[i].options;
	return NULL;
}

static int app_backends_check_all(const struct app *a, const struct config *c, const struct backend_config *b,
				  struct task_options *o, struct buf *problems)
{
	struct err e;
	struct task_probe *calls = calloc(app_backends_count_operations(c) + 1, sizeof(*calls));
	struct task_backend_setup setup = {.data_dir = c->data_dir,
					   .getenv_fn = app_getenv,
					   .only_looking = a->only_looking,
					   .calls = calls,
					   .state_shared = c->state.url != NULL,
					   .default_backend = c->default_backend,
					   /* of a new configuration only a restart has them all */
					   .other = c == a->config ? app_backends_other : NULL,
					   .other_arg = a,
					   .problems = problems};
	setup.n_calls = calls ? put_calls(c, b->name, calls) : 0;
	int r = calls ? task_options_check(o, &setup, &e) : err_set(&e, -ENOMEM, "out of memory");
	free(calls);
	if (r < 0 && !e.text[0]) /* reported already, with places of their own */
		return r;
	if (r < 0 && b->line)
		buf_printf(problems, "%s:%u: backends.%.*s: %s\n", c->path, b->line, SPAN_ARG(b->name),
			   e.text);
	else if (r < 0)
		buf_printf(problems, "environment: backend %.*s: %s\n", SPAN_ARG(b->name), e.text);
	return r;
}

/* *ret is to be freed also after a mistake. */
static int make(const struct app *a, const struct config *c, const struct backend_config *b,
		struct task_options **ret, struct buf *problems)
{
	struct err e;
	int r = task_options_new(task_backend_find(b->name), ret, &e);
	if (r < 0) {
		buf_printf(problems, "backend %.*s: %s\n", SPAN_ARG(b->name), e.text);
		return r;
	}
	r = set_all(c, b, *ret, problems);
	return r < 0 ? r : app_backends_check_all(a, c, b, *ret, problems);
}

/* Those over the others come behind them. */
static bool app_backends_is_over(struct span name, bool over)
{
	return task_backend_find(name)->over_others == over;
}

int app_backends_make(struct app *a, struct buf *problems)
{
	bool good = true;
	for (int over = 0; over < 2; over++)
		for (size_t i = 0; i < a->config->n_backends; i++) {
			const struct backend_config *b = &a->config->backends[i];
			if (!app_backends_is_over(b->name, over))
				continue;
			struct plane_backend *p = &a->env.backends[a->env.n_backends++];
			p->name = b->name;
			if (breaker_new(p->name, &p->breaker) < 0) {
				buf_puts(problems, "out of memory\n");
				return -ENOMEM;
			}
			good &= make(a, a->config, b, &p->options, problems) == 0;
		}
	return good ? 0 : -EBADMSG;
}

/* Whether this configuration has the backend with these settings. */
static bool has(const struct config *c, const struct backend_config *b)
{
	const struct backend_config *own = config_backend(c, b->name);
	if (!own || own->n_settings != b->n_settings)
		return false;
	for (size_t i = 0; i < b->n_settings; i++)
		if (!span_eq(own->settings[i].key, b->settings[i].key) ||
		    !span_eq(own->settings[i].value, b->settings[i].value))
			return false;
	return true;
}

bool app_backends_changed(const struct app *a, const struct config *new)
{
	bool same = a->started->n_backends == new->n_backends;
	for (size_t i = 0; i < new->n_backends &&same; i++)
		same = has(a->started, &new->backends[i]);
	return !same;
}

int app_backends_check(const struct app *a, const struct config *new, struct buf *problems)
{
	bool good = true;
	for (size_t i = 0; i < new->n_backends; i++) {
		struct task_options *o = NULL;
		if (has(a->config, &new->backends[i]) || has(a->started, &new->backends[i]))
			continue;
		good &= make(a, new, &new->backends[i], &o, problems) == 0;
		task_options_free(o);
	}
	return good ? 0 : -EBADMSG;
}

void app_backends_configure(struct app *a)
{
	for (size_t i = 0; i < a->env.n_backends; i++) {
		const struct backend_config *b = config_backend(a->config, a->env.backends[i].name);
		if (!b) /* it is gone from the file, until a restart */
			continue;
		breaker_configure(a->env.backends[i].breaker, &b->breaker, clock_mono_us());
		atomic_store(&a->env.backends[i].max_in_flight, b->max_in_flight);
	}
}

int app_backends_start(struct app *a, struct err *e)
{
	for (size_t i = 0; i < a->env.n_backends; i++) {
		int r = task_options_start(a->env.backends[i].options, e);
		if (r < 0)
			return err_prefix(e, r, "backend %.*s", SPAN_ARG(a->env.backends[i].name));
	}
	return 0;
}

void app_backends_free(struct app *a)
{
	for (size_t i = a->env.n_backends; i-- > 0;) { /* those over others go first */
		a->env.backends[i].options = task_options_free(a->env.backends[i].options);
		a->env.backends[i].breaker = breaker_free(a->env.backends[i].breaker);
	}
}
