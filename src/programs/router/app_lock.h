/*
 * Lock: one router per data folder. Two would share addresses and databases without knowing each other's
 * pins.
 */
#ifndef PROGRAMS_ROUTER_APP_LOCK_H
#define PROGRAMS_ROUTER_APP_LOCK_H

#include "base/err.h"

/* The lock may be held by several processes for a moment: who takes over gets a duplicate of the descriptor,
 * and the old one closes his. So nobody else can have it in between. */

/* Locks <data_dir>/router.lock until the descriptor is closed or the process ends, however it ends. *ret_fd
 * is -1 when the file cannot be made or its file system knows no locks, which is logged. -EBUSY with the
 * other's process id when the folder is in use. */
int app_lock(const char *data_dir, int *ret_fd, struct err *e);
void app_lock_own(const char *data_dir, int fd); /* it is this process's, whoever locked it; fd may be -1 */

#endif
