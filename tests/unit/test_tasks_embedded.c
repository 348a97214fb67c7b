/* The embedded backend with the real worker program: what runs, what is lost and found, who ends what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/crypto.h"
#include "base/db.h"
#include "base/file.h"
#include "base/json.h"
#include "tasks/blocking.h"
#include "tasks/embedded/embedded_internal.h"
#include "tasks/queue/store.h"
#include "support/scratch.h"

#define PATIENCE_MS 20000

struct fixture {
	char folder[SCRATCH_MAX], database[SCRATCH_MAX], runs[SCRATCH_MAX];
	pid_t worker;
	struct embedded_options *options;
	struct buf text;
	struct task_result r;
	struct err e;
};

/* Starts the program and waits for its `worker_ready`. */
static pid_t start_worker(const char *database, const char *lease, const char *drain)
{
	char tasks[512];
	int p[2];
	snprintf(tasks, sizeof(tasks), "%s/tests/fixtures/tasks/tasks.yml", getenv("SOURCE_ROOT"));
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(p[1], 2);
		execl(getenv("TASK_BACKEND_WORKER"), "task-backend-worker", "--database", database, "--tasks",
		      tasks, "--queues", "default", "--lease", lease, "--concurrency", "8",
		      "--shutdown-timeout", drain, NULL);
		_exit(127);
	}
	close(p[1]);
	char seen[8192];
	size_t n = 0;
	ssize_t got;
	while ((got = read(p[0], seen + n, sizeof(seen) - 1 - n)) > 0) {
		n += (size_t)got;
		seen[n] = '\0';
		if (strstr(seen, "worker_ready"))
			break;
	}
	assert_true(got > 0);
	/* Its later lines go nowhere; a closed pipe would only cost it an EPIPE each. */
	close(p[0]);
	return pid;
}

static int end_process(pid_t *pid, int number)
{
	int status = 0;
	if (*pid > 0) {
		kill(*pid, number);
		waitpid(*pid, &status, 0);
	}
	*pid = 0;
	return status;
}

static struct fixture *fixture_new(void)
{
	struct fixture *f = calloc(1, sizeof(*f));
	scratch_make(f->folder);
	scratch_path(f->folder, "tasks.db", f->database);
	scratch_path(f->folder, "runs", f->runs);
	setenv("RUNS_FILE", f->runs, 1);
	setenv("GRANDCHILD_FILE", f->runs, 1);
	buf_init(&f->text, 16 << 20);
	return f;
}

/* `max_queued_bytes` and `busy_timeout_ms`: 0 for the usual. */
static void start_store_with(struct fixture *f, size_t max_queued_bytes, int busy_timeout_ms)
{
	const struct task_backend_setup setup = {.data_dir = f->folder};
	struct task_options *o;
	assert_int_equal(task_options_new(&embedded_backend, &o, &f->e), 0);
	f->options = (struct embedded_options *)o;
	f->options->max_queued_bytes = max_queued_bytes;
	f->options->busy_timeout_ms = busy_timeout_ms;
	assert_int_equal(task_options_check(o, &setup, &f->e), 0);
	assert_string_equal(f->options->database, f->database);
	assert_int_equal(task_options_start(o, &f->e), 0);
}

static void start_store(struct fixture *f)
{
	start_store_with(f, 0, 0);
}

static void stop_store(struct fixture *f)
{
	if (f->options)
		task_options_free(&f->options->base);
	f->options = NULL;
}

static int setup(void **state)
{
	struct fixture *f = fixture_new();
	*state = f;
	f->worker = start_worker(f->database, "1s", "5s");
	start_store(f);
	return 0;
}

static int setup_without_worker(void **state)
{
	struct fixture *f = fixture_new();
	*state = f;
	start_store(f);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	end_process(&f->worker, SIGKILL);
	stop_store(f);
	struct store *s;
	struct store_options o = {.path = f->database};
	if (access(f->database, F_OK) == 0) {
		assert_int_equal(store_open(&o, &s, &f->e), 0);
		assert_int_equal(store_integrity_check(s, &f->e), 0);
		store_close(s);
	}
	scratch_remove(f->folder);
	buf_release(&f->text);
	free(f);
	return 0;
}

static int run_call(struct fixture *f, const struct task_call *call, unsigned timeout_ms)
{
	f->e.text[0] = '\0';
	return task_run_blocking(&f->options->base, call, timeout_ms, &f->text, &f->r, &f->e);
}

static int run(struct fixture *f, const char *task, const char *args, const char *kwargs)
{
	struct task_call call = {.task = span_of(task), .args = span_of(args), .kwargs = span_of(kwargs)};
	return run_call(f, &call, PATIENCE_MS);
}

static void expect_result(struct fixture *f, const char *result)
{
	if (f->r.status != TASK_COMPLETED || !span_is(f->r.result, result))
		fail_msg("expected %s, got %s %.*s %.*s", result, task_status_text(f->r.status),
			 SPAN_ARG(f->r.result), SPAN_ARG(f->r.error));
}

static bool contains(struct span s, const char *what)
{
	return s.len && memmem(s.ptr, s.len, what, strlen(what)) != NULL;
}

static void expect_error(struct fixture *f, const char *part)
{
	if (f->r.status != TASK_FAILED || !contains(f->r.error, part))
		fail_msg("expected an error with \"%s\", got %s \"%.*s\" %.*s", part,
			 task_status_text(f->r.status), SPAN_ARG(f->r.error), SPAN_ARG(f->r.result));
}

/* The whole of it. */
static void expect_sentence(struct fixture *f, const char *text)
{
	assert_int_equal(f->r.status, TASK_FAILED);
	if (!span_is(f->r.error, text))
		fail_msg("expected \"%s\", got \"%.*s\"", text, SPAN_ARG(f->r.error));
}

/* --- what runs ------------------------------------------------------------------------------------------ */

static void a_task_runs_and_its_result_comes_back(void **state)
{
	struct fixture *f = *state;
	int64_t best = INT64_MAX;
	for (int i = 0; i < 20; i++) {
		int64_t begin = clock_mono_us();
		assert_int_equal(run(f, "add_numbers", "[9007199254740993, 1]", NULL), 0);
		expect_result(f, "9007199254740994");
		int64_t us = clock_mono_us() - begin;
		best = us < best ? us : best;
	}
	print_message("submit to result, best of 20: %lld us\n", (long long)best);
	assert_true(best < 500000); /* by poke, not by the poll of a second */
	assert_int_equal(f->r.attempts, 1);
	assert_true(f->r.submitted_us <= f->r.started_us && f->r.started_us <= f->r.completed_us);
}

static void an_unknown_task_is_left_to_others(void **state)
{
	struct fixture *f = *state;
	struct task_call call = {
		.task = SPAN_LIT("add_number"), .args = SPAN_LIT("[1, 2]"), .expires_ms = 300};
	for (int i = 0; i < 2; i++) {
		assert_int_equal(run_call(f, &call, PATIENCE_MS), 0);
		expect_error(f, "expired before a worker started it");
		assert_int_equal(f->r.attempts, 0);
		call.workflow = true;
	}
	/* It waits behind nobody. */
	call = (struct task_call){.task = SPAN_LIT("add_number"), .expires_ms = 60000};
	assert_int_equal(run_call(f, &call, 100), -ETIMEDOUT);
	assert_int_equal(run(f, "add_numbers", "[1, 2]", NULL), 0);
	expect_result(f, "3");
}

static void exec_gets_the_call_and_a_clean_environment(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(run(f, "show_call", "[1.0, \"\\u00e9\"]", "{\"big\": 9007199254740993}"), 0);
	assert_int_equal(f->r.status, TASK_COMPLETED);
	assert_true(contains(f->r.result, "\"task_name\":\"show_call\",\"args\":[1.0, "
					  "\"\\u00e9\"],\"kwargs\":{\"big\": 9007199254740993},"
					  "\"attempt\":1}"));
	assert_int_equal(run(f, "literal", NULL, NULL), 0);
	expect_result(f, "\"$HOME; ls `id` *\"");
	assert_int_equal(run(f, "environment", NULL, NULL), 0);
	/* sh itself adds PWD; ls has 0, 1, 2 and the folder it reads. */
	expect_result(f, "\"/\\nCOLOUR=red\\nPATH=/usr/local/bin:/usr/bin:/bin\\nPWD=/\\n4\\n\"");
}

static void exec_has_limits(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(run(f, "too_much", NULL, NULL), 0);
	expect_sentence(f, "too_much: its output exceeds 65536 bytes");
	assert_int_equal(run(f, "not_json", NULL, NULL), 0);
	expect_sentence(f, "not_json: invalid JSON on its standard output");
	assert_int_equal(run(f, "fails", NULL, NULL), 0);
	expect_sentence(f, "fails: exit code 3");
	assert_true(contains(f->r.error_detail, "sh: exit code 3\none\nthe disk is purple"));
	assert_int_equal(run(f, "absent", NULL, NULL), 0);
	expect_sentence(f, "absent: it could not be started");
	assert_true(contains(f->r.error_detail, "no-such-program-here: No such file or directory"));
	assert_int_equal(run(f, "short_work", "[5]", NULL), 0);
	expect_error(f, "timed out after 200 ms");
}

/* They hold a lock on the file while they live, which says more than a number does where /proc is another
 * namespace's. */
static void the_time_limit_kills_grandchildren(void **state)
{
	struct fixture *f = *state;
	static const char *const tasks[] = {"grandchildren", "other_session"};
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(run(f, tasks[i], NULL, NULL), 0);
		expect_error(f, "timed out after 300 ms");
		int fd = open(f->runs, O_RDWR | O_CLOEXEC);
		assert_true(fd >= 0); /* flock has made it */
		/* SIGKILL was sent before the result was written; the kernel may take a moment to act on
		 * it. */
		int64_t until = clock_mono_ms() + PATIENCE_MS;
		int r;
		while ((r = flock(fd, LOCK_EX | LOCK_NB)) < 0 && clock_mono_ms() < until)
			poll(NULL, 0, 5);
		close(fd);
		if (r < 0)
			fail_msg("%s: a grandchild outlives the time limit", tasks[i]);
	}
}

/* --- http ----------------------------------------------------------------------------------------------- */

struct origin {
	int fd;
	pthread_t thread;
	const char *answer; /* NULL: reads the request and closes */
	char request[8192];
	unsigned count;
};

static void *serve(void *arg)
{
	struct origin *o = arg;
	int c;
	while ((c = accept(o->fd, NULL, NULL)) >= 0) {
		size_t n = 0;
		ssize_t got;
		char *body;
		o->count++;
		while ((got = read(c, o->request + n, sizeof(o->request) - 1 - n)) > 0) {
			n += (size_t)got;
			o->request[n] = '\0';
			body = strstr(o->request, "\r\n\r\n");
			const char *length = strcasestr(o->request, "content-length:");
			if (body && length &&
			    n >= (size_t)(body + 4 - o->request) + strtoul(length + 15, NULL, 10))
				break;
		}
		if (o->answer && write(c, o->answer, strlen(o->answer)) < 0)
			abort();
		close(c);
	}
	return NULL;
}

/* Begins to listen, and tells the workers of tests to come where. */
static void origin_start(struct origin *o)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	char url[64];
	o->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(o->fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(o->fd, 16), 0);
	assert_int_equal(getsockname(o->fd, (struct sockaddr *)&a, &n), 0);
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/chat", ntohs(a.sin_port));
	setenv("CALL_URL", url, 1);
	assert_int_equal(pthread_create(&o->thread, NULL, serve, o), 0);
}

static void origin_stop(struct origin *o)
{
	shutdown(o->fd, SHUT_RDWR);
	pthread_join(o->thread, NULL);
	close(o->fd);
	unsetenv("CALL_URL");
}

static void http_posts_once(void **state)
{
	struct fixture *f = *state;
	static struct {
		const char *task, *answer, *result, *error, *sent;
	} cases[] = {{"call_url", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\": 1.0}", NULL,
		      "not valid JSON", NULL},
		     {"call_url", "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"a\": 1.0}", NULL,
		      "outcome unknown", NULL},
		     {"call_url", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"a\": 1.0}", "{\"a\": 1.0}",
		      NULL, "{\"args\":[1.0],\"kwargs\":{}}"},
		     {"call_url", "HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops", NULL,
		      "call_url: HTTP 500", NULL},
		     {"call_url", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\noops", NULL, "not valid JSON",
		      NULL},
		     {"call_url", NULL, NULL, "outcome unknown", NULL},
		     {"chat",
		      "HTTP/1.1 200 OK\r\nContent-Length: "
		      "50\r\n\r\n{\"choices\":[{\"message\":{\"content\":\"a summary\"}}]}  ",
		      "\"a summary\"", NULL,
		      "{\"model\":\"small\",\"messages\":[{\"role\":\"user\",\"content\":1.0},{\"role\":"
		      "\"system\",\"content\":\"none\"}]}"},
		     {"chat", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", NULL,
		      "chat: its answer has no result", NULL}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct origin o = {.answer = cases[i].answer};
		origin_start(&o);
		end_process(&f->worker, SIGTERM);
		f->worker = start_worker(f->database, "5s", "5s");
		assert_int_equal(run(f, cases[i].task, "[1.0]", NULL), 0);
		if (cases[i].result)
			expect_result(f, cases[i].result);
		else
			expect_error(f, cases[i].error);
		origin_stop(&o);
		assert_int_equal(o.count, 1);
		if (cases[i].sent)
			assert_non_null(strstr(o.request, cases[i].sent));
	}
	end_process(&f->worker, SIGTERM);
	f->worker = start_worker(f->database, "5s", "5s");
	assert_int_equal(run(f, "call_url", "[1]", NULL), 0);
	expect_error(f, "not reached");
}

/* --- workflows ------------------------------------------------------------------------------------------ */

static void workflows_hand_results_on(void **state)
{
	struct fixture *f = *state;
	struct task_call call = {.task = SPAN_LIT("arithmetic"),
				 .workflow = true,
				 .args = SPAN_LIT("[1]"),
				 .kwargs = SPAN_LIT("{\"b\":2}")};
	assert_int_equal(run_call(f, &call, PATIENCE_MS), 0);
	expect_result(f, "{\"first\":3,\"second\":13,\"again\":3}");
	call = (struct task_call){.task = SPAN_LIT("breaks"), .workflow = true, .args = SPAN_LIT("[\"x\"]")};
	assert_int_equal(run_call(f, &call, PATIENCE_MS), 0);
	expect_error(f, "step \"bad\": fails: exit code 3");
	call = (struct task_call){.task = SPAN_LIT("slow"), .workflow = true, .args = SPAN_LIT("[30]")};
	assert_int_equal(run_call(f, &call, PATIENCE_MS), 0);
	expect_error(f, "timed out after 400 ms in step \"long\"");
}

static const char pdf[] =
	"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count "
	"1>>endobj\n"
	"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 100]/Contents 4 0 R/Resources<</Font<</F1 5 0 "
	"R>>>>>>endobj\n"
	"4 0 obj<</Length 44>>stream\nBT /F1 24 Tf 20 40 Td (Invoice 4711) Tj ET  \nendstream endobj\n"
	"5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\ntrailer<</Root 1 0 R/Size "
	"6>>\n%%EOF\n";

static void a_document_goes_through_its_workflow(void **state)
{
	struct fixture *f = *state;
	CLEANUP(buf_releasep) struct buf args = BUF_INIT(1 << 16);
	buf_puts(&args, "[{\"content_base64\":\"");
	base64_encode(span_of(pdf), &args);
	buf_puts(&args, "\"}]");
	struct task_call call = {.task = SPAN_LIT("document"), .workflow = true, .args = buf_span(&args)};
	assert_int_equal(run_call(f, &call, PATIENCE_MS), 0);
	assert_int_equal(f->r.status, TASK_COMPLETED);
	assert_true(contains(f->r.result, "{\"extract-text\":\""));
	assert_true(contains(f->r.result, "Invoice 4711"));
	assert_true(contains(f->r.result, "\"echo\":\"Echo: "));
	call.args = SPAN_LIT("[{\"content_base64\":\"!\"}]");
	assert_int_equal(run_call(f, &call, PATIENCE_MS), 0);
	expect_error(f, "step \"extract-text\": args:/0/content_base64 is not base64");
}

/* --- lost and found ------------------------------------------------------------------------------------- */

static size_t lines_of(const char *path)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1 << 20);
	size_t n = 0;
	if (file_read(path, 1 << 16, &text, NULL) < 0)
		return 0;
	for (size_t i = 0; i < text.len; i++)
		n += text.ptr[i] == '\n';
	return n;
}

static void wait_for_lines(const char *path, size_t n)
{
	int64_t until = clock_mono_ms() + PATIENCE_MS;
	while (lines_of(path) < n && clock_mono_ms() < until)
		poll(NULL, 0, 5);
	assert_int_equal(lines_of(path), n);
}

struct submitting {
	struct loop *loop;
	struct buf *id;
	enum task_submit_status status;
};

static void on_submitted(void *arg, const struct task_submission *s)
{
	struct submitting *w = arg;
	w->status = s->status;
	buf_clear(w->id);
	buf_append_span(w->id, s->task_id);
	loop_stop(w->loop);
}

/* Submits without waiting for the end; the id is in f->text. */
static void submit(struct fixture *f, const struct task_call *call)
{
	struct submitting w = {.id = &f->text};
	struct task_client *c;
	assert_int_equal(loop_new(&w.loop), 0);
	assert_int_equal(task_client_new(&f->options->base, w.loop, &c, &f->e), 0);
	task_submit(c, call, on_submitted, &w);
	loop_run(w.loop);
	task_client_free(c);
	loop_run_posted(w.loop);
	loop_free(w.loop);
	assert_int_equal(w.status, TASK_SUBMITTED);
}

static int wait_for(struct fixture *f, struct span id, unsigned timeout_ms);

static void a_lost_task_is_not_run_again(void **state)
{
	struct fixture *f = *state;
	char id[TASK_ID_MAX];
	struct task_call call = {.task = SPAN_LIT("count_runs")};
	submit(f, &call);
	span_copy(buf_span(&f->text), id, sizeof(id));
	wait_for_lines(f->runs, 1);
	end_process(&f->worker, SIGKILL);
	f->worker = start_worker(f->database, "1s", "5s");
	assert_int_equal(wait_for(f, span_of(id), PATIENCE_MS), 0);
	expect_error(f, STORE_WORKER_LOST);
	assert_true(span_is(f->r.error, STORE_WORKER_LOST));
	assert_int_equal(lines_of(f->runs), 1);
}

static void a_lost_idempotent_task_is_run_again_once(void **state)
{
	struct fixture *f = *state;
	char id[TASK_ID_MAX];
	struct task_call call = {.task = SPAN_LIT("count_runs_again")};
	submit(f, &call);
	span_copy(buf_span(&f->text), id, sizeof(id));
	wait_for_lines(f->runs, 1);
	end_process(&f->worker, SIGKILL);
	f->worker = start_worker(f->database, "1s", "5s");
	assert_int_equal(wait_for(f, span_of(id), PATIENCE_MS), 0);
	expect_result(f, "1");
	assert_int_equal(f->r.attempts, 2);
	assert_int_equal(lines_of(f->runs), 2);
}

static void a_workflow_survives_its_worker(void **state)
{
	struct fixture *f = *state;
	char id[TASK_ID_MAX];
	struct task_call call = {.task = SPAN_LIT("two_sleeps"), .workflow = true, .args = SPAN_LIT("[1,2]")};
	submit(f, &call);
	span_copy(buf_span(&f->text), id, sizeof(id));
	end_process(&f->worker, SIGKILL);
	f->worker = start_worker(f->database, "1s", "5s");
	assert_int_equal(wait_for(f, span_of(id), PATIENCE_MS), 0);
	assert_int_equal(f->r.status, TASK_COMPLETED);
	assert_true(contains(f->r.result, "{\"one\":3,\"two\":{"));
	assert_true(contains(f->r.result, "\"three\":\"Echo: end\"}"));
}

struct waiting {
	struct loop *loop;
	struct fixture *f;
	int code;
	bool done;
};

static void on_waited(void *arg, int error, const struct task_result *r)
{
	struct waiting *w = arg;
	w->code = error;
	w->done = true;
	if (!error) {
		struct buf *t = &w->f->text;
		buf_clear(t);
		assert_int_equal(buf_reserve(t, r->result.len + r->error.len), 0);
		w->f->r = *r;
		w->f->r.task_id = w->f->r.task_name = w->f->r.error_detail = w->f->r.owner = SPAN_NONE;
		buf_append_span(t, r->result);
		buf_append_span(t, r->error);
		w->f->r.result = r->result.ptr ? (struct span){t->ptr, r->result.len} : SPAN_NONE;
		w->f->r.error =
			r->error.ptr ? (struct span){t->ptr + r->result.len, r->error.len} : SPAN_NONE;
	}
	loop_stop(w->loop);
}

static void on_too_long(void *arg)
{
	loop_stop(((struct waiting *)arg)->loop);
}

static int wait_for(struct fixture *f, struct span id, unsigned timeout_ms)
{
	struct waiting w = {.f = f};
	struct task_client *c;
	struct loop_timer *limit;
	assert_int_equal(loop_new(&w.loop), 0);
	assert_int_equal(task_client_new(&f->options->base, w.loop, &c, &f->e), 0);
	assert_int_equal(loop_timer_new(w.loop, on_too_long, &w, &limit), 0);
	loop_timer_start(limit, timeout_ms);
	task_wait(c, id, on_waited, &w);
	loop_run(w.loop);
	loop_timer_free(limit);
	task_client_free(c);
	loop_run_posted(w.loop);
	loop_free(w.loop);
	return w.done ? w.code : -ETIMEDOUT;
}

/* --- ends without a worker ------------------------------------------------------------------------------ */

static void every_accepted_task_ends(void **state)
{
	struct fixture *f = *state;
	struct task_call call = {.task = SPAN_LIT("echo"), .args = SPAN_LIT("[\"x\"]"), .expires_ms = 100};
	assert_int_equal(run_call(f, &call, PATIENCE_MS), 0);
	expect_error(f, "expired before a worker started it");
	assert_int_equal(wait_for(f, SPAN_LIT("00000000000000000000000000000000"), PATIENCE_MS),
			 TASK_E_NOT_FOUND);
}

static void an_acknowledged_task_survives_its_router(void **state)
{
	struct fixture *f = *state;
	int p[2];
	char id[33] = "";
	stop_store(f);
	assert_int_equal(pipe(p), 0);
	pid_t pid = fork();
	if (pid == 0) {
		start_store(f);
		struct task_call call = {.task = SPAN_LIT("add_numbers"), .args = SPAN_LIT("[1,2]")};
		submit(f, &call);
		if (write(p[1], f->text.ptr, 32) != 32)
			_exit(1);
		pause();
	}
	close(p[1]);
	assert_int_equal(read(p[0], id, 32), 32);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(p[0]);
	f->worker = start_worker(f->database, "1s", "5s");
	start_store(f);
	assert_int_equal(wait_for(f, span_of(id), PATIENCE_MS), 0);
	expect_result(f, "3");
}

struct cancelling {
	struct loop *loop;
	int code;
};

static void on_cancelled(void *arg, int error, struct err *e)
{
	struct cancelling *c = arg;
	(void)e;
	c->code = error;
	loop_stop(c->loop);
}

static int cancel(struct fixture *f, struct span id)
{
	struct cancelling w = {0};
	struct task_client *c;
	assert_int_equal(loop_new(&w.loop), 0);
	assert_int_equal(task_client_new(&f->options->base, w.loop, &c, &f->e), 0);
	task_cancel(c, id, on_cancelled, &w);
	loop_run(w.loop);
	task_client_free(c);
	loop_run_posted(w.loop);
	loop_free(w.loop);
	return w.code;
}

static void cancelling_ends_pending_and_running_tasks(void **state)
{
	struct fixture *f = *state;
	char id[TASK_ID_MAX];
	struct task_call call = {.task = SPAN_LIT("elsewhere"), .queue = SPAN_LIT("nobody-serves-this")};
	submit(f, &call);
	span_copy(buf_span(&f->text), id, sizeof(id));
	assert_int_equal(cancel(f, span_of(id)), 0);
	assert_int_equal(wait_for(f, span_of(id), PATIENCE_MS), 0);
	expect_error(f, "cancelled before it was started");
	assert_true(f->r.cancelled);

	call = (struct task_call){.task = SPAN_LIT("count_runs")};
	submit(f, &call);
	span_copy(buf_span(&f->text), id, sizeof(id));
	wait_for_lines(f->runs, 1);
	assert_int_equal(cancel(f, span_of(id)), 0);
	assert_int_equal(wait_for(f, span_of(id), PATIENCE_MS), 0);
	expect_error(f, "cancelled while it ran");
	assert_true(f->r.cancelled);
	assert_int_equal(cancel(f, SPAN_LIT("nothing")), TASK_E_NOT_FOUND);
}

/* --- stopping the worker -------------------------------------------------------------------------------- */

static void sigterm_lets_running_tasks_end(void **state)
{
	struct fixture *f = *state;
	char id[TASK_ID_MAX];
	struct task_call call = {.task = SPAN_LIT("begins_and_ends")};
	submit(f, &call);
	span_copy(buf_span(&f->text), id, sizeof(id));
	wait_for_lines(f->runs, 1); /* a task that the signal overtakes is left to other workers */
	int status = end_process(&f->worker, SIGTERM);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(wait_for(f, span_of(id), PATIENCE_MS), 0);
	assert_int_equal(f->r.status, TASK_COMPLETED);
}

static void the_drain_has_an_end(void **state)
{
	struct fixture *f = *state;
	char id[TASK_ID_MAX];
	end_process(&f->worker, SIGTERM);
	f->worker = start_worker(f->database, "5s", "100ms");
	struct task_call call = {.task = SPAN_LIT("count_runs")};
	submit(f, &call);
	span_copy(buf_span(&f->text), id, sizeof(id));
	wait_for_lines(f->runs, 1);
	int status = end_process(&f->worker, SIGTERM);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(wait_for(f, span_of(id), PATIENCE_MS), 0);
	assert_true(span_is(f->r.error, STORE_WORKER_LOST));
}

/* --- many ----------------------------------------------------------------------------------------------- */

#define EACH 500

struct crowd {
	struct fixture *f;
	pthread_t thread;
	struct loop *loop;
	struct task_client *client;
	unsigned submitted, completed, wrong;
};

static void on_crowd_result(void *arg, int error, const struct task_result *r)
{
	struct crowd *c = arg;
	if (error || r->status != TASK_COMPLETED || !span_is(r->result, "5"))
		c->wrong++;
	if (++c->completed == EACH)
		loop_stop(c->loop);
}

static void on_crowd_submitted(void *arg, const struct task_submission *s)
{
	struct crowd *c = arg;
	c->submitted += s->status == TASK_SUBMITTED;
	task_wait(c->client, s->task_id, on_crowd_result, c);
}

static void *crowd_run(void *arg)
{
	struct crowd *c = arg;
	struct err e;
	struct task_call call = {.task = SPAN_LIT("add_numbers"), .args = SPAN_LIT("[2,3]")};
	if (loop_new(&c->loop) < 0 || task_client_new(&c->f->options->base, c->loop, &c->client, &e) < 0)
		abort();
	for (int i = 0; i < EACH; i++)
		task_submit(c->client, &call, on_crowd_submitted, c);
	loop_run(c->loop);
	task_client_free(c->client);
	loop_run_posted(c->loop);
	loop_free(c->loop);
	return NULL;
}

static void a_thousand_at_once_from_two_threads(void **state)
{
	struct fixture *f = *state;
	struct crowd crowds[2] = {{.f = f}, {.f = f}};
	int64_t begin = clock_mono_ms();
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&crowds[i].thread, NULL, crowd_run, &crowds[i]), 0);
	for (int i = 0; i < 2; i++) {
		pthread_join(crowds[i].thread, NULL);
		assert_int_equal(crowds[i].submitted, EACH);
		assert_int_equal(crowds[i].wrong, 0);
	}
	print_message("1000 tasks: %lld ms\n", (long long)(clock_mono_ms() - begin));
}

/* --- full ----------------------------------------------------------------------------------------------- */

static void a_full_disk_refuses(void **state)
{
	struct fixture *f = *state;
	CLEANUP(buf_releasep) struct buf args = BUF_INIT(4 << 20);
	stop_store(f);
	if (mount("tmpfs", f->folder, "tmpfs", 0, "size=1m") < 0)
		skip();
	start_store(f);
	buf_puts(&args, "[\"");
	for (int i = 0; i < 200000; i++)
		buf_puts(&args, "0123456");
	buf_puts(&args, "\"]");
	struct task_call call = {.task = SPAN_LIT("echo"), .args = buf_span(&args)};
	int code = run_call(f, &call, 5000);
	call.args = SPAN_LIT("[\"small\"]");
	int small = run_call(f, &call, 300);
	stop_store(f);
	umount(f->folder);
	assert_int_equal(code, -ECONNREFUSED);
	assert_int_equal(small, -ETIMEDOUT); /* accepted: there was room for it */
}

static void a_locked_file_refuses(void **state)
{
	struct fixture *f = *state;
	struct db_options d = {.path = f->database};
	struct db *db;
	struct task_call call = {.task = SPAN_LIT("echo"), .args = SPAN_LIT("[1]")};
	stop_store(f);
	start_store_with(f, 0, 50);
	submit(f, &call); /* the file is there now */
	assert_int_equal(db_open(&d, &db, &f->e), 0);
	assert_int_equal(db_begin(db, &f->e), 0);
	assert_int_equal(run_call(f, &call, PATIENCE_MS), -ECONNREFUSED);
	assert_non_null(strstr(f->e.text, "locked"));
	db_rollback(db);
	db_close(db);
	submit(f, &call); /* as soon as it can */
}

static void a_queue_that_is_full_refuses(void **state)
{
	struct fixture *f = *state;
	struct task_call call = {.task = SPAN_LIT("echo"), .args = SPAN_LIT("[1]")};
	stop_store(f);
	start_store_with(f, 4, 0);
	assert_int_equal(run_call(f, &call, PATIENCE_MS), -ECONNREFUSED);
	assert_string_equal(f->e.text, "the queue to the task store is full");
}

int main(void)
{
	crypto_setup();
	signal(SIGPIPE, SIG_IGN);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_task_runs_and_its_result_comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(an_unknown_task_is_left_to_others, setup, teardown),
		cmocka_unit_test_setup_teardown(exec_gets_the_call_and_a_clean_environment, setup, teardown),
		cmocka_unit_test_setup_teardown(exec_has_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(the_time_limit_kills_grandchildren, setup, teardown),
		cmocka_unit_test_setup_teardown(http_posts_once, setup, teardown),
		cmocka_unit_test_setup_teardown(workflows_hand_results_on, setup, teardown),
		cmocka_unit_test_setup_teardown(a_document_goes_through_its_workflow, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lost_task_is_not_run_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lost_idempotent_task_is_run_again_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_workflow_survives_its_worker, setup, teardown),
		cmocka_unit_test_setup_teardown(every_accepted_task_ends, setup_without_worker, teardown),
		cmocka_unit_test_setup_teardown(an_acknowledged_task_survives_its_router,
						setup_without_worker, teardown),
		cmocka_unit_test_setup_teardown(cancelling_ends_pending_and_running_tasks, setup, teardown),
		cmocka_unit_test_setup_teardown(sigterm_lets_running_tasks_end, setup, teardown),
		cmocka_unit_test_setup_teardown(the_drain_has_an_end, setup, teardown),
		cmocka_unit_test_setup_teardown(a_thousand_at_once_from_two_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(a_locked_file_refuses, setup_without_worker, teardown),
		cmocka_unit_test_setup_teardown(a_queue_that_is_full_refuses, setup_without_worker, teardown),
		cmocka_unit_test_setup_teardown(a_full_disk_refuses, setup_without_worker, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
