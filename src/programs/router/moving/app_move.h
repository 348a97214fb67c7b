/*
 * Changes to percentages that the router makes: for people who ask at the admin listener, and for the guard.
 *
 * Why:       ties move/ to the listener, the guard, the log and the events; nothing of it runs on this thread
 *            but the asking and the telling.
 * Threads:   the control thread's.
 */
#ifndef PROGRAMS_ROUTER_MOVING_APP_MOVE_H
#define PROGRAMS_ROUTER_MOVING_APP_MOVE_H

#include "base/err.h"
#include "move/mover.h"
#include "router/admin.h"

struct app;

int app_move_start(struct app *a, struct err *e);
void app_move_stop(struct app *a); /* before the admin listener, which waits for answers */

/* admin_content.change; `arg` is the struct app. */
void app_move_change(void *arg, struct admin_change *c);

/* In the log, and as an event. `result`: a move_result, or -errno with `why`. */
void app_move_tell(struct app *a, const struct move_request *q, int result, const char *why);

#endif
