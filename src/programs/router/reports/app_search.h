/*
 * Requests, errors and organizations, as this router recorded them: /_admin/requests.json, errors.json and
 * organizations.json.
 */
#ifndef PROGRAMS_ROUTER_REPORTS_APP_SEARCH_H
#define PROGRAMS_ROUTER_REPORTS_APP_SEARCH_H

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

/* For admin_content.search: what migration-status prints with --json. Parameters: since, until, service,
 * operation, org, user, request, task, side, result, backend, status, error, failed, before, limit, part (of
 * organizations' names). Runs on a thread of the pool. 0, or an HTTP status with the sentence in e. */
int app_search(void *arg, struct span target, struct buf *json, struct err *e);

#endif
