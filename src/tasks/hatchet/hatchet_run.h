/*
 * A run as the engine describes it (GET …/workflow-runs/{id}) → a task_result.
 */
#ifndef TASKS_HATCHET_HATCHET_RUN_H
#define TASKS_HATCHET_HATCHET_RUN_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/span.h"
#include "tasks/task_backend.h"

struct hatchet_run {
	struct task_result result; /* spans in the answer's body and in `text`; task_id is not set */
	bool ended;		   /* completed, failed or cancelled, and its tasks too */
	/* failed, but its one task has tries left: a state it passes between two of them */
	bool may_retry;
	bool unexplained;	 /* failed without a message, as time limits do: its task's events tell */
	struct span failed_task; /* whose events */
};

/* QUEUED RUNNING COMPLETED CANCELLED FAILED, with or without quotes; false for anything else. */
bool hatchet_status_read(struct span text, enum task_status *ret, bool *ret_cancelled);

/* 0, -EBADMSG for what is no run, or buf's errors. `text` is cleared and then holds what had to be put
 * together. */
int hatchet_run_read(struct span body, struct buf *text, struct hatchet_run *ret);

/* Of the newest first list of a task's events, the sentence for a time limit that was reached; false when
 * none was. */
bool hatchet_events_read(struct span body, struct buf *text);

/* RFC 3339 in UTC → µs since 1970; 0 for anything else and for Go's unset time (year 1). */
int64_t hatchet_time_read(struct span quoted);

/* The pieces of an errorMessage: what was raised, without its class, and the whole without the SDK's tail.
 * Appends to `text`: message, then detail; the lengths tell them apart. */
void hatchet_error_split(struct span message, struct buf *text, size_t *ret_message, size_t *ret_detail);

#endif
