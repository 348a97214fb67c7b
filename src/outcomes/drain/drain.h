/*
 * Drain: whether a side is still used, from outcomes.db (design, "Drain": its words and verdicts).
 *
 * Why:       made from sums and what is kept with them, so that it costs the same over ten outcomes and
 *            ten million.
 * Ownership: the drain owns everything in it.
 * Threads:   any; reads with a connection of its own, and never holds up the recorder.
 * Times:     since is rounded down to a whole minute, beyond two days ago to a whole hour; until is when it
 *            was made.
 */
#ifndef OUTCOMES_DRAIN_H
#define OUTCOMES_DRAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/span.h"
#include "outcomes/outcome.h"
#include "outcomes/unmapped.h"

#define DRAIN_SINCE_US (14 * 86400000000LL)
#define DRAIN_MAX_GAP_US (3600000000LL)
#define DRAIN_GAPS_MAX 16 /* that are listed; all are counted */
#define DRAIN_SENTENCE_MAX 512
#define DRAIN_OPERATIONS_MAX 10000
#define DRAIN_UNMAPPED OUTCOME_UNMAPPED

/* Also the exit codes. */
enum drain_verdict { DRAIN_DRAINED = 0, DRAIN_USED = 1, DRAIN_NOT_ENOUGH_DATA = 3 };

/* What must be gone besides uses, as who made the drain knows it: of --drain task the ledger's entries. */
struct drain_held {
	char what[96]; /* "pins of group containers", "results of tasks that were answered with 202" */
	char backend[16];
	uint64_t count;
	int64_t oldest_us, newest_us;
};

struct drain_options {
	const char *path;
	enum outcome_side side;
	int64_t since_us, now_us;
	int64_t max_gap_us;
	bool idle_ok;
	const char *service, *operation; /* NULL = all */
	/* borrowed until drain_free; NULL with a `held_error` when it could not be read */
	const struct drain_held *held;
	size_t n_held;
	const char *held_error;
	/* Where that is kept, if several may share it: the same one is counted once. NULL or "": nobody
	 * shares it. */
	const char *held_store;
};

struct drain_last {
	int64_t time_us; /* 0 = never */
	char service[32], operation[64];
	char organization[64], backend[16]; /* "" = none, or not known */
	uint8_t reason, role, result;
	bool exact; /* else to the minute or hour: recorded by an older program */
};

struct drain_operation {
	char service[32], operation[64];
	struct drain_last last;		/* use, ever */
	uint64_t uses;			/* in the span; what follows, too */
	uint64_t reasons[REASON_COUNT]; /* of uses */
	uint64_t fallbacks;		/* executions that the task side left to legacy */
	uint64_t fallback_reasons[REASON_COUNT];
	uint64_t gave_up[OUTCOME_RESULT_COUNT]; /* how the task side's attempts ended that did not answer */
	uint64_t shadows, others;		/* others: uses of the other side */
};

struct drain_service {
	char name[32];
	enum drain_verdict verdict;
	char sentence[DRAIN_SENTENCE_MAX];
	size_t first, n;		  /* of drain.operations */
	size_t first_pattern, n_patterns; /* of drain.unmapped */
	struct drain_last last;
	uint64_t uses, others;
};

struct drain_gap {
	int64_t began_us, ended_us;
};

#define DRAIN_STORE_MAX 65 /* hex of a hash */

struct drain {
	struct drain_options options;
	char store[DRAIN_STORE_MAX]; /* the same file has the same one; "": not known */
	/* Of several: what keeps one of them from saying that nothing was there; "": nothing does. */
	bool merged;
	char lacks[256];
	struct drain_held *own_held; /* what options.held is, where nobody else owns it */
	char own_error[256];	     /* likewise of held_error */
	char own_store[DRAIN_STORE_MAX];
	int64_t since_us;
	enum drain_verdict verdict;
	char sentence[DRAIN_SENTENCE_MAX];
	struct drain_service *services; /* by name */
	size_t n_services;
	struct drain_operation *operations; /* by service and name */
	size_t n_operations;
	struct unmapped_pattern *unmapped; /* by service, the last called first */
	size_t n_unmapped;
	bool knows_patterns;		       /* the file has them */
	int64_t records_us;		       /* from when on something could be recorded; 0 = never */
	struct drain_gap gaps[DRAIN_GAPS_MAX]; /* within the span, the longest first */
	size_t n_gaps;
	int64_t gap_us;	  /* of all */
	uint64_t dropped; /* outcomes lost in the span */
};

/* Errors: report.h's. */
int drain_make(const struct drain_options *o, struct drain **ret, struct err *e);
struct drain *drain_free(struct drain *d); /* NULL is allowed; returns NULL */

/* What another router's drain_to_json said; `o` is what was asked for. Not judged. -EPROTO with a sentence
 * about `name`. */
int drain_parse(const char *name, struct span json, const struct drain_options *o, struct drain **ret,
		struct err *e);
/* All of them as one: uses are added up, the last of them counts, and what any of them lacks is lacking:
 * each may have had calls that the others know nothing of. `names`: for people. -EEXIST: two are of the
 * same file. */
int drain_merge(const struct drain_options *o, struct drain *const *list, const char *const *names, size_t n,
		struct drain **ret, struct err *e);

/* Whether a recorded attempt is a use of its side; not so of what the router refused itself, and shadows. */
bool drain_is_use(int role, int reason);

/* One operation by itself. */
enum drain_verdict drain_judge_operation(const struct drain *d, const struct drain_operation *op);

/* Both append and give buf's errors. columns: of the terminal; 0 = 80 */
int drain_to_json(const struct drain *d, struct buf *out);
int drain_to_text(const struct drain *d, unsigned columns, struct buf *out);
const char *drain_verdict_text(enum drain_verdict v);
/* "14 days", "3 hours": what people say. `size` ≥ 32. */
void drain_span_text(int64_t us, char *out, size_t size);

DEFINE_CLEANUP(struct drain *, drain_free)

#endif
