/*
 * Calls of a Temporal server's gRPC service, one at a time, repeated where that is asked for.
 *
 * Why:       what a worker has done must be told even when the server is away for a while; what it polls
 *            is simply polled again.
 * Ownership: the request is packed and kept. A call is its caller's until `done` was called or
 *            temporal_call_cancel; both end it.
 * Threads:   the loop's.
 */
#ifndef TASKS_TEMPORAL_WORKER_CALLS_H
#define TASKS_TEMPORAL_WORKER_CALLS_H

#include "base/grpc.h"

#define TEMPORAL_POLL_GRACE_MS 10000

enum temporal_method {
	TEMPORAL_POLL_WORKFLOW,
	TEMPORAL_POLL_ACTIVITY,
	TEMPORAL_WORKFLOW_COMPLETED,
	TEMPORAL_WORKFLOW_FAILED,
	TEMPORAL_QUERY_COMPLETED,
	TEMPORAL_HISTORY,
	TEMPORAL_ACTIVITY_COMPLETED,
	TEMPORAL_ACTIVITY_FAILED,
	TEMPORAL_ACTIVITY_CANCELED,
	TEMPORAL_HEARTBEAT
};

struct ProtobufCMessage;
struct temporal_call;

struct temporal_calls {
	struct loop *loop;
	struct grpc_channel *channel;
	const char *namespace_name, *identity;
	unsigned poll_ms; /* how long the server may hold a poll */
};

/* `message`: whole, SPAN_NONE when none came; it may be there although the status is an error (the
 * connection was lost behind it). */
typedef void (*temporal_called_fn)(void *arg, const struct grpc_status *s, struct span message);

/* repeat_ms: for how long it is repeated while the server cannot be reached or is too busy; 0: not at all.
 * -ENOMEM; -EFBIG: larger than a server takes. `done` is never called from within. */
int temporal_call(struct temporal_calls *c, enum temporal_method method,
		  const struct ProtobufCMessage *request, int64_t repeat_ms, temporal_called_fn done,
		  void *arg, struct temporal_call **ret);
/* NULL is allowed; returns NULL. */
struct temporal_call *temporal_call_cancel(struct temporal_call *call);

#endif
