/*
 * Hold: where requests wait for the word of their backend's breaker before they are submitted.
 *
 * Why:       while nothing tells whether a backend still answers, no more than a few submissions may wait for
 *            it; those behind them have not been submitted yet, so that legacy can still serve them
 *            (router/breaker.h). On a healthy backend that lasts as long as one of its answers.
 * Order:     first come, first served, for each backend of a plane.
 * Threads:   the plane's own. What another plane learns is seen by asking again, every BREAKER_ASK_MS.
 */
#ifndef ROUTER_REQUEST_HOLD_H
#define ROUTER_REQUEST_HOLD_H

#include "router/request/request.h"

int hold_init(struct plane *p);
void hold_release(struct plane *p); /* at its end: nobody that is held goes on */

/* Asks for r->backend, whose pass r->pass becomes; calls `fn` with the word, perhaps within the call. Nothing
 * is asked for pins and overrides. */
void hold_ask(struct request *r, void (*fn)(struct request *r, bool may_submit));
void hold_leave(struct request *r); /* its caller left, or nothing */
/* How r->pass ended; `why` may be NULL. Those that were held for it go on. */
void hold_end(struct request *r, enum breaker_end how, const char *why);

#endif
