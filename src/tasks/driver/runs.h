/*
 * Runs: what the driver of workflows remembers, in workflows.db. A run is one execution of a workflow; what
 * of it was begun, and how that ended, is here before anything follows from it (design, "Workflows that the
 * router drives").
 *
 * Why:       after kill -9 at any moment it is known which steps may have been submitted, under which id, and
 *            what those before them gave.
 * Ownership: spans handed in are borrowed for the call; spans handed to callbacks until the callback returns.
 * Threads:   the driver's only.
 * Errors:    -errno of base/db.h with a sentence; RUNS_E_* below. After an error inside a transaction:
 *            runs_rollback.
 * Owners:    each process that drives has a number that is locked (driver_lock.h) as long as it lives. A run
 *            belongs to one of them; every change of it says which, and is refused when another has it by now
 *            (fencing).
 */
#ifndef TASKS_DRIVER_RUNS_H
#define TASKS_DRIVER_RUNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/span.h"
#include "tasks/task_backend.h"

#define RUNS_E_EXISTS 1	  /* this very run is there already */
#define RUNS_E_CONFLICT 2 /* the id belongs to another one */
#define RUNS_E_STALE 3	  /* fenced off: another process drives it, or it has ended */
#define RUNS_E_NOT_FOUND 4

struct runs;

/* A file that is not there is made. */
int runs_open(const char *path, int busy_timeout_ms, struct runs **ret, struct err *e);
struct runs *runs_close(struct runs *s); /* NULL is allowed; returns NULL */
DEFINE_CLEANUP(struct runs *, runs_close)

int runs_begin(struct runs *s, struct err *e);
int runs_commit(struct runs *s, struct err *e);
void runs_rollback(struct runs *s);
/* Within a transaction: back to where it was at the mark, with the rest of it intact. */
int runs_mark(struct runs *s, struct err *e);
int runs_back(struct runs *s, struct err *e);

/* Who, how it was asked for and, frozen as it was then, what the workflow is. */
struct run_record {
	struct span id, name, owner, request_id, args, kwargs, definition; /* args … definition: JSON */
	struct span queue, traceparent, tracestate;			   /* SPAN_NONE: none */
	int priority;
	unsigned expires_ms; /* of the tasks that it begins with; 0: never */
	bool shadow;
	int64_t submitted_us;
	/* By the wall clock; 0: never. After it the run fails, whatever is still under way. */
	int64_t deadline_us;
	/* when read: */
	int64_t seq;
	bool cancel; /* somebody has asked for it */
};
/* Within a transaction. RUNS_E_EXISTS when the same run (id, name, owner) is there already, ended or not;
 * RUNS_E_CONFLICT for another with its id. */
int runs_insert(struct runs *s, const struct run_record *r, int64_t driver, int64_t *ret_seq, struct err *e);

enum run_step_state {
	RUN_STEP_SUBMITTING, /* may or may not be in its backend */
	RUN_STEP_RUNNING,    /* is in its backend */
	RUN_STEP_COMPLETED,
	RUN_STEP_FAILED,
	RUN_STEP_CANCELLED,
	RUN_STEP_UNKNOWN, /* it cannot be told whether it ran */
};
const char *run_step_text(enum run_step_state s);

struct run_step {
	unsigned step, item; /* as the plan counts them */
	bool one_of_many;    /* of a for_each */
	enum run_step_state state;
	struct span name, task, backend, task_id;
	/* wall clock; 0: not yet */
	int64_t submitted_us, started_us, completed_us;
	struct span result;	   /* JSON when completed, else SPAN_NONE */
	struct span error, detail; /* otherwise */
};
/* Within a transaction: as it is now, instead of what there was. RUNS_E_STALE */
int runs_put_step(struct runs *s, int64_t seq, int64_t driver, const struct run_step *step, struct err *e);

struct run_end {
	struct span result; /* JSON when completed, SPAN_NONE when failed */
	struct span error, detail;
	bool cancelled;
};
/* Within a transaction. RUNS_E_STALE */
int runs_end(struct runs *s, int64_t seq, int64_t driver, const struct run_end *end, struct err *e);

/* Within a transaction; whoever drives it sees it by runs_asked. RUNS_E_NOT_FOUND. One that has ended stays
 * as it is. */
int runs_cancel(struct runs *s, struct span id, struct err *e);
/* The driver's own that are asked to stop and have not ended. */
int runs_asked(struct runs *s, int64_t driver, void (*fn)(void *arg, struct span id), void *arg,
	       struct err *e);

/* The plan's sources, appended; RUNS_E_NOT_FOUND. */
int runs_input(struct runs *s, int64_t seq, struct buf *args, struct buf *kwargs, struct err *e);
int runs_step_result(struct runs *s, int64_t seq, unsigned step, unsigned item, struct buf *out,
		     struct err *e);
/* Spans in `ret` borrow from `text`, which is cleared first. RUNS_E_NOT_FOUND */
int runs_get(struct runs *s, struct span id, struct buf *text, struct task_result *ret, struct err *e);

/* Runs that have not ended, of any driver but this one, oldest first. */
int runs_of_others(struct runs *s, int64_t driver, void (*fn)(void *arg, int64_t seq, int64_t driver),
		   void *arg, struct err *e);
/* Makes it this driver's. Within a transaction. RUNS_E_STALE: it is not `from`'s any more, or has ended. */
int runs_take(struct runs *s, int64_t seq, int64_t from, int64_t driver, struct err *e);
/* A run without its input, its steps without their results and in the order of their ends, then those that
 * have not ended. RUNS_E_NOT_FOUND */
int runs_load(struct runs *s, int64_t seq, void (*on_run)(void *arg, const struct run_record *r),
	      void (*on_step)(void *arg, const struct run_step *step), void *arg, struct err *e);

/* Deletes what ended longer ago than the retention, some at a time; begins and commits by itself. */
int runs_sweep(struct runs *s, int64_t retention_ms, unsigned *ret, struct err *e);

int runs_probe(struct runs *s, struct err *e); /* whether it can be written now. Not within a transaction */
bool runs_moved(struct runs *s);	       /* another file, or none, stands at the path now */
int runs_integrity_check(struct runs *s, struct err *e);

#endif
