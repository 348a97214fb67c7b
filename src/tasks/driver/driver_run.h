/*
 * Inside of the driver: a run in memory, its tasks that are under way, and what has happened to them and is
 * not written yet. All of it is the driver thread's.
 *
 * An event is written in a transaction, together with what follows from it (driver_run.c); what was written
 * is then done (driver_task.c). When the transaction fails, the events stay, and what they changed in memory
 * is read anew.
 */
#ifndef TASKS_DRIVER_DRIVER_RUN_H
#define TASKS_DRIVER_DRIVER_RUN_H

#include "base/arena.h"
#include "tasks/driver/driver_internal.h"
#include "tasks/driver/driver_lock.h"
#include "tasks/workflow/workflow_plan.h"

#define DRIVER_BUCKETS 4096

struct run;

/* A backend that steps run on, as seen from the driver's loop. */
struct driver_peer {
	LIST_ENTRY(driver_peer) place;
	struct task_client *client;
	char name[];
};

/* One task of a run, from its begin to its end. */
struct run_task {
	LIST_ENTRY(run_task) place; /* in the run's list, or in none once it is given up */
	struct driver *driver;
	struct run *run; /* NULL: given up; it goes with its last answer */
	unsigned step, item;
	bool fresh;	 /* of the transaction that is open */
	bool begin;	 /* to be submitted once that is written */
	bool attach;	 /* to be waited for, likewise */
	bool submitting; /* its backend's answer is still to come */
	bool unsure;	 /* whether its backend has it */
	bool again;	 /* submitting it twice runs it once, or twice at no harm */
	bool ended;	 /* an event says so */
	bool closed;	 /* and the transaction that is open, too */
	bool owed;	 /* another process may have submitted it; the plan is to give its input again */
	enum run_step_state state; /* as written */
	bool one_of_many;
	struct driver_peer *peer;      /* NULL: not configured here */
	struct span name, task, queue; /* the definition's */
	char backend[16], task_id[TASK_ID_MAX];
	unsigned timeout_ms;
	bool idempotent, root;
	char *input; /* args, then kwargs: until the backend has accepted it */
	size_t args_length, input_length;
	int64_t submitted_us, refused_since_ms;
	struct task_wait *wait;
	struct loop_timer *timer; /* the next try, or the end of the doubt */
	unsigned failures;	  /* in a row */
};

struct run {
	LIST_ENTRY(run) bucket;
	TAILQ_ENTRY(run) touched_place;
	struct driver *driver;
	struct run_record record; /* its spans are the memory's */
	struct arena memory;
	struct workflow_definition *definition;
	struct workflow_plan *plan; /* NULL: to be read anew */
	LIST_HEAD(, run_task) tasks;
	struct loop_timer *deadline;
	bool touched, fresh; /* by the transaction that is open; made by it */
	bool over;	     /* it has written the end */
	bool lost;	     /* another process has it */
	bool hungry;	     /* something waits for memory to begin */
	bool stopping;	     /* an event says that it is to stop */
};

enum run_event_kind { RUN_ACCEPTED, RUN_TASK_ENDED, RUN_STOP, RUN_GO_ON, RUN_TAKE };

struct run_event {
	TAILQ_ENTRY(run_event) place;
	enum run_event_kind kind;
	struct run *run;       /* NULL: RUN_TAKE */
	struct run_task *task; /* RUN_ACCEPTED, RUN_TASK_ENDED */
	/* RUN_ACCEPTED, RUN_TASK_ENDED */
	char task_id[TASK_ID_MAX];
	/* RUN_TASK_ENDED */
	enum run_step_state state;
	int64_t started_us, completed_us;
	struct span result, error, detail; /* follow the struct */
	/* RUN_STOP */
	enum workflow_end_kind stop;
	/* RUN_TAKE */
	int64_t seq, from;
};

TAILQ_HEAD(run_events, run_event);
TAILQ_HEAD(driver_operations, driver_operation);
LIST_HEAD(run_bucket, run);

struct driver {
	const struct driver_options *o;
	struct loop *loop;
	pthread_t thread;
	struct loop_work stop, flush;
	atomic_size_t queued, queued_bytes;
	atomic_uint_fast64_t number;

	/* The thread's own. */
	struct runs *store;
	struct driver_lock lock;
	struct loop_timer *tick, *retry, *patience;
	struct driver_operations calls;
	struct driver_operations waits[DRIVER_BUCKETS];
	size_t n_waits;
	struct run_events events;
	bool flush_due, one_by_one, stopping;
	int64_t said_ms; /* when it was last logged that an event cannot be written */
	struct run_bucket buckets[DRIVER_BUCKETS];
	size_t n_runs;
	TAILQ_HEAD(, run) touched;
	LIST_HEAD(, driver_peer) peers;
	size_t input_bytes; /* of tasks that are not accepted yet */
	unsigned n_submitting;
	uint64_t stop_by_ms;
	int trouble; /* why nothing can be written now, or 0 */
	struct err why;
};

/* --- driver_events.c ------------------------------------------------------------------------------------ */
void driver_flush_soon(struct driver *d);
/* Appended, and written soon. */
void driver_add_event(struct driver *d, struct run_event *ev);
struct run *driver_find_run(struct driver *d, struct span id);
/* It is not driven here any more: no event of it is left. */
void driver_drop_events(struct driver *d, const struct run *run);

/* --- driver_task.c -------------------------------------------------------------------------------------- */
/* NULL: it is not configured here, or cannot be had now. */
struct driver_peer *driver_peer_of(struct driver *d, struct span name);
void driver_peers_free(struct driver *d);
struct run_event *run_event_new(enum run_event_kind kind, struct run *run, struct run_task *task,
				size_t extra);
/* What was written is done: submitted, waited for. */
void run_task_go(struct run_task *t);
/* Nobody here wants to know any more how it ends; `ask_to_stop`: its backend is told to stop it. */
void run_task_give_up(struct run_task *t, bool ask_to_stop);
/* The end of one that cannot be told to anybody else. */
void run_task_fail(struct run_task *t, enum run_step_state state, const char *error);

/* --- driver_run.c: within a transaction; <0: it is to be rolled back ------------------------------------ */
/* A new run from a call: RUNS_E_EXISTS, RUNS_E_CONFLICT, -EFBIG (its first tasks do not fit their backends),
 * -ENOENT (no such workflow). */
int run_begin(struct driver *d, const struct driver_operation *op, struct err *e);
int run_apply(struct driver *d, struct run_event *ev, struct err *e);
/* After the commit. */
void run_go(struct run *run);
/* After a rollback: what is in memory is what was written. May free it. */
void run_revert(struct run *run);
/* Without a word to its backends. */
void run_forget(struct run *run);

/* --- driver_check.c ------------------------------------------------------------------------------------- */
void driver_read_health(struct driver *d, struct task_health *h);
/* Delivers it when all steps have been asked about. */
void driver_begin_check(struct driver *d, struct driver_operation *op);

#endif
