/*
 * Whether a side is still used, as this router recorded it: /_admin/drain.json.
 *
 * Threads:   any but the loop's: it reads databases.
 */
#ifndef PROGRAMS_ROUTER_REPORTS_APP_DRAIN_H
#define PROGRAMS_ROUTER_REPORTS_APP_DRAIN_H

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

/* As a report (router/admin.h); `arg` is the struct app. */
int app_drain(void *arg, struct span target, struct buf *json, struct err *e);

#endif
