/*
 * What the settings of backend `temporal` come to; for temporal*.c only.
 */
#ifndef TASKS_TEMPORAL_TEMPORAL_OPTIONS_H
#define TASKS_TEMPORAL_TEMPORAL_OPTIONS_H

#include "base/buf.h"
#include "tasks/task_options.h"

struct temporal_options {
	struct task_options options;
	char *http_url, *host, *namespace_name, *task_queue;
	char *authorization; /* "Bearer …", or NULL */
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
