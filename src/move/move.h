/*
 * Moving: changes to the percentages of one flag, as migration-rollout makes them, for whoever asks: a person
 * at a terminal, a person at the router's page, the guard.
 *
 * Why:       one way to change a percentage: planned, agreed to, written where the flags are, verified by
 *            reading it back, and recorded with who and why.
 * Threads:   one at a time for a request; calls block (a server that does not answer costs
 *            place_options.timeout_ms, several times), so the router has a thread of its own for them.
 * Ownership: a request borrows everything.
 */
#ifndef MOVE_MOVE_H
#define MOVE_MOVE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

struct rollout_draft;
struct rollout_place;
struct rollout_plan;

#define MOVE_MESSAGE_MAX 1000 /* bytes of a message for the history */

enum move_tone {
	MOVE_SAYS,   /* what happens */
	MOVE_WARNS,  /* what is odd, and stops nothing */
	MOVE_ALARMS, /* something was changed, and not all is as asked for */
};

/* Who listens, and answers. `text` may be a part of a line, or several. */
struct move_voice {
	void *arg;
	void (*say)(void *arg, enum move_tone tone, const char *text);
	/* 1 yes, 0 no, <0: nobody is there to be asked. NULL: nobody ever is. */
	int (*ask)(void *arg, const char *question);
	/* Whether to give up, asked a few times a second from the thread that waits. NULL: never. */
	bool (*stopped)(void *arg);
};

/* What a change would do, as it was read just now. */
struct move_seen {
	const struct rollout_draft *draft; /* what everybody gets; with `blind` nothing but zeros */
	const struct rollout_plan *plan;   /* of what is edited */
	bool blind;			   /* an emergency, where what everybody gets cannot be evaluated */
};

struct move_request {
	const char *command;	    /* plan, set, enable, disable, rollback, advance */
	const char *flag, *segment; /* segment: NULL for everybody */
	double percent;		    /* <0: the command has none */
	bool yes;		    /* agreed to already: nobody is asked */
	bool dry_run;		    /* nothing is written */
	const char *who;	    /* for the history; NULL: the user who runs this process */
	const char *message;	    /* for the history; NULL: none */
	const char *journal;	    /* the history's file; NULL: rollouts.jsonl next to the outcomes */
	const char *config;	    /* the configuration's path, for commands that people are told to run */
	/* Of a step that advance makes: nobody is asked whether it more than doubles a share, since it was
	 * agreed upon when it was configured; what it is recorded with. */
	const char *step;
	struct span evidence; /* JSON; SPAN_NONE: none */
	/* What must hold of what was read, each time before it is written (or shown, in a dry run): 0, or
	 * -errno with the sentence. */
	int (*still)(void *arg, const struct rollout_place *p, const struct move_seen *seen, struct err *e);
	void *still_arg;
	/* Right before the first write: 0, or -errno with the sentence. NULL: nothing. */
	int (*before)(void *arg, struct err *e);
	void *before_arg;
};

/* Also what migration-rollout returns. */
enum move_result {
	MOVE_DONE,    /* or nothing to do */
	MOVE_REFUSED, /* failed or refused: nothing was changed */
	MOVE_USAGE,   /* arguments or configuration */
	/* something was changed, but not all is as asked for: what was said names what was written */
	MOVE_NOT_AS_ASKED,
	MOVE_NOT_YET, /* advance: something is missing that may come; nothing was changed */
	MOVE_BREACH,  /* advance: an operation is worse on the task side; nothing was changed */
};

struct move_done {
	bool written;	    /* and seen to be as asked for */
	bool unrecorded;    /* the history could not be written */
	int64_t written_ms; /* monotonic */
};

/* To legacy, and that at once: nothing stops these but the write itself. */
bool move_is_emergency(const struct move_request *q);

/* All return 0, a move_result whose sentences were said already, or <0 with the sentence in e and nothing
 * changed. */

/* Who of the recorded identities would move. */
int move_plan(struct rollout_place *p, const struct move_request *q, struct err *e);
/* set, enable, disable, rollback. */
int move_change(struct rollout_place *p, const struct move_request *q, struct move_done *ret, struct err *e);
/* advance: one look, and the step if it may be taken. `began_us` (wall clock): when the caller began to look;
 * -EALREADY when someone has advanced the flag since. `said`: what was said of it last is not repeated. */
int move_advance(struct rollout_place *p, const struct move_request *q, int64_t began_us, char *said,
		 size_t said_size, struct move_done *ret, struct err *e);

#endif
