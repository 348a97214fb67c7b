#include "tasks/worker/handler.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/text.h"

void handler_put_told(const struct task_definition *t, struct span said, struct buf *out)
{
	/* A secret of four bytes becomes three: it does not grow. */
	CLEANUP(buf_releasep) struct buf hidden = BUF_INIT(said.len), masked = BUF_INIT(4 * TEXT_MASKED_MAX);
	if (secrets_put_hidden(&t->secrets, said, false, &hidden) < 0)
		buf_clear(&hidden); /* rather nothing than all of it */
	text_put_masked(&masked, buf_span(&hidden));
	text_put_lines(out, buf_span(&masked));
}

void handler_fail(struct handler_run *run, bool unknown, struct span error, struct span detail)
{
	struct handler_outcome o = {.error = error,
				    .detail = detail,
				    .unknown = unknown,
				    .retry = run->retry,
				    .retry_after_ms = run->retry_after_ms};
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
