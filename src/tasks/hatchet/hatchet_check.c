/*
 * Whether a task would be run: the engine is ready, has the workflow by this very name, and an active worker
 * serves it.
 */
#include <stdio.h>

#include "tasks/hatchet/hatchet_internal.h"
#include "tasks/hatchet/hatchet_message.h"

struct check {
	struct hatchet_operation op;
	task_check_fn fn;
	void *arg;
	unsigned page;
	struct task_check answer;
	char workflow[TASK_NAME_MAX + 16];
};

static void hatchet_check_tell(struct check *k)
{
	hatchet_operation_end(&k->op);
	k->fn(k->arg, &k->answer);
	hatchet_operation_free(&k->op);
}

/* true for a 200; otherwise it is told why not. */
static bool hatchet_check_answered(struct check *k, const struct http_reply *r)
{
	struct err why;
	if (r->failure == HTTP_OK && r->status == 200)
		return true;
	k->answer.reachable = false;
	hatchet_problem(k->op.client, r, 0, &why);
	span_copy(span_of(why.text), k->answer.missing, sizeof(k->answer.missing));
	hatchet_check_tell(k);
	return false;
}

static void hatchet_check_on_workers(struct hatchet_operation *op, const struct http_reply *r)
{
	struct check *k = (struct check *)op;
	struct span missing;
	if (!hatchet_check_answered(k, r))
		return;
	k->answer.worker = hatchet_read_workers(r->body, span_of(k->workflow), &missing) ? TASK_ANSWER_YES
											 : TASK_ANSWER_NO;
	if (k->answer.worker == TASK_ANSWER_NO && !k->answer.missing[0])
		snprintf(k->answer.missing, sizeof(k->answer.missing),
			 "no active worker serves the workflow %s", k->workflow);
	hatchet_check_tell(k);
}

static void ask_names(struct check *k);

static void hatchet_check_on_names(struct hatchet_operation *op, const struct http_reply *r)
{
	struct check *k = (struct check *)op;
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(1024);
	bool more = false;
	if (!hatchet_check_answered(k, r))
		return;
	bool found = hatchet_read_names(r->body, span_of(k->workflow), k->page, &more);
	if (!found && more && ++k->page < HATCHET_PAGES_MAX) {
		ask_names(k);
		return;
	}
	k->answer.known = found ? TASK_ANSWER_YES : TASK_ANSWER_NO;
	if (!found)
		snprintf(k->answer.missing, sizeof(k->answer.missing),
			 "Hatchet has no workflow \"%s\"; its worker registers it", k->workflow);
	hatchet_put_tenant(op->client, &path, false);
	buf_puts(&path, "/worker?statuses=ACTIVE");
	hatchet_ask(op, "GET", &path, SPAN_NONE, false, hatchet_check_on_workers);
}

static void ask_names(struct check *k)
{
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(4096);
	hatchet_put_names(k->op.client, &path, span_of(k->workflow), k->page);
	hatchet_ask(&k->op, "GET", &path, SPAN_NONE, false, hatchet_check_on_names);
}

static void hatchet_check_on_ready(struct hatchet_operation *op, const struct http_reply *r)
{
	struct check *k = (struct check *)op;
	if (!hatchet_check_answered(k, r))
		return;
	k->answer.reachable = true;
	ask_names(k);
}

void hatchet_check(struct task_client *base, const struct task_probe *probe, task_check_fn fn, void *arg)
{
	CLEANUP(buf_releasep) struct buf path = BUF_INIT(64);
	struct check *k = hatchet_operation_new((struct hatchet_client *)base, sizeof(*k));
	if (!k) {
		const struct task_check none = {.known = TASK_ANSWER_UNKNOWN,
						.worker = TASK_ANSWER_UNKNOWN,
						.missing = "out of memory"};
		fn(arg, &none);
		return;
	}
	k->fn = fn;
	k->arg = arg;
	k->answer = (struct task_check){.known = TASK_ANSWER_UNKNOWN, .worker = TASK_ANSWER_UNKNOWN};
	snprintf(k->workflow, sizeof(k->workflow), "%.*s%s", SPAN_ARG(probe->task),
		 probe->workflow ? "" : "_workflow");
	buf_puts(&path, "/api/ready");
	hatchet_ask(&k->op, "GET", &path, SPAN_NONE, false, hatchet_check_on_ready);
}
