#include "tasks/backends.h"

#include "base/buf.h"
#include "tasks/celery.h"
#include "tasks/embedded.h"
#include "tasks/hatchet.h"
#include "tasks/temporal.h"

static const struct task_backend *const backends[] = {
	&embedded_backend,
	&celery_backend,
	&temporal_backend,
	&hatchet_backend,
};

const struct task_backend *task_backend_find(struct span name, struct err *e)
{
	CLEANUP(buf_releasep) struct buf known = BUF_INIT(256);
	for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
		if (span_is(name, backends[i]->name))
			return backends[i];
		buf_printf(&known, "%s%s", i ? ", " : "", backends[i]->name);
	}
	err_set(e, 0, "unknown task backend \"%.*s\"; there are: %s", SPAN_ARG(name), known.ptr ? known.ptr : "none");
	return NULL;
}
