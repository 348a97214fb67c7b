/* The Hatchet backend on the recorded exchanges (tests/fixtures/hatchet), and its client against a server
 * that says what it is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "tasks/hatchet/hatchet_internal.h"
#include "tasks/hatchet/hatchet_message.h"
#include "tasks/hatchet/hatchet_run.h"
#include "tasks/hatchet/hatchet_token.h"

#define TENANT "707d0855-80ab-4e1f-a156-f1c4546cbf52"

/* --- recordings ----------------------------------------------------------------------------------------- */

struct recording {
	struct buf text;
	struct span body;
};

static struct recording recorded(const char *name)
{
	struct recording r = {.text = BUF_INIT(1u << 20)};
	char path[512];
	struct err e = {""};
	snprintf(path, sizeof(path), "%s/tests/fixtures/hatchet/%s.json", getenv("SOURCE_ROOT"), name);
	if (file_read(path, 1u << 19, &r.text, &e) < 0)
		fail_msg("%s", e.text);
	assert_true(json_pointer(buf_span(&r.text), SPAN_LIT("/response_body"), &r.body));
	return r;
}

static void assert_span(struct span got, const char *expected)
{
	if (!expected) {
		assert_null(got.ptr);
		return;
	}
	if (!span_is(got, expected))
		fail_msg("got \"%.*s\", not \"%s\"", SPAN_ARG(got), expected);
}

/* --- token ---------------------------------------------------------------------------------------------- */

/* base64url, as RFC 7515 has it. */
static void put_url64(struct buf *out, const char *text)
{
	size_t start = out->len;
	base64_encode(span_of(text), out);
	while (out->len > start && out->ptr[out->len - 1] == '=')
		out->ptr[--out->len] = '\0';
	for (size_t i = start; i < out->len; i++)
		out->ptr[i] = out->ptr[i] == '+' ? '-' : out->ptr[i] == '/' ? '_' : out->ptr[i];
}

static void make_token(struct buf *out, const char *claims)
{
	put_url64(out, "{\"alg\":\"ES256\"}");
	buf_putc(out, '.');
	put_url64(out, claims);
	buf_puts(out, ".c2lnbmF0dXJl");
}

static void the_claims_of_a_token(void **state)
{
	(void)state;
	CLEANUP(buf_releasep) struct buf token = BUF_INIT(4096);
	struct hatchet_claims c;
	struct err e = {""};
	/* ??> and ~~~ make - and _ in base64url. */
	make_token(&token, "{\"sub\":\"" TENANT
			   "\",\"server_url\":\"http://h:8080\",\"exp\":1795219878,\"x\":\"\?\?>~~~\"}");
	assert_int_equal(hatchet_token_read(buf_span(&token), &c, &e), 0);
	assert_string_equal(c.tenant, TENANT);
	assert_string_equal(c.server_url, "http://h:8080");
	assert_int_equal(c.expires_s, 1795219878);
}

static void tokens_that_are_none(void **state)
{
	(void)state;
	static const struct {
		const char *token, *claims, *said;
	} rows[] = {{"", NULL, "three parts"},
		    {"secret", NULL, "three parts"},
		    {"a.b", NULL, "three parts"},
		    {"a..c", NULL, "three parts"},
		    {"a.b.c.d", NULL, "three parts"},
		    {".b.c", NULL, "three parts"},
		    {"a.secret!.c", NULL, "not JSON in base64url"},
		    {"a.c2VjcmV0.c", NULL, "not JSON in base64url"},
		    {"a b.c.d", NULL, "blank"},
		    {"\"a.b.c\"", NULL, "quotes"},
		    {"'a.b.c'", NULL, "quotes"},
		    {NULL, "{}", "sub"},
		    {NULL, "{\"sub\":\"secret\"}", "sub"},
		    {NULL, "{\"sub\":\"707d0855-80ab-4e1f-a156-f1c4546cbf5\"}", "sub"},
		    {NULL, "{\"sub\":7}", "sub"},
		    {NULL, "[1]", "sub"}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CLEANUP(buf_releasep) struct buf token = BUF_INIT(4096);
		struct hatchet_claims c;
		struct err e = {""};
		if (rows[i].claims)
			make_token(&token, rows[i].claims);
		else
			buf_puts(&token, rows[i].token);
		assert_true(hatchet_token_read(buf_span(&token), &c, &e) < 0);
		if (!strstr(e.text, rows[i].said) || strstr(e.text, "secret"))
			fail_msg("row %zu: %s", i, e.text);
	}
}

static int make_settings(struct span token, const char *url, struct task_options **ret, struct err *e)
{
	const struct task_backend_setup setup = {.data_dir = "."};
	assert_int_equal(task_options_new(&hatchet_backend, ret, e), 0);
	assert_int_equal(task_options_set(*ret, SPAN_LIT("token"), token, e), 0);
	if (url)
		assert_int_equal(task_options_set(*ret, SPAN_LIT("server_url"), span_of(url), e), 0);
	return task_options_check(*ret, &setup, e);
}

static void settings_of_a_token(void **state)
{
	(void)state;
	static const struct {
		const char *claims, *url, *said;
	} rows[] = {{"{\"sub\":\"" TENANT "\",\"server_url\":\"http://h:8080\"}", NULL, NULL},
		    {"{\"sub\":\"" TENANT "\"}", "https://other/", NULL},
		    {"{\"sub\":\"" TENANT "\"}", NULL, "HATCHET_SERVER_URL"},
		    {"{\"sub\":\"" TENANT "\"}", "h:8080", "server_url must look like"},
		    {"{\"sub\":\"" TENANT "\"}", "http://u:secret@h", "server_url must look like"},
		    {"{\"sub\":\"" TENANT "\",\"server_url\":\"http://h\",\"exp\":1000000000}", NULL,
		     "expired (2001-09-09T01:46:40"}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CLEANUP(buf_releasep) struct buf token = BUF_INIT(4096);
		struct task_options *o;
		struct err e = {""};
		make_token(&token, rows[i].claims);
		int r = make_settings(buf_span(&token), rows[i].url, &o, &e);
		if ((r == 0) != !rows[i].said || (rows[i].said && !strstr(e.text, rows[i].said)) ||
		    strstr(e.text, "secret"))
			fail_msg("row %zu: %d %s", i, r, e.text);
		task_options_free(o);
	}
}

/* --- messages ------------------------------------------------------------------------------------------- */

static void the_body_of_a_trigger(void **state)
{
	(void)state;
	static const struct {
		struct task_call call;
		const char *body;
	} rows[] = {{{.args = SPAN_INIT("[9007199254740992, 1.0]"),
		      .kwargs = SPAN_INIT("{\"k\":\"ü\"}"),
		      .request_id = SPAN_INIT("r\"1")},
		     "{\"workflowName\":\"w\",\"input\":{\"args\":[9007199254740992, "
		     "1.0],\"kwargs\":{\"k\":\"ü\"}},"
		     "\"additionalMetadata\":{\"task_id\":\"id\",\"request_id\":\"r\\\"1\"},\"return_only_"
		     "id\":true}"},
		    {{.shadow = true},
		     "{\"workflowName\":\"w\",\"input\":{\"args\":[],\"kwargs\":{}},"
		     "\"additionalMetadata\":{\"task_id\":\"id\",\"x_migration_shadow\":\"1\"},"
		     "\"return_only_id\":true}"},
		    {{.traceparent = SPAN_INIT("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
		      .tracestate = SPAN_INIT("a=1")},
		     "{\"workflowName\":\"w\",\"input\":{\"args\":[],\"kwargs\":{}},"
		     "\"additionalMetadata\":{\"task_id\":\"id\",\"traceparent\":"
		     "\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\",\"tracestate\":\"a=1\"},"
		     "\"return_only_id\":true}"},
		    {{.priority = 1},
		     "{\"workflowName\":\"w\",\"input\":{\"args\":[],\"kwargs\":{}},"
		     "\"additionalMetadata\":{\"task_id\":\"id\"},\"priority\":1,\"return_only_id\":true}"},
		    {{.priority = 5, .single_input = true, .args = SPAN_INIT("[ {\"a\": 1.0} ]")},
		     "{\"workflowName\":\"w\",\"input\":{\"a\": 1.0},"
		     "\"additionalMetadata\":{\"task_id\":\"id\"},\"priority\":2,\"return_only_id\":true}"},
		    {{.priority = 9},
		     "{\"workflowName\":\"w\",\"input\":{\"args\":[],\"kwargs\":{}},"
		     "\"additionalMetadata\":{\"task_id\":\"id\"},\"priority\":3,\"return_only_id\":true}"},
		    {{.single_input = true, .args = SPAN_INIT("[[1]]")}, NULL},
		    {{.single_input = true, .args = SPAN_INIT("[]")}, NULL},
		    {{.single_input = true}, NULL}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
		struct task_call call = rows[i].call;
		struct err e = {""};
		call.task_id = SPAN_LIT("id");
		int r = hatchet_put_trigger(&out, &call, SPAN_LIT("w"), &e);
		if (rows[i].body) {
			assert_int_equal(r, 0);
			assert_span(buf_span(&out), rows[i].body);
		} else {
			assert_true(r < 0 && strstr(e.text, "must be an object"));
		}
	}
}

/* A double holds every integer up to 2^53, and every second one behind it. */
static void integers_that_the_engine_would_round(void **state)
{
	(void)state;
	static const struct {
		const char *args, *number; /* NULL: sent */
	} rows[] = {{"[9007199254740991,-9007199254740992,9007199254740994]", NULL},
		    {"[1000000000000000000]", NULL},
		    {"[1.00000000000000000001,12345678901234567890.5,1e308,12345678901234567890E2]", NULL},
		    {"[\"9007199254740993\",\"\\\\\",\"\\\"9007199254740993\"]", NULL},
		    {"[{\"9007199254740993\":1}]", NULL},
		    {"[1e400]", "1e400"},
		    {"[-1.5E999]", "-1.5E999"},
		    {"[9007199254740993]", "9007199254740993"},
		    {"[1,{\"a\":[-9007199254740993]}]", "-9007199254740993"},
		    {"[9223372036854775807]", "9223372036854775807"},
		    {"[\"\\\\\",123456789012345678901234567890]", "123456789012345678901234567890"}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CLEANUP(buf_releasep) struct buf out = BUF_INIT(4096);
		struct err e = {""};
		const struct task_call as_args = {.args = span_of(rows[i].args), .task_id = SPAN_LIT("id")};
		const struct task_call as_kwargs = {.kwargs = span_of(rows[i].args),
						    .task_id = SPAN_LIT("id")};
		for (int k = 0; k < 2; k++) {
			buf_clear(&out);
			int r = hatchet_put_trigger(&out, k ? &as_kwargs : &as_args, SPAN_LIT("w"), &e);
			assert_int_equal(r, rows[i].number ? -ERANGE : 0);
			assert_true(!rows[i].number ||
				    (strstr(e.text, "round the number ") && strstr(e.text, rows[i].number)));
		}
	}
}

static void names_of_workflows(void **state)
{
	(void)state;
	static const struct {
		const char *recording, *name;
		bool found;
	} rows[] = {
		{"017-workflows-list-by-name", "document-pipeline", true},
		{"139-workflows-name-substring", "document", false},
		{"139-workflows-name-substring", "document-pipeline", true},
		{"128-workflows-by-name-none", "nope", false},
	};
	bool more;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct recording r = recorded(rows[i].recording);
		assert_int_equal(hatchet_read_names(r.body, span_of(rows[i].name), 0, &more), rows[i].found);
		assert_false(more);
		buf_release(&r.text);
	}
	struct span pages = SPAN_LIT("{\"pagination\":{\"num_pages\":2},\"rows\":[{\"name\":\"ab\"}]}");
	assert_false(hatchet_read_names(pages, SPAN_LIT("a"), 0, &more));
	assert_true(more);
	assert_false(hatchet_read_names(pages, SPAN_LIT("a"), 1, &more));
	assert_false(more);
	CLEANUP(buf_releasep) struct buf out = BUF_INIT(256);
	hatchet_put_workflow(&out, SPAN_LIT("a b/ü"), false);
	assert_span(buf_span(&out), "a b/ü_workflow");
	buf_clear(&out);
	buf_put_segment(&out, SPAN_LIT("a b/ü&~"));
	assert_span(buf_span(&out), "a%20b%2F%C3%BC%26~");
}

static void ids_of_runs(void **state)
{
	(void)state;
	char id[TASK_ID_MAX] = "";
	struct recording r = recorded("030-trigger-dag-return-only-id");
	assert_true(hatchet_read_trigger(r.body, id));
	assert_string_equal(id, "b1a2a3ee-c738-4503-8baf-0e3c2a426f8b");
	buf_release(&r.text);
	assert_false(hatchet_read_trigger(SPAN_LIT("{\"run\":{\"metadata\":{\"id\":\"\"}}}"), id));
	assert_false(hatchet_read_trigger(SPAN_LIT("<html>"), id));
	/* The recorded list, as if its request id had been our key. */
	r = recorded("038-runs-list-by-metadata");
	CLEANUP(buf_releasep) struct buf list = BUF_INIT(1u << 20);
	for (struct span rest = r.body; rest.len;) {
		const char *at = memmem(rest.ptr, rest.len, "\"request_id\"", 12);
		size_t n = at ? (size_t)(at - rest.ptr) : rest.len;
		buf_append(&list, rest.ptr, n);
		buf_puts(&list, at ? "\"task_id\"" : "");
		rest.ptr += n + (at ? 12 : 0);
		rest.len -= n + (at ? 12 : 0);
	}
	assert_false(hatchet_read_runs(r.body, SPAN_LIT("req-0001"), id)); /* not under that key */
	assert_true(hatchet_read_runs(buf_span(&list), SPAN_LIT("req-0001"), id));
	assert_string_equal(id, "9724c275-e92d-464f-9667-b23d9eb051d8");
	/* a filter that was ignored */
	assert_false(hatchet_read_runs(buf_span(&list), SPAN_LIT("req-000"), id));
	buf_release(&r.text);
}

static void problems(void **state)
{
	(void)state;
	static const struct {
		const char *recording, *sentence;
	} rows[] = {
		{"043-err-garbage-token", "Please provide valid credentials"},
		{"057-err-priority-9", "priority must be between 1 and 3, got 9"},
		{"068-err-unknown-path", ""},
		{"161-trigger-postgres-down", "Internal Server Error"},
		{"157-ready-postgres-down", "api repository is not healthy"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct recording r = recorded(rows[i].recording);
		char text[256];
		hatchet_read_problem(r.body, text, sizeof(text));
		assert_string_equal(text, rows[i].sentence);
		buf_release(&r.text);
	}
}

static void workers_and_backlog(void **state)
{
	(void)state;
	static const struct {
		const char *recording, *workflows, *missing; /* NULL: all are served */
	} rows[] = {
		{"018-workers-list", "", NULL},
		{"018-workers-list", "echo-task,document-pipeline", NULL},
		{"018-workers-list", "echo-task,echo,document-pipeline", "echo"},
		{"111-workers-list-after-graceful-stop", "two-leaf", "two-leaf"}, /* its worker is INACTIVE */
		{"111-workers-list-after-graceful-stop", "slow-task", NULL},
		{"152-workers-list-after-kill", "", ""},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct recording r = recorded(rows[i].recording);
		struct span missing;
		assert_int_equal(hatchet_read_workers(r.body, span_of(rows[i].workflows), &missing),
				 !rows[i].missing);
		assert_span(missing, rows[i].missing ? rows[i].missing : "");
		buf_release(&r.text);
	}
	struct recording r = recorded("115-queue-metrics-no-worker");
	assert_int_equal(hatchet_read_backlog(r.body), 1);
	buf_release(&r.text);
	assert_int_equal(hatchet_read_backlog(SPAN_LIT("{\"queues\":{}}")), 0);
	assert_int_equal(hatchet_read_backlog(SPAN_LIT("null")), -1);
}

/* --- runs ----------------------------------------------------------------------------------------------- */

static void recorded_runs(void **state)
{
	(void)state;
	static const struct {
		const char *recording, *name;
		enum task_status status;
		bool cancelled, ended, may_retry, unexplained;
		const char *result, *error;
		unsigned attempts;
	} rows[] = {
		{"114-run-get-no-worker", "none-task", TASK_PENDING, false, false, false, false, NULL, NULL,
		 0},
		{"081-run-get-running", "slow-task", TASK_RUNNING, false, false, false, false, NULL, NULL, 1},
		/* Between two tries it is QUEUED, with the last error. */
		{"155-run-get-flaky-backoff", "flaky-backoff-task", TASK_PENDING, false, false, false, false,
		 NULL, NULL, 1},
		{"109-run-get-none", "none-task", TASK_COMPLETED, false, true, false, false, "{}", NULL, 1},
		{"083-run-get-cancelled", "slow-task", TASK_FAILED, true, true, false, false, NULL,
		 "cancelled", 1},
		{"175-run-get-dag-cancelled", "slow-dag", TASK_FAILED, true, true, false, false, NULL,
		 "cancelled", 1},
		{"075-run-get-failtask", "fail-task", TASK_FAILED, false, true, false, false, NULL,
		 "always fails", 2},
		{"172-run-get-parent-fails", "parent-fails", TASK_FAILED, false, true, false, false, NULL,
		 "p1 broke", 1},
		{"077-run-get-timeout", "timeout-task", TASK_FAILED, false, true, false, true, NULL,
		 "the task failed without a message", 1},
		{"117-run-get-sched-timeout", "sched-timeout-task", TASK_FAILED, false, true, false, true,
		 NULL, "the task failed without a message", 0}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct recording r = recorded(rows[i].recording);
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20);
		struct hatchet_run run;
		assert_int_equal(hatchet_run_read(r.body, &text, &run), 0);
		print_message("%s\n", rows[i].recording);
		assert_span(run.result.task_name, rows[i].name);
		assert_int_equal(run.result.status, rows[i].status);
		assert_int_equal(run.result.cancelled, rows[i].cancelled);
		assert_int_equal(run.ended, rows[i].ended);
		assert_int_equal(run.may_retry, rows[i].may_retry);
		assert_int_equal(run.unexplained, rows[i].unexplained);
		assert_span(run.result.result, rows[i].result);
		assert_span(run.result.error, rows[i].error);
		assert_int_equal(run.result.attempts, rows[i].attempts);
		assert_int_equal(run.result.completed_us != 0, rows[i].ended);
		assert_true(run.result.submitted_us > 0);
		buf_release(&r.text);
	}
}

static void outputs_by_task(void **state)
{
	(void)state;
	static const struct {
		const char *recording, *result;
	} rows[] = {{"022-run-get-dag-completed",
		     "{\"extract-text\":{\"text\":\"Hello Hatchet from a C router. Extract "
		     "me.\",\"chars\":42},\"process-llm\":{\"model\":"
		     "\"stub-1\",\"tokens\":10,\"summary\":\"HELLO HATCHET FROM A C ROUTER. EXTRACT M\"}}"},
		    {"108-run-get-two-leaf", "{\"root\":{\"root\":1},\"leaf-a\":{\"a\":1,\"same\":\"a\"},"
					     "\"leaf-b\":{\"b\":2,\"same\":\"b\"}}"},
		    {"035-run-get-echo",
		     "{\"echo\":{\"a\":1,\"s\":\"ü\"},\"meta\":{\"request_id\":\"req-0003\",\"traceparent\":"
		     "\"00-621b62425c9f2f2252251fced29c0a88-991b7c95490618fc-01\"},\"run\":"
		     "\"43e8b73b-7fbf-4f12-899e-4d7ae95050bb\"}"},
		    {"177-run-get-numbers",
		     "{\"args\":[9007199254740992,1,0,1e+21],\"kwargs\":{\"a\":2,\"b\":1}}"}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct recording r = recorded(rows[i].recording);
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20);
		struct hatchet_run run;
		assert_int_equal(hatchet_run_read(r.body, &text, &run), 0);
		assert_true(run.ended);
		if (json_equal(run.result.result, span_of(rows[i].result)) != 1)
			fail_msg("%s: %.*s", rows[i].recording, SPAN_ARG(run.result.result));
		buf_release(&r.text);
	}
	struct recording r = recorded("108-run-get-two-leaf");
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20);
	struct hatchet_run run;
	assert_int_equal(hatchet_run_read(r.body, &text, &run), 0);
	/* in the order of the declaration */
	assert_true(span_starts(run.result.result, SPAN_LIT("{\"root\":")));
	buf_release(&r.text);
}

/* The recorded failure and its traceback. */
static void details_of_a_failure(void **state)
{
	(void)state;
	struct recording r = recorded("075-run-get-failtask");
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(1u << 20);
	struct hatchet_run run;
	assert_int_equal(hatchet_run_read(r.body, &text, &run), 0);
	assert_true(span_starts(run.result.error_detail,
				SPAN_LIT("ValueError: always fails\nTraceback (most recent call last):\n")));
	assert_null(memmem(run.result.error_detail.ptr, run.result.error_detail.len,
			   "__hatchet_error_metadata__", 26));
	assert_int_equal(run.result.submitted_us, INT64_C(1795219991398275));
	assert_int_equal(run.result.completed_us, INT64_C(1795219991501217));
	buf_release(&r.text);
	r = recorded("078-run-get-typed-bad-input");
	assert_int_equal(hatchet_run_read(r.body, &text, &run), 0);
	assert_true(
		span_starts(run.result.error,
			    SPAN_LIT("1 validation error for Typed\nn\n  Input should be a valid integer")));
	buf_release(&r.text);
}

#define RUN(status, workflow, task, retries, count, output) \
	"{\"run\":{\"status\":\"" status "\",\"errorMessage\":\"\"},\"tasks\":[{\"actionId\":\"" workflow \
	":" task "\",\"status\":\"" status "\",\"output\":" output ",\"retryCount\":" count \
	",\"attempt\":1}],\"workflowConfig\":{\"Name\":\"" workflow "\",\"Tasks\":[{\"Action\":\"" workflow \
	":" task "\",\"Retries\":" retries "}]}}"

static void runs_that_were_not_recorded(void **state)
{
	(void)state;
	static const struct {
		const char *body, *name, *result;
		bool ended, may_retry;
	} rows[] = {{RUN("COMPLETED", "t_workflow", "t", "0", "0", "9007199254740993"), "t",
		     "9007199254740993", true, false},
		    {RUN("COMPLETED", "t_workflow", "t", "0", "0", "{\"t\":1.0}"), "t", "1.0", true, false},
		    {RUN("COMPLETED", "t_workflow", "t", "0", "0", "{\"t\":1.0,\"u\":2}"), "t",
		     "{\"t\":1.0,\"u\":2}", true, false},
		    {RUN("COMPLETED", "t_workflow", "u", "0", "0", "{\"u\":1.0}"), "t_workflow",
		     "{\"u\":1.0}", true, false},
		    {RUN("FAILED", "t", "t", "2", "1", "{}"), "t", NULL, true, true},
		    {RUN("FAILED", "t", "t", "2", "2", "{}"), "t", NULL, true, false},
		    /* The run is there before its task. */
		    {"{\"run\":{\"status\":\"COMPLETED\"},\"tasks\":[{\"actionId\":\"w:t\",\"status\":"
		     "\"RUNNING\",\"output\":{}}],"
		     "\"workflowConfig\":{\"Name\":\"w\",\"Tasks\":[{\"Action\":\"w:t\"}]}}",
		     "w", "{}", false, false}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(65536);
		struct hatchet_run run;
		assert_int_equal(hatchet_run_read(span_of(rows[i].body), &text, &run), 0);
		assert_span(run.result.task_name, rows[i].name);
		assert_span(run.result.result, rows[i].result);
		assert_int_equal(run.ended, rows[i].ended);
		assert_int_equal(run.may_retry, rows[i].may_retry);
	}
	static const char *const wrong[] = {
		"", "null", "{}", "\"COMPLETED\"", "{\"run\":{\"status\":\"DONE\"}}", "{\"run\":", "<html>"};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(65536);
		struct hatchet_run run;
		assert_true(hatchet_run_read(span_of(wrong[i]), &text, &run) < 0);
	}
}

static void errors_in_pieces(void **state)
{
	(void)state;
#define TAIL "\n\n\n{\"__hatchet_error_metadata__\": {\"task_run_external_id\": \"x\"}}"
#define TRACE "\nTraceback (most recent call last):\n  File \"w.py\", line 1\n"
	static const struct {
		const char *text, *message, *detail;
	} rows[] = {
		{"ValueError: a: b" TRACE "ValueError: a: b" TAIL, "a: b",
		 "ValueError: a: b" TRACE "ValueError: a: b"},
		{"pkg.mod.Odd_Error: x" TRACE TAIL, "x",
		 "pkg.mod.Odd_Error: x\nTraceback (most recent call last):\n  File \"w.py\", line 1"},
		{"KeyError: 'k'" TRACE, "KeyError: 'k'",
		 "KeyError: 'k'\nTraceback (most recent call last):\n  File \"w.py\", line 1"},
		{"KeyError" TRACE, "KeyError",
		 "KeyError\nTraceback (most recent call last):\n  File \"w.py\", line 1"},
		{"two words: x" TRACE, "two words: x",
		 "two words: x\nTraceback (most recent call last):\n  File \"w.py\", line 1"},
		{"E: a\\\nb" TRACE, "a\nb",
		 "E: a\\\nb\nTraceback (most recent call last):\n  File \"w.py\", line 1"},
		{"note: said by another SDK", "note: said by another SDK", ""},
		{"plain" TAIL, "plain", ""},
		{"", "", ""},
		{TAIL, "", ""},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(65536);
		size_t message, detail;
		hatchet_error_split(span_of(rows[i].text), &text, &message, &detail);
		assert_span((struct span){buf_span(&text).ptr, message}, rows[i].message);
		assert_span((struct span){buf_span(&text).ptr + message, detail}, rows[i].detail);
	}
}

static void time_limits_in_events(void **state)
{
	(void)state;
	static const struct {
		const char *recording, *sentence;
	} rows[] = {
		{"141-task-events-timeout-limit", "timed out: Task exceeded timeout of 2s"},
		{"142-task-events-sched-timeout-limit", "timed out waiting for a worker"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct recording r = recorded(rows[i].recording);
		CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
		assert_true(hatchet_events_read(r.body, &text));
		assert_span(buf_span(&text), rows[i].sentence);
		buf_release(&r.text);
	}
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(4096);
	assert_false(hatchet_events_read(SPAN_LIT("{\"rows\":[{\"eventType\":\"FAILED\"}]}"), &text));
	assert_false(hatchet_events_read(SPAN_LIT("null"), &text));
}

static void times(void **state)
{
	(void)state;
	assert_int_equal(hatchet_time_read(SPAN_LIT("\"2026-11-21T00:11:18.381717Z\"")),
			 INT64_C(1795219878381717));
	assert_int_equal(hatchet_time_read(SPAN_LIT("\"2026-11-21T00:11:19.437750415Z\"")),
			 INT64_C(1795219879437750));
	assert_int_equal(hatchet_time_read(SPAN_LIT("\"2026-11-21T00:13:15.3562Z\"")),
			 INT64_C(1795219995356200));
	assert_int_equal(hatchet_time_read(SPAN_LIT("\"2026-11-21T00:13:15Z\"")), INT64_C(1795219995000000));
	static const char *const unset[] = {"\"0001-01-01T00:00:00Z\"", "\"\"", "null", "7", "\"2026-11-21\"",
					    "\"2026-11-21T00:13:15\""};
	for (size_t i = 0; i < sizeof(unset) / sizeof(unset[0]); i++)
		assert_int_equal(hatchet_time_read(span_of(unset[i])), 0);
	assert_int_equal(hatchet_time_read(SPAN_NONE), 0);
}

/* --- the client ----------------------------------------------------------------------------------------- */

/* One connection at a time, each for one request; the answer is the first whose mark is in the request
 * line. */
struct engine {
	int fd;
	pthread_t thread;
	char url[64];
	struct {
		const char *mark;
		_Atomic(const char *) answer; /* NULL: closes; a test may change it between requests */
	} script[6];
	atomic_uint asked[6];
};

static void answer_one(struct engine *g, int c)
{
	char head[16384];
	size_t n = 0;
	ssize_t got;
	while (n < sizeof(head) - 1 && (got = read(c, head + n, sizeof(head) - 1 - n)) > 0) {
		n += (size_t)got;
		head[n] = '\0';
		const char *body = strstr(head, "\r\n\r\n"), *length = strcasestr(head, "content-length:");
		if (!body || n < (size_t)(body + 4 - head) + (length ? strtoul(length + 15, NULL, 10) : 0))
			continue;
		head[strcspn(head, "\r")] = '\0';
		for (size_t i = 0; i < 6 && g->script[i].mark; i++) {
			if (!strstr(head, g->script[i].mark))
				continue;
			atomic_fetch_add(&g->asked[i], 1);
			const char *answer = atomic_load(&g->script[i].answer);
			if (answer)
				assert_true(dprintf(c,
						    "HTTP/1.1 %.3s X\r\nContent-Length: %zu\r\nConnection: "
						    "close\r\n\r\n%s",
						    answer, strlen(answer + 4), answer + 4) > 0);
			return;
		}
		return;
	}
}

static void *serve(void *arg)
{
	struct engine *g = arg;
	int c;
	while ((c = accept(g->fd, NULL, NULL)) >= 0) {
		answer_one(g, c);
		close(c);
	}
	return NULL;
}

struct asking {
	struct loop *loop;
	struct task_options *settings;
	struct task_client *client;
	enum task_submit_status status;
	bool about_call;
	char id[TASK_ID_MAX];
	struct err err;
	int error, state; /* of a look: its status, -1 none */
	struct task_health health;
	struct task_check check;
};

static void engine_start(struct engine *g)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	g->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(g->fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(g->fd, 16), 0);
	assert_int_equal(getsockname(g->fd, (struct sockaddr *)&a, &n), 0);
	snprintf(g->url, sizeof(g->url), "http://127.0.0.1:%d", ntohs(a.sin_port));
	assert_int_equal(pthread_create(&g->thread, NULL, serve, g), 0);
}

static void engine_stop(struct engine *g)
{
	shutdown(g->fd, SHUT_RDWR);
	pthread_join(g->thread, NULL);
	close(g->fd);
}

static void asking_start(struct asking *a, const char *url)
{
	CLEANUP(buf_releasep) struct buf token = BUF_INIT(4096);
	struct err e = {""};
	make_token(&token, "{\"sub\":\"" TENANT "\"}");
	*a = (struct asking){0};
	assert_int_equal(loop_new(&a->loop), 0);
	assert_int_equal(make_settings(buf_span(&token), url, &a->settings, &e), 0);
	((struct hatchet_settings *)a->settings)->grace_ms = 150;
	assert_int_equal(task_client_new(a->settings, a->loop, &a->client, &e), 0);
}

static void asking_end(struct asking *a)
{
	task_client_free(a->client);
	task_options_free(a->settings);
	loop_free(a->loop);
}

static void on_submitted(void *arg, const struct task_submission *s)
{
	struct asking *a = arg;
	a->status = s->status;
	a->about_call = s->about_call;
	a->err = s->err;
	span_copy(s->task_id, a->id, sizeof(a->id));
	loop_stop(a->loop);
}

static void on_result(void *arg, int error, const struct task_result *r)
{
	struct asking *a = arg;
	assert_true(error != 0 || r->status == TASK_COMPLETED);
	a->error = error;
	loop_stop(a->loop);
}

static void on_cancelled(void *arg, int error, struct err *e)
{
	struct asking *a = arg;
	(void)e;
	a->error = error;
	loop_stop(a->loop);
}

static void on_health(void *arg, const struct task_health *h)
{
	struct asking *a = arg;
	a->health = *h;
	loop_stop(a->loop);
}

#define NAMES "200 {\"rows\":[{\"name\":\"t_workflow\"}]}"
#define TAKEN "200 {\"run\":{\"metadata\":{\"id\":\"run-1\"}}}"

static void outcomes_of_a_trigger(void **state)
{
	(void)state;
	static const struct {
		const char *names, *trigger;
		enum task_submit_status status;
		const char *id, *said;
		bool about_call;
	} rows[] = {{NAMES, TAKEN, TASK_SUBMITTED, "run-1", "", false},
		    {"200 {\"rows\":[{\"name\":\"at_workflow\"}]}", TAKEN, TASK_REFUSED, "ours",
		     "no workflow \"t_workflow\"", true},
		    {"403 null", TAKEN, TASK_REFUSED, "ours", "token not accepted", false},
		    {"500 {\"message\":\"down\"}", TAKEN, TASK_REFUSED, "ours", "status 500: down", false},
		    {NAMES, "403 null", TASK_REFUSED, "ours", "token not accepted", false},
		    {NAMES, "400 {\"errors\":[{\"description\":\"no\"}]}", TASK_REFUSED, "ours",
		     "status 400: no", true},
		    {NAMES, "415 {\"message\":\"no\"}", TASK_REFUSED, "ours", "status 415: no", false},
		    {NAMES, "413 null", TASK_INPUT_TOO_LARGE, "ours", "status 413", false}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct engine g = {.script = {{"/workflows?name=t_workflow&", rows[i].names},
					      {"/trigger ", rows[i].trigger}}};
		struct asking a;
		struct task_call call = {.task = SPAN_LIT("t"), .task_id = SPAN_LIT("ours")};
		engine_start(&g);
		asking_start(&a, g.url);
		task_submit(a.client, &call, on_submitted, &a);
		loop_run(a.loop);
		if (a.status != rows[i].status || strcmp(a.id, rows[i].id) != 0 ||
		    !strstr(a.err.text, rows[i].said))
			fail_msg("row %zu: %d %s %s", i, (int)a.status, a.id, a.err.text);
		assert_int_equal(a.about_call, rows[i].about_call);
		asking_end(&a);
		engine_stop(&g);
	}
}

/* Found by our own id in a later look; the trigger was written once. */
static void an_unanswered_trigger_is_looked_for(void **state)
{
	(void)state;
	struct engine g = {.script = {{"/workflows?", NAMES},
				      {"/trigger ", NULL},
				      {"additional_metadata=task_id:ours",
				       "200 {\"rows\":[{\"additionalMetadata\":{\"task_id\":\"ours\"},"
				       "\"workflowRunExternalId\":\"run-9\"}]}"}}};
	struct asking a;
	struct task_call call = {.task = SPAN_LIT("t"), .task_id = SPAN_LIT("ours")};
	engine_start(&g);
	asking_start(&a, g.url);
	task_submit(a.client, &call, on_submitted, &a);
	loop_run(a.loop);
	assert_int_equal(a.status, TASK_SUBMITTED);
	assert_string_equal(a.id, "run-9");
	assert_int_equal(atomic_load(&g.asked[1]), 1);
	asking_end(&a);
	engine_stop(&g);
}

static void ends_of_a_wait(void **state)
{
	(void)state;
	static const char done[] = "200 " RUN("COMPLETED", "t_workflow", "t", "0", "0", "{}");
	static const struct {
		const char *status, *run;
		int error;
	} rows[] = {{"200 \"COMPLETED\"\n", done, 0},
		    {"404 {\"message\":\"not found\"}", done, TASK_E_NOT_FOUND}, /* after its grace */
		    {"400 {\"message\":\"invalid workflow run id\"}", done, TASK_E_NOT_FOUND},
		    {"200 \"COMPLETED\"", "200 <html>", TASK_E_UNREADABLE},
		    {"200 \"FAILED\"", "200 {\"run\":{\"status\":\"DONE\"}}", TASK_E_UNREADABLE}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct engine g = {.script = {{"/run-1/status", rows[i].status}, {"/run-1 ", rows[i].run}}};
		struct asking a;
		engine_start(&g);
		asking_start(&a, g.url);
		assert_non_null(task_wait(a.client, SPAN_LIT("run-1"), on_result, &a));
		loop_run(a.loop);
		if (a.error != rows[i].error)
			fail_msg("row %zu: %d", i, a.error);
		asking_end(&a);
		engine_stop(&g);
	}
}

struct mending {
	struct engine *engine;
	struct loop_timer *timer;
	int script; /* which answer */
	const char *answer;
};

static void on_mending(void *arg)
{
	struct mending *m = arg;
	if (atomic_load(&m->engine->asked[m->script]) >= 2)
		atomic_store(&m->engine->script[m->script].answer, m->answer);
	else
		loop_timer_start(m->timer, 5);
}

/* What cannot be read, and what others answer for the engine, is asked again: the end is told once it can
 * be. */
static void only_an_end_ends_a_wait(void **state)
{
	(void)state;
	static const char done[] = "200 " RUN("COMPLETED", "t_workflow", "t", "0", "0", "{}");
	static const struct {
		const char *status, *run;
	} rows[] = {{"200 \"WHAT\"", done},
		    {"200 <html>", done},
		    {"200 ", done},
		    {"403 null", done},
		    {"500 null", done},
		    {"302 ", done},
		    {NULL, done},
		    {"200 \"COMPLETED\"", NULL},
		    {"200 \"COMPLETED\"", "200 <html>"},
		    {"200 \"COMPLETED\"", "403 null"},
		    {"200 \"COMPLETED\"", "503 <html>"},
		    {"200 \"COMPLETED\"", "200 {\"run\":"}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct engine g = {.script = {{"/run-1/status", rows[i].status}, {"/run-1 ", rows[i].run}}};
		struct asking a;
		struct mending m = {.engine = &g,
				    .script = rows[i].run != done,
				    .answer = rows[i].run != done ? done : "200 \"COMPLETED\""};
		engine_start(&g);
		asking_start(&a, g.url);
		a.error = -1;
		assert_int_equal(loop_timer_new(a.loop, on_mending, &m, &m.timer), 0);
		loop_timer_start(m.timer, 5);
		assert_non_null(task_wait(a.client, SPAN_LIT("run-1"), on_result, &a));
		loop_run(a.loop);
		if (a.error != 0)
			fail_msg("row %zu: %d", i, a.error);
		loop_timer_free(m.timer);
		asking_end(&a);
		engine_stop(&g);
	}
}

static void on_looked(void *arg, int error, const struct task_result *r)
{
	struct asking *a = arg;
	a->error = error;
	a->state = r ? (int)r->status : -1;
	loop_stop(a->loop);
}

/* A task that has ended is not said to be out of reach because its end cannot be read. */
static void a_look_at_what_cannot_be_read(void **state)
{
	(void)state;
	static const struct {
		const char *status, *run;
		int error, state;
	} rows[] = {{"200 \"COMPLETED\"", "200 <html>", TASK_E_UNREADABLE, -1},
		    {"200 \"CANCELLED\"", "200 {\"run\":{\"status\":\"DONE\"}}", TASK_E_UNREADABLE, -1},
		    {"200 \"RUNNING\"", "200 <html>", 0, TASK_RUNNING},
		    {"200 <html>", "200 <html>", TASK_E_UNREACHABLE, -1},
		    {"200 \"COMPLETED\"", "403 null", TASK_E_UNREACHABLE, -1}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct engine g = {.script = {{"/run-1/status", rows[i].status}, {"/run-1 ", rows[i].run}}};
		struct asking a;
		engine_start(&g);
		asking_start(&a, g.url);
		task_get(a.client, SPAN_LIT("run-1"), on_looked, &a);
		loop_run(a.loop);
		if (a.error != rows[i].error || a.state != rows[i].state)
			fail_msg("row %zu: %d %d", i, a.error, a.state);
		asking_end(&a);
		engine_stop(&g);
	}
}

static void waits_and_submissions_may_be_dropped(void **state)
{
	(void)state;
	struct engine g = {
		.script = {{"/status", "200 \"RUNNING\""}, {"/workflows?", NAMES}, {"/trigger ", NULL}}};
	struct asking a;
	struct task_call call = {.task = SPAN_LIT("t")};
	engine_start(&g);
	asking_start(&a, g.url);
	struct task_wait *w = task_wait(a.client, SPAN_LIT("run-1"), on_result, &a);
	assert_non_null(task_wait(a.client, SPAN_LIT("run-2"), on_result, &a));
	task_submit(a.client, &call, on_submitted, &a);
	task_health(a.client, on_health, &a); /* not scripted: it ends the loop */
	loop_run(a.loop);
	task_wait_cancel(w, a.client);
	task_get(a.client, SPAN_LIT("run-3"), on_result, &a);
	task_cancel(a.client, SPAN_LIT("run-3"), on_cancelled, &a);
	asking_end(&a); /* with the rest under way */
	engine_stop(&g);
}

static void a_cancel_and_health(void **state)
{
	(void)state;
	struct engine g = {.script = {{"/tasks/cancel", "200 {\"ids\":[\"run-1\"]}"},
				      {"/api/ready", "200 "},
				      {"/worker?statuses=ACTIVE",
				       "200 {\"rows\":[{\"status\":\"ACTIVE\",\"actions\":[\"t:t\"]}]}"},
				      {"/step-run-queue-metrics", "200 {\"queues\":{\"a\":3,\"b\":4}}"}}};
	struct asking a;
	engine_start(&g);
	asking_start(&a, g.url);
	task_cancel(a.client, SPAN_LIT("run-1"), on_cancelled, &a);
	loop_run(a.loop);
	assert_int_equal(a.error, 0);
	task_health(a.client, on_health, &a);
	loop_run(a.loop);
	assert_true(a.health.reachable && a.health.worker);
	assert_int_equal(a.health.backlog, 7);
	g.script[0].answer = "400 {\"message\":\"invalid UUID length: 4\"}";
	g.script[2].answer = "200 {\"rows\":[]}";
	task_cancel(a.client, SPAN_LIT("nope"), on_cancelled, &a);
	loop_run(a.loop);
	assert_int_equal(a.error, TASK_E_NOT_FOUND);
	task_health(a.client, on_health, &a);
	loop_run(a.loop);
	assert_true(a.health.reachable && !a.health.worker);
	assert_string_equal(a.health.detail, "no worker is active");
	engine_stop(&g);
	task_cancel(a.client, SPAN_LIT("run-1"), on_cancelled, &a);
	loop_run(a.loop);
	assert_int_equal(a.error, TASK_E_UNREACHABLE);
	task_health(a.client, on_health, &a);
	loop_run(a.loop);
	assert_false(a.health.reachable || a.health.worker);
	asking_end(&a);
}

static void on_check(void *arg, const struct task_check *k)
{
	struct asking *a = arg;
	a->check = *k;
	loop_stop(a->loop);
}

static void what_a_check_finds(void **state)
{
	(void)state;
	static const char active[] =
		"200 {\"rows\":[{\"status\":\"ACTIVE\",\"actions\":[\"t_workflow:t\"]}]}";
	static const struct {
		const char *ready, *names, *workers;
		bool reachable;
		enum task_answer known, worker;
		const char *missing;
	} rows[] = {
		{"200 ", NAMES, active, true, TASK_ANSWER_YES, TASK_ANSWER_YES, ""},
		{"200 ", "200 {\"rows\":[{\"name\":\"t_workflow2\"}]}", "200 {\"rows\":[]}", true,
		 TASK_ANSWER_NO, TASK_ANSWER_NO, "no workflow \"t_workflow\""},
		{"200 ", NAMES, "200 {\"rows\":[]}", true, TASK_ANSWER_YES, TASK_ANSWER_NO,
		 "no active worker serves the workflow t_workflow"},
		{"200 ", "403 null", active, false, TASK_ANSWER_UNKNOWN, TASK_ANSWER_UNKNOWN,
		 "token not accepted"},
		{"500 null", NAMES, active, false, TASK_ANSWER_UNKNOWN, TASK_ANSWER_UNKNOWN, "status 500"}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct engine g = {.script = {{"/api/ready", rows[i].ready},
					      {"/workflows?name=t_workflow&", rows[i].names},
					      {"/worker?statuses=ACTIVE", rows[i].workers}}};
		struct asking a;
		const struct task_probe probe = {.task = SPAN_LIT("t")};
		engine_start(&g);
		asking_start(&a, g.url);
		task_check(a.client, &probe, on_check, &a);
		loop_run(a.loop);
		if (a.check.reachable != rows[i].reachable || a.check.known != rows[i].known ||
		    a.check.worker != rows[i].worker || !strstr(a.check.missing, rows[i].missing) ||
		    (a.check.missing[0] && !rows[i].missing[0]))
			fail_msg("row %zu: %d %d %d %s", i, a.check.reachable, (int)a.check.known,
				 (int)a.check.worker, a.check.missing);
		asking_end(&a);
		engine_stop(&g);
	}
}

static void a_failure_to_reach_a_worker_is_no_end_while_tries_are_left(void **state)
{
	(void)state;
	for (int tries = 5; tries <= 10; tries += 5) {
		CLEANUP(buf_releasep) struct buf body = BUF_INIT(4096), text = BUF_INIT(4096);
		struct hatchet_run run;
		buf_printf(&body,
			   "{\"run\":{\"status\":\"FAILED\"},\"tasks\":[{\"actionId\":\"t_workflow:t\","
			   "\"status\":\"FAILED\",\"errorMessage\":\"Could not send task to worker. This\","
			   "\"retryCount\":%d}],\"workflowConfig\":{\"Name\":\"t_workflow\",\"Tasks\":[]}}",
			   tries);
		assert_int_equal(hatchet_run_read(buf_span(&body), &text, &run), 0);
		assert_int_equal(run.ended, tries == 10);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_failure_to_reach_a_worker_is_no_end_while_tries_are_left),
		cmocka_unit_test(the_claims_of_a_token),
		cmocka_unit_test(tokens_that_are_none),
		cmocka_unit_test(settings_of_a_token),
		cmocka_unit_test(the_body_of_a_trigger),
		cmocka_unit_test(integers_that_the_engine_would_round),
		cmocka_unit_test(names_of_workflows),
		cmocka_unit_test(ids_of_runs),
		cmocka_unit_test(problems),
		cmocka_unit_test(workers_and_backlog),
		cmocka_unit_test(recorded_runs),
		cmocka_unit_test(outputs_by_task),
		cmocka_unit_test(details_of_a_failure),
		cmocka_unit_test(runs_that_were_not_recorded),
		cmocka_unit_test(errors_in_pieces),
		cmocka_unit_test(time_limits_in_events),
		cmocka_unit_test(times),
		cmocka_unit_test(outcomes_of_a_trigger),
		cmocka_unit_test(an_unanswered_trigger_is_looked_for),
		cmocka_unit_test(ends_of_a_wait),
		cmocka_unit_test(only_an_end_ends_a_wait),
		cmocka_unit_test(a_look_at_what_cannot_be_read),
		cmocka_unit_test(waits_and_submissions_may_be_dropped),
		cmocka_unit_test(a_cancel_and_health),
		cmocka_unit_test(what_a_check_finds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
