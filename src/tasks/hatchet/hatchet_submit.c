/*
 * Submitting: is there such a workflow, then one trigger, and, when that was left unanswered, a lookup.
 *
 * The engine de-duplicates nothing, and it accepts a workflow that does not exist (a phantom id, 404 forever
 * after). So the name is asked for first, and remembered for a while; the trigger is written at most once;
 * and after "written, no reply" the runs are looked through for our id, a bounded number of times.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "tasks/hatchet/hatchet_internal.h"
#include "tasks/hatchet/hatchet_message.h"

#define NAMES_MAX 1024
#define PAGE 50
#define BODY_MAX (HATCHET_MAX_INPUT + 65536)

/* Between two lookups; a run is listed some 10-40 ms after it was taken, later under load. */
static const unsigned look_up_after_ms[] = {50, 150, 400, 1000, 2000, 3000};
#define LOOK_UPS (sizeof(look_up_after_ms) / sizeof(look_up_after_ms[0]))

/* A workflow that the engine had, until when that is believed. That one is missing is never remembered:
 * its worker may come now. */
struct hatchet_name {
	struct hatchet_name *next;
	uint64_t believed_until_ms;
	char text[];
};

struct submission {
	struct hatchet_operation op;
	task_submit_fn fn;
	void *arg;
	struct buf body, workflow;
	char id[TASK_ID_MAX]; /* ours */
	int64_t begun_us;
	unsigned page, look_ups;
	struct err why; /* of the unknown outcome */
	bool about_call;
};

/* --- names ---------------------------------------------------------------------------------------------- */

static struct hatchet_name *find_name(struct hatchet_client *c, struct span name)
{
	struct hatchet_name *n = c->names;
	while (n && !span_is(name, n->text))
		n = n->next;
	return n;
}

static void believe(struct hatchet_client *c, struct span name)
{
	struct hatchet_name *n = find_name(c, name);
	if (!n && c->n_names < NAMES_MAX && (n = calloc(1, sizeof(*n) + name.len + 1))) {
		memcpy(n->text, name.ptr, name.len);
		n->next = c->names;
		c->names = n;
		c->n_names++;
	}
	if (n)
		n->believed_until_ms = loop_now_ms(c->base.loop) + c->settings->name_ms;
}

void hatchet_names_free(struct hatchet_client *c)
{
	while (c->names) {
		struct hatchet_name *next = c->names->next;
		free(c->names);
		c->names = next;
	}
}

/* --- the end of a submission ---------------------------------------------------------------------------- */

static void hatchet_submit_release(struct hatchet_operation *op)
{
	struct submission *s = (struct submission *)op;
	buf_release(&s->body);
	buf_release(&s->workflow);
	free(s);
}

static void hatchet_submit_tell(struct submission *s, enum task_submit_status status, const char *id,
				const struct err *why)
{
	struct task_submission told = {.status = status, .task_id = span_of(id), .about_call = s->about_call};
	if (why)
		told.err = *why;
	hatchet_operation_end(&s->op);
	s->fn(s->arg, &told);
	hatchet_operation_free(&s->op);
}

static void hatchet_submit_refuse(struct submission *s, const struct http_reply *r,
				  enum task_submit_status status)
{
	struct err why;
	hatchet_problem(s->op.client, r, 0, &why);
	hatchet_submit_tell(s, status, s->id, &why);
}

/* --- the look-up ---------------------------------------------------------------------------------------- */

static void look_up(struct hatchet_operation *op);

/* Finding nothing proves nothing: the list is filled behind the trigger's back, by a queue, and a request
 * that lay in a socket or waited for the database can be taken after the last look. So the outcome stays
 * unknown, and nobody runs it again. */
static void on_runs(struct hatchet_operation *op, const struct http_reply *r)
{
	struct submission *s = (struct submission *)op;
	char id[TASK_ID_MAX];
	if (r->failure == HTTP_OK && r->status == 200 && hatchet_read_runs(r->body, span_of(s->id), id))
		hatchet_submit_tell(s, TASK_SUBMITTED, id, NULL);
	else if (s->look_ups < LOOK_UPS)
		hatchet_sleep(op, look_up_after_ms[s->look_ups], look_up);
	else
		hatchet_submit_tell(s, TASK_UNKNOWN, s->id, &s->why);
}

/* By our own id: the request's may come from its caller, who may use it twice, and then another's run
 * would be taken for this one. */
static void look_up(struct hatchet_operation *op)
{
	struct submission *s = (struct submission *)op;
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(4096);
	char since[CLOCK_TEXT_MAX];
	/* clocks differ; without since no rows come */
	clock_format(s->begun_us - 3600 * INT64_C(1000000), since);
	s->look_ups++;
	hatchet_put_tenant(op->client, &path, true);
	buf_printf(
		&path,
		"/workflow-runs?since=%s&only_tasks=false&limit=%d&additional_metadata=" HATCHET_TASK_ID_KEY
		":",
		since, PAGE);
	buf_put_segment(&path, span_of(s->id));
	hatchet_ask(op, "GET", &path, SPAN_NONE, false, on_runs);
}

/* --- the trigger ---------------------------------------------------------------------------------------- */

/* Answered before anything was taken: the engine checks who, what form, how large. 408 comes from proxies,
 * which may have passed it on. */
static bool is_refusal(int status)
{
	return status >= 400 && status < 500 && status != 408;
}

/* Credentials, limits and what is between are the backend's. */
static bool is_about_call(int status)
{
	return status == 400 || status == 404 || status == 422;
}

static void on_triggered(struct hatchet_operation *op, const struct http_reply *r)
{
	struct submission *s = (struct submission *)op;
	char id[TASK_ID_MAX];
	bool answered = r->failure == HTTP_OK;
	if (answered && r->status >= 200 && r->status < 300 && hatchet_read_trigger(r->body, id)) {
		hatchet_submit_tell(s, TASK_SUBMITTED, id, NULL);
	} else if (answered && r->status == 413) {
		hatchet_submit_refuse(s, r, TASK_INPUT_TOO_LARGE);
	} else if ((answered && is_refusal(r->status)) || !r->sent) {
		s->about_call = answered && is_about_call(r->status);
		hatchet_submit_refuse(s, r, TASK_REFUSED);
	} else {
		/* 5xx too: the answer may be a proxy's, or an error after the run was made. */
		hatchet_problem(op->client, r, 0, &s->why);
		hatchet_sleep(op, look_up_after_ms[0], look_up);
	}
}

static void ask_trigger(struct hatchet_operation *op)
{
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(1024);
	hatchet_put_tenant(op->client, &path, true);
	buf_puts(&path, "/workflow-runs/trigger");
	hatchet_ask(op, "POST", &path, buf_span(&((struct submission *)op)->body), true, on_triggered);
}

static void on_no_turn(struct hatchet_operation *op)
{
	struct submission *s = (struct submission *)op;
	struct err why;
	err_set(&why, 0, "%s: busy with other submissions for %u ms: this one was not sent",
		op->client->settings->url, op->client->settings->request_ms);
	hatchet_submit_tell(s, TASK_REFUSED, s->id, &why);
}

static void trigger(struct submission *s)
{
	hatchet_in_turn(&s->op, HATCHET_TRIGGERS, ask_trigger, on_no_turn);
}

/* --- the check of the name ------------------------------------------------------------------------------ */

static void ask_name(struct submission *s);

static void hatchet_submit_on_names(struct hatchet_operation *op, const struct http_reply *r)
{
	struct submission *s = (struct submission *)op;
	struct err why;
	bool more;
	if (r->failure != HTTP_OK || r->status != 200) {
		hatchet_submit_refuse(s, r, TASK_REFUSED); /* nothing was triggered */
	} else if (hatchet_read_names(r->body, buf_span(&s->workflow), s->page, &more)) {
		believe(op->client, buf_span(&s->workflow));
		trigger(s);
	} else if (more && ++s->page < HATCHET_PAGES_MAX) {
		ask_name(s);
	} else {
		s->about_call = true;
		err_set(&why, 0, "Hatchet has no workflow \"%s\"; its worker registers it", s->workflow.ptr);
		hatchet_submit_tell(s, TASK_REFUSED, s->id, &why);
	}
}

void hatchet_put_names(const struct hatchet_client *c, struct buf *path, struct span workflow, unsigned page)
{
	hatchet_put_tenant(c, path, false);
	buf_puts(path, "/workflows?name=");
	buf_put_segment(path, workflow);
	buf_printf(path, "&limit=%d", PAGE);
	if (page)
		buf_printf(path, "&offset=%u", page * PAGE);
}

static void ask_name(struct submission *s)
{
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(4096);
	hatchet_put_names(s->op.client, &path, buf_span(&s->workflow), s->page);
	hatchet_ask(&s->op, "GET", &path, SPAN_NONE, false, hatchet_submit_on_names);
}

/* --- the verb ------------------------------------------------------------------------------------------- */

static int hatchet_submit_prepare(struct submission *s, const struct task_call *call, struct err *e)
{
	buf_init(&s->workflow, TASK_NAME_MAX + 16);
	buf_init(&s->body, BODY_MAX);
	span_copy(call->task_id, s->id, sizeof(s->id));
	s->begun_us = clock_wall_us();
	if (hatchet_put_workflow(&s->workflow, call->task, call->workflow) < 0)
		return err_set(e, s->workflow.error, "out of memory");
	return hatchet_put_trigger(&s->body, call, buf_span(&s->workflow), e);
}

static enum task_submit_status hatchet_submit_refusal_of(int error)
{
	if (error == -ERANGE)
		return TASK_INPUT_NOT_REPRESENTABLE;
	return error == -EFBIG ? TASK_INPUT_TOO_LARGE : TASK_REFUSED;
}

void hatchet_submit(struct task_client *base, const struct task_call *call, task_submit_fn fn, void *arg)
{
	struct hatchet_client *c = (struct hatchet_client *)base;
	struct err why = {"out of memory"};
	struct submission *s = hatchet_operation_new(c, sizeof(*s));
	int r = -ENOMEM;
	if (s) {
		s->op.release = hatchet_submit_release;
		s->fn = fn;
		s->arg = arg;
		r = hatchet_submit_prepare(s, call, &why);
	}
	if (r < 0) {
		if (s)
			hatchet_operation_free(&s->op);
		task_submit_later(base, hatchet_submit_refusal_of(r), call->task_id, &why, fn, arg);
		return;
	}
	const struct hatchet_name *known = find_name(c, buf_span(&s->workflow));
	if (known && known->believed_until_ms > loop_now_ms(base->loop))
		trigger(s);
	else
		ask_name(s);
}
