/*
 * What the settings of backend `temporal` come to; for temporal*.c only.
 */
#ifndef TASKS_TEMPORAL_TEMPORAL_OPTIONS_H
#define TASKS_TEMPORAL_TEMPORAL_OPTIONS_H

#include "base/buf.h"
#include "tasks/task_options.h"

#define TEMPORAL_DEFAULT_QUEUE "task-abstraction-queue"

struct temporal_options {
	struct task_options options;
	char *http_url, *host, *port, *namespace_name, *task_queue;
	/* of gRPC, for workers: host:port. NULL: nothing says it. */
	char *address;
	bool address_says_tls, address_tls;
	unsigned poll_timeout_ms, heartbeat_timeout_ms; /* heartbeat: 0 none */
	char *authorization;				/* "Bearer …", or NULL */
	char *ca_file, *client_cert, *client_key;
	unsigned execution_timeout_ms;
	bool http_url_is_guessed; /* of host, with the usual port */
	char *base;		  /* <http_url>/api/v1/namespaces/<namespace>, by check */
};

extern const struct task_setting temporal_settings[];
int temporal_options_check(struct task_options *options, const struct task_backend_setup *setup,
			   struct err *e);
void temporal_options_release(struct task_options *options);

#endif
