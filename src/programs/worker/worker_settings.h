/*
 * The settings of a worker's backend, from router.yml and the environment, as the router reads them.
 *
 * Errors: mistakes are told on standard error, each with its place.
 */
#ifndef PROGRAMS_WORKER_WORKER_SETTINGS_H
#define PROGRAMS_WORKER_WORKER_SETTINGS_H

#include "config/config.h"
#include "tasks/task_options.h"

struct worker_settings {
	struct task_options *options;
	char *queue; /* of tasks that name none; NULL: the registry's default */
	char *data_dir;
	bool configured; /* from a file; the environment is in it already */
};

/* From a configuration, which may go after. */
int worker_settings_take(struct worker_settings *s, const struct config *c, const struct backend_config *b);
/* The rest from the environment; checked and started. */
int worker_settings_complete(struct worker_settings *s, const char *backend);
/* Asks the backend, and says it in a line; an exit code. */
int worker_settings_health(const struct worker_settings *s);
void worker_settings_release(struct worker_settings *s);

#endif
