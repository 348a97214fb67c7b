/*
 * Between the two halves of `check`: the application as far as a check needs it, and the running of one task.
 */
#ifndef APP_CHECK_H
#define APP_CHECK_H

#include "app.h"
#include "app_status.h"

/* Runs the task of one operation and prints what became of it. The exit code. */
int app_check_test(struct app *a, const struct app_check *how);

#endif
