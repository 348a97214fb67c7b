/*
 * What is said to Temporal's HTTP API and what its answers mean; pure. For temporal*.c only.
 *
 * Source:    temporal.md (measured); messages of temporal.api.workflowservice.v1 and history.v1 in protobuf's
 *            JSON form: 64-bit integers are strings, zero fields are left out.
 * Errors:    -EBADMSG for an answer that is not what the API says; buf's errors.
 */
#ifndef TASKS_TEMPORAL_TEMPORAL_WIRE_H
#define TASKS_TEMPORAL_TEMPORAL_WIRE_H

#include "base/buf.h"
#include "base/err.h"
#include "tasks/task_backend.h"

#define TEMPORAL_TYPE_SUFFIX "_workflow"
#define TEMPORAL_RUN_ID_MAX 128
#define TEMPORAL_IDENTITY "migration-router"

/* <task>-<uuid>: a long name is cut, characters outside [A-Za-z0-9_.-] become _. */
void temporal_make_id(const struct task_call *call, char out[TASK_ID_MAX]);
/* Whether the HTTP API can name this workflow: / cannot be escaped, . and .. are folded away. */
bool temporal_id_possible(struct span id);

/* The same for each try of one submission, another for a submission of another task under the same id. */
int temporal_request_id(const struct task_call *call, struct buf *out);
/* Body of StartWorkflowExecution. call->args is a JSON array when single_input. */
int temporal_start_body(const struct task_call *call, struct span queue, struct span request_id,
			unsigned timeout_ms, struct buf *out);

enum temporal_start_answer {
	TEMPORAL_STARTED,   /* by this request id */
	TEMPORAL_NEVER,	    /* not accepted, and no earlier try with this request id was */
	TEMPORAL_TOO_LARGE, /* never, for the size of the input */
	TEMPORAL_NOT_NOW,   /* this try was not accepted; earlier ones may have been */
	TEMPORAL_UNCLEAR    /* may or may not have been accepted */
};
enum temporal_start_answer temporal_start_answer(int status, struct span body, struct span request_id,
						 struct err *why);

/* The text of an error answer, or its status. */
void temporal_error(int status, struct span body, struct err *e);
/* 404 of the workflow, not of its namespace nor of something on the way. */
bool temporal_no_such_workflow(int status, struct span body);

/* How a workflow ended. `r` borrows from the buffers beside it. */
struct temporal_close {
	bool closed;
	bool unreadable;		  /* it completed, and its result is not JSON */
	char run_id[TEMPORAL_RUN_ID_MAX]; /* another run continues in this one's place; "" none */
	struct buf next_page;		  /* when not closed: the token to ask with */
	struct task_result r;
	struct buf result, error, detail;
};
void temporal_close_init(struct temporal_close *c);
void temporal_close_release(struct temporal_close *c);
/* Answer of GetWorkflowExecutionHistory with the close event's filter. */
int temporal_close_parse(struct span body, struct temporal_close *ret, struct err *e);

/* Answer of DescribeWorkflowExecution. */
struct temporal_described {
	bool closed;
	char run_id[TEMPORAL_RUN_ID_MAX];
	char name[TASK_NAME_MAX + sizeof(TEMPORAL_TYPE_SUFFIX)];
	struct task_result r; /* status, name and times; no result */
};
int temporal_described_parse(struct span body, struct temporal_described *ret, struct err *e);

/* Answer of DescribeTaskQueue: the latest poll in wall-clock µs, 0 none; tasks waiting, -1 not told. */
int temporal_queue_parse(struct span body, int64_t *ret_polled_us, int64_t *ret_backlog, struct err *e);

#endif
