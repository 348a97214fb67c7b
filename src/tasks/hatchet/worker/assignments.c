#include "tasks/hatchet/worker/assignments.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/backoff.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "tasks/hatchet/worker/attempt.h"

#define SHORTAGE_PAUSE_MS 1000 /* after a task could not be started */
#define TELL_MS 10000	       /* one call */
#define GRACE_MS 1000
#define TELL_FIRST_MS 100
#define TELL_MOST_MS 5000
#define HISTORY_MS 10000
#define HISTORY_LOOKS 20 /* about a minute without an answer: what was before is not known */
#define HISTORY_MAX (1u << 20)

enum assignment_state {
	ASSIGNMENT_LOOKS, /* at its history */
	ASSIGNMENT_READY, /* for a free place */
	ASSIGNMENT_RUNS,
	ASSIGNMENT_ENDS
};

enum assignment_reason { ASSIGNMENT_GOES, ASSIGNMENT_TIMED_OUT, ASSIGNMENT_CANCELLED, ASSIGNMENT_STOPPED };

struct hatchet_assignment {
	struct hatchet_assignments *owner;
	TAILQ_ENTRY(hatchet_assignment) place; /* in `all` */
	TAILQ_ENTRY(hatchet_assignment) turn;  /* in `ready` */
	enum assignment_state state;
	enum assignment_reason reason;
	struct hatchet_action action;
	struct hatchet_catalog *catalog;
	const struct hatchet_entry *entry; /* NULL: it has none of that name */
	struct hatchet_call input;
	char worker_id[HATCHET_WORKER_ID_MAX];
	int retry_count; /* of the newest attempt that it stands for */
	/* its history */
	struct http_call *asking;
	unsigned looks;
	/* running */
	struct handler_run *run;
	struct loop_timer *timer; /* its limit, later the pause before it is told again */
	int64_t begun_ms;
	/* its end */
	bool final;
	enum hatchet_event_kind end;
	struct buf payload; /* of the end */
	struct buf detail;
	/* telling */
	bool started_waits, started_fails; /* STARTED is to be told; it was not taken */
	struct grpc_call *telling;
	unsigned failures;
	int64_t refused_since_ms, started_us, ended_us;
};

static void assignment_tell(struct hatchet_assignment *a);
static void assignment_end(struct hatchet_assignment *a, enum hatchet_event_kind kind);

/* --- what is there -------------------------------------------------------------------------------------- */

static void assignments_schedule(struct hatchet_assignments *q)
{
	if (!q->work_due) {
		q->work_due = true;
		loop_defer(q->o.loop, &q->work);
	}
}

static void assignment_enter(struct hatchet_assignment *a, enum assignment_state state)
{
	struct hatchet_assignments *q = a->owner;
	if (a->state == ASSIGNMENT_READY)
		TAILQ_REMOVE(&q->ready, a, turn);
	if (state == ASSIGNMENT_READY)
		TAILQ_INSERT_TAIL(&q->ready, a, turn);
	q->n_running += (size_t)(state == ASSIGNMENT_RUNS) - (size_t)(a->state == ASSIGNMENT_RUNS);
	a->state = state;
	assignments_schedule(q);
}

static void assignment_free(struct hatchet_assignment *a)
{
	struct hatchet_assignments *q = a->owner;
	assignment_enter(a, ASSIGNMENT_ENDS);
	TAILQ_REMOVE(&q->all, a, place);
	q->n--;
	http_cancel(a->asking);
	grpc_cancel(a->telling);
	loop_timer_free(a->timer);
	hatchet_action_release(&a->action);
	hatchet_catalog_free(a->catalog);
	buf_release(&a->payload);
	buf_release(&a->detail);
	free(a);
}

static void assignment_gone(struct hatchet_assignment *a)
{
	struct hatchet_assignments *q = a->owner;
	char worker_id[HATCHET_WORKER_ID_MAX];
	strcpy(worker_id, a->worker_id);
	assignment_free(a);
	q->o.gone(q->o.arg, worker_id);
}

static struct hatchet_assignment *assignments_find(struct hatchet_assignments *q,
						   const struct hatchet_action *action)
{
	struct hatchet_assignment *a;
	TAILQ_FOREACH (a, &q->all, place)
		if (a->retry_count == action->retry_count &&
		    strcmp(a->action.task_run_id, action->task_run_id) == 0)
			return a;
	return NULL;
}

size_t hatchet_assignments_held(const struct hatchet_assignments *q, const char *worker_id)
{
	const struct hatchet_assignment *a;
	size_t n = 0;
	TAILQ_FOREACH (a, &q->all, place)
		n += strcmp(a->worker_id, worker_id) == 0;
	return n;
}

static const char *assignment_name(const struct hatchet_assignment *a)
{
	return a->entry ? a->entry->name : a->action.task_name;
}

/* The id that people know: the router's. */
static const char *assignment_id(const struct hatchet_assignment *a)
{
	return a->action.workflow_run_id[0] ? a->action.workflow_run_id : a->action.task_run_id;
}

/* --- telling -------------------------------------------------------------------------------------------- */

static void assignments_note(struct hatchet_assignments *q, bool away, const char *why)
{
	if (away && !q->said_away)
		log_error("outcomes_wait", LOG_INT("tasks", q->n), LOG_STR("error", why),
			  LOG_STR("effect",
				  "they are told when the engine can be reached; it gives what it has "
				  "not heard of for 30 s to another worker"));
	else if (!away && q->said_away)
		log_info("outcomes_told", LOG_STR("effect", "the engine takes them again"));
	q->said_away = away;
}

static void assignment_on_pause(void *arg)
{
	assignment_tell(arg);
}

/* Whether the engine has answered, and will not take it, whenever it is told. */
static bool assignment_is_refused(struct hatchet_assignment *a, const struct grpc_status *s)
{
	bool answered = s->of_server && (s->code == GRPC_INVALID_ARGUMENT || s->code == GRPC_INTERNAL ||
					 s->code == GRPC_NOT_FOUND || s->code == GRPC_UNIMPLEMENTED ||
					 s->code == GRPC_RESOURCE_EXHAUSTED || s->code == GRPC_UNKNOWN);
	int64_t now = clock_mono_ms();
	if (!answered) {
		a->refused_since_ms = 0;
		return false;
	}
	/* Its database may be away: only this is about the task itself. */
	if (strstr(s->message, "no rows in result set"))
		return true;
	if (!a->refused_since_ms)
		a->refused_since_ms = now;
	return now - a->refused_since_ms > HATCHET_REFUSED_MS;
}

/* It is larger than this engine was set up to take: its end is that. */
static bool assignment_is_too_large(struct hatchet_assignment *a, const struct grpc_status *s)
{
	if (s->code != GRPC_RESOURCE_EXHAUSTED || a->end != HATCHET_EVENT_COMPLETED ||
	    !strstr(s->message, "larger than max"))
		return false;
	a->end = HATCHET_EVENT_FAILED;
	a->final = true;
	buf_clear(&a->payload);
	buf_puts(&a->payload, "the result is larger than this Hatchet takes");
	log_error("task_result_refused", LOG_STR("task_id", assignment_id(a)),
		  LOG_STR("task", assignment_name(a)), LOG_STR("reason", s->message));
	return true;
}

static void assignment_tell_later(struct hatchet_assignment *a)
{
	if (!a->timer && loop_timer_new(a->owner->o.loop, assignment_on_pause, a, &a->timer) < 0) {
		log_error("task_result_lost", LOG_STR("task_id", assignment_id(a)),
			  LOG_STR("error", "out of memory"));
		assignment_gone(a);
		return;
	}
	loop_timer_start(a->timer, backoff_ms(TELL_FIRST_MS, TELL_MOST_MS, a->failures));
}

static void assignment_on_end_told(struct hatchet_assignment *a, const struct grpc_status *s)
{
	if (s->code == GRPC_OK) {
		assignments_note(a->owner, false, NULL);
		assignment_gone(a);
	} else if (assignment_is_too_large(a, s)) {
		assignment_tell(a);
	} else if (assignment_is_refused(a, s)) {
		log_error("task_result_refused", LOG_STR("task_id", assignment_id(a)),
			  LOG_STR("task", assignment_name(a)), LOG_STR("reason", s->message));
		assignment_gone(a);
	} else {
		a->failures++;
		assignments_note(a->owner, true, s->message);
		assignment_tell_later(a);
	}
}

static void assignment_on_told(void *arg, const struct grpc_status *s)
{
	struct hatchet_assignment *a = arg;
	a->telling = NULL;
	if (a->started_waits) {
		a->started_waits = false; /* for people only: it is told once */
		assignment_tell(a);
		return;
	}
	assignment_on_end_told(a, s);
}

/* What the answer is, is in its status. */
static void assignment_on_nothing(void *arg, struct span message)
{
	(void)arg, (void)message;
}

static void assignment_tell(struct hatchet_assignment *a)
{
	CLEANUP(buf_releasep) struct buf message = BUF_INIT(HATCHET_MAX_OUTPUT + 65536);
	bool ended = a->state == ASSIGNMENT_ENDS;
	struct err e = {""};
	if (a->telling || (!ended && !a->started_waits))
		return;
	const struct hatchet_event v = {.kind = a->started_waits ? HATCHET_EVENT_STARTED : a->end,
					.worker_id = a->worker_id,
					.task_run_id = a->action.task_run_id,
					.job_id = a->action.job_id,
					.job_run_id = a->action.job_run_id,
					.task_id = a->action.task_id,
					.action_id = a->action.action_id,
					.retry_count = a->retry_count,
					.at_us = a->started_waits ? a->started_us : a->ended_us,
					.payload = a->started_waits || !a->payload.ptr ? "" : a->payload.ptr,
					.final = a->final};
	int r = hatchet_wire_put_event(&message, &v);
	const struct grpc_request request = {.path = HATCHET_STEP_EVENT,
					     .message = buf_span(&message),
					     .deadline_ms = TELL_MS,
					     .may_resend = true,
					     .grace_ms = GRACE_MS};
	const struct grpc_events events = {
		.arg = a, .message = assignment_on_nothing, .done = assignment_on_told};
	if (r == 0)
		r = grpc_start(a->owner->o.engine, &request, &events, &a->telling, &e);
	if (r == 0)
		return;
	a->telling = NULL;
	a->started_waits = false;
	a->failures++;
	if (ended)
		assignment_tell_later(a);
}

void hatchet_assignments_go_on(struct hatchet_assignments *q)
{
	struct hatchet_assignment *next;
	for (struct hatchet_assignment *a = TAILQ_FIRST(&q->all); a; a = next) {
		next = TAILQ_NEXT(a, place);
		if (a->state != ASSIGNMENT_ENDS || a->telling)
			continue;
		a->failures = 0;
		assignment_tell(a);
	}
}

/* --- how it ended --------------------------------------------------------------------------------------- */

static void assignment_put_told(struct hatchet_assignment *a, struct span said, struct buf *out)
{
	if (a->entry)
		handler_put_told(a->entry->task, said, out);
	else
		text_put_plain(out, said);
}

static void assignment_fail(struct hatchet_assignment *a, struct span error, struct span detail, bool final)
{
	buf_clear(&a->payload);
	assignment_put_told(a, error, &a->payload);
	if (detail.ptr)
		assignment_put_told(a, detail, &a->detail);
	a->final = final;
	assignment_end(a, HATCHET_EVENT_FAILED);
}

static void assignments_count(struct hatchet_assignments *q, const struct hatchet_assignment *a)
{
	if (a->end == HATCHET_EVENT_COMPLETED)
		q->succeeded++;
	else if (a->end == HATCHET_EVENT_CANCELLED)
		q->cancelled++;
	else if (a->final)
		q->failed++;
	else
		q->retried++;
}

static void assignment_end(struct hatchet_assignment *a, enum hatchet_event_kind kind)
{
	static const char *const names[] = {[HATCHET_EVENT_STARTED] = "",
					    [HATCHET_EVENT_COMPLETED] = "completed",
					    [HATCHET_EVENT_FAILED] = "failed",
					    [HATCHET_EVENT_CANCELLED] = "cancelled"};
	a->end = kind;
	a->ended_us = clock_wall_us();
	a->timer = loop_timer_free(a->timer);
	assignments_count(a->owner, a);
	log_info("task_ended", LOG_STR("task_id", assignment_id(a)), LOG_STR("task", assignment_name(a)),
		 LOG_STR("status", names[kind]), LOG_INT("attempt", a->retry_count + 1),
		 LOG_INT("ms", a->begun_ms ? clock_mono_ms() - a->begun_ms : 0),
		 LOG_SPAN("error", kind == HATCHET_EVENT_FAILED ? buf_span(&a->payload) : SPAN_NONE),
		 LOG_SPAN("detail", a->detail.len ? text_front(buf_span(&a->detail), 1024) : SPAN_NONE));
	assignment_enter(a, ASSIGNMENT_ENDS);
	assignment_tell(a);
}

/* A failure is explained by what we did to it. */
static void assignment_take_failure(struct hatchet_assignment *a, const struct handler_outcome *o)
{
	char text[64];
	struct span detail = o->detail.ptr ? o->detail : o->error;
	switch (a->reason) {
	case ASSIGNMENT_TIMED_OUT:
		snprintf(text, sizeof(text), "timed out after %u ms", a->entry->task->timeout_ms);
		assignment_fail(a, span_of(text), detail, true);
		break;
	case ASSIGNMENT_CANCELLED:
		assignment_end(a, HATCHET_EVENT_CANCELLED);
		break;
	case ASSIGNMENT_STOPPED:
		assignment_fail(a, SPAN_LIT("the worker was stopped while the task ran"), detail,
				!a->entry->task->idempotent);
		break;
	case ASSIGNMENT_GOES:
		assignment_fail(a, o->error, o->detail, !(o->retry && a->entry->task->idempotent));
		break;
	}
}

/* A result counts whatever else was going on. */
static void assignment_on_done(void *arg, const struct handler_outcome *o)
{
	struct hatchet_assignment *a = arg;
	struct err e = {""};
	a->run = NULL;
	if (!o->result.ptr)
		assignment_take_failure(a, o);
	else if (hatchet_put_output(a->entry->task->name, o->result, &a->payload, &e) == 0)
		assignment_end(a, HATCHET_EVENT_COMPLETED);
	else
		assignment_fail(a, span_of(e.text), SPAN_NONE, true);
}

/* --- running -------------------------------------------------------------------------------------------- */

static void assignment_kill(struct hatchet_assignment *a, enum assignment_reason reason)
{
	if (!a->run)
		return;
	if (a->reason == ASSIGNMENT_GOES)
		a->reason = reason;
	handler_kill(a->run);
}

static void assignment_on_limit(void *arg)
{
	assignment_kill(arg, ASSIGNMENT_TIMED_OUT);
}

/* What passes by itself. */
static bool assignment_is_shortage(int code)
{
	return code == -EMFILE || code == -ENFILE || code == -EAGAIN || code == -ENOMEM;
}

static void assignment_wait_for_room(struct hatchet_assignment *a, const struct err *e)
{
	struct hatchet_assignments *q = a->owner;
	log_warn("task_waits", LOG_STR("task_id", assignment_id(a)), LOG_STR("task", assignment_name(a)),
		 LOG_STR("reason", e->text));
	q->pause_until_ms = clock_mono_ms() + SHORTAGE_PAUSE_MS;
	loop_timer_start(q->pause, SHORTAGE_PAUSE_MS);
}

static void assignment_not_started(struct hatchet_assignment *a, int code, const struct err *e)
{
	char text[TASK_NAME_MAX + 64];
	snprintf(text, sizeof(text), "%s: it could not be started", assignment_name(a));
	assignment_fail(a, span_of(code == -EINVAL ? e->text : text), span_of(e->text), true);
}

static void assignment_run(struct hatchet_assignment *a)
{
	struct hatchet_assignments *q = a->owner;
	const struct task_definition *t = a->entry->task;
	struct err e = {""};
	const struct handler_call call = {
		.task_id = span_of(a->input.task_id[0] ? a->input.task_id : assignment_id(a)),
		.name = t->name,
		.args = a->input.args,
		.kwargs = a->input.kwargs,
		.attempt = (unsigned)a->retry_count + 1,
		.timeout_ms = t->timeout_ms,
		.traceparent = span_of(a->input.traceparent),
		.tracestate = span_of(a->input.tracestate),
		.shadow = a->input.shadow};
	int r = a->timer ? 0 : loop_timer_new(q->o.loop, assignment_on_limit, a, &a->timer);
	if (r == 0)
		r = handler_start(q->o.env, t, &call, assignment_on_done, a, &a->run, &e);
	if (assignment_is_shortage(r)) {
		assignment_wait_for_room(a, &e);
		return;
	}
	a->begun_ms = clock_mono_ms();
	a->started_us = clock_wall_us();
	assignment_enter(a, ASSIGNMENT_RUNS);
	a->started_waits = true;
	assignment_tell(a);
	if (r < 0)
		assignment_not_started(a, r, &e);
	else
		loop_timer_start(a->timer, t->timeout_ms);
}

static void assignments_on_work(struct loop_work *work)
{
	struct hatchet_assignments *q =
		(struct hatchet_assignments *)((char *)work - offsetof(struct hatchet_assignments, work));
	q->work_due = false;
	while (!q->killing && q->n_running < q->o.concurrency && !TAILQ_EMPTY(&q->ready) &&
	       clock_mono_ms() >= q->pause_until_ms)
		assignment_run(TAILQ_FIRST(&q->ready));
}

static void assignments_on_pause(void *arg)
{
	assignments_schedule(arg);
}

/* --- whether it may run --------------------------------------------------------------------------------- */

static void assignment_look(struct hatchet_assignment *a);

static void assignment_refuse(struct hatchet_assignment *a, struct span error, struct span detail)
{
	a->owner->refused++;
	assignment_fail(a, error, detail, true);
}

static void assignment_refuse_again(struct hatchet_assignment *a, const char *why)
{
	log_error("task_not_repeated", LOG_STR("task_id", assignment_id(a)),
		  LOG_STR("task", assignment_name(a)), LOG_INT("attempt", a->retry_count + 1),
		  LOG_STR("reason", why), LOG_STR("effect", "it fails; it is not declared idempotent"));
	assignment_refuse(a, SPAN_LIT("the worker that ran the task was lost"), span_of(why));
}

static void assignment_on_look_pause(void *arg)
{
	assignment_look(arg);
}

static void assignment_on_history(void *arg, const struct http_reply *r)
{
	struct hatchet_assignment *a = arg;
	bool begun = true;
	a->asking = NULL;
	if (r->failure == HTTP_OK && r->status == 200 &&
	    hatchet_read_history(r->body, a->retry_count, &begun) == 0) {
		a->timer = loop_timer_free(a->timer);
		if (begun)
			assignment_refuse_again(a,
						"an earlier attempt may have begun, and nobody knows how it "
						"ended");
		else
			assignment_enter(a, ASSIGNMENT_READY);
		return;
	}
	bool later = r->failure != HTTP_OK || r->status >= 500 || r->status == 429 || r->status == 404 ||
		     r->status == 200; /* REST shows things a little later */
	if (!later || ++a->looks >= HISTORY_LOOKS) {
		a->timer = loop_timer_free(a->timer);
		assignment_refuse_again(a, "the engine does not tell what became of its earlier attempts");
		return;
	}
	loop_timer_start(a->timer, backoff_ms(TELL_FIRST_MS * 5, TELL_MOST_MS, a->looks));
}

static void assignment_look(struct hatchet_assignment *a)
{
	const struct hatchet_settings *s = a->owner->o.settings;
	CLEANUP(buf_releasep) struct buf url = BUF_INIT(8192);
	const struct http_field fields[] = {{SPAN_LIT("Authorization"), span_of(s->authorization)},
					    {SPAN_LIT("Accept"), SPAN_LIT("application/json")}};
	const struct http_events events = {.arg = a, .done = assignment_on_history};
	buf_printf(&url, "%s/api/v1/stable/tasks/", s->url);
	buf_put_segment(&url, span_of(a->action.task_run_id));
	buf_puts(&url, "/task-events?limit=50");
	const struct http_call_request request = {.method = "GET",
						  .url = buf_span(&url).ptr,
						  .fields = fields,
						  .n_fields = 2,
						  .timeout_ms = HISTORY_MS,
						  .max_body = HISTORY_MAX,
						  .may_resend = true};
	int r = url.error;
	if (r == 0 && !a->timer)
		r = loop_timer_new(a->owner->o.loop, assignment_on_look_pause, a, &a->timer);
	if (r == 0)
		r = http_start(a->owner->o.rest, &request, &events, &a->asking, NULL);
	if (r < 0)
		assignment_refuse_again(a, "what became of its earlier attempts could not be asked for");
}

static void assignment_begin(struct hatchet_assignment *a)
{
	struct err e = {""};
	if (!a->entry) {
		log_error("task_not_known", LOG_STR("action", a->action.action_id),
			  LOG_STR("task_id", assignment_id(a)));
		assignment_refuse(a, SPAN_LIT("the worker does not know the task"), SPAN_NONE);
	} else if (hatchet_call_read(a->action.payload, a->action.metadata, &a->input, &e) < 0) {
		assignment_refuse(a, span_of(e.text), SPAN_NONE);
	} else if (a->retry_count > 0 && !a->entry->task->idempotent) {
		assignment_look(a);
	} else {
		assignment_enter(a, ASSIGNMENT_READY);
	}
}

/* --- what the engine says ------------------------------------------------------------------------------- */

/* It is being run here, or has been: what the engine gives again was not heard of. */
static void assignment_take_over(struct hatchet_assignment *a, const char *worker_id, int retry_count)
{
	char before[HATCHET_WORKER_ID_MAX];
	strcpy(before, a->worker_id);
	if (retry_count <= a->retry_count)
		return;
	log_warn("task_given_again", LOG_STR("task_id", assignment_id(a)),
		 LOG_STR("task", assignment_name(a)), LOG_INT("attempt", retry_count + 1),
		 LOG_STR("effect", "it runs here already, and counts for this attempt"));
	a->retry_count = retry_count;
	strcpy(a->worker_id, worker_id);
	if (strcmp(before, worker_id) != 0)
		a->owner->o.gone(a->owner->o.arg, before);
}

static void assignments_cancel(struct hatchet_assignments *q, const struct hatchet_action *action)
{
	struct hatchet_assignment *a = assignments_find(q, action);
	if (!a || a->state == ASSIGNMENT_ENDS)
		return;
	log_info("task_cancelled", LOG_STR("task_id", assignment_id(a)), LOG_STR("task", assignment_name(a)),
		 LOG_BOOL("running", a->run != NULL));
	if (a->run) {
		assignment_kill(a, ASSIGNMENT_CANCELLED);
		return;
	}
	a->asking = http_cancel(a->asking);
	assignment_end(a, HATCHET_EVENT_CANCELLED);
}

static struct hatchet_assignment *assignment_new(struct hatchet_assignments *q, struct hatchet_catalog *c,
						 const char *worker_id, struct hatchet_action *action)
{
	struct hatchet_assignment *a = calloc(1, sizeof(*a));
	if (!a)
		return NULL;
	a->owner = q;
	a->state = ASSIGNMENT_ENDS; /* counted nowhere yet */
	a->action = *action;
	*action = (struct hatchet_action){0};
	a->catalog = hatchet_catalog_ref(c);
	a->entry = hatchet_catalog_find(c, a->action.action_id);
	a->retry_count = a->action.retry_count;
	snprintf(a->worker_id, sizeof(a->worker_id), "%s", worker_id);
	buf_init(&a->payload, HATCHET_MAX_OUTPUT + 1024);
	buf_init(&a->detail, 1u << 20);
	TAILQ_INSERT_TAIL(&q->all, a, place);
	q->n++;
	q->received++;
	return a;
}

/* A cancelled attempt that still winds down is no other's. */
static struct hatchet_assignment *assignments_same(struct hatchet_assignments *q,
						   const struct hatchet_action *action)
{
	struct hatchet_assignment *a;
	TAILQ_FOREACH (a, &q->all, place) {
		bool over = a->reason == ASSIGNMENT_CANCELLED || a->end == HATCHET_EVENT_CANCELLED ||
			    (a->state == ASSIGNMENT_ENDS && a->end == HATCHET_EVENT_FAILED && !a->final);
		if (strcmp(a->action.task_run_id, action->task_run_id) == 0 &&
		    (!over || a->retry_count == action->retry_count))
			return a;
	}
	return NULL;
}

void hatchet_assignments_take(struct hatchet_assignments *q, struct hatchet_catalog *c, const char *worker_id,
			      struct hatchet_action *action)
{
	struct hatchet_assignment *a = NULL;
	if (action->kind == HATCHET_ACTION_CANCEL) {
		assignments_cancel(q, action);
	} else if (action->kind != HATCHET_ACTION_START) {
		log_error("action_not_known", LOG_STR("action", action->action_id));
	} else if ((a = assignments_same(q, action)) != NULL) {
		assignment_take_over(a, worker_id, action->retry_count);
	} else if ((a = assignment_new(q, c, worker_id, action)) != NULL) {
		assignment_begin(a);
	} else {
		log_error("task_dropped", LOG_STR("task_id", action->task_run_id),
			  LOG_STR("error", "out of memory"));
	}
	hatchet_action_release(action);
}

/* --- begin and end -------------------------------------------------------------------------------------- */

int hatchet_assignments_init(struct hatchet_assignments *q, const struct hatchet_assignments_options *o)
{
	q->o = *o;
	TAILQ_INIT(&q->all);
	TAILQ_INIT(&q->ready);
	q->work.fn = assignments_on_work;
	return loop_timer_new(o->loop, assignments_on_pause, q, &q->pause);
}

void hatchet_assignments_kill(struct hatchet_assignments *q)
{
	struct hatchet_assignment *next;
	q->killing = true;
	for (struct hatchet_assignment *a = TAILQ_FIRST(&q->all); a; a = next) {
		next = TAILQ_NEXT(a, place);
		if (a->run) {
			log_warn("task_cut", LOG_STR("task_id", assignment_id(a)),
				 LOG_STR("task", assignment_name(a)));
			assignment_kill(a, ASSIGNMENT_STOPPED);
		} else if (a->state != ASSIGNMENT_ENDS) {
			a->asking = http_cancel(a->asking);
			assignment_fail(a, SPAN_LIT("the worker was stopped before the task began"),
					SPAN_NONE, !a->entry->task->idempotent);
		}
	}
}

void hatchet_assignments_release(struct hatchet_assignments *q)
{
	if (!q->o.loop)
		return;
	while (!TAILQ_EMPTY(&q->all))
		assignment_free(TAILQ_FIRST(&q->all));
	loop_defer_cancel(q->o.loop, &q->work);
	q->pause = loop_timer_free(q->pause);
}
