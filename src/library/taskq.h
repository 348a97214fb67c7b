/*
 * libtaskq: tasks on any queue. Register tasks, submit calls, get results, run workers; which backend runs
 * them (embedded, celery, temporal, hatchet) is one setting, or one variable of the environment.
 *
 * Ownership: what a function makes is freed by the function that its comment names. Texts that are given are
 *            copied. Texts that are handed to a callback are valid until it returns.
 * Threads:   a `struct taskq` is used by any number of threads at once, except: taskq_register_… come before
 *            its first use, taskq_dispatch is called by one thread at a time, and taskq_close after all
 *            others have returned. It has a thread of its own, in which no signal is delivered and no
 *            callback is called. It does not survive fork(): the child may only exec or _exit.
 * Errors:    0, or one of TASKQ_E_… (negative) with a sentence in `error`, which may be NULL. The sentence
 *            holds no secret, and is for operators.
 * Texts:     UTF-8; args are a JSON array, kwargs a JSON object, results any JSON value.
 * Log:       silent, unless the environment has TASKQ_LOG=debug, info, warn or error: then standard error.
 */
#ifndef TASKQ_H
#define TASKQ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define TASKQ_ID_MAX 64 /* bytes of a task's id, with NUL */
#define TASKQ_ERROR_MAX 512

#define TASKQ_E_ARGUMENT (-1)  /* a call of this library is wrong: its arguments, or its order */
#define TASKQ_E_SETTINGS (-2)  /* settings, environment, or a file of tasks */
#define TASKQ_E_REFUSED (-3)   /* provably not accepted: nothing will run */
#define TASKQ_E_UNKNOWN (-4)   /* sent, and not answered: it may or may not run; do not just repeat it */
#define TASKQ_E_TOO_LARGE (-5) /* the input is larger than the backend takes: not sent */
#define TASKQ_E_UNREPRESENTABLE (-6) /* the backend's workers could not read the input: not sent */
#define TASKQ_E_TIMEOUT (-7)	     /* not ended in time; it goes on */
#define TASKQ_E_NOT_FOUND (-8)	     /* the backend knows no such task */
#define TASKQ_E_UNREACHABLE (-9)     /* the backend could not be asked */
#define TASKQ_E_UNREADABLE (-10)     /* the task has ended; its result cannot be read */
#define TASKQ_E_SYSTEM (-11)	     /* memory, threads, descriptors */

struct taskq_error {
	int code;
	char text[TASKQ_ERROR_MAX];
};

struct taskq; /* one backend, as this program uses it */

struct taskq_setting {
	const char *key, *value;
};

const char *taskq_version(void);

/* `backend` NULL: TASK_QUEUE_BACKEND, else TASK_BACKEND_TYPE, else embedded. `settings` (n of them,
 * copied) are those of migration-router.yml(5), and win over the environment's (CELERY_BROKER_URL,
 * TEMPORAL_HOST, …). Connects to nothing yet. taskq_close. */
int taskq_open(const char *backend, const struct taskq_setting *settings, size_t n, struct taskq **ret,
	       struct taskq_error *error);
const char *taskq_backend(const struct taskq *q); /* its name */
/* Ends its thread; asynchronous calls that are under way are dropped without their callbacks. NULL is
 * allowed. */
void taskq_close(struct taskq *q);

/* --- tasks ---------------------------------------------------------------------------------------------- */

struct taskq_task; /* one execution; until its function returns */

/* The task itself, on a thread of its own. Ends by taskq_return or taskq_fail; without either, by null. */
typedef void (*taskq_task_fn)(struct taskq_task *task, const char *args, const char *kwargs, void *arg);
void taskq_return(struct taskq_task *task, const char *json);
/* `message` is for whoever called. */
void taskq_fail(struct taskq_task *task, const char *message);
const char *taskq_task_id(const struct taskq_task *task);
/* Waits `ms` milliseconds, less if the task is to stop: 1 then, else 0. With 0 ms: whether it is to
 * stop. */
int taskq_stopping(struct taskq_task *task, unsigned ms);

/* What a worker of this program runs under this name. `arg` is the caller's, and outlives the worker. A
 * core task of that name is replaced. */
struct taskq_task_options {
	const char *queue;     /* NULL: default */
	int idempotent;	       /* may run again when its worker is lost */
	unsigned max_attempts; /* 0: 1, of an idempotent one 3 */
	unsigned timeout_ms;   /* of one attempt; 0: 5 minutes */
};
int taskq_register_task(struct taskq *q, const char *name, taskq_task_fn fn, void *arg,
			const struct taskq_task_options *options, struct taskq_error *error);
/* Tasks and workflows of a file, or of a folder's *.yml (config/tasks.yml explains them). All mistakes
 * are in the error, as far as they fit. */
int taskq_register_file(struct taskq *q, const char *path, struct taskq_error *error);

/* --- calls ---------------------------------------------------------------------------------------------- */

struct taskq_call {
	/* task, queue, id: without control characters */
	const char *task;   /* name of a task, or of a workflow */
	int workflow;	    /* 1: of a workflow */
	const char *args;   /* NULL: [] */
	const char *kwargs; /* NULL: {} */
	const char *queue;  /* NULL: the task's own, else the backend's default */
	/* NULL: made. Embedded and Temporal take a second submission of one id as the same task. */
	const char *id;
	int idempotent;	     /* the backend may run it again when its worker is lost */
	unsigned timeout_ms; /* limit of its execution; 0: the backend's default */
	int priority;	     /* 0 to 9; 0: normal */
	unsigned expires_ms; /* not begun by then: it fails; 0: never */
};

enum taskq_status { TASKQ_PENDING, TASKQ_RUNNING, TASKQ_COMPLETED, TASKQ_FAILED };

struct taskq_result {
	enum taskq_status status;
	const char *id, *task; /* task: "" where the backend does not tell */
	const char *result;    /* JSON when completed, else NULL */
	const char *error;     /* when failed: for callers; else NULL */
	const char *detail;    /* when failed: for operators (tracebacks, addresses); or NULL */
	int cancelled;
	unsigned attempts;
	int64_t submitted_us, started_us, completed_us; /* wall clock; 0: not yet, or not told */
};
void taskq_result_free(struct taskq_result *r); /* NULL is allowed */

/* Returns when the backend has it, durably. `id` is filled in any case but TASKQ_E_ARGUMENT, _SETTINGS and
 * _SYSTEM; it may be NULL. */
int taskq_submit(struct taskq *q, const struct taskq_call *call, char id[TASKQ_ID_MAX],
		 struct taskq_error *error);
/* Waits until the task has ended, at most `timeout_ms` (negative: as long as it takes; 0: its state now,
 * whatever it is). 0 also when it has failed: see status. taskq_result_free. */
int taskq_get_result(struct taskq *q, const char *id, int64_t timeout_ms, struct taskq_result **ret,
		     struct taskq_error *error);
/* A request, not a fact: the task may have ended. */
int taskq_cancel(struct taskq *q, const char *id, struct taskq_error *error);

struct taskq_health {
	int reachable;	  /* calls can be submitted */
	int worker;	  /* someone is there to run them */
	int64_t backlog;  /* tasks that wait; -1: not known */
	char detail[256]; /* a sentence when something is missing */
};
int taskq_health(struct taskq *q, struct taskq_health *ret, struct taskq_error *error);

/* --- on a loop of the caller's -------------------------------------------------------------------------- */

/* Becomes readable when callbacks wait for taskq_dispatch; it stays this library's: poll it, nothing
 * else. */
int taskq_fd(const struct taskq *q);
/* Calls the callbacks that are due, on this thread; returns how many. Never waits. Callbacks may call
 * everything but taskq_close and taskq_dispatch. */
int taskq_dispatch(struct taskq *q);

/* `code` and `error` as above. `id` is "" when there is none. */
typedef void (*taskq_submitted_fn)(void *arg, int code, const char *id, const char *error);
/* `result` is NULL unless code is 0. */
typedef void (*taskq_result_fn)(void *arg, int code, const struct taskq_result *result, const char *error);

/* The callback comes exactly once, unless taskq_close does first; not at all when the function returns
 * an error. */
int taskq_submit_async(struct taskq *q, const struct taskq_call *call, taskq_submitted_fn fn, void *arg,
		       struct taskq_error *error);
int taskq_get_result_async(struct taskq *q, const char *id, int64_t timeout_ms, taskq_result_fn fn, void *arg,
			   struct taskq_error *error);

/* --- workers -------------------------------------------------------------------------------------------- */

struct taskq_worker_options {
	/* separated by commas; NULL: TASK_QUEUES (where ENVIRONMENT is set, and is not production), else the
	 * backend's default. Production (ENVIRONMENT prod or production) must say it here. */
	const char *queues;
	const char *name;     /* NULL: TASK_WORKER_NAME, else worker-<host>-<queues> */
	unsigned concurrency; /* tasks at a time; 0: TASK_WORKER_CONCURRENCY, else 4 */
	unsigned drain_ms;    /* how long tasks may go on after taskq_stop_worker; 0: 30 s */
};
/* Runs tasks on this thread until taskq_stop_worker, and returns when the last one has ended. `options`
 * may be NULL. One at a time. */
int taskq_run_worker(struct taskq *q, const struct taskq_worker_options *options, struct taskq_error *error);
/* Any thread, also in a signal handler. A second call ends the tasks that still run. A worker that does
 * not run yet stops as soon as it does. */
void taskq_stop_worker(struct taskq *q);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
