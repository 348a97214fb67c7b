/* The embedded backend with a worker in a process of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "tasks/backends.h"
#include "tasks/blocking.h"
#include "tasks/embedded.h"
#include "tasks/worker.h"

struct fixture {
	char folder[64], database[128];
	pid_t worker;
	struct embedded_store *store;
};

static void worker_stopped(void *arg)
{
	loop_stop(arg);
}

static struct worker *running;

static void on_term(int number)
{
	(void)number;
	_exit(0);
}

/* A worker in a child process. It must be made before this process has threads. */
static pid_t start_worker(const char *database, const char *const *queues, size_t n, unsigned concurrency, unsigned lease_ms)
{
	pid_t pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGTERM, on_term);
	struct registry *registry;
	struct loop *loop;
	struct err e;
	if (registry_core(&registry) < 0 || loop_new(&loop) < 0)
		_exit(1);
	struct worker_options o = {.database = database,
				   .registry = registry,
				   .name = "test",
				   .queues = queues,
				   .n_queues = n,
				   .concurrency = concurrency,
				   .lease_ms = lease_ms,
				   .stopped = worker_stopped,
				   .arg = loop};
	if (worker_new(loop, &o, &running, &e) < 0) {
		fprintf(stderr, "worker: %s\n", e.text);
		_exit(1);
	}
	loop_run(loop);
	_exit(0);
}

static const char *const default_queue[] = {"default"};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err e;
	snprintf(f->folder, sizeof(f->folder), "/tmp/tasks-test-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->database, sizeof(f->database), "%s/tasks.db", f->folder);
	f->worker = start_worker(f->database, default_queue, 1, 8, 1000);
	struct embedded_options o = {.database = f->database};
	assert_int_equal(embedded_store_start(&o, &f->store, &e), 0);
	*state = f;
	return 0;
}

static void end_process(pid_t *pid, int number)
{
	if (*pid > 0) {
		kill(*pid, number);
		waitpid(*pid, NULL, 0);
	}
	*pid = 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	end_process(&f->worker, SIGTERM);
	embedded_store_stop(f->store);
	char command[128];
	snprintf(command, sizeof(command), "rm -rf '%s'", f->folder);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

static void a_task_runs_and_its_result_comes_back(void **state)
{
	struct fixture *f = *state;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1 << 20);
	struct task_result r;
	struct err e = {""};
	struct task_call call = {.task = SPAN_LIT("add_numbers"), .args = SPAN_LIT("[9007199254740993, 1]")};
	int64_t best = INT64_MAX;
	for (int i = 0; i < 20; i++) {
		int64_t begin = clock_mono_us();
		int code = task_run_blocking(&embedded_backend, f->store, &call, 10000, &text, &r, &e);
		assert_string_equal(e.text, "");
		assert_int_equal(code, 0);
		assert_int_equal(r.status, TASK_COMPLETED);
		assert_true(span_is(r.result, "9007199254740994"));
		int64_t us = clock_mono_us() - begin;
		best = us < best ? us : best;
	}
	print_message("submit to result, best of 20: %lld us\n", (long long)best);
	assert_true(best < 500000); /* by poke, not by the poll of a second */
}

int main(void)
{
	crypto_setup();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_task_runs_and_its_result_comes_back, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
