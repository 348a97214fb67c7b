/*
 * Standing window: the report that a standing is made of, over the last 15 minutes.
 *
 * Why:       an operation whose percentage was set within the window is measured from then on, to the
 *            microsecond: what it was before says nothing of what is set now.
 * Threads:   any; reads with a connection of its own.
 */
#ifndef STANDING_STANDING_WINDOW_H
#define STANDING_STANDING_WINDOW_H

#include "standing/standing.h"

/* `f` may be NULL. Errors: report_make's. */
int standing_window(const char *path, const struct standing_facts *f, int64_t now_us, struct report **ret,
		    struct err *e);

/* The standing of the router that writes `path`: its row, the window, and standing_make. What cannot be
 * read is said by the standing. -ENOMEM. */
int standing_read(const char *path, int64_t now_us, struct standing **ret);
/* The same with what the router knows now. Takes `f` over. */
int standing_of(const char *path, struct standing_facts *f, int64_t now_us, struct standing **ret);

#endif
