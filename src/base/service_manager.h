/*
 * Tells the service manager that started this process (systemd): ready, reloading, stopping, alive. Without
 * one, nothing happens.
 *
 * Why:       with Type=notify, dependents start once a service serves, and a watchdog ends one that hangs.
 *            The protocol is a datagram to $NOTIFY_SOCKET (sd_notify(3), sd_watchdog_enabled(3)): too small
 *            to depend on libsystemd.
 * Errors:    are logged, and change nothing.
 * Threads:   the one that sets the environment.
 */
#ifndef BASE_SERVICE_MANAGER_H
#define BASE_SERVICE_MANAGER_H

#include <stdbool.h>

#include "base/loop.h"

/* Serving, as the main process: whoever took over from another one is that now. */
void service_manager_ready(void);
void service_manager_reloading(void);
void service_manager_reloaded(bool refused); /* serving again, as before when it was refused */
void service_manager_stopping(void);

/* Tells that the process is alive whenever `alive` says so (NULL: always), three times as often as it must.
 * *ret is NULL where no watchdog is wanted. -ENOMEM. */
struct watchdog;
int watchdog_new(struct loop *loop, bool (*alive)(void *arg), void *arg, struct watchdog **ret);
struct watchdog *watchdog_free(struct watchdog *w); /* NULL is allowed; returns NULL */

#endif
