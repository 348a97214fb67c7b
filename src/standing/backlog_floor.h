/*
 * Backlog floor: the fewest tasks that were waiting at a queue over the last minutes. Pure.
 *
 * Why:       a long queue says little (a burst is gone in a minute); one that never gets short says that
 *            its workers cannot keep up, and that everybody waits behind it. CoDel goes by
 *            the least delay of an interval in the same way (RFC 8289, section 3.2).
 */
#ifndef STANDING_BACKLOG_FLOOR_H
#define STANDING_BACKLOG_FLOOR_H

#include <stdbool.h>
#include <stdint.h>

#define BACKLOG_FLOOR_MS 300000 /* it is the floor of one to two of these */

/* Zeroed before the first look. */
struct backlog_floor {
	bool begun, whole; /* whole: `older` is the floor of an interval */
	int64_t older, newer;
	int64_t began_ms; /* of `newer` */
};

/* What was seen now; -1: not known, and it begins anew. now_ms: monotonic. */
void backlog_floor_note(struct backlog_floor *f, int64_t backlog, int64_t now_ms);
/* -1: not yet known. */
int64_t backlog_floor(const struct backlog_floor *f);

#endif
