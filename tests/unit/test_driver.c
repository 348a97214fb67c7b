/* Workflows that the router drives: the store, who owns a run, and a process that is killed at each of its
 * commits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/loop.h"
#include "tasks/backends.h"
#include "tasks/driver/driver_lock.h"
#include "tasks/driver/runs.h"
#include "tasks/queue/poke.h"
#include "tasks/queue/store.h"
#include "tasks/task_options.h"
#include "support/scratch.h"

#define PATIENCE_MS 60000

/* --- the end of a process at its n-th commit ------------------------------------------------------------ */

/* Of both files, each written by a thread of its own: a commit begins with the first write after a sync. */
static atomic_int commits, fatal_commit; /* fatal_commit 0: none */
static bool fatal_before;		 /* before any of it is written, or right after it is synced */
static _Thread_local bool writing;

static void commit_point(bool before)
{
	int n = before ? atomic_fetch_add(&commits, 1) + 1 : atomic_load(&commits);
	if (before == fatal_before && n == atomic_load(&fatal_commit))
		raise(SIGKILL);
}

/* SQLite's, in place of the C library's. */
ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at);
ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at)
{
	static ssize_t (*real)(int, const void *, size_t, off64_t);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "pwrite64");
	if (!writing)
		commit_point(true);
	writing = true;
	return real(fd, bytes, n, at);
}

int fdatasync(int fd)
{
	static int (*real)(int);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "fdatasync");
	int r = real(fd);
	if (writing)
		commit_point(false);
	writing = false;
	return r;
}

/* --- the store ------------------------------------------------------------------------------------------ */

struct fixture {
	char folder[SCRATCH_MAX], database[SCRATCH_MAX], lock[SCRATCH_MAX];
	struct runs *s;
	struct err e;
	struct buf text;
	struct task_result r;
	unsigned n;
	int64_t seqs[8], drivers[8];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	scratch_make(f->folder);
	scratch_path(f->folder, "workflows.db", f->database);
	scratch_path(f->folder, "workflows.db-drivers", f->lock);
	assert_int_equal(runs_open(f->database, 0, &f->s, &f->e), 0);
	buf_init(&f->text, 1 << 20);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(runs_integrity_check(f->s, &f->e), 0);
	runs_close(f->s);
	scratch_remove(f->folder);
	buf_release(&f->text);
	free(f);
	return 0;
}

static struct run_record simple(const char *id)
{
	return (struct run_record){.id = span_of(id),
				   .name = SPAN_LIT("w"),
				   .owner = SPAN_LIT("o"),
				   .args = SPAN_LIT("[1]"),
				   .kwargs = SPAN_LIT("{}"),
				   .definition = SPAN_LIT("{}"),
				   .submitted_us = clock_wall_us()};
}

static int insert(struct fixture *f, const char *id, const char *name, int64_t driver, int64_t *seq)
{
	struct run_record r = simple(id);
	r.name = span_of(name);
	assert_int_equal(runs_begin(f->s, &f->e), 0);
	int code = runs_insert(f->s, &r, driver, seq, &f->e);
	assert_int_equal(runs_commit(f->s, &f->e), 0);
	return code;
}

static int put_step(struct fixture *f, int64_t seq, int64_t driver, enum run_step_state state,
		    const char *result)
{
	struct run_step s = {.step = 0,
			     .state = state,
			     .name = SPAN_LIT("a"),
			     .task = SPAN_LIT("echo"),
			     .backend = SPAN_LIT("embedded"),
			     .task_id = SPAN_LIT("t"),
			     .submitted_us = clock_wall_us(),
			     .result = span_of(result),
			     .error = result ? SPAN_NONE : SPAN_LIT("password=hunter2 is wrong")};
	assert_int_equal(runs_begin(f->s, &f->e), 0);
	int r = runs_put_step(f->s, seq, driver, &s, &f->e);
	assert_int_equal(runs_commit(f->s, &f->e), 0);
	return r;
}

static int end_run(struct fixture *f, int64_t seq, int64_t driver, const char *result)
{
	struct run_end end = {.result = span_of(result), .error = result ? SPAN_NONE : SPAN_LIT("why")};
	assert_int_equal(runs_begin(f->s, &f->e), 0);
	int r = runs_end(f->s, seq, driver, &end, &f->e);
	assert_int_equal(runs_commit(f->s, &f->e), 0);
	return r;
}

static void the_same_id_is_the_same_run(void **state)
{
	struct fixture *f = *state;
	int64_t seq = 0, other = 0;
	assert_int_equal(insert(f, "1", "w", 7, &seq), 0);
	assert_int_equal(insert(f, "1", "w", 7, &other), RUNS_E_EXISTS);
	assert_int_equal(insert(f, "1", "other", 7, &other), RUNS_E_CONFLICT);
	assert_int_equal(end_run(f, seq, 7, "true"), 0);
	assert_int_equal(insert(f, "1", "w", 7, &other), RUNS_E_EXISTS);
}

static void another_process_is_fenced_off(void **state)
{
	struct fixture *f = *state;
	int64_t seq = 0;
	assert_int_equal(insert(f, "1", "w", 7, &seq), 0);
	assert_int_equal(put_step(f, seq, 8, RUN_STEP_SUBMITTING, NULL), RUNS_E_STALE);
	assert_int_equal(put_step(f, seq, 7, RUN_STEP_SUBMITTING, NULL), 0);
	assert_int_equal(runs_begin(f->s, &f->e), 0);
	assert_int_equal(runs_take(f->s, seq, 6, 8, &f->e), RUNS_E_STALE);
	assert_int_equal(runs_take(f->s, seq, 7, 8, &f->e), 0);
	assert_int_equal(runs_commit(f->s, &f->e), 0);
	assert_int_equal(put_step(f, seq, 7, RUN_STEP_COMPLETED, "1"), RUNS_E_STALE);
	assert_int_equal(end_run(f, seq, 7, "1"), RUNS_E_STALE);
	assert_int_equal(end_run(f, seq, 8, "1"), 0);
	assert_int_equal(end_run(f, seq, 8, "1"), RUNS_E_STALE);
}

static void a_step_is_told_without_its_secrets(void **state)
{
	struct fixture *f = *state;
	int64_t seq = 0;
	assert_int_equal(insert(f, "1", "w", 7, &seq), 0);
	assert_int_equal(put_step(f, seq, 7, RUN_STEP_FAILED, NULL), 0);
	assert_int_equal(runs_get(f->s, SPAN_LIT("1"), &f->text, &f->r, &f->e), 0);
	assert_int_equal(json_validate(f->r.steps, &f->e), 0);
	assert_null(memmem(f->r.steps.ptr, f->r.steps.len, "hunter2", 7));
	struct span status;
	assert_true(json_pointer(f->r.steps, SPAN_LIT("/0/status"), &status));
	assert_true(span_is(status, "\"failed\""));
	assert_int_equal(f->r.status, TASK_RUNNING);
	assert_int_equal(runs_get(f->s, SPAN_LIT("2"), &f->text, &f->r, &f->e), RUNS_E_NOT_FOUND);
}

static void on_other(void *arg, int64_t seq, int64_t driver)
{
	struct fixture *f = arg;
	f->seqs[f->n] = seq;
	f->drivers[f->n++] = driver;
}

static void on_asked(void *arg, struct span id)
{
	struct fixture *f = arg;
	assert_true(span_is(id, "2"));
	f->n++;
}

static void what_others_drive_and_who_is_asked_to_stop(void **state)
{
	struct fixture *f = *state;
	int64_t one, two, three;
	assert_int_equal(insert(f, "1", "w", 7, &one), 0);
	assert_int_equal(insert(f, "2", "w", 8, &two), 0);
	assert_int_equal(insert(f, "3", "w", 8, &three), 0);
	assert_int_equal(end_run(f, three, 8, "1"), 0);
	assert_int_equal(runs_of_others(f->s, 7, on_other, f, &f->e), 0);
	assert_int_equal(f->n, 1);
	assert_int_equal(f->seqs[0], two);
	assert_int_equal(f->drivers[0], 8);
	f->n = 0;
	assert_int_equal(runs_cancel(f->s, SPAN_LIT("2"), &f->e), 0);
	assert_int_equal(runs_cancel(f->s, SPAN_LIT("3"), &f->e), 0);
	assert_int_equal(runs_cancel(f->s, SPAN_LIT("4"), &f->e), RUNS_E_NOT_FOUND);
	assert_int_equal(runs_asked(f->s, 8, on_asked, f, &f->e), 0);
	assert_int_equal(f->n, 1);
	assert_int_equal(runs_asked(f->s, 7, on_asked, f, &f->e), 0);
	assert_int_equal(f->n, 1);
}

static void only_what_has_ended_long_ago_is_deleted(void **state)
{
	struct fixture *f = *state;
	int64_t one, two;
	unsigned n;
	assert_int_equal(insert(f, "1", "w", 7, &one), 0);
	assert_int_equal(insert(f, "2", "w", 7, &two), 0);
	assert_int_equal(put_step(f, one, 7, RUN_STEP_COMPLETED, "1"), 0);
	assert_int_equal(end_run(f, one, 7, "1"), 0);
	assert_int_equal(runs_sweep(f->s, 3600000, &n, &f->e), 0);
	assert_int_equal(n, 0);
	assert_int_equal(runs_sweep(f->s, -1000, &n, &f->e), 0);
	assert_int_equal(n, 1);
	assert_int_equal(runs_get(f->s, SPAN_LIT("1"), &f->text, &f->r, &f->e), RUNS_E_NOT_FOUND);
	assert_int_equal(runs_get(f->s, SPAN_LIT("2"), &f->text, &f->r, &f->e), 0);
}

static void a_number_lives_as_long_as_its_process(void **state)
{
	struct fixture *f = *state;
	struct driver_lock own, same;
	int p[2];
	int64_t number = 0;
	assert_int_equal(driver_lock_take(f->lock, &own, &f->e), 0);
	assert_int_equal(driver_lock_take(f->lock, &same, &f->e), 0);
	assert_int_not_equal(own.number, same.number);
	assert_true(driver_lock_lives(&own, same.number));
	driver_lock_drop(&same);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	pid_t pid = fork();
	if (pid == 0) {
		struct driver_lock theirs;
		if (driver_lock_take(f->lock, &theirs, NULL) == 0 &&
		    write(p[1], &theirs.number, sizeof(theirs.number)) > 0)
			pause();
		_exit(1);
	}
	assert_int_equal(read(p[0], &number, sizeof(number)), sizeof(number));
	assert_true(driver_lock_lives(&own, number));
	kill(pid, SIGSTOP); /* one that stands still is there */
	assert_true(driver_lock_lives(&own, number));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_false(driver_lock_lives(&own, number));
	assert_false(driver_lock_lives(&own, 0));
	close(p[0]);
	close(p[1]);
	driver_lock_drop(&own);
}

/* --- a whole process ------------------------------------------------------------------------------------ */

#define WORKFLOWS \
	"workflows:\n" \
	"  - name: w\n" \
	"    execution: router\n" \
	"    steps:\n" \
	"      - {name: a, task: make}\n" \
	"      - {name: b, task: each, for_each: {over: {\"$ref\": \"step:a/list\"}}, args: [{\"$ref\": " \
	"\"item:\"}]}\n" \
	"      - {name: c, task: single, parents: [a]}\n" \
	"      - {name: d, task: last, parents: [b, c]}\n"

struct world {
	char folder[SCRATCH_MAX], tasks[SCRATCH_MAX], workflows[SCRATCH_MAX];
	struct store *store; /* of tasks.db: this process is its worker */
	struct poke *poke;
	unsigned executed[4];
	struct err e;
};

static const char *const names[] = {"make", "each", "single", "last"};
static const char *const results[] = {"{\"list\":[1,2,3]}", "\"each\"", "\"single\"", "\"last\""};

struct process {
	struct task_options *embedded, *router;
	struct loop *loop;
	struct task_client *client;
	int code;
};

static const struct task_options *other_backend(const void *arg, struct span name)
{
	return span_is(name, "embedded") ? ((const struct process *)arg)->embedded : NULL;
}

static void on_end(void *arg, int error, const struct task_result *r)
{
	struct process *p = arg;
	p->code = error == 0 && r->status == TASK_COMPLETED ? 0 : 2;
	if (error == 0 && r->status == TASK_FAILED)
		fprintf(stderr, "%.*s\n", SPAN_ARG(r->error));
	loop_stop(p->loop);
}

static void on_submitted(void *arg, const struct task_submission *s)
{
	struct process *p = arg;
	if (s->status == TASK_SUBMITTED && task_wait(p->client, s->task_id, on_end, p))
		return;
	fprintf(stderr, "not submitted: %s\n", s->err.text);
	p->code = 3;
	loop_stop(p->loop);
}

/* As a router: begins the workflow, or finds it begun, and waits for its end. */
static int drive(const struct world *w)
{
	struct process p = {.code = 4};
	struct err e = {""};
	const struct task_backend_setup setup = {
		.data_dir = w->folder, .other = other_backend, .other_arg = &p};
	const struct task_call call = {.task = SPAN_LIT("w"),
				       .workflow = true,
				       .task_id = SPAN_LIT("the-run"),
				       .id_is_key = true,
				       .owner = SPAN_LIT("o")};
	bool good = task_options_new(task_backend_find(SPAN_LIT("embedded")), &p.embedded, &e) == 0 &&
		    task_options_new(task_backend_find(SPAN_LIT("router")), &p.router, &e) == 0 &&
		    task_options_set(p.router, SPAN_LIT("workflows"), span_of(w->workflows), &e) == 0 &&
		    task_options_check(p.embedded, &setup, &e) == 0 &&
		    task_options_check(p.router, &setup, &e) == 0 &&
		    task_options_start(p.embedded, &e) == 0 && task_options_start(p.router, &e) == 0 &&
		    loop_new(&p.loop) == 0 && task_client_new(p.router, p.loop, &p.client, &e) == 0;
	if (!good) {
		fprintf(stderr, "%s\n", e.text);
		return 5;
	}
	task_submit(p.client, &call, on_submitted, &p);
	loop_run(p.loop);
	task_client_free(p.client);
	loop_run_posted(p.loop);
	task_options_free(p.router);
	task_options_free(p.embedded);
	loop_free(p.loop);
	return p.code;
}

static pid_t start_driving(const struct world *w, int at_commit, bool before)
{
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		atomic_store(&commits, 0);
		fatal_before = before;
		atomic_store(&fatal_commit, at_commit);
		_exit(drive(w));
	}
	return pid;
}

static int on_taken(void *arg, const struct store_lease *l)
{
	struct world *w = arg;
	for (size_t i = 0; i < 4; i++)
		if (span_is(l->name, names[i])) {
			const struct store_outcome o = {.result = span_of(results[i])};
			w->executed[i]++;
			return store_finish(w->store, l->seq, l->token, &o, &w->e);
		}
	return -EINVAL;
}

static unsigned one_attempt(void *arg, struct span name, bool idempotent)
{
	(void)arg, (void)name, (void)idempotent;
	return 1;
}

/* Executes what is there. */
static void work(struct world *w)
{
	static const struct span queues[] = {SPAN_INIT("default")};
	const struct store_lease_request r = {.queues = queues,
					      .n_queues = 1,
					      .worker = SPAN_LIT("worker"),
					      .lease_ms = 60000,
					      .limit = 16,
					      .max_attempts = one_attempt,
					      .taken = on_taken,
					      .arg = w};
	assert_int_equal(store_begin(w->store, &w->e), 0);
	int n = store_lease(w->store, &r, &w->e);
	assert_true(n >= 0);
	assert_int_equal(store_commit(w->store, &w->e), 0);
	if (n > 0)
		poke_all(w->poke, POKE_ROUTER);
}

/* Until the process has ended: how it did. */
static int work_until_end(struct world *w, pid_t pid)
{
	int64_t until = clock_mono_ms() + PATIENCE_MS;
	int status;
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (clock_mono_ms() > until) {
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
			fail_msg("the workflow did not end");
		}
		work(w);
		poll(NULL, 0, 1);
	}
	return status;
}

static void world_make(struct world *w)
{
	*w = (struct world){0};
	scratch_make(w->folder);
	scratch_path(w->folder, "tasks.db", w->tasks);
	scratch_path(w->folder, "workflows.yml", w->workflows);
	assert_int_equal(file_replace(w->workflows, SPAN_LIT(WORKFLOWS), 0600, &w->e), 0);
	const struct store_options o = {.path = w->tasks};
	assert_int_equal(store_open(&o, &w->store, &w->e), 0);
	assert_int_equal(poke_open(w->tasks, POKE_WORKER, &w->poke, &w->e), 0);
}

static void world_end(struct world *w)
{
	poke_close(w->poke);
	store_close(w->store);
	scratch_remove(w->folder);
}

/* Killed at one of its commits, then begun anew: false when it ended before that. */
static bool killed_at(int commit, bool before)
{
	static const unsigned once[] = {1, 3, 1, 1};
	struct world w;
	world_make(&w);
	int first = work_until_end(&w, start_driving(&w, commit, before));
	if (WIFSIGNALED(first)) {
		int second = work_until_end(&w, start_driving(&w, 0, false));
		assert_true(WIFEXITED(second));
		assert_int_equal(WEXITSTATUS(second), 0);
	} else {
		assert_int_equal(WEXITSTATUS(first), 0);
	}
	for (size_t i = 0; i < 4; i++)
		if (w.executed[i] != once[i])
			fail_msg("killed %s commit %d: %s was executed %u times", before ? "before" : "after",
				 commit, names[i], w.executed[i]);
	world_end(&w);
	return WIFSIGNALED(first);
}

static void a_router_killed_at_any_commit_runs_each_step_once(void **state)
{
	(void)state;
	int commit = 0;
	bool before, behind;
	do {
		commit++;
		before = killed_at(commit, true);
		behind = killed_at(commit, false);
	} while (before || behind);
	assert_true(commit > 10); /* it has met them */
}

int main(void)
{
#define STORE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		STORE(the_same_id_is_the_same_run),
		STORE(another_process_is_fenced_off),
		STORE(a_step_is_told_without_its_secrets),
		STORE(what_others_drive_and_who_is_asked_to_stop),
		STORE(only_what_has_ended_long_ago_is_deleted),
		STORE(a_number_lives_as_long_as_its_process),
		cmocka_unit_test(a_router_killed_at_any_commit_runs_each_step_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
