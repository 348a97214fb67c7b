/*
 * Between the halves of the backend `router`: clients (driver_client.c, on data-plane threads) and the driver
 * (driver.c, a thread of its own). An operation belongs to the driver from driver_post until
 * driver_channel_deliver, then to its client again.
 */
#ifndef TASKS_DRIVER_DRIVER_INTERNAL_H
#define TASKS_DRIVER_DRIVER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "tasks/driver/runs.h"
#include "tasks/task_backend.h"
#include "tasks/task_options.h"
#include "tasks/worker/registry.h"

#define DRIVER_MAX_INPUT (16u << 20)

struct driver;

struct driver_options {
	struct task_options base;
	char *database;
	struct registry_source workflows_source;
	struct registry *workflows; /* what can be driven */
	char *backend;		    /* of steps that name none */
	bool only_looking;	    /* the file is never made */
	unsigned unknown_after_ms;  /* how long a result is waited for whose submission was not confirmed */
	unsigned refused_after_ms;  /* how long a step is submitted again that was provably not accepted */
	unsigned timeout_ms;	    /* of a run, unless its workflow or its call has less */
	unsigned max_running;	    /* runs that have not ended */
	size_t max_bytes;	    /* of the inputs of tasks that are not accepted yet, and of calls */
	size_t max_queued;	    /* operations on their way to the driver */
	int64_t retention_ms;	    /* of runs that have ended */
	/* of the program: the other backends, by name, from the start on */
	const struct task_options *(*other)(const void *arg, struct span name);
	const void *other_arg;
	struct driver *driver; /* by start */
};

/* driver_options.c */
extern const struct task_setting driver_settings[];
int driver_options_check(struct task_options *base, const struct task_backend_setup *setup, struct err *e);
int driver_options_start(struct task_options *base, struct err *e);
void driver_options_release(struct task_options *base);

enum driver_operation_kind {
	DRIVER_SUBMIT,
	DRIVER_CANCEL,
	DRIVER_GET,
	DRIVER_WAIT,
	DRIVER_UNWAIT,
	DRIVER_HEALTH,
	DRIVER_CHECK
};

/* The way back to one client; lives as long as anything points to it. */
struct driver_channel {
	atomic_uint references;
	struct loop *loop; /* not touched once closed */
	struct loop_work work;
	pthread_mutex_t lock;
	struct driver_operation *mail, **mail_end; /* under lock */
	bool posted, closed;	 /* under lock; closed is written by the client's thread only */
	struct loop_work detach; /* tells the driver that the client is gone */
	struct driver *driver;
};

struct driver_operation {
	struct loop_work work; /* toward the driver */
	TAILQ_ENTRY(driver_operation) place;
	struct driver_operation *next; /* in the mail */
	struct driver_channel *channel;
	enum driver_operation_kind kind;
	char id[TASK_ID_MAX];
	uint64_t number;	/* of a wait, so that UNWAIT finds just this one */
	struct run_record call; /* SUBMIT, CHECK (name); its spans follow the struct */
	unsigned timeout_ms;	/* SUBMIT */
	bool is_workflow;	/* SUBMIT, CHECK */
	bool dropped;		/* WAIT: the client wants no callback; its thread's only */
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
	bool about_call;
	int error;
	struct err err;
	struct buf text;
	struct task_result result;
	struct task_health health;
	struct task_check check;
	unsigned asking; /* CHECK: questions under way */
};

/* driver_channel.c */
struct driver_channel *driver_channel_ref(struct driver_channel *c);
void driver_channel_unref(struct driver_channel *c);
bool driver_channel_closed(struct driver_channel *c); /* its client is gone */
/* Hands the operation back. Driver only. */
void driver_channel_deliver(struct driver_operation *op);
void driver_operation_free(struct driver_operation *op);

/* driver.c: starts the thread; the options outlive it. A file that cannot be opened is not an error here:
 * submissions are refused and health says why, until it can. */
int driver_start(const struct driver_options *o, struct driver **ret, struct err *e);
/* What has not ended is left to the next process. Every client must be freed before. NULL is allowed; returns
 * NULL. */
struct driver *driver_stop(struct driver *d);
/* False when too many wait: the operation stays the caller's. Any thread. */
bool driver_post(struct driver *d, struct driver_operation *op);
/* Without a bound, for operations that carry no input. */
void driver_post_operation(struct driver *d, struct driver_operation *op);
void driver_post_work(struct driver *d, struct loop_work *work);
/* Drops the waits of a client that is gone. Driver only. */
void driver_detach(struct driver *d, struct driver_channel *c);
const struct driver_options *driver_options_of(const struct driver *d);
uint64_t driver_next_number(struct driver *d);

#endif
