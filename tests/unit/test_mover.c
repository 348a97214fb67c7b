/* move/mover: changes run off the loop, one at a time for a flag, a few waiting, and give up when told to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>

#include "base/crypto.h"
#include "move/mover.h"
#include "support/scratch.h"

static struct config *config; /* of a file that nobody reads */
static struct loop *loop;
static struct mover *mover;

struct work {
	struct mover_job job; /* first */
	sem_t begun, go;
	pthread_t thread;
	atomic_int *inside;
	int most; /* of this flag at once */
	bool patient, done;
};

static int run(struct mover_job *job, struct rollout_place *p, struct err *e)
{
	struct work *w = (struct work *)job;
	w->thread = pthread_self();
	w->most = atomic_fetch_add(w->inside, 1) + 1;
	place_say(p, MOVE_SAYS, "at work");
	sem_post(&w->begun);
	if (w->patient)
		while (place_pause(p, 1000))
			;
	else
		sem_wait(&w->go);
	atomic_fetch_sub(w->inside, 1);
	return w->patient ? err_set(e, -ECANCELED, "gave up") : 7;
}

static void done(struct mover_job *job)
{
	struct work *w = (struct work *)job;
	w->done = true;
	assert_false(pthread_equal(w->thread, pthread_self()));
}

static void begin(struct work *w, const char *flag, atomic_int *inside)
{
	*w = (struct work){.job = {.run = run, .done = done, .config = config, .flag = flag},
			   .inside = inside};
	sem_init(&w->begun, 0, 0);
	sem_init(&w->go, 0, 0);
}

static void wait_done(struct work *w)
{
	while (!w->done)
		loop_run_once(loop);
	buf_release(&w->job.said);
}

static const char *no_environment(const char *name)
{
	(void)name;
	return NULL;
}

static int setup(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(65536);
	struct err e = {""};
	char folder[SCRATCH_MAX], path[SCRATCH_MAX];
	scratch_make(folder);
	scratch_path(folder, "router.yml", path);
	FILE *file = fopen(path, "w");
	if (!file || fputs("services: {s: {listen: \"127.0.0.1:5002\", legacy: \"http://h\"}}\n", file) < 0 ||
	    fclose(file) != 0 || crypto_setup() < 0)
		return -1;
	int r = config_load(path, no_environment, &problems, &config);
	scratch_remove(folder);
	if (r < 0)
		fail_msg("%s", problems.ptr);
	r = loop_new(&loop);
	return r < 0 ? r : mover_start(loop, &mover, &e);
}

static int teardown(void **state)
{
	(void)state;
	mover = mover_stop(mover);
	loop = loop_free(loop);
	config = config_unref(config);
	return 0;
}

static void a_job_runs_elsewhere_and_is_done_here(void **state)
{
	(void)state;
	atomic_int inside = 0;
	struct work w;
	begin(&w, "f", &inside);
	sem_post(&w.go);
	assert_int_equal(mover_add(mover, MOVER_PEOPLE, &w.job), 0);
	while (!w.done)
		loop_run_once(loop);
	assert_int_equal(w.job.result, 7);
	assert_true(span_is(buf_span(&w.job.said), "at work"));
	buf_release(&w.job.said);
}

static void one_flag_is_changed_by_one_at_a_time(void **state)
{
	(void)state;
	atomic_int inside = 0, others = 0;
	struct work first, second, other;
	begin(&first, "f", &inside);
	begin(&second, "f", &inside);
	begin(&other, "g", &others);
	assert_int_equal(mover_add(mover, MOVER_PEOPLE, &first.job), 0);
	sem_wait(&first.begun);
	assert_int_equal(mover_add(mover, MOVER_GUARD, &second.job), 0);
	assert_int_equal(mover_add(mover, MOVER_GUARD, &other.job), 0);
	sem_post(&first.go);
	sem_post(&second.go);
	sem_post(&other.go);
	wait_done(&first);
	wait_done(&second);
	wait_done(&other);
	assert_int_equal(first.most, 1);
	assert_int_equal(second.most, 1);
}

static void lanes_do_not_wait_for_each_other(void **state)
{
	(void)state;
	atomic_int inside = 0, others = 0;
	struct work person, guard;
	begin(&person, "f", &inside);
	begin(&guard, "g", &others);
	assert_int_equal(mover_add(mover, MOVER_PEOPLE, &person.job), 0);
	sem_wait(&person.begun);
	assert_int_equal(mover_add(mover, MOVER_GUARD, &guard.job), 0);
	sem_wait(&guard.begun); /* while the other has not ended */
	sem_post(&guard.go);
	sem_post(&person.go);
	wait_done(&person);
	wait_done(&guard);
}

static void what_changes_any_flag_meets_all(void **state)
{
	(void)state;
	atomic_int inside = 0;
	struct work person, guard;
	begin(&person, "f", &inside);
	begin(&guard, MOVER_ANY, &inside);
	assert_int_equal(mover_add(mover, MOVER_PEOPLE, &person.job), 0);
	sem_wait(&person.begun);
	assert_int_equal(mover_add(mover, MOVER_GUARD, &guard.job), 0);
	sem_post(&person.go);
	sem_post(&guard.go);
	wait_done(&person);
	wait_done(&guard);
	assert_int_equal(guard.most, 1);
}

static void too_many_are_refused_at_once(void **state)
{
	(void)state;
	atomic_int inside = 0;
	struct work all[MOVER_WAITING + 2];
	begin(&all[0], NULL, &inside);
	assert_int_equal(mover_add(mover, MOVER_PEOPLE, &all[0].job), 0);
	sem_wait(&all[0].begun);
	for (size_t i = 1; i <= MOVER_WAITING; i++) {
		begin(&all[i], NULL, &inside);
		assert_int_equal(mover_add(mover, MOVER_PEOPLE, &all[i].job), 0);
	}
	begin(&all[MOVER_WAITING + 1], NULL, &inside);
	assert_int_equal(mover_add(mover, MOVER_PEOPLE, &all[MOVER_WAITING + 1].job), -EBUSY);
	for (size_t i = 0; i <= MOVER_WAITING; i++)
		sem_post(&all[i].go);
	for (size_t i = 0; i <= MOVER_WAITING; i++)
		wait_done(&all[i]);
}

static void at_the_end_what_runs_gives_up_and_what_waits_is_told(void **state)
{
	(void)state;
	atomic_int inside = 0;
	struct work runs, waits;
	begin(&runs, "f", &inside);
	begin(&waits, "f", &inside);
	runs.patient = true;
	assert_int_equal(mover_add(mover, MOVER_PEOPLE, &runs.job), 0);
	assert_int_equal(mover_add(mover, MOVER_PEOPLE, &waits.job), 0);
	sem_wait(&runs.begun);
	mover = mover_stop(mover);
	assert_true(runs.done && waits.done);
	assert_int_equal(runs.job.result, -ECANCELED);
	assert_int_equal(waits.job.result, -ECANCELED);
	assert_int_equal(waits.most, 0); /* it was not begun */
	buf_release(&runs.job.said);
	buf_release(&waits.job.said);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_job_runs_elsewhere_and_is_done_here),
		TEST(one_flag_is_changed_by_one_at_a_time),
		TEST(lanes_do_not_wait_for_each_other),
		TEST(what_changes_any_flag_meets_all),
		TEST(too_many_are_refused_at_once),
		TEST(at_the_end_what_runs_gives_up_and_what_waits_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
