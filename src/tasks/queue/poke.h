/*
 * Poke: processes that share a tasks.db wake each other through datagram sockets in a folder next to it.
 *
 * Why:       a task starts and its result arrives within a millisecond instead of at the next poll. A poke
 *            carries nothing: what happened is read from the file, so a lost one only costs time until the
 *            poll.
 * Shape:     <database>.poke/ (mode 0700) holds one socket per process, named by role, pid and chance. Who
 *            dies leaves its socket behind; the next who pokes it finds nobody there and removes it.
 * Threads:   one thread per poke.
 */
#ifndef TASKS_QUEUE_POKE_H
#define TASKS_QUEUE_POKE_H

#include "base/err.h"

enum poke_role { POKE_ROUTER = 'r', POKE_WORKER = 'w' };

struct poke;

int poke_open(const char *database, enum poke_role role, struct poke **ret, struct err *e);
struct poke *poke_close(struct poke *p); /* NULL is allowed; returns NULL */

int poke_fd(const struct poke *p); /* readable when poked */
void poke_drain(struct poke *p);
/* Wakes everybody of that role. Never blocks, never fails. */
void poke_all(struct poke *p, enum poke_role role);

#endif
