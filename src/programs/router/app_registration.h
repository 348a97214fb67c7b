/*
 * Registration: whether the task of each operation would be run on every backend that it may reach.
 *
 * Why:       a task that nobody knows waits until its time limit; that is better said before the first
 *            request than after it.
 * Shape:     one entry per operation and backend. A round asks every backend on its own, one task after the
 *            other, so that neither workers are flooded nor one backend waits for another. A backend that
 *            cannot be reached is asked once a round.
 * Threads:   the control loop's.
 * Ownership: holds its own reference to the configuration; uses the clients of app_clients_start. To be freed
 *            after them.
 */
#ifndef PROGRAMS_ROUTER_APP_REGISTRATION_H
#define PROGRAMS_ROUTER_APP_REGISTRATION_H

#include "programs/router/app_internal.h"

struct registration;

struct registration_entry {
	const struct operation *operation;
	struct span backend;
	/* what leads there: operation, default, variant; or "flag": only a flag's variant that names it
	 * would */
	const char *by;
	bool needed; /* not only by a flag */
	bool asked;  /* `now` is known */
	struct task_check now;
};

/* Clients of all backends on the control loop, a->health[].client. Freed by app_status_stop. */
int app_clients_start(struct app *a, struct err *e);

/* Looks at the configuration; asks nobody. */
int registration_new(struct app *a, const struct config *c, struct registration **ret, struct err *e);
/* not while a round is on, unless the clients are gone; NULL is allowed */
struct registration *registration_free(struct registration *r);

/* A round of each backend that is not in one: a slow backend delays nobody's but its own. `done` is called at
 * the end of each, perhaps within the call. */
void registration_ask(struct registration *r, void (*done)(void *arg), void *arg);
bool registration_asking(const struct registration *r); /* some backend is in a round */
/* Runs the loop until the round has ended or the time is over; what was not answered by then says so. */
void registration_ask_now(struct registration *r, unsigned limit_ms);

const struct config *registration_config(const struct registration *r);
size_t registration_count(const struct registration *r);
const struct registration_entry *registration_at(const struct registration *r, size_t i);
/* Asked, and something is missing. */
bool registration_lacks(const struct registration_entry *entry);

#endif
