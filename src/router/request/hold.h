/*
 * Hold: where requests wait for the word of their backend's breaker before they are submitted.
 *
 * Why:       while nothing tells whether a backend still answers, no more than a few submissions may wait for
 *            it; those behind them have not been submitted yet, so that legacy can still serve them
 *            (router/breaker.h). On a healthy backend that lasts as long as one of its answers.
 *            Here, too, those are counted that a backend has in flight, so that it gets no more than it may.
 * Order:     first come, first served, for each backend of a plane.
 * Threads:   the plane's own. What another plane learns is seen by asking again, every BREAKER_ASK_MS.
 */
#ifndef ROUTER_REQUEST_HOLD_H
#define ROUTER_REQUEST_HOLD_H

#include "router/request/request.h"

int hold_init(struct plane *p);
void hold_release(struct plane *p); /* at its end: nobody that is held continues */

/* Asks for r->backend, whose pass r->pass becomes; calls `fn` with the word, perhaps within the call. Pins
 * and overrides do not ask the breaker, but have a place in flight like all. */
void hold_ask(struct request *r, void (*fn)(struct request *r, enum hold_word word));
void hold_leave(struct request *r); /* its caller left, or nothing */
/* How r->pass ended; `why` may be NULL. Those that were held for it continue. */
void hold_end(struct request *r, enum breaker_end how, const char *why);

/* A place in flight at a backend: false, and counted, when it is full. For a shadow that is when half of them
 * are taken: nobody waits for it, and it leaves room for those that somebody waits for. */
bool hold_take_place(struct plane_backend *b, bool shadow);
void hold_give_place(struct plane_backend *b);

#endif
