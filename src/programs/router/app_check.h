/*
 * Between the two halves of `check`: the application as far as a check needs it, and the running of one task.
 */
#ifndef PROGRAMS_ROUTER_APP_CHECK_H
#define PROGRAMS_ROUTER_APP_CHECK_H

#include "programs/router/app.h"
#include "programs/router/app_internal.h"

/* Runs the task of one operation and prints what became of it. The exit code. */
int app_check_test(struct app *a, const struct app_check *how);

#endif
