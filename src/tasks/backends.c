/*
 * The build defines TASK_BACKENDS as BACKEND(embedded) BACKEND(celery) …, and TASK_BACKENDS_LEFT_OUT in the
 * same way. To add a backend, see src/tasks/meson.build: nothing changes here.
 */
#include "tasks/backends.h"

#include <errno.h>

#include "base/nearest.h"

#define BACKEND(name) extern const struct task_backend name##_backend;
TASK_BACKENDS
#undef BACKEND

static const struct task_backend *const backends[] = {
#define BACKEND(name) &name##_backend,
	TASK_BACKENDS
#undef BACKEND
};

static const char *const left_out[] = {
#define BACKEND(name) #name,
	TASK_BACKENDS_LEFT_OUT
#undef BACKEND
		NULL};

#define N_BACKENDS (sizeof(backends) / sizeof(backends[0]))

const struct task_backend *task_backend_find(struct span name)
{
	for (size_t i = 0; i < N_BACKENDS; i++)
		if (span_is(name, backends[i]->name))
			return backends[i];
	return NULL;
}

static bool is_left_out(struct span name)
{
	for (size_t i = 0; left_out[i]; i++)
		if (span_is(name, left_out[i]))
			return true;
	return false;
}

bool task_backend_is_name(struct span name)
{
	return task_backend_find(name) || is_left_out(name);
}

static const char *nearest_backend(struct span name)
{
	const char *names[N_BACKENDS];
	for (size_t i = 0; i < N_BACKENDS; i++)
		names[i] = backends[i]->name;
	return nearest_word(name, names, N_BACKENDS);
}

int task_backend_not_found(struct span name, struct err *e)
{
	CLEANUP(buf_releasep) struct buf known = BUF_INIT(1024);
	const char *near = nearest_backend(name);
	if (near && !is_left_out(name))
		return err_set(e, -EINVAL, "there is no backend \"%.*s\"; did you mean \"%s\"?",
			       SPAN_ARG(name), near);
	task_backend_names(&known);
	return err_set(e, -EINVAL,
		       is_left_out(name) ? "the backend \"%.*s\" is not part of this build, which has: %s"
					 : "there is no backend \"%.*s\"; available: %s",
		       SPAN_ARG(name), known.ptr ? known.ptr : "none");
}

int task_backend_names(struct buf *out)
{
	for (size_t i = 0; i < N_BACKENDS; i++)
		buf_printf(out, "%s%s", i ? ", " : "", backends[i]->name);
	return out->error;
}
