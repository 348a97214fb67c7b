/*
 * Decision: which side, and which backend, serves one request.
 *
 * Why:       a pure function of identity, one immutable flag snapshot, environment defaults and the states
 * handed to it, so that the same identity and snapshot give the same answer on every replica and after every
 * restart (rule 2), and so that `explain` shows exactly what a request would get. The clock is not an input.
 * Ownership: a decision borrows from the snapshot and the configuration.
 * Threads:   any.
 */
#ifndef ROUTER_DECIDE_H
#define ROUTER_DECIDE_H

#include <stdbool.h>

#include "config/config.h"
#include "flags/flags.h"
#include "outcomes/outcome.h"
#include "router/breaker.h"
#include "router/guard_holds.h"
#include "router/readiness.h"

/* Asked for the flags of a request that has neither user nor organization (design, "identity"). */
#define DECIDE_ANONYMOUS "anonymous"

enum decide_wish { WISH_NONE, WISH_LEGACY, WISH_TASK, WISH_UNKNOWN };

struct decide_input {
	const struct config *config;
	const struct operation *operation; /* NULL: the request matched none */
	const struct flag_snapshot *flags; /* NULL: there has never been one */
	struct span user, organization;	   /* SPAN_NONE: absent */
	struct span entity;		   /* SPAN_NONE: none, DECIDE_ANONYMOUS is asked for */
	/* From the ledger (WISH_UNKNOWN: a follow-up call of which it is unknown whether it is pinned); from
	 * the override header. */
	enum decide_wish pinned, override;
	struct span pinned_backend;
	/* NULL: nothing is known against any backend. Pins and overrides do not ask it */
	const struct readiness *readiness;
	/* NULL: no backend's breaker turns submissions away. Pins and overrides do not ask it */
	const struct breaker_view *breakers;
	/* NULL: the guard holds nothing. Pins and overrides do not ask it */
	const struct guard_holds *holds;
	const struct flag_context *extra; /* from the request, or explain's --context; wins over the rest */
	size_t n_extra;
};

struct decision {
	enum outcome_side side;
	enum outcome_reason reason; /* its words: outcomes/reason.h */
	struct span backend;	    /* on the task side (and for a shadow): name of a configured backend */
	struct span variant;	    /* of the last variant flag that was asked, "" otherwise */
	/* with REASON_BACKEND_UNKNOWN: the name that stands for no configured backend; a pinned one is the
	 * input's */
	struct span unknown;
	/* It is the task side's, or may be, and cannot be served there: it must not go to legacy either
	 * (rule 4). */
	bool refused;
	double shadow; /* legacy serves; this share (0..1) of the requests runs on the task side beside it */
	/* What the guard needs (design, "The guard"): the side that the flags said, whatever stepped in
	 * since, and the probability of the task side before anyone looked at the hash. 0: no percentage was
	 * involved. Of several flags the product. */
	enum outcome_side assigned;
	double share;
	uint64_t split; /* decide_split's; 0 without a share */
};

/* What one flag says, before the others are asked. */
struct decide_vote {
	bool task;
	enum outcome_reason reason; /* its words: outcomes/reason.h */
	struct span backend;	    /* SPAN_NONE: does not care */
	double shadow;		    /* as in a decision */
	int bucket;		    /* that took part (flags.h), -1: none */
	bool by_percentage;	    /* as in a flag's result */
};

/* A number for how requests of an operation are split: the same on every replica, another one when the
 * definition of one of its flags changes, or what it makes of their variants. */
uint64_t decide_split(const struct operation *op, const struct flag_snapshot *flags);
/* What the flags give to each side of those whom the input is like, 0 … 1: the entity's own hash does not
 * count, its segments do. Of several flags the product. Pins, overrides and states are not looked at. */
struct decide_share {
	double task, shadow; /* shadow: beside legacy, of all */
};
struct decide_share decide_share(const struct decide_input *in);
/* `trace` may be NULL. */
void decide(const struct decide_input *in, struct decision *ret, const struct flag_trace *trace);
/* The flag by itself, for an operation that is not NULL; pins and overrides are not looked at. */
void decide_flag(const struct decide_input *in, struct span flag, struct decide_vote *ret);
/* The share (0 … 1) of those like this entity, whom chance alone tells apart, that the flag says task to;
 * for an operation and an entity that are not NULL. */
double decide_share_of_flag(const struct decide_input *in, struct span flag);
/* Whether what is known and met of this backend lets the operation's task be submitted there; one that is
 * not configured may not. Of the input the configuration, the operation and the states count. */
bool decide_may_use(const struct decide_input *in, struct span backend);
/* What a variant with this attachment ("": none) means to an operation: its own map, the words of the
 * design, the attachment. */
struct decide_vote decide_variant(const struct operation *op, struct span variant, struct span attachment);

#endif
