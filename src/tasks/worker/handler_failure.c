#include "tasks/worker/handler.h"

#include <stdarg.h>
#include <stdio.h>

void handler_fail(struct handler_run *run, bool unknown, struct span error, struct span detail)
{
	struct handler_outcome o = {.error = error, .detail = detail, .unknown = unknown};
	run->done(run->arg, &o);
}

void handler_fail_as(struct handler_run *run, bool unknown, const struct task_definition *t,
		     struct span detail, const char *format, ...)
{
	char text[512];
	int n = snprintf(text, sizeof(text), "%.*s: ", t->name.len < 128 ? (int)t->name.len : 128,
			 t->name.ptr);
	va_list ap;
	va_start(ap, format);
	vsnprintf(text + n, sizeof(text) - (size_t)n, format, ap);
	va_end(ap);
	handler_fail(run, unknown, span_of(text), detail);
}
