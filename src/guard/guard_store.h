/*
 * Guard store: the guard's tables in outcomes.db.
 *
 *   guard_epochs    one row per epoch of an operation: its split, verdict, hold, and the evidence
 *   guard_entities  the entities that the present epochs have seen, by hash, with the kinds of their bad
 *                   events
 *
 * Why:       a restart, kill -9 and a second process (a takeover) find the same evidence. The tables are next
 *            to the others without a new version of the schema, so that an older program can still use the
 *            file.
 * Threads:   as the database.
 * Errors:    db.h's.
 */
#ifndef GUARD_GUARD_STORE_H
#define GUARD_GUARD_STORE_H

#include "base/db.h"
#include "guard/entity_set.h"
#include "guard/guard_evidence.h"

#define GUARD_EPOCHS_KEPT 50 /* of an operation; older ones go */

struct guard_epoch {
	int64_t row;	/* 0: none has begun */
	int64_t number; /* from 1 */
	uint64_t split; /* decide_split's (router/decide.h) */
	struct guard_rule rule;
	double slow_factor; /* 0: `slow` is not judged */
	enum guard_mode mode;
	int64_t began_us, changed_us, held_us; /* held_us: 0 when it is not held */
	int64_t limit_us;		       /* of `slow`; 0: none yet */
	double keeps;			       /* as in a verdict */
	enum guard_verdict verdict;
	char because[160];
	unsigned seen_level, bad_level; /* entity_set.h */
	struct guard_evidence evidence;
};

struct guard_store;

/* Makes the tables that are not there. The database stays the caller's. */
int guard_store_new(struct db *db, struct guard_store **ret, struct err *e);
struct guard_store *guard_store_free(struct guard_store *s); /* NULL is allowed; returns NULL */

/* The last epoch of an operation: 1, or 0 if there is none. */
int guard_store_load(struct guard_store *s, const char *service, const char *operation,
		     struct guard_epoch *ret, struct err *e);
/* Calls fn for each entity of an epoch. fn: 0, or -errno, which ends it. */
int guard_store_each_entity(struct guard_store *s, int64_t epoch_row,
			    int (*fn)(void *arg, uint64_t entity, uint8_t bits), void *arg, struct err *e);

/* A new epoch: fills in row and number; the entities of those before go. */
int guard_store_begin(struct guard_store *s, const char *service, const char *operation,
		      struct guard_epoch *epoch, struct err *e);
int guard_store_put(struct guard_store *s, const struct guard_epoch *epoch, struct err *e);
int guard_store_put_entity(struct guard_store *s, int64_t epoch_row, uint64_t entity, uint8_t bits,
			   struct err *e);
/* Takes `bits` from the entities of an epoch that do not count at this level; none left: the entity goes. */
int guard_store_thin(struct guard_store *s, int64_t epoch_row, unsigned level, uint8_t bits, struct err *e);

/* The task side's share in the last epoch before this one that was safe; 0: none was. */
int guard_store_last_safe(struct guard_store *s, const char *service, const char *operation, int64_t number,
			  double *ret, struct err *e);
/* Legacy's p99 of successes since that minute, µs; 0 when there are fewer than `least`. */
int guard_store_legacy_p99(struct guard_store *s, const char *service, const char *operation,
			   int64_t since_minute, uint64_t least, int64_t *ret_us, struct err *e);
/* Differs once another connection has written. */
int guard_store_data_version(struct guard_store *s, int64_t *ret, struct err *e);

/* For readers (guard_verdict.c): the columns of a row of GUARD_EPOCH_COLUMNS, service and operation apart. */
#define GUARD_EPOCH_COLUMNS \
	"id, epoch, split, mode, began_us, changed_us, held_us, limit_us, verdict, because, seen_level, " \
	"bad_level, evidence"
void guard_store_read_epoch(struct db_stmt *q, int first, struct guard_epoch *ret);
/* guard_verdict.c: fills in all but the operation's names and mode; nothing when no epoch has begun. */
void guard_verdict_of_epoch(const struct guard_epoch *epoch, int64_t now_us,
			    struct guard_operation_verdict *v);

#endif
