/*
 * Waiting and getting. The engine can only be asked again and again: its status, and the run once that has
 * come to an end.
 *
 * state   | asks                    | then
 * --------|-------------------------|----------------------------------------------------------------------
 * status  | …/{id}/status           | QUEUED, RUNNING, 404 in its grace, nothing that can be read → later
 *         |                         | again; an end → run
 * run     | …/{id}                  | ended → told; a failure that may be retried → run again after
 *         |                         | flicker_ms, once;
 *         |                         | a failure that says nothing → events; not ended after all → status;
 *         |                         | not readable at the last of UNREADABLE_MAX looks → told that it has
 *         |                         | ended, unreadable
 * events  | tasks/{id}/task-events  | told, with the time limit that was reached, or as it is
 *
 * `get` begins at run and is reported whatever that says; of a run that cannot be read, what its status says.
 * Only an end ends a wait: who waits has a time limit, and what lies in between may answer for the engine for
 * a while (a proxy's page, a token that changes).
 */
#include <errno.h>
#include <stdlib.h>

#include "tasks/hatchet/hatchet_internal.h"
#include "tasks/hatchet/hatchet_message.h"
#include "tasks/hatchet/hatchet_run.h"

#define POLL_FIRST_MS 20
#define POLL_LAST_MS 250
/* added for each other run that is checked: about 500 looks a second, however many there are */
#define POLL_PER_WAIT_MS 2
#define GET_GRACE_MS 3000 /* a busy engine shows what it has taken a second later */
#define UNSETTLED_MAX 40  /* looks at a run whose tasks lag behind it */
#define UNREADABLE_MAX 8  /* looks at a run that has ended and cannot be read: 1 s */

struct hatchet_waiting {
	struct hatchet_operation op;
	task_result_fn fn;
	void *arg;
	bool get;	/* the state now, not the end */
	bool at_end;	/* the status said so: from now on the run is asked for */
	bool confirmed; /* the failure was looked at twice */
	unsigned pause_ms, unsettled, unread;
	uint64_t known_ms; /* when the engine last knew it; at first: when waiting began */
	char id[TASK_ID_MAX];
	struct buf text; /* of the result */
	struct buf body; /* of a run whose events are asked for */
};

static void hatchet_wait_look(struct hatchet_operation *op);
static void ask_run(struct hatchet_operation *op);

/* --- the end of a wait ---------------------------------------------------------------------------------- */

static void hatchet_wait_release(struct hatchet_operation *op)
{
	struct hatchet_waiting *w = (struct hatchet_waiting *)op;
	op->client->waits--;
	buf_release(&w->text);
	buf_release(&w->body);
	free(w);
}

static void hatchet_wait_tell(struct hatchet_waiting *w, int error, struct hatchet_run *run)
{
	hatchet_operation_end(&w->op);
	if (run)
		run->result.task_id = span_of(w->id);
	w->fn(w->arg, error, run ? &run->result : NULL);
	hatchet_operation_free(&w->op);
}

/* --- what every answer may be --------------------------------------------------------------------------- */

static void again(struct hatchet_waiting *w)
{
	unsigned pause = w->pause_ms;
	w->pause_ms = pause * 3 / 2 < POLL_LAST_MS ? pause * 3 / 2 : POLL_LAST_MS;
	hatchet_sleep(&w->op, pause + w->op.client->waits * POLL_PER_WAIT_MS, hatchet_wait_look);
}

static void look_much_later(struct hatchet_waiting *w)
{
	w->pause_ms = POLL_LAST_MS;
	again(w);
}

/* true when the answer is a 200; otherwise everything is done here. */
static bool hatchet_wait_answered(struct hatchet_waiting *w, const struct http_reply *r)
{
	const struct hatchet_settings *s = w->op.client->settings;
	uint64_t now = loop_now_ms(w->op.client->base.loop);
	bool told = r->failure == HTTP_OK && r->status < 500 && r->status != 408 && r->status != 429;
	if (told && r->status == 200) {
		w->known_ms = now;
		return true;
	}
	if (told && r->status == 404) {
		/* For some ms it does not know what it has just taken; `get` cannot know when that was. */
		unsigned grace = w->get && s->grace_ms > GET_GRACE_MS ? GET_GRACE_MS : s->grace_ms;
		if (now - w->known_ms < grace)
			again(w);
		else
			hatchet_wait_tell(w, TASK_E_NOT_FOUND, NULL);
	} else if (told && r->status == 400) {
		hatchet_wait_tell(w, TASK_E_NOT_FOUND, NULL); /* no id of the engine's */
	} else if (r->failure == HTTP_TOO_LARGE) {
		hatchet_wait_tell(w, TASK_E_UNREADABLE, NULL); /* a result that no look will make smaller */
	} else if (w->get) {
		hatchet_wait_tell(w, TASK_E_UNREACHABLE, NULL);
	} else {
		/* 403 too: a token that was replaced, or what is in front of the engine. The task is not
		 * over for that. */
		look_much_later(w);
	}
	return false;
}

/* --- the run -------------------------------------------------------------------------------------------- */

/* A time limit leaves no message in the run; the newest event has one. Without an answer the run is told
 * as it is. */
static void on_events(struct hatchet_operation *op, const struct http_reply *r)
{
	struct hatchet_waiting *w = (struct hatchet_waiting *)op;
	struct hatchet_run run;
	CLEANUP(buf_releasep) struct buf sentence = BUF_INIT(65536);
	if (hatchet_run_read(buf_span(&w->body), &w->text, &run) < 0) {
		hatchet_wait_tell(w, -ENOMEM, NULL); /* it was read before */
		return;
	}
	if (r->failure == HTTP_OK && r->status == 200 && hatchet_events_read(r->body, &sentence) &&
	    sentence.len)
		run.result.error = buf_span(&sentence);
	hatchet_wait_tell(w, 0, &run);
}

static bool ask_events(struct hatchet_waiting *w, struct span body, struct span task)
{
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(1024);
	buf_clear(&w->body);
	if (buf_append_span(&w->body, body) < 0)
		return false;
	buf_puts(&path, "/api/v1/stable/tasks/");
	buf_put_segment(&path, task);
	buf_puts(&path, "/task-events?limit=50"); /* without a limit none come */
	hatchet_ask(&w->op, "GET", &path, SPAN_NONE, false, on_events);
	return true;
}

/* Whether the end that the run speaks of is to be believed now; otherwise the next look is in progress. */
static bool settled(struct hatchet_waiting *w, const struct hatchet_run *run)
{
	enum task_status s = run->result.status;
	if (run->ended) {
		if (!run->may_retry || w->confirmed)
			return true;
		w->confirmed = true;
		hatchet_sleep(&w->op, w->op.client->settings->flicker_ms, hatchet_wait_look);
		return false;
	}
	if (w->get && (s == TASK_PENDING || s == TASK_RUNNING))
		return true;
	if ((s == TASK_COMPLETED || s == TASK_FAILED) && ++w->unsettled > UNSETTLED_MAX)
		return true;
	w->confirmed = false; /* it was between two tries */
	w->at_end = false;
	again(w);
	return false;
}

static void ask_status(struct hatchet_operation *op);

/* Something else than the engine answers there, or what the engine has of it is no run to us. */
static void hatchet_wait_unreadable(struct hatchet_waiting *w)
{
	if (w->get)
		hatchet_in_turn(&w->op, HATCHET_LOOKS, ask_status, NULL);
	else if (++w->unread < UNREADABLE_MAX)
		again(w);
	else
		hatchet_wait_tell(w, TASK_E_UNREADABLE, NULL);
}

static void hatchet_wait_on_run(struct hatchet_operation *op, const struct http_reply *r)
{
	struct hatchet_waiting *w = (struct hatchet_waiting *)op;
	struct hatchet_run run;
	if (!hatchet_wait_answered(w, r))
		return;
	int e = hatchet_run_read(r->body, &w->text, &run);
	if (e == -EBADMSG)
		hatchet_wait_unreadable(w);
	else if (e < 0)
		hatchet_wait_tell(w, e, NULL);
	else if (settled(w, &run) && !(run.unexplained && ask_events(w, r->body, run.failed_task)))
		hatchet_wait_tell(w, 0, &run);
}

static void ask_run(struct hatchet_operation *op)
{
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(1024);
	buf_puts(&path, "/api/v1/stable/workflow-runs/");
	buf_put_segment(&path, span_of(((struct hatchet_waiting *)op)->id));
	hatchet_ask(op, "GET", &path, SPAN_NONE, false, hatchet_wait_on_run);
}

/* --- the status ----------------------------------------------------------------------------------------- */

/* Of a run that could not be read. */
static void tell_status(struct hatchet_waiting *w, bool known, enum task_status status)
{
	struct hatchet_run run = {.result.status = status};
	if (known && w->at_end)
		hatchet_wait_tell(w, TASK_E_UNREADABLE, NULL);
	else
		hatchet_wait_tell(w, known ? 0 : TASK_E_UNREACHABLE, known ? &run : NULL);
}

static void on_status(struct hatchet_operation *op, const struct http_reply *r)
{
	struct hatchet_waiting *w = (struct hatchet_waiting *)op;
	enum task_status status = TASK_PENDING;
	bool cancelled;
	if (!hatchet_wait_answered(w, r))
		return;
	bool known = hatchet_status_read(r->body, &status, &cancelled);
	w->at_end = known && (status == TASK_COMPLETED || status == TASK_FAILED);
	if (w->get)
		tell_status(w, known, status);
	else if (w->at_end)
		hatchet_wait_look(op);
	else if (known)
		again(w);
	else /* a state of a newer engine, or a page of what is in front of it */
		look_much_later(w);
}

static void ask_status(struct hatchet_operation *op)
{
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(1024);
	buf_puts(&path, "/api/v1/stable/workflow-runs/");
	buf_put_segment(&path, span_of(((struct hatchet_waiting *)op)->id));
	buf_puts(&path, "/status");
	hatchet_ask(op, "GET", &path, SPAN_NONE, false, on_status);
}

static void hatchet_wait_look(struct hatchet_operation *op)
{
	const struct hatchet_waiting *w = (const struct hatchet_waiting *)op;
	hatchet_in_turn(op, HATCHET_LOOKS, w->get || w->at_end ? ask_run : ask_status, NULL);
}

/* --- the verbs ------------------------------------------------------------------------------------------ */

static struct hatchet_waiting *hatchet_wait_begin(struct task_client *base, struct span task_id,
						  task_result_fn fn, void *arg)
{
	struct hatchet_waiting *w = hatchet_operation_new((struct hatchet_client *)base, sizeof(*w));
	if (!w)
		return NULL;
	w->op.release = hatchet_wait_release;
	w->op.client->waits++;
	w->fn = fn;
	w->arg = arg;
	w->pause_ms = POLL_FIRST_MS;
	w->known_ms = loop_now_ms(base->loop);
	buf_init(&w->text, HATCHET_MAX_ANSWER + 65536);
	buf_init(&w->body, HATCHET_MAX_ANSWER);
	span_copy(task_id, w->id, sizeof(w->id));
	return w;
}

struct task_wait *hatchet_wait(struct task_client *c, struct span task_id, task_result_fn fn, void *arg)
{
	struct hatchet_waiting *w = hatchet_wait_begin(c, task_id, fn, arg);
	if (w)
		hatchet_sleep(&w->op, POLL_FIRST_MS, hatchet_wait_look); /* at once it would be a 404 */
	return (struct task_wait *)w;
}

void hatchet_wait_cancel(struct task_wait *w)
{
	hatchet_operation_free(&((struct hatchet_waiting *)w)->op);
}

void hatchet_get(struct task_client *c, struct span task_id, task_result_fn fn, void *arg)
{
	struct hatchet_waiting *w = hatchet_wait_begin(c, task_id, fn, arg);
	if (!w) {
		fn(arg, -ENOMEM, NULL);
		return;
	}
	w->get = true;
	hatchet_wait_look(&w->op);
}
