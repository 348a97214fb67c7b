/*
 * Aging: the time that rules which delete by age go by.
 *
 * Why:       the wall clock may step: +60 days for a few seconds made everything look old and deleted it. Age
 *            is what this process has seen pass, by the monotonic clock; a step forward of the wall clock
 *            counts only once it has persisted for a day. A step back is followed at once: it deletes less.
 * Begins:    at the newest time in the file, when that is in the past: a process started under a wrong clock
 *            must not believe it either. After a long pause deleting waits for that day, too.
 * Threads:   one at a time.
 */
#ifndef BASE_AGING_H
#define BASE_AGING_H

#include <stdbool.h>
#include <stdint.h>

#define AGING_SLACK_US (600 * 1000000LL)	 /* a step that is taken at once */
#define AGING_CONFIRM_US (24 * 3600 * 1000000LL) /* how long a step forward must persist */

struct aging {
	const char *what;   /* for the log: whose data */
	int64_t now_us;	    /* by which age is judged */
	int64_t mono_us;    /* when that was */
	int64_t stepped_us; /* monotonic time of the last step seen */
	int64_t ahead_us;   /* how far the wall clock is ahead of now_us and not yet believed */
};

/* `newest_us`: wall time of the newest thing that will be judged, 0 = nothing is there. `what` is
 * borrowed. */
void aging_begin(struct aging *a, const char *what, int64_t newest_us);
/* Wall time (us) to compare stamps with. Logs `clock_stepped` when it begins to disbelieve the wall clock. */
int64_t aging_now(struct aging *a);
/* Whether the wall clock has not stepped for a day, so that stamps to come are wrong ones. */
bool aging_settled(const struct aging *a);

/* The same with clocks that are given. */
void aging_begin_at(struct aging *a, const char *what, int64_t newest_us, int64_t wall_us, int64_t mono_us);
int64_t aging_now_at(struct aging *a, int64_t wall_us, int64_t mono_us);

#endif
