/*
 * One operation: what is asked, while it is under way, and how it ended.
 *
 * Life:    new (any thread), posted to the loop, there on the list `open`, ended once; then it belongs to the
 *          thread that waits for it, or stands on the list `done` until taskq_dispatch.
 */
#ifndef LIBRARY_TASKQ_OPERATION_H
#define LIBRARY_TASKQ_OPERATION_H

#include "library/taskq_internal.h"

enum operation_kind { OPERATION_SUBMIT, OPERATION_WAIT, OPERATION_LOOK, OPERATION_CANCEL, OPERATION_HEALTH };

struct taskq_operation {
	struct loop_work work;
	struct taskq *q;
	enum operation_kind kind;
	TAILQ_ENTRY(taskq_operation) link;
	/* what is asked */
	struct task_call call; /* its texts are in `texts` */
	char *texts;
	int64_t timeout_ms;
	/* under way, on the loop's thread */
	struct task_wait *wait;
	struct loop_timer *limit;
	/* how it ended */
	int code;
	char id[TASKQ_ID_MAX];
	struct taskq_error error;
	struct taskq_result *result;
	struct task_health health;
	/* a thread that waits for it, or a callback */
	bool blocking, ended; /* ended: under the handle's lock */
	pthread_cond_t wake;
	taskq_submitted_fn on_submitted;
	taskq_result_fn on_result;
	void *arg;
};

/* NULL: no memory. */
struct taskq_operation *taskq_operation_new(struct taskq *q, enum operation_kind kind);
void taskq_operation_free(struct taskq_operation *o);
/* On the loop's thread, once: takes it off `open`, and wakes who waits or lets its callback come. */
void taskq_operation_end(struct taskq_operation *o, int code, const char *text);
/* A copy that taskq_result_free frees; NULL: no memory. */
struct taskq_result *taskq_make_result(const struct task_result *r);
/* Copies with a NUL to *at, and moves it behind that. */
const char *taskq_take_text(char **at, struct span s);

/* On the loop's thread, at its end: what is under way ends without a callback. */
void taskq_drop_open(struct taskq *q);
/* Callbacks that nobody has fetched. */
void taskq_drop_done(struct taskq *q);

#endif
