#include "programs/router/moving/app_setback.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crypto.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "move/setback.h"
#include "programs/router/app_guard.h"
#include "programs/router/app_internal.h"
#include "programs/router/moving/app_move.h"
#include "programs/router/app_standing.h"

#define AGAIN_FIRST_MS 1000
#define AGAIN_MAX_MS 60000
#define EVIDENCE_MAX 16384

/* One that is wanted. Its job may outlive it. */
struct setback_entry {
	struct setback_entry *next;
	struct app_setback *owner;
	char service[32], operation[64];
	int64_t epoch;
	bool running, over; /* over: nobody wants it any more; freed when its job is done */
	unsigned failed;    /* in a row */
	bool made;
	int64_t next_ms; /* monotonic: when to look again */
	char error[ERR_TEXT_MAX];
};

struct app_setback {
	struct app *app;
	struct loop_timer *timer;
	struct setback_entry *entries;
};

struct setback_job {
	struct mover_job job; /* first: the callbacks get its address */
	struct setback_entry *entry;
	struct setback wanted;
	struct setback_done made;
	struct buf evidence;
};

/* --- one try -------------------------------------------------------------------------------------------- */

static int run_setback(struct mover_job *job, struct rollout_place *p, struct err *e)
{
	struct setback_job *j = (struct setback_job *)job;
	return move_set_back(p, &j->wanted, &j->made, e);
}

static void setback_free(struct setback_job *j)
{
	config_unref(j->job.config);
	buf_release(&j->evidence);
	buf_release(&j->job.said);
	free(j);
}

static unsigned setback_delay(unsigned failed)
{
	unsigned ms = failed && failed < 7 ? AGAIN_FIRST_MS << (failed - 1) : AGAIN_MAX_MS;
	ms = ms < AGAIN_MAX_MS ? ms : AGAIN_MAX_MS;
	return ms + crypto_random_below(ms / 4 + 1); /* so that replicas part */
}

static void tell_made(const struct setback_job *j, int result)
{
	const struct move_request q = {.command = j->made.command,
				       .flag = j->made.flag,
				       .percent = j->made.percent,
				       .who = "guard",
				       .message = j->made.message};
	app_move_tell(j->entry->owner->app, &q, result == SETBACK_MADE ? MOVE_DONE : MOVE_NOT_AS_ASKED,
		      result == SETBACK_MADE ? "" : "see what was said");
	if (j->made.unrecorded || result != SETBACK_MADE)
		log_warn("guard_write_odd", LOG_STR("flag", j->made.flag),
			 LOG_BOOL("unrecorded", j->made.unrecorded),
			 LOG_SPAN("detail", buf_span(&j->job.said)));
}

static void tell_event(const struct setback_entry *x, const char *why)
{
	struct events *events = app_standing_events(x->owner->app);
	struct event event = {
		.kind = EVENT_MOVE,
		.before = EVENT_NO_PERCENT,
		.after = EVENT_NO_PERCENT,
		.who = "guard",
		.what = "could not set the percentage back: the hold stays, and it is tried again"};
	memcpy(event.service, x->service, sizeof(event.service));
	memcpy(event.operation, x->operation, sizeof(event.operation));
	text_copy(span_of(why), event.why, sizeof(event.why));
	if (events)
		events_add(events, &event);
}

/* Told when it begins to fail and when it fails for another reason, not each time. */
static void tell_failed(struct setback_entry *x, const struct err *e)
{
	if (strcmp(x->error, e->text) == 0)
		return;
	log_error("guard_write_failed", LOG_STR("service", x->service), LOG_STR("operation", x->operation),
		  LOG_STR("error", e->text), LOG_STR("effect", "the hold stays; it is tried again"));
	if (!x->error[0])
		tell_event(x, e->text);
	text_copy(span_of(e->text), x->error, sizeof(x->error));
}

static void setback_arm(struct app_setback *s)
{
	int64_t first = INT64_MAX, now = clock_mono_ms();
	for (const struct setback_entry *x = s->entries; x; x = x->next)
		if (!x->running && x->next_ms < first)
			first = x->next_ms;
	if (first == INT64_MAX)
		loop_timer_stop(s->timer);
	else
		loop_timer_start(s->timer, first > now ? (uint64_t)(first - now) : 0);
}

static void setback_done(struct mover_job *job)
{
	struct setback_job *j = (struct setback_job *)job;
	struct setback_entry *x = j->entry;
	int r = job->result;
	x->running = false;
	if (r == SETBACK_MADE || r == SETBACK_NOT_AS_ASKED)
		tell_made(j, r);
	else if (r < 0 && r != -ECANCELED)
		tell_failed(x, &job->err);
	x->made = x->made || r == SETBACK_MADE || r == SETBACK_NOT_AS_ASKED;
	x->failed = r < 0 ? x->failed + 1 : 0;
	if (r >= 0)
		x->error[0] = '\0';
	x->next_ms = clock_mono_ms() + setback_delay(x->failed);
	setback_free(j);
	if (x->over)
		free(x);
	else
		setback_arm(x->owner);
}

static void setback_begin(struct setback_entry *x, const struct guard_operation_verdict *v)
{
	struct app *a = x->owner->app;
	struct setback_job *j = calloc(1, sizeof(*j));
	CLEANUP(buf_releasep) struct buf why = BUF_INIT(4096);
	x->next_ms = clock_mono_ms() + AGAIN_FIRST_MS;
	if (!j)
		return;
	guard_verdict_to_text(v, &why);
	j->entry = x;
	j->evidence = BUF_INIT(EVIDENCE_MAX);
	guard_verdict_to_json(v, &j->evidence);
	j->wanted = (struct setback){.split = v->split, .keeps = v->keeps};
	memcpy(j->wanted.service, v->service, sizeof(j->wanted.service));
	memcpy(j->wanted.operation, v->operation, sizeof(j->wanted.operation));
	text_copy(buf_span(&why), j->wanted.why, sizeof(j->wanted.why));
	j->wanted.evidence = j->evidence.error ? SPAN_NONE : buf_span(&j->evidence);
	j->job.config = config_ref(a->config);
	j->job.run = run_setback;
	j->job.done = setback_done;
	j->job.flag = MOVER_ANY; /* which one is found out there */
	x->running = a->mover && mover_add(a->mover, MOVER_GUARD, &j->job) == 0;
	if (!x->running)
		setback_free(j);
}

/* --- what is wanted ------------------------------------------------------------------------------------- */

static bool may_write(const struct app *a, const struct guard_operation_verdict *v)
{
	const struct service *s = config_service(a->config, span_of(v->service));
	const struct operation *op = s ? service_operation(s, span_of(v->operation)) : NULL;
	return op && op->guard.write && op->guard.on_breach >= GUARD_ACTION_HOLD;
}

static bool is_wanted(const struct app *a, const struct guard_operation_verdict *v)
{
	return v->held && v->verdict == GUARD_BREACH && may_write(a, v);
}

static bool is_of(const struct setback_entry *x, const struct guard_operation_verdict *v)
{
	return x->epoch == v->epoch && strcmp(x->service, v->service) == 0 &&
	       strcmp(x->operation, v->operation) == 0;
}

static const struct guard_operation_verdict *
setback_verdict(const struct app *a, const struct setback_entry *x, const struct guard_verdicts *now)
{
	for (size_t i = 0; now && i < now->n; i++)
		if (is_of(x, &now->operations[i]) && is_wanted(a, &now->operations[i]))
			return &now->operations[i];
	return NULL;
}

static void setback_drop(struct setback_entry *x)
{
	x->over = true;
	if (!x->running)
		free(x);
}

static void setback_add(struct app_setback *s, const struct guard_operation_verdict *v)
{
	for (const struct setback_entry *x = s->entries; x; x = x->next)
		if (is_of(x, v))
			return;
	struct setback_entry *x = calloc(1, sizeof(*x));
	if (!x)
		return; /* the next look tries again */
	x->owner = s;
	x->epoch = v->epoch;
	x->next_ms = clock_mono_ms();
	memcpy(x->service, v->service, sizeof(x->service));
	memcpy(x->operation, v->operation, sizeof(x->operation));
	x->next = s->entries;
	s->entries = x;
}

void app_setback_look(struct app *a, const struct guard_verdicts *now)
{
	struct app_setback *s = a->setback;
	if (!s)
		return;
	for (struct setback_entry **at = &s->entries; *at;) {
		struct setback_entry *x = *at;
		if (setback_verdict(a, x, now)) {
			at = &x->next;
			continue;
		}
		*at = x->next;
		setback_drop(x);
	}
	for (size_t i = 0; now && i < now->n; i++)
		if (is_wanted(a, &now->operations[i]))
			setback_add(s, &now->operations[i]);
	setback_arm(s);
}

void app_setback_review(struct app *a)
{
	CLEANUP(guard_verdicts_freep) struct guard_verdicts *now = NULL;
	if (a->setback && app_guard_verdicts(a, &now) == 0)
		app_setback_look(a, now);
}

/* The process that has taken over writes what is left to write. */
static void on_setback_timer(void *arg)
{
	struct app_setback *s = arg;
	CLEANUP(guard_verdicts_freep) struct guard_verdicts *now = NULL;
	int64_t now_ms = clock_mono_ms();
	if (s->app->draining || app_guard_verdicts(s->app, &now) < 0) {
		loop_timer_start(s->timer, AGAIN_FIRST_MS);
		return;
	}
	for (struct setback_entry *x = s->entries; x; x = x->next) {
		const struct guard_operation_verdict *v = setback_verdict(s->app, x, now);
		if (v && !x->running && x->next_ms <= now_ms)
			setback_begin(x, v);
		else if (!v && !x->running)
			x->next_ms = now_ms + AGAIN_FIRST_MS; /* the look that drops it is on its way */
	}
	setback_arm(s);
}

/* --- what is shown -------------------------------------------------------------------------------------- */

static const char *state_of(const struct setback_entry *x)
{
	if (x->failed)
		return "failing";
	return x->made ? "made" : "pending";
}

bool app_setback_put(struct app *a, struct buf *json)
{
	bool fine = true;
	buf_puts(json, "\"guard_writes\":[");
	for (const struct setback_entry *x = a->setback ? a->setback->entries : NULL; x; x = x->next) {
		fine = fine && !x->failed;
		buf_printf(json, "%s{\"service\":\"%s\",\"operation\":\"%s\",\"state\":\"%s\",\"error\":",
			   x == a->setback->entries ? "" : ",", x->service, x->operation, state_of(x));
		json_quote(json, span_of(x->error));
		buf_putc(json, '}');
	}
	buf_putc(json, ']');
	return fine;
}

/* --- life ----------------------------------------------------------------------------------------------- */

int app_setback_start(struct app *a, struct err *e)
{
	struct app_setback *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->app = a;
	int r = loop_timer_new(a->loop, on_setback_timer, s, &s->timer);
	if (r < 0) {
		free(s);
		return err_set(e, r, "event loop: %s", strerror(-r));
	}
	a->setback = s;
	a->on_verdicts = app_setback_look;
	app_setback_review(a); /* what is held since before the start */
	return 0;
}

void app_setback_stop(struct app *a)
{
	struct app_setback *s = a->setback;
	if (!s)
		return;
	a->setback = NULL;
	a->on_verdicts = NULL;
	while (s->entries) {
		struct setback_entry *x = s->entries;
		s->entries = x->next;
		setback_drop(x);
	}
	loop_timer_free(s->timer);
	free(s);
}
