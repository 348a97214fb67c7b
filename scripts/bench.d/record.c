/*
 * bench-record [SECONDS [PRODUCERS [FILE]]]: what recording costs. A FILE that is named is kept.
 *
 * Producers hand over outcomes shaped like the router's as fast as the queues take them; a full queue waits
 * here (the router would drop), so that the rate printed is what the recorder sustains, rows and sums
 * written. CPU is that of the whole process, producers included, waiting excepted.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/cleanup.h"
#include "base/crypto.h"
#include "base/db.h"
#include "outcomes/recorder.h"

struct producer {
	struct recorder_producer *queue;
	pthread_t thread;
	int64_t until_us;
	uint64_t put, waits;
};

static void fill(struct outcome *o, uint64_t n, int64_t now_us)
{
	static const char *const operations[] = {"prompt.answer", "prompt.single-pass", "runner.run",
						 "structure.process"};
	static const char *const services[] = {"prompt", "prompt", "runner", "structure"};
	unsigned k = (unsigned)(n % 4);
	bool task = n % 10 < 3;
	o->time_us = now_us;
	o->latency_us = 800 + (int64_t)(n * 2654435761u % 20000);
	span_copy(span_of(services[k]), o->service, sizeof(o->service));
	span_copy(span_of(operations[k]), o->operation, sizeof(o->operation));
	snprintf(o->organization, sizeof(o->organization), "org-%u", (unsigned)(n % 200));
	snprintf(o->user, sizeof(o->user), "user-%u@example.org", (unsigned)(n % 5000));
	span_copy(SPAN_LIT("3f0c2b8e-6a54-4a1e-9f70-7d1f6f0b2a11"), o->request_id, sizeof(o->request_id));
	if (task) {
		o->side = OUTCOME_TASK;
		span_copy(SPAN_LIT("embedded"), o->backend, sizeof(o->backend));
		span_copy(SPAN_LIT("0123456789abcdef0123456789abcdef"), o->task_id, sizeof(o->task_id));
	}
	o->result = n % 1000 == 0 ? OUTCOME_FAILURE : OUTCOME_SUCCESS;
	o->http_status = 200;
	o->answered = true;
}

static void *produce(void *arg)
{
	struct producer *p = arg;
	for (int64_t now = clock_wall_us(); now < p->until_us; now = clock_wall_us()) {
		for (int i = 0; i < 64;) {
			struct outcome *o = recorder_reserve(p->queue);
			if (!o) {
				p->waits++;
				struct timespec ms = {.tv_nsec = 2000000};
				nanosleep(&ms, NULL);
				continue;
			}
			fill(o, p->put++, now);
			recorder_commit(p->queue);
			i++;
		}
	}
	return NULL;
}

static double cpu_seconds(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static int64_t count_in(const char *path, const char *sql)
{
	CLEANUP(db_closep) struct db *db = NULL;
	struct err e;
	int64_t n = -1;
	if (db_open(&(struct db_options){.path = path, .read_only = true}, &db, &e) < 0 ||
	    db_query_int64(db, sql, &n, &e) < 0)
		fprintf(stderr, "%s\n", e.text);
	return n;
}

static void remove_files(const char *path)
{
	static const char *const ends[] = {"", "-wal", "-shm", "-userkey"};
	char full[256];
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		snprintf(full, sizeof(full), "%s%s", path, ends[i]);
		unlink(full);
	}
}

static void report(const char *path, uint64_t put, uint64_t waits, double wall, double cpu,
		   double producer_cpu)
{
	struct stat st = {0};
	stat(path, &st);
	int64_t rows = count_in(path, "SELECT count(*) FROM outcomes"),
		sums = count_in(path, "SELECT sum(count) FROM rollups");
	printf("outcomes/s %.0f\ncpu_us_per_outcome %.2f (of which making up the outcome "
	       "%.2f)\nbytes_per_row %.0f\n"
	       "rows %" PRId64 " sums %" PRId64 " of %" PRIu64 ", waits %" PRIu64 "\n",
	       (double)put / wall, cpu / (double)put * 1e6, producer_cpu,
	       (double)st.st_size / (double)(rows > 0 ? rows : 1), rows, sums, put, waits);
}

/* What filling alone costs, µs: it is the benchmark's and not the recorder's. */
static double fill_cost(void)
{
	static struct outcome o;
	double before = cpu_seconds();
	for (uint64_t i = 0; i < 200000; i++)
		fill(&o, i, 0);
	return (cpu_seconds() - before) / 200000 * 1e6;
}

int main(int argc, char **argv)
{
	int seconds = argc > 1 ? atoi(argv[1]) : 3, n = argc > 2 ? atoi(argv[2]) : 1;
	const char *path = argc > 3 ? argv[3] : "bench-record.db";
	struct recorder *r;
	struct err e;
	if (seconds < 1 || n < 1 || n > 16 || crypto_setup() < 0)
		return 2;
	if (recorder_start(&(struct recorder_options){.path = path}, &r, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		return 1;
	}
	struct producer producers[16] = {0};
	double filling = fill_cost(), cpu = cpu_seconds();
	int64_t begun = clock_mono_us();
	for (int i = 0; i < n; i++) {
		producers[i].until_us = clock_wall_us() + seconds * 1000000LL;
		if (recorder_producer_new(r, &producers[i].queue) < 0 ||
		    pthread_create(&producers[i].thread, NULL, produce, &producers[i]) != 0)
			return 1;
	}
	uint64_t put = 0, waits = 0;
	for (int i = 0; i < n; i++) {
		pthread_join(producers[i].thread, NULL);
		put += producers[i].put;
		waits += producers[i].waits;
	}
	recorder_stop(r);
	double wall = (double)(clock_mono_us() - begun) / 1e6;
	cpu = cpu_seconds() - cpu;
	report(path, put, waits, wall, cpu, filling);
	if (argc <= 3)
		remove_files(path);
	return 0;
}
