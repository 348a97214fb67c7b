/*
 * Tasks over Celery as the router sends them: CPU of this process per task, and round trips.
 *
 *   bench-tasks BROKER_URL TASK COUNT IN_FLIGHT
 *
 * Prints one line of JSON: {"tasks", "in_flight", "cpu_us", "p50_us", "p99_us", "per_second"}.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "tasks/celery.h"
#include "tasks/task_options.h"

struct bench;

struct round_trip {
	struct bench *bench;
	int64_t begin_us;
};

struct bench {
	struct loop *loop;
	struct task_client *client;
	struct task_call call;
	int count, started, ended;
	int64_t *took_us;
};

static void begin(struct round_trip *t);

static void on_result(void *arg, int error, const struct task_result *r)
{
	struct round_trip *t = arg;
	struct bench *b = t->bench;
	if (error || r->status != TASK_COMPLETED) {
		fprintf(stderr, "bench-tasks: the task failed: %.*s\n", error ? 0 : (int)r->error.len, error ? "" : r->error.ptr);
		exit(1);
	}
	b->took_us[b->ended++] = clock_mono_us() - t->begin_us;
	if (b->ended == b->count)
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

static int by_size(const void *a, const void *b)
{
	const int64_t *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

static int64_t cpu_us(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000ll + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
}

static void run(struct bench *b, int in_flight)
{
	struct round_trip *trips = calloc((size_t)in_flight, sizeof(*trips));
	b->started = b->ended = 0;
	for (int i = 0; i < in_flight && b->started < b->count; i++) {
		trips[i].bench = b;
		begin(&trips[i]);
	}
	loop_run(b->loop);
	free(trips);
}

int main(int argc, char **argv)
{
	struct task_options *options;
	const struct task_backend_setup setup = {.data_dir = "."};
	struct bench b = {.count = argc == 5 ? atoi(argv[3]) : 0};
	struct err e;
	int in_flight = argc == 5 ? atoi(argv[4]) : 0, warm_up = 200;
	if (b.count < 1 || in_flight < 1) {
		fprintf(stderr, "usage: bench-tasks BROKER_URL TASK COUNT IN_FLIGHT\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	crypto_setup();
	if (task_options_new(&celery_backend, &options, &e) < 0 || loop_new(&b.loop) < 0 ||
	    task_options_set(options, SPAN_LIT("broker_url"), span_of(argv[1]), &e) < 0 || task_options_check(options, &setup, &e) < 0 ||
	    task_client_new(options, b.loop, &b.client, &e) < 0) {
		fprintf(stderr, "bench-tasks: %s\n", e.text);
		return 1;
	}
	int count = b.count;
	b.took_us = calloc((size_t)(count > warm_up ? count : warm_up), sizeof(*b.took_us));
	b.call = (struct task_call){.task = span_of(argv[2]), .args = SPAN_LIT("[1, 2]"), .awaited = true};
	b.count = warm_up;
	run(&b, in_flight);
	b.count = count;
	int64_t cpu = cpu_us(), begin_us = clock_mono_us();
	run(&b, in_flight);
	int64_t took = clock_mono_us() - begin_us;
	cpu = cpu_us() - cpu;
	qsort(b.took_us, (size_t)count, sizeof(*b.took_us), by_size);
	printf("{\"tasks\": %d, \"in_flight\": %d, \"cpu_us\": %.1f, \"p50_us\": %lld, \"p99_us\": %lld, \"per_second\": %.0f}\n", count,
	       in_flight, (double)cpu / count, (long long)b.took_us[count / 2], (long long)b.took_us[count * 99 / 100],
	       count * 1e6 / (double)took);
	task_client_free(b.client);
	loop_free(b.loop);
	task_options_free(options);
	free(b.took_us);
	return 0;
}
