/*
 * What is said to a Hatchet engine and what it answers: bodies, paths and lists. Pure; runs are in
 * hatchet_run.h.
 */
#ifndef TASKS_HATCHET_HATCHET_MESSAGE_H
#define TASKS_HATCHET_HATCHET_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"
#include "tasks/task_backend.h"

#define HATCHET_TASK_ID_KEY "task_id" /* of additionalMetadata */

/* The workflow that a call runs: `t_workflow`, or the name itself of a workflow. */
int hatchet_put_workflow(struct buf *out, struct span task, bool workflow);

/* The body of a trigger. -EINVAL if the input is not an object (single_input), which the engine refuses;
 * -ERANGE when it has a number that the engine would round or refuse, or what its Python workers cannot
 * read; or buf's errors. */
int hatchet_put_trigger(struct buf *out, const struct task_call *call, struct span workflow, struct err *e);

/* -ERANGE: valid JSON with a number that the engine would round, or would keep as null. */
int hatchet_check_numbers(struct span json, struct err *e);

/* Of {"run":{"metadata":{"id":…}}}; false if there is none. */
bool hatchet_read_trigger(struct span body, char ret_id[TASK_ID_MAX]);

/* Whether one of the rows has exactly this name (the engine matches parts of names), and whether there are
 * more pages. */
bool hatchet_read_names(struct span body, struct span name, unsigned page, bool *ret_more);

/* Of a list of runs, the id of the one whose additionalMetadata holds our task id. */
bool hatchet_read_runs(struct span body, struct span task_id, char ret_id[TASK_ID_MAX]);

/* {"message"}, {"errors":[{"description"}]} or null → a sentence, "" for none. */
void hatchet_read_problem(struct span body, char *ret, size_t size);

/* Which of `workflows` (separated by commas; empty: any) has no ACTIVE worker: false and its name, or
 * true. */
bool hatchet_read_workers(struct span body, struct span workflows, struct span *ret_missing);

/* Of {"queues":{name:number}}, the sum; -1 when it is not that. */
int64_t hatchet_read_backlog(struct span body);

#endif
