/*
 * Guard share: what replicas have in common of an operation's epoch, in the Redis of `state:`
 * (docs/design.md, "One guard for all replicas"): a log of first events, the generation, the hold.
 *
 * Why:       a breach that one replica finds holds on all, and three replicas at a third of the traffic find
 *            it as one would.
 * Shape:     a slot per epoch that the guard is in. The guard asks (guard_share_ask) and later takes the
 *            answer (guard_share_take); four times a second the server is asked which epochs have changed.
 *            Everything may be asked twice: nothing is counted twice by it.
 * Threads:   a thread of its own for the server; everything here may be called from any, and `news` is called
 *            on the share's.
 * Ownership: everything is copied; a slot belongs to who follows it.
 * Limits:    GUARD_SHARE_SEND events per question, GUARD_SHARE_READ per answer: the rest comes with the next.
 *            What comes from the server is not trusted.
 */
#ifndef GUARD_GUARD_SHARE_H
#define GUARD_GUARD_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"
#include "base/err.h"
#include "base/span.h"

#define GUARD_SHARE_SEND 256
#define GUARD_SHARE_READ 1000
#define GUARD_SHARE_NAME 192
#define GUARD_SHARE_LATE_MS 1500 /* without an answer for so long each replica goes on alone */
#define GUARD_BIT_SEEN 0x80	 /* of an event: the entity was seen; else 1 << kind of a bad event */

/* An entity's first event of its kind. */
struct guard_event {
	uint64_t entity;
	double share;
	uint8_t bit, assigned, served, reason;
};

enum guard_share_verb {
	GUARD_SHARE_BEGIN,   /* come to this split: join who is there, or begin a generation */
	GUARD_SHARE_RELEASE, /* end generation `generation` of it and begin the next, unless somebody has */
	GUARD_SHARE_RESUME,  /* in `generation`: send and read */
};

struct guard_share_question {
	enum guard_share_verb verb;
	int64_t generation;	     /* RELEASE: that which ends; RESUME: ours */
	char left[GUARD_SHARE_NAME]; /* the epoch that we have left for this one; "" none */
	char because[160];	     /* of a generation that begins */
	/* RESUME: */
	char born[CRYPTO_ID_HEX]; /* of the log that `next` is of */
	int64_t next;		  /* what is read next of it */
	int64_t limit_us;	  /* of `slow`; 0: not known here */
	int64_t breached_us;	  /* found here; 0: not */
	double keeps;		  /* with it */
	struct guard_event send[GUARD_SHARE_SEND];
	size_t n_send;
	uint64_t tag; /* the asker's; it is in the answer */
};

struct guard_share_answer {
	enum guard_share_verb verb; /* what was asked */
	int64_t asked;		    /* its generation */
	uint64_t tag;
	size_t accepted; /* of its events: the log has them */

	int64_t generation;
	char born[CRYPTO_ID_HEX];
	int64_t began_us; /* by the server's clock */
	char because[160];
	int64_t limit_us, breached_us; /* 0: none */
	double keeps;
	char by[64]; /* which replica found the breach; "" with none, and when it was this one */
	int64_t next;
	bool more; /* the log goes on behind `next` */
	size_t n;
	struct guard_event events[];
};

struct guard_share;
struct guard_share_slot;

struct guard_share_options {
	const char *url, *prefix; /* as `state:` has them */
	unsigned timeout_ms;
	void (*news)(void *arg); /* an answer is there, or somebody should ask; must not call the share */
	void *arg;
};

/* -ENOTSUP: a build without Redis. A server that is away is no error, and is not awaited. */
int guard_share_start(const struct guard_share_options *o, struct guard_share **ret, struct err *e);
/* What was asked is still sent; its answers are dropped. NULL is fine; returns NULL. */
struct guard_share *guard_share_stop(struct guard_share *s);

bool guard_share_works(struct guard_share *s); /* it has answered within GUARD_SHARE_LATE_MS */
/* The key under which replicas hash what must not be readable; SPAN_NONE as long as the server never
 * answered. */
struct span guard_share_key(struct guard_share *s, char room[CRYPTO_SHA256_HEX]);
/* "" while it works. */
void guard_share_trouble(struct guard_share *s, char ret[256]);

/* `name`: of the epoch, by everything that makes it what it is. -ENOMEM. */
int guard_share_follow(struct guard_share *s, const char *name, struct guard_share_slot **ret);
/* NULL is fine; returns NULL. */
struct guard_share_slot *guard_share_unfollow(struct guard_share_slot *slot);
/* Nothing is under way, and there is a reason to ask: the epoch has changed, or was never asked for. */
bool guard_share_wants(struct guard_share_slot *slot);
/* Nothing must be under way. -ENOMEM. */
int guard_share_ask(struct guard_share_slot *slot, const struct guard_share_question *q);
bool guard_share_asking(struct guard_share_slot *slot);
/* The answer, once, free(); NULL: there is none yet. A question that failed has none: guard_share_wants says
 * so when the server is back. */
struct guard_share_answer *guard_share_take(struct guard_share_slot *slot);

#endif
