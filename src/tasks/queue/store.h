/*
 * The embedded backend's durable queue: tasks.db, and every change of state that a task goes through.
 *
 * Why:       one place knows which transitions exist, so that none is lost to kill -9: each is one
 *            transaction, synced (design, "Shape of the code"). Used by the router's store thread and by
 *            workers, any number of either at once.
 * Ownership: spans handed in are borrowed for the call; spans handed to callbacks until the callback returns.
 * Threads:   a store belongs to one thread at a time.
 * Errors:    -errno of base/db.h with a sentence; STORE_E_* below. After an error inside a transaction:
 *            store_rollback.
 * Clocks:    leases, expiry and deadlines are monotonic (CLOCK_MONOTONIC, the same for all processes of a
 *            machine) and survive a jump of the wall clock; after a reboot they are reset (leases have run
 *            out, then).
 *
 * Life of a task:
 *   insert → pending → lease → running → finish → completed | failed
 *   pending → expiry, cancel → failed
 *   running → lease ran out, lost → pending when attempts are left (idempotent), else failed "worker lost,
 *   outcome unknown"
 * A workflow is a task that no handler runs: lease → store_workflow_start → running, each step a task of its
 * own; the end of a step inserts the next or ends the workflow, in the same transaction.
 */
#ifndef TASKS_QUEUE_STORE_H
#define TASKS_QUEUE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/span.h"
#include "tasks/task_backend.h"
#include "tasks/workflow/workflow.h"

#define STORE_E_EXISTS 1   /* this very task is there already */
#define STORE_E_CONFLICT 2 /* the id belongs to another task */
#define STORE_E_STALE 3	   /* fenced off: the lease is no longer the caller's */
#define STORE_E_NOT_FOUND 4

#define STORE_WORKER_LOST "worker lost, outcome unknown"

struct store;

struct store_options {
	const char *path;
	int busy_timeout_ms; /* 0: 2000 */
	size_t max_result;   /* bytes of a result; 0: 64 MiB */
	unsigned grace_ms;   /* see store_sweep; 0: 4000 */
};

int store_open(const struct store_options *o, struct store **ret, struct err *e);
struct store *store_close(struct store *s); /* NULL is allowed; returns NULL */
DEFINE_CLEANUP(struct store *, store_close)

int store_begin(struct store *s, struct err *e);
int store_commit(struct store *s, struct err *e);
void store_rollback(struct store *s);

/* --- submitting and looking; insert and cancel within a transaction ------------------------------------- */

struct store_task {
	/* args and kwargs: JSON, never SPAN_NONE */
	struct span id, name, queue, args, kwargs, request_id, owner;
	bool workflow, idempotent;
	int priority;
	unsigned timeout_ms, expires_ms; /* 0: none said */
	unsigned pending_ms;		 /* longest wait for a worker when expires_ms is 0; 0: forever */
	int64_t parent, step; /* of a workflow's step; parent 0: none, negative: see store_flow.c */
	struct span traceparent, tracestate; /* empty: none. A step has its workflow's */
};
/* STORE_E_EXISTS when the same task (id, name, owner) is there already, STORE_E_CONFLICT for another with
 * its id. */
int store_insert(struct store *s, const struct store_task *t, struct err *e);

/* STORE_E_NOT_FOUND. A finished task stays as it is. A running one is asked to stop: its worker sees it by
 * store_cancelled. */
int store_cancel(struct store *s, struct span id, struct err *e);

/* Spans in `ret` borrow from `text`, which is cleared first. */
int store_get(struct store *s, struct span id, struct buf *text, struct task_result *ret, struct err *e);

/* Appends the steps of a workflow that have been begun, in that order, as task_result.steps tells them.
 * STORE_E_NOT_FOUND when the task is no workflow, or not there. */
int store_steps(struct store *s, struct span id, struct buf *out, struct err *e);

/* Calls fn for each task that ended after mark *n (0: from the beginning), oldest first, at most `limit`;
 * moves *n. *gap says that marks between were already dropped: look at what is waited for one by one. */
int store_finished_since(struct store *s, int64_t *n, unsigned limit, bool *gap,
			 void (*fn)(void *arg, struct span id), void *arg, struct err *e);
int store_finished_last(struct store *s, int64_t *n, struct err *e);

/* Whether tasks became pending by this store's doing since the last time it was asked: workers want to
 * know. */
bool store_take_news(struct store *s);

/* pending tasks; a count above 100,000 is cut there */
int store_backlog(struct store *s, int64_t *ret, struct err *e);

/* --- workers; all but the queries within a transaction -------------------------------------------------- */

struct store_worker {
	struct span id, name, host, queues; /* queues: comma-separated */
	int64_t pid;
	unsigned concurrency;
};
int store_worker_beat(struct store *s, const struct store_worker *w, struct err *e);
int store_worker_gone(struct store *s, struct span id, struct err *e);
/* Workers that were seen in the last `within_ms`. */
int store_workers(struct store *s, unsigned within_ms, int64_t *ret, struct err *e);
/* Those of them that serve this queue. */
int store_workers_of(struct store *s, struct span queue, unsigned within_ms, int64_t *ret, struct err *e);

/* What workers know stands in a side table that has no version: a step of the schema would lock out older
 * workers while they are replaced. Those say nothing there, and what is not said is unknown. It goes with its
 * worker's row. */
struct store_known {
	struct span workflow;	 /* SPAN_NONE: a task; else this is one of its steps, in their order */
	struct span task, queue; /* queue: of a step */
};
/* Replaces what this worker, which has beaten, has said before. Within a transaction. */
int store_publish(struct store *s, struct span worker, const struct store_known *list, size_t n,
		  struct err *e);
/* 1 it has said what it knows, 0 it has not. */
int store_published(struct store *s, struct span worker, struct err *e);
/* Whether some worker of the queue, seen in the last `within_ms`, knows the task, or the workflow and others
 * its steps. NO only when all of them have said what they know, with a sentence. UNKNOWN also when there
 * is none. */
int store_knows(struct store *s, struct span queue, struct span name, bool workflow, unsigned within_ms,
		enum task_answer *ret, char why[256], struct err *e);

/* In the place of an owner, since nobody may ask for a shadow's result: it needs no column of its own, which
 * would lock out older workers. */
#define STORE_SHADOW_OWNER "shadow"

struct store_lease {
	int64_t seq, token;
	unsigned attempt;
	struct span id, name, queue, args, kwargs;
	bool workflow;
	bool shadow; /* its owner is STORE_SHADOW_OWNER */
	unsigned timeout_ms;
	char traceparent[TASK_TRACE_PARENT], tracestate[TASK_TRACE_STATE_MAX + 1]; /* "": none */
};
struct store_lease_request {
	const struct span *queues;
	size_t n_queues;
	struct span worker;
	unsigned lease_ms, limit;
	/* Whether the caller can run it; others are left to those who can. NULL: everything. */
	bool (*known)(void *arg, struct span name, bool workflow);
	/* How often the task may be begun in all, at least 1. */
	unsigned (*max_attempts)(void *arg, struct span name, bool idempotent);
	/* May call finish and workflow_start for it. */
	int (*taken)(void *arg, const struct store_lease *l);
	void *arg;
};
/* Whether there is anything to take: a look without the write lock. 1 yes, 0 no. */
int store_ready(struct store *s, const struct store_lease_request *r, struct err *e);
/* Takes up to `limit` pending tasks of the queues. Returns how many, or <0. */
int store_lease(struct store *s, const struct store_lease_request *r, struct err *e);

/* The following: STORE_E_STALE when the lease is not the caller's any more. */
int store_extend(struct store *s, int64_t seq, int64_t token, unsigned lease_ms, struct err *e);

struct store_outcome {
	struct span result; /* JSON when completed, SPAN_NONE when failed */
	struct span error, detail;
	bool cancelled;
};
int store_finish(struct store *s, int64_t seq, int64_t token, const struct store_outcome *o, struct err *e);
/* The worker itself gives it up in the middle. */
int store_lost(struct store *s, int64_t seq, int64_t token, struct span detail, struct err *e);

/* It was never begun: pending again, as if it had not been leased. */
int store_give_back(struct store *s, int64_t seq, int64_t token, struct err *e);

/* The caller's own running tasks that are asked to stop. */
int store_cancelled(struct store *s, struct span worker, void (*fn)(void *arg, int64_t seq), void *arg,
		    struct err *e);

/* One step of a workflow's plan, as resolved when it begins, so that a later edit of the definition
 * changes nothing. */
struct store_step {
	struct span name, task, queue;
	struct span kwargs; /* JSON object or SPAN_NONE */
	enum { STORE_INPUT_PREVIOUS, STORE_INPUT_WORKFLOW, STORE_INPUT_NONE } input;
	unsigned timeout_ms;
};
int store_workflow_start(struct store *s, const struct store_lease *l, const struct store_step *steps,
			 size_t n, unsigned timeout_ms, struct err *e);

/* The same for a workflow of any shape, whose steps name their queues: it is frozen as it is, and moves on
 * by its plan (tasks/workflow/workflow_plan.h) in the transaction in which one of its tasks ends. */
int store_flow_start(struct store *s, const struct store_lease *l, const struct workflow_definition *w,
		     unsigned timeout_ms, struct err *e);

/* A lease that ran out gets `grace_ms` more before its task is lost: in a commit of its own, which shows that
 * a worker that lives could have written by now. After this store had to wait for another's lock for a
 * second, or could not write, nothing is swept for as long: workers that met the same trouble come first.
 *
 * What nobody else ends: leases that ran out, expired tasks, workflows past their time, finished tasks older
 * than the retention (0: kept). *ret counts changes. Begins and commits by itself, and only when there is
 * something to do. */
int store_sweep(struct store *s, int64_t retention_ms, unsigned *ret, struct err *e);

/* Whether it can be written now. Not within a transaction. */
int store_probe(struct store *s, struct err *e);
bool store_moved(struct store *s); /* another file, or none, stands at the path now */
int store_integrity_check(struct store *s, struct err *e);

#endif
