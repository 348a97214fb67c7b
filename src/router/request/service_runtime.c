/* What requests hold of their plane: the service as it was configured when they came, and the plane's
 * clients of backends. */
#include <stdlib.h>

#include "router/plane_internal.h"

struct service_runtime *service_runtime_ref(struct service_runtime *s)
{
	s->refs++;
	return s;
}

struct service_runtime *service_runtime_unref(struct service_runtime *s)
{
	if (!s || --s->refs > 0)
		return NULL;
	legacy_upstream_free(s->upstream);
	route_table_free(s->routes);
	config_unref(s->config);
	free(s);
	return NULL;
}

struct task_client *plane_client(struct plane *p, struct span backend)
{
	for (size_t i = 0; i < p->env->n_backends; i++)
		if (span_eq(p->env->backends[i].name, backend))
			return p->clients[i];
	return NULL;
}
