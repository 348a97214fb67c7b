#include "programs/worker/worker_settings.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/loop.h"
#include "tasks/backends.h"

#define HEALTH_MS 10000

static const char *worker_settings_getenv(const char *name)
{
	return getenv(name);
}

static int worker_settings_new(struct worker_settings *s, struct span backend)
{
	struct err e = {""};
	int r = s->options ? 0 : task_options_new(task_backend_find(backend), &s->options, &e);
	if (r < 0)
		fprintf(stderr, "task-backend-worker: %s\n", e.text);
	return r;
}

/* What tasks that name no queue are put into. */
static int worker_settings_set_queue(struct worker_settings *s, struct span key, struct span value)
{
	if (!span_is(key, "queue"))
		return 0;
	free(s->queue);
	s->queue = span_dup(value);
	return s->queue ? 0 : -ENOMEM;
}

int worker_settings_take(struct worker_settings *s, const struct config *c, const struct backend_config *b)
{
	struct err e = {""};
	int worst = worker_settings_new(s, b->name);
	s->configured = true;
	s->data_dir = strdup(c->data_dir);
	for (size_t i = 0; worst != -ENOMEM && s->options && i < b->n_settings; i++) {
		const struct backend_setting *one = &b->settings[i];
		int r = task_options_set(s->options, one->key, one->value, &e);
		if (r == 0)
			r = worker_settings_set_queue(s, one->key, one->value);
		if (r < 0 && one->variable)
			fprintf(stderr, "environment: %s: %s\n", one->variable, e.text);
		else if (r < 0)
			fprintf(stderr, "%s:%u: backends.%.*s.%.*s: %s\n", c->path, one->line,
				SPAN_ARG(b->name), SPAN_ARG(one->key), e.text);
		worst = r < 0 ? r : worst;
	}
	return worst;
}

static int worker_settings_of_environment(struct worker_settings *s, const struct task_backend *backend)
{
	struct err e = {""};
	int worst = 0;
	for (const struct task_setting *t = backend->settings; t->key; t++) {
		const char *value = NULL, *name = NULL;
		for (size_t i = 0; !value && i < TASK_SETTING_VARIABLES && t->variables[i]; i++) {
			name = t->variables[i];
			value = getenv(name);
			value = value && *value ? value : NULL;
		}
		int r = value ? task_options_set(s->options, span_of(t->key), span_of(value), &e) : 0;
		if (r < 0)
			fprintf(stderr, "environment: %s: %s\n", name, e.text);
		worst = r < 0 ? r : worst;
	}
	return worst;
}

int worker_settings_complete(struct worker_settings *s, const char *name)
{
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(1u << 20);
	const struct task_backend *backend = task_backend_find(span_of(name));
	struct err e = {""};
	const struct task_backend_setup setup = {.data_dir = s->data_dir ? s->data_dir : ".",
						 .getenv_fn = worker_settings_getenv,
						 .problems = &problems};
	int r = worker_settings_new(s, span_of(name));
	if (r == 0 && !s->configured)
		r = worker_settings_of_environment(s, backend);
	if (r < 0)
		return r;
	r = task_options_check(s->options, &setup, &e);
	if (r == 0)
		r = task_options_start(s->options, &e);
	if (problems.len)
		fputs(problems.ptr, stderr);
	if (r < 0 && e.text[0])
		fprintf(stderr, "task-backend-worker: backend %s: %s\n", name, e.text);
	return r;
}

/* --- health --------------------------------------------------------------------------------------------- */

struct worker_settings_question {
	struct loop *loop;
	struct task_health health;
	bool answered;
};

static void worker_settings_on_health(void *arg, const struct task_health *h)
{
	struct worker_settings_question *q = arg;
	q->health = *h;
	q->answered = true;
	loop_stop(q->loop);
}

static void worker_settings_on_limit(void *arg)
{
	struct worker_settings_question *q = arg;
	loop_stop(q->loop);
}

static int worker_settings_say(const struct worker_settings_question *q, const struct err *e)
{
	const struct task_health *h = &q->health;
	if (e->text[0] || !q->answered || !h->reachable) {
		const char *detail = h->detail[0] ? h->detail : "no answer in time";
		printf("unhealthy: %s\n", e->text[0] ? e->text : detail);
		return 1;
	}
	if (h->worker)
		printf("healthy: backlog=%lld\n", (long long)h->backlog);
	else
		printf("unhealthy: no worker is alive: backlog=%lld: %s\n", (long long)h->backlog, h->detail);
	return h->worker ? 0 : 1;
}

int worker_settings_health(const struct worker_settings *s)
{
	struct worker_settings_question q = {0};
	struct task_client *client = NULL;
	struct loop_timer *limit = NULL;
	struct err e = {""};
	signal(SIGPIPE, SIG_IGN);
	int r = loop_new(&q.loop);
	if (r == 0)
		r = loop_timer_new(q.loop, worker_settings_on_limit, &q, &limit);
	if (r == 0)
		r = task_client_new(s->options, q.loop, &client, &e);
	if (r == 0) {
		loop_timer_start(limit, HEALTH_MS);
		task_health(client, worker_settings_on_health, &q);
		loop_run(q.loop);
	} else if (!e.text[0]) {
		err_set(&e, r, "%s", strerror(-r));
	}
	task_client_free(client);
	loop_timer_free(limit);
	loop_free(q.loop);
	return worker_settings_say(&q, &e);
}

void worker_settings_release(struct worker_settings *s)
{
	s->options = task_options_free(s->options);
	free(s->queue);
	free(s->data_dir);
}
