/*
 * Evidence: what outcomes.db says of the operations that ask a flag, for advance and stage.
 *
 * Why:       one place that knows where verdicts and figures come from: the guard's where a hash decides and
 *            the guard is on, else the fixed limits of migration-status --gate.
 * Errors:    what cannot be read is reported as unreadable, and stops: nobody goes past what is not known.
 */
#ifndef MOVE_EVIDENCE_H
#define MOVE_EVIDENCE_H

#include "base/buf.h"
#include "move/phase.h"
#include "move/users.h"

struct evidence_question {
	const struct config *config;
	const struct flag_users *users;
	const struct flag_snapshot *flags; /* as they are now: an older split's evidence is not this step's */
	int64_t since_us;		   /* of the step, as the history knows it */
	bool of_segment;		   /* no hash decides who is on the task side */
	bool has_task;			   /* someone is there */
};

/* Of one operation. *ret_verdict: its verdict's word. */
void evidence_of_operation(const struct evidence_question *q, const struct operation *op,
			   struct phase_evidence *ret, const char **ret_verdict);

/* Of all that ask the flag. Fills in breach, unreadable, safe, differences and why, and since_us: q's, or the
 * guard's epoch, which may be later. `json` gets an object for the history. */
void evidence_read(const struct evidence_question *q, struct phase_evidence *ret, struct buf *json);

#endif
