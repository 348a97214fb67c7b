/*
 * App: the composition root. The only part that sees every other; it binds them and owns their lives.
 */
#ifndef PROGRAMS_ROUTER_APP_H
#define PROGRAMS_ROUTER_APP_H

#include <stdbool.h>

#include "base/err.h"

/* Runs the router until SIGTERM or SIGINT; returns the exit code. Errors at start are written to standard
 * error, one line per mistake, with file, line and key. `take_over`: from the router that works in the
 * data folder, if there is one. */
int app_serve(const char *config_path, bool take_over);

/* `check FILE`, `--backends`, `--test SERVICE.OPERATION`: exit codes 0 fine, 1 something is missing or
 * failed, 2 configuration. */
struct app_check {
	const char *config_path;
	bool backends;
	const char *service, *backend; /* only these in the table of backends; NULL: all */
	const char *test;	       /* "service.operation", or NULL */
	const char *body;	       /* JSON, @FILE, or NULL */
	const char *user, *organization;
};
int app_check(const struct app_check *how);

#endif
