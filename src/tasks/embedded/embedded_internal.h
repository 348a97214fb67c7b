/*
 * Between the two halves of the embedded backend: clients (embedded.c, on data-plane threads) and the store
 * thread (embedded_store.c). An operation belongs to the store thread from embedded_post until
 * channel_deliver, then to its client again.
 */
#ifndef TASKS_EMBEDDED_EMBEDDED_INTERNAL_H
#define TASKS_EMBEDDED_EMBEDDED_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "tasks/embedded/embedded.h"
#include "tasks/queue/store.h"
#include "tasks/task_options.h"
#include "tasks/worker/registry.h"

struct embedded_store;

struct embedded_options {
	struct task_options base;
	char *database;
	struct registry_source source;
	struct registry *tasks;	      /* where a task's own queue is known from, or NULL */
	bool must_exist;	      /* the file is never made: for programs that only look */
	struct embedded_store *store; /* by start */
	/* No settings; check turns 0 into what is in brackets. */
	int64_t pending_timeout_ms; /* longest wait for a worker when a call sets no expires_ms [24 h] */
	int64_t retention_ms;	    /* of finished tasks [7 days] */
	size_t max_queued;	    /* operations on their way to the store thread [20,000] */
	size_t max_queued_bytes;    /* of their inputs [256 MiB] */
	size_t max_result;	    /* 0: the store's, 64 MiB */
	int busy_timeout_ms;	    /* how long another writer may hold the file; 0: the store's, 2 s */
};

/* embedded_options.c */
extern const struct task_setting embedded_settings[];
int embedded_options_check(struct task_options *base, const struct task_backend_setup *setup, struct err *e);
int embedded_options_start(struct task_options *base, struct err *e);
void embedded_options_release(struct task_options *base);

enum operation_kind {
	OPERATION_SUBMIT,
	OPERATION_CANCEL,
	OPERATION_GET,
	OPERATION_WAIT,
	OPERATION_UNWAIT,
	OPERATION_HEALTH,
	OPERATION_CHECK
};

/* The way back to one client; lives as long as anything points to it. */
struct channel {
	atomic_uint references;
	struct loop *loop; /* not touched once closed */
	struct loop_work work;
	pthread_mutex_t lock;
	struct embedded_operation *mail, **mail_end; /* under lock */
	bool posted, closed;	 /* under lock; closed is written by the client's thread only */
	struct loop_work detach; /* tells the store thread that the client is gone */
	struct embedded_store *store;
};

struct embedded_operation {
	struct loop_work work; /* toward the store thread */
	struct embedded_operation *next;
	struct channel *channel;
	enum operation_kind kind;
	char id[TASK_ID_MAX];
	uint64_t number;		      /* of a wait, so that UNWAIT finds just this one */
	size_t bytes;			      /* counted against max_queued_bytes */
	struct store_task task;		      /* SUBMIT; its spans follow the struct. CHECK: queue is all
				   * that are needed, by commas, the task's own first */
	LIST_ENTRY(embedded_operation) place; /* among the waits of its bucket */
	bool dropped;			      /* WAIT: the client wants no callback; its thread's only */
	union {
		task_submit_fn submit;
		task_result_fn result;
		task_done_fn done;
		task_health_fn health;
		task_check_fn check;
	} fn;
	void *arg;
	/* Answers. */
	enum task_submit_status status;
	int error;
	struct err err;
	struct buf text;
	struct buf steps; /* of a workflow: GET */
	struct task_result result;
	struct task_health health;
	struct task_check check;
};

struct channel *channel_ref(struct channel *c);
void channel_unref(struct channel *c);
bool channel_closed(struct channel *c); /* its client is gone */
/* Hands the operation back. Store thread only. */
void channel_deliver(struct embedded_operation *op);
void operation_free(struct embedded_operation *op);

/* Starts the store thread; the options outlive it. A file that cannot be opened is not an error here:
 * submissions are refused and health says why, until it can. */
int embedded_store_start(const struct embedded_options *o, struct embedded_store **ret, struct err *e);
/* Finishes what was handed over. Every client must be freed before. NULL is allowed; returns NULL. */
struct embedded_store *embedded_store_stop(struct embedded_store *s);
/* False when the queue is full: the operation stays the caller's. Any thread. */
bool embedded_post(struct embedded_store *s, struct embedded_operation *op);
/* Without a bound, for operations that carry no input. */
void embedded_post_operation(struct embedded_store *s, struct embedded_operation *op);
void embedded_post_work(struct embedded_store *s, struct loop_work *work);
/* Drops the waits of a client that is gone. Store thread only. */
void embedded_detach(struct embedded_store *s, struct channel *c);
const struct embedded_options *embedded_store_options(const struct embedded_store *s);
uint64_t embedded_next_number(struct embedded_store *s);

#endif
