/*
 * Backend `hatchet`: the REST interface of a Hatchet engine (v1), measured in protocols/hatchet.md.
 *
 * Why:       the engine takes a submission in 15-27 ms and keeps, retries and runs it; here it is asked over plain HTTP.
 * Shape:     settings are made once from the options (the token is read and looked into) and shared by the clients of all loops.
 * Names:     the task `t` runs as the workflow `t_workflow` with one task `t`, its input {"args":[…],"kwargs":{…}}; a `workflow` by its own
 *            name. `single_input` sends args[0], an object, as the whole input.
 * Ids:       a task's id is the id of its run, made by the engine. Ours travels in additionalMetadata.task_id, beside request_id.
 * Errors:    TASK_REFUSED for everything that was answered with 4xx or never written; TASK_UNKNOWN after a look-up by our id found nothing.
 * Not done:  timeout_ms and expires_ms: a time limit is declared with the workflow in its worker and cannot be set for one run. owner.
 */
#ifndef TASKS_HATCHET_H
#define TASKS_HATCHET_H

#include <stddef.h>

#include "base/err.h"
#include "base/span.h"
#include "tasks/task_backend.h"

#define HATCHET_MAX_INPUT 4000000 /* the engine's 4 MB, read as the smaller of the two meanings */

struct hatchet_options {
	struct span token;	/* a JWT; its claims say tenant (sub) and server_url. One of the two must be there */
	struct span token_file; /* a file with nothing else; blanks around it do not matter */
	struct span server_url; /* SPAN_NONE: as the token says */
	struct span ca_file;	/* PEM; SPAN_NONE: the system's */
	/* Workflows that must have a worker for health to say so: names as the engine has them, separated by commas. Empty: any worker. */
	struct span workflows;
	/* Milliseconds; 0 means what is in brackets. */
	unsigned request_ms;	 /* one request, start to end [30 s] */
	unsigned name_ms;	 /* how long the engine's knowledge of a workflow is believed [60 s] */
	unsigned grace_ms;	 /* how long a run may be unknown to the engine that has taken it [10 s] */
	unsigned unreachable_ms; /* how long a wait bears an engine that does not answer [60 s] */
	unsigned flicker_ms;	 /* between two looks at a failure that may be retried [1 s] */
};

struct hatchet_settings;

/* Copies what it needs. Errors: a token that is missing, malformed or expired, a URL that is none. Its sentences never show the token. */
int hatchet_settings_new(const struct hatchet_options *o, struct hatchet_settings **ret, struct err *e);
struct hatchet_settings *hatchet_settings_free(struct hatchet_settings *s); /* after its clients; NULL is fine; returns NULL */

/* client_new's options are a `struct hatchet_settings *`, which outlives the client. */
extern const struct task_backend hatchet_backend;

#endif
