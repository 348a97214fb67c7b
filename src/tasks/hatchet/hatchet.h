/*
 * Backend `hatchet`: the REST interface of a Hatchet engine (v1), measured in protocols/hatchet.md.
 *
 * Why:       the engine takes a submission in 15-27 ms and keeps, retries and runs it; here it is asked over
 *            plain HTTP.
 * Shape:     settings are made once from the options (the token is read and looked into) and shared by the
 *            clients of all loops.
 * Names:     the task `t` runs as the workflow `t_workflow` with one task `t`, its input
 *            {"args":[…],"kwargs":{…}}; a `workflow` by its own name. `single_input` sends args[0], an
 *            object, as the whole input.
 * Ids:       a task's id is the id of its run, made by the engine. Ours travels in
 *            additionalMetadata.task_id, next to request_id.
 * Errors:    TASK_REFUSED for everything that was answered with 4xx or never written; TASK_UNKNOWN after a
 *            lookup by our id found nothing.
 * Not done:  timeout_ms and expires_ms: a time limit is declared with the workflow in its worker and cannot
 *            be set for one run. owner.
 */
#ifndef TASKS_HATCHET_HATCHET_H
#define TASKS_HATCHET_HATCHET_H

#include "tasks/task_backend.h"

#define HATCHET_MAX_INPUT 4000000 /* the engine's 4 MB, read as the smaller of the two meanings */

/* Settings: token (a JWT; its claims say tenant and server_url) or token_file (a file with nothing else),
 * server_url (as the token says), ca_file (PEM; the system's). */
extern const struct task_backend hatchet_backend;

#endif
