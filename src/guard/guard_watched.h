/*
 * Guard watched: one operation as the guard has it, in memory and in outcomes.db. Private to guard*.c.
 *
 * Threads:   under the guard's lock; the functions are the recorder's thread's.
 * Errors:    db.h's.
 */
#ifndef GUARD_GUARD_WATCHED_H
#define GUARD_GUARD_WATCHED_H

#include "guard/entity_set.h"
#include "guard/guard.h"
#include "guard/guard_share.h"
#include "guard/guard_store.h"
#include "guard/guard_waiting.h"

struct guard_watched {
	struct guard_expected expected;
	bool announced;		/* expected is newer than what the file was compared with */
	int64_t announced_us;	/* when it came into force */
	char release[160];	/* asked for manually: the word on it; "" when not */
	struct guard_epoch now; /* row 0: none */
	struct entity_set seen, bad;
	bool entities_known; /* the sets hold what the file does: read when first needed */
	bool handled;	     /* what was asked has been done, in a transaction that has not ended yet */
	int64_t limit_looked_us, limit_pause_us;
	bool dirty;

	/* Replicas; nothing of it is used without (guard_joint.h). */
	struct guard_share_slot *slot; /* of `slot_name`; NULL: none */
	char slot_name[GUARD_SHARE_NAME], left[GUARD_SHARE_NAME];
	struct guard_joint joint;
	bool joint_there, joint_dirty;
	bool more;			   /* the log goes on */
	bool hears, heard;		   /* all of it since the start; heard: committed */
	char moved[160];		   /* another replica has begun it anew: the word on it */
	int64_t moved_to;		   /* its generation */
	struct guard_event *out;	   /* waiting, in their order */
	size_t n_out, room_out, n_applied; /* applied: of them, alone */
	struct entity_set waiting;	   /* the same, to be found */
	uint64_t out_serial;		   /* of this list: changes when it is read anew */
};

void guard_forget(struct guard_watched *w); /* of its epoch; who follows it goes on */
int guard_know_entities(struct guard_store *s, struct guard_watched *w, struct err *e);
/* Whether the epoch has it already, or it does not count. guard_know_entities came before. */
bool guard_watched_has(const struct guard_watched *w, const struct guard_event *event);
/* Adds it to the evidence and the file, unless it is there. */
int guard_watched_apply(struct guard_store *s, struct guard_watched *w, const struct guard_event *event,
			int64_t now_us, struct err *e);

#endif
