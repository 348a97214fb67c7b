#include "tasks/worker/handler.h"

#include <string.h>

/* They become a field and a variable. */
static bool handler_trace_is_plain(const struct handler_call *call)
{
	struct span parent = call->traceparent, state = call->tracestate;
	if (parent.len != TASK_TRACE_PARENT - 1 || state.len > TASK_TRACE_STATE_MAX)
		return false;
	for (size_t i = 0; i < parent.len; i++)
		if (!strchr("0123456789abcdef-", parent.ptr[i]) || !parent.ptr[i])
			return false;
	for (size_t i = 0; i < state.len; i++)
		if (state.ptr[i] < ' ' || state.ptr[i] >= 0x7f)
			return false;
	return true;
}

int handler_start(const struct handler_env *env, const struct task_definition *t,
		  const struct handler_call *call, handler_done_fn done, void *arg, struct handler_run **ret,
		  struct err *e)
{
	struct handler_call safe = *call;
	if (!handler_trace_is_plain(call)) /* whoever wrote into the queue */
		safe.traceparent = safe.tracestate = SPAN_NONE;
	call = &safe;
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
