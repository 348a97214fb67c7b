/*
 * Handlers: what runs one attempt of a task, in the worker: C code on a thread, a program, or a call of a
 *           URL.
 *
 * Why:       the worker leases, keeps time and writes down; how a task is run is behind these three
 *            calls.
 * Threads:   everything on the worker's loop.
 * Ownership: the call is copied. A run belongs to its handler and is gone when `done` returns.
 */
#ifndef TASKS_WORKER_HANDLER_H
#define TASKS_WORKER_HANDLER_H

#include <errno.h>

#include "base/err.h"
#include "base/http_client.h"
#include "base/loop.h"
#include "tasks/task_backend.h"
#include "tasks/worker/registry.h"

#define HANDLER_MAX_RESULT (64u << 20)

struct handler_call {
	struct span task_id, name, args, kwargs; /* args and kwargs: valid JSON array and object */
	struct span answer; /* of an http handler's server, for its `result`; else SPAN_NONE */
	bool shadow;	    /* nobody waits for what it does */
	struct span traceparent, tracestate; /* W3C trace context; empty: none */
	unsigned attempt;
	unsigned timeout_ms;
};

struct handler_outcome {
	struct span result; /* valid JSON, or SPAN_NONE when it failed */
	/* when it failed, for callers: the task's own message, or the task's name and the kind of failure
	 * */
	struct span error;
	struct span detail; /* for operators: where, how, what others said */
	/* when it failed: it asks to be run again, after so long (0: the backend's own delay); a program
	 * by exit code 75 (EX_TEMPFAIL), a server by 429 or 503 with Retry-After. Backends without
	 * retries fail it. */
	bool retry;
	unsigned retry_after_ms;
	bool unknown; /* it began, and whether it took effect cannot be known from here */
};
typedef void (*handler_done_fn)(void *arg, const struct handler_outcome *o);

struct handler_env {
	struct loop *loop;
	struct http_client *http;
};

struct handler_run {
	void (*kill)(struct handler_run *run);
	/* asks it to end in its own way; NULL: it cannot be asked, and is killed */
	void (*ask)(struct handler_run *run);
	handler_done_fn done;
	void *arg;
	bool retry; /* of the outcome, when it fails */
	unsigned retry_after_ms;
};

/* done is called once, later. <0: it could not be begun, with a sentence for operators (-EINVAL: about
 * the call, for callers too); done is not called then. */
int handler_start(const struct handler_env *env, const struct task_definition *t,
		  const struct handler_call *call, handler_done_fn done, void *arg, struct handler_run **ret,
		  struct err *e);
/* For what names places rather than the call: no code of handler_start that callers see about. */
static inline int not_of_the_call(int code)
{
	return code == -EINVAL ? -EIO : code;
}
/* Ends it as soon as can be; done still comes, perhaps with a result. May be called again. */
void handler_kill(struct handler_run *run);

/* Asks it to end soon: a program gets SIGTERM. */
void handler_ask(struct handler_run *run);

/* Appends what a program or a server said, fit for files and people: without the secrets that its
 * definition gave it, nor what looks like one, and without control characters but line ends. */
void handler_put_told(const struct task_definition *t, struct span said, struct buf *out);

/* The three kinds. */
int handler_start_builtin(const struct handler_env *env, const struct task_definition *t,
			  const struct handler_call *call, handler_done_fn done, void *arg,
			  struct handler_run **ret, struct err *e);
int handler_start_exec(const struct handler_env *env, const struct task_definition *t,
		       const struct handler_call *call, handler_done_fn done, void *arg,
		       struct handler_run **ret, struct err *e);
int handler_start_http(const struct handler_env *env, const struct task_definition *t,
		       const struct handler_call *call, handler_done_fn done, void *arg,
		       struct handler_run **ret, struct err *e);

/* done with a failure. `error` is for callers and must not say where or how the task was called, nor what
 * was answered there; the rest is for operators. The task's secrets are taken out of both by the worker.
 * */
void handler_fail(struct handler_run *run, bool unknown, struct span error, struct span detail);
/* Formats `error` of it: "<task>: …". */
void handler_fail_as(struct handler_run *run, bool unknown, const struct task_definition *t,
		     struct span detail, const char *format, ...) __attribute__((format(printf, 5, 6)));

#endif
