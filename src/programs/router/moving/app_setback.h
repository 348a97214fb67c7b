/*
 * The guard's writes (`guard: {write: true}`): what is held after a breach is set back where the flags are.
 *
 * Shape:     for each operation that is held after a breach and may write, an entry that lives as long as the
 *            hold of that epoch. It is tried at once, after a failure again (1 s, doubled up to a minute),
 *            and once a minute as long as the hold lasts: whoever puts the breached percentage back meets it
 *            again.
 * Threads:   the control thread's; the writing is the mover's.
 */
#ifndef PROGRAMS_ROUTER_MOVING_APP_SETBACK_H
#define PROGRAMS_ROUTER_MOVING_APP_SETBACK_H

#include "base/buf.h"
#include "base/err.h"
#include "guard/guard_verdict.h"

struct app;
struct app_setback;

int app_setback_start(struct app *a, struct err *e); /* after the mover */
void app_setback_stop(struct app *a);		     /* after the mover has ended what ran */
/* What is held now. */
void app_setback_look(struct app *a, const struct guard_verdicts *now);
/* After a reload: who may write may be another one. */
void app_setback_review(struct app *a);
/* "guard_writes":[…]: those that are wanted, and what became of them; false while one fails. */
bool app_setback_put(struct app *a, struct buf *json);

#endif
