/*
 * Messages between a Hatchet engine and this worker, to and from bytes. Pure; the only file that knows
 * the generated code of hatchet_worker.proto.
 *
 * Ownership: spans of an action borrow from it until hatchet_action_release.
 * Errors:    -ENOMEM, or buf's; -EBADMSG for what is no such message.
 */
#ifndef TASKS_HATCHET_WORKER_WIRE_H
#define TASKS_HATCHET_WORKER_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

#define HATCHET_WORKER_ID_MAX 64 /* with NUL; the engine's are UUIDs */

#define HATCHET_PUT_WORKFLOW "/v1.AdminService/PutWorkflow"
#define HATCHET_REGISTER "/Dispatcher/Register"
#define HATCHET_LISTEN "/Dispatcher/ListenV2"
#define HATCHET_HEARTBEAT "/Dispatcher/Heartbeat"
#define HATCHET_UNSUBSCRIBE "/Dispatcher/Unsubscribe"
#define HATCHET_STEP_EVENT "/Dispatcher/SendStepActionEvent"

/* --- what is declared ----------------------------------------------------------------------------------- */

struct hatchet_declared_task {
	const char *name, *action;
	uint64_t parents; /* bits of the order of the tasks */
	uint64_t timeout_ms;
	unsigned retries;
};

struct hatchet_declared {
	const char *name, *description; /* description: NULL: none */
	const struct hatchet_declared_task *tasks;
	size_t n_tasks; /* ≤ 64 */
};

int hatchet_wire_put_workflow(struct buf *out, const struct hatchet_declared *d);

/* --- the worker itself ---------------------------------------------------------------------------------- */

int hatchet_wire_put_register(struct buf *out, const char *name, const char *const *actions, size_t n_actions,
			      unsigned slots);
/* The worker's id. */
int hatchet_wire_read_register(struct span reply, char ret[HATCHET_WORKER_ID_MAX]);
int hatchet_wire_put_listen(struct buf *out, const char *worker_id);
int hatchet_wire_put_heartbeat(struct buf *out, const char *worker_id, int64_t now_us);

/* --- what it is given ----------------------------------------------------------------------------------- */

enum hatchet_action_kind { HATCHET_ACTION_START, HATCHET_ACTION_CANCEL, HATCHET_ACTION_OTHER };

struct hatchet_action {
	enum hatchet_action_kind kind;
	/* of the engine; task_run_id and retry_count together are one attempt */
	const char *task_run_id, *workflow_run_id, *job_id, *job_run_id, *task_id, *action_id, *task_name;
	int retry_count;
	struct span payload;  /* JSON {"input":{…},"parents":{…},…} of a start */
	struct span metadata; /* JSON object, or SPAN_NONE */
	void *message;	      /* what holds them */
};

int hatchet_wire_read_action(struct span message, struct hatchet_action *ret);
void hatchet_action_release(struct hatchet_action *a);

/* --- what it tells -------------------------------------------------------------------------------------- */

enum hatchet_event_kind {
	HATCHET_EVENT_STARTED,
	HATCHET_EVENT_COMPLETED, /* payload: a JSON object */
	HATCHET_EVENT_FAILED,	 /* payload: text */
	HATCHET_EVENT_CANCELLED
};

struct hatchet_event {
	enum hatchet_event_kind kind;
	const char *worker_id, *task_run_id, *job_id, *job_run_id, *task_id, *action_id;
	int retry_count;
	int64_t at_us; /* since 1970 */
	const char *payload;
	bool final; /* of a failure: it is not to be run again, whatever is declared */
};

int hatchet_wire_put_event(struct buf *out, const struct hatchet_event *v);

#endif
