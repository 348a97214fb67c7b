/*
 * Access log: a line per attempt, to a file or standard error, written by a thread of its own.
 *
 * Why:       a full disk, a stalled pipe or a slow file system must not stop those who serve.
 * Threads:   write from any; it copies into memory and never waits for the file. The others from the control
 *            thread.
 * Limits:    ACCESS_LOG_PENDING bytes wait; what comes beyond is dropped and counted, and the log says so
 *            once per outage.
 */
#ifndef ROUTER_REQUEST_ACCESS_LOG_H
#define ROUTER_REQUEST_ACCESS_LOG_H

#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

#define ACCESS_LOG_PENDING (1u << 20)

struct access_log;

int access_log_start(struct access_log **ret, struct err *e);
/* Where lines go from now on; NULL: standard error. The file is reopened, even under the same name (for
 * rotation), and made when it is not there. -errno with a sentence; then it stays as it was. */
int access_log_open(struct access_log *l, const char *path, struct err *e);
void access_log_write(struct access_log *l, struct span line); /* with its newline */
uint64_t access_log_dropped(const struct access_log *l);
/* writes what waits, for two seconds at most. NULL is allowed */
struct access_log *access_log_stop(struct access_log *l);

#endif
