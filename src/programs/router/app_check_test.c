/*
 * check FILE --test: one task with the input that a request would give it, and the answer that its caller
 * would get. Header fields, query and path segments are absent, as in a request without them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "programs/router/app_check.h"
#include "router/problem.h"
#include "tasks/blocking.h"

#define INPUT_MAX (64u << 20)

struct test {
	const struct config *config;
	const struct operation *op;
	struct buf body, args, kwargs;
	struct template_source source;
	char uuid[CRYPTO_UUID], request_id[CRYPTO_UUID];
};

static struct span no_field(void *arg, struct span name)
{
	(void)arg;
	(void)name;
	return SPAN_NONE;
}

static bool no_part(void *arg, struct span name, struct buf *decoded)
{
	(void)arg;
	(void)name;
	(void)decoded;
	return false;
}

/* --- the request ---------------------------------------------------------------------------------------- */

static const struct operation *find_operation(const struct config *c, const char *name)
{
	const char *dot = strchr(name, '.');
	const struct service *s = dot ? config_service(c, (struct span){name, (size_t)(dot - name)}) : NULL;
	const struct operation *op = s ? service_operation(s, span_of(dot + 1)) : NULL;
	if (op && op->has_task)
		return op;
	fprintf(stderr, "--test: %s %s; available:", name,
		op ? "has no task" : "is not an operation (SERVICE.OPERATION)");
	for (size_t i = 0; i < c->n_services; i++)
		for (size_t j = 0; j < c->services[i].n_operations; j++)
			if (c->services[i].operations[j].has_task)
				fprintf(stderr, " %.*s.%.*s", SPAN_ARG(c->services[i].name),
					SPAN_ARG(c->services[i].operations[j].name));
	fputc('\n', stderr);
	return NULL;
}

static bool app_check_test_read_body(struct test *t, const char *given)
{
	struct err e = {""};
	if (given && given[0] == '@') {
		if (file_read(given + 1, INPUT_MAX, &t->body, &e) < 0) {
			fprintf(stderr, "--body: %s\n", e.text);
			return false;
		}
	} else if (given) {
		buf_puts(&t->body, given);
	}
	if (t->body.len && json_validate(buf_span(&t->body), NULL) != 0) {
		fprintf(stderr, "--body: is not valid JSON\n");
		return false;
	}
	return true;
}

static bool app_check_test_render_input(struct test *t, const struct app_check *how)
{
	const struct task_mapping *m = &t->op->task;
	crypto_uuid4(t->uuid);
	crypto_uuid4(t->request_id);
	t->source = (struct template_source){
		.body = t->body.len ? buf_span(&t->body) : SPAN_NONE,
		.header = no_field,
		.query = no_part,
		.path = no_part,
		.user = span_of(how->user),
		.organization = span_of(how->organization),
		.uuid = span_of(t->uuid),
		.request_id = span_of(t->request_id),
	};
	int e = m->args ? template_render(m->args, &t->source, &t->args) : buf_puts(&t->args, "[]");
	if (e == 0)
		e = m->kwargs ? template_render(m->kwargs, &t->source, &t->kwargs)
			      : buf_puts(&t->kwargs, "{}");
	if (e != 0)
		fprintf(stderr, "the task's input could not be rendered\n");
	return e == 0;
}

/* --- the answer ----------------------------------------------------------------------------------------- */

static int print_answer(int status, struct span content_type, struct span body)
{
	printf("answer     %d %.*s\n%.*s\n", status, SPAN_ARG(content_type), SPAN_ARG(body));
	return status < 400 ? 0 : 1;
}

static int print_rendered(const struct rendered_response *r, struct span body)
{
	for (size_t i = 0; i < r->n_headers; i++)
		printf("field      %.*s: %.*s\n", SPAN_ARG(r->headers[i].name),
		       SPAN_ARG(r->headers[i].value));
	return print_answer(r->status, r->content_type, body);
}

/* As request_fail: the operation's template, else problem details. */
static int app_check_test_print_error(struct test *t, int status, const char *title, struct span detail,
				      struct span task_id)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(INPUT_MAX);
	struct rendered_response rendered;
	t->source.error_status = status;
	t->source.error_title = span_of(title);
	t->source.error_detail = detail;
	if (t->op->error && response_template_render(t->op->error, &t->source, &rendered, &body) == 0)
		return print_rendered(&rendered, buf_span(&body));
	buf_clear(&body);
	const struct problem_member task = {.name = "task_id", .value = task_id};
	const struct problem p = {.status = status,
				  .title = title,
				  .detail = detail,
				  .instance = span_of(t->request_id),
				  .members = &task,
				  .n_members = task_id.len ? 1 : 0};
	problem_render(&p, &body);
	return print_answer(status, SPAN_LIT(PROBLEM_CONTENT_TYPE), buf_span(&body));
}

/* Both texts of an error, on a terminal. */
static void print_for_people(const struct task_result *r, int64_t ms)
{
	CLEANUP(buf_releasep) struct buf masked = BUF_INIT(4 * TEXT_MASKED_MAX);
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(16 * TEXT_MASKED_MAX);
	printf("task id    %.*s\nstatus     %s after %lld ms\n", SPAN_ARG(r->task_id),
	       task_status_text(r->status), (long long)ms);
	if (r->status == TASK_COMPLETED) {
		printf("result     %.*s\n", SPAN_ARG(r->result));
		return;
	}
	text_put_masked(&masked, r->error);
	if (r->error_detail.len) {
		buf_putc(&masked, '\n');
		text_put_masked(&masked, r->error_detail);
	}
	text_put_lines(&text, buf_span(&masked));
	printf("error      %.*s\n", SPAN_ARG(buf_span(&text)));
}

static int app_check_test_print_result(struct test *t, const struct task_result *told, int64_t ms)
{
	CLEANUP(buf_releasep) struct buf room = BUF_INIT(2 * TEXT_MASKED_MAX);
	struct task_result public;
	const struct task_result *r = &public;
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(INPUT_MAX * 2);
	struct rendered_response rendered;
	print_for_people(told, ms);
	task_result_for_callers(told, &room, &public);
	if (r->status == TASK_FAILED && t->op->task.idempotent && !r->cancelled) {
		printf("answer     legacy's: the operation is idempotent and falls back\n");
		return 1;
	}
	t->source.result = r->result;
	t->source.task_id = r->task_id;
	t->source.task_status = span_of(task_status_text(r->status));
	t->source.task_error = r->error;
	if (t->op->task.response &&
	    response_template_render(t->op->task.response, &t->source, &rendered, &body) == 0)
		return print_rendered(&rendered, buf_span(&body));
	if (r->status == TASK_FAILED)
		return app_check_test_print_error(t, 500, "Task failed",
						  r->error.len ? r->error : SPAN_LIT("The task failed."),
						  r->task_id);
	return print_answer(200, SPAN_LIT("application/json"), r->result);
}

/* --- running -------------------------------------------------------------------------------------------- */

static const struct plane_backend *app_check_test_find_backend(const struct app *a,
							       const struct operation *op)
{
	struct span name = op->task.backend.ptr ? op->task.backend : a->config->default_backend;
	for (size_t i = 0; i < a->env.n_backends; i++)
		if (span_eq(a->env.backends[i].name, name))
			return &a->env.backends[i];
	return NULL;
}

static int run_task(struct test *t, const struct plane_backend *b)
{
	const struct task_mapping *m = &t->op->task;
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(INPUT_MAX * 2);
	struct task_result result;
	struct err e = {""};
	const struct task_call call = {
		.task = m->task,
		.workflow = m->workflow,
		.queue = m->queue,
		.args = buf_span(&t->args),
		.kwargs = buf_span(&t->kwargs),
		.single_input = m->single_input,
		.request_id = span_of(t->request_id),
		.idempotent = m->idempotent,
		.timeout_ms = m->task_timeout_ms,
		.priority = m->priority,
		.expires_ms = m->expires_ms,
	};
	printf("operation  %.*s.%.*s\n%-9s  %.*s on %.*s\ninput      %.*s %.*s\n", SPAN_ARG(t->op->service),
	       SPAN_ARG(t->op->name), m->workflow ? "workflow" : "task", SPAN_ARG(m->task), SPAN_ARG(b->name),
	       SPAN_ARG(call.args), SPAN_ARG(call.kwargs));
	fflush(stdout);
	int64_t began = clock_mono_ms();
	int r = task_run_blocking(b->options, &call, m->timeout_ms, &text, &result, &e);
	if (r == 0)
		return app_check_test_print_result(t, &result, clock_mono_ms() - began);
	if (r == -ECONNREFUSED) {
		printf("refused    %s\nanswer     legacy's: nothing was accepted\n", e.text);
		return 1;
	}
	printf("%-9s  %s\n", r == -ETIMEDOUT ? "timeout" : "unknown", e.text);
	return app_check_test_print_error(t, 504, r == -ETIMEDOUT ? "Task still running" : "Result unknown",
					  span_of(e.text), r == -ETIMEDOUT ? buf_span(&text) : SPAN_NONE);
}

int app_check_test(struct app *a, const struct app_check *how)
{
	struct test t = {.config = a->config, .op = find_operation(a->config, how->test)};
	if (!t.op)
		return 2;
	const struct plane_backend *b = app_check_test_find_backend(a, t.op);
	buf_init(&t.body, INPUT_MAX + (128u << 10));
	buf_init(&t.args, INPUT_MAX * 2);
	buf_init(&t.kwargs, INPUT_MAX * 2);
	int code = 2;
	if (b && app_check_test_read_body(&t, how->body) && app_check_test_render_input(&t, how))
		code = run_task(&t, b);
	buf_release(&t.body);
	buf_release(&t.args);
	buf_release(&t.kwargs);
	return code;
}
