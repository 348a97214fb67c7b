/*
 * A workflow's plan: which steps begin now, with what, and how the whole has ended. It runs nothing and keeps
 * nothing: who drives a workflow tells it what has begun and what has ended.
 *
 * Why:       the rules of a workflow are in one place that neither waits nor writes, so that the embedded
 *            store, the router's driver and a Temporal worker cannot differ in them.
 * Rules:     a step begins when every step that it follows has completed. The first one that does not
 *            complete ends the whole at once: nothing new begins, what runs is to be asked to stop
 *            (workflow_plan_open), the error is "step "x": <its error>". A for_each is completed when all of
 *            its items are; one of no elements is completed at once.
 * Exact:     the same definition, input and ends, told in the same order, give the same answers, in every
 *            process and version: what is in doubt after a crash is asked again. Raw JSON is copied, never
 *            rewritten.
 * Ownership: the definition and the source outlive the plan's use of them. Spans handed to a callback are
 *            good until it returns.
 * Threads:   one.
 *
 *   plan = workflow_plan_new(w)
 *   workflow_plan_begun, workflow_plan_ended …     what is known already, in the order in which it happened
 *   workflow_plan_next(plan, source, begin)        begins what can begin, and again after each end
 *   workflow_plan_state(plan)                      → workflow_plan_result, or workflow_plan_error
 */
#ifndef TASKS_WORKFLOW_WORKFLOW_PLAN_H
#define TASKS_WORKFLOW_WORKFLOW_PLAN_H

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/span.h"
#include "tasks/workflow/workflow.h"

#define WORKFLOW_MAX_INPUT (64u << 20)	/* bytes of a step's arguments, and as many of its keywords */
#define WORKFLOW_MAX_RESULT (64u << 20) /* bytes of a for_each's results together */

struct workflow_plan;

/* NULL if out of memory. */
struct workflow_plan *workflow_plan_new(const struct workflow_definition *w);
struct workflow_plan *workflow_plan_free(struct workflow_plan *p); /* NULL is allowed; returns NULL */
DEFINE_CLEANUP(struct workflow_plan *, workflow_plan_free)

/* --- what has happened ---------------------------------------------------------------------------------- */

enum workflow_end_kind {
	WORKFLOW_END_COMPLETED,
	WORKFLOW_END_FAILED,
	WORKFLOW_END_CANCELLED,
	WORKFLOW_END_TIMED_OUT
};

/* The end of one task: of a step (item 0), or of one item of a for_each. */
struct workflow_end {
	unsigned step, item;
	enum workflow_end_kind kind;
	/* unless completed: for callers, and for operators (or SPAN_NONE); copied. Without an error the
	 * kind is said. */
	struct span error, detail;
};

/* It has begun: workflow_plan_next does not give it again. What that has given is taken as begun already;
 * this is for who goes on with what another process began. -EINVAL: the definition has no such step or
 * item. */
int workflow_plan_begun(struct workflow_plan *p, unsigned step, unsigned item);
/* It has ended; what had not begun counts as begun. A second end of the same is ignored, and so is all that
 * comes after the whole has ended, but that it is not open any more. -EINVAL as above. */
int workflow_plan_ended(struct workflow_plan *p, const struct workflow_end *end);
/* The whole ends from outside: it was cancelled or its time is up. Ignored when it has ended. */
void workflow_plan_stop(struct workflow_plan *p, enum workflow_end_kind kind, struct span error);

/* --- what to do now ------------------------------------------------------------------------------------- */

/* Where the plan finds values, when it needs them. */
struct workflow_source {
	struct span args, kwargs; /* of the workflow, raw JSON; SPAN_NONE: [] and {} */
	void *arg;
	/* The result of a task that has completed, raw JSON, good until the next call. 0, or <0 with a
	 * sentence when it cannot be had now. */
	int (*result)(void *arg, unsigned step, unsigned item, struct span *ret, struct err *e);
};

struct workflow_begin {
	unsigned step, item;
	unsigned n_items; /* of the for_each; 1 of a single step */
	const struct workflow_step *definition;
	struct span key;	  /* a for_each's key of this item, a JSON string; else SPAN_NONE */
	struct span args, kwargs; /* raw JSON array and object */
};
/* <0: it did not begin; workflow_plan_next ends with that and gives it again next time. */
typedef int (*workflow_begin_fn)(void *arg, const struct workflow_begin *b);

/* Calls `begin` for everything that can begin now, in the order of the steps. 0; or <0, of the source or of
 * `begin`: nothing is lost, ask again later. What is wrong with the workflow's own values (a missing one, too
 * many items) is no such error: it fails the workflow. */
int workflow_plan_next(struct workflow_plan *p, const struct workflow_source *s, workflow_begin_fn begin,
		       void *arg, struct err *e);

enum workflow_state { WORKFLOW_GOES_ON, WORKFLOW_COMPLETED, WORKFLOW_FAILED };
/* After workflow_plan_next: as long as it goes on, something is open. */
enum workflow_state workflow_plan_state(const struct workflow_plan *p);

/* Of a completed one: appends its result. 0; -ENOENT, -EFBIG with a sentence: the workflow has failed with
 * it; else <0 of the source: ask again later. */
int workflow_plan_result(struct workflow_plan *p, const struct workflow_source *s, struct buf *out,
			 struct err *e);
/* Of a failed one, until the plan is freed. */
struct workflow_failure {
	struct span error, detail; /* detail: SPAN_NONE when there is none */
	bool cancelled, timed_out;
};
struct workflow_failure workflow_plan_error(const struct workflow_plan *p);

/* What has begun and not ended, one after another, from *step = *item = 0 on: true and which it is; to go
 * on, add one to *item. */
bool workflow_plan_open(const struct workflow_plan *p, unsigned *step, unsigned *item);

#endif
