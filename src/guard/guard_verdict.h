/*
 * Guard verdicts: what the guard makes of each operation, read from outcomes.db.
 *
 * Why:       migration-status, migration-rollout and the admin listener say the same, whichever process has
 *            collected the evidence (docs/design.md, "The guard").
 * Units:     times in µs of the wall clock, 0 = never; evidence as natural logarithms, to be compared with
 *            `needed`.
 * Threads:   any; reads only, beside a router that writes.
 */
#ifndef GUARD_GUARD_VERDICT_H
#define GUARD_GUARD_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/span.h"
#include "outcomes/outcome.h"

enum guard_verdict {
	GUARD_NOT_ENOUGH_DATA,
	GUARD_SAFE,	      /* each kind: a harm of the configured size is excluded */
	GUARD_SHARE_MISMATCH, /* 25 % is not 25 %: nothing that was compared can be relied on */
	GUARD_BREACH,	      /* some kind: the task side is worse than is tolerated */
	GUARD_VERDICT_COUNT
};

enum guard_kind { GUARD_FAILURE, GUARD_REJECTED, GUARD_SLOW, GUARD_KIND_COUNT };

/* What a breach does. */
enum guard_mode { GUARD_OFF, GUARD_WATCH, GUARD_HOLD, GUARD_ROLLBACK, GUARD_MODE_COUNT };

struct guard_kind_verdict {
	bool judged; /* false: switched off, or there is no limit for `slow` yet */
	enum guard_verdict verdict;
	uint64_t bad[OUTCOME_SIDE_COUNT]; /* entities with such an event, by the side they were assigned */
	double worse, worse_needed;	  /* evidence that it is worse; a breach from worse_needed on */
	double harmless, harmless_needed; /* likewise that the harm is excluded */
	int64_t breached_us, safe_us;	  /* when first reached in this epoch */
	int64_t limit_us;		  /* of `slow`, a latency; 0: none yet */
};

#define GUARD_UNKNOWN UINT64_MAX

struct guard_operation_verdict {
	char service[32], operation[64];
	enum guard_verdict verdict;
	enum guard_mode mode;
	uint64_t split;	    /* of the epoch: decide_split (router/decide.h) */
	int64_t epoch;	    /* counts from 1; 0: none has begun, no percentage has decided yet */
	int64_t began_us;   /* of the epoch */
	int64_t changed_us; /* when the verdict last changed */
	bool held;	    /* its task side is held: who is not pinned goes to legacy */
	int64_t held_us;    /* since when */
	double keeps;	    /* held: the share of the task side that goes on, the last safe one; 0: none */
	char began_because[160]; /* "the split changed", "released manually: …" */
	/* Of the epoch that replicas share, and when it began by their server's clock; 0: none is shared. */
	int64_t generation, generation_us;
	char found_by[64]; /* the replica that found the breach; "": this one, or there is none */

	struct guard_kind_verdict kinds[GUARD_KIND_COUNT];
	uint64_t entities[OUTCOME_SIDE_COUNT]; /* seen, by the side that served their first request */
	double share, share_seen; /* of the task side: what the flags say on average, and what was */
	bool share_mismatch;
	char share_reason[160]; /* with share_mismatch: the likely reason, a sentence */

	/* Entities (of both sides) missing until `safe` if the task side is no worse, and how long that takes
	 * at the traffic of this epoch; GUARD_UNKNOWN: there is no telling. Both 0 unless the verdict is
	 * GUARD_NOT_ENOUGH_DATA. */
	uint64_t missing_entities, missing_seconds;
};

struct guard_verdicts {
	size_t n;
	struct guard_operation_verdict operations[]; /* by service and operation */
};

/* `service`, `operation`: "" for all. No epoch has ever begun, or no such operation: n = 0. Errors as of
 * report_make (outcomes/report.h), -ENOENT when there is no file. */
int guard_verdicts_read(const char *path, const char *service, const char *operation,
			struct guard_verdicts **ret, struct err *e);
struct guard_verdicts *guard_verdicts_free(struct guard_verdicts *v); /* NULL is allowed; returns NULL */
DEFINE_CLEANUP(struct guard_verdicts *, guard_verdicts_free)

/* From the member "guard" of what a router reports (guard_verdicts_into_json). -EPROTO with a sentence about
 * `name`. */
int guard_verdicts_parse(const char *name, struct span json, struct guard_verdicts **ret, struct err *e);
/* Those of several routers, side by side: by operation, the worst first. Their evidence is not put together:
 * an entity may be in each. -ENOMEM. */
int guard_verdicts_join(struct guard_verdicts *const *all, size_t n, struct guard_verdicts **ret);

/* Drops what says nothing: operations that are not guarded, or of which no percentage has decided yet and
 * which are not held. */
void guard_verdicts_keep_telling(struct guard_verdicts *v);

/* The worst: a breach before a mismatch before not enough data before safe; none: not enough data. */
enum guard_verdict guard_verdicts_worst(const struct guard_verdicts *v);

const char *guard_verdict_text(enum guard_verdict v); /* breach, safe, not_enough_data, share_mismatch */
const char *guard_kind_text(enum guard_kind k);	      /* failure, rejected, slow */
const char *guard_mode_text(enum guard_mode m);	      /* off, watch, hold, rollback */

/* One operation as a JSON object; one line for people, without a newline. Append; buf's errors. */
int guard_verdict_to_json(const struct guard_operation_verdict *v, struct buf *out);
int guard_verdict_to_text(const struct guard_operation_verdict *v, struct buf *out);
/* Puts them as the member "guard", a list, at the end of the JSON object that `object` ends with. */
int guard_verdicts_into_json(const struct guard_verdicts *v, struct buf *object);

#endif
