/*
 * A program as a handler: the call on its standard input, the result on its standard output, what went wrong
 * on standard error.
 *
 * At the time limit its whole process group, and what has left that but still descends from it, get SIGKILL
 * at once: it had its time, and a handler that wants to tidy up can keep a limit of its own below.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "tasks/python_text.h"
#include "tasks/worker/call_template.h"
#include "tasks/worker/document.h"
#include "tasks/worker/handler.h"
#include "tasks/worker/spawn.h"

#define STDERR_KEPT 16384
#define PIECE 65536
#define EXIT_AGAIN 75 /* EX_TEMPFAIL of sysexits.h */

struct exec_run {
	struct handler_run run;
	const struct task_definition *t;
	const struct exec_handler *x;
	struct spawned s;
	struct loop_watch *in, *out, *err, *end;
	struct buf input, output;
	size_t written;
	char tail[STDERR_KEPT]; /* last bytes of standard error */
	size_t tail_len;
	bool tail_cut; /* more stood before */
	bool too_large;
};

static void close_pipe(struct loop_watch **w, int *fd)
{
	*w = loop_watch_free(*w);
	if (*fd >= 0)
		close(steal_fd(fd));
}

static void handler_exec_run_free(struct exec_run *r)
{
	close_pipe(&r->in, &r->s.in);
	close_pipe(&r->out, &r->s.out);
	close_pipe(&r->err, &r->s.err);
	r->end = loop_watch_free(r->end);
	buf_release(&r->input);
	buf_release(&r->output);
	free(r);
}

/* --- pipes ---------------------------------------------------------------------------------------------- */

static void handler_exec_on_writable(void *arg, unsigned events)
{
	struct exec_run *r = arg;
	(void)events;
	while (r->written < r->input.len) {
		ssize_t n = write(r->s.in, r->input.ptr + r->written, r->input.len - r->written);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0 && errno != EINTR)
			break; /* it does not want to read all: its right */
		r->written += n > 0 ? (size_t)n : 0;
	}
	close_pipe(&r->in, &r->s.in);
}

static void on_output(void *arg, unsigned events)
{
	struct exec_run *r = arg;
	char piece[PIECE];
	(void)events;
	for (;;) {
		ssize_t n = read(r->s.out, piece, sizeof(piece));
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0 && !(n < 0 && errno == EINTR))
			break;
		if (n > 0 && buf_append(&r->output, piece, (size_t)n) < 0) {
			r->too_large = true;
			spawned_kill(&r->s);
			break;
		}
	}
	close_pipe(&r->out, &r->s.out);
}

static void keep_tail(struct exec_run *r, const char *bytes, size_t n)
{
	if (n > STDERR_KEPT) {
		r->tail_cut = true;
		bytes += n - STDERR_KEPT;
		n = STDERR_KEPT;
	}
	size_t drop = r->tail_len + n > STDERR_KEPT ? r->tail_len + n - STDERR_KEPT : 0;
	r->tail_cut |= drop > 0;
	memmove(r->tail, r->tail + drop, r->tail_len - drop);
	memcpy(r->tail + r->tail_len - drop, bytes, n);
	r->tail_len = r->tail_len - drop + n;
}

static void on_error_output(void *arg, unsigned events)
{
	struct exec_run *r = arg;
	char piece[STDERR_KEPT];
	(void)events;
	for (;;) {
		ssize_t n = read(r->s.err, piece, sizeof(piece));
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0 && !(n < 0 && errno == EINTR))
			break;
		if (n > 0)
			keep_tail(r, piece, (size_t)n);
	}
	close_pipe(&r->err, &r->s.err);
}

/* --- the end -------------------------------------------------------------------------------------------- */

/* What is kept of standard error. A half of a secret would not be found: it is left out where the front was
 * cut off. */
static struct span said(const struct exec_run *r)
{
	struct span tail = {r->tail, r->tail_len};
	return r->tail_cut ? secrets_skip_end(&r->t->secrets, tail) : tail;
}

/* For operators: what became of it, and what it said. */
static void handler_exec_put_detail(const struct exec_run *r, const char *what, struct buf *out)
{
	struct span tail = said(r);
	buf_printf(out, "%.200s: %s", r->x->argv[0], what);
	if (tail.len) {
		buf_putc(out, '\n');
		buf_append_span(out, tail);
	}
}

/* Callers are told the message of a Python program's exception, which is the task's own error, as on the
 * other backends. What else is on standard error is for operators. */
static void fail_with_code(struct exec_run *r, int code)
{
	CLEANUP(buf_releasep) struct buf detail = BUF_INIT(2 * STDERR_KEPT);
	char what[64];
	snprintf(what, sizeof(what), "exit code %d", code);
	handler_exec_put_detail(r, what, &detail);
	struct span raised = python_raised(said(r));
	r->run.retry = code == EXIT_AGAIN;
	if (raised.ptr)
		handler_fail(&r->run, false, raised, buf_span(&detail));
	else
		handler_fail_as(&r->run, false, r->t, buf_span(&detail), "%s", what);
}

static void fail_with_status(struct exec_run *r, int status)
{
	CLEANUP(buf_releasep) struct buf detail = BUF_INIT(2 * STDERR_KEPT);
	char what[128];
	if (r->too_large)
		snprintf(what, sizeof(what), "its output exceeds %zu bytes", r->x->max_output);
	else if (WIFSIGNALED(status))
		snprintf(what, sizeof(what), "ended by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	if (r->too_large || WIFSIGNALED(status)) {
		handler_exec_put_detail(r, what, &detail);
		handler_fail_as(&r->run, !r->too_large, r->t, buf_span(&detail), "%s", what);
	} else {
		fail_with_code(r, WEXITSTATUS(status));
	}
}

static void succeed(struct exec_run *r)
{
	CLEANUP(buf_releasep) struct buf quoted = BUF_INIT(HANDLER_MAX_RESULT);
	/* The line end after JSON is the program's, not the result's. */
	struct handler_outcome o = {.result = span_strip(buf_span(&r->output))};
	struct err why = {""};
	if (r->x->stdout_text) {
		if (json_quote(&quoted, buf_span(&r->output)) < 0) {
			handler_fail_as(&r->run, false, r->t, SPAN_NONE, "its output is too large as JSON");
			return;
		}
		o.result = buf_span(&quoted);
	} else if (json_validate(o.result, &why) < 0) {
		CLEANUP(buf_releasep) struct buf detail = BUF_INIT(2 * STDERR_KEPT);
		char what[sizeof(why.text) + 64];
		snprintf(what, sizeof(what), "invalid JSON on its standard output: %s", why.text);
		handler_exec_put_detail(r, what, &detail);
		handler_fail_as(&r->run, false, r->t, buf_span(&detail),
				"invalid JSON on its standard output");
		return;
	}
	r->run.done(r->run.arg, &o);
}

static void handler_exec_on_end(void *arg, unsigned events)
{
	struct exec_run *r = arg;
	int status = 0;
	(void)events;
	if (!spawned_ended(&r->s))
		return;
	r->end = loop_watch_free(r->end);
	/* What it wrote before its end is in the pipes by now; output of children it left behind is not
	 * wanted. */
	if (r->s.out >= 0)
		on_output(r, LOOP_READ);
	if (r->s.err >= 0)
		on_error_output(r, LOOP_READ);
	spawned_reap(&r->s, &status);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && !r->too_large)
		succeed(r);
	else
		fail_with_status(r, status);
	handler_exec_run_free(r);
}

static void handler_exec_kill_run(struct handler_run *run)
{
	spawned_kill(&((struct exec_run *)run)->s);
}

/* The program alone: it knows what it has started. */
static void handler_exec_ask_run(struct handler_run *run)
{
	const struct exec_run *r = (struct exec_run *)run;
	if (!spawned_ended(&r->s))
		kill(r->s.pid, SIGTERM);
}

/* --- begin ---------------------------------------------------------------------------------------------- */

static void handler_exec_put_call(const struct handler_call *c, struct buf *out)
{
	buf_puts(out, "{\"task_id\":");
	json_quote(out, c->task_id);
	buf_puts(out, ",\"task_name\":");
	json_quote(out, c->name);
	buf_puts(out, ",\"args\":");
	buf_append_span(out, c->args);
	buf_puts(out, ",\"kwargs\":");
	buf_append_span(out, c->kwargs);
	if (c->shadow)
		buf_puts(out, ",\"shadow\":true");
	buf_printf(out, ",\"attempt\":%u}\n", c->attempt);
}

/* Callers are told no more than that it cannot be had: what else there is on this machine is none of their
 * business. */
static int handler_exec_open_file(const struct exec_handler *x, const struct handler_call *c,
				  struct span value, int *ret, struct err *e)
{
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(PATH_MAX);
	struct err why = {""};
	if (!*x->folder)
		return err_set(e, -EINVAL, "%.*s: no folder of documents is configured",
			       SPAN_ARG(x->file_source));
	int r = json_type_of(value) == JSON_STRING ? json_unescape(value, &path) : -EINVAL;
	if (r == 0)
		r = document_open(x->folder, buf_span(&path), ret, &why);
	if (r == -EIO)
		return err_set(e, r, "%s", why.text);
	if (r == 0)
		return 0;
	log_info("document_refused", LOG_SPAN("task", c->name), LOG_SPAN("task_id", c->task_id),
		 LOG_SPAN("path", buf_span(&path)), LOG_STR("folder", x->folder),
		 LOG_STR("reason", why.text));
	return err_set(e, -EINVAL, "%.*s: there is no such document", SPAN_ARG(x->file_source));
}

static bool handler_exec_is_given(const struct handler_call *c, struct span source, struct span *ret)
{
	return source.ptr && call_value(c, source, ret) && json_type_of(*ret) != JSON_NULL;
}

/* What goes down the pipe, or the file in its place. */
static int handler_exec_make_input(const struct exec_handler *x, const struct handler_call *c,
				   struct buf *out, int *file, struct err *e)
{
	struct span value;
	if (x->stdin_kind == EXEC_STDIN_JSON) {
		handler_exec_put_call(c, out);
		return out->error;
	}
	bool whole = handler_exec_is_given(c, x->stdin_source, &value);
	if (handler_exec_is_given(c, x->file_source, &value)) {
		if (whole)
			return err_set(e, -EINVAL, "the call has both %.*s and %.*s",
				       SPAN_ARG(x->stdin_source), SPAN_ARG(x->file_source));
		return handler_exec_open_file(x, c, value, file, e);
	}
	if (!whole && x->stdin_kind == EXEC_STDIN_FILE)
		return err_set(e, -EINVAL, "the call has no string at %.*s", SPAN_ARG(x->file_source));
	if (!whole && x->file_source.ptr)
		return err_set(e, -EINVAL, "the call has no string at %.*s, nor at %.*s",
			       SPAN_ARG(x->stdin_source), SPAN_ARG(x->file_source));
	if (!call_value(c, x->stdin_source, &value) || json_type_of(value) != JSON_STRING)
		return err_set(e, -EINVAL, "the call has no string at %.*s", SPAN_ARG(x->stdin_source));
	if (x->stdin_kind == EXEC_STDIN_TEXT)
		return json_unescape(value, out);
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(HANDLER_MAX_RESULT);
	int r = json_unescape(value, &text);
	if (r == 0 && base64_decode(buf_span(&text), out) < 0)
		return err_set(e, -EINVAL, "%.*s is not base64", SPAN_ARG(x->stdin_source));
	return r;
}

static int watch(const struct handler_env *env, struct exec_run *r)
{
	int code = loop_watch_new(env->loop, r->s.out, LOOP_READ, on_output, r, &r->out);
	if (code == 0)
		code = loop_watch_new(env->loop, r->s.err, LOOP_READ, on_error_output, r, &r->err);
	if (code == 0 && r->s.in >= 0)
		code = loop_watch_new(env->loop, r->s.in, LOOP_WRITE, handler_exec_on_writable, r, &r->in);
	if (code == 0)
		code = loop_watch_new(env->loop, r->s.pidfd, LOOP_READ, handler_exec_on_end, r, &r->end);
	return code;
}

static bool handler_exec_has_variable(const struct exec_handler *x, const char *name)
{
	size_t n = strlen(name);
	for (size_t i = 0; x->env[i]; i++)
		if (strncmp(x->env[i], name, n) == 0 && x->env[i][n] == '=')
			return true;
	return false;
}

/* With the call's trace context in its environment, where the definition does not set it itself. */
static int handler_exec_spawn(const struct exec_handler *x, const struct handler_call *c, int file,
			      struct spawned *ret, struct err *e)
{
	char *env[REGISTRY_MAX_ENV + 4];
	char parent[sizeof("TRACEPARENT=") + TASK_TRACE_PARENT];
	char state[sizeof("TRACESTATE=") + TASK_TRACE_STATE_MAX];
	size_t n = 0;
	while (x->env[n]) {
		env[n] = x->env[n];
		n++;
	}
	if (c->traceparent.len && !handler_exec_has_variable(x, "TRACEPARENT")) {
		snprintf(parent, sizeof(parent), "TRACEPARENT=%.*s", SPAN_ARG(c->traceparent));
		snprintf(state, sizeof(state), "TRACESTATE=%.*s", SPAN_ARG(c->tracestate));
		env[n++] = parent;
		if (c->tracestate.len)
			env[n++] = state;
	}
	env[n] = NULL;
	return not_of_the_call(spawn(x->argv, env, file, ret, e));
}

int handler_start_exec(const struct handler_env *env, const struct task_definition *t,
		       const struct handler_call *call, handler_done_fn done, void *arg,
		       struct handler_run **ret, struct err *e)
{
	struct exec_run *r = calloc(1, sizeof(*r));
	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	r->run = (struct handler_run){
		.kill = handler_exec_kill_run, .ask = handler_exec_ask_run, .done = done, .arg = arg};
	r->t = t;
	r->x = t->exec;
	r->s = (struct spawned){.in = -1, .out = -1, .err = -1, .pidfd = -1};
	buf_init(&r->input, 2 * HANDLER_MAX_RESULT);
	buf_init(&r->output, t->exec->max_output);
	CLEANUP(closep) int file = -1;
	int code = handler_exec_make_input(t->exec, call, &r->input, &file, e);
	if (code == 0)
		code = handler_exec_spawn(t->exec, call, file, &r->s, e);
	if (code == 0 && (code = watch(env, r)) < 0) {
		int status;
		spawned_reap(&r->s, &status);
		err_set(e, code, "%s: cannot be watched: %s", t->exec->argv[0], strerror(-code));
	}
	if (code < 0) {
		handler_exec_run_free(r);
		return code;
	}
	*ret = &r->run;
	return 0;
}
