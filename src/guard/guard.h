/*
 * Guard: collects each guarded operation's evidence from the outcomes as they are recorded, and says which
 * operations are held (docs/design.md, "The guard").
 *
 * Why:       a verdict within a second of the evidence, which a restart and a second process share.
 * Shape:     it reads along with the recorder (outcomes/recorder.h, recorder_tap): every batch, in its
 *            transaction, on the recorder's thread. What is asked of it from elsewhere (a new split, a
 *            release) waits for the next flush, 50 ms at most while the file can be written.
 * Replicas:  with guard_share_with, evidence and holds are those of all (guard/guard_share.h). Then nothing
 *            is known before the server has answered, and a process that knows something goes on without.
 * Threads:   guard_expect, guard_release, guard_now from any; the tap is the recorder's. `changed` is called
 *            on the recorder's thread and must not call the guard.
 * Ownership: everything is copied.
 * Limits:    GUARD_OPERATIONS_MAX operations; entities: guard/entity_set.h.
 */
#ifndef GUARD_GUARD_H
#define GUARD_GUARD_H

#include "base/err.h"
#include "guard/guard_evidence.h"
#include "guard/guard_verdict.h"
#include "outcomes/recorder.h"

#define GUARD_OPERATIONS_MAX 4096

struct guard;

/* What the configuration and the flags say of an operation; zeroed before it is filled in, for it is
 * compared as bytes. */
struct guard_expected {
	char service[32], operation[64];
	enum guard_mode mode;
	struct guard_rule rule;
	double slow_factor; /* of legacy's p99; 0: `slow` is not judged */
	uint64_t split;	    /* decide_split (router/decide.h) */
};

/* `changed`: some operation's epoch, verdict or hold has changed, or the file could be read for the first
 * time; ask guard_now. May be NULL. -ENOMEM. */
int guard_new(void (*changed)(void *arg), void *arg, struct guard **ret);
/* Before the recorder starts. The server of `state:`, as guard_share_start takes it; not awaited.
 * -ENOTSUP. */
int guard_share_with(struct guard *g, const char *url, const char *prefix, unsigned timeout_ms,
		     struct err *e);
struct guard *guard_free(struct guard *g); /* after the recorder has stopped. NULL is allowed; returns NULL */
void guard_tap(struct guard *g, struct recorder_tap *ret);

/* All guarded operations as they are from now on, when new flags or a new configuration come into force:
 * before the planes get them. Where split, rule or factor differ from those of its epoch, a new one begins.
 * One that is not in the list is not looked at any more. -ENOMEM, -E2BIG. */
int guard_expect(struct guard *g, const struct guard_expected *list, size_t n);

/* A new epoch without evidence, and nothing is held. `who`: a word on who asks, kept. -ENOENT: not guarded;
 * -EAGAIN: outcomes.db has not been read yet. It takes effect with the next flush. */
int guard_release(struct guard *g, const char *service, const char *operation, const char *who);

/* The verdicts now, of the guarded operations; *ret_known: whether outcomes.db has been read since the start.
 * -ENOMEM. */
int guard_now(struct guard *g, bool *ret_known, struct guard_verdicts **ret);

/* The file could not be written with the last evidence; "" when all is well. */
void guard_trouble(struct guard *g, char ret[256]);

/* Whether replicas share it; then `ret` is why they cannot just now, "" when all is well. */
bool guard_is_shared(struct guard *g, char ret[256]);

#endif
