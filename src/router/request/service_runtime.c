/* What requests hold of their plane: the service as it was configured when they came, and the plane's
 * clients of backends. */
#include <stdlib.h>

#include "base/clock.h"
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

size_t plane_backend(const struct plane *p, struct span backend)
{
	size_t i = 0;
	while (i < p->env->n_backends && !span_eq(p->env->backends[i].name, backend))
		i++;
	return i;
}

struct task_client *plane_client(struct plane *p, struct span backend)
{
	size_t i = plane_backend(p, backend);
	return i < p->env->n_backends ? p->clients[i] : NULL;
}

void plane_look_at_breakers(const struct plane *p, struct breaker_view *ret)
{
	int64_t now_us = clock_mono_us();
	ret->n = 0;
	for (size_t i = 0; i < p->env->n_backends; i++)
		breaker_look(p->env->backends[i].breaker, now_us, ret);
}
