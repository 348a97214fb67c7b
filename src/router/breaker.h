/*
 * Breaker: the circuit breaker of one backend, shared by all planes of the process.
 *
 * Why:       a backend that does not answer keeps its callers waiting, and those after them. What
 *            submissions have *met* is counted here, per backend; what is *known* by asking is readiness.h,
 *            per operation (docs/design.md, "The circuit breaker").
 * Shape:     a state machine; the time is given to it, and nothing here waits. The planes ask before each
 *            submission and report how it ended; decide() receives what breaker_look() has seen.
 * Threads:   any. breaker_look() takes no lock; the others hold a short one, once or twice per *submission*,
 *            each of which costs a write to a socket or a file.
 * Times:     of clock_mono_us().
 */
#ifndef ROUTER_BREAKER_H
#define ROUTER_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"

enum breaker_state { BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN, BREAKER_STATES };

struct breaker;

/* One submission, from breaker_begin() until it was ended. Zeroed is none. */
struct breaker_pass {
	bool live, probe;
	bool counted;	/* among those waiting for an answer */
	bool unawaited; /* set by its owner: nobody will know whether its task ends */
	uint32_t epoch, round;
	int64_t begun_us, accepted_us;
};

enum breaker_word {
	BREAKER_GO,   /* submit; the pass is to be ended */
	BREAKER_HOLD, /* too many have no answer yet: ask again when one has, or BREAKER_ASK_MS later */
	BREAKER_NO,   /* submit nothing */
};
#define BREAKER_ASK_MS 5 /* no less often: a silence is what those who ask have seen of it */

enum breaker_end {
	BREAKER_ACCEPTED,
	BREAKER_FAILED,	  /* refused, or unknown, or without an answer within the caller's time limit */
	BREAKER_UNJUDGED, /* it says nothing of the backend: not sent, the input's fault, the caller left */
	BREAKER_RESULT,	  /* after its acceptance: the task has ended, well or not */
	BREAKER_NO_RESULT /* after its acceptance: it had not by the caller's time limit */
};

int breaker_new(struct span backend, struct breaker **ret); /* closed; `backend` outlives it. -ENOMEM */
struct breaker *breaker_free(struct breaker *b);	    /* NULL is allowed; returns NULL */
/* At the start and at each reload; what it has counted stays, unless it is off. */
void breaker_configure(struct breaker *b, const struct breaker_config *c, int64_t now_us);

enum breaker_word breaker_begin(struct breaker *b, int64_t now_us, struct breaker_pass *ret);
/* For what nobody waits for: it is not counted among those that wait, and never told BREAKER_HOLD. */
enum breaker_word breaker_begin_shadow(struct breaker *b, int64_t now_us, struct breaker_pass *ret);
/* For what does not ask, but whose end is reported: pins and overrides. */
void breaker_begin_unasked(struct breaker *b, int64_t now_us, struct breaker_pass *ret);
/* Without effect on a pass that has ended. `why`: a sentence for operators, or NULL. */
void breaker_end(struct breaker *b, struct breaker_pass *pass, enum breaker_end how, int64_t now_us,
		 const char *why);
/* Nothing that this backend might be asked would be run, by what it was asked: open at once, until NULL,
 * then half-open. */
void breaker_know(struct breaker *b, const char *why, int64_t now_us);

/* Whether a submission would be turned away now. A look, not a promise: breaker_begin() has the last word. */
bool breaker_is_shut(const struct breaker *b, int64_t now_us);

struct breaker_status {
	enum breaker_state state; /* half-open from the moment that a probe may go */
	bool off;
	bool probing;			      /* a probe is in progress */
	char why[160];			      /* it is not closed; "" */
	int64_t since_us;		      /* clock_wall_us() of the last transition; 0: none yet */
	unsigned failed;		      /* consecutive */
	unsigned unanswered;		      /* submissions that began since the last acceptance and wait */
	unsigned without_result;	      /* consecutive */
	uint64_t transitions[BREAKER_STATES]; /* to each state */
	uint64_t turned_away;		      /* that were held, or raced with the opening */
};
void breaker_status(struct breaker *b, int64_t now_us, struct breaker_status *ret);
const char *breaker_state_text(enum breaker_state s); /* closed, half_open, open */

/* --- what decide() is handed ---------------------------------------------------------------------------- */

/* The backends that are shut; the names are the breakers' own. */
struct breaker_view {
	struct span shut[CONFIG_MAX_BACKENDS];
	size_t n;
};
/* Adds the backend when it is shut. */
void breaker_look(const struct breaker *b, int64_t now_us, struct breaker_view *view);
bool breaker_view_has(const struct breaker_view *view, struct span backend); /* NULL: none is shut */

#endif
