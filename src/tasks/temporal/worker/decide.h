/*
 * What a workflow does next, from its history alone: the commands that a worker answers a workflow task with.
 *
 * Why:       pure, so that the same history gives the same commands in every worker and at every time.
 * Kinds:     `<task>_workflow` is one activity of that task, as the Python workers of the convention do it:
 *            either kind of worker goes on with what the other began. A declared workflow is its plan
 *            (tasks/workflow/workflow_plan.h); its activities' ids are "<step>.<item> <step's name>".
 * Frozen:    a declared workflow's first command is a marker that holds its definition: it goes on by that,
 *            whatever the files say later.
 * Replay:    what the history's events tell is given to the plan in their order; each command that the
 *            history holds must be the one that the plan gives there. One that does not fit is
 *            TEMPORAL_NOT_DETERMINISTIC, and the sentence names the event.
 * Threads:   any; no state.
 */
#ifndef TASKS_TEMPORAL_WORKER_DECIDE_H
#define TASKS_TEMPORAL_WORKER_DECIDE_H

#include "base/arena.h"
#include "base/err.h"
#include "tasks/worker/registry.h"

#define TEMPORAL_DEFINITION_MARKER "migration-router-definition"
#define TEMPORAL_HEADER_SHADOW "x_migration_shadow"

struct TemporalApi__HistoryEvent;
struct TemporalApi__Command;

struct temporal_history {
	struct TemporalApi__HistoryEvent *const *events;
	size_t n;
	const struct registry *registry;
	const char *identity;  /* of this worker */
	unsigned heartbeat_ms; /* asked of activities; 0: none */
};

enum temporal_verdict {
	TEMPORAL_DECIDED,
	TEMPORAL_NOT_DETERMINISTIC, /* the history does not fit */
	TEMPORAL_UNDECIDED	    /* not by this worker, or not now: another try may */
};

struct temporal_decision {
	struct arena memory;
	struct TemporalApi__Command **commands;
	size_t n, room;
	struct err why; /* unless decided */
};

/* `d` is the caller's to release by temporal_decision_release in any case. */
enum temporal_verdict temporal_decide(const struct temporal_history *h, struct temporal_decision *d);
void temporal_decision_release(struct temporal_decision *d);

#endif
