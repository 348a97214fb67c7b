/*
 * Inside of the store, for its files: statements, and the two transitions that others are made of.
 */
#ifndef TASKS_QUEUE_STORE_INTERNAL_H
#define TASKS_QUEUE_STORE_INTERNAL_H

#include "base/aging.h"
#include "base/db.h"
#include "tasks/queue/store.h"

enum store_sql {
	SQL_INSERT,
	SQL_INSERT_INPUT,
	SQL_FIND,
	SQL_GET,
	SQL_FINISHED_SINCE,
	SQL_FINISHED_LAST,
	SQL_BACKLOG,
	SQL_WORKER_BEAT,
	SQL_WORKER_GONE,
	SQL_WORKERS,
	SQL_WORKERS_OF,
	SQL_WORKERS_OLD,
	SQL_PUBLISHED,
	SQL_FORGET_KNOWN,
	SQL_PUBLISH,
	SQL_TASK_KNOWN,
	SQL_WORKFLOW_KNOWN,
	SQL_STEPS_KNOWN,
	SQL_READY,
	SQL_CANDIDATES,
	SQL_TAKE,
	SQL_EXTEND,
	SQL_FENCE,
	SQL_END,
	SQL_OUTPUT,
	SQL_MARK,
	SQL_REQUEUE,
	SQL_GIVE_BACK,
	SQL_CANCEL_ASK,
	SQL_CANCELLED,
	SQL_PLAN_INSERT,
	SQL_PLAN_NAME,
	SQL_ATTEMPTS,
	SQL_WORKFLOW_RUN,
	SQL_STEP_RESULTS,
	SQL_STEP_OPEN,
	SQL_PARENT,
	SQL_DUE,
	SQL_DUE_LEASE,
	SQL_DOUBT_LEASE,
	SQL_DUE_EXPIRED,
	SQL_DUE_WORKFLOW,
	SQL_OLD,
	SQL_MARKS_OLD,
	SQL_FLOW,
	SQL_FLOW_INSERT,
	SQL_FLOW_OPEN,
	SQL_FLOW_ERROR,
	SQL_FLOW_DUE,
	SQL_FLOW_MAKE_DUE,
	SQL_FLOW_NOT_DUE,
	SQL_STEPS,
	SQL_N
};

/* lease_until is even as its owner wrote it, odd once it ran out and a sweep has given it its grace (or
 * none is due: after a reboot). */
#define LEASE_EVEN(ms) ((ms) & ~INT64_C(1))

enum {
	STATE_PENDING = TASK_PENDING,
	STATE_RUNNING = TASK_RUNNING,
	STATE_COMPLETED = TASK_COMPLETED,
	STATE_FAILED = TASK_FAILED
};

struct store {
	struct db *db;
	struct db_stmt *statements[SQL_N];
	size_t max_result;
	bool news;
	unsigned grace_ms;
	int64_t quiet_until_ms; /* nothing is swept before, see store_sweep */
	struct aging aging;
	/* which queue is checked first, so that a busy one does not starve the others */
	unsigned queue_turn;
	bool flows_running; /* store_flow_run_due is at it */
};

/* The statement, reset, its parameters still to be bound; NULL with a sentence. */
struct db_stmt *store_sql(struct store *s, enum store_sql which, struct err *e);
/* The first row of a statement whose only parameter is `key`: 1 when there is one, 0 when not; *ret is to be
 * reset once the row has been read. */
int store_row(struct store *s, enum store_sql which, int64_t key, struct db_stmt **ret, struct err *e);
/* Runs a statement without rows whose only parameter is `key`. */
int store_change(struct store *s, enum store_sql which, int64_t key, struct err *e);

/* store_trace.c. The task's trace context, where it has some, or its workflow's. */
int store_trace_put(struct store *s, int64_t seq, const struct store_task *t, struct err *e);
/* "" where there is none. */
void store_trace_get(struct store *s, int64_t seq, struct store_lease *ret);

/* Ends a task that is pending or running, fence or not, and moves its workflow on. */
int store_end(struct store *s, int64_t seq, const struct store_outcome *o, struct err *e);
/* Lost in the middle: back to the queue when attempts are left, else failed. */
int store_give_up(struct store *s, int64_t seq, struct span detail, struct err *e);
/* How a workflow ends; the outcome's texts lie in `text`, or in the outcome of the step. */
struct store_end {
	struct store_outcome outcome;
	struct buf text;
};
/* A step of workflow `parent` has ended with `o`: inserts the next (0), or says how the workflow ends (1). */
int store_workflow_advance(struct store *s, int64_t parent, int64_t step, const struct store_outcome *o,
			   struct store_end *ret, struct err *e);
/* Pending: ended; running: asked to stop, and of a workflow the open step with it. */
int store_cancel_seq(struct store *s, int64_t seq, struct err *e);
/* store_flow_tables.c. Made where they are not. */
int store_flow_tables(struct store *s, struct err *e);
/* store_flow.c. Moves on every workflow of that kind to which something has happened. Within a transaction.
 * */
int store_flow_run_due(struct store *s, struct err *e);
/* 1: read into `memory`; 0: it is none of these workflows, or a newer program's. */
#define STORE_FLOW_MAX_MEMORY (8u << 20)
int store_flow_definition(struct store *s, int64_t seq, struct arena *memory,
			  struct workflow_definition **ret, struct err *e);
/* Which step a task of such a workflow is. */
#define STORE_FLOW_STEP(step, item) ((int64_t)(step) << 16 | (item))
#define STORE_FLOW_STEP_OF(n) ((unsigned)((n) >> 16))
#define STORE_FLOW_ITEM_OF(n) ((unsigned)((n)&0xffff))
/* Its time is up: 1 ended, 0 it is no workflow of that kind. */
int store_flow_time_out(struct store *s, int64_t seq, int64_t timeout_ms, struct err *e);
/* 0, or STORE_E_STALE when the lease is not the caller's. */
int store_fence(struct store *s, int64_t seq, int64_t token, struct err *e);

#endif
