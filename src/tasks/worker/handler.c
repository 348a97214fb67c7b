#include "tasks/worker/handler.h"

int handler_start(const struct handler_env *env, const struct task_definition *t,
		  const struct handler_call *call, handler_done_fn done, void *arg, struct handler_run **ret,
		  struct err *e)
{
	switch (t->kind) {
	case HANDLER_EXEC:
		return handler_start_exec(env, t, call, done, arg, ret, e);
	case HANDLER_HTTP:
		return handler_start_http(env, t, call, done, arg, ret, e);
	case HANDLER_BUILTIN:
		break;
	}
	return handler_start_builtin(env, t, call, done, arg, ret, e);
}

void handler_kill(struct handler_run *run)
{
	run->kill(run);
}

void handler_ask(struct handler_run *run)
{
	if (run->ask)
		run->ask(run);
	else
		run->kill(run);
}
