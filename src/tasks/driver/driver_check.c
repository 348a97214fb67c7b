/*
 * Whether a workflow would be run: the driver's own file, and for each step whether its backend is there and
 * runs its task.
 */
#include <stdio.h>
#include <string.h>

#include "tasks/driver/driver_run.h"

void driver_read_health(struct driver *d, struct task_health *h)
{
	h->reachable = d->trouble == 0 && d->store;
	h->worker = true; /* of steps: driver_begin_check */
	h->backlog = (int64_t)d->n_runs;
	if (!h->reachable)
		span_copy(d->trouble ? span_of(d->why.text) : SPAN_LIT("workflows.db is not open"), h->detail,
			  sizeof(h->detail));
}

/* One question about a step. */
struct step_check {
	struct driver_operation *op;
	char step[TASK_NAME_MAX], backend[16];
};

static enum task_answer worse(enum task_answer a, enum task_answer b)
{
	if (a == TASK_ANSWER_NO || b == TASK_ANSWER_NO)
		return TASK_ANSWER_NO;
	return a == TASK_ANSWER_UNKNOWN || b == TASK_ANSWER_UNKNOWN ? TASK_ANSWER_UNKNOWN : TASK_ANSWER_YES;
}

static void check_missing(struct driver_operation *op, const char *step, const char *backend, const char *why)
{
	if (!op->check.missing[0] && why[0])
		snprintf(op->check.missing, sizeof(op->check.missing), "step \"%.60s\" (%s): %.160s", step,
			 backend, why);
}

static void check_settle(struct driver_operation *op)
{
	if (--op->asking == 0)
		driver_channel_deliver(op);
}

static void driver_on_step_checked(void *arg, const struct task_check *c)
{
	struct step_check *s = arg;
	struct task_check *all = &s->op->check;
	all->reachable &= c->reachable;
	all->known = worse(all->known, c->known);
	all->worker = worse(all->worker, c->worker);
	check_missing(s->op, s->step, s->backend, c->missing);
	check_settle(s->op);
	free(s);
}

static void check_step(struct driver *d, struct driver_operation *op, const struct workflow_step *step)
{
	struct span backend = step->backend.ptr ? step->backend : span_of(d->o->backend);
	struct driver_peer *peer = driver_peer_of(d, backend);
	struct step_check *s = peer ? calloc(1, sizeof(*s)) : NULL;
	if (!s) {
		char name[16], of[TASK_NAME_MAX];
		span_copy(backend, name, sizeof(name));
		span_copy(step->name, of, sizeof(of));
		op->check.worker = TASK_ANSWER_NO;
		check_missing(op, of, name, peer ? "out of memory" : "this backend is not configured");
		return;
	}
	s->op = op;
	span_copy(step->name, s->step, sizeof(s->step));
	span_copy(backend, s->backend, sizeof(s->backend));
	const struct task_probe probe = {
		.task = step->task, .queue = step->queue, .priority = op->call.priority};
	op->asking++;
	task_check(peer->client, &probe, driver_on_step_checked, s);
}

static bool asked_before(const struct workflow_definition *w, size_t i)
{
	const struct workflow_step *s = &w->steps[i];
	for (size_t j = 0; j < i; j++)
		if (span_eq(w->steps[j].task, s->task) && span_eq(w->steps[j].queue, s->queue) &&
		    span_eq(w->steps[j].backend, s->backend))
			return true;
	return false;
}

void driver_begin_check(struct driver *d, struct driver_operation *op)
{
	struct task_health h = {0};
	struct task_check *c = &op->check;
	const struct workflow_definition *w =
		op->is_workflow ? registry_workflow(d->o->workflows, op->call.name) : NULL;
	driver_read_health(d, &h);
	*c = (struct task_check){
		.reachable = h.reachable, .known = TASK_ANSWER_NO, .worker = TASK_ANSWER_UNKNOWN};
	if (!h.reachable)
		span_copy(span_of(h.detail), c->missing, sizeof(c->missing));
	else if (!op->is_workflow)
		span_copy(SPAN_LIT("the router drives workflows, no single tasks"), c->missing,
			  sizeof(c->missing));
	else if (!w)
		snprintf(c->missing, sizeof(c->missing), "no workflow \"%.*s\" is declared for the router",
			 SPAN_ARG(op->call.name));
	op->asking = 1;
	if (h.reachable && w) {
		c->known = c->worker = TASK_ANSWER_YES;
		for (size_t i = 0; i < w->n_steps; i++)
			if (!asked_before(w, i))
				check_step(d, op, &w->steps[i]);
	}
	check_settle(op);
}
