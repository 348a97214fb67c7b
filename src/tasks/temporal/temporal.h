/*
 * Backend `temporal`: workflows of a Temporal server, over its HTTP API (protocol page temporal.md; server
 * 1.29).
 *
 * Why:       no gRPC library is needed, and values pass as the JSON they were written in (base64 payloads,
 *            never the shorthand).
 * Shape:     a task `t` is the workflow type `t_workflow`, run with two arguments [args, kwargs]; a workflow
 *            is its own type. With single_input args[0] alone is the one argument. The task's id is the
 *            workflow id, `<task>-<uuid>` when we make it.
 * Errors:    a start carries a request id, so it is resent after a lost reply (three times in all): the
 *            server answers with the first run. TASK_REFUSED when no send can have been accepted (not
 *            connected, 429, bad request, unknown namespace, id taken by another start); TASK_UNKNOWN when
 *            every reply was lost or a 5xx. Waits survive a restart of the server.
 * Results:   wait reports completed_us only; get reports the name and all times. Attempts are reported while
 *            an activity is pending.
 * Limits:    2 MB of input; a limit of execution is always set, and holds also for the time without a worker.
 * Not done:  expires_ms (the server has no such limit for workflows).
 * Worker:    worker/, over gRPC.
 */
#ifndef TASKS_TEMPORAL_TEMPORAL_H
#define TASKS_TEMPORAL_TEMPORAL_H

#include "tasks/task_backend.h"

/* The server's 2 MiB are of the encoded payloads: room for their frame. */
#define TEMPORAL_MAX_INPUT ((2u << 20) - 1024)

/* Settings: http_url (http[s]://host:port), host and port (of gRPC; the host gives the default http_url, port
 * 7243), namespace ("default"), task_queue ("task-abstraction-queue"), api_key or api_key_file (sent as a
 * bearer token), ca_file, client_cert_file, client_key_file (PEM), execution_timeout ("1h": for calls that
 * set none); for workers: address (host:port of gRPC), poll_timeout ("21s"), heartbeat_timeout (none). */
extern const struct task_backend temporal_backend;

#endif
