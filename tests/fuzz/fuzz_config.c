/* Configuration: any text is either refused with a sentence or gives a configuration that can be used and
 * freed. */
#include <assert.h>
#include <stdint.h>

#include "config/config.h"
#include "operation/route.h"

static const char *no_environment(const char *name)
{
	(void)name;
	return NULL;
}

static void use(const struct config *c)
{
	struct route_match m;
	assert(c->n_services > 0 && c->admin.listen);
	for (size_t i = 0; i < c->n_services; i++) {
		const struct service *s = &c->services[i];
		struct route_table *t = NULL;
		assert(s->listen && s->legacy_url);
		assert(route_table_new(s->operations, s->n_operations, &t, NULL) == 0);
		for (size_t j = 0; j < s->n_operations; j++) {
			const struct operation *op = &s->operations[j];
			assert(!op->has_task || (op->auth.kind != AUTH_UNSET && op->task.task.ptr));
			/* A template without parameters is a target that it matches. */
			if (!memchr(op->path.ptr, '{', op->path.len))
				assert(route_match(t, op->method, op->path, &m) && m.operation == op);
		}
		route_table_free(t);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config *c = NULL;
	CLEANUP(buf_releasep) struct buf problems = BUF_INIT(8 << 20);
	int code = config_parse("fuzz/c.yml", (struct span){(const char *)data, size}, no_environment,
				&problems, &c);
	assert((code == 0) == (c != NULL));
	assert(code == 0 || problems.len > 0);
	if (c)
		use(c);
	config_unref(c);
	return 0;
}
