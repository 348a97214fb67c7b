#include "tasks/celery/worker/telling.h"

#include "base/clock.h"
#include "base/json.h"
#include "tasks/celery/worker/answer.h"

#define REPR_MAX 1024
#define FIELDS_MAX (64u << 10)

static void telling_put(struct buf *out, const char *name, struct span raw)
{
	buf_printf(out, ", \"%s\": ", name);
	buf_append_span(out, raw.ptr ? raw : SPAN_LIT("null"));
}

static void telling_put_repr(struct buf *out, const char *name, struct span value)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(FIELDS_MAX);
	celery_repr(value, REPR_MAX, &text);
	buf_printf(out, ", \"%s\": ", name);
	json_quote(out, buf_span(&text));
}

static void telling_put_instant(struct buf *out, const char *name, int64_t us)
{
	if (us == 0) {
		buf_printf(out, ", \"%s\": null", name);
		return;
	}
	buf_printf(out, ", \"%s\": \"", name);
	celery_put_instant(out, us);
	buf_putc(out, '"');
}

void celery_tell_received(struct celery_events *v, const struct celery_request *r)
{
	CLEANUP(buf_releasep) struct buf f = BUF_INIT(FIELDS_MAX);
	const struct celery_incoming *m = &r->m;
	if (!v->tasks)
		return;
	buf_puts(&f, ", \"name\": ");
	json_quote(&f, span_of(m->task));
	if (m->argsrepr.ptr)
		telling_put(&f, "args", m->argsrepr);
	else
		telling_put_repr(&f, "args", m->args);
	if (m->kwargsrepr.ptr)
		telling_put(&f, "kwargs", m->kwargsrepr);
	else
		telling_put_repr(&f, "kwargs", m->kwargs);
	telling_put(&f, "root_id", m->root_id);
	telling_put(&f, "parent_id", m->parent_id);
	buf_printf(&f, ", \"retries\": %u", m->retries);
	telling_put_instant(&f, "eta", m->eta_us);
	telling_put_instant(&f, "expires", m->expires_us);
	celery_events_task(v, "task-received", m->id, f.error ? SPAN_NONE : buf_span(&f));
}

void celery_tell_started(struct celery_events *v, const struct celery_request *r)
{
	celery_events_task(v, "task-started", r->m.id, SPAN_NONE);
}

void celery_tell_ended(struct celery_events *v, const struct celery_request *r)
{
	CLEANUP(buf_releasep) struct buf f = BUF_INIT(FIELDS_MAX), repr = BUF_INIT(FIELDS_MAX);
	if (!v->tasks)
		return;
	if (strcmp(r->status, "SUCCESS") == 0) {
		telling_put_repr(&f, "result", buf_span(&r->result));
		buf_printf(&f, ", \"runtime\": %.6f", (double)(clock_wall_us() - r->begun_us) / 1e6);
		celery_events_task(v, "task-succeeded", r->m.id, buf_span(&f));
		return;
	}
	celery_put_exception_repr(r->exc_type, r->error.len ? buf_span(&r->error) : SPAN_NONE, &repr);
	buf_puts(&f, ", \"exception\": ");
	json_quote(&f, buf_span(&repr));
	buf_puts(&f, ", \"traceback\": ");
	json_quote(&f, (struct span){r->detail.ptr ? r->detail.ptr : "",
				     r->detail.len < 8192 ? r->detail.len : 8192});
	bool retried = strcmp(r->status, "RETRY") == 0;
	celery_events_task(v, retried ? "task-retried" : "task-failed", r->m.id,
			   f.error ? SPAN_NONE : buf_span(&f));
}

void celery_tell_revoked(struct celery_events *v, const struct celery_request *r, bool terminated,
			 bool expired)
{
	CLEANUP(buf_releasep) struct buf f = BUF_INIT(1024);
	buf_printf(&f, ", \"terminated\": %s, \"signum\": %s, \"expired\": %s", terminated ? "true" : "false",
		   terminated ? "15" : "null", expired ? "true" : "false");
	celery_events_task(v, "task-revoked", r->m.id, buf_span(&f));
}
