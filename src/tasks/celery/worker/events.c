#include "tasks/celery/worker/events.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/json.h"

#define PENDING_MAX (4u << 20)

/* Where fanout messages of an exchange go: <prefix><fanout prefix><exchange>[/<routing key>]. */
static void events_channel(const struct celery_events *v, const char *key, struct buf *out)
{
	celery_put_fanout_prefix(v->c, out);
	buf_puts(out, "celeryev");
	if (!v->c->fanout_plain)
		buf_printf(out, "/%s", key);
}

static void events_publish(struct celery_events *v, const char *key, struct span body)
{
	CLEANUP(buf_releasep) struct buf channel = BUF_INIT(4096), message = BUF_INIT(2 * PENDING_MAX);
	char tag[CRYPTO_UUID];
	crypto_uuid4(tag);
	events_channel(v, key, &channel);
	buf_puts(&message, "{\"body\": \"");
	base64_encode(body, &message);
	buf_puts(&message, "\", \"content-encoding\": \"utf-8\", \"content-type\": \"application/json\", "
			   "\"headers\": {\"hostname\": ");
	json_quote(&message, span_of(v->hostname));
	buf_printf(
		&message,
		"}, \"properties\": {\"delivery_mode\": 1, \"delivery_info\": {\"exchange\": \"celeryev\", "
		"\"routing_key\": \"%s\"}, \"priority\": 0, \"body_encoding\": \"base64\", "
		"\"delivery_tag\": \"%s\"}}",
		key, tag);
	const struct span words[] = {SPAN_LIT("PUBLISH"), buf_span(&channel), buf_span(&message)};
	if (!message.error)
		redis_command(v->redis, words, 3, 0, NULL, NULL);
}

/* The members that every event has; the brace stays open. */
static void events_begin(struct celery_events *v, const char *type, struct buf *out)
{
	buf_puts(out, "{\"hostname\": ");
	json_quote(out, span_of(v->hostname));
	buf_printf(
		out,
		", \"utcoffset\": 0.0, \"pid\": %ld, \"clock\": %llu, \"timestamp\": %.6f, \"type\": \"%s\"",
		(long)getpid(), (unsigned long long)++v->clock, (double)clock_wall_us() / 1e6, type);
}

void celery_events_put_software(struct buf *out)
{
	struct utsname system;
	const char *name = uname(&system) == 0 ? system.sysname : "Linux";
	buf_printf(out,
		   "\"sw_ident\": \"task-backend-worker\", \"sw_ver\": \"" PROJECT_VERSION
		   "\", \"sw_sys\": \"%s\"",
		   name);
}

void celery_events_worker(struct celery_events *v, const char *type, unsigned active, uint64_t processed)
{
	CLEANUP(buf_releasep) struct buf body = BUF_INIT(1u << 16);
	char key[64];
	double load[3] = {0};
	getloadavg(load, 3);
	snprintf(key, sizeof(key), "worker.%s", strchr(type, '-') + 1);
	events_begin(v, type, &body);
	buf_printf(&body,
		   ", \"freq\": %.1f, \"active\": %u, \"processed\": %llu, \"loadavg\": [%.2f, %.2f, %.2f], ",
		   CELERY_HEARTBEAT_MS / 1000.0, active, (unsigned long long)processed, load[0], load[1],
		   load[2]);
	celery_events_put_software(&body);
	buf_putc(&body, '}');
	celery_events_flush(v);
	events_publish(v, key, buf_span(&body));
}

void celery_events_flush(struct celery_events *v)
{
	if (v->pending.len == 0)
		return;
	buf_putc(&v->pending, ']');
	if (!v->pending.error)
		events_publish(v, "task.multi", buf_span(&v->pending));
	buf_clear(&v->pending);
}

static void events_on_flush(struct loop_work *work)
{
	struct celery_events *v =
		(struct celery_events *)((char *)work - offsetof(struct celery_events, flush));
	v->flush_due = false;
	celery_events_flush(v);
}

void celery_events_task(struct celery_events *v, const char *type, const char *id, struct span fields)
{
	if (!v->tasks)
		return;
	buf_puts(&v->pending, v->pending.len ? ", " : "[");
	events_begin(v, type, &v->pending);
	buf_puts(&v->pending, ", \"uuid\": ");
	json_quote(&v->pending, span_of(id));
	buf_append_span(&v->pending, fields.ptr ? fields : SPAN_LIT(""));
	buf_putc(&v->pending, '}');
	if (v->pending.error) { /* one that is too large costs those of this round */
		buf_clear(&v->pending);
		return;
	}
	if (!v->flush_due) {
		v->flush_due = true;
		loop_defer(v->loop, &v->flush);
	}
}

void celery_events_init(struct celery_events *v, struct loop *loop, const struct celery_options *c,
			struct redis *broker, const char *hostname)
{
	v->loop = loop;
	v->c = c;
	v->redis = broker;
	v->hostname = hostname;
	v->tasks = c->task_events;
	v->flush.fn = events_on_flush;
	buf_init(&v->pending, PENDING_MAX);
}

void celery_events_release(struct celery_events *v)
{
	if (!v->loop)
		return;
	loop_defer_cancel(v->loop, &v->flush);
	buf_release(&v->pending);
}
