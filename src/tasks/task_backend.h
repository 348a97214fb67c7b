/*
 * The task abstraction: register tasks, submit calls, get results, run workers, on any backend.
 *
 * Why:       "one variable switches the backend". A caller of this header cannot tell which queue runs its
 *            tasks. Retries, dead letters and persistence stay in the backend (design, rule 7).
 * Threads:   a task_client belongs to one loop. Everything is asynchronous; nothing blocks on the loop's
 *            thread.
 * Ownership: see each function. Results borrow until the callback returns.
 * Errors:    the outcome of a submission is one of task_submit_status; "written, no reply" is its own and is
 *            never quietly sent again (rule 3).
 */
#ifndef TASKS_TASK_BACKEND_H
#define TASKS_TASK_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"
#include "base/span.h"

#define TASK_ID_MAX 64 /* bytes with NUL; 128 random bits as hex, or the backend's own (UUID, …) */
#define TASK_NAME_MAX 128
#define TASK_TRACE_PARENT 56 /* bytes with NUL */
#define TASK_TRACE_STATE_MAX 512

enum task_status { TASK_PENDING, TASK_RUNNING, TASK_COMPLETED, TASK_FAILED };
const char *task_status_text(enum task_status s); /* pending running completed failed */

/* The state of one task; the same meaning on every backend. Spans borrow. */
struct task_result {
	struct span task_id, task_name;
	enum task_status status;
	struct span result; /* raw JSON text when completed, SPAN_NONE otherwise */
	/* When failed. `error` is for callers: the task's own message, that of the innermost exception that
	 * it raised; else the task and the kind of failure. `error_detail` is for operators: where, how, what
	 * others said (tracebacks, addresses, a program's standard error), or SPAN_NONE. */
	struct span error, error_detail;
	bool cancelled;					/* failed because someone cancelled it */
	int64_t submitted_us, started_us, completed_us; /* wall clock; 0 = not yet or not told */
	unsigned attempts;
	/* what task_call.owner said, where the backend keeps it (embedded, router), else SPAN_NONE */
	struct span owner;
	/* Of a workflow, where the backend tells them: a JSON array of its steps so far, each with its name,
	 * status and times, for callers. Else SPAN_NONE. */
	struct span steps;
};
/* What callers may be told: without the detail, and with what looks like a secret in the error masked
 * (base/text.h), in `room`. Borrows from both. -ENOMEM: the error is a general one then. */
int task_result_for_callers(const struct task_result *r, struct buf *room, struct task_result *ret);
/* {"task_id","task_name","status","result","error","started_at","completed_at"} and, where they are told,
 * "steps"; times are RFC 3339; what is not known is null */
int task_result_to_json(const struct task_result *r, struct buf *out);

/* One call of a task or workflow. All spans are copied by submit. */
struct task_call {
	struct span task; /* name of a task, or of a workflow when `workflow` */
	bool workflow;
	struct span queue;   /* SPAN_NONE: the task's own, else the backend's default */
	struct span args;    /* raw JSON array, SPAN_NONE = [] */
	struct span kwargs;  /* raw JSON object, SPAN_NONE = {} */
	bool single_input;   /* Temporal, Hatchet: args[0] alone is the input, instead of [args, kwargs] */
	struct span task_id; /* SPAN_NONE: made by submit */
	/* task_id says which task it is, also when it is submitted twice (same_id_same_task) */
	bool id_is_key;
	struct span request_id; /* for the backend's de-duplication and for people */
	struct span owner;	/* opaque to the backend: who may ask for the result later */
	bool idempotent;	/* may be executed again by the backend when its worker is lost */
	unsigned timeout_ms;	/* execution limit in the backend; 0 = the backend's default */
	int priority;		/* 0..9, 0 = normal */
	unsigned expires_ms;	/* not started by then → failed "expired"; 0 = never */
	/* task_wait follows within the callback of the submission: a backend may begin to listen before it
	 * submits */
	bool awaited;
	/* nobody waits for what it does: told to the worker, each backend in its way (docs/protocols) */
	bool shadow;
	/* W3C trace context for whoever runs it, each backend in its way; SPAN_NONE: none. As the standard
	 * has them: traceparent of version 00, tracestate of TASK_TRACE_STATE_MAX printable characters. */
	struct span traceparent, tracestate;
};

enum task_submit_status {
	TASK_SUBMITTED,		     /* durable in the backend */
	TASK_REFUSED,		     /* provably not accepted: legacy may serve */
	TASK_UNKNOWN,		     /* written, no reply: may or may not run */
	TASK_INPUT_TOO_LARGE,	     /* above the backend's limit: not sent */
	TASK_INPUT_NOT_REPRESENTABLE /* its workers would not read what was given: not sent */
};

struct task_submission {
	enum task_submit_status status;
	struct span task_id;
	struct err err; /* for the three others */
	/* with TASK_REFUSED: for what this call is (its task's name, its input): it says nothing of others */
	bool about_call;
};

struct task_client; /* one backend as seen from one loop */
struct task_wait;   /* one result being waited for */

typedef void (*task_submit_fn)(void *arg, const struct task_submission *s);
/* error: 0, TASK_E_* or -errno */
typedef void (*task_result_fn)(void *arg, int error, const struct task_result *r);
typedef void (*task_done_fn)(void *arg, int error, struct err *e);

#define TASK_E_NOT_FOUND 1   /* the backend knows no such task (for backends that can tell) */
#define TASK_E_UNREACHABLE 2 /* the backend could not be asked */
#define TASK_E_UNREADABLE 3  /* the task has ended; what its worker wrote of its result cannot be read */

struct task_health {
	bool reachable;	  /* submissions can be accepted */
	bool worker;	  /* someone is there to run them */
	int64_t backlog;  /* tasks waiting, -1 = not known */
	char detail[256]; /* a sentence when something is missing */
};
typedef void (*task_health_fn)(void *arg, const struct task_health *h);

/* What a check asks: would a call of this task on this queue be run? Spans are copied. */
struct task_probe {
	struct span task; /* name of a task, or of a workflow when `workflow` */
	bool workflow;
	struct span queue; /* SPAN_NONE: as task_call.queue */
	int priority;	   /* as task_call.priority */
	bool unawaited;	   /* nobody wants its result */
};
/* unknown: the backend cannot tell */
enum task_answer { TASK_ANSWER_NO, TASK_ANSWER_YES, TASK_ANSWER_UNKNOWN };
struct task_check {
	bool reachable;		 /* submissions can be accepted */
	enum task_answer known;	 /* someone there knows the task by its name */
	enum task_answer worker; /* someone is there to run it */
	char missing[256];	 /* a sentence for the first thing that is missing, "" when nothing is */
};
typedef void (*task_check_fn)(void *arg, const struct task_check *c);

struct task_options;	   /* task_options.h */
struct task_setting;	   /* task_options.h */
struct task_backend_setup; /* task_options.h */

/* A backend is one row: its name, its settings and its verbs (see backends.h). Each callback comes later than
 * the call that asked for it, on the client's loop, exactly once, unless its operation was dropped by the
 * client's free. Only if out of memory it may come from within the call. */
struct task_backend {
	const char *name;
	size_t max_input; /* bytes of args + kwargs, 0 = no limit of its own */
	/* A second submission of an id (of the same task and owner) is the task that is there, ended or not,
	 * as long as its result is kept: it is accepted, and nothing runs twice. */
	bool same_id_same_task;
	/* It has clients of the other backends (setup->other): it starts after them, and ends before them. */
	bool over_others;

	/* One backend as configured (task_options.h). */
	const struct task_setting *settings; /* the last has no key */
	/* of what begins with struct task_options; zeroed before the first setting */
	size_t options_size;
	/* NULL: all is well */
	int (*options_check)(struct task_options *o, const struct task_backend_setup *setup, struct err *e);
	/* NULL: clients share nothing that runs */
	int (*options_start)(struct task_options *o, struct err *e);
	/* what it holds, at whatever step it is */
	void (*options_release)(struct task_options *o);

	int (*client_new)(struct loop *loop, const struct task_options *o, struct task_client **ret,
			  struct err *e);
	void (*client_free)(struct task_client *c);
	/* The id of a call that brings none; NULL: 128 random bits in hex. */
	void (*make_id)(const struct task_call *call, char out[TASK_ID_MAX]);
	void (*submit)(struct task_client *c, const struct task_call *call, task_submit_fn fn, void *arg);
	/* Calls fn once the task is completed or failed. The wait ends by fn or by wait_cancel. */
	struct task_wait *(*wait)(struct task_client *c, struct span task_id, task_result_fn fn, void *arg);
	void (*wait_cancel)(struct task_wait *w);
	/* The state now. */
	void (*get)(struct task_client *c, struct span task_id, task_result_fn fn, void *arg);
	/* A request, not a fact: the task may have finished. TASK_E_NOT_FOUND where the backend can tell. */
	void (*cancel)(struct task_client *c, struct span task_id, task_done_fn fn, void *arg);
	void (*health)(struct task_client *c, task_health_fn fn, void *arg);
	/* NULL: derived from health; whether the task is known is not told then. */
	void (*check)(struct task_client *c, const struct task_probe *probe, task_check_fn fn, void *arg);
};

struct task_later;   /* an answer that needs nobody else, on its way to its callback */
struct task_derived; /* a check that is answered by health */

/* Every task_client starts with this, so that the functions below find their verbs. Set by
 * task_client_init. */
struct task_client {
	const struct task_backend *backend;
	struct loop *loop;
	LIST_HEAD(, task_later) later;
	LIST_HEAD(, task_derived) derived;
};

/* For backends: to be called by client_new. */
void task_client_init(struct task_client *c, const struct task_backend *backend, struct loop *loop);
/* For backends: tells this outcome of a submission in a later round of the loop. The sentence is copied. */
void task_submit_later(struct task_client *c, enum task_submit_status status, struct span task_id,
		       const struct err *why, task_submit_fn fn, void *arg);

/* Of checked and started options, which outlive it. Connects when it must: a backend that is down is not an
 * error. */
int task_client_new(const struct task_options *o, struct loop *loop, struct task_client **ret, struct err *e);
/* Checks max_input (→ TASK_INPUT_TOO_LARGE) and makes the id, then the backend's submit. */
void task_submit(struct task_client *c, const struct task_call *call, task_submit_fn fn, void *arg);
/* NULL: no memory */
struct task_wait *task_wait(struct task_client *c, struct span task_id, task_result_fn fn, void *arg);
void task_wait_cancel(struct task_wait *w, struct task_client *c);
void task_get(struct task_client *c, struct span task_id, task_result_fn fn, void *arg);
void task_cancel(struct task_client *c, struct span task_id, task_done_fn fn, void *arg);
void task_health(struct task_client *c, task_health_fn fn, void *arg);
void task_check(struct task_client *c, const struct task_probe *probe, task_check_fn fn, void *arg);
/* open operations are dropped without their callbacks */
struct task_client *task_client_free(struct task_client *c);

#endif
