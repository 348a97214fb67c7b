/*
 * Guard waiting: the tables of outcomes.db that only a router with replicas uses.
 *
 *   guard_joint     per epoch: its place in what replicas share (guard/guard_share.h)
 *   guard_waiting   first events that the server has not acknowledged
 *
 * Why:       an event is written in the transaction of its outcome, so that a kill neither loses it nor sends
 *            it for nothing. Beside the guard's other tables, which older programs go on using.
 * Threads:   as the database.
 * Errors:    db.h's.
 */
#ifndef GUARD_GUARD_WAITING_H
#define GUARD_GUARD_WAITING_H

#include "base/db.h"
#include "guard/guard_share.h"

/* All zeros: nothing was shared of it yet. */
struct guard_joint {
	int64_t generation; /* 0: not in any yet */
	int64_t ends;	    /* then: the generation that is to end, of a release; 0: whichever is there */
	char born[CRYPTO_ID_HEX]; /* of the log that was read */
	int64_t next;		  /* what is to be read of it */
	int64_t began_us;	  /* the generation, by the server's clock */
	int64_t breached_us;	  /* some replica has found a breach; 0: none has */
	double keeps;
	char by[64]; /* which; "": this one */
};

struct guard_waiting;

int guard_waiting_new(struct db *db, struct guard_waiting **ret, struct err *e);
struct guard_waiting *guard_waiting_free(struct guard_waiting *w); /* NULL is fine; returns NULL */

/* 1, or 0 when nothing was shared of the epoch; *ret is zeroed then. */
int guard_waiting_load(struct guard_waiting *w, int64_t epoch_row, struct guard_joint *ret, struct err *e);
int guard_waiting_put(struct guard_waiting *w, int64_t epoch_row, const struct guard_joint *j, struct err *e);
/* In the order in which they were added. fn: 0, or -errno, which ends it. */
int guard_waiting_each(struct guard_waiting *w, int64_t epoch_row,
		       int (*fn)(void *arg, const struct guard_event *event), void *arg, struct err *e);
int guard_waiting_add(struct guard_waiting *w, int64_t epoch_row, const struct guard_event *event,
		      struct err *e);
int guard_waiting_remove(struct guard_waiting *w, int64_t epoch_row, const struct guard_event *event,
			 struct err *e);
/* Of epochs that are not there, or not the last of their operation any more. */
int guard_waiting_tidy(struct guard_waiting *w, struct err *e);

/* For readers: who found the breach of an epoch. "" where nobody else did, or there is no such table. */
int guard_waiting_finder(struct db *db, int64_t epoch_row, char ret[64], struct err *e);

#endif
