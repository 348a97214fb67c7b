/*
 * Why a request was decided, or refused, as it was: the reasons and their words (design, "Words").
 *
 * On disk:   the guard stores counts in this order (guard/guard_store.c): a new reason goes right before
 *            REASON_OTHER, never in between.
 */
#ifndef OUTCOMES_REASON_H
#define OUTCOMES_REASON_H

#include "base/span.h"

enum outcome_reason {
	REASON_FLAG,
	REASON_FLAG_DISABLED, /* a variant flag that is switched off */
	REASON_NO_MATCH,
	REASON_ENV_DEFAULT,
	REASON_FLAG_MISSING,
	REASON_FLAG_UNAVAILABLE,
	REASON_NO_IDENTITY,
	REASON_PINNED,
	REASON_BREAKER_OPEN,
	REASON_GUARD,
	REASON_OVERRIDE,
	REASON_BODY_TOO_LARGE,
	REASON_INPUT_TOO_LARGE,
	REASON_BACKEND_UNKNOWN, /* the flag names one that there is not, or that is not configured */
	/* known not to run the task: away, without a worker, or the task is unknown there */
	REASON_BACKEND_NOT_READY,
	REASON_UNMAPPED,    /* no operation matches */
	REASON_PIN_UNKNOWN, /* a follow-up call; whether it is the task side's could not be determined */
	REASON_FLAG_BROKEN, /* its definition cannot be understood; the other flags count */
	REASON_INPUT_NOT_REPRESENTABLE, /* the task's workers would not read it as it was given */
	REASON_FLAG_OFF,     /* a boolean flag whose own value is false and of which no rollout matches */
	REASON_NO_TASK,	     /* the operation is known, and no task is mapped to it */
	REASON_REFUSED,	     /* by the router before a side was decided: limits, credentials */
	REASON_BACKEND_BUSY, /* as many as may be are in flight there */
	REASON_STATE_UNAVAILABLE, /* what it begins could not be remembered; nothing was started */
	REASON_OTHER,		  /* what another version recorded; never recorded by this one */
	REASON_COUNT
};

const char *outcome_reason_text(enum outcome_reason r);	   /* its word; "?" for a value that is none */
const char *outcome_reason_meaning(enum outcome_reason r); /* a phrase for people */
int outcome_reason_parse(struct span text);		   /* the value that a word stands for; -1: none */

#endif
