#include "tasks/temporal/worker/decide.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <temporal_api.pb-c.h>

#include "base/json.h"
#include "tasks/temporal/temporal_wire.h"
#include "tasks/temporal/worker/api.h"
#include "tasks/workflow/workflow_plan.h"

#define DECISION_MAX (256u << 20)
#define DEFINITION_KEY "definition"
#define TIMER_ID "timeout"
#define SINGLE_ID "1" /* as Temporal's SDKs number */
#define ACTIVITY_ID_MAX 1000
#define TEMPORAL_MAX_ARGUMENT (64u << 20)

/* temporal.api.enums.v1 */
enum {
	EVENT_STARTED = 1,
	EVENT_TASK_COMPLETED = 7,
	EVENT_ACTIVITY_SCHEDULED = 10,
	EVENT_ACTIVITY_COMPLETED = 12,
	EVENT_ACTIVITY_FAILED = 13,
	EVENT_ACTIVITY_TIMED_OUT = 14,
	EVENT_ACTIVITY_CANCELED = 16,
	EVENT_TIMER_STARTED = 17,
	EVENT_TIMER_FIRED = 18,
	EVENT_CANCEL_REQUESTED = 20,
	EVENT_MARKER = 25
};
enum {
	COMMAND_ACTIVITY = 1,
	COMMAND_TIMER = 3,
	COMMAND_COMPLETE = 4,
	COMMAND_FAIL = 5,
	COMMAND_CANCEL = 7,
	COMMAND_MARKER = 9
};

struct decide_activity {
	int64_t event_id;
	unsigned step, item;
	const char *id, *type;
	struct span result; /* SPAN_NONE: has not completed */
};

struct decide_place {
	unsigned step, item;
};

struct deciding {
	const struct temporal_history *h;
	struct temporal_decision *d;
	const TemporalApi__WorkflowStarted *started;
	const char *type;
	struct buf room; /* for `args` */
	struct span args, kwargs;
	struct decide_activity *activities;
	size_t n_activities;
	bool cancelled, timed_out;
	/* of a single task */
	const struct task_definition *task;
	const char *task_name;
	const TemporalApi__HistoryEvent *end;
	/* of a declared workflow */
	struct arena definition_memory;
	const struct workflow_definition *definition;
	bool frozen; /* it is the history's */
	bool began, timer_due;
	struct workflow_plan *plan;
	struct decide_place *expected;
	size_t n_expected, at_expected;
	struct workflow_source source;
	const TemporalApi__Failure *failure; /* of the activity that ended the whole */
	const struct decide_activity *failed;
};

/* --- commands ------------------------------------------------------------------------------------------- */

static TemporalApi__Command *decide_add(struct deciding *x, int type)
{
	struct temporal_decision *d = x->d;
	TemporalApi__Command *c = arena_new(&d->memory, TemporalApi__Command, 1);
	if (!c)
		return NULL;
	if (d->n == d->room) {
		size_t room = d->room ? 2 * d->room : 8;
		TemporalApi__Command **more = arena_new(&d->memory, TemporalApi__Command *, room);
		if (!more)
			return NULL;
		if (d->n)
			memcpy(more, d->commands, d->n * sizeof(*more));
		d->commands = more;
		d->room = room;
	}
	temporal_api__command__init(c);
	c->command_type = type;
	d->commands[d->n++] = c;
	return c;
}

static int decide_memory(struct deciding *x)
{
	return err_set(&x->d->why, -ENOMEM, "out of memory, or a workflow that is too large");
}

static int decide_complete(struct deciding *x, struct span json)
{
	TemporalApi__Command *c = decide_add(x, COMMAND_COMPLETE);
	TemporalApi__CompleteWorkflow *w = arena_new(&x->d->memory, TemporalApi__CompleteWorkflow, 1);
	if (!c || !w)
		return decide_memory(x);
	temporal_api__complete_workflow__init(w);
	w->result = api_payloads(&x->d->memory, &json, 1);
	c->complete_workflow = w;
	return w->result ? 0 : decide_memory(x);
}

static int decide_fail(struct deciding *x, TemporalApi__Failure *f)
{
	TemporalApi__Command *c = decide_add(x, COMMAND_FAIL);
	TemporalApi__FailWorkflow *w = arena_new(&x->d->memory, TemporalApi__FailWorkflow, 1);
	if (!c || !w || !f)
		return decide_memory(x);
	temporal_api__fail_workflow__init(w);
	w->failure = f;
	c->fail_workflow = w;
	return 0;
}

static int decide_cancel(struct deciding *x)
{
	TemporalApi__Command *c = decide_add(x, COMMAND_CANCEL);
	TemporalApi__CancelWorkflow *w = arena_new(&x->d->memory, TemporalApi__CancelWorkflow, 1);
	if (!c || !w)
		return decide_memory(x);
	temporal_api__cancel_workflow__init(w);
	c->cancel_workflow = w;
	return 0;
}

/* The workflow's own header goes on (trace context), and that it is a shadow, which is in its memo. */
static TemporalApi__Header *decide_header(struct deciding *x)
{
	struct arena *a = &x->d->memory;
	const TemporalApi__WorkflowStarted *s = x->started;
	size_t n = s->header ? s->header->n_fields : 0;
	struct span shadow =
		s->memo ? api_entry(s->memo->fields, s->memo->n_fields, TEMPORAL_HEADER_SHADOW) : SPAN_NONE;
	TemporalApi__Header *h = arena_new(a, TemporalApi__Header, 1);
	TemporalApi__PayloadEntry **list = arena_new(a, TemporalApi__PayloadEntry *, n + 1);
	TemporalApi__PayloadEntry *entry = arena_new(a, TemporalApi__PayloadEntry, 1);
	if (!h || !list || !entry)
		return NULL;
	temporal_api__header__init(h);
	if (n)
		memcpy(list, s->header->fields, n * sizeof(*list));
	if (span_is(shadow, "true")) {
		TemporalApi__Payloads *value = api_payloads(a, &shadow, 1);
		if (!value)
			return NULL;
		temporal_api__payload_entry__init(entry);
		entry->key = (char *)TEMPORAL_HEADER_SHADOW;
		entry->value = value->payloads[0];
		list[n++] = entry;
	}
	h->fields = list;
	h->n_fields = n;
	return h;
}

struct decide_activity_order {
	const char *id, *type, *queue;
	struct span args, kwargs;
	unsigned timeout_ms, attempts;
};

static int decide_schedule(struct deciding *x, const struct decide_activity_order *o)
{
	struct arena *a = &x->d->memory;
	const struct span values[] = {o->args, o->kwargs};
	TemporalApi__Command *c = decide_add(x, COMMAND_ACTIVITY);
	TemporalApi__ScheduleActivity *s = arena_new(a, TemporalApi__ScheduleActivity, 1);
	TemporalApi__RetryPolicy *retry = arena_new(a, TemporalApi__RetryPolicy, 1);
	if (!c || !s || !retry)
		return decide_memory(x);
	temporal_api__schedule_activity__init(s);
	temporal_api__retry_policy__init(retry);
	retry->maximum_attempts = (int32_t)o->attempts;
	s->activity_id = api_text(a, span_of(o->id));
	s->activity_type = api_name(a, o->type);
	s->task_queue = api_name(a, o->queue);
	s->header = decide_header(x);
	s->input = api_payloads(a, values, 2);
	s->start_to_close_timeout = api_duration(a, o->timeout_ms);
	s->heartbeat_timeout = x->h->heartbeat_ms ? api_duration(a, x->h->heartbeat_ms) : NULL;
	s->retry_policy = retry;
	c->schedule_activity = s;
	return s->activity_id && s->activity_type && s->task_queue && s->header && s->input &&
			       s->start_to_close_timeout
		       ? 0
		       : decide_memory(x);
}

static const char *decide_queue(const struct deciding *x)
{
	return x->started->task_queue ? x->started->task_queue->name : "";
}

/* --- failures ------------------------------------------------------------------------------------------- */

/* As SDKs of Temporal report an activity that did not complete. */
static TemporalApi__Failure *decide_activity_failure(struct deciding *x, const TemporalApi__HistoryEvent *ev,
						     const struct decide_activity *act)
{
	struct arena *a = &x->d->memory;
	TemporalApi__Failure *f = arena_new(a, TemporalApi__Failure, 1);
	TemporalApi__ActivityFailureInfo *info = arena_new(a, TemporalApi__ActivityFailureInfo, 1);
	if (!f || !info)
		return NULL;
	temporal_api__failure__init(f);
	temporal_api__activity_failure_info__init(info);
	f->message = (char *)"Activity task failed";
	f->activity_failure_info = info;
	info->scheduled_event_id = act->event_id;
	info->activity_id = api_text(a, span_of(act->id));
	info->activity_type = api_name(a, act->type);
	if (ev->activity_failed) {
		f->cause = ev->activity_failed->failure;
		info->started_event_id = ev->activity_failed->started_event_id;
		info->identity = ev->activity_failed->identity;
		info->retry_state = ev->activity_failed->retry_state;
	} else if (ev->activity_timed_out) {
		f->message = (char *)"Activity task timed out";
		f->cause = ev->activity_timed_out->failure;
		info->started_event_id = ev->activity_timed_out->started_event_id;
		info->retry_state = ev->activity_timed_out->retry_state;
	}
	return info->activity_id && info->activity_type ? f : NULL;
}

/* The sentence for callers: of the failure within, unless that has none. */
static struct span decide_sentence(const TemporalApi__HistoryEvent *ev)
{
	const TemporalApi__Failure *f = NULL;
	if (ev->event_type == EVENT_ACTIVITY_CANCELED)
		return SPAN_LIT("cancelled");
	if (ev->activity_failed)
		f = ev->activity_failed->failure;
	else if (ev->activity_timed_out)
		f = ev->activity_timed_out->failure;
	if (f && f->message && *f->message)
		return span_of(f->message);
	return f && f->application_failure_info && *f->application_failure_info->type
		       ? span_of(f->application_failure_info->type)
		       : SPAN_LIT("failed without a message");
}

/* --- events --------------------------------------------------------------------------------------------- */

static enum temporal_verdict decide_misfit(struct deciding *x, const TemporalApi__HistoryEvent *ev,
					   const char *what)
{
	err_set(&x->d->why, -EBADMSG, "the history does not fit the workflow %s: event %lld: %s", x->type,
		(long long)ev->event_id, what);
	return TEMPORAL_NOT_DETERMINISTIC;
}

static int64_t scheduled_of(const TemporalApi__HistoryEvent *ev)
{
	if (ev->activity_completed)
		return ev->activity_completed->scheduled_event_id;
	if (ev->activity_failed)
		return ev->activity_failed->scheduled_event_id;
	if (ev->activity_timed_out)
		return ev->activity_timed_out->scheduled_event_id;
	return ev->activity_canceled ? ev->activity_canceled->scheduled_event_id : 0;
}

static struct decide_activity *decide_find(struct deciding *x, int64_t event_id)
{
	for (size_t i = 0; i < x->n_activities; i++)
		if (x->activities[i].event_id == event_id)
			return &x->activities[i];
	return NULL;
}

/* Events that come of commands which a worker of ours never gives. */
static const char *foreign_command(const TemporalApi__HistoryEvent *ev)
{
	switch (ev->event_type) {
	case 19:
		return "a timer was canceled";
	case 15:
		return "an activity's cancellation was requested";
	case 22:
	case 37:
		return "another workflow was called";
	case 29:
		return "a child workflow was started";
	case 40:
		return "search attributes were changed";
	case 46:
		return "properties were changed";
	case 48:
		return "a Nexus operation was begun";
	default:
		return NULL;
	}
}

/* --- a single task -------------------------------------------------------------------------------------- */

static enum temporal_verdict single_event(struct deciding *x, const TemporalApi__HistoryEvent *ev)
{
	const char *foreign = foreign_command(ev);
	if (foreign)
		return decide_misfit(x, ev, foreign);
	switch (ev->event_type) {
	case EVENT_ACTIVITY_SCHEDULED:
		if (x->n_activities || !ev->activity_scheduled || !ev->activity_scheduled->activity_type ||
		    strcmp(ev->activity_scheduled->activity_type->name, x->task_name) != 0)
			return decide_misfit(x, ev, "an activity was scheduled that it does not have");
		x->activities[x->n_activities++] =
			(struct decide_activity){.event_id = ev->event_id,
						 .id = ev->activity_scheduled->activity_id,
						 .type = x->task_name};
		return TEMPORAL_DECIDED;
	case EVENT_ACTIVITY_COMPLETED:
	case EVENT_ACTIVITY_FAILED:
	case EVENT_ACTIVITY_TIMED_OUT:
	case EVENT_ACTIVITY_CANCELED:
		if (!decide_find(x, scheduled_of(ev)))
			return decide_misfit(x, ev, "the end of an activity that was not scheduled");
		if (!x->cancelled)
			x->end = ev;
		return TEMPORAL_DECIDED;
	case EVENT_TIMER_STARTED:
		return decide_misfit(x, ev, "a timer was started");
	case EVENT_MARKER:
		return decide_misfit(x, ev, "a marker was recorded");
	case EVENT_CANCEL_REQUESTED:
		x->cancelled = !x->end;
		return TEMPORAL_DECIDED;
	default:
		return TEMPORAL_DECIDED;
	}
}

static int single_end(struct deciding *x)
{
	struct arena *a = &x->d->memory;
	if (x->end->event_type == EVENT_ACTIVITY_CANCELED)
		return decide_cancel(x);
	if (x->end->event_type != EVENT_ACTIVITY_COMPLETED)
		return decide_fail(x, decide_activity_failure(x, x->end, &x->activities[0]));
	TemporalApi__Command *c = decide_add(x, COMMAND_COMPLETE);
	TemporalApi__CompleteWorkflow *w = arena_new(a, TemporalApi__CompleteWorkflow, 1);
	if (!c || !w)
		return decide_memory(x);
	temporal_api__complete_workflow__init(w);
	w->result = x->end->activity_completed->result; /* byte for byte */
	c->complete_workflow = w;
	return 0;
}

static unsigned decide_attempts(const struct task_definition *t, bool idempotent)
{
	if (!t)
		return 1;
	return (idempotent || t->idempotent) && t->max_attempts > 1 ? t->max_attempts : 1;
}

static enum temporal_verdict decide_single(struct deciding *x)
{
	for (size_t i = 1; i < x->h->n; i++) {
		enum temporal_verdict v = single_event(x, x->h->events[i]);
		if (v != TEMPORAL_DECIDED)
			return v;
	}
	const struct decide_activity_order order = {.id = SINGLE_ID,
						    .type = x->task_name,
						    .queue = decide_queue(x),
						    .args = x->args,
						    .kwargs = x->kwargs,
						    .timeout_ms = x->task ? x->task->timeout_ms
									  : REGISTRY_DEFAULT_TIMEOUT_MS,
						    .attempts = decide_attempts(x->task, false)};
	int r = 0;
	if (x->cancelled)
		r = decide_cancel(x);
	else if (x->end)
		r = single_end(x);
	else if (!x->n_activities)
		r = decide_schedule(x, &order);
	return r < 0 ? TEMPORAL_UNDECIDED : TEMPORAL_DECIDED;
}

/* --- a declared workflow -------------------------------------------------------------------------------- */

static int decide_result(void *arg, unsigned step, unsigned item, struct span *ret, struct err *e)
{
	const struct deciding *x = arg;
	for (size_t i = 0; i < x->n_activities; i++) {
		const struct decide_activity *a = &x->activities[i];
		if (a->step == step && a->item == item && a->result.ptr) {
			*ret = a->result;
			return 0;
		}
	}
	return err_set(e, -ENOENT, "the history has no result of step %u, item %u", step, item);
}

static void decide_put_id(const struct workflow_begin *b, char out[ACTIVITY_ID_MAX])
{
	snprintf(out, ACTIVITY_ID_MAX, "%u.%u %.*s", b->step, b->item,
		 (int)(b->definition->name.len < 500 ? b->definition->name.len : 500),
		 b->definition->name.ptr);
}

static int decide_expect(void *arg, const struct workflow_begin *b)
{
	struct deciding *x = arg;
	if (x->n_expected == WORKFLOW_MAX_TASKS)
		return -EFBIG;
	x->expected[x->n_expected++] = (struct decide_place){b->step, b->item};
	return 0;
}

static int decide_begin(void *arg, const struct workflow_begin *b)
{
	struct deciding *x = arg;
	const struct workflow_step *s = b->definition;
	const struct task_definition *t = registry_task(x->h->registry, s->task);
	char id[ACTIVITY_ID_MAX];
	decide_put_id(b, id);
	unsigned timeout = t ? t->timeout_ms : REGISTRY_DEFAULT_TIMEOUT_MS;
	struct decide_activity_order o = {.id = id,
					  .type = api_text(&x->d->memory, s->task),
					  .queue = s->queue.len ? api_text(&x->d->memory, s->queue)
								: decide_queue(x),
					  .args = b->args,
					  .kwargs = b->kwargs,
					  .timeout_ms = s->timeout_ms ? s->timeout_ms : timeout,
					  .attempts = decide_attempts(t, s->idempotent)};
	return o.type && o.queue ? decide_schedule(x, &o) : decide_memory(x);
}

static enum temporal_verdict plan_scheduled(struct deciding *x, const TemporalApi__HistoryEvent *ev)
{
	char what[512];
	const TemporalApi__ActivityScheduled *s = ev->activity_scheduled;
	const char *type = s && s->activity_type ? s->activity_type->name : "";
	if (x->at_expected == x->n_expected) {
		snprintf(what, sizeof(what), "activity %.200s was scheduled, and no step begins there", type);
		return decide_misfit(x, ev, what);
	}
	struct decide_place p = x->expected[x->at_expected++];
	const struct workflow_step *step = &x->definition->steps[p.step];
	unsigned of_step = 0, of_item = 0;
	if (!span_is(step->task, type) || sscanf(s->activity_id, "%u.%u ", &of_step, &of_item) != 2 ||
	    of_step != p.step || of_item != p.item) {
		snprintf(what, sizeof(what),
			 "activity %.200s (%.100s) was scheduled, where step \"%.*s\" (task %.*s) begins",
			 type, s ? s->activity_id : "", (int)(step->name.len < 64 ? step->name.len : 64),
			 step->name.ptr, (int)(step->task.len < 64 ? step->task.len : 64), step->task.ptr);
		return decide_misfit(x, ev, what);
	}
	x->activities[x->n_activities++] = (struct decide_activity){
		.event_id = ev->event_id, .step = p.step, .item = p.item, .id = s->activity_id, .type = type};
	return TEMPORAL_DECIDED;
}

static enum temporal_verdict plan_ended_event(struct deciding *x, const TemporalApi__HistoryEvent *ev)
{
	struct decide_activity *a = decide_find(x, scheduled_of(ev));
	if (!a)
		return decide_misfit(x, ev, "the end of an activity that was not scheduled");
	struct workflow_end end = {.step = a->step, .item = a->item, .kind = WORKFLOW_END_FAILED};
	if (ev->activity_completed) {
		if (api_first_json(ev->activity_completed->result, &a->result))
			end.kind = WORKFLOW_END_COMPLETED;
		else
			end.error = SPAN_LIT("its result is not JSON");
	} else {
		end.error = decide_sentence(ev);
		if (ev->activity_timed_out)
			end.kind = WORKFLOW_END_TIMED_OUT;
		else if (ev->activity_canceled)
			end.kind = WORKFLOW_END_CANCELLED;
	}
	bool goes_on = workflow_plan_state(x->plan) == WORKFLOW_GOES_ON;
	workflow_plan_ended(x->plan, &end);
	if (goes_on && end.kind != WORKFLOW_END_COMPLETED) {
		x->failed = a;
		x->failure = decide_activity_failure(x, ev, a);
	}
	return TEMPORAL_DECIDED;
}

/* A workflow task was answered here: what was begun then must be what follows. */
static enum temporal_verdict plan_answered(struct deciding *x, const TemporalApi__HistoryEvent *ev)
{
	if (x->at_expected < x->n_expected)
		return decide_misfit(x, ev, "a step that should have begun before did not");
	x->n_expected = x->at_expected = 0;
	if (workflow_plan_state(x->plan) != WORKFLOW_GOES_ON)
		return decide_misfit(x, ev, "the workflow had ended before");
	x->timer_due = !x->began && x->definition->timeout_ms;
	x->began = true;
	return workflow_plan_next(x->plan, &x->source, decide_expect, x, &x->d->why) < 0 ? TEMPORAL_UNDECIDED
											 : TEMPORAL_DECIDED;
}

static bool is_our_timer(const char *id)
{
	return id && strcmp(id, TIMER_ID) == 0;
}

static enum temporal_verdict plan_event(struct deciding *x, const TemporalApi__HistoryEvent *ev)
{
	const char *foreign = foreign_command(ev);
	if (foreign)
		return decide_misfit(x, ev, foreign);
	switch (ev->event_type) {
	case EVENT_TASK_COMPLETED:
		return plan_answered(x, ev);
	case EVENT_MARKER:
		return ev->marker_recorded && strcmp(ev->marker_recorded->marker_name,
						     TEMPORAL_DEFINITION_MARKER) == 0
			       ? TEMPORAL_DECIDED
			       : decide_misfit(x, ev, "a marker of another worker was recorded");
	case EVENT_ACTIVITY_SCHEDULED:
		return plan_scheduled(x, ev);
	case EVENT_ACTIVITY_COMPLETED:
	case EVENT_ACTIVITY_FAILED:
	case EVENT_ACTIVITY_TIMED_OUT:
	case EVENT_ACTIVITY_CANCELED:
		return plan_ended_event(x, ev);
	case EVENT_TIMER_STARTED:
		if (!x->timer_due || !is_our_timer(ev->timer_started ? ev->timer_started->timer_id : NULL))
			return decide_misfit(x, ev, "a timer was started that it does not have");
		x->timer_due = false;
		return TEMPORAL_DECIDED;
	case EVENT_TIMER_FIRED:
		workflow_plan_stop(x->plan, WORKFLOW_END_TIMED_OUT, SPAN_LIT("timed out"));
		return TEMPORAL_DECIDED;
	case EVENT_CANCEL_REQUESTED:
		workflow_plan_stop(x->plan, WORKFLOW_END_CANCELLED, SPAN_LIT("cancelled"));
		return TEMPORAL_DECIDED;
	default:
		return TEMPORAL_DECIDED;
	}
}

static int plan_freeze(struct deciding *x)
{
	struct arena *a = &x->d->memory;
	CLEANUP(buf_releasep) struct buf json = BUF_INIT(WORKFLOW_MAX_FROZEN);
	TemporalApi__Command *c = decide_add(x, COMMAND_MARKER);
	TemporalApi__RecordMarker *m = arena_new(a, TemporalApi__RecordMarker, 1);
	TemporalApi__PayloadsEntry **list = arena_new(a, TemporalApi__PayloadsEntry *, 1),
				   *entry = arena_new(a, TemporalApi__PayloadsEntry, 1);
	if (!c || !m || !list || !entry || workflow_to_json(x->definition, &json) < 0)
		return decide_memory(x);
	const struct span value = buf_span(&json);
	temporal_api__record_marker__init(m);
	temporal_api__payloads_entry__init(entry);
	entry->key = (char *)DEFINITION_KEY;
	entry->value = api_payloads(a, &value, 1);
	list[0] = entry;
	m->marker_name = (char *)TEMPORAL_DEFINITION_MARKER;
	m->details = list;
	m->n_details = 1;
	c->record_marker = m;
	return entry->value ? 0 : decide_memory(x);
}

static int plan_start_timer(struct deciding *x)
{
	struct arena *a = &x->d->memory;
	if (!x->definition->timeout_ms)
		return 0;
	TemporalApi__Command *c = decide_add(x, COMMAND_TIMER);
	TemporalApi__StartTimer *t = arena_new(a, TemporalApi__StartTimer, 1);
	if (!c || !t)
		return decide_memory(x);
	temporal_api__start_timer__init(t);
	t->timer_id = (char *)TIMER_ID;
	t->start_to_fire_timeout = api_duration(a, x->definition->timeout_ms);
	c->start_timer = t;
	return t->start_to_fire_timeout ? 0 : decide_memory(x);
}

static int plan_fail(struct deciding *x, struct span error, struct span detail)
{
	TemporalApi__Failure *f = api_failure(&x->d->memory, error, "WorkflowFailed", detail);
	if (f) {
		f->application_failure_info->non_retryable = true;
		f->cause = (TemporalApi__Failure *)x->failure;
	}
	return decide_fail(x, f);
}

static int plan_end(struct deciding *x)
{
	CLEANUP(buf_releasep) struct buf result = BUF_INIT(WORKFLOW_MAX_RESULT);
	if (workflow_plan_state(x->plan) == WORKFLOW_COMPLETED) {
		int r = workflow_plan_result(x->plan, &x->source, &result, &x->d->why);
		if (r == 0)
			return decide_complete(x, buf_span(&result));
		if (r != -ENOENT && r != -EFBIG)
			return r;
		return plan_fail(x, span_of(x->d->why.text), SPAN_NONE);
	}
	struct workflow_failure f = workflow_plan_error(x->plan);
	return f.cancelled && !x->failure ? decide_cancel(x) : plan_fail(x, f.error, f.detail);
}

static enum temporal_verdict decide_declared(struct deciding *x)
{
	x->source = (struct workflow_source){
		.args = x->args, .kwargs = x->kwargs, .arg = x, .result = decide_result};
	x->plan = workflow_plan_new(x->definition);
	x->expected = arena_new(&x->definition_memory, struct decide_place, WORKFLOW_MAX_TASKS);
	if (!x->plan || !x->expected) {
		decide_memory(x);
		return TEMPORAL_UNDECIDED;
	}
	for (size_t i = 1; i < x->h->n; i++) {
		enum temporal_verdict v = plan_event(x, x->h->events[i]);
		if (v != TEMPORAL_DECIDED)
			return v;
	}
	if (x->at_expected < x->n_expected || (x->began && !x->frozen))
		return decide_misfit(x, x->h->events[x->h->n - 1],
				     x->frozen
					     ? "the history ends before a step that should have begun"
					     : "another worker answered before, and recorded no definition");
	int r = 0;
	if (!x->began && workflow_plan_state(x->plan) == WORKFLOW_GOES_ON) {
		r = plan_freeze(x);
		r = r == 0 ? plan_start_timer(x) : r;
	}
	if (r == 0)
		r = workflow_plan_next(x->plan, &x->source, decide_begin, x, &x->d->why);
	if (r == 0 && workflow_plan_state(x->plan) != WORKFLOW_GOES_ON)
		r = plan_end(x);
	return r < 0 ? TEMPORAL_UNDECIDED : TEMPORAL_DECIDED;
}

/* --- which it is ---------------------------------------------------------------------------------------- */

/* The definition that the history holds. <0: it cannot be read. */
static int find_frozen(struct deciding *x)
{
	for (size_t i = 0; i < x->h->n; i++) {
		const TemporalApi__MarkerRecorded *m = x->h->events[i]->marker_recorded;
		struct span json;
		struct workflow_definition *w;
		if (!m || strcmp(m->marker_name, TEMPORAL_DEFINITION_MARKER) != 0)
			continue;
		if (m->n_details != 1 || !api_first_json(m->details[0]->value, &json))
			return err_set(&x->d->why, -EBADMSG, "event %lld: the marker holds no definition",
				       (long long)x->h->events[i]->event_id);
		int r = workflow_from_json(json, &x->definition_memory, &w, &x->d->why);
		if (r < 0)
			return err_prefix(&x->d->why, r, "event %lld: the definition",
					  (long long)x->h->events[i]->event_id);
		x->definition = w;
		x->frozen = true;
		return 0;
	}
	return 0;
}

static bool find_single(struct deciding *x)
{
	size_t n = strlen(x->type), suffix = strlen(TEMPORAL_TYPE_SUFFIX);
	if (n <= suffix || strcmp(x->type + n - suffix, TEMPORAL_TYPE_SUFFIX) != 0)
		return false;
	struct span name = {x->type, n - suffix};
	x->task = registry_task(x->h->registry, name);
	x->task_name = x->task ? api_text(&x->d->memory, name) : NULL;
	return x->task_name != NULL;
}

static enum temporal_verdict decide_unknown(struct deciding *x)
{
	CLEANUP(buf_releasep) struct buf text = BUF_INIT(ERR_TEXT_MAX);
	registry_describe_unknown(x->h->registry, span_of(x->type), true, &text);
	err_set(&x->d->why, -ENOENT, "%s", text.ptr ? text.ptr : "unknown workflow");
	return TEMPORAL_UNDECIDED;
}

static enum temporal_verdict decide_kind(struct deciding *x)
{
	struct err e = {""};
	if (find_frozen(x) < 0)
		return TEMPORAL_NOT_DETERMINISTIC;
	if (!x->definition)
		x->definition = registry_workflow(x->h->registry, span_of(x->type));
	if (!x->definition && !find_single(x))
		return decide_unknown(x);
	x->activities = arena_new(&x->definition_memory, struct decide_activity, x->h->n);
	if (!x->activities) {
		decide_memory(x);
		return TEMPORAL_UNDECIDED;
	}
	/* A workflow that can never run fails, rather than wait for someone who reads its server's page. */
	if (api_arguments(x->started->input, &x->room, &x->args, &x->kwargs, &e) < 0) {
		TemporalApi__Failure *f =
			api_failure(&x->d->memory, span_of(e.text), "InvalidInput", SPAN_NONE);
		if (f)
			f->application_failure_info->non_retryable = true;
		return decide_fail(x, f) < 0 ? TEMPORAL_UNDECIDED : TEMPORAL_DECIDED;
	}
	return x->definition ? decide_declared(x) : decide_single(x);
}

enum temporal_verdict temporal_decide(const struct temporal_history *h, struct temporal_decision *d)
{
	struct deciding x = {.h = h, .d = d};
	*d = (struct temporal_decision){.memory = ARENA_INIT(DECISION_MAX)};
	if (!h->n || h->events[0]->event_type != EVENT_STARTED || !h->events[0]->workflow_started ||
	    !h->events[0]->workflow_started->workflow_type) {
		err_set(&d->why, -EBADMSG, "the history does not begin with the workflow's start");
		return TEMPORAL_NOT_DETERMINISTIC;
	}
	x.started = h->events[0]->workflow_started;
	x.type = x.started->workflow_type->name;
	x.definition_memory = ARENA_INIT(DECISION_MAX);
	buf_init(&x.room, TEMPORAL_MAX_ARGUMENT);
	enum temporal_verdict v = decide_kind(&x);
	workflow_plan_free(x.plan);
	arena_release(&x.definition_memory);
	buf_release(&x.room);
	return v;
}

void temporal_decision_release(struct temporal_decision *d)
{
	arena_release(&d->memory);
}
