/*
 * Tasks as the router sends them: CPU of this process per task, and round trips.
 *
 *   bench-tasks BACKEND TASK COUNT IN_FLIGHT [SETTING=VALUE…]     settings as in the configuration,
 *                                                                 `broker_url=redis://…`
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"

#include "base/clock.h"
#include "base/crypto.h"
#include "tasks/backends.h"
#include "tasks/task_options.h"

#define WARM_UP 50

struct bench;

struct round_trip {
	struct bench *bench;
	int64_t begin_us;
};

struct bench {
	struct loop *loop;
	struct task_client *client;
	struct task_call call;
	int count, started;
	struct measure measure;
};

static void begin(struct round_trip *t);

static void on_result(void *arg, int error, const struct task_result *r)
{
	struct round_trip *t = arg;
	struct bench *b = t->bench;
	if (error || r->status != TASK_COMPLETED) {
		fprintf(stderr, "bench-tasks: the task failed: %.*s\n", error ? 0 : (int)r->error.len,
			error ? "" : r->error.ptr);
		exit(1);
	}
	measure_add(&b->measure, clock_mono_us() - t->begin_us);
	if (b->measure.ended == b->measure.count)
		loop_stop(b->loop);
	else if (b->started < b->count)
		begin(t);
}

static void on_submitted(void *arg, const struct task_submission *s)
{
	struct round_trip *t = arg;
	if (s->status != TASK_SUBMITTED) {
		fprintf(stderr, "bench-tasks: %s\n", s->err.text);
		exit(1);
	}
	task_wait(t->bench->client, s->task_id, on_result, t);
}

static void begin(struct round_trip *t)
{
	t->bench->started++;
	t->begin_us = clock_mono_us();
	task_submit(t->bench->client, &t->bench->call, on_submitted, t);
}

static void run(struct bench *b, int in_flight)
{
	struct round_trip *trips = calloc((size_t)in_flight, sizeof(*trips));
	b->started = 0;
	measure_begin(&b->measure, (size_t)b->count);
	for (int i = 0; i < in_flight && b->started < b->count; i++) {
		trips[i].bench = b;
		begin(&trips[i]);
	}
	loop_run(b->loop);
	free(trips);
}

static int set(struct task_options *options, const char *setting, struct err *e)
{
	const char *equals = strchr(setting, '=');
	if (!equals)
		return err_set(e, -EINVAL, "%s: expected SETTING=VALUE", setting);
	return task_options_set(options, (struct span){setting, (size_t)(equals - setting)},
				span_of(equals + 1), e);
}

static int make_client(struct bench *b, char **argv, struct task_options **ret, struct err *e)
{
	const struct task_backend *backend = task_backend_find(span_of(argv[1]));
	const struct task_backend_setup setup = {.data_dir = "."};
	if (!backend)
		return task_backend_not_found(span_of(argv[1]), e);
	int r = task_options_new(backend, ret, e);
	for (char **setting = argv + 5; r == 0 && *setting; setting++)
		r = set(*ret, *setting, e);
	if (r == 0)
		r = task_options_check(*ret, &setup, e);
	if (r == 0)
		r = task_options_start(*ret, e);
	return r < 0 ? r : task_client_new(*ret, b->loop, &b->client, e);
}

int main(int argc, char **argv)
{
	struct task_options *options = NULL;
	struct bench b = {.count = argc >= 5 ? atoi(argv[3]) : 0};
	struct err e;
	int in_flight = argc >= 5 ? atoi(argv[4]) : 0;
	if (b.count < 1 || in_flight < 1) {
		fprintf(stderr, "usage: bench-tasks BACKEND TASK COUNT IN_FLIGHT [SETTING=VALUE…]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	crypto_setup();
	if (loop_new(&b.loop) < 0 || make_client(&b, argv, &options, &e) < 0) {
		fprintf(stderr, "bench-tasks: %s\n", e.text);
		return 1;
	}
	int count = b.count;
	b.call = (struct task_call){.task = span_of(argv[2]), .args = SPAN_LIT("[1, 2]"), .awaited = true};
	b.count = WARM_UP;
	run(&b, in_flight);
	free(b.measure.took_us);
	b.count = count;
	run(&b, in_flight);
	measure_end(&b.measure, in_flight);
	task_client_free(b.client);
	loop_free(b.loop);
	task_options_free(options);
	return 0;
}
