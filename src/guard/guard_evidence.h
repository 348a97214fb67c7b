/*
 * Guard evidence: what an epoch of an operation has shown so far, and the verdict on it. Pure.
 *
 * Why:       one place applies the tests (guard/guard_test.h) to entities by the rules of docs/design.md,
 *            "The guard": for the router's guard, and for `scripts/bench guard`, which measures it.
 * Data:      plain, all zeros is an epoch that has seen nothing; it is stored as it is (guard/guard_store.h).
 * Threads:   any; evidence is its owner's.
 */
#ifndef GUARD_GUARD_EVIDENCE_H
#define GUARD_GUARD_EVIDENCE_H

#include <stdint.h>

#include "guard/guard_test.h"
#include "guard/guard_verdict.h"

struct guard_rule {
	double alpha;	   /* 0 … 1: of an epoch, shared by the kinds */
	double tolerated;  /* 0.1: a tenth more bad entities than on legacy is no breach */
	double harm;	   /* 2: twice as many must be excluded for `safe` */
	double negligible; /* 0.01: or this share of the task side's entities */
};

#define GUARD_RULE_DEFAULT ((struct guard_rule){0.01, 0.1, 2, 0.01})

struct guard_kind_evidence {
	struct guard_test worse, harmless;
	uint64_t bad[OUTCOME_SIDE_COUNT];      /* by assigned side */
	uint64_t bad_seen[OUTCOME_SIDE_COUNT]; /* of these, the ones among `seen` */
	int64_t breached_us, safe_us;	       /* when the evidence sufficed; 0: not yet */
};

#define GUARD_REASONS 64 /* more than REASON_COUNT, so that stored evidence outlives new reasons */

struct guard_evidence {
	struct guard_kind_evidence kinds[GUARD_KIND_COUNT];
	struct guard_test more, fewer;	       /* of the share */
	uint64_t seen[OUTCOME_SIDE_COUNT];     /* entities looked at, by assigned side */
	uint64_t entities[OUTCOME_SIDE_COUNT]; /* by the side that served; estimated where sampled */
	uint64_t tested;		       /* by `more` and `fewer` */
	double share_sum;		       /* of those */
	uint64_t diverted[GUARD_REASONS];      /* served by legacy though assigned to the task side */
	int64_t mismatch_us;
};

/* An entity's first request of the epoch. `stands_for`: how many, where only a part is checked. */
struct guard_sight {
	enum outcome_side assigned, served;
	enum outcome_reason reason;
	double share;
	uint64_t stands_for;
	int64_t now_us;
};
void guard_evidence_seen(struct guard_evidence *e, const struct guard_rule *rule,
			 const struct guard_sight *s);

/* An entity's first bad event of this kind in the epoch. */
struct guard_bad {
	enum guard_kind kind;
	enum outcome_side assigned;
	double share;
	bool seen; /* the entity is among `seen` */
	int64_t now_us;
};
void guard_evidence_bad(struct guard_evidence *e, const struct guard_rule *rule, const struct guard_bad *b);

/* What suffices, as logarithms. */
double guard_needed_worse(const struct guard_rule *rule, enum guard_kind kind);
double guard_needed_harmless(const struct guard_rule *rule);

/* Fills verdict, kinds, entities, shares and what is missing. `judge_slow`: there is a limit for it. `now_us`
 * and v->began_us tell the traffic. */
void guard_evidence_verdict(const struct guard_evidence *e, const struct guard_rule *rule, bool judge_slow,
			    int64_t now_us, struct guard_operation_verdict *v);

#endif
