/*
 * Which processes drive workflows now: each holds a lock on one byte of a file beside workflows.db, at a
 * random offset, its number. The kernel drops it with the process, however that ends; so it is certain that a
 * number whose byte is free drives nothing any more, without any clock.
 *
 * Threads:  one.
 * Errors:   -errno with a sentence.
 */
#ifndef TASKS_DRIVER_DRIVER_LOCK_H
#define TASKS_DRIVER_DRIVER_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct driver_lock {
	int fd;
	int64_t number; /* >0 */
};

int driver_lock_take(const char *path, struct driver_lock *ret, struct err *e);
void driver_lock_drop(struct driver_lock *l);
/* Whether a process with this number lives; true also when that cannot be told. */
bool driver_lock_lives(const struct driver_lock *l, int64_t number);

#endif
