/* Backend `temporal`: recorded answers of a real server (tests/fixtures/temporal), and a server that loses
 * replies. The real one is in tests/integration/test_temporal.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <glob.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/http_client.h"
#include "base/json.h"
#include "tasks/temporal/temporal.h"
#include "tasks/temporal/temporal_options.h"
#include "tasks/temporal/temporal_wire.h"

#define PATIENCE_MS 20000

/* --- recorded answers ----------------------------------------------------------------------------------- */

struct recorded {
	int status;
	struct buf body;
};

static struct recorded recorded(const char *number)
{
	char pattern[512];
	glob_t found;
	struct recorded r = {0, BUF_INIT(1 << 20)};
	struct buf file = BUF_INIT(1 << 20);
	struct span value;
	snprintf(pattern, sizeof(pattern), "%s/tests/fixtures/temporal/%s_*.json", getenv("SOURCE_ROOT"),
		 number);
	assert_int_equal(glob(pattern, 0, NULL, &found), 0);
	assert_int_equal(file_read(found.gl_pathv[0], 1 << 19, &file, NULL), 0);
	globfree(&found);
	assert_true(json_pointer(buf_span(&file), SPAN_LIT("/status"), &value));
	r.status = atoi(value.ptr);
	assert_true(json_pointer(buf_span(&file), SPAN_LIT("/response_raw"), &value));
	assert_int_equal(json_unescape(value, &r.body), 0);
	buf_release(&file);
	return r;
}

static void expect_span(struct span got, const char *expected)
{
	if (expected ? !span_is(got, expected) : got.ptr != NULL)
		fail_msg("expected %s, got %.*s", expected ? expected : "nothing", SPAN_ARG(got));
}

static bool contains(struct span s, const char *what)
{
	return s.len && memmem(s.ptr, s.len, what, strlen(what)) != NULL;
}

/* --- ends of workflows ---------------------------------------------------------------------------------- */

static void every_end_of_a_workflow_is_told_in_our_words(void **state)
{
	(void)state;
	static const struct {
		const char *number;
		enum task_status status;
		const char *result, *error, *detail;
		bool cancelled;
	} cases[] = {
		{"011", TASK_COMPLETED,
		 "{\"argtype\":\"dict\",\"attempt\":1,\"echo\":{\"mode\":\"ok\",\"n\":1,\"nested\":{\"a\":[1,"
		 "2.5,null,true]},"
		 "\"s\":\"h\\u00e9\"}}",
		 NULL, NULL, false},
		{"102", TASK_COMPLETED, "{\"echo\":{\"big\":9007199254740993,\"e\":1000.0,\"f\":1.0}}", NULL,
		 NULL, false},
		{"026", TASK_FAILED, NULL, "bad input", "raise ApplicationError(\"bad input\"", false},
		{"029", TASK_FAILED, NULL, "always crashes", "ValueError: always crashes\n  File", false},
		{"036", TASK_FAILED, NULL, "terminated: router rollback", NULL, true},
		{"042", TASK_FAILED, NULL, "cancelled", NULL, true},
		{"046", TASK_FAILED, NULL, "timed out", NULL, false},
		{"051", TASK_FAILED, NULL, "timed out waiting for a worker", NULL, false}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct recorded r = recorded(cases[i].number);
		struct temporal_close c;
		struct err e;
		temporal_close_init(&c);
		assert_int_equal(temporal_close_parse(buf_span(&r.body), &c, &e), 0);
		assert_true(c.closed);
		assert_int_equal(c.r.status, cases[i].status);
		expect_span(c.r.result, cases[i].result);
		expect_span(c.r.error, cases[i].error);
		assert_int_equal(c.r.cancelled, cases[i].cancelled);
		assert_int_equal(c.r.completed_us / 86400000000, 20778); /* 2026-11-21 */
		if (cases[i].detail && !contains(c.r.error_detail, cases[i].detail))
			fail_msg("%s: %.*s", cases[i].number, SPAN_ARG(c.r.error_detail));
		temporal_close_release(&c);
		buf_release(&r.body);
	}
}

static void a_poll_without_an_event_gives_the_next_page(void **state)
{
	(void)state;
	struct recorded r = recorded("130");
	struct temporal_close c;
	temporal_close_init(&c);
	assert_int_equal(temporal_close_parse(buf_span(&r.body), &c, NULL), 0);
	assert_false(c.closed);
	assert_true(c.next_page.len > 100 && strncmp(c.next_page.ptr, "CiQwMWExZmI3", 12) == 0);
	temporal_close_release(&c);
	buf_release(&r.body);
}

#define EVENT(type, attributes) \
	"{\"history\":{\"events\":[{\"eventId\":\"11\",\"eventTime\":\"2026-11-21T00:12:35Z\"," \
	"\"eventType\":" \
	"\"EVENT_TYPE_WORKFLOW_EXECUTION_" type "\"," attributes "}]}}"
#define RESULT(encoding, data) \
	EVENT("COMPLETED", \
	      "\"workflowExecutionCompletedEventAttributes\":{\"result\":{\"payloads\":[{\"metadata\":{" \
	      "\"encoding\":\"" encoding "\"},\"data\":\"" data "\"}]}}")
#define FAILURE(failure) \
	EVENT("FAILED", "\"workflowExecutionFailedEventAttributes\":{\"failure\":" failure "}")

static void ends_that_were_not_recorded(void **state)
{
	(void)state;
	static const struct {
		const char *body, *result, *error, *detail, *run_id;
	} cases[] = {
		/* Python's None */
		{RESULT("YmluYXJ5L251bGw=", ""), "null", NULL, NULL, ""},
		{EVENT("COMPLETED", "\"workflowExecutionCompletedEventAttributes\":{}"), "null", NULL, NULL,
		 ""},
		{RESULT("anNvbi9wcm90b2J1Zg==", "eyJhIjoxfQ=="), "{\"a\":1}", NULL, NULL, ""},
		{RESULT("YmluYXJ5L3BsYWlu", "AAEC"), NULL,
		 "the workflow completed, but its result is not JSON (encoding binary/plain)", NULL, ""},
		/* Python's NaN */
		{RESULT("anNvbi9wbGFpbg==", "TmFO"), NULL,
		 "the workflow completed, but its result is not JSON (encoding json/plain)", NULL, ""},
		{RESULT("anNvbi9wbGFpbg==", "not base64"), NULL,
		 "the workflow completed, but its result is not JSON (encoding json/plain)", NULL, ""},
		/* what Python raised `from` something is the error; that something is a detail */
		{FAILURE("{\"message\":\"Activity task "
			 "failed\",\"activityFailureInfo\":{},\"cause\":{\"message\":\"bad\","
			 "\"applicationFailureInfo\":{"
			 "\"type\":\"BadInput\"},\"stackTrace\":\"there\",\"cause\":{\"message\":\"'key'\","
			 "\"applicationFailureInfo\":{\"type\":"
			 "\"KeyError\"},\"stackTrace\":\"here\"}}}"),
		 NULL, "bad", "BadInput: bad\nthere\ncaused by KeyError: 'key'\nhere", ""},
		/* a workflow that says in its own words that its activity failed */
		{FAILURE("{\"message\":\"no "
			 "luck\",\"applicationFailureInfo\":{},\"cause\":{\"message\":\"Activity task "
			 "failed\","
			 "\"activityFailureInfo\":{},\"cause\":{\"message\":\"the disk is purple\"}}}"),
		 NULL, "the disk is purple", "the disk is purple\n", ""},
		{FAILURE("{\"message\":\"Activity task timed "
			 "out\",\"activityFailureInfo\":{},\"cause\":{\"message\":\"activity StartToClose "
			 "timeout\","
			 "\"timeoutFailureInfo\":{\"timeoutType\":\"TIMEOUT_TYPE_START_TO_CLOSE\"}}}"),
		 NULL, "activity StartToClose timeout", "activity StartToClose timeout\n", ""},
		{FAILURE("{\"applicationFailureInfo\":{\"type\":\"Silent\"}}"), NULL, "Silent", "Silent\n",
		 ""},
		{FAILURE("{}"), NULL, "the workflow failed without a message", "\n", ""},
		{EVENT("CONTINUED_AS_NEW",
		       "\"workflowExecutionContinuedAsNewEventAttributes\":{\"newExecutionRunId\":\"r2\"}"),
		 NULL, NULL, NULL, "r2"},
		{EVENT("FAILED", "\"workflowExecutionFailedEventAttributes\":{\"failure\":{},"
				 "\"newExecutionRunId\":\"r3\"}"),
		 NULL, NULL, NULL, "r3"}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct temporal_close c;
		struct err e;
		temporal_close_init(&c);
		assert_int_equal(temporal_close_parse(span_of(cases[i].body), &c, &e), 0);
		assert_int_equal(c.closed, !cases[i].run_id[0]);
		assert_string_equal(c.run_id, cases[i].run_id);
		if (c.closed) {
			expect_span(c.r.result, cases[i].result);
			expect_span(c.r.error, cases[i].error);
			expect_span(c.r.error_detail, cases[i].detail);
		}
		temporal_close_release(&c);
	}
}

static void what_is_no_answer_is_an_error(void **state)
{
	(void)state;
	static const char *const bodies[] = {"",
					     "{}",
					     "[]",
					     "null",
					     "<html>",
					     "{\"history\":[]}",
					     "{\"history\":{\"events\":[{}]}}",
					     EVENT("STARTED", "\"a\":1"),
					     EVENT("CONTINUED_AS_NEW", "\"a\":1"),
					     "{\"history\":{\"events\":[{\"eventType\":17}]}}"};
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		struct temporal_close c;
		struct temporal_described d;
		struct err e = {""};
		temporal_close_init(&c);
		assert_int_equal(temporal_close_parse(span_of(bodies[i]), &c, &e), -EBADMSG);
		assert_true(e.text[0]);
		temporal_close_release(&c);
		assert_int_equal(temporal_described_parse(span_of(bodies[i]), &d, &e), -EBADMSG);
	}
}

/* --- descriptions --------------------------------------------------------------------------------------- */

static void descriptions(void **state)
{
	(void)state;
	struct temporal_described d;
	struct recorded closed = recorded("012"), waiting = recorded("049");
	assert_int_equal(temporal_described_parse(buf_span(&closed.body), &d, NULL), 0);
	assert_true(d.closed);
	assert_string_equal(d.run_id, "01a1fb72-9d71-76e2-82ad-992a70dd3251");
	assert_string_equal(d.name, "RouterTask");
	assert_int_equal(d.r.submitted_us % 60000000, 35057451);
	assert_int_equal(d.r.completed_us - d.r.submitted_us, 54766);
	assert_int_equal(temporal_described_parse(buf_span(&waiting.body), &d, NULL), 0);
	assert_false(d.closed);
	assert_int_equal(d.r.status, TASK_PENDING);
	assert_int_equal(d.r.started_us, 0);
	assert_int_equal(d.r.completed_us, 0);
	const char *running = "{\"workflowExecutionInfo\":{\"type\":{\"name\":\"add_numbers_workflow\"},"
			      "\"historyLength\":\"7\",\"executionTime\":"
			      "\"2026-11-21T00:12:35Z\",\"status\":\"WORKFLOW_EXECUTION_STATUS_RUNNING\"},"
			      "\"pendingActivities\":[{\"attempt\":3}]}";
	assert_int_equal(temporal_described_parse(span_of(running), &d, NULL), 0);
	assert_int_equal(d.r.status, TASK_RUNNING);
	assert_int_equal(d.r.attempts, 3);
	assert_true(d.r.started_us > 0);
	assert_string_equal(d.name, "add_numbers");
	buf_release(&closed.body);
	buf_release(&waiting.body);
}

static void task_queues(void **state)
{
	(void)state;
	static const struct {
		const char *number;
		bool polled;
		int64_t backlog;
	} cases[] = {{"004", true, -1}, {"006", false, -1}, {"050", false, 1}};
	for (size_t i = 0; i < 3; i++) {
		struct recorded r = recorded(cases[i].number);
		int64_t polled, backlog;
		assert_int_equal(temporal_queue_parse(buf_span(&r.body), &polled, &backlog, NULL), 0);
		assert_int_equal(polled > 0, cases[i].polled);
		assert_int_equal(backlog, cases[i].backlog);
		buf_release(&r.body);
	}
}

/* --- starts --------------------------------------------------------------------------------------------- */

static void answers_to_a_start(void **state)
{
	(void)state;
	static const struct {
		const char *number, *request_id;
		enum temporal_start_answer answer;
		const char *why;
	} cases[] = {{"062", "R1", TEMPORAL_STARTED, ""},
		     {"123", "idem-1", TEMPORAL_STARTED, ""},
		     {"057", "R1", TEMPORAL_STARTED, ""}, /* taken, by this very request */
		     {"057", "R2", TEMPORAL_NEVER, "already running"},
		     {"063", "R5", TEMPORAL_NEVER, "already finished"},
		     {"068", "x", TEMPORAL_NOT_NOW, "Namespace nope is not found."},
		     {"083", "x", TEMPORAL_TOO_LARGE, "Blob data size"},
		     {"185", "x", TEMPORAL_NOT_NOW, "rate limit"}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct recorded r = recorded(cases[i].number);
		struct err why = {""};
		assert_int_equal(temporal_start_answer(r.status, buf_span(&r.body),
						       span_of(cases[i].request_id), &why),
				 cases[i].answer);
		assert_non_null(strstr(why.text, cases[i].why));
		buf_release(&r.body);
	}
	static const struct {
		int status;
		enum temporal_start_answer answer;
	} bare[] = {{200, TEMPORAL_UNCLEAR}, {400, TEMPORAL_NEVER},   {401, TEMPORAL_NOT_NOW},
		    {403, TEMPORAL_NOT_NOW}, {409, TEMPORAL_UNCLEAR}, {413, TEMPORAL_TOO_LARGE},
		    {500, TEMPORAL_UNCLEAR}, {501, TEMPORAL_NOT_NOW}, {503, TEMPORAL_UNCLEAR},
		    {302, TEMPORAL_NOT_NOW}};
	for (size_t i = 0; i < sizeof(bare) / sizeof(bare[0]); i++) {
		struct err why;
		assert_int_equal(
			temporal_start_answer(bare[i].status, SPAN_LIT("<html>"), SPAN_LIT("x"), &why),
			bare[i].answer);
	}
	struct recorded missing = recorded("070"), namespace = recorded("068");
	assert_true(temporal_no_such_workflow(missing.status, buf_span(&missing.body)));
	assert_false(temporal_no_such_workflow(namespace.status, buf_span(&namespace.body)));
	assert_false(temporal_no_such_workflow(404, SPAN_LIT("<html>")));
	buf_release(&missing.body);
	buf_release(&namespace.body);
}

static void payload(struct span body, const char *pointer, const char *expected)
{
	struct span data;
	CLEANUP(buf_releasep) struct buf coded = BUF_INIT(4096), text = BUF_INIT(4096);
	bool there = json_pointer(body, span_of(pointer), &data);
	assert_int_equal(there, expected != NULL);
	if (!there)
		return;
	json_unescape(data, &coded);
	assert_int_equal(base64_decode(buf_span(&coded), &text), 0);
	expect_span(buf_span(&text), expected);
}

static void a_start_carries_the_values_as_they_are(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(65536), id = BUF_INIT(65536);
	struct task_call call = {.task = SPAN_LIT("t\"1"),
				 .args = SPAN_LIT("[9007199254740993, 1.0]"),
				 .task_id = SPAN_LIT("t-1"),
				 .request_id = SPAN_LIT("q"),
				 .priority = 9};
	assert_int_equal(temporal_request_id(&call, &id), 0);
	expect_span(buf_span(&id), "t\"1_workflow/q");
	assert_int_equal(temporal_start_body(&call, SPAN_LIT("queue"), buf_span(&id), 1500, &body), 0);
	const char *head = "{\"workflowType\":{\"name\":\"t\\\"1_workflow\"},\"taskQueue\":{\"name\":"
			   "\"queue\"},\"requestId\":\"t\\\"1_workflow/q\","
			   "\"identity\":\"migration-router\",\"workflowIdReusePolicy\":\"WORKFLOW_ID_REUSE_"
			   "POLICY_REJECT_DUPLICATE\","
			   "\"workflowExecutionTimeout\":\"1.500s\",\"priority\":{\"priorityKey\":1},"
			   "\"input\":{\"payloads\":[{\"metadata\":{\"encoding\":"
			   "\"anNvbi9wbGFpbg==\"},\"data\":\"";
	assert_int_equal(strncmp(body.ptr, head, strlen(head)), 0);
	assert_int_equal(json_validate(buf_span(&body), NULL), 0);
	payload(buf_span(&body), "/input/payloads/0/data", "[9007199254740993, 1.0]");
	payload(buf_span(&body), "/input/payloads/1/data", "{}");
	assert_null(strstr(body.ptr, "memo"));
	call.shadow = true;
	buf_clear(&body);
	assert_int_equal(temporal_start_body(&call, SPAN_LIT("queue"), SPAN_LIT("r"), 1500, &body), 0);
	assert_int_equal(json_validate(buf_span(&body), NULL), 0);
	payload(buf_span(&body), "/memo/fields/x_migration_shadow/data", "true");
	assert_null(strstr(body.ptr, "header"));
	call.traceparent = SPAN_LIT("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
	call.tracestate = SPAN_LIT("a=\"1");
	buf_clear(&body);
	assert_int_equal(temporal_start_body(&call, SPAN_LIT("queue"), SPAN_LIT("r"), 1500, &body), 0);
	assert_int_equal(json_validate(buf_span(&body), NULL), 0);
	payload(buf_span(&body), "/header/fields/_tracer-data/data",
		"{\"traceparent\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\","
		"\"tracestate\":\"a=\\\"1\"}");
	call.single_input = true;
	call.args = SPAN_LIT("[ {\"metadata\": 1.0} , 2]");
	buf_clear(&body);
	assert_int_equal(temporal_start_body(&call, SPAN_LIT("queue"), SPAN_LIT("r"), 1500, &body), 0);
	payload(buf_span(&body), "/input/payloads/0/data", "{\"metadata\": 1.0}");
	payload(buf_span(&body), "/input/payloads/1/data", NULL);
}

static void ids(void **state)
{
	(void)state;
	struct task_call call = {.task = SPAN_LIT("a/b c")};
	char id[TASK_ID_MAX], other[TASK_ID_MAX];
	temporal_make_id(&call, id);
	temporal_make_id(&call, other);
	assert_int_equal(strncmp(id, "a_b_c-", 6), 0);
	assert_int_equal(strlen(id), 6 + 36);
	assert_string_not_equal(id, other);
	call.task = SPAN_LIT("a_name_that_is_far_longer_than_an_id_has_room_for_beside_a_uuid");
	temporal_make_id(&call, id);
	assert_int_equal(strlen(id), TASK_ID_MAX - 1);
	assert_int_equal(strncmp(id, "a_name_that_is_far_longer_-", 27), 0);
	assert_true(temporal_id_possible(SPAN_LIT("a:b +\xc3\xa9")));
	assert_false(temporal_id_possible(SPAN_LIT("a/b")));
	assert_false(temporal_id_possible(SPAN_LIT("..")));
	assert_false(temporal_id_possible(SPAN_LIT("")));
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(256);
	buf_put_segment(&url, SPAN_LIT("a:b +\xc3\xa9%2F~_"));
	expect_span(buf_span(&url), "a%3Ab%20%2B%C3%A9%252F~_");
	/* A request id that is too long for the server goes by its hash. */
	CLEANUP(buf_releasep) struct buf request = BUF_INIT(65536);
	char text[1200];
	memset(text, 'x', sizeof(text));
	call.request_id = (struct span){text, sizeof(text)};
	assert_int_equal(temporal_request_id(&call, &request), 0);
	assert_int_equal(request.len, 64);
}

/* --- settings ------------------------------------------------------------------------------------------- */

static void settings(void **state)
{
	(void)state;
	static const struct {
		/* wrong: a part of the sentence, or NULL and then the base address */
		const char *key, *value, *wrong;
	} cases[] = {
		{"http_url", "http://t:1/", "http://t:1/api/v1/namespaces/default"},
		{"host", "temporal.example", "http://temporal.example:7243/api/v1/namespaces/default"},
		{"host", "temporal.example:7233", "http://temporal.example:7243/api/v1/namespaces/default"},
		{"host", "::1", "http://[::1]:7243/api/v1/namespaces/default"},
		{"host", "[::1]:7233", "http://[::1]:7243/api/v1/namespaces/default"},
		{"namespace", "a b", "http://127.0.0.1:7243/api/v1/namespaces/a%20b"},
		{"port", "7233", "http://127.0.0.1:7243/api/v1/namespaces/default"},
		{"execution_timeout", "10m", "http://127.0.0.1:7243/api/v1/namespaces/default"},
		{"http_url", "ftp://t", "!expected a URL that begins with http:// or https://"},
		{"http_url", "http://user:secret@t", "!user names and passwords are not allowed"},
		{"http_url", "http://", "!the URL's host is missing"},
		{"http_url", "http://t/?a", "!must not contain \"?\" or"},
		{"nmespace", "a", "!did you mean \"namespace\"?"},
		{"host", "", "!expected host"},
		{"host", "http://x", "!expected host"},
		{"port", "0", "!1 to 65535"},
		{"port", "x", "!1 to 65535"},
		{"namespace", "", "!expected a name"},
		{"api_key", "a\nb", "!without blanks"},
		{"api_key_file", "/nonexistent/key", "!/nonexistent/key: No such file"},
		{"client_cert_file", "/nonexistent/cert", "!/nonexistent/cert: No such file"},
		{"ca_file", "/dev/null", "!need an http_url that begins with https://"},
		{"execution_timeout", "5", NULL},
		{"execution_timeout", "10ms", "!from 1s"},
		{"colour", "red", "!available: http_url, host"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct task_backend_setup setup = {.data_dir = "."};
		struct task_options *o;
		struct err e = {""};
		const char *expected = cases[i].wrong;
		assert_int_equal(task_options_new(&temporal_backend, &o, &e), 0);
		int r = task_options_set(o, span_of(cases[i].key), span_of(cases[i].value), &e);
		if (r == 0)
			r = task_options_check(o, &setup, &e);
		if (expected && expected[0] == '!') {
			assert_true(r < 0);
			if (!strstr(e.text, expected + 1))
				fail_msg("%s=%s: %s", cases[i].key, cases[i].value, e.text);
			assert_null(strstr(e.text, "secret"));
		} else {
			if (r != 0)
				fail_msg("%s=%s: %s", cases[i].key, cases[i].value, e.text);
			if (expected)
				assert_string_equal(((struct temporal_options *)o)->base, expected);
		}
		task_options_free(o);
	}
}

/* --- a server that can lose replies --------------------------------------------------------------------- */

#define SERVED_MAX 16
struct server {
	int fd, port;
	pthread_t thread;
	/* one per request; "" closes without one; after the last every request is closed */
	const char *const *answers;
	struct buf requests[SERVED_MAX];
	size_t count;
};

static bool whole(const struct buf *request)
{
	const char *end = request->len ? strstr(request->ptr, "\r\n\r\n") : NULL;
	const char *length = end ? strcasestr(request->ptr, "content-length:") : NULL;
	return end && request->len >= (size_t)(end + 4 - request->ptr) +
					      (length ? strtoul(length + 15, NULL, 10) : 0);
}

static void *serve(void *arg)
{
	struct server *s = arg;
	int c;
	while (s->count < SERVED_MAX && (c = accept(s->fd, NULL, NULL)) >= 0) {
		struct buf *request = &s->requests[s->count];
		char piece[4096];
		ssize_t n;
		buf_init(request, 8 << 20);
		while (!whole(request) && (n = read(c, piece, sizeof(piece))) > 0)
			buf_append(request, piece, (size_t)n);
		s->count++;
		const char *answer = *s->answers ? *s->answers++ : "";
		if (write(c, answer, strlen(answer)) < 0)
			abort();
		close(c);
	}
	return NULL;
}

static void server_start(struct server *s, const char *const *answers)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	*s = (struct server){.answers = answers};
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(s->fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(s->fd, 16), 0);
	assert_int_equal(getsockname(s->fd, (struct sockaddr *)&a, &n), 0);
	s->port = ntohs(a.sin_port);
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_stop(struct server *s)
{
	shutdown(s->fd, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	close(s->fd);
}

static void server_release(struct server *s)
{
	for (size_t i = 0; i < s->count; i++)
		buf_release(&s->requests[i]);
}

#define ANSWER(status, body) \
	"HTTP/1.1 " status " X\r\nDate: Sat, 21 Nov 2026 00:12:35 GMT\r\nConnection: close\r\n\r\n" body
#define LOST ""
#define STARTED ANSWER("200", "{\"runId\":\"r1\",\"started\":true}")
#define TAKEN(by) \
	ANSWER("409", "{\"code\":6,\"message\":\"already\",\"details\":[{\"startRequestId\":\"" by "\"}]}")
#define UNAVAILABLE ANSWER("503", "{\"code\":14,\"message\":\"not now\"}")
#define LIMITED ANSWER("429", "{\"code\":8,\"message\":\"namespace rate limit exceeded\"}")
#define GONE \
	ANSWER("404", "{\"code\":5,\"message\":\"workflow not " \
		      "found\",\"details\":[{\"@type\":\"x/NotFoundFailure\"}]}")
#define OPEN(token) ANSWER("200", "{\"history\":{},\"nextPageToken\":\"" token "\"}")
#define DESCRIBED(status, length) \
	ANSWER("200", "{\"workflowExecutionInfo\":{\"execution\":{\"runId\":\"r9\"},\"type\":{\"name\":\"t_" \
		      "workflow\"}," \
		      "\"startTime\":\"2026-11-21T00:12:30Z\",\"executionTime\":\"2026-11-21T00:12:30Z\"," \
		      "\"historyLength\":\"" length "\",\"status\":" \
		      "\"WORKFLOW_EXECUTION_STATUS_" status "\"}}")

/* A client, and what its one operation came to. */
struct talk {
	struct loop *loop;
	struct loop_timer *limit;
	struct task_options *options;
	struct task_client *client;
	bool told;
	enum task_submit_status submitted;
	bool about_call;
	int error;
	enum task_status status;
	struct task_result r;
	struct task_health health;
	struct task_check check;
	struct buf id, result, failure;
	struct err err;
};

static void told(struct talk *t)
{
	assert_false(t->told);
	t->told = true;
	loop_stop(t->loop);
}

static void on_limit(void *arg)
{
	(void)arg;
	fail_msg("nothing was told");
}

static void talk_start(struct talk *t, int port)
{
	char url[64];
	const struct task_backend_setup setup = {.data_dir = "."};
	struct err e;
	*t = (struct talk){.id = BUF_INIT(256), .result = BUF_INIT(65536), .failure = BUF_INIT(65536)};
	snprintf(url, sizeof(url), "http://127.0.0.1:%d", port);
	assert_int_equal(loop_new(&t->loop), 0);
	assert_int_equal(loop_timer_new(t->loop, on_limit, t, &t->limit), 0);
	loop_timer_start(t->limit, PATIENCE_MS);
	assert_int_equal(task_options_new(&temporal_backend, &t->options, &e), 0);
	assert_int_equal(task_options_set(t->options, SPAN_LIT("http_url"), span_of(url), &e), 0);
	assert_int_equal(task_options_set(t->options, SPAN_LIT("api_key"), SPAN_LIT("k1"), &e), 0);
	assert_int_equal(task_options_check(t->options, &setup, &e), 0);
	assert_int_equal(task_client_new(t->options, t->loop, &t->client, &e), 0);
}

static void talk_end(struct talk *t)
{
	task_client_free(t->client);
	task_options_free(t->options);
	loop_timer_free(t->limit);
	loop_run_posted(t->loop);
	loop_free(t->loop);
	buf_release(&t->id);
	buf_release(&t->result);
	buf_release(&t->failure);
}

static void on_submitted(void *arg, const struct task_submission *s)
{
	struct talk *t = arg;
	t->submitted = s->status;
	t->about_call = s->about_call;
	t->err = s->err;
	buf_append_span(&t->id, s->task_id);
	told(t);
}

static void on_result(void *arg, int error, const struct task_result *r)
{
	struct talk *t = arg;
	t->error = error;
	if (r) {
		t->r = *r;
		buf_append_span(&t->id, r->task_id);
		buf_append_span(&t->result, r->result);
		buf_append_span(&t->failure, r->error);
	}
	told(t);
}

static void on_done(void *arg, int error, struct err *e)
{
	struct talk *t = arg;
	t->error = error;
	t->err = *e;
	told(t);
}

static void on_health(void *arg, const struct task_health *h)
{
	struct talk *t = arg;
	t->health = *h;
	told(t);
}

/* clang-format off */
#define CALL {.task = SPAN_LIT("t"), .args = SPAN_LIT("[1]"), .task_id = SPAN_LIT("t-1"), \
	      .request_id = SPAN_LIT("q")}
/* clang-format on */

static void a_submission_is_sent_again_only_where_that_is_safe_and_told_as_it_is(void **state)
{
	(void)state;
	static const struct {
		const char *answers[8];
		enum task_submit_status status;
		size_t requests;
		const char *why;
	} cases[] = {{{STARTED}, TASK_SUBMITTED, 1, ""},
		     {{LOST, STARTED}, TASK_SUBMITTED, 2, ""},
		     {{LOST, LOST, STARTED}, TASK_SUBMITTED, 3, ""},
		     {{LOST, LOST, LOST, STARTED}, TASK_UNKNOWN, 3, "Temporal: "},
		     {{UNAVAILABLE, STARTED}, TASK_SUBMITTED, 2, ""},
		     {{UNAVAILABLE, UNAVAILABLE, UNAVAILABLE}, TASK_UNKNOWN, 3, "not now (503)"},
		     {{LOST, TAKEN("t_workflow/q")}, TASK_SUBMITTED, 2, ""},
		     {{TAKEN("another")}, TASK_REFUSED, 1, "already (409)"},
		     {{LOST, TAKEN("another")}, TASK_REFUSED, 2, "already (409)"},
		     {{LIMITED}, TASK_REFUSED, 1, "rate limit"},
		     {{LOST, LIMITED, LIMITED, STARTED}, TASK_SUBMITTED, 4, ""},
		     {{ANSWER("400", "{\"code\":3,\"message\":\"WorkflowType is not set on request.\"}")},
		      TASK_REFUSED,
		      1,
		      "WorkflowType"},
		     {{ANSWER("400", "{\"code\":3,\"message\":\"Blob data size exceeds limit.\"}")},
		      TASK_INPUT_TOO_LARGE,
		      1,
		      "Blob"},
		     {{ANSWER("401", "{\"code\":16,\"message\":\"Request unauthorized.\"}")},
		      TASK_REFUSED,
		      1,
		      "unauthorized"},
		     {{"garbage\r\n\r\n", STARTED}, TASK_SUBMITTED, 2, ""}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct server s;
		struct talk t;
		struct task_call call = CALL;
		server_start(&s, cases[i].answers);
		talk_start(&t, s.port);
		task_submit(t.client, &call, on_submitted, &t);
		assert_false(t.told);
		loop_run(t.loop);
		server_stop(&s);
		if (t.submitted != cases[i].status || s.count != cases[i].requests ||
		    !strstr(t.err.text, cases[i].why))
			fail_msg("case %zu: status %d after %zu requests: %s", i, t.submitted, s.count,
				 t.err.text);
		assert_int_equal(t.about_call,
				 strstr(t.err.text, "already") || strstr(t.err.text, "WorkflowType"));
		expect_span(buf_span(&t.id), "t-1");
		for (size_t j = 0; j < s.count; j++) {
			assert_true(contains(buf_span(&s.requests[j]),
					     "POST /api/v1/namespaces/default/workflows/t-1 HTTP/1.1\r\n"));
			assert_true(contains(buf_span(&s.requests[j]), "Authorization: Bearer k1\r\n"));
			assert_true(contains(buf_span(&s.requests[j]), "\"requestId\":\"t_workflow/q\""));
			assert_true(contains(buf_span(&s.requests[j]),
					     "\"workflowExecutionTimeout\":\"3600.000s\""));
		}
		talk_end(&t);
		server_release(&s);
	}
}

static void a_server_that_is_away_refuses_at_once(void **state)
{
	(void)state;
	static const char *const none[] = {NULL};
	struct server s;
	struct talk t;
	struct task_call call = CALL;
	server_start(&s, none);
	server_stop(&s);
	talk_start(&t, s.port);
	for (int i = 0; i < 20; i++) {
		/* 20 waits for a connection, of 2 s each, are more than the patience */
		t.told = false;
		task_submit(t.client, &call, on_submitted, &t);
		loop_run(t.loop);
		assert_int_equal(t.submitted, TASK_REFUSED);
	}
	talk_end(&t);
	call.task_id = SPAN_LIT("a/b");
	talk_start(&t, s.port);
	task_submit(t.client, &call, on_submitted, &t);
	loop_run(t.loop);
	assert_int_equal(t.submitted, TASK_REFUSED);
	assert_non_null(strstr(t.err.text, "a/b"));
	talk_end(&t);
}

static void a_wait_goes_on_until_there_is_an_end(void **state)
{
	(void)state;
	static const struct {
		const char *answers[8];
		int error;
		size_t requests;
		const char *result, *failure, *last_asked; /* a part of the last request */
	} cases[] = {
		{{ANSWER("200", RESULT("anNvbi9wbGFpbg==", "MS4w"))},
		 0,
		 1,
		 "1.0",
		 "",
		 "GET "
		 "/api/v1/namespaces/default/workflows/t-1/"
		 "history?historyEventFilterType=HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT"
		 "&noPayloadShorthand&waitNewEvent=true HTTP/1.1\r\n"},
		{{OPEN("a+b/="), ANSWER("200", RESULT("anNvbi9wbGFpbg==", "MS4w"))},
		 0,
		 2,
		 "1.0",
		 "",
		 "&nextPageToken=a%2Bb%2F%3D HTTP/1.1\r\n"},
		{{LOST, UNAVAILABLE, LIMITED,
		  ANSWER("404", "{\"code\":5,\"message\":\"\",\"details\":[{\"@type\":\"x/"
				"NamespaceNotFoundFailure\"}]}"),
		  ANSWER("200", FAILURE("{\"message\":\"bad\"}"))},
		 0,
		 5,
		 "",
		 "bad",
		 "waitNewEvent"},
		{{ANSWER("200", EVENT("CONTINUED_AS_NEW", "\"workflowExecutionContinuedAsNewEventAttributes\""
							  ":{\"newExecutionRunId\":\"r2\"}")),
		  ANSWER("200", RESULT("anNvbi9wbGFpbg==", "MS4w"))},
		 0,
		 2,
		 "1.0",
		 "",
		 "&execution.runId=r2 HTTP/1.1\r\n"},
		{{GONE}, TASK_E_NOT_FOUND, 1, "", "", "waitNewEvent"},
		/* What cannot be read, and what others answer, is no end. */
		{{ANSWER("403", "{\"code\":7,\"message\":\"Request unauthorized.\"}"), ANSWER("302", ""),
		  ANSWER("200", "<html>"), ANSWER("200", EVENT("A_NEWER_SERVERS", "\"a\":1")),
		  ANSWER("200", "{\"history\":{\"events\":[{\"eventType\":17}]}}"),
		  ANSWER("200", RESULT("anNvbi9wbGFpbg==", "MS4w"))},
		 0,
		 6,
		 "1.0",
		 "",
		 "waitNewEvent"},
		{{ANSWER("200", "{\"history\":{\"events\":[{\"eventType\":\"EVENT_TYPE_WORKFLOW_EXECUTION_"
				"COMPLETED\","),
		  ANSWER("200", RESULT("anNvbi9wbGFpbg==", "MS4w"))},
		 0,
		 2,
		 "1.0",
		 "",
		 "waitNewEvent"},
		/* NaN */
		{{ANSWER("200", RESULT("anNvbi9wbGFpbg==", "TmFO"))},
		 TASK_E_UNREADABLE,
		 1,
		 "",
		 "",
		 "waitNewEvent"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct server s;
		struct talk t;
		server_start(&s, cases[i].answers);
		talk_start(&t, s.port);
		assert_non_null(task_wait(t.client, SPAN_LIT("t-1"), on_result, &t));
		assert_false(t.told);
		loop_run(t.loop);
		server_stop(&s);
		if (t.error != cases[i].error || s.count != cases[i].requests)
			fail_msg("case %zu: %d after %zu requests", i, t.error, s.count);
		expect_span(buf_span(&t.result), cases[i].result);
		expect_span(buf_span(&t.failure), cases[i].failure);
		if (!contains(buf_span(&s.requests[s.count - 1]), cases[i].last_asked))
			fail_msg("case %zu: %s", i, s.requests[s.count - 1].ptr);
		talk_end(&t);
		server_release(&s);
	}
}

static void a_wait_that_is_given_up_and_a_client_that_is_freed_tell_nothing(void **state)
{
	(void)state;
	static const char *const none[] = {NULL};
	struct server s;
	struct talk t;
	struct task_call call = CALL;
	server_start(&s, none);
	talk_start(&t, s.port);
	struct task_wait *w = task_wait(t.client, SPAN_LIT("t-1"), on_result, &t);
	struct task_wait *impossible = task_wait(t.client, SPAN_LIT("a/b"), on_result, &t);
	loop_run_once(t.loop);
	task_wait_cancel(w, t.client);
	task_wait_cancel(impossible, t.client);
	task_wait(t.client, SPAN_LIT("t-2"), on_result, &t);
	task_submit(t.client, &call, on_submitted, &t);
	loop_run_once(t.loop);
	assert_false(t.told);
	talk_end(&t);
	server_stop(&s);
	server_release(&s);
}

static void get_tells_the_state_now(void **state)
{
	(void)state;
	static const struct {
		const char *answers[3];
		int error;
		enum task_status status;
		size_t requests;
		const char *result;
	} cases[] = {{{DESCRIBED("RUNNING", "2")}, 0, TASK_PENDING, 1, ""},
		     {{DESCRIBED("RUNNING", "5")}, 0, TASK_RUNNING, 1, ""},
		     {{DESCRIBED("COMPLETED", "11"), ANSWER("200", RESULT("anNvbi9wbGFpbg==", "MS4w"))},
		      0,
		      TASK_COMPLETED,
		      2,
		      "1.0"},
		     {{DESCRIBED("FAILED", "11"), ANSWER("200", FAILURE("{\"message\":\"bad\"}"))},
		      0,
		      TASK_FAILED,
		      2,
		      ""},
		     {{DESCRIBED("COMPLETED", "11"), ANSWER("200", "<html>")}, TASK_E_UNREADABLE, 0, 2, ""},
		     {{DESCRIBED("COMPLETED", "11"), ANSWER("200", EVENT("A_NEWER_SERVERS", "\"a\":1"))},
		      TASK_E_UNREADABLE,
		      0,
		      2,
		      ""},
		     {{DESCRIBED("COMPLETED", "11"), UNAVAILABLE}, TASK_E_UNREACHABLE, 0, 2, ""},
		     {{GONE}, TASK_E_NOT_FOUND, 0, 1, ""},
		     {{UNAVAILABLE}, TASK_E_UNREACHABLE, 0, 1, ""},
		     {{LOST}, TASK_E_UNREACHABLE, 0, 1, ""}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct server s;
		struct talk t;
		server_start(&s, cases[i].answers);
		talk_start(&t, s.port);
		task_get(t.client, SPAN_LIT("t-1"), on_result, &t);
		loop_run(t.loop);
		server_stop(&s);
		assert_int_equal(t.error, cases[i].error);
		assert_int_equal(s.count, cases[i].requests);
		expect_span(buf_span(&t.result), cases[i].result);
		if (t.error == 0) {
			assert_int_equal(t.r.status, cases[i].status);
			assert_true(t.r.submitted_us > 0);
			assert_int_equal(t.r.started_us > 0, cases[i].status != TASK_PENDING);
		}
		if (s.count == 2)
			assert_true(contains(buf_span(&s.requests[1]), "&execution.runId=r9 HTTP"));
		talk_end(&t);
		server_release(&s);
	}
}

static void cancel_asks_the_worker_or_ends_what_none_has(void **state)
{
	(void)state;
	static const struct {
		const char *answers[3];
		int error;
		const char *last_asked;
	} cases[] = {{{DESCRIBED("RUNNING", "5"), ANSWER("200", "{}")},
		      0,
		      "POST /api/v1/namespaces/default/workflows/t-1/cancel HTTP"},
		     {{DESCRIBED("RUNNING", "2"), ANSWER("200", "{}")},
		      0,
		      "POST /api/v1/namespaces/default/workflows/t-1/terminate HTTP"},
		     {{DESCRIBED("RUNNING", "5"), GONE}, 0, "/cancel"}, /* it ended just now */
		     {{DESCRIBED("COMPLETED", "11")}, 0, "GET"},
		     {{GONE}, TASK_E_NOT_FOUND, "GET"},
		     {{LOST}, TASK_E_UNREACHABLE, "GET"},
		     {{DESCRIBED("RUNNING", "5"), UNAVAILABLE}, TASK_E_UNREACHABLE, "/cancel"}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct server s;
		struct talk t;
		server_start(&s, cases[i].answers);
		talk_start(&t, s.port);
		task_cancel(t.client, SPAN_LIT("t-1"), on_done, &t);
		loop_run(t.loop);
		server_stop(&s);
		assert_int_equal(t.error, cases[i].error);
		assert_true(contains(buf_span(&s.requests[s.count - 1]), cases[i].last_asked));
		talk_end(&t);
		server_release(&s);
	}
}

#define QUEUE(polled, backlog) \
	ANSWER("200", \
	       "{\"pollers\":[{\"lastAccessTime\":\"2026-11-20T00:00:00Z\"},{\"lastAccessTime\":\"" polled \
	       "\"}]," \
	       "\"stats\":{" backlog "}}")

static void health(void **state)
{
	(void)state;
	static const struct {
		const char *answers[2];
		bool reachable, worker;
		int64_t backlog;
		const char *detail;
	} cases[] = {
		/* by the server's clock, which says 00:12:35 */
		{{QUEUE("2026-11-21T00:11:25.5Z", "\"approximateBacklogCount\":\"17\"")}, true, true, 17, ""},
		{{QUEUE("2026-11-21T00:11:15.5Z", "")},
		 true,
		 false,
		 0,
		 "no worker polls the task queue task-abstraction-queue"},
		{{ANSWER("200", "{}")}, true, false, -1, "no worker polls"},
		{{ANSWER("404", "{\"code\":5,\"message\":\"Namespace nope is not found.\"}")},
		 false,
		 false,
		 -1,
		 "Namespace nope is not found. (404)"},
		{{ANSWER("200", "<html>")}, false, false, -1, "describes no task queue"},
		{{LOST}, false, false, -1, "Temporal: "}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct server s;
		struct talk t;
		server_start(&s, cases[i].answers);
		talk_start(&t, s.port);
		task_health(t.client, on_health, &t);
		loop_run(t.loop);
		server_stop(&s);
		assert_int_equal(t.health.reachable, cases[i].reachable);
		assert_int_equal(t.health.worker, cases[i].worker);
		assert_int_equal(t.health.backlog, cases[i].backlog);
		assert_non_null(strstr(t.health.detail, cases[i].detail));
		assert_true(contains(
			buf_span(&s.requests[0]),
			"GET /api/v1/namespaces/default/task-queues/task-abstraction-queue?taskQueueType="
			"TASK_QUEUE_TYPE_WORKFLOW&reportStats=true HTTP"));
		talk_end(&t);
		server_release(&s);
	}
}

static void on_check(void *arg, const struct task_check *c)
{
	struct talk *t = arg;
	t->check = *c;
	told(t);
}

static void a_check_asks_about_the_queue_of_the_task(void **state)
{
	(void)state;
	static const struct {
		const char *answers[2];
		bool reachable;
		enum task_answer worker;
		const char *missing;
	} cases[] = {
		{{QUEUE("2026-11-21T00:11:25.5Z", "")}, true, TASK_ANSWER_YES, ""},
		{{ANSWER("200", "{}")}, true, TASK_ANSWER_NO, "no worker polls the task queue own queue"},
		{{LOST}, false, TASK_ANSWER_UNKNOWN, "Temporal: "}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct server s;
		struct talk t;
		struct task_probe probe = {.task = SPAN_LIT("t"), .queue = SPAN_LIT("own queue")};
		server_start(&s, cases[i].answers);
		talk_start(&t, s.port);
		task_check(t.client, &probe, on_check, &t);
		loop_run(t.loop);
		server_stop(&s);
		assert_int_equal(t.check.reachable, cases[i].reachable);
		assert_int_equal(t.check.known, TASK_ANSWER_UNKNOWN);
		assert_int_equal(t.check.worker, cases[i].worker);
		assert_int_equal(strncmp(t.check.missing, cases[i].missing, strlen(cases[i].missing)), 0);
		assert_int_equal(!t.check.missing[0], cases[i].worker == TASK_ANSWER_YES);
		assert_true(contains(buf_span(&s.requests[0]), "/task-queues/own%20queue?taskQueueType="));
		talk_end(&t);
		server_release(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_end_of_a_workflow_is_told_in_our_words),
		cmocka_unit_test(a_poll_without_an_event_gives_the_next_page),
		cmocka_unit_test(ends_that_were_not_recorded),
		cmocka_unit_test(what_is_no_answer_is_an_error),
		cmocka_unit_test(descriptions),
		cmocka_unit_test(task_queues),
		cmocka_unit_test(answers_to_a_start),
		cmocka_unit_test(a_start_carries_the_values_as_they_are),
		cmocka_unit_test(ids),
		cmocka_unit_test(settings),
		cmocka_unit_test(a_submission_is_sent_again_only_where_that_is_safe_and_told_as_it_is),
		cmocka_unit_test(a_server_that_is_away_refuses_at_once),
		cmocka_unit_test(a_wait_goes_on_until_there_is_an_end),
		cmocka_unit_test(a_wait_that_is_given_up_and_a_client_that_is_freed_tell_nothing),
		cmocka_unit_test(get_tells_the_state_now),
		cmocka_unit_test(cancel_asks_the_worker_or_ends_what_none_has),
		cmocka_unit_test(health),
		cmocka_unit_test(a_check_asks_about_the_queue_of_the_task),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
