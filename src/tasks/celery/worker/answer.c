#include "tasks/celery/worker/answer.h"

#include "base/json.h"
#include "tasks/celery/celery_message.h"
#include "tasks/celery/worker/incoming.h"

int celery_put_answer(const struct celery_answer *a, struct buf *out)
{
	buf_printf(out, "{\"status\": \"%s\", \"result\": ", a->status);
	buf_append_span(out, a->result);
	buf_puts(out, ", \"traceback\": ");
	if (a->traceback.ptr)
		json_quote(out, a->traceback);
	else
		buf_puts(out, "null");
	buf_puts(out, ", \"children\": ");
	buf_append_span(out, a->children.ptr ? a->children : SPAN_LIT("[]"));
	buf_puts(out, ", \"date_done\": ");
	if (a->done_us) {
		buf_putc(out, '"');
		celery_put_instant(out, a->done_us);
		buf_putc(out, '"');
	} else {
		buf_puts(out, "null");
	}
	if (a->group.ptr) {
		buf_puts(out, ", \"group_id\": ");
		buf_append_span(out, a->group);
	}
	if (a->parent_id.ptr) {
		buf_puts(out, ", \"parent_id\": ");
		buf_append_span(out, a->parent_id);
	}
	buf_puts(out, ", \"task_id\": ");
	json_quote(out, a->id);
	return buf_putc(out, '}');
}

int celery_put_exception(const char *type, const char *module, struct span message, struct buf *out)
{
	buf_printf(out, "{\"exc_type\": \"%s\", \"exc_message\": [", type);
	if (message.ptr)
		json_quote(out, message);
	return buf_printf(out, "], \"exc_module\": \"%s\"}", module);
}

int celery_put_time_limit(int64_t ms, struct buf *out)
{
	buf_puts(out, "{\"exc_type\": \"TimeLimitExceeded\", \"exc_message\": [");
	celery_put_seconds((unsigned)(ms < UINT32_MAX ? ms : UINT32_MAX), out);
	return buf_puts(out, "], \"exc_module\": \"billiard.exceptions\"}");
}

int celery_put_exception_repr(const char *type, struct span message, struct buf *out)
{
	CLEANUP(buf_releasep) struct buf quoted = BUF_INIT(1u << 16);
	buf_printf(out, "%s(", type);
	if (message.ptr &&
	    json_quote(&quoted, (struct span){message.ptr, message.len < 1024 ? message.len : 1024}) == 0)
		celery_repr(buf_span(&quoted), 1024, out);
	return buf_putc(out, ')');
}
