/*
 * Where the migration stands, as the running router knows it: its facts, every few seconds and at each
 * change; the row and the events that follow from them; what /readyz and /_admin/standing.json say.
 * Private to app*.c.
 */
#ifndef PROGRAMS_ROUTER_APP_STANDING_H
#define PROGRAMS_ROUTER_APP_STANDING_H

#include "outcomes/events.h"
#include "programs/router/app_internal.h"
#include "standing/standing.h"

/* Before the recorder, which gets the two taps. */
int app_standing_start(struct app *a, struct recorder_tap *ret_row, struct recorder_tap *ret_events,
		       struct err *e);
/* Everything it asks is there from now on. */
void app_standing_begin(struct app *a);
/* Looks at what is known now; to be called whenever something may have changed. On the control thread. */
void app_standing_look(struct app *a);
void app_standing_quiet(struct app *a); /* another process has taken over: it reports from now on */
void app_standing_end(struct app *a);	/* the last word; before the recorder stops */
void app_standing_free(struct app *a);	/* after it has */

/* What someone did: start, reload, a move. time_us 0: now. */
void app_standing_tell(struct app *a, enum event_kind kind, const char *what, const char *why);
struct events *app_standing_events(struct app *a);
/* How often what is known has changed since the start. On the control thread. */
uint64_t app_standing_changes(const struct app *a);

/* The standing now, with what was recorded. Reads a database: not on the control thread. -ENOMEM. */
int app_standing_now(struct app *a, struct standing **ret);
/* "standing":{…} of the last look at what was recorded (every 10 s), for /readyz; false: its level is
 * stop. */
bool app_standing_put(struct app *a, struct buf *json);

#endif
