/*
 * What all parts of the client stand on: connections, keys, and which workflows are declared.
 */
#include <stdio.h>

#include "tasks/celery/celery_internal.h"

int celery_connect(struct celery_client *c, const struct redis_url *url, redis_state_fn on_state,
		   struct redis **ret, struct err *e)
{
	const struct redis_options o = {
		.url = url,
		.connect_timeout_ms = c->o->connect_timeout_ms,
		.command_timeout_ms = c->o->command_timeout_ms,
		.on_state = on_state,
		.arg = c,
	};
	return redis_new(c->base.loop, &o, ret, e);
}

struct span celery_result_key(const struct celery_client *c, struct span id, char key[CELERY_KEY_MAX])
{
	int n = snprintf(key, CELERY_KEY_MAX, "%s" CELERY_RESULT_PREFIX "%.*s", c->o->result_prefix,
			 SPAN_ARG(id));
	return (struct span){key, n < (int)CELERY_KEY_MAX ? (size_t)n : CELERY_KEY_MAX - 1};
}

/* One that is not declared is a task of its name, which the Python side makes its chain of. */
const struct workflow_definition *celery_workflow(const struct celery_client *c, bool workflow,
						  struct span name)
{
	return workflow && c->o->workflows ? registry_workflow(c->o->workflows, name) : NULL;
}
