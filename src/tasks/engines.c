/* The build defines TASK_ENGINES as ENGINE(embedded) ENGINE(celery) …: see src/tasks/meson.build. */
#include "tasks/worker/engine.h"

#define ENGINE(name) extern const struct worker_engine name##_engine;
TASK_ENGINES
#undef ENGINE

static const struct worker_engine *const engines[] = {
#define ENGINE(name) &name##_engine,
	TASK_ENGINES
#undef ENGINE
};

#define N_ENGINES (sizeof(engines) / sizeof(engines[0]))

const struct worker_engine *worker_engine_find(struct span name)
{
	for (size_t i = 0; i < N_ENGINES; i++)
		if (span_is(name, engines[i]->name))
			return engines[i];
	return NULL;
}

int worker_engine_names(struct buf *out)
{
	for (size_t i = 0; i < N_ENGINES; i++)
		buf_printf(out, "%s%s", i ? ", " : "", engines[i]->name);
	return out->error;
}
