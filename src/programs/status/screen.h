/*
 * Screen: how a report goes to standard output: as it is, or, on a terminal, with its first line in the
 * color of its level, lines broken at the terminal's width, and, when it is shown again and again, no more
 * lines than there is room for, so that the first one stays.
 */
#ifndef PROGRAMS_STATUS_SCREEN_H
#define PROGRAMS_STATUS_SCREEN_H

#include <stdbool.h>

#include "base/buf.h"
#include "standing/standing.h"

struct screen {
	bool terminal, color;	/* color: a terminal that has some, and nobody set NO_COLOR */
	unsigned columns, rows; /* 0: not a terminal */
};

void screen_look(struct screen *ret);
/* `again`: in place of what was there. `level` colors the first line. */
void screen_put(const struct screen *s, enum standing_level level, bool headline, bool again,
		const struct buf *text);

#endif
