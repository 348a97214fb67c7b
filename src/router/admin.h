/*
 * Admin listener: health, metrics, report and the dashboard's files. On the control thread's loop, loopback by default.
 *
 * Why:       what is shown is told by who composes the program (callbacks), so that this file knows HTTP and nothing else.
 *
 *   GET /healthz              200 while the control loop turns
 *   GET /readyz               200 or 503 and JSON: what is needed and what is missing
 *   GET /metrics              Prometheus text 0.0.4
 *   GET /_admin/report.json   migration-status --json; ?since=…&service=…&operation=…&org=…
 *   GET /_admin/flags         source, digest and age of the snapshot in use
 *   GET /                     the dashboard: files of `files` (only plain names, no folders)
 */
#ifndef ROUTER_ADMIN_H
#define ROUTER_ADMIN_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"
#include "router/config.h"

struct admin;

struct admin_content {
	void *arg;
	bool (*ready)(void *arg, struct buf *json); /* false: 503 */
	void (*metrics)(void *arg, struct buf *text);
	void (*flags)(void *arg, struct buf *json);
	/* Runs on another thread, since it reads a database. `target` is the raw request target. 0, or an HTTP status with the
	 * sentence in e. */
	int (*report)(void *arg, struct span target, struct buf *json, struct err *e);
};

int admin_start(struct loop *loop, const char *address, const struct auth *auth, const char *files,
		const struct admin_content *content, struct admin **ret, struct err *e);
unsigned admin_port(const struct admin *a);
struct admin *admin_stop(struct admin *a);

#endif
