/*
 * Takeover: a new router process takes the place of the one that runs, and nobody is refused, reset or
 * answered twice.
 *
 * Order:     new                                            old
 *              reads its configuration, finds the lock held
 *              connects to the control socket, asks     →     ledger: from now on the file is asked
 *                                                       ←     the listening sockets and the lock, duplicated
 *                                                             (SCM_RIGHTS)
 *              starts everything; its listeners wait          serves on
 *              waits for flags, asks the backends once
 *              accepts, says which sockets it took      →     leaves these at once, drains what it has, gives
 *                                                             up the lock, ends
 * Before the last step nothing has changed for the old one: if the new one fails, says so, or is killed, it
 * serves on. If the old one is killed, the new one has all it needs, and continues.
 *
 * Why:       a handed-over socket keeps its queue. With SO_REUSEPORT alone the new process would have a queue
 *            of its own, and what waits in the old one's when it closes would be reset.
 * Threads:   the control loop's.
 */
#ifndef PROGRAMS_ROUTER_APP_TAKEOVER_H
#define PROGRAMS_ROUTER_APP_TAKEOVER_H

#include "programs/router/app_internal.h"

struct takeover;

/* The lock of the data folder: free, or taken over when `wanted`. -EBUSY when another router works there.
 * `taken_over` is called, once, when a later process has taken this one's place: it is to drain. */
int takeover_lock(struct app *a, bool wanted, void (*taken_over)(struct app *a), struct err *e);
/* Everything has started: waits for what the old router may know already, accepts, and lets the old one go.
 * Then, taken over or not, opens the control socket. */
int takeover_serve(struct app *a, struct err *e);
void takeover_failed(struct app *a, const struct err *why); /* tells the old one, which serves on */

/* A process that is taking over at present, or 0. */
pid_t takeover_under_way(const struct app *a);
/* This process is to end, be it while another one takes over: what is offered is that one's from here on. */
void takeover_leave(struct app *a);
void takeover_stop(struct app *a);

#endif
