/*
 * App: the composition root. The only part that sees every other; it binds them and owns their lives.
 */
#ifndef APP_H
#define APP_H

#include "base/err.h"

/* Runs the router until SIGTERM or SIGINT; returns the exit code. Errors at start are written to standard error, one line
 * per mistake, with file, line and key. */
int app_serve(const char *config_path);

#endif
