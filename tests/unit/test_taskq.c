/* libtaskq as another program sees it: its header and its shared library, on the embedded backend. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "library/taskq.h"
#include "support/scratch.h"

#define PATIENCE_MS 60000
#define CALLERS 4
#define CALLS 20

struct place {
	char folder[SCRATCH_MAX], database[SCRATCH_MAX];
	struct taskq *q;
	pthread_t worker;
	bool works;
	struct taskq_error worker_error;
	int worker_code;
};

static void twice(struct taskq_task *task, const char *args, const char *kwargs, void *arg)
{
	char json[64];
	int n = 0;
	(void)kwargs;
	assert_string_equal((const char *)arg, "twice");
	assert_true(strlen(taskq_task_id(task)) > 0);
	if (sscanf(args, "[%d]", &n) != 1) {
		taskq_fail(task, "one number is wanted");
		return;
	}
	snprintf(json, sizeof(json), "%d", 2 * n);
	taskq_return(task, json);
}

static void broken(struct taskq_task *task, const char *args, const char *kwargs, void *arg)
{
	(void)args, (void)kwargs, (void)arg;
	taskq_return(task, "{not JSON");
}

static void nothing(struct taskq_task *task, const char *args, const char *kwargs, void *arg)
{
	(void)task, (void)args, (void)kwargs, (void)arg;
}

/* Until it is stopped. */
static void waits(struct taskq_task *task, const char *args, const char *kwargs, void *arg)
{
	(void)args, (void)kwargs, (void)arg;
	while (!taskq_stopping(task, 1000))
		;
	taskq_return(task, "\"stopped\"");
}

static struct taskq *open_at(const char *database)
{
	const struct taskq_setting setting = {"database", database};
	struct taskq_error e = {0};
	struct taskq *q = NULL;
	if (taskq_open("embedded", &setting, 1, &q, &e) < 0)
		fail_msg("%s", e.text);
	return q;
}

static int set_up(void **state)
{
	static struct place p;
	struct taskq_error e = {0};
	static char name[] = "twice";
	const struct taskq_task_options idempotent = {"own", 1, 2, 30000};
	memset(&p, 0, sizeof(p));
	unsetenv("ENVIRONMENT");
	unsetenv("TASK_QUEUES");
	scratch_make(p.folder);
	scratch_path(p.folder, "tasks.db", p.database);
	p.q = open_at(p.database);
	assert_int_equal(taskq_register_task(p.q, "twice", twice, name, &idempotent, &e), 0);
	assert_int_equal(taskq_register_task(p.q, "broken", broken, NULL, NULL, &e), 0);
	assert_int_equal(taskq_register_task(p.q, "nothing", nothing, NULL, NULL, &e), 0);
	assert_int_equal(taskq_register_task(p.q, "waits", waits, NULL, NULL, &e), 0);
	*state = &p;
	return 0;
}

static void *run_worker(void *arg)
{
	struct place *p = arg;
	const struct taskq_worker_options o = {"own, default", "w", 3, 1000};
	p->worker_code = taskq_run_worker(p->q, &o, &p->worker_error);
	return NULL;
}

static void begin_worker(struct place *p)
{
	assert_int_equal(pthread_create(&p->worker, NULL, run_worker, p), 0);
	p->works = true;
}

static void end_worker(struct place *p)
{
	if (!p->works)
		return;
	taskq_stop_worker(p->q);
	pthread_join(p->worker, NULL);
	p->works = false;
	if (p->worker_code < 0)
		fail_msg("%s", p->worker_error.text);
}

static int tear_down(void **state)
{
	struct place *p = *state;
	end_worker(p);
	taskq_close(p->q);
	scratch_remove(p->folder);
	return 0;
}

static struct taskq_call call_of(const char *task, const char *args)
{
	return (struct taskq_call){
		.task = task, .args = args, .queue = strcmp(task, "twice") == 0 ? "own" : NULL};
}

static void submit(struct taskq *q, const char *task, const char *args, char id[TASKQ_ID_MAX])
{
	struct taskq_error e = {0};
	const struct taskq_call c = call_of(task, args);
	if (taskq_submit(q, &c, id, &e) < 0)
		fail_msg("%s", e.text);
}

static struct taskq_result *result_of(struct taskq *q, const char *id)
{
	struct taskq_error e = {0};
	struct taskq_result *r = NULL;
	if (taskq_get_result(q, id, PATIENCE_MS, &r, &e) < 0)
		fail_msg("%s", e.text);
	return r;
}

/* --- calls ---------------------------------------------------------------------------------------------- */

/* cmocka's assertions are not for other threads: what goes wrong is counted. */
struct caller {
	struct taskq *q;
	int number, wrong;
	pthread_t thread;
};

static void *many_calls(void *arg)
{
	struct caller *c = arg;
	for (int i = 0; i < CALLS; i++) {
		char args[32], expected[32], id[TASKQ_ID_MAX];
		struct taskq_result *r = NULL;
		snprintf(args, sizeof(args), "[%d]", c->number * 1000 + i);
		snprintf(expected, sizeof(expected), "%d", 2 * (c->number * 1000 + i));
		const struct taskq_call call = call_of("twice", args);
		if (taskq_submit(c->q, &call, id, NULL) < 0 ||
		    taskq_get_result(c->q, id, PATIENCE_MS, &r, NULL) < 0 || r->status != TASKQ_COMPLETED ||
		    strcmp(r->result, expected) != 0)
			c->wrong++;
		taskq_result_free(r);
	}
	return NULL;
}

static void any_number_of_threads_call_on_one_handle(void **state)
{
	struct place *p = *state;
	struct caller callers[CALLERS];
	begin_worker(p);
	for (int i = 0; i < CALLERS; i++) {
		callers[i] = (struct caller){.q = p->q, .number = i};
		pthread_create(&callers[i].thread, NULL, many_calls, &callers[i]);
	}
	for (int i = 0; i < CALLERS; i++) {
		pthread_join(callers[i].thread, NULL);
		assert_int_equal(callers[i].wrong, 0);
	}
}

static void a_failed_task_is_a_result_with_its_error(void **state)
{
	struct place *p = *state;
	char id[TASKQ_ID_MAX];
	begin_worker(p);
	submit(p->q, "twice", "[\"x\"]", id);
	struct taskq_result *r = result_of(p->q, id);
	assert_int_equal(r->status, TASKQ_FAILED);
	assert_string_equal(r->error, "one number is wanted");
	assert_null(r->result);
	assert_string_equal(r->id, id);
	taskq_result_free(r);
	submit(p->q, "broken", NULL, id);
	r = result_of(p->q, id);
	assert_int_equal(r->status, TASKQ_FAILED);
	assert_string_equal(r->error, "the task returned no valid JSON");
	taskq_result_free(r);
	submit(p->q, "nothing", NULL, id);
	r = result_of(p->q, id);
	assert_string_equal(r->result, "null");
	taskq_result_free(r);
}

static void a_wait_ends_in_time_and_the_task_goes_on(void **state)
{
	struct place *p = *state;
	char id[TASKQ_ID_MAX];
	struct taskq_result *r = NULL;
	struct taskq_error e = {0};
	submit(p->q, "twice", "[21]", id); /* nobody runs it yet */
	assert_int_equal(taskq_get_result(p->q, id, 20, &r, &e), TASKQ_E_TIMEOUT);
	assert_null(r);
	assert_int_equal(e.code, TASKQ_E_TIMEOUT);
	assert_int_equal(taskq_get_result(p->q, id, 0, &r, &e), 0);
	assert_int_equal(r->status, TASKQ_PENDING);
	taskq_result_free(r);
	begin_worker(p);
	r = result_of(p->q, id);
	assert_string_equal(r->result, "42");
	taskq_result_free(r);
	assert_int_equal(taskq_get_result(p->q, "no-such-id", PATIENCE_MS, &r, &e), TASKQ_E_NOT_FOUND);
}

static void what_waits_can_be_cancelled_and_health_tells_who_is_there(void **state)
{
	struct place *p = *state;
	char id[TASKQ_ID_MAX];
	struct taskq_error e = {0};
	struct taskq_health h;
	submit(p->q, "nothing", NULL, id);
	assert_int_equal(taskq_health(p->q, &h, &e), 0);
	assert_true(h.reachable && !h.worker && h.detail[0]);
	assert_int_equal(h.backlog, 1);
	assert_int_equal(taskq_cancel(p->q, id, &e), 0);
	struct taskq_result *r = result_of(p->q, id);
	assert_true(r->status == TASKQ_FAILED && r->cancelled);
	taskq_result_free(r);
}

static void a_task_hears_that_it_is_to_stop(void **state)
{
	struct place *p = *state;
	char id[TASKQ_ID_MAX];
	struct taskq_result *r = NULL;
	begin_worker(p);
	submit(p->q, "waits", NULL, id);
	do {
		taskq_result_free(r);
		assert_int_equal(taskq_get_result(p->q, id, 0, &r, NULL), 0);
	} while (r->status == TASKQ_PENDING);
	taskq_result_free(r);
	taskq_stop_worker(p->q);
	end_worker(p); /* the second one: it does not wait for the task to end by itself */
}

/* --- on the caller's loop ------------------------------------------------------------------------------- */

struct seen {
	struct taskq *q;
	pthread_t thread;
	int submitted, ended, wrong, sum;
};

static void on_ended(void *arg, int code, const struct taskq_result *r, const char *error)
{
	struct seen *s = arg;
	s->wrong += code != 0 || error || !pthread_equal(s->thread, pthread_self());
	s->ended++;
	s->sum += code == 0 && r->result ? atoi(r->result) : 0;
}

static void on_submitted(void *arg, int code, const char *id, const char *error)
{
	struct seen *s = arg;
	s->wrong += code != 0 || error || !pthread_equal(s->thread, pthread_self());
	s->submitted++;
	s->wrong += taskq_get_result_async(s->q, id, PATIENCE_MS, on_ended, s, NULL) != 0;
}

static void callbacks_come_on_the_callers_thread_when_the_descriptor_is_readable(void **state)
{
	struct place *p = *state;
	struct seen s = {.q = p->q, .thread = pthread_self()};
	struct pollfd own = {.fd = taskq_fd(p->q), .events = POLLIN};
	const struct taskq_call c = call_of("twice", "[3]");
	assert_int_equal(poll(&own, 1, 0), 0);
	assert_int_equal(taskq_dispatch(p->q), 0);
	begin_worker(p);
	for (int i = 0; i < 10; i++)
		assert_int_equal(taskq_submit_async(p->q, &c, on_submitted, &s, NULL), 0);
	while (s.ended < 10) {
		assert_int_equal(poll(&own, 1, PATIENCE_MS), 1);
		taskq_dispatch(p->q);
	}
	assert_int_equal(s.submitted, 10);
	assert_int_equal(s.wrong, 0);
	assert_int_equal(s.sum, 60);
	assert_int_equal(poll(&own, 1, 0), 0);
}

static void closing_drops_what_is_under_way(void **state)
{
	struct place *p = *state;
	struct seen s = {.q = p->q, .thread = pthread_self()};
	char id[TASKQ_ID_MAX];
	const struct taskq_call c = call_of("twice", "[3]");
	submit(p->q, "twice", "[1]", id);
	assert_int_equal(taskq_get_result_async(p->q, id, -1, on_ended, &s, NULL), 0);
	for (int i = 0; i < 10; i++)
		taskq_submit_async(p->q, &c, on_submitted, &s, NULL);
	taskq_close(p->q);
	p->q = NULL;
	assert_int_equal(s.ended + s.submitted, 0);
}

/* --- mistakes ------------------------------------------------------------------------------------------- */

static void mistakes_are_told_by_code_and_sentence(void **state)
{
	struct place *p = *state;
	struct taskq_error e = {0};
	struct taskq *q = NULL;
	char id[TASKQ_ID_MAX];
	struct taskq_call c = call_of("twice", "{}");
	const struct taskq_setting colour = {"colour", "red"};
	assert_int_equal(taskq_submit(p->q, &c, id, &e), TASKQ_E_ARGUMENT);
	assert_string_equal(e.text, "args are not a JSON array");
	c = call_of("", NULL);
	assert_int_equal(taskq_submit(p->q, &c, id, &e), TASKQ_E_ARGUMENT);
	assert_int_equal(taskq_open("embeded", NULL, 0, &q, &e), TASKQ_E_SETTINGS);
	assert_non_null(strstr(e.text, "embedded"));
	assert_int_equal(taskq_open("embedded", &colour, 1, &q, &e), TASKQ_E_SETTINGS);
	assert_string_equal(e.text, "colour: the backend embedded has no such setting");
	assert_null(q);
	assert_int_equal(taskq_register_task(p->q, "twice", twice, NULL, NULL, &e), TASKQ_E_ARGUMENT);
	assert_int_equal(taskq_register_file(p->q, "/no/such/file.yml", &e), TASKQ_E_SETTINGS);
	assert_non_null(strstr(e.text, "/no/such/file.yml"));
	assert_null(strchr(e.text, '\n'));
	submit(p->q, "nothing", NULL, id);
	assert_int_equal(taskq_register_task(p->q, "late", twice, NULL, NULL, &e), TASKQ_E_ARGUMENT);
	/* Without anybody who wants to know. */
	assert_int_equal(taskq_open("embeded", NULL, 0, &q, NULL), TASKQ_E_SETTINGS);
}

/* Not in the backend's messages, and not by the end of the program. */
static void what_is_no_text_or_nothing_is_refused(void **state)
{
	struct place *p = *state;
	struct taskq_error e = {0};
	struct taskq *q = p->q;
	const struct taskq_call calls[] = {{.task = "a\nb"},
					   {.task = "\xff\xfe"},
					   {.task = "twice", .queue = "\xed\xa0\x80"},
					   {.task = "twice", .id = "a\xff"},
					   {.task = "twice", .id = "a\x7f"}};
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		assert_int_equal(taskq_submit(p->q, &calls[i], NULL, &e), TASKQ_E_ARGUMENT);
	const struct taskq_call good = {.task = "na\xc3\xafve", .id = "Z\xc3\xbcrich/1"};
	assert_int_equal(taskq_submit(p->q, &good, NULL, &e), 0);
	assert_int_equal(taskq_submit(p->q, NULL, NULL, &e), TASKQ_E_ARGUMENT);
	assert_int_equal(taskq_submit(NULL, &good, NULL, &e), TASKQ_E_ARGUMENT);
	assert_int_equal(taskq_get_result(p->q, "x", 0, NULL, &e), TASKQ_E_ARGUMENT);
	assert_int_equal(taskq_open("embedded", NULL, 1, &q, &e), TASKQ_E_ARGUMENT);
	assert_null(q);
	assert_int_equal(taskq_open("router", NULL, 0, &q, &e), TASKQ_E_SETTINGS);
	/* a build may be without it */
	assert_true(strstr(e.text, "within migration-router only") ||
		    strstr(e.text, "not part of this build"));
	taskq_close(q);
}

static void a_call_that_cannot_be_written_was_refused(void **state)
{
	struct place *p = *state;
	char nowhere[SCRATCH_MAX], id[TASKQ_ID_MAX];
	struct taskq_error e = {0};
	scratch_path(p->folder, "file", nowhere);
	fclose(fopen(nowhere, "w"));
	scratch_path(p->folder, "file/tasks.db", nowhere); /* no folder, even for root */
	struct taskq *q = open_at(nowhere);
	const struct taskq_call c = call_of("nothing", NULL);
	int code = taskq_submit(q, &c, id, &e);
	assert_true(code == TASKQ_E_REFUSED || code == TASKQ_E_SETTINGS);
	assert_true(e.text[0]);
	taskq_close(q);
}

static void one_variable_chooses_the_backend(void **state)
{
	struct taskq_error e = {0};
	struct taskq *q = NULL;
	(void)state;
	setenv("TASK_BACKEND_TYPE", "embedded", 1);
	assert_int_equal(taskq_open(NULL, NULL, 0, &q, &e), 0);
	assert_string_equal(taskq_backend(q), "embedded");
	taskq_close(q);
	setenv("TASK_QUEUE_BACKEND", "celery", 1);
	assert_int_equal(taskq_open(NULL, NULL, 0, &q, &e), TASKQ_E_SETTINGS);
	assert_non_null(strstr(e.text, "set one of them"));
	unsetenv("TASK_BACKEND_TYPE");
	unsetenv("TASK_QUEUE_BACKEND");
	setenv("ENVIRONMENT", "production", 1);
	struct place *p = *state;
	assert_int_equal(taskq_run_worker(p->q, NULL, &e), TASKQ_E_SETTINGS);
	assert_non_null(strstr(e.text, "queues are required in production"));
	unsetenv("ENVIRONMENT");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(any_number_of_threads_call_on_one_handle),
		TEST(a_failed_task_is_a_result_with_its_error),
		TEST(a_wait_ends_in_time_and_the_task_goes_on),
		TEST(what_waits_can_be_cancelled_and_health_tells_who_is_there),
		TEST(a_task_hears_that_it_is_to_stop),
		TEST(callbacks_come_on_the_callers_thread_when_the_descriptor_is_readable),
		TEST(closing_drops_what_is_under_way),
		TEST(mistakes_are_told_by_code_and_sentence),
		TEST(what_is_no_text_or_nothing_is_refused),
		TEST(a_call_that_cannot_be_written_was_refused),
		TEST(one_variable_chooses_the_backend),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
