/*
 * Asked: which context properties a flag's segments use.
 *
 * Why:       whoever judges recorded identities must know where an answer depends on something that was not
 *            recorded.
 * Threads:   pure; the snapshot is immutable.
 */
#ifndef FLAGS_ASKED_H
#define FLAGS_ASKED_H

#include "flags/flags.h"

#define FLAG_ASKED_VALUE_MAX 256

struct flag_asked {
	struct span segment;
	struct span property;		  /* SPAN_NONE: the entity id */
	bool holds_without;		  /* whether the constraint holds when there is no value */
	bool has_value;			  /* false: no value is known to change that */
	char value[FLAG_ASKED_VALUE_MAX]; /* a value with which it is the opposite */
};

/* Once for every constraint of every segment that a rule or rollout names, in the order of the rules; a
 * segment named twice is reported twice. */
void flag_each_asked(const struct flag *f, void (*fn)(void *arg, const struct flag_asked *asked), void *arg);

#endif
