#include "tasks/hatchet/worker/wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tasks/hatchet/hatchet_worker.pb-c.h"

#define SLOT_TYPE "default"
#define BACKOFF_FACTOR 2.0f
#define BACKOFF_MAX_S 60

/* --- bytes ---------------------------------------------------------------------------------------------- */

static int wire_pack(struct buf *out, const ProtobufCMessage *m)
{
	size_t size = protobuf_c_message_get_packed_size(m);
	int r = buf_reserve(out, size);
	if (r < 0)
		return r;
	protobuf_c_message_pack(m, (uint8_t *)out->ptr + out->len);
	out->len += size;
	buf_terminate(out);
	return 0;
}

static void *wire_unpack(const ProtobufCMessageDescriptor *d, struct span text)
{
	return protobuf_c_message_unpack(d, NULL, text.len, (const uint8_t *)text.ptr);
}

/* The generated code has no const texts; it only reads them. */
static char *wire_text(const char *text)
{
	static char empty[1];
	union {
		const char *in;
		char *out;
	} u = {.in = text};
	return text ? u.out : empty;
}

static HatchetProto__Instant wire_instant(int64_t us)
{
	HatchetProto__Instant t = HATCHET_PROTO__INSTANT__INIT;
	t.has_seconds = t.has_nanos = true;
	t.seconds = us / 1000000;
	t.nanos = (int32_t)(us % 1000000) * 1000;
	return t;
}

/* --- what is declared ----------------------------------------------------------------------------------- */

struct wire_task {
	HatchetProto__TaskDeclaration m;
	HatchetProto__Slots slots, *slot_list[1];
	char timeout[32];
	char *parents[64];
};

static void wire_task_fill(struct wire_task *t, const struct hatchet_declared *d, size_t i)
{
	const struct hatchet_declared_task *from = &d->tasks[i];
	t->m = (HatchetProto__TaskDeclaration)HATCHET_PROTO__TASK_DECLARATION__INIT;
	t->slots = (HatchetProto__Slots)HATCHET_PROTO__SLOTS__INIT;
	t->slots.type = wire_text(SLOT_TYPE);
	t->slots.has_units = true;
	t->slots.units = 1;
	t->slot_list[0] = &t->slots;
	t->m.name = wire_text(from->name);
	t->m.action = wire_text(from->action);
	snprintf(t->timeout, sizeof(t->timeout), "%llums", (unsigned long long)from->timeout_ms);
	t->m.timeout = t->timeout;
	t->m.has_retries = true;
	t->m.retries = (int32_t)from->retries;
	if (from->retries) {
		t->m.has_backoff_factor = t->m.has_backoff_max_seconds = true;
		t->m.backoff_factor = BACKOFF_FACTOR;
		t->m.backoff_max_seconds = BACKOFF_MAX_S;
	}
	t->m.n_slots = 1;
	t->m.slots = t->slot_list;
	t->m.parents = t->parents;
	for (size_t p = 0; p < d->n_tasks; p++)
		if (from->parents >> p & 1)
			t->parents[t->m.n_parents++] = wire_text(d->tasks[p].name);
}

int hatchet_wire_put_workflow(struct buf *out, const struct hatchet_declared *d)
{
	HatchetProto__WorkflowDeclaration m = HATCHET_PROTO__WORKFLOW_DECLARATION__INIT;
	HatchetProto__TaskDeclaration *list[64];
	struct wire_task *tasks = calloc(d->n_tasks ? d->n_tasks : 1, sizeof(*tasks));
	if (!tasks)
		return -ENOMEM;
	for (size_t i = 0; i < d->n_tasks; i++) {
		wire_task_fill(&tasks[i], d, i);
		list[i] = &tasks[i].m;
	}
	m.name = wire_text(d->name);
	m.description = wire_text(d->description);
	m.n_tasks = d->n_tasks;
	m.tasks = list;
	int r = wire_pack(out, &m.base);
	free(tasks);
	return r;
}

/* --- the worker itself ---------------------------------------------------------------------------------- */

int hatchet_wire_put_register(struct buf *out, const char *name, const char *const *actions, size_t n_actions,
			      unsigned slots)
{
	HatchetProto__RegisterRequest m = HATCHET_PROTO__REGISTER_REQUEST__INIT;
	HatchetProto__Runtime runtime = HATCHET_PROTO__RUNTIME__INIT;
	HatchetProto__Slots one = HATCHET_PROTO__SLOTS__INIT, *slot_list[] = {&one};
	char *services[] = {wire_text("default")};
	char **list = calloc(n_actions ? n_actions : 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < n_actions; i++)
		list[i] = wire_text(actions[i]);
	one.type = wire_text(SLOT_TYPE);
	one.has_units = true;
	one.units = (int32_t)slots;
	runtime.os = wire_text("linux");
	runtime.extra = wire_text("task-backend-worker");
	m.worker_name = wire_text(name);
	m.n_actions = n_actions;
	m.actions = list;
	m.n_services = 1;
	m.services = services;
	m.runtime = &runtime;
	m.n_slots = 1;
	m.slots = slot_list;
	int r = wire_pack(out, &m.base);
	free(list);
	return r;
}

int hatchet_wire_read_register(struct span reply, char ret[HATCHET_WORKER_ID_MAX])
{
	HatchetProto__RegisterReply *m = wire_unpack(&hatchet_proto__register_reply__descriptor, reply);
	bool good = m && m->worker_id && m->worker_id[0] && strlen(m->worker_id) < HATCHET_WORKER_ID_MAX;
	if (good)
		strcpy(ret, m->worker_id);
	if (m)
		hatchet_proto__register_reply__free_unpacked(m, NULL);
	return good ? 0 : -EBADMSG;
}

int hatchet_wire_put_listen(struct buf *out, const char *worker_id)
{
	HatchetProto__ListenRequest m = HATCHET_PROTO__LISTEN_REQUEST__INIT;
	m.worker_id = wire_text(worker_id);
	return wire_pack(out, &m.base);
}

int hatchet_wire_put_heartbeat(struct buf *out, const char *worker_id, int64_t now_us)
{
	HatchetProto__HeartbeatRequest m = HATCHET_PROTO__HEARTBEAT_REQUEST__INIT;
	HatchetProto__Instant at = wire_instant(now_us);
	m.worker_id = wire_text(worker_id);
	m.at = &at;
	return wire_pack(out, &m.base);
}

/* --- what it is given ----------------------------------------------------------------------------------- */

static enum hatchet_action_kind wire_action_kind(HatchetProto__ActionKind kind)
{
	if (kind == HATCHET_PROTO__ACTION_KIND__ACTION_START)
		return HATCHET_ACTION_START;
	return kind == HATCHET_PROTO__ACTION_KIND__ACTION_CANCEL ? HATCHET_ACTION_CANCEL
								 : HATCHET_ACTION_OTHER;
}

int hatchet_wire_read_action(struct span message, struct hatchet_action *ret)
{
	HatchetProto__AssignedAction *m = wire_unpack(&hatchet_proto__assigned_action__descriptor, message);
	*ret = (struct hatchet_action){.message = m};
	if (!m)
		return -EBADMSG;
	ret->kind = wire_action_kind(m->kind);
	ret->task_run_id = wire_text(m->task_run_id);
	ret->workflow_run_id = wire_text(m->workflow_run_id);
	ret->job_id = wire_text(m->job_id);
	ret->job_run_id = wire_text(m->job_run_id);
	ret->task_id = wire_text(m->task_id);
	ret->action_id = wire_text(m->action_id);
	ret->task_name = wire_text(m->task_name);
	ret->retry_count = m->retry_count;
	ret->payload = span_of(wire_text(m->payload));
	ret->metadata = m->metadata ? span_of(m->metadata) : SPAN_NONE;
	return 0;
}

void hatchet_action_release(struct hatchet_action *a)
{
	if (a->message)
		hatchet_proto__assigned_action__free_unpacked(a->message, NULL);
	*a = (struct hatchet_action){0};
}

/* --- what it tells -------------------------------------------------------------------------------------- */

int hatchet_wire_put_event(struct buf *out, const struct hatchet_event *v)
{
	static const HatchetProto__EventKind kinds[] = {
		[HATCHET_EVENT_STARTED] = HATCHET_PROTO__EVENT_KIND__EVENT_STARTED,
		[HATCHET_EVENT_COMPLETED] = HATCHET_PROTO__EVENT_KIND__EVENT_COMPLETED,
		[HATCHET_EVENT_FAILED] = HATCHET_PROTO__EVENT_KIND__EVENT_FAILED,
		[HATCHET_EVENT_CANCELLED] = HATCHET_PROTO__EVENT_KIND__EVENT_CANCELLED};
	HatchetProto__StepEvent m = HATCHET_PROTO__STEP_EVENT__INIT;
	HatchetProto__Instant at = wire_instant(v->at_us);
	m.worker_id = wire_text(v->worker_id);
	m.job_id = wire_text(v->job_id);
	m.job_run_id = wire_text(v->job_run_id);
	m.task_id = wire_text(v->task_id);
	m.task_run_id = wire_text(v->task_run_id);
	m.action_id = wire_text(v->action_id);
	m.at = &at;
	m.has_kind = true;
	m.kind = kinds[v->kind];
	m.payload = wire_text(v->payload);
	m.has_retry_count = true;
	m.retry_count = v->retry_count;
	if (v->kind == HATCHET_EVENT_FAILED) {
		m.has_should_not_retry = true;
		m.should_not_retry = v->final;
	}
	return wire_pack(out, &m.base);
}
