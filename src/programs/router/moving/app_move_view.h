/*
 * What the page "Move" shows before anything is asked for: taken on the control thread, worked out on the
 * page's.
 *
 * Ownership: the view owns all it points to.
 */
#ifndef PROGRAMS_ROUTER_MOVING_APP_MOVE_VIEW_H
#define PROGRAMS_ROUTER_MOVING_APP_MOVE_VIEW_H

#include "page/page_move.h"
#include "router/admin.h"

struct app;
struct move_view;

/* NULL: out of memory. */
struct move_view *move_view_take(struct app *a, const struct admin_reader *reader);
/* Evaluates each flag for everybody made up: tens of milliseconds for each. */
const struct page_move *move_view_make(struct move_view *v);
struct move_view *move_view_free(struct move_view *v); /* NULL is allowed; returns NULL */

#endif
